package permissions_test

import (
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/servertest"
)

func TestTheFirstOwnerHoldsEveryKey(t *testing.T) {
	owner := start(t)
	access, err := owner.access().GetEffectiveAccess(owner.ctx(), &pb.GetEffectiveAccessRequest{})
	mustNot(t, err)
	for _, k := range access.GetKeys() {
		key, _ := catalog.Lookup(k.GetKey())
		if want := key.AddOn == ""; k.GetAllowed() != want {
			t.Errorf("%s: got %v, want %t", k.GetKey(), k, want)
		}
	}
	seed := func(organization, user string, maker []byte) error {
		_, err := owner.grants().SeedOrganization(owner.inside(organization), &pb.SeedOrganizationRequest{OwnerUserId: user, MakerGrants: maker})
		return err
	}
	before := owner.stored(owner.id)
	mustNot(t, seed(owner.organization, owner.id, nil))
	same(t, "seeded twice", owner.stored(owner.id), before)
	check(t, "another first owner", seed(owner.organization, servertest.UUID(1), nil), codes.FailedPrecondition, "PRECONDITION_FAILED")
	check(t, "a set that is none", seed(servertest.UUID(2), servertest.UUID(1), []byte("no")), codes.InvalidArgument, "FIELD_INVALID")

	maker, err := catalog.SetOf("Branding", "Web")
	mustNot(t, err)
	mustNot(t, seed(servertest.UUID(2), servertest.UUID(1), maker.Bytes()))
	resp, err := owner.grants().ResolveGrants(owner.inside(servertest.UUID(2)), &pb.ResolveGrantsRequest{UserId: servertest.UUID(1)})
	mustNot(t, err)
	set, err := catalog.SetFromBytes(resp.GetGrants())
	mustNot(t, err)
	for grant, want := range map[string]bool{"Branding": true, "Organizations: Roles": false, "User: Impersonation": false, "ServiceRequests:Work": true, "Organization: Owner": true} {
		if got := set.Has(catalog.MustGrant(grant)); got != want {
			t.Errorf("%s of a maker who holds Branding: got %t, want %t", grant, got, want)
		}
	}
	_, err = pb.NewGrantServiceClient(owner.conn).SeedOrganization(owner.ctx(), &pb.SeedOrganizationRequest{OwnerUserId: owner.id})
	check(t, "by a person", err, codes.PermissionDenied, "INTERNAL_ONLY")
}

func TestResolvedGrants(t *testing.T) {
	owner := start(t)
	user := owner.add("uma", "US")
	end := timestamppb.New(owner.clock.now().Add(time.Hour))
	set, err := owner.access().SetOverride(owner.ctx(), &pb.SetOverrideRequest{UserId: user, Key: "Web", Effect: pb.Effect_EFFECT_DENY, ExpireTime: end})
	mustNot(t, err)
	resolve := func(user string) *pb.ResolveGrantsResponse {
		t.Helper()
		resp, err := owner.grants().ResolveGrants(owner.inside(owner.organization), &pb.ResolveGrantsRequest{UserId: user})
		mustNot(t, err)
		return resp
	}
	got := resolve(user)
	role, _ := catalog.LookupRole("US")
	var grants catalog.Set
	for b := range catalog.Effective(role.Set()).All() {
		if name := b.String(); name != "Web" && name != "App" {
			grants.Add(b)
		}
	}
	grants.Add(catalog.MustGrant("setting:see_pricing"))
	same(t, "grants", got, &pb.ResolveGrantsResponse{
		Grants: grants.Bytes(), Revision: got.GetRevision(), ExpireTime: end,
		Settings: &pb.EffectiveSettings{SearchScope: pb.SearchScope_SEARCH_SCOPE_ALL, ProposalScope: pb.ProposalScope_PROPOSAL_SCOPE_ALL},
	})
	if got.GetRevision() == 0 || set.GetUserAccess().GetEtag() == "" {
		t.Error("no revision")
	}
	unknown := resolve(servertest.UUID(1))
	same(t, "of somebody unknown", unknown, &pb.ResolveGrantsResponse{
		Grants: catalog.Set{}.Bytes(), Revision: got.GetRevision(),
		Settings: &pb.EffectiveSettings{SearchScope: pb.SearchScope_SEARCH_SCOPE_NONE, ProposalScope: pb.ProposalScope_PROPOSAL_SCOPE_OWNED},
	})
}

