package invoicing

import (
	"context"
	"fmt"
	"time"

	"latchkey.dev/services/internal/store"
)

const (
	purgeEvery = time.Hour
	purgeChunk = 100 // invoices in one transaction
)

// purgeForever removes, every hour, the invoices that can no longer be restored.
func (s *service) purgeForever(ctx context.Context) error {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		if err := s.purge(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "deleted invoices were not purged; trying again in an hour", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// purge removes them now, of all tenants.
func (s *service) purge(ctx context.Context) error {
	tenants, err := s.db.Tenants(ctx)
	if err != nil {
		return err
	}
	for _, tenant := range tenants {
		ctx := store.WithOrigin(ctx, store.Origin{Tenant: tenant})
		for more := true; more; {
			if more, err = s.purgeSome(ctx); err != nil {
				return fmt.Errorf("purge invoices of %s: %w", tenant, err)
			}
		}
	}
	return nil
}

// purgeSome removes some of one tenant's and reports whether there may be more. What
// the journal remembers of them is erased too.
func (s *service) purgeSome(ctx context.Context) (more bool, err error) {
	var due []string
	find := func(tx *store.Tx) error {
		due = nil
		for v := range invoicePurge.Scan(tx, invoicePurge.Range().To(tx.Now())) {
			if due = append(due, v.GetId()); len(due) == purgeChunk {
				break
			}
		}
		return nil
	}
	// Most tenants have nothing to purge; looking costs no turn at writing.
	if err := s.db.View(ctx, find); err != nil || len(due) == 0 {
		return false, err
	}
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		if err := find(tx); err != nil {
			return err
		}
		for _, id := range due {
			invoices.Delete(tx, id)
			tx.EraseHistory(invoices.Name(), id)
		}
		return nil
	})
	return len(due) == purgeChunk, err
}
