package identity_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"
)

// journal returns all that a request lists of identity's journal.
func (c *caller) journal(req *journalpb.ListJournalRequest) (found []*journalpb.Entry) {
	c.t.Helper()
	req.Source = "identity"
	for {
		resp, err := journalpb.NewJournalServiceClient(c.conn).ListJournal(c.ctx(), req)
		mustNot(c.t, err)
		found = append(found, resp.GetEntries()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return found
		}
	}
}

func (c *caller) history(collection, id string) ([]*journalpb.Entry, error) {
	resp, err := journalpb.NewJournalServiceClient(c.conn).ListHistory(c.ctx(), &journalpb.ListHistoryRequest{
		Source: "identity", Collection: collection, Id: id,
	})
	return resp.GetEntries(), err
}

// Who signed in is one question, also of sessions that have ended since.
func TestWhoSignedIn(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	_, err := bob.sessions().EndSession(bob.ctx(), &pb.EndSessionRequest{})
	mustNot(t, err)
	found := owner.journal(&journalpb.ListJournalRequest{
		Collection: "session", Kind: journalpb.Kind_KIND_CREATED, FromTime: timestamppb.New(time.Now().AddDate(0, 0, -7)),
	})
	var got []string
	for _, e := range found {
		c := e.GetChanges()[0]
		got = append(got, c.GetNewValue().GetFields()["user_id"].GetStringValue())
		if len(e.GetChanges()) != 1 || e.GetMethod() != "latchkey.identity.v1.SessionService/CreateSession" || e.GetCallerId() != got[len(got)-1] {
			t.Errorf("got %v", e)
		}
	}
	if want := []string{bob.user.GetId(), owner.user.GetId()}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The journal of all organizations is shown to each in its own part, and never a secret.
func TestJournalOfEachOrganization(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	resp, err := owner.organizations().CreateOrganization(owner.ctx(), &pb.CreateOrganizationRequest{
		Name: "Harbour Docks", TimeZone: "Europe/Berlin", CurrencyCode: "EUR",
	})
	mustNot(t, err)
	other := owner.signIn(resp.GetOrganization().GetId())
	dora := other.hire("dora", "US")
	for name, c := range map[string]struct {
		who              *caller
		organization, no string
		strangers        []*caller
	}{
		"the first": {owner, owner.session.GetOrganizationId(), other.session.GetOrganizationId(), []*caller{dora}},
		"the other": {other, other.session.GetOrganizationId(), owner.session.GetOrganizationId(), []*caller{bob}},
	} {
		found := c.who.journal(&journalpb.ListJournalRequest{PageSize: 3})
		text := fmt.Sprint(found)
		if len(found) < 3 || !strings.Contains(text, c.organization) {
			t.Errorf("%s organization: got %d entries", name, len(found))
		}
		for _, e := range found {
			// The brand's owner made the other from within the first.
			if text := fmt.Sprint(e.GetChanges()); strings.Contains(text, c.no) {
				t.Errorf("%s organization lists %v", name, e)
			}
			for _, change := range e.GetChanges() {
				if change.GetCollection() == "profile" && change.GetId() != c.who.user.GetId() {
					t.Errorf("%s organization sees the profile of another: %v", name, change)
				}
			}
		}
		for _, s := range c.strangers {
			if strings.Contains(text, s.user.GetId()) {
				t.Errorf("%s organization sees %s of the other", name, s.email)
			}
			_, err := c.who.history("user", c.no+"/"+s.user.GetId())
			check(t, "a user of the other", err, codes.NotFound, "RECORD_NOT_FOUND")
		}
		for _, secret := range []string{"argon2id", "password_hash", "token_hash"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s organization sees %q", name, secret)
			}
		}
	}
}

// What happened to a person's own profile and password she alone sees, and of the
// password only that it was changed.
func TestOwnHistory(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	_, err := bob.profiles().ChangePassword(bob.ctx(), &pb.ChangePasswordRequest{CurrentPassword: bob.password, NewPassword: "another password of bob"})
	mustNot(t, err)
	bob.password = "another password of bob"
	bob = bob.signIn("")
	found, err := bob.history("credential", bob.user.GetId())
	mustNot(t, err)
	if len(found) != 2 || found[0].GetMethod() != "latchkey.identity.v1.ProfileService/ChangePassword" {
		t.Fatalf("got %v, want that the password was changed and made", found)
	}
	for _, e := range found {
		if c := e.GetChanges()[0]; c.GetValues() != journalpb.Values_VALUES_SECRET || c.GetOldValue() != nil || c.GetNewValue() != nil {
			t.Errorf("got %v", c)
		}
	}
	if found, err := bob.history("profile", bob.user.GetId()); err != nil || len(found) != 1 {
		t.Errorf("his profile: got %v, %v", found, err)
	}
	for _, collection := range []string{"credential", "profile"} {
		_, err := owner.history(collection, bob.user.GetId())
		check(t, "the owner asks for his "+collection, err, codes.NotFound, "RECORD_NOT_FOUND")
	}
	_, err = journalpb.NewJournalServiceClient(bob.conn).GetRecordAt(bob.ctx(), &journalpb.GetRecordAtRequest{
		Source: "identity", Collection: "credential", Id: bob.user.GetId(), At: &journalpb.GetRecordAtRequest_Time{Time: timestamppb.Now()},
	})
	check(t, "his password as it was", err, codes.InvalidArgument, "FIELD_INVALID")
}
