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

	"latchkey.dev/services/internal/servertest"
)

// site is a confidential client that people are sent back to.
func site(scopes ...string) *pb.OauthClient {
	return &pb.OauthClient{
		Owner: pb.OauthClientOwner_OAUTH_CLIENT_OWNER_ORGANIZATION, Name: "a site", Kind: pb.OauthClientKind_OAUTH_CLIENT_KIND_CONFIDENTIAL,
		GrantTypes: []pb.OauthGrantType{pb.OauthGrantType_OAUTH_GRANT_TYPE_AUTHORIZATION_CODE}, Scopes: scopes,
		RedirectUris: []string{"https://site.example/callback"}, PostLogoutRedirectUris: []string{"https://site.example/bye"},
	}
}

func with(c *pb.OauthClient, change func(*pb.OauthClient)) *pb.OauthClient {
	c = proto.CloneOf(c)
	change(c)
	return c
}

func TestOauthClient(t *testing.T) {
	owner := owned(t)
	req := &pb.CreateOauthClientRequest{RequestId: servertest.UUID(1), OauthClient: site("openid", "Invoices")}
	made, err := owner.clients().CreateOauthClient(owner.ctx(), req)
	mustNot(t, err)
	again, err := owner.clients().CreateOauthClient(owner.ctx(), req)
	if err != nil || again.GetClientSecret() != "" || again.GetOauthClient().GetId() != made.GetOauthClient().GetId() {
		t.Errorf("a repeat: got %v, %v, want the first client without its secret", again, err)
	}
	id := made.GetOauthClient().GetId()
	got, err := owner.clients().GetOauthClient(owner.ctx(), &pb.GetOauthClientRequest{Id: id})
	mustNot(t, err)
	same(t, "get", got.GetOauthClient(), made.GetOauthClient())
	updated, err := owner.clients().UpdateOauthClient(owner.ctx(), &pb.UpdateOauthClientRequest{
		OauthClient: &pb.OauthClient{Id: id, Name: "another name"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}},
	})
	if err != nil || updated.GetOauthClient().GetName() != "another name" || len(updated.GetOauthClient().GetScopes()) != 2 {
		t.Errorf("update: got %v, %v", updated, err)
	}
	_, err = owner.clients().UpdateOauthClient(owner.ctx(), &pb.UpdateOauthClientRequest{OauthClient: &pb.OauthClient{Id: id, Etag: "x", Name: "n"}})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	deleted, err := owner.clients().DeleteOauthClient(owner.ctx(), &pb.DeleteOauthClientRequest{Id: id})
	if err != nil || deleted.GetOauthClient().GetDeleteTime() == nil || deleted.GetOauthClient().GetPurgeTime() == nil {
		t.Errorf("delete: got %v, %v", deleted, err)
	}
	_, err = owner.clients().DeleteOauthClient(owner.ctx(), &pb.DeleteOauthClientRequest{Id: id})
	check(t, "delete it again", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	list, err := owner.clients().ListOauthClients(owner.ctx(), &pb.ListOauthClientsRequest{Owner: pb.OauthClientOwner_OAUTH_CLIENT_OWNER_ORGANIZATION})
	if err != nil || len(list.GetOauthClients()) != 1 {
		t.Errorf("list: got %v, %v, want the deleted one", list, err)
	}
}