func TestTheLastOwnerStays(t *testing.T) {
	owner := start(t)
	strip := map[string]func(p *person) error{
		"SetUserRole": func(p *person) error {
			_, err := owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: p.id, RoleId: "US"})
			return err
		},
		"SetOverride": func(p *person) error { return owner.override(p.id, "Organization: Owner", pb.Effect_EFFECT_DENY) },
		"a deny of its parent": func(p *person) error {
			return owner.override(p.id, "Organization", pb.Effect_EFFECT_DENY)
		},
		"a deny for an hour": func(p *person) error {
			_, err := owner.access().SetOverride(owner.ctx(), &pb.SetOverrideRequest{
				UserId: p.id, Key: "Organization: Users", Effect: pb.Effect_EFFECT_DENY, ExpireTime: timestamppb.New(owner.clock.now().Add(time.Hour)),
			})
			return err
		},
		"SetUserGroup": func(p *person) error {
			g, err := owner.groups().ListGroups(owner.ctx(), &pb.ListGroupsRequest{})
			mustNot(t, err)
			_, err = owner.access().SetUserGroup(owner.ctx(), &pb.SetUserGroupRequest{UserId: p.id, GroupId: g.GetGroups()[0].GetId()})
			return err
		},
		"DeactivateUser": func(p *person) error {
			_, err := identitypb.NewUserServiceClient(owner.conn).DeactivateUser(owner.ctx(), &identitypb.DeactivateUserRequest{Id: p.id})
			return err
		},
	}
	owner.group(&pb.CreateGroupRequest{Name: "Office", RoleId: "US"})
	for name, f := range strip {
		check(t, name, f(owner), codes.FailedPrecondition, "LAST_OWNER")
	}
	second := owner.hire("otto", "OW")
	_, err := identitypb.NewUserServiceClient(owner.conn).DeactivateUser(owner.ctx(), &identitypb.DeactivateUserRequest{Id: second.id})
	mustNot(t, err)
	for name, f := range strip {
		if name != "DeactivateUser" {
			check(t, name+" while the other is shut out", f(owner), codes.FailedPrecondition, "LAST_OWNER")
		}
	}
	third := owner.hire("olaf", "OW")
	mustNot(t, strip["SetUserRole"](third))
	_, err = owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: third.id, RoleId: "OW"})
	mustNot(t, err)
	mustNot(t, strip["SetUserRole"](owner))
	_, err = third.access().SetUserRole(third.ctx(), &pb.SetUserRoleRequest{UserId: third.id})
	check(t, "the one who is left", err, codes.FailedPrecondition, "LAST_OWNER")
}

func TestOwnersAreNotRemovedBehindEachOther(t *testing.T) {
	owner := start(t)
	second := owner.add("otto", "OW")
	removable := func(user string, validateOnly bool) error {
		_, err := owner.grants().CheckRemovable(owner.inside(owner.organization), &pb.CheckRemovableRequest{UserId: user, ValidateOnly: validateOnly})
		return err
	}
	mustNot(t, removable(owner.add("uma", "US"), false))
	mustNot(t, removable(servertest.UUID(1), false))
	mustNot(t, removable(second, true))
	mustNot(t, removable(owner.id, true))
	errs := make([]error, 2)
	var both sync.WaitGroup
	for i, user := range []string{owner.id, second} {
		both.Go(func() { errs[i] = removable(user, false) })
	}
	both.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("two owners were asked for at once: got %v and %v", errs[0], errs[1])
	}
	if errs[0] != nil {
		check(t, "the later one", errs[0], codes.FailedPrecondition, "LAST_OWNER")
		mustNot(t, removable(second, false))
	}
	if errs[0] == nil {
		owner.clock.forward(time.Minute)
		mustNot(t, removable(second, false))
	}
	_, err := owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: owner.id, RoleId: "US"})
	check(t, "stripping the other", err, codes.FailedPrecondition, "LAST_OWNER")
	owner.clock.forward(time.Minute)
	_, err = owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: owner.id, RoleId: "US"})
	mustNot(t, err)
}

