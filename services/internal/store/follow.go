package store

import (
	"context"
	"errors"
	"time"
)

// Follow calls each with the tenants that first returns, and then again and again with
// those that have changed, until ctx ends or each returns an error. What changes after
// first was called is not missed. With idle, each is called with none when nothing has
// changed for so long.
func (db *DB) Follow(ctx context.Context, idle time.Duration, first func(context.Context) ([]string, error), each func(context.Context, []string) error) error {
	changed := db.Changed()
	defer changed.Stop()
	tenants, err := first(ctx)
	for err == nil {
		if err = each(ctx, tenants); err == nil {
			tenants, err = changed.nextWithin(ctx, idle)
		}
	}
	return err
}

// nextWithin is Next, and returns none after a time without a change.
func (c *Changes) nextWithin(ctx context.Context, idle time.Duration) ([]string, error) {
	if idle == 0 {
		return c.Next(ctx)
	}
	waiting, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	tenants, err := c.Next(waiting)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil
	}
	return tenants, err
}
