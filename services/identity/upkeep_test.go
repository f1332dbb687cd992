package identity

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// keptAt is a service that has nothing but its records.
func keptAt(t *testing.T, now *time.Time) *service {
	t.Helper()
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "identity.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), engine, schema, store.Config{Now: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &service{db: db, log: slog.New(slog.DiscardHandler)}
}

// What is over goes batch by batch; what is not stays.
func TestUpkeepRemovesWhatIsOver(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := keptAt(t, &now)
	db, ctx := s.db, inDirectory(t.Context())
	const over = 2*batch + 1
	err := db.Update(ctx, func(tx *store.Tx) error {
		for i := range over + 1 {
			id, end := servertest.UUID(i), timestamppb.New(now.Add(-time.Duration(i)*time.Second))
			if i == over {
				end = timestamppb.New(now.Add(time.Nanosecond))
			}
			sessions.Put(tx, &pb.Session{Id: id, UserId: id, ExpireTime: end})
			tokens.Put(tx, &identitystorepb.SessionToken{Id: "token of " + id, SessionId: id})
			users.Put(tx, &pb.User{Id: id, OrganizationId: "o", DeleteTime: end, PurgeTime: end})
		}
		return users.Put(tx, &pb.User{Id: "member", OrganizationId: "o"})
	})
	if err != nil {
		t.Fatal(err)
	}
	s.removeAll(ctx, "sessions", s.removeExpired)
	s.removeAll(ctx, "users", s.purgeUsers)
	left := func() (n, m, k int) {
		_ = db.View(ctx, func(tx *store.Tx) error {
			for range sessions.All(tx) {
				n++
			}
			for range tokens.All(tx) {
				m++
			}
			for range users.All(tx) {
				k++
			}
			return nil
		})
		return n, m, k
	}
	// The one of this very instant is not over yet: the ranges end before it.
	if n, m, k := left(); n != 2 || m != 2 || k != 3 {
		t.Errorf("%d sessions, %d tokens and %d users are left, want 2, 2 and 3", n, m, k)
	}
	now = now.Add(time.Second)
	s.removeAll(ctx, "sessions", s.removeExpired)
	s.removeAll(ctx, "users", s.purgeUsers)
	if n, m, k := left(); n != 0 || m != 0 || k != 1 {
		t.Errorf("%d sessions, %d tokens and %d users are left, want 0, 0 and 1", n, m, k)
	}
}
