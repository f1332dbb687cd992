package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
)

const resetTo = "nine owls in a tall tree"

func (s *suite) passwords() pb.PasswordServiceClient { return pb.NewPasswordServiceClient(s.conn) }

// issue gets a code for somebody's password.
func (c *caller) issue(who *caller) string {
	c.t.Helper()
	resp, err := c.passwords().IssuePasswordReset(c.ctx(), &pb.IssuePasswordResetRequest{UserId: who.user.GetId()})
	mustNot(c.t, err)
	if resp.GetCode() == "" || !resp.GetExpireTime().AsTime().After(time.Now()) {
		c.t.Fatalf("got %v", resp)
	}
	return resp.GetCode()
}

func (c *caller) reset(code, password string) error {
	_, err := c.passwords().ResetPassword(c.t.Context(), &pb.ResetPasswordRequest{Email: c.email, Code: code, NewPassword: password})
	return err
}

// An administrator hands out a code, which replaces the password once and ends all sessions.
func TestPasswordResetByAdministrator(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	if !bob.signedIn(bob.token) {
		t.Fatal("a fresh session is not accepted")
	}
	code := owner.issue(bob)
	check(t, "a wrong code", bob.reset("0000-0000-0000-0000", resetTo), codes.Unauthenticated, "PROOF_WRONG")
	check(t, "a guessable password", bob.reset(code, "password12345678"), codes.InvalidArgument, "PASSWORD_GUESSABLE")
	check(t, "his own name", bob.reset(code, "bob-bob-bob-1234"), codes.InvalidArgument, "PASSWORD_GUESSABLE")
	checkField(t, "a short password", bob.reset(code, "9 owls!?"), "new_password")
	_, err := bob.passwords().ResetPassword(t.Context(), &pb.ResetPasswordRequest{Email: bob.email, Code: code, NewPassword: resetTo, ValidateOnly: true})
	mustNot(t, err)
	if !bob.signedIn(bob.token) {
		t.Error("a try has ended the session")
	}
	mustNot(t, bob.reset(strings.ToUpper(strings.ReplaceAll(code, "-", " ")), resetTo)) // as people type
	if bob.signedIn(bob.token) {
		t.Error("the session of before is accepted")
	}
	_, err = bob.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{Email: bob.email, Password: bob.password, Surface: pb.Surface_SURFACE_WEB})
	check(t, "the password of before", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	bob.password = resetTo
	bob.signIn("")
	check(t, "the code again", bob.reset(code, "a dozen owls in a tree"), codes.Unauthenticated, "PROOF_WRONG")
}

// SECURITY: a code replaces the password and not the second factor.
func TestPasswordResetLeavesTheSecondFactor(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US").withApp()
	mustNot(t, bob.reset(owner.issue(bob), "9 owls!?")) // beside the second factor
	bob.password = "9 owls!?"
	bob.answer(bob.challenged().GetSecret(), recovery(bob.codes[1]))
}

// resetEvent waits for the next event that a code was asked for.
func (s *suite) resetEvents() func() *pb.PasswordResetRequested {
	s.t.Helper()
	requested := &pb.PasswordResetRequested{}
	stream, err := eventpb.NewEventServiceClient(s.Conn("test", "identity")).WatchEvents(s.t.Context(), &eventpb.WatchEventsRequest{
		Source: "identity", Types: []string{string(requested.ProtoReflect().Descriptor().FullName())},
	})
	mustNot(s.t, err)
	return func() *pb.PasswordResetRequested {
		for {
			m, err := stream.Recv()
			mustNot(s.t, err)
			if m.GetType() != "" {
				mustNot(s.t, proto.Unmarshal(m.GetPayload(), requested))
				return requested
			}
		}
	}
}

// Whoever asks gets nothing but an e-mail: the code goes to whoever sends notifications.
func TestPasswordResetByOneself(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	next := bob.resetEvents()
	for _, email := range []string{"nobody@example.com", "no address", " BOB@example.com"} {
		resp, err := bob.passwords().RequestPasswordReset(t.Context(), &pb.RequestPasswordResetRequest{Email: email})
		mustNot(t, err)
		same(t, email, resp, &pb.RequestPasswordResetResponse{})
	}
	event := next() // the first that there is
	if event.GetUserId() != bob.user.GetId() {
		t.Fatalf("got %v", event)
	}
	inside := pb.NewPasswordServiceClient(bob.Conn("test", "identity"))
	opened, err := inside.OpenPasswordReset(t.Context(), &pb.OpenPasswordResetRequest{Id: event.GetId()})
	mustNot(t, err)
	if opened.GetEmail() != bob.email || opened.GetDisplayName() != "bob" || opened.GetCode() == "" {
		t.Fatalf("got %v", opened)
	}
	_, err = bob.passwords().OpenPasswordReset(owner.ctx(), &pb.OpenPasswordResetRequest{Id: event.GetId()})
	check(t, "opened by a person", err, codes.PermissionDenied, "INTERNAL_ONLY")
	mustNot(t, bob.reset(opened.GetCode(), resetTo))
	_, err = inside.OpenPasswordReset(t.Context(), &pb.OpenPasswordResetRequest{Id: event.GetId()})
	check(t, "opened when used", err, codes.NotFound, "RECORD_NOT_FOUND")
	bob.password = resetTo
	bob.signIn("")
}

