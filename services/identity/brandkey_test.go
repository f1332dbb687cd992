package identity_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
)

// withBrandKey makes an API key of the brand.
func (c *caller) withBrandKey(scopes ...string) *caller {
	c.t.Helper()
	resp, err := c.brandKeys().CreateBrandApiKey(c.ctx(), &pb.CreateBrandApiKeyRequest{Name: "a key of the brand", Scopes: scopes})
	mustNot(c.t, err)
	next := *c
	next.brandKey, next.brandKeyID = resp.GetToken(), resp.GetApiKey().GetId()
	return &next
}

// lists asks with a token for the users of an organization, and returns how many there are.
func (s *suite) lists(token, organization string) (int, error) {
	ctx := withToken(s.t.Context(), token)
	if organization != "" {
		ctx = naming(ctx, organization)
	}
	resp, err := s.users().ListUsers(ctx, &pb.ListUsersRequest{})
	return len(resp.GetUsers()), err
}

// SECURITY: a key of a brand acts in the organization that the call names, and in none but
// those of the brand.
func TestBrandApiKey(t *testing.T) {
	owner := owned(t)
	there := owner.found("Other Homes")
	owner.hire("ada", "US")
	here, other := owner.user.GetOrganizationId(), there.user.GetOrganizationId()
	owner = owner.withBrandKey("Organization", "Organization: Users").withKey("Organization", "Organization: Users")
	for range 2 { // the second time from what is remembered of the first
		for organization, want := range map[string]int{here: 2, other: 1} {
			if got, err := owner.lists(owner.brandKey, organization); err != nil || got != want {
				t.Errorf("in %s: got %d users, %v, want %d", organization, got, err, want)
			}
		}
		_, err := owner.lists(owner.brandKey, "")
		check(t, "an organization that is not named", err, codes.Unauthenticated, "ORGANIZATION_UNNAMED")
		for _, organization := range []string{servertest.UUID(1), "here", "", here + here} {
			if _, err := owner.lists(owner.brandKey, organization); organization != "" {
				check(t, "no organization: "+organization, err, codes.Unauthenticated, "ORGANIZATION_REFUSED")
			}
		}
		for what, token := range map[string]string{"a key": owner.key, "a session": owner.token} {
			if _, err := owner.lists(token, here); err != nil {
				t.Errorf("%s that names its own organization: %v", what, err)
			}
			_, err = owner.lists(token, other)
			check(t, what+" that names another one", err, codes.Unauthenticated, "ORGANIZATION_REFUSED")
		}
	}
	mustNot(t, identity.Tamper(t.Context(), "brand closed", identity.Whom{Organization: other})) // it is of another brand then
	next := owner.again()
	_, err := next.lists(owner.brandKey, other)
	check(t, "an organization of another brand", err, codes.Unauthenticated, "ORGANIZATION_REFUSED")
	if got, err := next.lists(owner.brandKey, here); err != nil || got != 2 {
		t.Errorf("after a restart: got %d users, %v", got, err)
	}
}

// SECURITY: in each organization a key of a brand has what its maker holds there, as long
// as he is there.
func TestBrandApiKeyStaysWithinItsMaker(t *testing.T) {
	owner := owned(t)
	there := owner.found("Other Homes")
	admin := owner.hire("admin", "OA")
	owner.permit(admin, "Branding")
	owner.permit(admin, "Branding:ApiKeys")
	_, err := admin.brandKeys().CreateBrandApiKey(admin.ctx(), &pb.CreateBrandApiKeyRequest{Name: "x", Scopes: []string{"Organizations: Roles"}})
	check(t, "a scope that the maker lacks", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	admin = admin.withBrandKey("Organization", "Organization: Users")
	here, other := owner.user.GetOrganizationId(), there.user.GetOrganizationId()
	in := func(what, organization string, code codes.Code, reason string) {
		t.Helper()
		_, err := owner.lists(admin.brandKey, organization)
		check(t, what, err, code, reason)
	}
	in("at home", here, codes.OK, "")
	in("where the maker is no member", other, codes.Unauthenticated, "CREDENTIALS_INVALID")
	joined, err := there.users().CreateUser(there.ctx(), &pb.CreateUserRequest{Email: admin.email, DisplayName: "Admin"})
	mustNot(t, err)
	in("where the maker holds nothing", other, codes.PermissionDenied, "GRANT_MISSING")
	there.giveRole(joined.GetUser().GetId(), "OA")
	in("where the maker holds it", other, codes.OK, "")
	_, err = owner.organizations().SuspendOrganization(owner.ctx(), &pb.SuspendOrganizationRequest{Id: other, Reason: "does not pay"})
	mustNot(t, err)
	in("in a suspended organization", other, codes.Unauthenticated, "CREDENTIALS_INVALID")
	in("at home meanwhile", here, codes.OK, "")
	_, err = owner.organizations().ResumeOrganization(owner.ctx(), &pb.ResumeOrganizationRequest{Id: other})
	mustNot(t, err)
	in("in one that goes on", other, codes.OK, "")
	there = there.signIn(other)
	_, err = there.users().DeactivateUser(there.ctx(), &pb.DeactivateUserRequest{Id: admin.user.GetId()})
	mustNot(t, err)
	in("where the maker is shut out", other, codes.Unauthenticated, "CREDENTIALS_INVALID")
	in("where he is not", here, codes.OK, "")
	_, err = there.users().ReactivateUser(there.ctx(), &pb.ReactivateUserRequest{Id: admin.user.GetId()})
	mustNot(t, err)
	in("where he is let in again", other, codes.OK, "")
	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: admin.user.GetId()})
	mustNot(t, err)
	in("of a maker who is shut out where he made it", here, codes.Unauthenticated, "CREDENTIALS_INVALID")
	in("and elsewhere", other, codes.Unauthenticated, "CREDENTIALS_INVALID")
}

