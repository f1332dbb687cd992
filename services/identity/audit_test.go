package identity_test

import (
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/identity"
)

// told returns the values of the events of a type that the journal shows to the caller,
// the newest first.
func (c *caller) told(name string) (all []map[string]any) {
	c.t.Helper()
	for _, e := range c.journal(&journalpb.ListJournalRequest{EventType: "latchkey.identity.v1." + name}) {
		for _, event := range e.GetEvents() {
			all = append(all, event.GetPayload().AsMap())
		}
	}
	return all
}

// guess shows wrong passwords.
func (c *caller) guess(times int) (last error) {
	for range times {
		_, last = c.sessions().CreateSession(c.t.Context(), &pb.CreateSessionRequest{Email: c.email, Password: "wrong", Surface: pb.Surface_SURFACE_WEB})
	}
	return last
}

// Of many wrong passwords the journal is told now and then, and how many there were.
func TestFailedSignIns(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	bob := owner.hire("bob", "US")
	check(t, "a wrong password", bob.guess(4), codes.Unauthenticated, "SIGN_IN_FAILED")
	found := owner.told("SignInFailed")
	if len(found) != 1 || found[0]["user_id"] != bob.user.GetId() || found[0]["factor"] != "FACTOR_PASSWORD" ||
		found[0]["in_a_row"] != 1.0 || found[0]["address"] != "127.0.0.1" || found[0]["locked"] != nil {
		t.Fatalf("got %v, want the first one", found)
	}
	offset.Store(int64(11 * time.Minute))
	bob.guess(1)
	if found = owner.told("SignInFailed"); len(found) != 2 || found[0]["in_a_row"] != 5.0 {
		t.Errorf("after a while: got %v", found)
	}
}

// Only those who manage the users of an organization see what failed there.
func TestFailedSignInsAreShownToTheirOrganization(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	other := owner.found("Other Homes")
	bob.guess(1)
	if found := other.told("SignInFailed"); len(found) != 0 {
		t.Errorf("another organization sees %v", found)
	}
	_, err := journalpb.NewJournalServiceClient(bob.conn).ListJournal(bob.ctx(), &journalpb.ListJournalRequest{
		Source: "identity", EventType: "latchkey.identity.v1.SignInFailed",
	})
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING")
}

// SECURITY: a wrong password for an address that nobody has writes as much.
func TestFailedSignInsOfUnknownWriteAlike(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	nobody := &caller{suite: owner.suite, email: "nobody@example.com"}
	var entries [2]int64
	for i, who := range []*caller{bob, nobody} {
		before := identity.Revision(t.Context())
		who.guess(4)
		entries[i] = identity.Revision(t.Context()) - before
	}
	if entries[0] != entries[1] {
		t.Errorf("%d entries in the journal for a known address, %d for an unknown one", entries[0], entries[1])
	}
	if n := len(owner.told("SignInFailed")); n != 1 {
		t.Errorf("%d events, want that of the known address", n)
	}
}

// Wrong codes, wrong passwords of who is signed in, and stolen refresh tokens are told too.
func TestOtherFailures(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	_, err := bob.profiles().ChangePassword(bob.ctx(), &pb.ChangePasswordRequest{CurrentPassword: "wrong", NewPassword: resetTo})
	checkField(t, "a wrong password of who is signed in", err, "current_password")
	bob = bob.withApp()
	challenge := bob.challenged().GetSecret()
	for _, proof := range []*pb.Proof{totp("000000"), recovery("0000-0000-0000-0000")} {
		_, err := bob.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge, Proof: proof})
		check(t, "a wrong code", err, codes.Unauthenticated, "PROOF_WRONG")
	}
	var factors []any
	for _, e := range owner.told("SignInFailed") {
		factors = append(factors, e["factor"])
	}
	if len(factors) != 3 || factors[0] != "FACTOR_RECOVERY_CODE" || factors[1] != "FACTOR_TOTP" || factors[2] != "FACTOR_PASSWORD" {
		t.Errorf("got %v", factors)
	}
	ada := owner.add("ada", "US").signInWith(&pb.CreateSessionRequest{WithRefresh: true})
	for range 2 {
		_, err = ada.sessions().RefreshSession(t.Context(), &pb.RefreshSessionRequest{RefreshToken: ada.refresh})
	}
	check(t, "a refresh token again", err, codes.Unauthenticated, "REFRESH_REUSED")
	found := owner.told("RefreshTokenReused")
	if len(found) != 1 || found[0]["session_id"] != ada.session.GetId() || found[0]["user_id"] != ada.user.GetId() {
		t.Errorf("got %v", found)
	}
}

// An administrator lets somebody try again who is kept out by wrong passwords.
func TestUnlockUser(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	check(t, "the sixth wrong password", bob.guess(6), codes.ResourceExhausted, "LIMIT_REACHED")
	_, err := bob.passwords().UnlockUser(bob.ctx(), &pb.UnlockUserRequest{UserId: owner.user.GetId()})
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING")
	_, err = owner.passwords().UnlockUser(owner.ctx(), &pb.UnlockUserRequest{UserId: bob.user.GetId(), ValidateOnly: true})
	mustNot(t, err)
	check(t, "a try of unlocking changes nothing", bob.guess(1), codes.ResourceExhausted, "LIMIT_REACHED")
	resp, err := owner.passwords().UnlockUser(owner.ctx(), &pb.UnlockUserRequest{UserId: bob.user.GetId()})
	mustNot(t, err)
	if resp.GetForgotten() != 10 { // 5 of the account, and of the place
		t.Errorf("%d were forgotten", resp.GetForgotten())
	}
	bob.signIn("")
	for range 3 {
		_, err = owner.passwords().UnlockUser(owner.ctx(), &pb.UnlockUserRequest{UserId: bob.user.GetId()})
	}
	check(t, "again and again", err, codes.ResourceExhausted, "LIMIT_REACHED")
	if found := owner.told("UserUnlocked"); len(found) != 3 || found[2]["user_id"] != bob.user.GetId() {
		t.Errorf("got %v", found)
	}
}

// A person who is locked out for good is told of once more, and let in by an administrator.
func TestLockoutIsTold(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	bob := owner.hire("bob", "US")
	for range 50 {
		bob.guess(1)
		offset.Add(int64(61 * time.Minute))
	}
	check(t, "the 51st", bob.guess(1), codes.ResourceExhausted, "LIMIT_REACHED")
	admin := owner.signIn("")
	found := admin.told("SignInFailed")
	if len(found) != 50 || found[0]["locked"] != true || found[0]["in_a_row"] != 50.0 || found[1]["locked"] != nil {
		t.Errorf("%d events, the last two %v", len(found), found[:2])
	}
	_, err := admin.passwords().UnlockUser(admin.ctx(), &pb.UnlockUserRequest{UserId: bob.user.GetId()})
	mustNot(t, err)
	bob.signIn("")
}
