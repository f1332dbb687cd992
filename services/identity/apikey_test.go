package identity_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/token"
)

// withKey makes an API key of the caller.
func (c *caller) withKey(scopes ...string) *caller {
	c.t.Helper()
	resp, err := c.apiKeys().CreateApiKey(c.ctx(), &pb.CreateApiKeyRequest{Name: "a key", Scopes: scopes})
	mustNot(c.t, err)
	next := *c
	next.key, next.keyID = resp.GetToken(), resp.GetApiKey().GetId()
	return &next
}

// program is what calls with the caller's API key.
func (c *caller) program() *caller {
	next := *c
	next.token = c.key
	return &next
}

func (c *caller) listKeys() []*pb.ApiKey {
	c.t.Helper()
	resp, err := c.apiKeys().ListApiKeys(c.ctx(), &pb.ListApiKeysRequest{})
	mustNot(c.t, err)
	return resp.GetApiKeys()
}

func withoutActions(k *pb.ApiKey) *pb.ApiKey {
	k = proto.CloneOf(k)
	k.AvailableActions = nil
	return k
}

func TestCreateApiKey(t *testing.T) {
	owner := owned(t)
	req := &pb.CreateApiKeyRequest{
		Name: "Export", Scopes: []string{"Organization: Users", "Organization"}, RequestId: servertest.UUID(1),
		ExpireTime: timestamppb.New(time.Now().Add(time.Hour)),
	}
	dry := proto.CloneOf(req)
	dry.ValidateOnly = true
	resp, err := owner.apiKeys().CreateApiKey(owner.ctx(), dry)
	mustNot(t, err)
	if resp.GetToken() != "" || len(owner.listKeys()) != 0 {
		t.Error("a call that only validates made a key")
	}
	resp, err = owner.apiKeys().CreateApiKey(owner.ctx(), req)
	mustNot(t, err)
	key := resp.GetApiKey()
	same(t, "key", withoutActions(key), &pb.ApiKey{
		Id: key.GetId(), Etag: key.GetEtag(), CreateTime: key.GetCreateTime(), UpdateTime: key.GetCreateTime(),
		UserId: owner.user.GetId(), OrganizationId: owner.user.GetOrganizationId(), Name: "Export",
		Scopes: []string{"Organization", "Organization: Users"}, ExpireTime: req.GetExpireTime(),
		State: pb.ApiKeyState_API_KEY_STATE_ACTIVE,
	})
	if _, err := token.Hash(resp.GetToken()); err != nil || !strings.HasPrefix(resp.GetToken(), "lka_") {
		t.Errorf("got the token %q, %v", resp.GetToken(), err)
	}
	again, err := owner.apiKeys().CreateApiKey(owner.ctx(), req)
	mustNot(t, err)
	same(t, "a repeat, which has no token", again, &pb.CreateApiKeyResponse{ApiKey: key})
	same(t, "listed", owner.listKeys()[0], key)

	bad := func(what, field string, req *pb.CreateApiKeyRequest) {
		_, err := owner.apiKeys().CreateApiKey(owner.ctx(), req)
		checkField(t, what, err, field)
	}
	bad("no name", "name", &pb.CreateApiKeyRequest{Name: " ", Scopes: []string{"Organization"}})
	bad("no scope", "scopes", &pb.CreateApiKeyRequest{Name: "x"})
	bad("an unknown scope", "scopes", &pb.CreateApiKeyRequest{Name: "x", Scopes: []string{"organization"}})
	bad("a setting", "scopes", &pb.CreateApiKeyRequest{Name: "x", Scopes: []string{"setting:see_pricing"}})
	bad("without what it requires", "scopes", &pb.CreateApiKeyRequest{Name: "x", Scopes: []string{"Organization: Users"}})
	bad("past", "expire_time", &pb.CreateApiKeyRequest{
		Name: "x", Scopes: []string{"Organization"}, ExpireTime: timestamppb.New(time.Now().Add(-time.Hour)),
	})
}

// SECURITY: a key has no more than its scopes, and never more than its maker has.
func TestApiKeyStaysWithinItsMaker(t *testing.T) {
	owner := owned(t)
	admin := owner.hire("admin", "OA")
	_, err := admin.apiKeys().CreateApiKey(admin.ctx(), &pb.CreateApiKeyRequest{Name: "x", Scopes: []string{"Branding"}})
	check(t, "a scope that the maker lacks", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	admin = admin.withKey("Organization", "Organization: Users")
	program := admin.program()
	list := func() error {
		_, err := program.users().ListUsers(program.ctx(), &pb.ListUsersRequest{})
		return err
	}
	mustNot(t, list())
	_, err = program.apiKeys().ListApiKeys(program.ctx(), &pb.ListApiKeysRequest{})
	check(t, "what the maker holds and the key does not", err, codes.PermissionDenied, "GRANT_MISSING")

	override := &permissionspb.SetOverrideRequest{
		UserId: admin.user.GetId(), Key: "Organization: Users", Effect: permissionspb.Effect_EFFECT_DENY,
	}
	_, err = owner.access().SetOverride(owner.ctx(), override)
	mustNot(t, err)
	check(t, "what the maker lost", list(), codes.PermissionDenied, "GRANT_MISSING")
	override.Effect = permissionspb.Effect_EFFECT_GRANT
	_, err = owner.access().SetOverride(owner.ctx(), override)
	mustNot(t, err)
	mustNot(t, list())
	program.giveNothing(t)

	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: admin.user.GetId()})
	mustNot(t, err)
	check(t, "of a maker who is shut out", list(), codes.Unauthenticated, "CREDENTIALS_INVALID")
	_, err = owner.users().ReactivateUser(owner.ctx(), &pb.ReactivateUserRequest{Id: admin.user.GetId()})
	mustNot(t, err)
	check(t, "of a maker who was shut out once", list(), codes.Unauthenticated, "CREDENTIALS_INVALID")
}

