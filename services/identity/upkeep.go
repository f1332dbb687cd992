package identity

import (
	"context"
	"time"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"

	"latchkey.dev/services/internal/store"
)

const (
	upkeepEvery = time.Minute
	// seedAgain is how soon permissions is tried again where a new organization waits.
	seedAgain = time.Second
	// batch bounds what one transaction of upkeep removes.
	batch = 200
)

// upkeep finishes what a crash left unfinished and removes what is over, until ctx ends.
func (s *service) upkeep(ctx context.Context) error {
	for {
		wait := upkeepEvery
		if !s.seedAll(ctx) {
			wait = seedAgain
		}
		s.removeAll(ctx, "expired sessions", s.removeExpired)
		s.removeAll(ctx, "closed brands", s.purgeBrands)
		s.removeAll(ctx, "closed organizations", s.purgeOrganizations)
		s.removeAll(ctx, "ended memberships", s.purgeUsers)
		s.removeAll(ctx, "deleted custom fields and labels", s.purgeDefinitions)
		s.removeAll(ctx, "keys of erased members", s.forgetAll)
		s.removeAll(ctx, "revoked API keys", s.purgeKeys)
		s.removeAll(ctx, "answered challenges", s.purgeSpent)
		s.removeAll(ctx, "old devices", s.purgeDevices)
		s.removeAll(ctx, "old failures", s.purgeFailures)
		s.removeAll(ctx, "old codes for passwords", s.purgeResets)
		s.removeAll(ctx, "old impersonations", s.purgeImpersonations)
		s.upkeepOAuth(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// seedAll tells permissions of every organization it has not been told of, and
// reports whether none is left.
func (s *service) seedAll(ctx context.Context) bool {
	pending, err := read(ctx, s, func(tx *store.Tx) (pending []*identitystorepb.Seeding, _ error) {
		for seeding := range seedings.All(tx) {
			if pending = append(pending, seeding); len(pending) == batch {
				break
			}
		}
		return pending, nil
	})
	if err == nil {
		for _, seeding := range pending {
			if err = s.seed(ctx, seeding.GetOrganizationId()); err != nil {
				break
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "new organizations wait for permissions", "error", err)
	}
	return err == nil && len(pending) < batch
}

// removeAll removes batch by batch until one is not full.
func (s *service) removeAll(ctx context.Context, what string, remove func(context.Context) (int, error)) {
	for {
		n, err := remove(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "some "+what+" were not removed", "error", err)
		}
		if err != nil || n < batch {
			return
		}
	}
}

// removeExpired removes sessions that have expired. Nobody has to be told: what
// ResolveSession answers names the time itself.
func (s *service) removeExpired(ctx context.Context) (n int, err error) {
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		over := take(sessionsByExpiry.Scan(tx, sessionsByExpiry.Range().To(tx.Now())))
		for _, session := range over {
			endSession(tx, session.GetId())
		}
		n = len(over)
		return nil
	})
	return n, err
}

// purgeKeys erases the records of API keys that were revoked long enough ago.
func (s *service) purgeKeys(ctx context.Context) (n int, err error) {
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		over := take(apiKeysByPurge.Scan(tx, apiKeysByPurge.Range().To(tx.Now())))
		for _, key := range over {
			apiKeys.Delete(tx, key.GetId())
			apiKeyUses.Delete(tx, key.GetId())
		}
		n = len(over)
		return nil
	})
	return n, err
}

// purgeImpersonations erases the records of impersonations that began long enough ago.
func (s *service) purgeImpersonations(ctx context.Context) (n int, err error) {
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		over := take(impersonationsByPurge.Scan(tx, impersonationsByPurge.Range().To(tx.Now())))
		for _, i := range over {
			impersonations.Delete(tx, i.GetId())
		}
		n = len(over)
		return nil
	})
	return n, err
}

// purgeSpent forgets challenges that were answered and that nobody could answer any more.
func (s *service) purgeSpent(ctx context.Context) (n int, err error) {
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		over := take(spentByExpiry.Scan(tx, spentByExpiry.Range().To(tx.Now())))
		for _, c := range over {
			spentChallenges.Delete(tx, c.GetId())
		}
		n = len(over)
		return nil
	})
	return n, err
}

// purgeFailures forgets wrong proofs of long ago.
func (s *service) purgeFailures(ctx context.Context) (n int, err error) {
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		over := take(failuresByPurge.Scan(tx, failuresByPurge.Range().To(tx.Now())))
		for _, f := range over {
			failures.Delete(tx, f.GetId())
		}
		n = len(over)
		return nil
	})
	return n, err
}

// take returns the first of a sequence, one batch at most.
func take[T any](seq func(func(T) bool)) (some []T) {
	for v := range seq {
		if some = append(some, v); len(some) == batch {
			break
		}
	}
	return some
}
