package identity_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/token"
	"latchkey.dev/services/permissions"
)

const maxSessions = 100

func TestSignIn(t *testing.T) {
	owner := owned(t)
	req := &pb.CreateSessionRequest{
		Email: " OWNER@example.com", Password: owner.password, Surface: pb.Surface_SURFACE_WEB, RequestId: servertest.UUID(1),
	}
	dry := proto.CloneOf(req)
	dry.ValidateOnly = true
	resp, err := owner.sessions().CreateSession(t.Context(), dry)
	mustNot(t, err)
	if resp.GetToken() != "" {
		t.Error("a call that only validates got a token")
	}
	resp, err = owner.sessions().CreateSession(t.Context(), req)
	mustNot(t, err)
	session := resp.GetSession()
	same(t, "session", session, &pb.Session{
		Id: session.GetId(), Etag: session.GetEtag(), CreateTime: session.GetCreateTime(), UpdateTime: session.GetCreateTime(),
		UserId: owner.user.GetId(), OrganizationId: owner.user.GetOrganizationId(), Surface: pb.Surface_SURFACE_WEB,
		ExpireTime: timestamppb.New(session.GetCreateTime().AsTime().Add(12 * time.Hour)),
		Factors:    []pb.Factor{pb.Factor_FACTOR_PASSWORD}, Strength: pb.Strength_STRENGTH_SINGLE_FACTOR, AuthTime: session.GetCreateTime(),
		UserAgent: session.GetUserAgent(), Address: "127.0.0.1",
	})
	if _, err := token.Hash(resp.GetToken()); err != nil || !strings.HasPrefix(resp.GetToken(), "lk_") {
		t.Errorf("got the token %q, %v", resp.GetToken(), err)
	}
	if !owner.signedIn(resp.GetToken()) {
		t.Error("a fresh token is not accepted")
	}
	again, err := owner.sessions().CreateSession(t.Context(), req)
	mustNot(t, err)
	if !strings.HasPrefix(session.GetUserAgent(), "grpc-go/") {
		t.Errorf("the program is %q", session.GetUserAgent())
	}
	same(t, "a repeat, which has no token", again, &pb.CreateSessionResponse{Session: session})
}

// SECURITY: whatever is wrong with who signs in, the answer is the same.
func TestSignInFailsAlike(t *testing.T) {
	owner := owned(t)
	gone, off := owner.add("gone", "US"), owner.add("off", "US")
	_, err := owner.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: gone.user.GetId()})
	mustNot(t, err)
	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: off.user.GetId()})
	mustNot(t, err)
	_, err = owner.users().CreateUser(owner.ctx(), &pb.CreateUserRequest{Email: "bare@example.com", DisplayName: "No Password"})
	mustNot(t, err)
	home := owner.user.GetOrganizationId()
	for what, req := range map[string]*pb.CreateSessionRequest{
		"unknown address":             {Email: "nobody@example.com", Password: owner.password},
		"no address":                  {Email: "nobody", Password: owner.password},
		"wrong password":              {Email: owner.email, Password: "wrong"},
		"no password yet":             {Email: "bare@example.com", Password: "wrong"},
		"deactivated":                 {Email: off.email, Password: off.password},
		"deactivated, organization":   {Email: off.email, Password: off.password, OrganizationId: home},
		"ended membership":            {Email: gone.email, Password: gone.password},
		"ended, organization":         {Email: gone.email, Password: gone.password, OrganizationId: home},
		"unknown organization":        {Email: owner.email, Password: owner.password, OrganizationId: servertest.UUID(1)},
		"unknown person in a company": {Email: "nobody@example.com", Password: "wrong", OrganizationId: home},
	} {
		req.Surface = pb.Surface_SURFACE_WEB
		_, err := owner.sessions().CreateSession(t.Context(), req)
		check(t, what, err, codes.Unauthenticated, "SIGN_IN_FAILED")
		if !hasText(err, "do not belong together") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestSurfaces(t *testing.T) {
	owner := owned(t)
	people := map[string]*caller{"": owner.add("none", ""), "App": owner.add("app", ""), "Web": owner.add("web", "")}
	for key, c := range people {
		if key != "" {
			_, err := owner.access().SetOverride(owner.ctx(), &permissionspb.SetOverrideRequest{
				UserId: c.user.GetId(), Key: key, Effect: permissionspb.Effect_EFFECT_GRANT,
			})
			mustNot(t, err)
		}
	}
	const web, app, api = pb.Surface_SURFACE_WEB, pb.Surface_SURFACE_APP, pb.Surface_SURFACE_API
	for _, c := range []struct {
		key     string
		surface pb.Surface
		ok      bool
	}{
		{"", web, false}, {"", app, false}, {"", api, false},
		{"App", web, false}, {"App", app, true}, {"App", api, true},
		{"Web", web, true}, {"Web", app, true}, {"Web", api, true},
	} {
		who := people[c.key]
		resp, err := who.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
			Email: who.email, Password: who.password, Surface: c.surface,
		})
		what := "with the key " + c.key + " on " + c.surface.String()
		switch {
		case c.ok && (err != nil || resp.GetSession().GetSurface() != c.surface || !who.signedIn(resp.GetToken())):
			t.Errorf("%s: got %v, %v", what, resp, err)
		case !c.ok:
			check(t, what, err, codes.PermissionDenied, "SURFACE_CLOSED")
		}
	}
	_, err := owner.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{Email: owner.email, Password: owner.password})
	checkField(t, "no surface", err, "surface")
}