func TestAFormerMembersAccessIsForgotten(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	mustNot(t, owner.override(uma.id, "Reports", pb.Effect_EFFECT_GRANT))
	for range 2 {
		_, err := owner.grants().ForgetUser(owner.inside(owner.organization), &pb.ForgetUserRequest{UserId: uma.id})
		mustNot(t, err)
		same(t, "stored", owner.stored(uma.id), &pb.UserAccess{Id: uma.id})
		resp, err := owner.grants().ResolveGrants(owner.inside(owner.organization), &pb.ResolveGrantsRequest{UserId: uma.id})
		mustNot(t, err)
		same(t, "grants", &pb.ResolveGrantsResponse{Grants: resp.GetGrants()}, &pb.ResolveGrantsResponse{Grants: catalog.Set{}.Bytes()})
	}
	_, err := owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: uma.id, RoleId: "US"})
	mustNot(t, err)
	if got := owner.stored(uma.id); len(got.GetOverrides()) != 0 {
		t.Errorf("got back %v", got)
	}
}

func TestTheCatalogIsListed(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	resp, err := uma.catalog().ListCatalog(uma.ctx(), &pb.ListCatalogRequest{})
	mustNot(t, err)
	if len(resp.GetKeys()) != 171 || len(resp.GetSettings()) != 16 || len(resp.GetRoles()) != 9 || len(resp.GetFeatures()) != 7 {
		t.Errorf("got %d keys, %d settings, %d roles, %d features", len(resp.GetKeys()), len(resp.GetSettings()), len(resp.GetRoles()), len(resp.GetFeatures()))
	}
	for _, k := range resp.GetKeys() {
		want, _ := catalog.Lookup(k.GetKey())
		if k.GetKey() != want.Name || int(k.GetNumber()) != want.Number || k.GetTitle() == "" || k.GetDescription() == "" || k.GetOrigin() == 0 {
			t.Errorf("got %v, want %v", k, want)
		}
	}
	mine, err := owner.access().ListAssignableKeys(owner.ctx(), &pb.ListAssignableKeysRequest{})
	mustNot(t, err)
	addOns := 0
	for _, k := range catalog.Keys() {
		if k.AddOn != "" {
			addOns++
		}
	}
	if got, want := len(mine.GetKeys()), 171-addOns; got != want {
		t.Errorf("%d assignable keys, want %d", got, want)
	}
}

// SECURITY: a service account never counts as an owner, whatever it holds.
func TestServiceAccountIsNoLastOwner(t *testing.T) {
	owner := start(t)
	resp, err := identitypb.NewServiceAccountServiceClient(owner.conn).CreateServiceAccount(owner.ctx(),
		&identitypb.CreateServiceAccountRequest{DisplayName: "robot"})
	mustNot(t, err)
	account := resp.GetUser().GetId()
	_, err = owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: account, RoleId: "OW"})
	mustNot(t, err)
	_, err = owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: owner.id, RoleId: "US"})
	check(t, "the last person's role", err, codes.FailedPrecondition, "LAST_OWNER")
	_, err = identitypb.NewUserServiceClient(owner.conn).DeactivateUser(owner.ctx(), &identitypb.DeactivateUserRequest{Id: owner.id})
	check(t, "the last person", err, codes.FailedPrecondition, "LAST_OWNER")
	_, err = identitypb.NewUserServiceClient(owner.conn).DeactivateUser(owner.ctx(), &identitypb.DeactivateUserRequest{Id: account})
	mustNot(t, err)
}
