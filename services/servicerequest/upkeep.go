package servicerequest

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"latchkey.dev/services/internal/store"
)

const (
	// batch bounds what one transaction of the upkeep changes.
	batch = 50
	// patience is how long the upkeep waits at most: what another process wrote into
	// the same database, and a clock that was set, are noticed after it.
	patience = time.Minute
)

// upkeepForever does what is due by the clock: it ends holds that expire, purges what
// has been deleted for long, and deletes files that nothing names. It knows of each tenant when something is due next,
// and looks again when the tenant has changed.
func (s *service) upkeepForever(ctx context.Context) error {
	changed := s.db.Changed()
	defer changed.Stop()
	due := map[string]time.Time{}
	for {
		tenants, err := s.db.Tenants(ctx)
		for until := s.now().Add(patience); err == nil && s.now().Before(until); {
			s.tendAll(ctx, tenants, due)
			tenants, err = s.waitForWork(ctx, changed, due)
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, store.ErrClosed):
			return nil
		case err != nil:
			s.log.ErrorContext(ctx, "upkeep interrupted", "error", err)
			sleep(ctx, time.Second)
		}
	}
}

// waitForWork returns the tenants that have changed, or for which something is due.
func (s *service) waitForWork(ctx context.Context, changed *store.Changes, due map[string]time.Time) ([]string, error) {
	next := s.now().Add(patience)
	for _, t := range due {
		if t.Before(next) {
			next = t
		}
	}
	waiting, cancel := context.WithTimeout(ctx, next.Sub(s.now()))
	defer cancel()
	tenants, err := changed.Next(waiting)
	if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return tenants, err
	}
	for tenant, t := range due {
		if !t.After(s.now()) {
			tenants = append(tenants, tenant)
		}
	}
	return tenants, nil
}

func (s *service) tendAll(ctx context.Context, tenants []string, due map[string]time.Time) {
	for _, tenant := range tenants {
		ctx := store.WithOrigin(ctx, store.Origin{Tenant: tenant})
		next, err := s.tend(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "upkeep of a tenant interrupted", "tenant", tenant, "error", err)
			next = s.now().Add(10 * time.Second)
		}
		if delete(due, tenant); !next.IsZero() {
			due[tenant] = next
		}
	}
}

// tend does what is due for the tenant of ctx, and returns when something is due next,
// zero for never.
func (s *service) tend(ctx context.Context) (next time.Time, err error) {
	due, next, err := s.due(ctx)
	if !due || err != nil {
		return next, err
	}
	for _, piece := range []func(context.Context) (bool, error){s.resumeExpired, s.purgeRequests, s.purgeAttachments, s.sweep} {
		for more := true; more; {
			if more, err = piece(ctx); err != nil {
				return next, err
			}
		}
	}
	_, next, err = s.due(ctx)
	return next, err
}

// due tells whether anything is due in the tenant of ctx, and when the first thing is
// or was.
func (s *service) due(ctx context.Context) (due bool, next time.Time, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		next = nextDue(tx)
		due = !next.IsZero() && !next.After(tx.Now())
		return nil
	})
	return due, next, err
}

// work runs a piece of the upkeep in a transaction.
func (s *service) work(ctx context.Context, piece func(*store.Tx) (more bool, err error)) (more bool, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) (err error) {
		more, err = piece(tx)
		return err
	})
	return more, err
}

// nextDue returns when something is due in the tenant of tx, zero for never.
func nextDue(tx *store.Tx) time.Time {
	var next time.Time
	note := func(t *timestamppb.Timestamp) {
		if t != nil && (next.IsZero() || t.AsTime().Before(next)) {
			next = t.AsTime()
		}
	}
	if r, ok := requestExpiry.First(tx); ok {
		note(r.GetHold().GetExpireTime())
	}
	if r, ok := requestPurge.First(tx); ok {
		note(r.GetPurgeTime())
	}
	if a, ok := attachmentPurge.First(tx); ok {
		note(a.GetPurgeTime())
	}
	if o, ok := orphanSweep.First(tx); ok {
		note(o.GetSweepTime())
	}
	return next
}

// sleep waits for a while or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
