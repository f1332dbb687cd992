package identity

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// arriving is a directory with one brand, and an organization that is to arrive there.
type arriving struct {
	t  *testing.T
	db *store.DB
}

const (
	arrivingOrganization = "0197a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a6b"
	arrivingPerson       = "0197a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a70"
	victim               = "0197a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a71"
	victimOrganization   = "0197a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a72"
	victimEmail          = "vic@here.example"
	victimHash           = "$argon2id$vic"
)

func newArriving(t *testing.T) *arriving {
	t.Helper()
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "identity.db"), bolt.Options{NoSync: true})
	noError(t, err)
	db, err := store.Open(t.Context(), engine, schema, store.Config{Now: time.Now})
	noError(t, err)
	t.Cleanup(func() { noError(t, db.Close()) })
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: "directory"})
	noError(t, db.Update(ctx, func(tx *store.Tx) error {
		return errors.Join(
			brands.Put(tx, &pb.Brand{Id: "brand", Name: "Here"}),
			profiles.Put(tx, &pb.Profile{Id: victim, Email: victimEmail}),
			credentials.Put(tx, &identitystorepb.Credential{UserId: victim, PasswordHash: victimHash}),
			labels.Put(tx, &pb.Label{Id: "label of the victim", OrganizationId: victimOrganization}),
		)
	}))
	return &arriving{t, db}
}

func kept(collection, id, person string, m proto.Message) *storepb.BackupRecord {
	value, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &storepb.BackupRecord{Collection: collection, Id: id, Person: person, Value: value}
}

// honest are the records of an export with one member.
func honest() []*storepb.BackupRecord {
	return []*storepb.BackupRecord{
		kept("organization", arrivingOrganization, "", &pb.Organization{Id: arrivingOrganization, Name: "Arriving", BrandId: "elsewhere", State: open}),
		joining(arrivingPerson),
		kept("profile", arrivingPerson, arrivingPerson, &pb.Profile{Id: arrivingPerson, Email: "ann@arriving.example"}),
		kept("credential", arrivingPerson, arrivingPerson, &identitystorepb.Credential{UserId: arrivingPerson, PasswordHash: "$argon2id$ann"}),
	}
}

func joining(person string) *storepb.BackupRecord {
	return kept("user", arrivingOrganization+"/"+person, person, &pb.User{Id: person, OrganizationId: arrivingOrganization, Email: "somebody@arriving.example"})
}

// try brings records and returns what stands against it, in one text.
func (a *arriving) try(records []*storepb.BackupRecord, renames map[string]string) string {
	a.t.Helper()
	in := &store.Arriving{
		Organization: arrivingOrganization, Checksum: []byte("checksum"), Brand: "Here", Renames: renames, Records: records,
		Seal: func(string, []byte) ([]byte, error) { return []byte("sealed"), nil },
	}
	problems, _, err := a.db.CheckArrival(a.t.Context(), in)
	if err != nil {
		return err.Error()
	}
	if len(problems) == 0 {
		if _, err := a.db.Admit(a.t.Context(), in); err != nil {
			return err.Error()
		}
	}
	return strings.Join(problems, "\n")
}

// SECURITY: an export that somebody has made to get at what is here is refused.
func TestExportsThatReachForOthers(t *testing.T) {
	for name, c := range map[string]struct {
		record *storepb.BackupRecord
		says   string
	}{
		"the password of somebody who does not come along": {
			kept("credential", victim, victim, &identitystorepb.Credential{UserId: victim, PasswordHash: "$argon2id$mine"}), "who does not come along",
		},
		"a token of a session that is here": {
			kept("session_token", "00ff", "", &identitystorepb.SessionToken{Id: "00ff", SessionId: "the victim's"}), "a record that is not in it",
		},
		"a session": {
			kept("session", "mine", "", &pb.Session{Id: "mine", UserId: victim, OrganizationId: victimOrganization}), "does not come from another installation",
		},
		"a membership elsewhere": {
			kept("user", victimOrganization+"/"+arrivingPerson, arrivingPerson, &pb.User{Id: arrivingPerson, OrganizationId: victimOrganization}), "belongs to another organization",
		},
		"a client of the brand": {
			kept("oauth_client", "client", "", &pb.OauthClient{Id: "client", OrganizationId: arrivingOrganization, Owner: pb.OauthClientOwner_OAUTH_CLIENT_OWNER_BRAND}), "belongs to another organization",
		},
		"a record under another id": {
			kept("label", "another", "", &pb.Label{Id: "label", OrganizationId: arrivingOrganization}), "is not what it says",
		},
		"a label in the place of one that is here": {
			kept("label", "label of the victim", "", &pb.Label{Id: "label of the victim", OrganizationId: arrivingOrganization}), "somebody else's",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArriving(t)
			if got := a.try(append(honest(), c.record), nil); !strings.Contains(got, c.says) {
				t.Errorf("got %q, want something with %q", got, c.says)
			}
		})
	}
}