func TestEndedSessionIsRefused(t *testing.T) {
	owner := owned(t)
	other, stranger := owner.signIn(""), owner.hire("stranger", "US")
	if !owner.signedIn(other.token) {
		t.Fatal("the second session is not accepted")
	}
	req := &pb.EndSessionRequest{Id: other.session.GetId(), RequestId: servertest.UUID(1)}
	_, err := owner.sessions().EndSession(stranger.ctx(), req)
	check(t, "another person's session", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = owner.sessions().EndSession(owner.ctx(), &pb.EndSessionRequest{Id: servertest.UUID(1)})
	check(t, "an unknown session", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = owner.sessions().EndSession(owner.ctx(), &pb.EndSessionRequest{Id: other.session.GetId(), Etag: "old"})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = owner.sessions().EndSession(owner.ctx(), &pb.EndSessionRequest{Id: other.session.GetId(), ValidateOnly: true})
	mustNot(t, err)
	if !owner.signedIn(other.token) {
		t.Error("a call that changed nothing ended a session")
	}
	for range 2 { // the second is a repeat
		_, err = owner.sessions().EndSession(owner.ctx(), req)
		mustNot(t, err)
		_, err = owner.profiles().GetProfile(other.ctx(), &pb.GetProfileRequest{})
		check(t, "the ended session", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
	}
	_, err = owner.sessions().EndSession(owner.ctx(), &pb.EndSessionRequest{})
	mustNot(t, err)
	if owner.signedIn(owner.token) {
		t.Error("the caller's own session goes on")
	}
	if next := owner.again(); next.signedIn(owner.token) || next.signedIn(other.token) || !next.signedIn(stranger.token) {
		t.Error("after a restart another session is live than before")
	}
}

func TestListMySessions(t *testing.T) {
	owner := owned(t)
	second, third := owner.signIn(""), owner.signIn("")
	owner.hire("stranger", "US")
	first, err := owner.sessions().ListMySessions(owner.ctx(), &pb.ListMySessionsRequest{PageSize: 2})
	mustNot(t, err)
	unseen(t, first.GetSessions())
	same(t, "first page", first, &pb.ListMySessionsResponse{
		Sessions: []*pb.Session{third.session, second.session}, NextPageToken: first.GetNextPageToken(),
	})
	last, err := owner.sessions().ListMySessions(owner.ctx(), &pb.ListMySessionsRequest{PageSize: 2, PageToken: first.GetNextPageToken()})
	mustNot(t, err)
	unseen(t, last.GetSessions())
	same(t, "last page", last, &pb.ListMySessionsResponse{Sessions: []*pb.Session{owner.session}})
	_, err = owner.sessions().ListMySessions(owner.ctx(), &pb.ListMySessionsRequest{PageToken: "made up"})
	check(t, "a made-up token", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}

// unseen takes from sessions of a list when they were last used, which the answers to
// sign-ins do not have.
func unseen(t testing.TB, list []*pb.Session) {
	t.Helper()
	for _, session := range list {
		if session.GetLastSeenTime() == nil {
			t.Errorf("nobody knows when %s was last used", session.GetId())
		}
		session.LastSeenTime = nil
	}
}

func TestSessionsExpire(t *testing.T) {
	var passed atomic.Int64
	began := time.Now()
	s := newSuite(t, func() time.Time { return began.Add(time.Duration(passed.Load())) })
	owner := s.claim().signInWith(&pb.CreateSessionRequest{Surface: pb.Surface_SURFACE_API})
	passed.Store(int64(12*time.Hour - time.Minute))
	if !owner.signedIn(owner.token) {
		t.Error("not accepted a minute before its end")
	}
	passed.Store(int64(12 * time.Hour))
	if owner.signedIn(owner.token) {
		t.Error("accepted at its end")
	}
	hash, err := token.Hash(owner.token)
	mustNot(t, err)
	resolver := pb.NewSessionServiceClient(s.Conn("permissions", "identity"))
	_, err = resolver.ResolveSession(t.Context(), &pb.ResolveSessionRequest{TokenHash: hash[:]})
	check(t, "resolve an expired session", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
}

func TestResolveSession(t *testing.T) {
	owner := owned(t)
	hash, err := token.Hash(owner.token)
	mustNot(t, err)
	resolver := pb.NewSessionServiceClient(owner.Conn("permissions", "identity"))
	resp, err := resolver.ResolveSession(t.Context(), &pb.ResolveSessionRequest{TokenHash: hash[:]})
	mustNot(t, err)
	same(t, "facts", resp, &pb.ResolveSessionResponse{Session: &pb.SessionFacts{
		SessionId: owner.session.GetId(), UserId: owner.user.GetId(), OrganizationId: owner.user.GetOrganizationId(),
		Surface: pb.Surface_SURFACE_WEB, ExpireTime: resp.GetSession().GetExpireTime(),
	}})
	if until := time.Until(resp.GetSession().GetExpireTime().AsTime()); until <= 0 || until > 10*time.Minute {
		t.Errorf("the answer holds for %s, want at most ten minutes", until)
	}
	unknown := sha256.Sum256([]byte("something else"))
	_, err = resolver.ResolveSession(t.Context(), &pb.ResolveSessionRequest{TokenHash: unknown[:]})
	check(t, "an unknown hash", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
	_, err = resolver.ResolveSession(t.Context(), &pb.ResolveSessionRequest{TokenHash: hash[:31]})
	checkField(t, "a short hash", err, "token_hash")
	_, err = owner.sessions().ResolveSession(owner.ctx(), &pb.ResolveSessionRequest{TokenHash: hash[:]})
	check(t, "a person asks", err, codes.PermissionDenied, "INTERNAL_ONLY")
}

// An unknown person costs a sign-in as much work as a known one, and a known one with
// the wrong password.
func TestSignInWorksAlike(t *testing.T) {
	owner := owned(t)
	bare := &pb.CreateUserRequest{Email: "bare@example.com", DisplayName: "No Password"}
	_, err := owner.users().CreateUser(owner.ctx(), bare)
	mustNot(t, err)
	for what, req := range map[string]*pb.CreateSessionRequest{
		"right":           {Email: owner.email, Password: owner.password},
		"wrong":           {Email: owner.email, Password: "wrong"},
		"unknown":         {Email: "nobody@example.com", Password: "wrong"},
		"no address":      {Email: "nobody", Password: "wrong"},
		"no password yet": {Email: bare.GetEmail(), Password: "wrong"},
		"not a member":    {Email: owner.email, Password: owner.password, OrganizationId: servertest.UUID(1)},
	} {
		before := identity.Hashes()
		req.Surface = pb.Surface_SURFACE_WEB
		_, err := owner.sessions().CreateSession(t.Context(), req)
		if n := identity.Hashes() - before; n != 1 {
			t.Errorf("%s: %d hashes (%v), want 1", what, n, err)
		}
	}
}

// SECURITY: whether an address is known elsewhere does not show in the work.
func TestCreateUserWorksAlike(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes")
	owner.add("ada", "US")
	for _, email := range []string{"new@example.com", "ada@example.com"} {
		before := identity.Hashes()
		_, err := there.users().CreateUser(there.ctx(), &pb.CreateUserRequest{
			Email: email, DisplayName: "A. Byron", InitialPassword: "chosen by the other company",
		})
		mustNot(t, err)
		if n := identity.Hashes() - before; n != 1 {
			t.Errorf("%s: %d hashes, want 1", email, n)
		}
	}
}

// A hash that cost less than hashes do today is made anew at the next sign-in.
func TestPasswordIsHashedAnew(t *testing.T) {
	owner := owned(t) // with cheap hashes
	owner.Stop()
	next := start(t, owner.config, time.Now, identity.Counted, permissions.Part)
	next.ready()
	who := &caller{suite: next, email: owner.email, password: owner.password}
	for _, want := range []int64{2, 1} {
		before := identity.Hashes()
		who.signIn("")
		if n := identity.Hashes() - before; n != want {
			t.Errorf("%d hashes, want %d", n, want)
		}
	}
}

func TestSignInIsTurnedAwayWhenTooManyWait(t *testing.T) {
	owner := owned(t)
	leave := identity.FillUp()
	_, err := owner.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
		Email: owner.email, Password: owner.password, Surface: pb.Surface_SURFACE_WEB,
	})
	check(t, "one more", err, codes.ResourceExhausted, "LIMIT_REACHED")
	var retry bool
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			retry = info.GetRetryDelay().AsDuration() > 0
		}
	}
	if !retry {
		t.Errorf("the refusal does not say when to try again: %v", err)
	}
	if !owner.signedIn(owner.token) {
		t.Error("other calls are refused too")
	}
	leave()
	owner.signIn("")
}

// A person has at most 100 sessions; the oldest makes room.
func TestOldestSessionMakesRoom(t *testing.T) {
	owner := owned(t)
	second := owner.signIn("")
	for range maxSessions - 2 {
		owner.signIn("")
	}
	if !owner.signedIn(owner.token) {
		t.Fatal("the first of 100 sessions has ended")
	}
	last := owner.signIn("")
	for _, c := range []struct {
		who  *caller
		want bool
	}{{owner, false}, {second, true}, {last, true}} {
		for owner.signedIn(c.who.token) != c.want && t.Context().Err() == nil {
			// The news of an evicted session travels while the sign-in returns.
		}
	}
}

// SECURITY: neither a password nor a token nor the one-time code is on disk.
func TestSecretsAreNotOnDisk(t *testing.T) {
	owner := owned(t)
	user := owner.hire("ada", "US")
	_, err := user.profiles().ChangePassword(user.ctx(), &pb.ChangePasswordRequest{
		RequestId: servertest.UUID(1), CurrentPassword: user.password, NewPassword: "a new password of ada",
	})
	mustNot(t, err)
	secrets := []string{code, owner.password, user.password, "a new password of ada", owner.token, user.token}
	owner.Stop()
	files, err := filepath.Glob(filepath.Join(strings.TrimPrefix(owner.config.Store, "bolt:"), "*.db"))
	if err != nil || len(files) != 2 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		mustNot(t, err)
		for _, secret := range secrets {
			if strings.Contains(string(data), secret) {
				t.Errorf("%s has %q", filepath.Base(file), secret)
			}
			// A plain hash of a password in any request would be as bad.
			for _, hash := range plainHashes(owner, user) {
				if strings.Contains(string(data), hash) {
					t.Errorf("%s has a plain hash over a password", filepath.Base(file))
				}
			}
		}
	}
}

// plainHashes are what a store that hashed whole requests would keep.
func plainHashes(owner, user *caller) []string {
	var hashes []string
	for _, req := range []proto.Message{
		&pb.ChangePasswordRequest{RequestId: servertest.UUID(1), CurrentPassword: user.password, NewPassword: "a new password of ada"},
	} {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
		if err != nil {
			owner.t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		hashes = append(hashes, string(sum[:]))
	}
	return hashes
}
