package identity_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

func inOrganization(ctx context.Context, id string) context.Context {
	return store.WithOrigin(ctx, store.Origin{Tenant: id})
}

// found makes a second organization of the brand, and signs its maker in there.
func (c *caller) found(name string) *caller {
	c.t.Helper()
	resp, err := c.organizations().CreateOrganization(c.ctx(), &pb.CreateOrganizationRequest{
		Name: name, TimeZone: "America/New_York", CurrencyCode: "USD",
	})
	mustNot(c.t, err)
	next := c.signIn(resp.GetOrganization().GetId())
	me, err := c.users().GetUser(next.ctx(), &pb.GetUserRequest{Id: c.user.GetId()})
	mustNot(c.t, err)
	next.user = me.GetUser()
	return next
}

func TestOrganization(t *testing.T) {
	owner := owned(t)
	got, err := owner.organizations().GetOrganization(owner.ctx(), &pb.GetOrganizationRequest{})
	mustNot(t, err)
	o := got.GetOrganization()
	by, err := owner.organizations().GetOrganization(owner.ctx(), &pb.GetOrganizationRequest{Id: o.GetId()})
	mustNot(t, err)
	same(t, "by id", by, got)
	update := func(o *pb.Organization, paths ...string) (*pb.Organization, error) {
		req := &pb.UpdateOrganizationRequest{Organization: o, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}}
		resp, err := owner.organizations().UpdateOrganization(owner.ctx(), req)
		return resp.GetOrganization(), err
	}
	next, err := update(&pb.Organization{Id: o.GetId(), Etag: o.GetEtag(), Name: "Harbour Flats", TimeZone: "Europe/Lisbon"}, "name", "time_zone")
	mustNot(t, err)
	want := proto.CloneOf(o)
	want.Name, want.TimeZone, want.Etag, want.UpdateTime = "Harbour Flats", "Europe/Lisbon", next.GetEtag(), next.GetUpdateTime()
	same(t, "update", next, want)
	_, err = update(&pb.Organization{Id: o.GetId(), Etag: o.GetEtag(), Name: "X"}, "name")
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = update(&pb.Organization{Id: o.GetId(), TimeZone: "Mars/Olympus"}, "time_zone")
	checkField(t, "a zone that is none", err, "organization.time_zone")
	_, err = update(&pb.Organization{Id: o.GetId()}, "currency_code")
	checkField(t, "no currency", err, "organization.currency_code")
	_, err = update(&pb.Organization{Id: o.GetId()}, "name")
	checkField(t, "no name", err, "organization.name")
	_, err = update(&pb.Organization{Id: o.GetId(), BrandId: servertest.UUID(1)}, "brand_id")
	checkField(t, "another brand", err, "update_mask")
}

func TestCreateOrganization(t *testing.T) {
	owner := owned(t)
	req := &pb.CreateOrganizationRequest{
		RequestId: servertest.UUID(1), Name: "Hill Homes", TimeZone: "America/New_York", CurrencyCode: "USD",
	}
	dry := proto.CloneOf(req)
	dry.ValidateOnly = true
	_, err := owner.organizations().CreateOrganization(owner.ctx(), dry)
	mustNot(t, err)
	resp, err := owner.organizations().CreateOrganization(owner.ctx(), req)
	mustNot(t, err)
	home, err := owner.organizations().GetOrganization(owner.ctx(), &pb.GetOrganizationRequest{})
	mustNot(t, err)
	o := resp.GetOrganization()
	same(t, "organization", o, &pb.Organization{
		Id: o.GetId(), Etag: o.GetEtag(), CreateTime: o.GetCreateTime(), UpdateTime: o.GetCreateTime(),
		BrandId: home.GetOrganization().GetBrandId(), Name: "Hill Homes", TimeZone: "America/New_York", CurrencyCode: "USD",
		State: pb.OrganizationState_ORGANIZATION_STATE_ACTIVE,
	})
	again, err := owner.organizations().CreateOrganization(owner.ctx(), req)
	mustNot(t, err)
	same(t, "repeat", again, resp)
	list, err := owner.organizations().ListOrganizations(owner.ctx(), &pb.ListOrganizationsRequest{})
	mustNot(t, err)
	same(t, "mine", list, &pb.ListOrganizationsResponse{Organizations: []*pb.Organization{home.GetOrganization(), o}})
	// The maker is the owner there.
	there := owner.signIn(o.GetId())
	there.add("ada", "OA")
	_, err = owner.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
		Email: owner.email, Password: owner.password, Surface: pb.Surface_SURFACE_WEB,
	})
	checkField(t, "sign in without a choice", err, "organization_id")
	if !hasText(err, o.GetId()+" (Hill Homes)") {
		t.Errorf("the refusal does not say what to choose from: %v", err)
	}
	for field, change := range map[string]func(*pb.CreateOrganizationRequest){
		"name":          func(r *pb.CreateOrganizationRequest) { r.Name = " " },
		"time_zone":     func(r *pb.CreateOrganizationRequest) { r.TimeZone = "Local" },
		"currency_code": func(r *pb.CreateOrganizationRequest) { r.CurrencyCode = "XXX" },
		"language":      func(r *pb.CreateOrganizationRequest) { r.Language = "DE-at" },
		"website":       func(r *pb.CreateOrganizationRequest) { r.Website = "http://hill.example" },
		"email":         func(r *pb.CreateOrganizationRequest) { r.Email = "nobody" },
		"week_start":    func(r *pb.CreateOrganizationRequest) { r.WeekStart = 8 },
	} {
		bad := proto.CloneOf(req)
		bad.RequestId = ""
		change(bad)
		_, err := owner.organizations().CreateOrganization(owner.ctx(), bad)
		checkField(t, field, err, field)
	}
	admin := owner.hire("admin", "OA")
	_, err = admin.organizations().CreateOrganization(admin.ctx(), dry)
	check(t, "an administrator of one organization", err, codes.PermissionDenied, "GRANT_MISSING")
}

