package identity_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/servertest"
)

// addAccount makes a service account with a role. What it is asked to do by itself, its
// maker does.
func (c *caller) addAccount(name, role string) *caller {
	c.t.Helper()
	resp, err := c.accounts().CreateServiceAccount(c.ctx(), &pb.CreateServiceAccountRequest{DisplayName: name})
	mustNot(c.t, err)
	c.giveRole(resp.GetUser().GetId(), role)
	return &caller{suite: c.suite, user: resp.GetUser(), token: c.token}
}

// keyOf makes a key of a service account.
func (c *caller) keyOf(account *caller, scopes ...string) (*pb.CreateApiKeyResponse, error) {
	return c.apiKeys().CreateApiKey(c.ctx(), &pb.CreateApiKeyRequest{
		Name: "a key of an account", Scopes: scopes, ServiceAccountId: proto.String(account.user.GetId()),
	})
}

// clientOf is a client that acts as a service account.
func clientOf(account *caller, scopes ...string) *pb.OauthClient {
	c := machine(scopes...)
	c.ServiceAccountId = proto.String(account.user.GetId())
	return c
}

// withAccount makes a service account with a role, that has a key and a client with one
// scope.
func (c *caller) withAccount(role, scope string) *caller {
	c.t.Helper()
	account := c.addAccount("account of "+c.user.GetDisplayName(), role)
	key, err := c.keyOf(account, scope)
	mustNot(c.t, err)
	account.key, account.keyID = key.GetToken(), key.GetApiKey().GetId()
	account.machine = c.register(clientOf(account, scope))
	account.machineCall = c.machineToken(account.machine.GetId(), account.machine.secret).str("access_token")
	account.machine.RedirectUris = []string{""} // for whom
	return account
}

func (c *caller) listUsers(filter string) []*pb.User {
	c.t.Helper()
	resp, err := c.users().ListUsers(c.ctx(), &pb.ListUsersRequest{Filter: filter})
	mustNot(c.t, err)
	return resp.GetUsers()
}

