package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/servertest"
)

const (
	ofOrganization = pb.OutsideProviderOwner_OUTSIDE_PROVIDER_OWNER_ORGANIZATION
	ofBrand        = pb.OutsideProviderOwner_OUTSIDE_PROVIDER_OWNER_BRAND
	// appBack is where providers send people back to in the application of the tests.
	appBack = "https://app.latchkey.example/callback"
)

func (s *suite) providers() pb.OutsideProviderServiceClient {
	return pb.NewOutsideProviderServiceClient(s.conn)
}

// company is a provider as somebody would configure it.
func company(change ...func(*pb.OutsideProvider)) *pb.OutsideProvider {
	p := &pb.OutsideProvider{
		Owner: ofOrganization, DisplayName: "Company account", Issuer: "https://login.example", ClientId: "latchkey",
		Scopes: []string{"openid", "email"}, EmailDomains: []string{"example.com"}, RedirectUris: []string{appBack},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

// configure makes a provider.
func (c *caller) configure(p *pb.OutsideProvider, secret string) *pb.OutsideProvider {
	c.t.Helper()
	resp, err := c.providers().CreateOutsideProvider(c.ctx(), &pb.CreateOutsideProviderRequest{OutsideProvider: p, ClientSecret: secret})
	mustNot(c.t, err)
	return resp.GetOutsideProvider()
}

func TestOutsideProvider(t *testing.T) {
	owner := owned(t)
	const secret = "a secret that is looked for on disk"
	req := &pb.CreateOutsideProviderRequest{RequestId: servertest.UUID(1), OutsideProvider: company(), ClientSecret: secret, ValidateOnly: true}
	dry, err := owner.providers().CreateOutsideProvider(owner.ctx(), req)
	mustNot(t, err)
	_, err = owner.providers().GetOutsideProvider(owner.ctx(), &pb.GetOutsideProviderRequest{Id: dry.GetOutsideProvider().GetId()})
	check(t, "what was only validated", err, codes.NotFound, "RECORD_NOT_FOUND")
	req.ValidateOnly = false
	made, err := owner.providers().CreateOutsideProvider(owner.ctx(), req)
	mustNot(t, err)
	again, err := owner.providers().CreateOutsideProvider(owner.ctx(), req)
	mustNot(t, err)
	same(t, "a repeat", again, made)
	p := made.GetOutsideProvider()
	if p.GetSecretTime() == nil || p.GetOrganizationId() != owner.user.GetOrganizationId() {
		t.Errorf("got %v", p)
	}
	got, err := owner.providers().GetOutsideProvider(owner.ctx(), &pb.GetOutsideProviderRequest{Id: p.GetId()})
	mustNot(t, err)
	same(t, "get", got.GetOutsideProvider(), p)
	_, err = owner.providers().CreateOutsideProvider(owner.ctx(), &pb.CreateOutsideProviderRequest{OutsideProvider: company()})
	check(t, "the same once more", err, codes.AlreadyExists, "RECORD_EXISTS")
	updated, err := owner.providers().UpdateOutsideProvider(owner.ctx(), &pb.UpdateOutsideProviderRequest{
		OutsideProvider: &pb.OutsideProvider{Id: p.GetId(), Etag: p.GetEtag(), DisplayName: "Work", TrustedForMfa: true},
		UpdateMask:      &fieldmaskpb.FieldMask{Paths: []string{"display_name", "trusted_for_mfa"}}, ClientSecret: proto.String(""),
	})
	if u := updated.GetOutsideProvider(); err != nil || u.GetDisplayName() != "Work" || !u.GetTrustedForMfa() || u.GetSecretTime() != nil || len(u.GetScopes()) != 2 {
		t.Errorf("update: got %v, %v", updated, err)
	}
	_, err = owner.providers().UpdateOutsideProvider(owner.ctx(), &pb.UpdateOutsideProviderRequest{
		OutsideProvider: &pb.OutsideProvider{Id: p.GetId(), Etag: p.GetEtag(), DisplayName: "Work"},
	})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = owner.providers().UpdateOutsideProvider(owner.ctx(), &pb.UpdateOutsideProviderRequest{
		OutsideProvider: &pb.OutsideProvider{Id: p.GetId(), Issuer: "https://evil.example"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"issuer"}},
	})
	check(t, "another issuer", err, codes.InvalidArgument, "FIELD_INVALID")
	_, err = owner.providers().DeleteOutsideProvider(owner.ctx(), &pb.DeleteOutsideProviderRequest{Id: p.GetId()})
	mustNot(t, err)
	_, err = owner.providers().DeleteOutsideProvider(owner.ctx(), &pb.DeleteOutsideProviderRequest{Id: p.GetId()})
	check(t, "delete it again", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	owner.configure(company(), "") // there is room for the same anew
	list, err := owner.providers().ListOutsideProviders(owner.ctx(), &pb.ListOutsideProvidersRequest{Owner: ofOrganization, PageSize: 1})
	if err != nil || len(list.GetOutsideProviders()) != 1 || list.GetNextPageToken() == "" {
		t.Fatalf("list: got %v, %v, want one of two", list, err)
	}
	list, err = owner.providers().ListOutsideProviders(owner.ctx(), &pb.ListOutsideProvidersRequest{Owner: ofOrganization, PageSize: 1, PageToken: list.GetNextPageToken()})
	if err != nil || list.GetOutsideProviders()[0].GetDeleteTime() == nil {
		t.Errorf("the next page: got %v, %v, want the deleted one", list, err)
	}
	owner.Stop()
	files, err := filepath.Glob(filepath.Join(strings.TrimPrefix(owner.config.Store, "bolt:"), "*.db"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v, want files of the store", files, err)
	}
	for _, file := range files { // SECURITY
		data, err := os.ReadFile(file)
		mustNot(t, err)
		if strings.Contains(string(data), secret) {
			t.Errorf("%s has the secret as it is", file)
		}
	}
}

func TestOutsideProviderIsChecked(t *testing.T) {
	owner := owned(t)
	for name, x := range map[string]struct {
		change func(*pb.OutsideProvider)
		field  string
	}{
		"no owner":         {func(p *pb.OutsideProvider) { p.Owner = 0 }, "outside_provider"},
		"no name":          {func(p *pb.OutsideProvider) { p.DisplayName = "" }, "outside_provider.display_name"},
		"no issuer":        {func(p *pb.OutsideProvider) { p.Issuer = "" }, "outside_provider.issuer"},
		"plain issuer":     {func(p *pb.OutsideProvider) { p.Issuer = "http://login.example" }, "outside_provider.issuer"},
		"plain at a name":  {func(p *pb.OutsideProvider) { p.Issuer = "http://localhost" }, "outside_provider.issuer"},
		"a file":           {func(p *pb.OutsideProvider) { p.Issuer = "file:///etc/passwd" }, "outside_provider.issuer"},
		"with a query":     {func(p *pb.OutsideProvider) { p.Issuer = "https://login.example/?a=b" }, "outside_provider.issuer"},
		"with a fragment":  {func(p *pb.OutsideProvider) { p.Issuer = "https://login.example/#a" }, "outside_provider.issuer"},
		"with a user":      {func(p *pb.OutsideProvider) { p.Issuer = "https://a:b@login.example" }, "outside_provider.issuer"},
		"no client id":     {func(p *pb.OutsideProvider) { p.ClientId = "" }, "outside_provider.client_id"},
		"without openid":   {func(p *pb.OutsideProvider) { p.Scopes = []string{"email"} }, "outside_provider.scopes"},
		"no such domain":   {func(p *pb.OutsideProvider) { p.EmailDomains = []string{"@example.com"} }, "outside_provider.email_domains"},
		"every domain":     {func(p *pb.OutsideProvider) { p.EmailDomains = []string{"*.com"} }, "outside_provider.email_domains"},
		"redirect by http": {func(p *pb.OutsideProvider) { p.RedirectUris = []string{"http://app.example/"} }, "outside_provider.redirect_uris"},
	} {
		_, err := owner.providers().CreateOutsideProvider(owner.ctx(), &pb.CreateOutsideProviderRequest{OutsideProvider: company(x.change)})
		checkField(t, name, err, x.field)
	}
}

// SECURITY: a provider is for the owner's own, by the owner's key, and nobody configures one by
// a stolen or delegated credential.
func TestOutsideProviderIsManagedByItsOwner(t *testing.T) {
	owner := owned(t)
	mine, brands := owner.configure(company(), "s"), owner.configure(company(func(p *pb.OutsideProvider) { p.Owner = ofBrand }), "s")
	admin := owner.hire("admin", "OA")
	other := owner.found("another")
	stranger := other.add("stranger", "OA").signIn(other.user.GetOrganizationId())
	for what, x := range map[string]struct {
		who *caller
		id  string
	}{"a brand's, by an organization": {admin, brands.GetId()}, "another organization's": {stranger, mine.GetId()}, "none": {admin, servertest.UUID(9)}} {
		_, err := x.who.providers().GetOutsideProvider(x.who.ctx(), &pb.GetOutsideProviderRequest{Id: x.id})
		check(t, what+", get", err, codes.NotFound, "RECORD_NOT_FOUND")
		_, err = x.who.providers().UpdateOutsideProvider(x.who.ctx(), &pb.UpdateOutsideProviderRequest{OutsideProvider: &pb.OutsideProvider{Id: x.id, DisplayName: "x"}})
		check(t, what+", update", err, codes.NotFound, "RECORD_NOT_FOUND")
		_, err = x.who.providers().DeleteOutsideProvider(x.who.ctx(), &pb.DeleteOutsideProviderRequest{Id: x.id})
		check(t, what+", delete", err, codes.NotFound, "RECORD_NOT_FOUND")
	}
	_, err := admin.providers().CreateOutsideProvider(admin.ctx(), &pb.CreateOutsideProviderRequest{OutsideProvider: company(func(p *pb.OutsideProvider) { p.Owner = ofBrand })})
	check(t, "make one of the brand", err, codes.PermissionDenied, "GRANT_MISSING")
	program := admin.withKey("Organization", "Organization: Settings").program()
	_, err = program.providers().CreateOutsideProvider(program.ctx(), &pb.CreateOutsideProviderRequest{OutsideProvider: company()})
	check(t, "an API key", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	if _, err := admin.providers().GetOutsideProvider(admin.ctx(), &pb.GetOutsideProviderRequest{Id: mine.GetId()}); err != nil {
		t.Errorf("the organization's own, by its administrator: %v", err)
	}
	list, err := owner.signInProviders(other.user.GetOrganizationId())
	if err != nil || len(list) != 1 || list[0].GetProviderId() != brands.GetId() {
		t.Errorf("the other organization has the providers %v, %v, want that of the brand", list, err)
	}
	if list, err := owner.signInProviders(servertest.UUID(9)); err != nil || len(list) != 0 {
		t.Errorf("no organization has the providers %v, %v", list, err)
	}
}

// signInProviders are those that a sign-in page shows to anybody.
func (s *suite) signInProviders(organization string) ([]*pb.SignInProvider, error) {
	resp, err := pb.NewOutsideSignInServiceClient(s.conn).ListSignInProviders(s.t.Context(), &pb.ListSignInProvidersRequest{OrganizationId: organization})
	return resp.GetProviders(), err
}
