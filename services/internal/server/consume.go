package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"

	"latchkey.dev/services/internal/store"
)

const (
	// firstPause and longestPause bound the time until a source that is away, or an
	// event that could not be handled, is tried again.
	firstPause   = 100 * time.Millisecond
	longestPause = 30 * time.Second
)

// growing returns a random pause that grows with the failures in a row.
func growing(failures int) time.Duration {
	ceiling := min(longestPause, firstPause<<min(failures, 10))
	return ceiling/2 + rand.N(ceiling/2)
}

// consumer handles the events of one source for one part. The events of a revision are
// handled in one transaction, in which the position is kept, so each takes effect once.
//
// A tenant whose events cannot be handled waits and is tried again; the events of the
// others are handled meanwhile.
type consumer struct {
	env    *Env
	source string
	handle EventHandler
	around EventWrapper
	types  []string
	pause  func(failures int) time.Duration

	away     int            // connections in a row that brought nothing
	failures map[string]int // in a row, of each tenant that waits
}

// run consumes until ctx ends.
func (c *consumer) run(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-time.After(c.connect(ctx)):
		case <-ctx.Done():
		}
	}
	return nil
}

// connect handles events until the connection to the source ends, or until it is time
// to try again what failed. It returns how long to wait before the next connection.
func (c *consumer) connect(ctx context.Context) time.Duration {
	ctx, tryAgain := context.WithCancel(ctx)
	defer tryAgain()
	err := c.follow(ctx, tryAgain)
	if ctx.Err() != nil {
		return 0
	}
	c.env.Log.Debug("events interrupted", "source", c.source, "error", err)
	c.away++
	return c.pause(c.away - 1)
}

// follow handles events until the connection ends.
func (c *consumer) follow(ctx context.Context, tryAgain func()) error {
	positions, err := c.env.Store.Positions(ctx, c.source)
	if err != nil {
		return err
	}
	stream, err := eventpb.NewEventServiceClient(c.env.Conn(c.source)).WatchEvents(ctx, &eventpb.WatchEventsRequest{
		Source: c.source, Types: c.types, Positions: positions,
	})
	if err != nil {
		return err
	}
	failed := map[string]bool{} // tenants, on this connection
	var again *time.Timer
	defer func() {
		if again != nil {
			again.Stop()
		}
	}()
	for {
		revision, err := receiveRevision(stream.Recv)
		if err != nil {
			return err
		}
		c.away = 0
		tenant := revision[0].GetTenant()
		if failed[tenant] {
			continue // not before what failed
		}
		err = c.around(revision, func() error { return c.handleRevision(ctx, revision) })
		if err == nil {
			delete(c.failures, tenant)
			continue
		}
		if ctx.Err() != nil {
			return err
		}
		c.env.Log.Error("event not handled; trying again", "source", c.source, "tenant", tenant,
			"revision", revision[0].GetRevision(), "type", revision[0].GetType(), "failures", c.failures[tenant]+1, "error", err)
		if again == nil {
			again = time.AfterFunc(c.pause(c.failures[tenant]), tryAgain)
		}
		failed[tenant] = true
		c.failures[tenant]++
	}
}

// receiveRevision returns the events of the next revision, of which there is at least
// one.
func receiveRevision(receive func() (*eventpb.WatchEventsResponse, error)) ([]*eventpb.WatchEventsResponse, error) {
	var revision []*eventpb.WatchEventsResponse
	for {
		e, err := receive()
		if err != nil {
			return nil, err
		}
		if len(revision) > 0 && (e.GetTenant() != revision[0].GetTenant() || e.GetRevision() != revision[0].GetRevision()) {
			return nil, fmt.Errorf("revision %d of %s ended without its last event", revision[0].GetRevision(), revision[0].GetTenant())
		}
		if revision = append(revision, e); e.GetLast() {
			return revision, nil
		}
	}
}

func (c *consumer) handleRevision(ctx context.Context, revision []*eventpb.WatchEventsResponse) error {
	first := revision[0]
	ctx = store.WithOrigin(ctx, store.Origin{Tenant: first.GetTenant(), Caller: first.GetCaller(), Method: first.GetType()})
	return c.env.Store.Update(ctx, func(tx *store.Tx) error {
		if tx.Position(c.source) >= first.GetRevision() {
			return nil
		}
		for _, e := range revision {
			if e.GetLost() {
				c.env.Log.ErrorContext(ctx, "events are lost: they were removed before they were handled", "source", c.source,
					"tenant", e.GetTenant(), "revision", e.GetRevision(), "position", tx.Position(c.source))
				continue
			}
			if err := c.handleOne(ctx, tx, e); err != nil {
				return fmt.Errorf("handle %s: %w", e.GetType(), err)
			}
		}
		tx.SetPosition(c.source, first.GetRevision())
		return nil
	})
}

// handleOne calls the handler. A panic in it is an error, as it would be in a call: it
// would come again at each start of the process.
func (c *consumer) handleOne(ctx context.Context, tx *store.Tx, e *eventpb.WatchEventsResponse) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return c.handle(ctx, tx, e)
}
