package identity

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

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
		s.wakeEraser()
		s.removeAll(ctx, "ended memberships", s.purgeUsers)
		s.removeAll(ctx, "keys of erased members", s.forgetAll)
		s.purge(ctx, "deleted custom fields", purgeFields)
		s.purge(ctx, "deleted labels", purgeLabels)
		s.purge(ctx, "deleted accounting classes", purgeClasses)
		s.purge(ctx, "revoked API keys", purgeKeys)
		s.purge(ctx, "answered challenges", purgeSpent)
		s.purge(ctx, "old devices", purgeDevices)
		s.automate(ctx)
		s.purge(ctx, "old places", purgePlaces)
		s.purge(ctx, "old failures", purgeFailures)
		s.purge(ctx, "old codes for passwords", purgeResets)
		s.removeAll(ctx, "old counts of messages", s.purgeMailCounts)
		s.purge(ctx, "old impersonations", purgeImpersonations)
		s.purge(ctx, "old removals of factors", purgeRemovals)
		s.purge(ctx, "deleted outside providers", purgeProviders)
		s.purge(ctx, "old invitations to outside providers", purgeInvitations)
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

// purge is removeAll for what one transaction removes.
func (s *service) purge(ctx context.Context, what string, remove func(*store.Tx) int) {
	s.removeAll(ctx, what, func(ctx context.Context) (int, error) { return s.inOne(ctx, remove) })
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
func (s *service) removeExpired(ctx context.Context) (int, error) {
	return s.inOne(ctx, func(tx *store.Tx) int {
		return removeDue(tx, sessionsByExpiry, tx.Now(), func(session *pb.Session) { endSession(tx, session.GetId()) })
	})
}

// purgeKeys erases the records of API keys that were revoked long enough ago.
func purgeKeys(tx *store.Tx) int {
	return removeDue(tx, apiKeysByPurge, tx.Now(), func(key *pb.ApiKey) {
		apiKeys.Delete(tx, key.GetId())
		apiKeyUses.Delete(tx, key.GetId())
	})
}

// purgeImpersonations erases the records of impersonations that began long enough ago.
func purgeImpersonations(tx *store.Tx) int {
	return deleteDue(tx, impersonations, impersonationsByPurge)
}

// purgeSpent forgets challenges that were answered and that nobody could answer any more.
func purgeSpent(tx *store.Tx) int { return deleteDue(tx, spentChallenges, spentByExpiry) }

// purgeFailures forgets wrong proofs of long ago.
func purgeFailures(tx *store.Tx) int { return deleteDue(tx, failures, failuresByPurge) }

// inOne removes in one transaction.
func (s *service) inOne(ctx context.Context, remove func(*store.Tx) int) (n int, err error) {
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		n = remove(tx)
		return nil
	})
	return n, err
}

// removeDue removes of what an index of instants has up to one of them a batch at most, and
// returns how much that was.
func removeDue[T proto.Message](tx *store.Tx, by *store.Index[T], until time.Time, remove func(T)) int {
	due := take(by.Scan(tx, by.Range().To(until)))
	for _, v := range due {
		remove(v)
	}
	return len(due)
}

// deleteDue is removeDue for what nothing else goes with.
func deleteDue[T interface {
	proto.Message
	GetId() string
}](tx *store.Tx, c *store.Collection[T], by *store.Index[T]) int {
	return removeDue(tx, by, tx.Now(), func(v T) { c.Delete(tx, v.GetId()) })
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