func TestBrand(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes")
	got, err := owner.brands().GetBrand(owner.ctx(), &pb.GetBrandRequest{})
	mustNot(t, err)
	b := got.GetBrand()
	update := func(b *pb.Brand) (*pb.Brand, error) {
		resp, err := owner.brands().UpdateBrand(owner.ctx(), &pb.UpdateBrandRequest{
			Brand: b, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}},
		})
		return resp.GetBrand(), err
	}
	next, err := update(&pb.Brand{Id: b.GetId(), Etag: b.GetEtag(), Name: "Harbour & Hill"})
	mustNot(t, err)
	want := proto.CloneOf(b)
	want.Name, want.Etag, want.UpdateTime = "Harbour & Hill", next.GetEtag(), next.GetUpdateTime()
	same(t, "update", next, want)
	seen, err := owner.brands().GetBrand(there.ctx(), &pb.GetBrandRequest{})
	mustNot(t, err)
	same(t, "from the other organization", seen.GetBrand(), next)
	_, err = update(&pb.Brand{Id: b.GetId(), Etag: b.GetEtag(), Name: "X"})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = update(&pb.Brand{Id: servertest.UUID(1), Name: "X"})
	check(t, "an unknown brand", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = update(&pb.Brand{Id: b.GetId(), Name: " "})
	checkField(t, "a blank name", err, "brand.name")
}

// Whatever belongs to another organization is as unknown as what does not exist.
func TestOtherOrganizations(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes")
	ada := owner.add("ada", "US").user // of the first organization only
	for what, err := range map[string]error{
		"get":        second(there.users().GetUser(there.ctx(), &pb.GetUserRequest{Id: ada.GetId()})),
		"update":     second(there.users().UpdateUser(there.ctx(), &pb.UpdateUserRequest{User: &pb.User{Id: ada.GetId(), DisplayName: "X"}})),
		"deactivate": second(there.users().DeactivateUser(there.ctx(), &pb.DeactivateUserRequest{Id: ada.GetId()})),
		"reactivate": second(there.users().ReactivateUser(there.ctx(), &pb.ReactivateUserRequest{Id: ada.GetId()})),
		"end":        second(there.users().EndMembership(there.ctx(), &pb.EndMembershipRequest{Id: ada.GetId()})),
		"undelete":   second(there.users().UndeleteUser(there.ctx(), &pb.UndeleteUserRequest{Id: ada.GetId()})),
		"update organization": second(there.organizations().UpdateOrganization(there.ctx(), &pb.UpdateOrganizationRequest{
			Organization: &pb.Organization{Id: owner.user.GetOrganizationId(), Name: "X"},
		})),
	} {
		check(t, what, err, codes.NotFound, "RECORD_NOT_FOUND")
	}
	list, err := there.users().ListUsers(there.ctx(), &pb.ListUsersRequest{})
	mustNot(t, err)
	same(t, "the users there", list, &pb.ListUsersResponse{Users: []*pb.User{there.user}})

	lookup := func(org string, req *pb.LookupMembersRequest) *pb.LookupMembersResponse {
		resp, err := pb.NewUserServiceClient(owner.Conn("permissions", "identity")).LookupMembers(inOrganization(t.Context(), org), req)
		mustNot(t, err)
		return resp
	}
	asMember := func(u *pb.User, state pb.UserState) *pb.Member {
		return &pb.Member{UserId: u.GetId(), DisplayName: u.GetDisplayName(), Email: u.GetEmail(), State: state}
	}
	active, deactivated := pb.UserState_USER_STATE_ACTIVE, pb.UserState_USER_STATE_DEACTIVATED
	here, elsewhere := owner.user.GetOrganizationId(), there.user.GetOrganizationId()
	all := &pb.LookupMembersRequest{UserIds: []string{ada.GetId(), servertest.UUID(1), owner.user.GetId()}}
	same(t, "members there", lookup(elsewhere, all), &pb.LookupMembersResponse{Members: []*pb.Member{asMember(there.user, active)}})
	both := &pb.LookupMembersResponse{Members: []*pb.Member{asMember(ada, active), asMember(owner.user, active)}}
	same(t, "members here", lookup(here, all), both)
	written := &pb.LookupMembersRequest{Emails: []string{" " + strings.ToUpper(ada.GetEmail()), "nobody@example.com", "no address", owner.user.GetEmail()}}
	same(t, "members here by address", lookup(here, written), both)
	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: ada.GetId()})
	mustNot(t, err)
	one := &pb.LookupMembersRequest{UserIds: []string{ada.GetId()}, Emails: []string{ada.GetEmail()}}
	same(t, "members here, one deactivated", lookup(here, one), &pb.LookupMembersResponse{})
	one.IncludeDeactivated = true
	same(t, "members here, also if deactivated", lookup(here, one), &pb.LookupMembersResponse{
		Members: []*pb.Member{asMember(ada, deactivated), asMember(ada, deactivated)},
	})
}