func TestServiceAccount(t *testing.T) {
	owner := owned(t)
	req := &pb.CreateServiceAccountRequest{DisplayName: "Accounting export", RequestId: servertest.UUID(1)}
	dry := proto.CloneOf(req)
	dry.ValidateOnly = true
	_, err := owner.accounts().CreateServiceAccount(owner.ctx(), dry)
	mustNot(t, err)
	if got := owner.listUsers("service_account = true"); len(got) != 0 {
		t.Errorf("a call that only validates made %v", got)
	}
	resp, err := owner.accounts().CreateServiceAccount(owner.ctx(), req)
	mustNot(t, err)
	u := resp.GetUser()
	want := &pb.User{
		Id: u.GetId(), Etag: u.GetEtag(), CreateTime: u.GetCreateTime(), UpdateTime: u.GetCreateTime(),
		OrganizationId: owner.user.GetOrganizationId(), DisplayName: "Accounting export",
		State: pb.UserState_USER_STATE_ACTIVE, ServiceAccount: true, AvailableActions: u.GetAvailableActions(),
	}
	same(t, "service account", u, want)
	again, err := owner.accounts().CreateServiceAccount(owner.ctx(), req)
	mustNot(t, err)
	same(t, "a repeat", again, resp)
	if got := owner.listUsers("service_account = true"); len(got) != 1 || !proto.Equal(got[0], want) {
		t.Errorf("listed: got %v, want %v", got, want)
	}
	if got := owner.listUsers("service_account = false"); len(got) != 1 || got[0].GetId() != owner.user.GetId() {
		t.Errorf("persons: got %v, want the owner alone", got)
	}
	for _, name := range []string{"", " "} {
		_, err = owner.accounts().CreateServiceAccount(owner.ctx(), &pb.CreateServiceAccountRequest{DisplayName: name})
		checkField(t, "no name", err, "display_name")
	}
	renamed, err := owner.users().UpdateUser(owner.ctx(), &pb.UpdateUserRequest{
		User: &pb.User{Id: u.GetId(), DisplayName: "Export"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name"}},
	})
	mustNot(t, err)
	if got := renamed.GetUser(); got.GetDisplayName() != "Export" || !got.GetServiceAccount() {
		t.Errorf("renamed: got %v", got)
	}
}

// SECURITY: a service account is no person: nobody gets into it but by its keys.
func TestServiceAccountIsNoPerson(t *testing.T) {
	owner := owned(t)
	account := owner.withAccount("OA", "Organization")
	_, err := owner.impersonate(&pb.ImpersonateUserRequest{UserId: account.user.GetId()})
	check(t, "to act for it", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = owner.passwords().IssuePasswordReset(owner.ctx(), &pb.IssuePasswordResetRequest{UserId: account.user.GetId()})
	check(t, "a code for its password", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = owner.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
		Email: account.user.GetId(), Password: "anything at all", Surface: pb.Surface_SURFACE_WEB,
	})
	check(t, "to sign in", err, codes.Unauthenticated, "SIGN_IN_FAILED")

	owner.permit(account, "Branding")
	key, err := owner.keyOf(account, "Branding")
	mustNot(t, err)
	ctx := withToken(t.Context(), key.GetToken())
	got, err := owner.profiles().GetProfile(ctx, &pb.GetProfileRequest{})
	mustNot(t, err)
	if p := got.GetProfile(); p.GetId() != account.user.GetId() || p.GetDisplayName() != account.user.GetDisplayName() || p.GetEmail() != "" {
		t.Errorf("who it is: got %v", p)
	}
	_, err = owner.organizations().CreateOrganization(ctx, &pb.CreateOrganizationRequest{
		Name: "Its own", TimeZone: "Europe/Berlin", CurrencyCode: "EUR",
	})
	check(t, "an organization of its own", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = owner.apiKeys().CreateApiKey(ctx, &pb.CreateApiKeyRequest{Name: "child", Scopes: []string{"Branding"}})
	check(t, "a key of a key", err, codes.PermissionDenied, "GRANT_MISSING")
}

// SECURITY: a key of a service account has what the account holds, within its scopes, and
// nobody comes to more by it than he holds himself.
func TestKeyOfServiceAccount(t *testing.T) {
	owner := owned(t)
	admin, clerk := owner.hire("admin", "OA"), owner.hire("clerk", "US")
	owner.permit(clerk, "Organization")
	owner.permit(clerk, "ControlPanel:ApiKeys")
	account := admin.addAccount("export", "OA")

	_, err := clerk.keyOf(account, "Organization")
	check(t, "without Organization: Users", err, codes.PermissionDenied, "GRANT_MISSING")
	owner.permit(clerk, "Organization: Users")
	_, err = clerk.keyOf(account, "Organization")
	check(t, "of an account that holds more", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = admin.keyOf(account, "Branding")
	check(t, "a scope that the maker lacks", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = owner.keyOf(account, "Branding")
	check(t, "a scope that the account lacks", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = owner.keyOf(clerk, "Organization")
	check(t, "of a person", err, codes.NotFound, "RECORD_NOT_FOUND")
	other := owner.found("Other Homes")
	_, err = owner.keyOf(other.addAccount("elsewhere", "OA"), "Organization")
	check(t, "of another organization's account", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")

	resp, err := admin.keyOf(account, "Organization", "Organization: Users")
	mustNot(t, err)
	key := resp.GetApiKey()
	if key.GetUserId() != account.user.GetId() || key.GetMakerId() != admin.user.GetId() {
		t.Errorf("got the key %v", key)
	}
	list := func() error {
		_, err := owner.users().ListUsers(withToken(t.Context(), resp.GetToken()), &pb.ListUsersRequest{})
		return err
	}
	mustNot(t, list())
	deny := &permissionspb.SetOverrideRequest{UserId: account.user.GetId(), Key: "Organization: Users", Effect: permissionspb.Effect_EFFECT_DENY}
	_, err = owner.access().SetOverride(owner.ctx(), deny)
	mustNot(t, err)
	check(t, "what the account lost", list(), codes.PermissionDenied, "GRANT_MISSING")
	deny.Effect = permissionspb.Effect_EFFECT_GRANT
	_, err = owner.access().SetOverride(owner.ctx(), deny)
	mustNot(t, err)
	owner.permit(account, "Branding")
	_, err = owner.brands().UpdateBrand(withToken(t.Context(), resp.GetToken()), &pb.UpdateBrandRequest{Brand: &pb.Brand{}})
	check(t, "what the account was given beyond the scopes", err, codes.PermissionDenied, "GRANT_MISSING")

	_, err = owner.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: admin.user.GetId()})
	mustNot(t, err)
	mustNot(t, list())
	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: account.user.GetId()})
	mustNot(t, err)
	check(t, "of an account that is shut out", list(), codes.Unauthenticated, "CREDENTIALS_INVALID")
	_, err = owner.keyOf(account, "Organization")
	check(t, "a key of an account that is shut out", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = owner.users().ReactivateUser(owner.ctx(), &pb.ReactivateUserRequest{Id: account.user.GetId()})
	mustNot(t, err)
	check(t, "of an account that was shut out once", list(), codes.Unauthenticated, "CREDENTIALS_INVALID")
}

// SECURITY: who sees no prices sees none by a key.
func TestKeyOfServiceAccountShowsNoPrices(t *testing.T) {
	owner := owned(t)
	admin := owner.hire("admin", "OA")
	account := admin.addAccount("export", "US")
	see := func(c *caller, prices bool) {
		_, err := owner.access().UpdateUserSettings(owner.ctx(), &permissionspb.UpdateUserSettingsRequest{
			UserId: c.user.GetId(), Settings: &permissionspb.UserSettings{SeePricing: proto.Bool(prices)},
		})
		mustNot(t, err)
	}
	see(admin, false)
	_, err := admin.keyOf(account, "ServiceRequests")
	check(t, "of an account that sees prices", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	see(account, false)
	_, err = admin.keyOf(account, "ServiceRequests")
	mustNot(t, err)
}

func TestRotateKeyOfServiceAccount(t *testing.T) {
	owner := owned(t)
	account := owner.withAccount("OA", "Organization")
	rotate := func(c *caller, id string) (*pb.RotateApiKeyResponse, error) {
		return c.apiKeys().RotateApiKey(c.ctx(), &pb.RotateApiKeyRequest{Id: id, Overlap: durationpb.New(time.Hour)})
	}
	clerk := owner.hire("clerk", "US")
	owner.permit(clerk, "Organization")
	owner.permit(clerk, "ControlPanel:ApiKeys")
	_, err := rotate(clerk, account.keyID)
	check(t, "of an account that holds more", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	admin := owner.hire("admin", "OA")
	resp, err := rotate(admin, account.keyID)
	mustNot(t, err)
	if fresh := resp.GetApiKey(); fresh.GetUserId() != account.user.GetId() || fresh.GetMakerId() != admin.user.GetId() {
		t.Errorf("got the key %v", fresh)
	}
	if !owner.signedIn(account.key) || !owner.signedIn(resp.GetToken()) {
		t.Error("in the overlap both keys should be accepted")
	}
	owner.giveRole(account.user.GetId(), "SP")
	_, err = rotate(clerk, resp.GetApiKey().GetId())
	check(t, "without Organization: Users", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	owner.giveRole(account.user.GetId(), "US")
	_, err = rotate(clerk, resp.GetApiKey().GetId())
	check(t, "without Organization: Users", err, codes.PermissionDenied, "GRANT_MISSING")
	owner.permit(clerk, "Organization: Users")
	_, err = rotate(clerk, resp.GetApiKey().GetId())
	mustNot(t, err)
}

// The end of a service account ends its keys, and neither comes back as it was.
func TestEndOfServiceAccount(t *testing.T) {
	owner := owned(t)
	account := owner.withAccount("OA", "Organization")
	_, err := owner.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: account.user.GetId()})
	mustNot(t, err)
	if owner.signedIn(account.key) || owner.signedIn(account.machineCall) {
		t.Error("what an ended account called with is accepted")
	}
	if got := owner.listUsers("service_account = true"); len(got) != 0 {
		t.Errorf("listed: got %v", got)
	}
	back, err := owner.users().UndeleteUser(owner.ctx(), &pb.UndeleteUserRequest{Id: account.user.GetId()})
	mustNot(t, err)
	if !back.GetUser().GetServiceAccount() || owner.signedIn(account.key) {
		t.Errorf("came back as %v, with its key: %t", back.GetUser(), owner.signedIn(account.key))
	}
	_, err = owner.keyOf(account, "Organization")
	mustNot(t, err)
}

func TestClientOfServiceAccount(t *testing.T) {
	owner := owned(t)
	admin := owner.hire("admin", "OA")
	account := admin.addAccount("export", "OA")
	create := func(c *caller, client *pb.OauthClient) error {
		_, err := c.clients().CreateOauthClient(c.ctx(), &pb.CreateOauthClientRequest{OauthClient: client})
		return err
	}
	checkField(t, "all that the account may do", create(admin, clientOf(account, "all")), "oauth_client.scopes")
	people := site("openid")
	people.ServiceAccountId = proto.String(account.user.GetId())
	checkField(t, "a client that people let in", create(admin, people), "oauth_client.service_account_id")
	check(t, "of a person", create(owner, clientOf(admin, "Organization")), codes.NotFound, "RECORD_NOT_FOUND")
	owner.permit(account, "Branding")
	check(t, "of an account that holds more", create(admin, clientOf(account, "Organization")), codes.PermissionDenied, "BEYOND_OWN_GRANTS")

	m := owner.register(clientOf(account, "Organization:Users", "Organization"))
	token := owner.machineToken(m.GetId(), m.secret).str("access_token")
	claims, _ := owner.verify(token, "at+jwt")
	if claims["uid"] != account.user.GetId() || claims["sub"] != m.GetId() {
		t.Errorf("got the claims %v", claims)
	}
	list, err := owner.users().ListUsers(withToken(t.Context(), token), &pb.ListUsersRequest{})
	mustNot(t, err)
	if !slices.ContainsFunc(list.GetUsers(), (*pb.User).GetServiceAccount) {
		t.Errorf("listed: got %v", list.GetUsers())
	}
	_, err = admin.clients().RotateOauthClientSecret(admin.ctx(), &pb.RotateOauthClientSecretRequest{Id: m.GetId()})
	check(t, "a secret for whoever holds less", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = owner.access().ClearOverride(owner.ctx(), &permissionspb.ClearOverrideRequest{UserId: account.user.GetId(), Key: "Branding"})
	mustNot(t, err)
	rotated, err := admin.clients().RotateOauthClientSecret(admin.ctx(), &pb.RotateOauthClientSecretRequest{Id: m.GetId()})
	mustNot(t, err)
	if r := owner.machineToken(m.GetId(), rotated.GetClientSecret()); r.status != 200 {
		t.Errorf("with the new secret: got %d %s", r.status, r.text)
	}
	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: account.user.GetId()})
	mustNot(t, err)
	if owner.signedIn(token) {
		t.Error("the token of an account that is shut out is accepted")
	}
	wantRefusal(t, "of an account that is shut out", owner.machineToken(m.GetId(), rotated.GetClientSecret()), 401, "invalid_client")
}
