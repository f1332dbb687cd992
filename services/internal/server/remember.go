package server

import (
	"context"

	"google.golang.org/grpc"

	"latchkey.dev/services/internal/lease"
)

// keeper is a cache that the process keeps current.
type keeper interface {
	Run(ctx context.Context) error
	WaitHeld(ctx context.Context) error
}

// maxRemembered is how many facts a part's cache has.
const maxRemembered = 10_000

// Remember makes a cache of what identity or permissions says, for a part that is being
// started. It is kept as true as what the process knows of its callers, by a lease of its
// own (package lease): a fact is gone from it when a write has returned that published one of the
// fact's tags. What says in the log which facts these are. Load asks the source in nobody's name. The process does not answer before it
// holds the lease.
func Remember[V any](e *Env, source, what string, load func(ctx context.Context, key string) (V, []string, error)) *lease.Cache[V] {
	p := e.process
	c := newCache(p, source, what, maxRemembered, load)
	p.keepers = append(p.keepers, c)
	return c
}

// newCache makes a cache of a source, for the process.
func newCache[V any](p *Process, source, what string, entries int, load func(context.Context, string) (V, []string, error)) *lease.Cache[V] {
	at := source
	if p.factsAt != "" {
		at = p.factsAt
	}
	return lease.NewCache(lease.CacheConfig[V]{
		Source: source, Subscriber: p.Name(), Load: load, MaxEntries: entries, Log: p.log.With("of", what),
		Dial:        func() grpc.ClientConnInterface { return p.dialer.conn(p.Name(), at) },
		DialReplica: func(address string) grpc.ClientConnInterface { return p.dialer.replica(p.Name(), at, address) },
	})
}
