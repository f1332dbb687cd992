package identity

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

// put keeps a member of an organization with all that identity has of a person.
func put(tx *store.Tx, organization, id string, ended *timestamppb.Timestamp) error {
	users.Put(tx, &pb.User{Id: id, OrganizationId: organization, DisplayName: "Ada Byron", DeleteTime: ended, PurgeTime: ended})
	profiles.Put(tx, &pb.Profile{Id: id, Email: id + "@example.com", DisplayName: "Ada Byron"})
	credentials.Put(tx, &identitystorepb.Credential{UserId: id, PasswordHash: "hash of Ada Byron"})
	totps.Put(tx, &identitystorepb.Totp{UserId: id})
	recoveryCodes.Put(tx, &identitystorepb.RecoveryCodes{UserId: id})
	devices.Put(tx, &identitystorepb.Device{Id: "device of " + id, UserId: id})
	consents.Put(tx, &identitystorepb.Consent{Id: organization + "/" + id + "/client", ClientId: "client"})
	return sessions.Put(tx, &pb.Session{Id: "session of " + id, UserId: id, OrganizationId: organization, UserAgent: "Ada Byron's phone"})
}

// left counts what there is of a person.
func left(tx *store.Tx, id string) (n int) {
	for _, has := range []bool{
		profiles.Has(tx, id), credentials.Has(tx, id), totps.Has(tx, id), recoveryCodes.Has(tx, id),
		devices.Has(tx, "device of "+id), sessions.Has(tx, "session of "+id),
	} {
		if has {
			n++
		}
	}
	return n
}

// A person who is in no organization any more is erased from the records and from the
// journal, which still verifies. Whoever is in another one stays there.
func TestErasure(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := keptAt(t, &now)
	ctx, ended := inDirectory(t.Context()), timestamppb.New(now.Add(-time.Second))
	update := func(f func(*store.Tx) error) {
		t.Helper()
		if err := s.db.Update(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	update(func(tx *store.Tx) error { return put(tx, "here", "gone", ended) })
	update(func(tx *store.Tx) error {
		if err := put(tx, "here", "elsewhere", ended); err != nil {
			return err
		}
		return users.Put(tx, &pb.User{Id: "elsewhere", OrganizationId: "there"})
	})
	s.removeAll(ctx, "users", s.purgeUsers)
	update(func(tx *store.Tx) error {
		if n, m := left(tx, "gone"), left(tx, "elsewhere"); n != 0 || m != 6 {
			t.Errorf("%d records are left of who is gone and %d of who is elsewhere, want 0 and 6", n, m)
		}
		if users.Has(tx, "here/gone") || users.Has(tx, "here/elsewhere") || !users.Has(tx, "there/elsewhere") {
			t.Error("the wrong memberships are left")
		}
		if consents.Has(tx, "here/gone/client") || consents.Has(tx, "here/elsewhere/client") {
			t.Error("a consent is left")
		}
		for _, id := range []string{"here/gone", "here/elsewhere"} {
			if !forgettings.Has(tx, id) {
				t.Errorf("permissions will not be told to forget %s", id)
			}
		}
		return nil
	})
	seen := 0
	for e, err := range s.db.Journal(ctx, directory, 0) {
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range e.GetChanges() {
			seen++
			bytesOf, _ := proto.Marshal(c)
			if c.GetId() == "here/gone" || c.GetId() == "gone" || c.GetId() == "session of gone" || c.GetId() == "device of gone" {
				if bytes.Contains(bytesOf, []byte("Byron")) || bytes.Contains(bytesOf, []byte("example.com")) {
					t.Errorf("entry %d still has %s %s", e.GetRevision(), c.GetCollection(), c.GetId())
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("the journal has %d changes, so nothing was looked at", seen)
	}
	if err := s.db.VerifyJournal(ctx, directory); err != nil {
		t.Error(err)
	}
}

// After its time a closed organization goes with its people, and a closed brand with its
// organizations; then the suite can be claimed again.
func TestPurgeOfABrand(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := keptAt(t, &now)
	ctx := inDirectory(t.Context())
	count := func() (n int) {
		_ = s.db.View(ctx, func(tx *store.Tx) error {
			for range users.All(tx) {
				n++
			}
			for range organizations.All(tx) {
				n += 1000
			}
			for range brands.All(tx) {
				n += 100_000
			}
			if claims.Has(tx, claimID) {
				n += 1_000_000
			}
			return nil
		})
		return n
	}
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		claims.Put(tx, &identitystorepb.Claim{Id: claimID, BrandId: "b", FinishTime: timestamppb.New(now)})
		brands.Put(tx, &pb.Brand{Id: "b", DeleteTime: timestamppb.New(now), PurgeTime: timestamppb.New(now.Add(2 * time.Hour))})
		organizations.Put(tx, &pb.Organization{Id: "o", BrandId: "b", DeleteTime: timestamppb.New(now), PurgeTime: timestamppb.New(now.Add(time.Hour))})
		apiKeys.Put(tx, &pb.ApiKey{Id: "key", OrganizationId: "o"})
		for i := range batch + 5 {
			if err := users.Put(tx, &pb.User{Id: string(rune('a'+i%26)) + string(rune('A'+i/26)), OrganizationId: "o"}); err != nil {
				return err
			}
		}
		users.Put(tx, &pb.User{Id: "ada", OrganizationId: "p"})
		return organizations.Put(tx, &pb.Organization{Id: "p", BrandId: "b"})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{
		{0, 1_102_000 + batch + 6},
		{time.Hour + time.Second, 1_101_001},
		{time.Hour, 0},
	} {
		now = now.Add(step.after)
		for range 3 { // as upkeep does, again and again
			s.removeAll(ctx, "brands", s.purgeBrands)
			s.removeAll(ctx, "organizations", s.purgeOrganizations)
		}
		if got := count(); got != step.want {
			t.Errorf("at %v: got %d, want %d", now, got, step.want)
		}
	}
}
