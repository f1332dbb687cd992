package permissions

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

const (
	// purgeAfter is how long a deleted role or group can be brought back.
	purgeAfter = 28 * 24 * time.Hour
	// purgeChunk is how many records of a kind one transaction purges.
	purgeChunk = 100
)

// purge removes what was deleted long enough ago, every hour until ctx ends.
func (s *service) purge(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := s.purgeAll(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "deleted roles and groups were not purged", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *service) purgeAll(ctx context.Context) error {
	tenants, err := s.db.Tenants(ctx)
	if err != nil {
		return err
	}
	for _, t := range tenants {
		ctx := store.WithOrigin(ctx, store.Origin{Tenant: t})
		for more := true; more; {
			if more, err = s.purgeSome(ctx); err != nil {
				return fmt.Errorf("purge in %s: %w", t, err)
			}
		}
	}
	return nil
}

// purgeSome purges a bounded number of records and reports whether there may be
// more.
func (s *service) purgeSome(ctx context.Context) (more bool, err error) {
	var dueRoles, dueGroups []string
	find := func(tx *store.Tx) error {
		dueRoles = due(tx, roleByPurge, (*pb.Role).GetId)
		dueGroups = due(tx, groupByPurge, (*pb.Group).GetId)
		return nil
	}
	// Most organizations have nothing to purge; looking costs no turn at writing.
	if err := s.db.View(ctx, find); err != nil || len(dueRoles)+len(dueGroups) == 0 {
		return false, err
	}
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		if err := find(tx); err != nil {
			return err
		}
		for _, id := range dueRoles {
			roles.Delete(tx, id)
		}
		for _, id := range dueGroups {
			groups.Delete(tx, id)
		}
		return nil
	})
	return len(dueRoles) == purgeChunk || len(dueGroups) == purgeChunk, err
}

// due returns the ids of the first records whose time to be purged has come.
func due[T proto.Message](tx *store.Tx, byPurge *store.Index[T], id func(T) string) (ids []string) {
	for v := range byPurge.Scan(tx, byPurge.Range().To(tx.Now())) {
		if ids = append(ids, id(v)); len(ids) == purgeChunk {
			break
		}
	}
	return ids
}