// A code is good for a while, for a few tries, and until there is another.
func TestPasswordResetEnds(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	bob := owner.hire("bob", "US")
	first := owner.issue(bob)
	second := owner.issue(bob)
	check(t, "one that was replaced", bob.reset(first, resetTo), codes.Unauthenticated, "PROOF_WRONG")
	for range 4 {
		check(t, "a wrong code", bob.reset("wrong", resetTo), codes.Unauthenticated, "PROOF_WRONG")
	}
	check(t, "the right one after five wrong ones", bob.reset(second, resetTo), codes.ResourceExhausted, "LIMIT_REACHED")
	offset.Store(int64(5 * time.Minute))
	third := owner.issue(bob)
	offset.Store(int64(16 * time.Minute))
	check(t, "one that has expired", bob.reset(third, resetTo), codes.Unauthenticated, "PROOF_WRONG")
	_, err := owner.passwords().IssuePasswordReset(owner.ctx(), &pb.IssuePasswordResetRequest{UserId: bob.user.GetId()})
	check(t, "asked for by who has proven nothing lately", err, codes.FailedPrecondition, "STEP_UP_NEEDED")
}

func TestIssuePasswordResetRefuses(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	request := func(user string) *pb.IssuePasswordResetRequest {
		return &pb.IssuePasswordResetRequest{UserId: user}
	}
	_, err := bob.passwords().IssuePasswordReset(bob.ctx(), request(owner.user.GetId()))
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING")
	_, err = owner.passwords().IssuePasswordReset(owner.ctx(), request(servertest.UUID(7)))
	check(t, "of nobody", err, codes.NotFound, "RECORD_NOT_FOUND")
	admin := owner.hire("admin", "OA")
	_, err = admin.passwords().IssuePasswordReset(admin.ctx(), request(owner.user.GetId()))
	check(t, "of somebody above", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	key := owner.withKey("Organization", "Organization: Users")
	_, err = owner.passwords().IssuePasswordReset(withToken(t.Context(), key.key), request(owner.add("keyless", "").user.GetId()))
	check(t, "by an API key", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	// SECURITY: the password is the way into the other organization too.
	owner.found("Other Homes").importUsers(imported("bob", ""))
	_, err = owner.passwords().IssuePasswordReset(owner.ctx(), request(bob.user.GetId()))
	check(t, "of a member elsewhere", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
}

// A repeat gets no second code, and not the first.
func TestIssuePasswordResetRepeats(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	req := &pb.IssuePasswordResetRequest{RequestId: servertest.UUID(1), UserId: bob.user.GetId()}
	first, err := owner.passwords().IssuePasswordReset(owner.ctx(), req)
	mustNot(t, err)
	again, err := owner.passwords().IssuePasswordReset(owner.ctx(), req)
	mustNot(t, err)
	if again.GetCode() != "" || !proto.Equal(again.GetExpireTime(), first.GetExpireTime()) {
		t.Errorf("got %v, and then %v", first, again)
	}
	mustNot(t, bob.reset(first.GetCode(), resetTo))
}

// SECURITY: of an address that nobody has, a code is asked for and tried with the same
// work, and the same answers.
func TestPasswordResetOfUnknownWorksAlike(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	nobody := &caller{suite: owner.suite, email: "nobody@example.com"}
	var hashes, entries [2]int64
	for i, who := range []*caller{bob, nobody} {
		beforeHashes, beforeEntries := identity.Hashes(), identity.Revision(t.Context())
		_, err := who.passwords().RequestPasswordReset(t.Context(), &pb.RequestPasswordResetRequest{Email: who.email})
		mustNot(t, err)
		for range 5 {
			check(t, who.email, who.reset("wrong", resetTo), codes.Unauthenticated, "PROOF_WRONG")
		}
		check(t, who.email, who.reset("wrong", resetTo), codes.ResourceExhausted, "LIMIT_REACHED")
		hashes[i], entries[i] = identity.Hashes()-beforeHashes, identity.Revision(t.Context())-beforeEntries
	}
	if hashes[0] != hashes[1] || entries[0] != entries[1] {
		t.Errorf("known: %d hashes and %d entries in the journal, unknown: %d and %d", hashes[0], entries[0], hashes[1], entries[1])
	}
}

// SECURITY: neither a code nor a password of a reset is on disk.
func TestPasswordResetIsNotOnDisk(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	issued := owner.issue(bob)
	next := bob.resetEvents()
	_, err := bob.passwords().RequestPasswordReset(t.Context(), &pb.RequestPasswordResetRequest{Email: bob.email})
	mustNot(t, err)
	opened, err := pb.NewPasswordServiceClient(bob.Conn("test", "identity")).OpenPasswordReset(t.Context(), &pb.OpenPasswordResetRequest{Id: next().GetId()})
	mustNot(t, err)
	owner.Stop()
	file, err := os.ReadFile(filepath.Join(strings.TrimPrefix(owner.config.Store, "bolt:"), "identity.db"))
	mustNot(t, err)
	for _, secret := range []string{issued, opened.GetCode()} {
		for _, form := range []string{secret, strings.ReplaceAll(secret, "-", "")} {
			if strings.Contains(string(file), form) {
				t.Errorf("the file has %q", form)
			}
		}
	}
}