func TestOauthClientIsChecked(t *testing.T) {
	owner := owned(t)
	for name, x := range map[string]struct {
		change func(*pb.OauthClient)
		field  string
	}{
		"no name":       {func(c *pb.OauthClient) { c.Name = "" }, "oauth_client.name"},
		"no kind":       {func(c *pb.OauthClient) { c.Kind = 0 }, "oauth_client.kind"},
		"no grant type": {func(c *pb.OauthClient) { c.GrantTypes = nil }, "oauth_client.grant_types"},
		"no redirect":   {func(c *pb.OauthClient) { c.RedirectUris = nil }, "oauth_client.redirect_uris"},
		"no scope":      {func(c *pb.OauthClient) { c.Scopes = nil }, "oauth_client.scopes"},
		"no such scope": {func(c *pb.OauthClient) { c.Scopes = []string{"Organization: Users"} }, "oauth_client.scopes"},
		"public machine": {func(c *pb.OauthClient) {
			c.Kind, c.GrantTypes = pb.OauthClientKind_OAUTH_CLIENT_KIND_PUBLIC, []pb.OauthGrantType{pb.OauthGrantType_OAUTH_GRANT_TYPE_CLIENT_CREDENTIALS}
		}, "oauth_client.grant_types"},
		"machine of a brand": {func(c *pb.OauthClient) {
			c.Owner, c.GrantTypes = pb.OauthClientOwner_OAUTH_CLIENT_OWNER_BRAND, []pb.OauthGrantType{pb.OauthGrantType_OAUTH_GRANT_TYPE_CLIENT_CREDENTIALS}
		}, "oauth_client.grant_types"},
		"bye to http": {func(c *pb.OauthClient) { c.PostLogoutRedirectUris = []string{"http://site.example"} }, "oauth_client.post_logout_redirect_uris"},
	} {
		_, err := owner.clients().CreateOauthClient(owner.ctx(), &pb.CreateOauthClientRequest{OauthClient: with(site("openid"), x.change)})
		checkField(t, name, err, x.field)
	}
}

// SECURITY: codes are sent where nobody else listens.
func TestRedirectURIs(t *testing.T) {
	owner := owned(t)
	for uri, ok := range map[string]bool{
		"https://site.example/cb": true, "https://site.example/cb?x=1": true, "http://127.0.0.1/cb": true, "http://[::1]:8080/cb": true, "com.example.app:/cb": true,
		"http://site.example/cb": false, "http://localhost/cb": false, "https://site.example/cb#f": false, "https://u:p@site.example/cb": false,
		"https://*.site.example/cb": false, "javascript:alert(1)": false, "data:text/html,x": false, "app:/cb": false, "https:///cb": false,
		"//site.example/cb": false, "/cb": false, "com.example.app://host/cb": false, "https://site.example/\\x": false, "https://sité.example/": false,
	} {
		_, err := owner.clients().CreateOauthClient(owner.ctx(), &pb.CreateOauthClientRequest{
			OauthClient: with(site("openid"), func(c *pb.OauthClient) { c.RedirectUris = []string{uri} }), ValidateOnly: true,
		})
		if (err == nil) != ok {
			t.Errorf("%s: got %v, want it accepted: %t", uri, err, ok)
		}
	}
}

