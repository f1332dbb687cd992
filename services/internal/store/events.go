package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// Event is a message that a transaction emitted.
type Event struct {
	Tenant     string
	Revision   int64
	Index      int // place among the events of the revision, from 0
	CommitTime time.Time
	Caller     string
	Type       string // full name of the message
	Payload    []byte // the message in the protobuf wire format
}

// Events returns the tenant's events after a revision in order. A revision is
// returned whole or not at all, so that the revision of the last event can be the
// position to go on from; there can therefore be more than limit.
func (db *DB) Events(ctx context.Context, tenant string, afterRevision int64, limit int) ([]Event, error) {
	var events []Event
	err := db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		lo := bytes.Clone(tx.row(spaceEvent, afterRevision+1))
		start, hi := tx.rows(spaceEvent)
		for p := range tx.scan(lo, hi, false) {
			e, err := decodeEvent(p, len(start))
			if err != nil {
				return err
			}
			if n := len(events); n >= limit && events[n-1].Revision != e.Revision {
				break
			}
			e.Tenant = tenant
			events = append(events, e)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read events of %s: %w", tenant, err)
	}
	return events, nil
}

func decodeEvent(p Pair, prefix int) (Event, error) {
	revision, rest, ok := cutInt(p.Key[prefix:])
	index, _, ok2 := cutInt(rest)
	if !ok || !ok2 {
		return Event{}, fmt.Errorf("event row %x is malformed", p.Key)
	}
	row := &storepb.EventRow{}
	if err := proto.Unmarshal(p.Value, row); err != nil {
		return Event{}, err
	}
	return Event{
		Revision: revision, Index: int(index), CommitTime: row.GetCommitTime().AsTime(),
		Caller: row.GetCaller(), Type: row.GetType(), Payload: row.GetPayload(),
	}, nil
}

// Tenants returns the tenants that have anything in the store, in order.
func (db *DB) Tenants(ctx context.Context) ([]string, error) {
	var tenants []string
	lo, hi := tenantPrefix, after(tenantPrefix)
	for {
		some, err := db.someTenants(ctx, lo, hi)
		if err != nil {
			return nil, fmt.Errorf("read tenants: %w", err)
		}
		tenants = append(tenants, some...)
		if len(some) < chunk {
			return tenants, nil
		}
		lo = append(appendString(bytes.Clone(tenantPrefix), some[len(some)-1]), 0)
	}
}

func (db *DB) someTenants(ctx context.Context, lo, hi []byte) ([]string, error) {
	var tenants []string
	err := db.view(ctx, Origin{}, func(tx *Tx) error {
		for p := range tx.scan(lo, hi, false) {
			tenant, _, ok := cutString(p.Key[len(tenantPrefix):])
			if !ok {
				return fmt.Errorf("row %x is malformed", p.Key)
			}
			if tenants = append(tenants, tenant); len(tenants) == chunk {
				break
			}
		}
		return nil
	})
	return tenants, err
}

// Changes tells which tenants have changed. See [DB.Changed].
type Changes struct {
	of     *changes
	mu     sync.Mutex
	dirty  map[string]bool
	signal chan struct{} // holds a token while dirty is not empty
}

// Changed returns a listener that learns of each new revision from now on. To miss nothing,
// listen first and then read what is there. The caller must Stop it.
func (db *DB) Changed() *Changes {
	c := &Changes{of: &db.changes, dirty: map[string]bool{}, signal: make(chan struct{}, 1)}
	db.changes.mu.Lock()
	defer db.changes.mu.Unlock()
	if db.changes.closed {
		close(c.signal)
		return c
	}
	if db.changes.listeners == nil {
		db.changes.listeners = map[*Changes]bool{}
	}
	db.changes.listeners[c] = true
	return c
}

// Next waits until there is a revision that the last Next did not tell of, and returns
// the tenants that have one, in order. It returns the error of ctx when that
// ends, and ErrClosed when the store is closed.
func (c *Changes) Next(ctx context.Context) ([]string, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case _, open := <-c.signal:
		if !open {
			return nil, ErrClosed
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	tenants := make([]string, 0, len(c.dirty))
	for t := range c.dirty {
		tenants = append(tenants, t)
	}
	clear(c.dirty)
	slices.Sort(tenants)
	return tenants, nil
}

// Stop ends the listening.
func (c *Changes) Stop() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	delete(c.of.listeners, c)
}

// changes are the listeners of a DB.
type changes struct {
	mu        sync.Mutex
	listeners map[*Changes]bool
	closed    bool
}

func (cs *changes) add(tenant string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.listeners {
		c.mu.Lock()
		c.dirty[tenant] = true
		c.mu.Unlock()
		select {
		case c.signal <- struct{}{}:
		default: // the token is there
		}
	}
}

func (cs *changes) close() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.listeners {
		close(c.signal)
	}
	cs.listeners, cs.closed = nil, true
}
