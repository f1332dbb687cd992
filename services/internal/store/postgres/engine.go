package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"latchkey.dev/services/internal/store"
)

// Engine is a [store.Engine] over the tables of one service in a database.
type Engine struct {
	pool     *pgxpool.Pool
	sql      statements
	process  []byte        // begins the id of each attempt
	attempts atomic.Uint64 // made so far
	conns    int32         // in the pool, at most
	readers  slots
	writers  slots

	patience     time.Duration // how long it waits for one answer, or for a connection
	resolveLimit time.Duration // how long it tries to learn the outcome of a commit

	mu     sync.Mutex
	lines  map[string]*line // by tenant, those in which somebody is
	turns  map[string]int64 // by tenant, the last turn of which this process knows
	over   [][]byte         // attempts whose rows nobody will ask for
	closed bool
	broken error

	work    sync.WaitGroup // transactions
	sweeper sync.WaitGroup
	stop    context.CancelFunc // of the sweeper
}

// enter counts a transaction as running, which the caller must end with e.work.Done,
// unless the engine takes none.
func (e *Engine) enter(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.refusal(ctx); err != nil {
		return err
	}
	e.work.Add(1)
	return nil
}

// refusal is called with e.mu held.
func (e *Engine) refusal(ctx context.Context) error {
	switch {
	case e.broken != nil:
		return e.broken
	case e.closed:
		return store.ErrClosed
	}
	return ctx.Err()
}

// fail makes the engine refuse everything from now on.
func (e *Engine) fail(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken == nil {
		e.broken = fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
	}
	return e.broken
}

// View implements store.Engine.
func (e *Engine) View(ctx context.Context, f func(store.Snapshot) error) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.work.Done()
	r := &reader{e: e, ctx: ctx, slots: e.readers, begin: beginReadSQL}
	defer r.end()
	return f(r)
}

// Close waits for the transactions that are running, and refuses those that wait.
func (e *Engine) Close() error {
	e.mu.Lock()
	first := !e.closed
	e.closed = true
	for _, l := range e.lines {
		for _, u := range l.waiting {
			u.outcome <- store.ErrClosed
		}
		l.waiting = nil
	}
	e.mu.Unlock()
	e.work.Wait()
	if first {
		e.stop()
		e.sweeper.Wait()
		e.pool.Close()
	}
	return nil
}

// valid refuses what the database would take and another engine would not.
func valid(writes []store.Write) error {
	for _, w := range writes {
		if len(w.Key) == 0 {
			return errors.New("an empty key cannot be stored")
		}
	}
	return nil
}