// giveNothing tries to hand out, with a key that may edit users, what the key's maker
// holds and the key does not.
func (c *caller) giveNothing(t *testing.T) {
	t.Helper()
	u, err := c.users().CreateUser(c.ctx(), &pb.CreateUserRequest{Email: "new@example.com", DisplayName: "New"})
	mustNot(t, err)
	_, err = c.access().SetOverride(c.ctx(), &permissionspb.SetOverrideRequest{
		UserId: u.GetUser().GetId(), Key: "ControlPanel:ApiKeys", Effect: permissionspb.Effect_EFFECT_GRANT,
	})
	check(t, "a grant beyond the key's scopes", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
}

// SECURITY: a key is not its maker: it touches no credential, profile or session.
func TestApiKeyIsNotThePerson(t *testing.T) {
	owner := owned(t).withKey("Organization", "ControlPanel:ApiKeys")
	program := owner.program()
	ctx := program.ctx()
	for what, call := range map[string]func() error{
		"ChangePassword": func() error {
			_, err := program.profiles().ChangePassword(ctx, &pb.ChangePasswordRequest{
				CurrentPassword: owner.password, NewPassword: "another password of mine",
			})
			return err
		},
		"CreateApiKey": func() error {
			_, err := program.apiKeys().CreateApiKey(ctx, &pb.CreateApiKeyRequest{Name: "child", Scopes: []string{"Organization"}})
			return err
		},
		"RotateApiKey": func() error {
			_, err := program.apiKeys().RotateApiKey(ctx, &pb.RotateApiKeyRequest{Id: owner.keyID})
			return err
		},
		"UpdateProfile": func() error {
			_, err := program.profiles().UpdateProfile(ctx, &pb.UpdateProfileRequest{Profile: &pb.Profile{DisplayName: "Robot"}})
			return err
		},
		"EndSession": func() error {
			_, err := program.sessions().EndSession(ctx, &pb.EndSessionRequest{Id: owner.session.GetId()})
			return err
		},
	} {
		check(t, what, call(), codes.PermissionDenied, "IN_PERSON_ONLY")
	}
	_, err := program.sessions().EndSession(ctx, &pb.EndSessionRequest{})
	check(t, "the key as a session", err, codes.NotFound, "RECORD_NOT_FOUND")
	if !owner.signedIn(owner.token) || !program.signedIn(program.token) {
		t.Error("a session or key was ended by what was refused")
	}
}

func TestRevokeApiKey(t *testing.T) {
	owner := owned(t)
	admin, other := owner.hire("admin", "OA").withKey("Organization"), owner.found("Other Homes")
	revoke := func(c *caller, req *pb.RevokeApiKeyRequest) (*pb.RevokeApiKeyResponse, error) {
		return c.apiKeys().RevokeApiKey(c.ctx(), req)
	}
	_, err := revoke(other, &pb.RevokeApiKeyRequest{Id: admin.keyID})
	check(t, "another organization's key", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = revoke(owner, &pb.RevokeApiKeyRequest{Id: servertest.UUID(1)})
	check(t, "an unknown key", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = revoke(owner, &pb.RevokeApiKeyRequest{Id: admin.keyID, Etag: "old"})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = revoke(owner, &pb.RevokeApiKeyRequest{Id: admin.keyID, ValidateOnly: true})
	mustNot(t, err)
	if !owner.signedIn(admin.key) {
		t.Fatal("a key is not accepted, or was revoked by a call that only validates")
	}
	req := &pb.RevokeApiKeyRequest{Id: admin.keyID, RequestId: servertest.UUID(2)}
	first, err := revoke(owner, req)
	mustNot(t, err)
	if owner.signedIn(admin.key) {
		t.Error("a revoked key is accepted")
	}
	key := first.GetApiKey()
	if got, want := key.GetPurgeTime().AsTime(), key.GetRevokeTime().AsTime().Add(28*24*time.Hour); !got.Equal(want) {
		t.Errorf("got purge_time %v, want %v", got, want)
	}
	again, err := revoke(owner, req)
	mustNot(t, err)
	same(t, "the repeat", again, first)
	_, err = revoke(owner, &pb.RevokeApiKeyRequest{Id: admin.keyID})
	check(t, "a revoked key", err, codes.FailedPrecondition, "STATE_FORBIDS")
	if len(other.listKeys()) != 0 || len(owner.listKeys()) != 1 {
		t.Errorf("got %d keys in the other organization, %d in this one", len(other.listKeys()), len(owner.listKeys()))
	}
	if owner.again().signedIn(admin.key) {
		t.Error("a revoked key is accepted after a restart")
	}
}

func TestRotateApiKey(t *testing.T) {
	owner := owned(t).withKey("Organization")
	admin := owner.hire("admin", "OA")
	_, err := admin.apiKeys().RotateApiKey(admin.ctx(), &pb.RotateApiKeyRequest{Id: owner.keyID})
	check(t, "somebody else's key", err, codes.PermissionDenied, "RELATION_MISSING")
	_, err = owner.apiKeys().RotateApiKey(owner.ctx(), &pb.RotateApiKeyRequest{Id: owner.keyID, Overlap: durationpb.New(8 * 24 * time.Hour)})
	checkField(t, "too long an overlap", err, "overlap")
	mustNot(t, owner.resolve(owner.key))

	req := &pb.RotateApiKeyRequest{Id: owner.keyID, Overlap: durationpb.New(time.Hour), RequestId: servertest.UUID(1)}
	resp, err := owner.apiKeys().RotateApiKey(owner.ctx(), req)
	mustNot(t, err)
	if !owner.signedIn(owner.key) || !owner.signedIn(resp.GetToken()) {
		t.Error("in the overlap both keys should be accepted")
	}
	old, fresh := resp.GetReplaced(), resp.GetApiKey()
	if old.GetSuccessorId() != fresh.GetId() || old.GetExpireTime() == nil || fresh.GetExpireTime() != nil ||
		!slices.Equal(old.GetScopes(), fresh.GetScopes()) || old.GetName() != fresh.GetName() {
		t.Errorf("got the old key %v and the new one %v", old, fresh)
	}
	again, err := owner.apiKeys().RotateApiKey(owner.ctx(), req)
	mustNot(t, err)
	want := proto.CloneOf(resp)
	want.Token = ""
	same(t, "the repeat, which has no token", again, want)

	at, err := owner.apiKeys().RotateApiKey(owner.ctx(), &pb.RotateApiKeyRequest{Id: fresh.GetId(), Etag: fresh.GetEtag()})
	mustNot(t, err)
	if owner.signedIn(resp.GetToken()) || !owner.signedIn(at.GetToken()) {
		t.Error("without an overlap only the new key should be accepted")
	}
	_, err = owner.apiKeys().RotateApiKey(owner.ctx(), &pb.RotateApiKeyRequest{Id: fresh.GetId()})
	check(t, "a key that was replaced", err, codes.FailedPrecondition, "STATE_FORBIDS")
}

func TestApiKeyActions(t *testing.T) {
	owner := owned(t).withKey("Organization")
	admin := owner.hire("admin", "OA")
	allowed := func(actions []*typepb.AvailableAction) (names []string) {
		for _, a := range actions {
			if a.GetAllowed() {
				names = append(names, a.GetMethod()[strings.LastIndex(a.GetMethod(), "/")+1:])
			}
		}
		slices.Sort(names)
		return names
	}
	if got, want := allowed(owner.listKeys()[0].GetAvailableActions()), []string{"RevokeApiKey", "RotateApiKey"}; !slices.Equal(got, want) {
		t.Errorf("the maker: got %q, want %q", got, want)
	}
	if got, want := allowed(admin.listKeys()[0].GetAvailableActions()), []string{"RevokeApiKey"}; !slices.Equal(got, want) {
		t.Errorf("somebody else: got %q, want %q", got, want)
	}
}

// The day of the last use is written down once a day, and the record stays as it is.
func TestLastUse(t *testing.T) {
	start := time.Now()
	var later atomic.Int64
	owner := newSuite(t, func() time.Time { return start.Add(time.Duration(later.Load())) }).claim().withKey("Organization")
	before := owner.listKeys()[0]
	if before.GetLastUseTime() != nil {
		t.Errorf("a key that nobody used was last used at %v", before.GetLastUseTime())
	}
	used := func(when string, want time.Time) {
		t.Helper()
		if !owner.signedIn(owner.key) {
			t.Fatal(when + ": the key is not accepted")
		}
		got := owner.listKeys()[0]
		if !got.GetLastUseTime().AsTime().Equal(want.UTC().Truncate(24*time.Hour)) || got.GetEtag() != before.GetEtag() {
			t.Errorf("%s: got %v, etag %s, want %v, etag %s", when, got.GetLastUseTime().AsTime(), got.GetEtag(), want, before.GetEtag())
		}
	}
	used("the first day", start)
	later.Store(int64(48 * time.Hour))
	owner = owner.signIn("") // the session has expired, the key has not
	used("two days later", start.Add(48*time.Hour))
}