func TestManageBrandApiKeys(t *testing.T) {
	owner := owned(t).withBrandKey("Organization").withKey("Organization")
	there := owner.found("Other Homes")
	list := func(c *caller) []*pb.ApiKey {
		t.Helper()
		resp, err := c.brandKeys().ListBrandApiKeys(c.ctx(), &pb.ListBrandApiKeysRequest{})
		mustNot(t, err)
		return resp.GetApiKeys()
	}
	for _, c := range []*caller{owner, there} {
		if got := list(c); len(got) != 1 || got[0].GetId() != owner.brandKeyID || got[0].GetBrandId() == "" {
			t.Errorf("the keys of the brand: got %v", got)
		}
	}
	if got := owner.listKeys(); len(got) != 1 || got[0].GetId() != owner.keyID || got[0].GetBrandId() != "" {
		t.Errorf("the keys of the organization: got %v", got)
	}
	_, err := owner.apiKeys().RevokeApiKey(owner.ctx(), &pb.RevokeApiKeyRequest{Id: owner.brandKeyID})
	check(t, "a brand's key as an organization's", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = owner.brandKeys().RevokeBrandApiKey(owner.ctx(), &pb.RevokeBrandApiKeyRequest{Id: owner.keyID})
	check(t, "an organization's key as a brand's", err, codes.NotFound, "RECORD_NOT_FOUND")
	admin := owner.hire("admin", "OA")
	_, err = admin.brandKeys().ListBrandApiKeys(admin.ctx(), &pb.ListBrandApiKeysRequest{})
	check(t, "with ControlPanel:ApiKeys alone", err, codes.PermissionDenied, "GRANT_MISSING")

	here, other := owner.user.GetOrganizationId(), there.user.GetOrganizationId()
	req := &pb.RotateBrandApiKeyRequest{Id: owner.brandKeyID, Overlap: durationpb.New(time.Hour), RequestId: servertest.UUID(3)}
	resp, err := there.brandKeys().RotateBrandApiKey(there.ctx(), req)
	mustNot(t, err)
	for _, token := range []string{owner.brandKey, resp.GetToken()} {
		if !owner.signedInTo(token, here) || !owner.signedInTo(token, other) {
			t.Error("in the overlap both keys should be accepted in both organizations")
		}
	}
	again, err := there.brandKeys().RotateBrandApiKey(there.ctx(), req)
	mustNot(t, err)
	want := proto.CloneOf(resp)
	want.Token = ""
	same(t, "the repeat, which has no token", again, want)
	_, err = there.brandKeys().RevokeBrandApiKey(there.ctx(), &pb.RevokeBrandApiKeyRequest{Id: owner.brandKeyID})
	mustNot(t, err)
	_, err = there.brandKeys().RevokeBrandApiKey(there.ctx(), &pb.RevokeBrandApiKeyRequest{Id: resp.GetApiKey().GetId()})
	mustNot(t, err)
	for _, token := range []string{owner.brandKey, resp.GetToken()} {
		if owner.signedInTo(token, here) || owner.signedInTo(token, other) {
			t.Error("a revoked key is accepted")
		}
	}
}

// SECURITY: a service account acts in further organizations as far as each lets it, and
// nobody comes by its key to what he does not hold there.
func TestBrandApiKeyOfServiceAccount(t *testing.T) {
	owner := owned(t)
	there := owner.found("Other Homes")
	account := owner.addAccount("reports", "OA")
	join := &pb.CreateServiceAccountRequest{Id: account.user.GetId(), DisplayName: "reports of the brand"}
	for id, reason := range map[string]string{servertest.UUID(1): "RECORD_NOT_FOUND", owner.user.GetId(): "RECORD_NOT_FOUND"} {
		_, err := there.accounts().CreateServiceAccount(there.ctx(), &pb.CreateServiceAccountRequest{Id: id, DisplayName: "x"})
		check(t, "what is no account of the brand", err, codes.NotFound, reason)
	}
	joined, err := there.accounts().CreateServiceAccount(there.ctx(), join)
	mustNot(t, err)
	if u := joined.GetUser(); u.GetId() != account.user.GetId() || !u.GetServiceAccount() || u.GetOrganizationId() != there.user.GetOrganizationId() {
		t.Errorf("let in: got %v", u)
	}
	_, err = there.accounts().CreateServiceAccount(there.ctx(), join)
	check(t, "what is in already", err, codes.AlreadyExists, "RECORD_EXISTS")

	admin := owner.hire("admin", "OA")
	owner.permit(admin, "Branding")
	owner.permit(admin, "Branding:ApiKeys")
	key := func(c *caller) (*pb.CreateBrandApiKeyResponse, error) {
		return c.brandKeys().CreateBrandApiKey(c.ctx(), &pb.CreateBrandApiKeyRequest{
			Name: "reports", Scopes: []string{"Organization", "Organization: Users"}, ServiceAccountId: proto.String(account.user.GetId()),
		})
	}
	made, err := key(admin) // it holds nothing there yet
	mustNot(t, err)
	token, other := made.GetToken(), there.user.GetOrganizationId()
	_, err = owner.lists(token, other)
	check(t, "where the account holds nothing", err, codes.PermissionDenied, "GRANT_MISSING")
	there.giveRole(account.user.GetId(), "OA")
	if got, err := owner.lists(token, other); err != nil || got != 2 {
		t.Errorf("where the account holds it: got %d users, %v", got, err)
	}
	_, err = key(admin)
	check(t, "by who is not there, where the account holds something", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = key(owner)
	mustNot(t, err)
	_, err = owner.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: admin.user.GetId()})
	mustNot(t, err)
	if _, err := owner.lists(token, other); err != nil {
		t.Errorf("after its maker has left: %v", err)
	}
	_, err = there.users().DeactivateUser(there.ctx(), &pb.DeactivateUserRequest{Id: account.user.GetId()})
	mustNot(t, err)
	_, err = owner.lists(token, other)
	check(t, "where the account is shut out", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
	if _, err := owner.lists(token, owner.user.GetOrganizationId()); err != nil {
		t.Errorf("where it is not: %v", err)
	}
}

func TestIntrospectBrandApiKey(t *testing.T) {
	owner := owned(t).withBrandKey("Organization")
	there := owner.found("Other Homes")
	here, other := owner.user.GetOrganizationId(), there.user.GetOrganizationId()
	gateway := owner.register(machine("Organization"))
	brands := owner.register(with(site("openid"), func(c *pb.OauthClient) { c.Owner = pb.OauthClientOwner_OAUTH_CLIENT_OWNER_BRAND }))
	ask := func(c *registered, more ...string) *reply {
		return owner.post("/oauth2/introspect", append([]string{"client_id", c.GetId(), "client_secret", c.secret, "token", owner.brandKey}, more...)...)
	}
	for what, x := range map[string]struct {
		got *reply
		in  string
	}{
		"by a client of an organization, in its own":   {ask(gateway), here},
		"by one that names another":                    {ask(gateway, "organization", other), ""},
		"by a client of the brand, which names none":   {ask(brands), ""},
		"by a client of the brand, here":               {ask(brands, "organization", here), here},
		"by a client of the brand, there":              {ask(brands, "organization", other), other},
		"by a client of the brand, in no organization": {ask(brands, "organization", servertest.UUID(1)), ""},
		"by the key itself, there": {owner.post("/oauth2/introspect", "client_id", owner.brandKeyID, "client_secret", owner.brandKey,
			"token", owner.brandKey, "organization", other), other},
	} {
		if active, _ := x.got.body["active"].(bool); x.got.status != 200 || active != (x.in != "") || x.got.str("org") != x.in {
			t.Errorf("%s: got %d %s, want it active in %q", what, x.got.status, x.got.text, x.in)
		}
	}
	for _, c := range []*caller{owner, there} {
		resp, err := c.clients().IntrospectToken(c.ctx(), &pb.IntrospectTokenRequest{Token: owner.brandKey})
		mustNot(t, err)
		if !resp.GetActive() || resp.GetSession().GetOrganizationId() != c.user.GetOrganizationId() {
			t.Errorf("over gRPC: got %v", resp)
		}
	}
	wantRefusal(t, "exchanged for a token", owner.machineToken(owner.brandKeyID, owner.brandKey), 400, "unauthorized_client")
}
