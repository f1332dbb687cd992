package identity_test

import (
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
)

const (
	importedPassword = "correct horse battery staple"
	ofBcrypt         = "$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"
	ofScrypt         = "$scrypt$ln=10,r=8,p=1$c2l4dGVlbiBieXRlcyAuLg$Lnzrq4sPh9y5d5ATV9w8UlAPGK6+YV1E0JDlXi2Kcjw"
	ofPBKDF2         = "$pbkdf2-sha256$i=1000$c2l4dGVlbiBieXRlcyAuLg$wdHL/iRTGtU8FUlC4ZLhwnS9/fmjKZrazvRzbSbf0KY"
)

func imported(name, hash string) *pb.ImportedUser {
	return &pb.ImportedUser{Email: name + "@example.com", DisplayName: name, PasswordHash: hash}
}

func (c *caller) importUsers(users ...*pb.ImportedUser) *pb.ImportUsersResponse {
	c.t.Helper()
	resp, err := c.users().ImportUsers(c.ctx(), &pb.ImportUsersRequest{Users: users})
	mustNot(c.t, err)
	return resp
}

// who is somebody imported, with a role that lets her in.
func (c *caller) who(u *pb.User) *caller {
	c.t.Helper()
	c.giveRole(u.GetId(), "US")
	return &caller{suite: c.suite, user: u, email: u.GetEmail(), password: importedPassword}
}

// People sign in with the passwords that they had elsewhere, and are hashed anew then.
func TestImportUsers(t *testing.T) {
	owner := owned(t)
	req := &pb.ImportUsersRequest{RequestId: servertest.UUID(1), Users: []*pb.ImportedUser{
		imported("bea", ofBcrypt), imported("sid", ofScrypt), imported("pia", ofPBKDF2), imported("nil", ""),
	}}
	dry := &pb.ImportUsersRequest{ValidateOnly: true, Users: req.GetUsers()}
	_, err := owner.users().ImportUsers(owner.ctx(), dry)
	mustNot(t, err)
	resp, err := owner.users().ImportUsers(owner.ctx(), req)
	mustNot(t, err)
	if len(resp.GetUsers()) != 4 || resp.GetAdded() != 4 {
		t.Fatalf("got %v", resp)
	}
	again, err := owner.users().ImportUsers(owner.ctx(), req)
	mustNot(t, err)
	same(t, "a repeat", again, resp)
	if more := owner.importUsers(req.GetUsers()...); more.GetAdded() != 0 || more.GetUsers()[2].GetId() != resp.GetUsers()[2].GetId() {
		t.Errorf("the same people once more: got %v", more)
	}
	for i, u := range resp.GetUsers()[:3] {
		who := owner.who(u)
		who.signIn("")
		if hash, kind := identity.KeptPassword(t.Context(), u.GetId()); hash == req.GetUsers()[i].GetPasswordHash() || kind != "" {
			t.Errorf("%s is kept as %q of the kind %q after the first sign-in", u.GetEmail(), hash, kind)
		}
		who.signIn("") // by the new hash
	}
	if n := identity.ImportedKinds(t.Context()); n != 0 {
		t.Errorf("%d kinds are left, want none", n)
	}
	_, err = owner.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
		Email: "nil@example.com", Password: importedPassword, Surface: pb.Surface_SURFACE_WEB,
	})
	check(t, "without a hash", err, codes.Unauthenticated, "SIGN_IN_FAILED")
}