// TestNothingIsExpectedHalfway verifies while an organization arrives, of which a category is here and
// the one above it is not.
func TestNothingIsExpectedHalfway(t *testing.T) {
	a := newArriving(t)
	label := func(id, parent string) *pb.Label {
		return &pb.Label{Id: id, OrganizationId: arrivingOrganization, Kind: category, Name: id, ParentId: parent}
	}
	beneath, above := label("beneath", "above"), label("above", "")
	in := &store.Arriving{
		Organization: arrivingOrganization, Checksum: []byte("checksum"), Brand: "Here",
		Records: append(honest(), kept("label", beneath.GetId(), "", beneath), kept("label", above.GetId(), "", above)),
	}
	problems, _, err := a.db.CheckArrival(t.Context(), in)
	if err != nil || len(problems) > 0 {
		t.Fatalf("got %q, %v", problems, err)
	}
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: "directory"})
	noError(t, a.db.Update(ctx, func(tx *store.Tx) error { // who has a label here already has no organization
		labels.Delete(tx, "label of the victim")
		return labels.Put(tx, beneath)
	}))
	servertest.Verify(t, a.db)
	_, err = a.db.Admit(t.Context(), in)
	noError(t, err)
	servertest.Verify(t, a.db)
	noError(t, a.db.Update(ctx, func(tx *store.Tx) error {
		labels.Delete(tx, "above")
		return nil
	}))
	found := 0
	_, err = a.db.Verify(t.Context(), func(string) { found++ }, func(store.Verified) error { return nil })
	if noError(t, err); found != 1 {
		t.Errorf("after it has arrived, verify finds %d problems where there is one", found)
	}
}

// SECURITY: who is here keeps what is his, whatever an export says of him, and nobody is
// taken for somebody else by his address.
func TestPeopleWhoAreHereAlready(t *testing.T) {
	a := newArriving(t)
	taken := kept("profile", arrivingPerson, arrivingPerson, &pb.Profile{Id: arrivingPerson, Email: victimEmail})
	records := append(honest()[:2], taken)
	if got := a.try(records, nil); !strings.Contains(got, "email "+victimEmail+" belongs to") {
		t.Errorf("an address that somebody has: got %q", got)
	}
	records = append(records, joining(victim),
		kept("profile", victim, victim, &pb.Profile{Id: victim, Email: "mine@arriving.example"}),
		kept("credential", victim, victim, &identitystorepb.Credential{UserId: victim, PasswordHash: "$argon2id$mine"}))
	if got := a.try(records, map[string]string{victimEmail: "ann@arriving.example"}); got != "" {
		t.Fatalf("got %q", got)
	}
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: "directory"})
	noError(t, a.db.View(ctx, func(tx *store.Tx) error {
		p, _ := profiles.Get(tx, victim)
		c, _ := credentials.Get(tx, victim)
		u, _ := users.Get(tx, userKey(arrivingOrganization, victim))
		if p.GetEmail() != victimEmail || c.GetPasswordHash() != victimHash || u.GetEmail() != victimEmail {
			t.Errorf("who was here is %v with %v and has become %v", p, c, u)
		}
		o, _ := organizations.Get(tx, arrivingOrganization)
		ann, _ := users.Get(tx, userKey(arrivingOrganization, arrivingPerson))
		if o.GetBrandId() != "brand" || o.GetState() != open || ann.GetEmail() != "ann@arriving.example" {
			t.Errorf("what has come is %v with %v", o, ann)
		}
		return nil
	}))
	if got := a.try(records, nil); got != "the organization is there already" {
		t.Errorf("again: got %q", got)
	}
	noError(t, a.db.VerifyJournal(t.Context(), "directory"))
	noError(t, a.db.VerifyRecords(t.Context(), "directory"))
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
