package identity

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

// seenEvery is how exactly it is known when a session was last used, and how long at most
// what ResolveSession says of it holds.
const seenEvery = 10 * time.Minute

// askAgain is from when on an answer about a session is no longer valid: when it may end
// by itself, and often enough to hear that it is used, and whether its hours have changed.
func askAgain(tx *store.Tx, session *pb.Session, t *identitystorepb.SessionToken, h *hours) time.Time {
	end := h.bound(sooner(session.GetExpireTime(), t.GetExpireTime()).AsTime())
	if session.GetActorId() != "" {
		return end
	}
	every := seenEvery
	if session.GetSurface() != pb.Surface_SURFACE_WEB {
		every = hoursEvery
	} else if session.GetClientId() != "" {
		return end
	}
	if next := tx.Now().Add(every); next.Before(end) {
		return next
	}
	return end
}

// lastSeen is when a session was last used, to seenEvery.
func lastSeen(tx *store.Tx, session *pb.Session) time.Time {
	if use, ok := sessionUses.Get(tx, session.GetId()); ok {
		return use.GetLastSeenTime().AsTime()
	}
	return session.GetCreateTime().AsTime()
}

// noteSeen writes down that a session was used, once in seenEvery. That it is used does
// not depend on it.
func (s *service) noteSeen(ctx context.Context, id string) {
	s.noteOnce(ctx, id, func(tx *store.Tx) bool {
		session, ok := sessions.Get(tx, id)
		return !ok || tx.Now().Sub(lastSeen(tx, session)) < seenEvery
	})
}

// noteOnce writes down that what has an id was used, unless that was noted.
func (s *service) noteOnce(ctx context.Context, id string, noted func(*store.Tx) bool) {
	done, err := read(ctx, s, func(tx *store.Tx) (bool, error) { return noted(tx), nil })
	if err == nil && !done {
		err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
			if noted(tx) {
				return nil
			}
			return sessionUses.Put(tx, &identitystorepb.SessionUse{Id: id, LastSeenTime: timestamppb.New(tx.Now())})
		})
	}
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "the use of a session was not written down", "session", id, "error", err)
	}
}

// idleLife is how long a session goes on that nobody uses; 0 if it does not matter, as
// under impersonation, which is short, and for OAuth clients, which say how long they need.
func idleLife(session *pb.Session) time.Duration {
	switch {
	case session.GetActorId() != "" || session.GetClientId() != "":
		return 0
	case session.GetSurface() == pb.Surface_SURFACE_WEB:
		return time.Hour
	case session.GetSurface() == pb.Surface_SURFACE_APP:
		return 7 * day
	}
	return 0
}

// sessionIdle holds when nobody has used a session for too long.
func sessionIdle(tx *store.Tx, s subject) bool {
	session, _ := sessions.Get(tx, s.session)
	idle := idleLife(session)
	return idle > 0 && tx.Now().Sub(lastSeen(tx, session)) >= idle+seenEvery
}