// SECURITY: a client gets no more than its maker has, nobody makes one in another's place,
// and the two keys open what they are for.
func TestOauthClientIsWithinItsMaker(t *testing.T) {
	owner := owned(t)
	admin := owner.hire("ada", "US")
	owner.permit(admin, "Organization")
	owner.permit(admin, "ControlPanel:ApiKeys")
	_, err := admin.clients().CreateOauthClient(admin.ctx(), &pb.CreateOauthClientRequest{OauthClient: machine("Invoices:Void")})
	check(t, "a machine beyond its maker", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	if _, err = admin.clients().CreateOauthClient(admin.ctx(), &pb.CreateOauthClientRequest{OauthClient: site("Invoices:Void")}); err != nil {
		t.Errorf("a site acts as whoever lets it in, so its maker needs nothing: %v", err)
	}
	brandly := with(site("openid"), func(c *pb.OauthClient) { c.Owner = pb.OauthClientOwner_OAUTH_CLIENT_OWNER_BRAND })
	_, err = admin.clients().CreateOauthClient(admin.ctx(), &pb.CreateOauthClientRequest{OauthClient: brandly})
	check(t, "a brand's client with the key of an organization", err, codes.PermissionDenied, "GRANT_MISSING")
	own := with(site("openid"), func(c *pb.OauthClient) { c.FirstParty = proto.Bool(true) })
	_, err = admin.clients().CreateOauthClient(admin.ctx(), &pb.CreateOauthClientRequest{OauthClient: own})
	check(t, "one that nobody is asked about", err, codes.PermissionDenied, "GRANT_MISSING")
	theirs := owner.register(brandly)
	_, err = admin.clients().GetOauthClient(admin.ctx(), &pb.GetOauthClientRequest{Id: theirs.GetId()})
	check(t, "see a brand's client", err, codes.NotFound, "RECORD_NOT_FOUND")
	mine := owner.register(machine("Organization"))
	_, err = admin.clients().RotateOauthClientSecret(admin.ctx(), &pb.RotateOauthClientSecretRequest{Id: mine.GetId()})
	check(t, "the secret of another's machine", err, codes.PermissionDenied, "RELATION_MISSING")
	_, err = admin.clients().UpdateOauthClient(admin.ctx(), &pb.UpdateOauthClientRequest{OauthClient: &pb.OauthClient{Id: mine.GetId(), Name: "x"}})
	check(t, "change another's machine", err, codes.PermissionDenied, "RELATION_MISSING")
	there := owner.found("Hill Homes")
	_, err = there.clients().GetOauthClient(there.ctx(), &pb.GetOauthClientRequest{Id: mine.GetId()})
	check(t, "from another organization", err, codes.NotFound, "RECORD_NOT_FOUND")
	if _, err = there.clients().GetOauthClient(there.ctx(), &pb.GetOauthClientRequest{Id: theirs.GetId()}); err != nil {
		t.Errorf("a brand's client, from another organization of it: %v", err)
	}
	keyed := owner.withKey("Organization", "ControlPanel:ApiKeys").program()
	_, err = keyed.clients().CreateOauthClient(keyed.ctx(), &pb.CreateOauthClientRequest{OauthClient: machine("Organization")})
	check(t, "by an API key", err, codes.PermissionDenied, "IN_PERSON_ONLY")
}

func TestSecretRotates(t *testing.T) {
	owner := owned(t)
	c := owner.register(machine("Organization"))
	works := func(secret string) bool {
		return owner.machineToken(c.GetId(), secret).status == 200
	}
	rotate := func(overlap time.Duration) string {
		t.Helper()
		resp, err := owner.clients().RotateOauthClientSecret(owner.ctx(), &pb.RotateOauthClientSecretRequest{Id: c.GetId(), Overlap: durationpb.New(overlap)})
		mustNot(t, err)
		return resp.GetClientSecret()
	}
	second := rotate(time.Hour)
	third := rotate(time.Hour)
	if got := []bool{works(c.secret), works(second), works(third)}; !slices.Equal(got, []bool{false, true, true}) {
		t.Errorf("with an overlap, the secrets of before, second to last and now work: %v", got)
	}
	fourth := rotate(0)
	if got := []bool{works(second), works(third), works(fourth)}; !slices.Equal(got, []bool{false, false, true}) {
		t.Errorf("without an overlap: %v", got)
	}
}

// When the call that deletes a client has returned, its tokens are worth nothing.
func TestDeletedClientIsShutOut(t *testing.T) {
	owner := owned(t)
	c := owner.register(machine("Organization"))
	token := owner.machineToken(c.GetId(), c.secret).str("access_token")
	if !owner.signedIn(token) {
		t.Fatal("a fresh token is refused")
	}
	_, err := owner.clients().DeleteOauthClient(owner.ctx(), &pb.DeleteOauthClientRequest{Id: c.GetId()})
	mustNot(t, err)
	if owner.signedIn(token) {
		t.Error("a token is accepted whose client is deleted")
	}
	wantRefusal(t, "its secret", owner.machineToken(c.GetId(), c.secret), 401, "invalid_client")
}
