package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// How long an engine waits, unless a test says otherwise.
const (
	patience     = 15 * time.Second
	resolveLimit = time.Minute
)

// patient returns a context for one answer of the database, which does not end with ctx.
func (e *Engine) patient(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), e.patience)
}

var errBusy = errors.New("no connection to the database became free")

// slots limits how many connections Views, or Updates, have at once, so that the others
// have some left: those who wait for a turn that another process has must not keep
// everybody from reading, and a View may wait for an Update inside it.
type slots chan struct{}

// slotsOf returns the slots of one kind for a pool of n connections.
func slotsOf(n int32) slots { return make(slots, max(1, n*3/4)) }

// take waits for a slot, and returns the error of ctx itself if it ends.
func (s slots) take(ctx context.Context, patience time.Duration) error {
	select {
	case s <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errBusy
	}
}

func (s slots) give() { <-s }

// acquire returns the error of ctx itself if it ends.
func (e *Engine) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	limit, cancel := context.WithTimeout(ctx, e.patience)
	defer cancel()
	conn, err := e.pool.Acquire(limit)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && limit.Err() != nil:
		return nil, errBusy
	}
	return conn, err
}

// discard gives back a connection that is not to be used again.
func discard(conn *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	_ = conn.Conn().Close(ctx) // it is lost anyway
	conn.Release()
}