func second[T any](_ T, err error) error { return err }

// SECURITY: adding somebody whom another organization knows looks like adding
// somebody new, and changes nothing of what the other has.
func TestAddingSomebodyKnownElsewhere(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes")
	ada := owner.hire("ada", "US")
	add := func(email string) *pb.User {
		resp, err := there.users().CreateUser(there.ctx(), &pb.CreateUserRequest{
			Email: email, DisplayName: "A. Byron", InitialPassword: "chosen by the other company",
		})
		mustNot(t, err)
		return resp.GetUser()
	}
	fresh, known := add("new@example.com"), add(ada.email)
	if known.GetId() != ada.user.GetId() {
		t.Errorf("the person has the id %s there and %s here", known.GetId(), ada.user.GetId())
	}
	want := proto.CloneOf(fresh)
	want.Id, want.Etag, want.Email = known.GetId(), known.GetEtag(), known.GetEmail()
	want.CreateTime, want.UpdateTime = known.GetCreateTime(), known.GetUpdateTime()
	same(t, "the known one beside the new one", known, want)
	if !known.GetCreateTime().AsTime().After(fresh.GetCreateTime().AsTime()) {
		t.Error("create_time tells that the person was known before")
	}
	for _, id := range []string{known.GetId(), fresh.GetId()} {
		if id[14] != '5' {
			t.Errorf("the id %s may tell when it was made", id)
		}
	}
	// Here nothing has changed.
	if !ada.signedIn(ada.token) {
		t.Error("the session here has ended")
	}
	got, err := owner.users().GetUser(owner.ctx(), &pb.GetUserRequest{Id: ada.user.GetId()})
	mustNot(t, err)
	if name := got.GetUser().GetDisplayName(); name != "ada" {
		t.Errorf("the name here is %q now", name)
	}
	there.giveRole(known.GetId(), "US")
	ada.signIn(there.user.GetOrganizationId()) // with her own password
	_, err = ada.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
		Email: ada.email, Password: "chosen by the other company", Surface: pb.Surface_SURFACE_WEB,
	})
	check(t, "with the other company's password", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	// Shut out there, she goes on working here.
	_, err = there.users().DeactivateUser(there.ctx(), &pb.DeactivateUserRequest{Id: known.GetId()})
	mustNot(t, err)
	if !ada.signedIn(ada.token) {
		t.Error("the session here has ended by a deactivation there")
	}
}

// A new organization can have every setting that an old one can get.
func TestCreateOrganizationWithSettings(t *testing.T) {
	owner := owned(t)
	req := &pb.CreateOrganizationRequest{
		Name: "Hill Homes", TimeZone: "America/New_York", CurrencyCode: "USD", SecondFactorRequired: true, LegalName: "Hill Homes, Inc.",
		Website: "https://hill.example", Email: "office@hill.example", Phone: "+12125550123", Language: "en-US", WeekStart: 7,
		Address: &typepb.Address{Lines: []string{"1 Hill"}, Locality: "Albany", RegionCode: "US"},
	}
	resp, err := owner.organizations().CreateOrganization(owner.ctx(), req)
	mustNot(t, err)
	got, want := resp.GetOrganization().ProtoReflect(), req.ProtoReflect()
	for _, name := range identity.OrganizationSettings {
		field := want.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil || !want.Has(field) {
			t.Errorf("%s can be changed, and not be set at first", name)
			continue
		}
		if kept := got.Get(got.Descriptor().Fields().ByName(protoreflect.Name(name))); !kept.Equal(want.Get(field)) {
			t.Errorf("%s: got %v, want %v", name, kept, want.Get(field))
		}
	}
}
