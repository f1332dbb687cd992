package lease

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"latchkey.dev/services/internal/fault"
)

// flight is one load that any number of callers wait for.
type flight[V any] struct {
	done  chan struct{} // closed when entry and err are set
	entry *Entry[V]
	err   error
}

// fetch is Get when the fact is not in memory, or not to be relied on.
func (c *Cache[V]) fetch(ctx context.Context, key string) (*Entry[V], error) {
	if !c.hold.held() {
		return nil, c.lost // without meeting on mu
	}
	for range maxAttempts {
		e, f, err := c.seek(ctx, key)
		if err != nil {
			return nil, err
		}
		if f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if f.err != nil {
				return nil, f.err
			}
			e = f.entry
		}
		// It was true when its load ended, which may be a while ago.
		if e.Valid() {
			return e, nil
		}
	}
	return nil, c.lost
}

// seek returns the entry of the key, or the flight that will bring it. It starts the
// flight if there is none.
func (c *Cache[V]) seek(ctx context.Context, key string) (*Entry[V], *flight[V], error) {
	c.mu.Lock()
	e, f, err := c.known(key)
	c.mu.Unlock()
	if e != nil || f != nil || err != nil {
		return e, f, err
	}
	select {
	case c.places <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, f, err = c.known(key); e != nil || f != nil || err != nil {
		<-c.places // another was faster
		return e, f, err
	}
	f = &flight[V]{done: make(chan struct{})}
	c.flights[key] = f
	c.loads.Add(1) // under mu while the lease is held, so that Run has not begun to wait
	go c.fly(key, f)
	return nil, f, nil
}

// known returns the entry of the key, or the flight that is under way, or neither.
// c.mu is held.
func (c *Cache[V]) known(key string) (*Entry[V], *flight[V], error) {
	if !c.hold.held() {
		return nil, nil, c.lost
	}
	if e := c.index.get(key); e != nil {
		return e, nil, nil // not dropped: that would take mu
	}
	return nil, c.flights[key], nil
}

// fly carries a flight out. It has no caller's context: the first who waits may go
// away, and the others wait on.
func (c *Cache[V]) fly(key string, f *flight[V]) {
	defer c.loads.Done()
	defer c.land(key, f)
	f.err = errors.New("load did not return") // unless it does
	f.entry, f.err = c.bring(key)
}

// land ends a flight: who comes now starts another.
func (c *Cache[V]) land(key string, f *flight[V]) {
	c.mu.Lock()
	delete(c.flights, key)
	c.mu.Unlock()
	close(f.done)
	<-c.places
}

// start is what a load must know of the moment when it began, because what arrived
// since may have made its answer untrue.
type start struct {
	epoch    context.Context
	position uint64 // in Cache.recent
}

// begin notes the start of a load, if there is a lease.
func (c *Cache[V]) begin() (start, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hold.held() {
		return start{}, c.lost
	}
	return start{c.epoch, c.recent.next}, nil
}

// bring loads the fact of the key and keeps it, again as long as it changes meanwhile.
func (c *Cache[V]) bring(key string) (*Entry[V], error) {
	deadline := time.Now().Add(c.config.LoadTimeout)
	for range maxAttempts {
		s, err := c.begin()
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithDeadline(s.epoch, deadline)
		value, tags, err := c.load(ctx, key)
		late := ctx.Err() != nil
		cancel()
		switch {
		case s.epoch.Err() != nil:
			continue // everything was dropped, this with it
		case err != nil && late:
			return nil, fault.Unreachable(c.config.Source)
		case err != nil:
			return nil, err
		}
		if e := c.keep(s, key, value, tags); e != nil {
			return e, nil
		}
	}
	return nil, c.lost
}

// load calls Load. A panic in it is an error to those who wait, as it would be in
// their own goroutine, and does not end the process.
func (c *Cache[V]) load(ctx context.Context, key string) (value V, tags []string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("load from %s: panic: %v\n%s", c.config.Source, p, debug.Stack())
		}
	}()
	value, tags, err = c.config.Load(ctx, key)
	if err == nil && len(tags) == 0 {
		err = fmt.Errorf("load from %s: no tags, so its changes would not be noticed", c.config.Source)
	}
	return value, tags, err
}

// keep caches what a load brought, and returns nil if something that arrived since
// its start may have made it untrue.
//
// SECURITY: this is what keeps a value that was read before a revoke from being
// cached after the invalidation has passed.
func (c *Cache[V]) keep(s start, key string, value V, tags []string) *Entry[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.epoch.Err() != nil || !c.recent.knows(s.position) {
		return nil
	}
	for tag := range c.recent.since(s.position) {
		if slices.Contains(tags, tag) {
			return nil
		}
	}
	e := &Entry[V]{Value: value, key: key, tags: slices.Clone(tags), hold: c.hold}
	c.index.put(e)
	return e
}

// invalidate drops every fact with one of the tags, the answers to loads under way
// included. c.mu is held.
func (c *Cache[V]) invalidate(tags []string) {
	for _, tag := range tags {
		c.recent.add(tag)
		c.index.invalidate(tag)
	}
}

// dropAll drops every fact, the answers to loads under way included. c.mu is held.
func (c *Cache[V]) dropAll() {
	c.endEpoch()
	c.epoch, c.endEpoch = context.WithCancel(c.life)
	c.index.clear()
}