// All is refused if one does not do, and each that does not is named.
func TestImportUsersRefuses(t *testing.T) {
	owner := owned(t)
	_, err := owner.users().ImportUsers(owner.ctx(), &pb.ImportUsersRequest{Users: []*pb.ImportedUser{
		imported("good", ofBcrypt), imported("bad", "5f4dcc3b5aa765d61d8327deb882cf99"), imported("good", ""),
		{Email: "no address", DisplayName: "No"}, imported("dear", "$2b$19$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"),
	}})
	check(t, "some of them wrong", err, codes.InvalidArgument, "FIELD_INVALID")
	var fields []string
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	if got, want := len(fields), 4; got != want {
		t.Errorf("got the fields %q, want %d", fields, want)
	}
	if resp := owner.importUsers(imported("good", ofBcrypt)); resp.GetAdded() != 1 {
		t.Errorf("somebody was added by a call that failed")
	}
	clerk := owner.hire("clerk", "US")
	_, err = owner.users().ImportUsers(clerk.ctx(), &pb.ImportUsersRequest{Users: []*pb.ImportedUser{imported("x", "")}})
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING")
	for i, hash := range []string{ofScrypt, ofPBKDF2, "$pbkdf2-sha256$i=1001$c2l4dGVlbiBieXRlcyAuLg$wdHL/iRTGtU8FUlC4ZLhwnS9/fmjKZrazvRzbSbf0KY"} {
		owner.importUsers(imported([]string{"a", "b", "c"}[i]+"-kind", hash))
	}
	_, err = owner.users().ImportUsers(owner.ctx(), &pb.ImportUsersRequest{Users: []*pb.ImportedUser{
		imported("e-kind", "$pbkdf2-sha256$i=1002$c2l4dGVlbiBieXRlcyAuLg$wdHL/iRTGtU8FUlC4ZLhwnS9/fmjKZrazvRzbSbf0KY"),
	}})
	check(t, "a fifth kind", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
}

// SECURITY: an import takes over nobody: who is known elsewhere keeps the password.
func TestImportUsersTakesNobodyOver(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	other := owner.found("Other Homes")
	resp := other.importUsers(imported("bob", ofBcrypt))
	if resp.GetAdded() != 1 || resp.GetUsers()[0].GetId() != bob.user.GetId() {
		t.Fatalf("got %v", resp)
	}
	_, err := owner.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
		Email: bob.email, Password: importedPassword, Surface: pb.Surface_SURFACE_WEB, OrganizationId: owner.user.GetOrganizationId(),
	})
	check(t, "the imported password", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	bob.signIn(owner.user.GetOrganizationId())
}

// A password of less than 15 characters does not do alone: the first sign-in sets up a
// second factor, which then cannot be taken away.
func TestShortPasswordNeedsASecondFactor(t *testing.T) {
	owner := owned(t)
	u := owner.importUsers(imported("tim", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")).GetUsers()[0]
	tim := owner.who(u)
	tim.password = "password" // as the reference implementation has it
	resp, err := tim.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{Email: tim.email, Password: tim.password, Surface: pb.Surface_SURFACE_WEB})
	mustNot(t, err)
	if resp.GetToken() != "" || resp.GetChallenge().GetTotpSetup() == nil {
		t.Fatalf("a short password alone: got %v", resp)
	}
	app := newApp(t, resp.GetChallenge().GetTotpSetup())
	answer, err := tim.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{
		Challenge: resp.GetChallenge().GetSecret(), Proof: &pb.Proof{Proof: &pb.Proof_TotpCode{TotpCode: app.now()}},
	})
	mustNot(t, err)
	tim.token = answer.GetToken()
	_, err = tim.factors().DeleteTotp(tim.ctx(), &pb.DeleteTotpRequest{})
	check(t, "the second factor of a short password", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	for password, want := range map[string]string{"owls...": "FIELD_INVALID", "monkey12": "PASSWORD_GUESSABLE"} {
		_, err := tim.profiles().ChangePassword(tim.ctx(), &pb.ChangePasswordRequest{CurrentPassword: tim.password, NewPassword: password})
		check(t, password, err, codes.InvalidArgument, want)
	}
	change := func(next string) {
		_, err := tim.profiles().ChangePassword(tim.ctx(), &pb.ChangePasswordRequest{CurrentPassword: tim.password, NewPassword: next})
		mustNot(t, err)
		tim.password = next
	}
	change("9 owls!?") // beside a second factor 8 do
	change("nine owls in a tree")
	_, err = tim.factors().DeleteTotp(tim.ctx(), &pb.DeleteTotpRequest{})
	mustNot(t, err)
}

// SECURITY: an import is no way around the fields that CreateUser demands.
func TestImportUsersWithCustomValues(t *testing.T) {
	owner := owned(t)
	known := owner.importUsers(imported("old", ""))
	required := locker()
	required.Required = true
	f := owner.addField(required)
	with := func(name string, n int64) *pb.ImportedUser {
		u := imported(name, "")
		u.CustomValues = []*typepb.CustomValue{{CustomFieldId: f.GetId(), Value: &typepb.CustomValue_Number{Number: n}}}
		return u
	}
	_, err := owner.users().ImportUsers(owner.ctx(), &pb.ImportUsersRequest{
		Users: []*pb.ImportedUser{imported("old", ""), imported("none", ""), with("good", 7), with("high", 401)},
	})
	check(t, "values that do not do", err, codes.InvalidArgument, "FIELD_INVALID")
	var fields []string
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	sameNames(t, "what is wrong", fields, "users[1].custom_values", "users[3].custom_values[0]")
	resp := owner.importUsers(imported("old", ""), with("good", 7))
	if resp.GetAdded() != 1 || resp.GetUsers()[0].GetId() != known.GetUsers()[0].GetId() || resp.GetUsers()[1].GetCustomValues()[0].GetNumber() != 7 {
		t.Errorf("got %v", resp)
	}
}
