package permissions_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/servertest"
)

const webSurface = identitypb.Surface_SURFACE_WEB

func (p *person) role(name string, keys ...string) *pb.Role {
	p.t.Helper()
	resp, err := p.roles().CreateRole(p.ctx(), &pb.CreateRoleRequest{Name: name, Keys: keys})
	mustNot(p.t, err)
	return resp.GetRole()
}

func (p *person) makeAgent(user string) {
	p.t.Helper()
	_, err := schedulingpb.NewServiceAgentServiceClient(p.conn).CreateServiceAgent(p.ctx(), &schedulingpb.CreateServiceAgentRequest{
		UserId: user, TimeZone: "Europe/Berlin",
	})
	mustNot(p.t, err)
}

func TestARoleOfOnesOwnReachesItsHoldersAtOnce(t *testing.T) {
	owner := start(t)
	r := owner.role("Front desk", "web", "Calendar", "Contacts")
	same(t, "role", r, &pb.Role{
		Id: r.GetId(), Etag: r.GetEtag(), CreateTime: r.GetCreateTime(), UpdateTime: r.GetUpdateTime(),
		Name: "Front desk", Keys: []string{"Contacts", "Calendar", "Web"},
	})
	uma, gus := owner.hire("uma", r.GetId()), owner.hire("gus", "US")
	g := owner.group(&pb.CreateGroupRequest{Name: "Desk", RoleId: r.GetId()})
	owner.put(gus.id, g.GetId())
	resp, err := owner.roles().UpdateRole(owner.ctx(), &pb.UpdateRoleRequest{
		Role: &pb.Role{Id: r.GetId(), Keys: []string{"Web", "Contacts", "Contacts:View"}, Settings: &pb.UserSettings{SeePricing: new(true)}},
	})
	mustNot(t, err)
	for _, p := range []*person{uma, gus} {
		if p.holds("Calendar").GetAllowed() || !p.holds("Contacts:View").GetAllowed() || !p.holds("setting:see_pricing").GetAllowed() {
			t.Errorf("%s does not have the change", p.email)
		}
	}
	got, err := owner.roles().GetRole(owner.ctx(), &pb.GetRoleRequest{Id: r.GetId()})
	mustNot(t, err)
	same(t, "got", got.GetRole(), resp.GetRole())
	_, err = owner.roles().DeleteRole(owner.ctx(), &pb.DeleteRoleRequest{Id: r.GetId()})
	check(t, "deleting a role in use", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: uma.id})
	mustNot(t, err)
	_, err = owner.roles().DeleteRole(owner.ctx(), &pb.DeleteRoleRequest{Id: r.GetId()})
	check(t, "deleting the role of a group", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
}

func TestRolesThatAreRefused(t *testing.T) {
	owner := start(t)
	admin := owner.hire("ada", "OA")
	mustNot(t, owner.override(admin.id, "Organizations: Roles", pb.Effect_EFFECT_GRANT))
	r := owner.role("Desk", "Web", "ServiceRequests:Work", "ServiceRequests")
	owner.add("uma", r.GetId())
	create := func(name string, keys ...string) error {
		_, err := admin.roles().CreateRole(admin.ctx(), &pb.CreateRoleRequest{Name: name, Keys: keys})
		return err
	}
	update := func(r *pb.Role, paths ...string) error {
		_, err := admin.roles().UpdateRole(admin.ctx(), &pb.UpdateRoleRequest{Role: r, UpdateMask: mask(paths...)})
		return err
	}
	check(t, "the same name", create("desk"), codes.AlreadyExists, "RECORD_EXISTS", "field", "name")
	check(t, "no such key", create("A", "Web", "Fly"), codes.InvalidArgument, "FIELD_INVALID")
	check(t, "a key the caller lacks", create("A", "Branding"), codes.PermissionDenied, "BEYOND_OWN_GRANTS", "grant", "Branding")
	check(t, "an add-on that was not bought", create("A", "Drips"), codes.FailedPrecondition, "FEATURE_NOT_IN_PLAN", "feature", "drips")
	check(t, "a role that is built in", update(&pb.Role{Id: "US"}, "keys"), codes.FailedPrecondition, "PRECONDITION_FAILED")
	check(t, "no such role", update(&pb.Role{Id: servertest.UUID(1)}, "keys"), codes.NotFound, "RECORD_NOT_FOUND")
	check(t, "an old etag", update(&pb.Role{Id: r.GetId(), Etag: "0"}, "keys"), codes.Aborted, "ETAG_STALE")
	check(t, "holders above", update(&pb.Role{Id: r.GetId()}, "keys"), codes.PermissionDenied, "BEYOND_OWN_GRANTS", "grant", "ServiceRequests:Work")
	nobody := servertest.UUID(2)
	check(t, "nobody as approver", update(&pb.Role{Id: r.GetId(), Settings: &pb.UserSettings{InvoiceApprover: &nobody}}, "settings"), codes.NotFound, "RECORD_NOT_FOUND")
	_, err := owner.roles().CreateRole(owner.hire("uwe", "US").ctx(), &pb.CreateRoleRequest{Name: "A"})
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organizations: Roles")
	there := owner.elsewhere()
	_, err = there.roles().GetRole(there.ctx(), &pb.GetRoleRequest{Id: r.GetId()})
	check(t, "another organization's role", err, codes.NotFound, "RECORD_NOT_FOUND", "id", r.GetId())
	_, err = there.access().SetUserRole(there.ctx(), &pb.SetUserRoleRequest{UserId: there.add("ulf", ""), RoleId: r.GetId()})
	check(t, "giving it there", err, codes.NotFound, "RECORD_NOT_FOUND", "kind", "role")
}

func TestRolesAreListedDeletedAndBroughtBack(t *testing.T) {
	owner := start(t)
	var all []*pb.Role
	for i := range 3 {
		all = append(all, owner.role(fmt.Sprint("Role ", i)))
	}
	first, err := owner.roles().ListRoles(owner.ctx(), &pb.ListRolesRequest{PageSize: 2})
	mustNot(t, err)
	second, err := owner.roles().ListRoles(owner.ctx(), &pb.ListRolesRequest{PageSize: 2, PageToken: first.GetNextPageToken()})
	mustNot(t, err)
	same(t, "pages", &pb.ListRolesResponse{Roles: append(first.GetRoles(), second.GetRoles()...)}, &pb.ListRolesResponse{Roles: all})
	if len(first.GetBuiltInRoles()) != 9 || len(second.GetBuiltInRoles()) != 0 {
		t.Errorf("built-in roles: %d and %d", len(first.GetBuiltInRoles()), len(second.GetBuiltInRoles()))
	}
	for _, r := range first.GetBuiltInRoles() {
		got, err := owner.roles().GetRole(owner.ctx(), &pb.GetRoleRequest{Id: r.GetId()})
		mustNot(t, err)
		same(t, r.GetId(), got.GetRole(), r)
		if want, _ := catalog.LookupRole(r.GetId()); len(r.GetKeys()) != len(want.Keys) || !r.GetBuiltIn() {
			t.Errorf("%s: got %v, want %v", r.GetId(), r.GetKeys(), want.Keys)
		}
	}
	resp, err := owner.roles().DeleteRole(owner.ctx(), &pb.DeleteRoleRequest{Id: all[0].GetId()})
	mustNot(t, err)
	deleted, err := owner.roles().ListRoles(owner.ctx(), &pb.ListRolesRequest{Deleted: true})
	mustNot(t, err)
	same(t, "the deleted", deleted, &pb.ListRolesResponse{Roles: []*pb.Role{resp.GetRole()}})
	back, err := owner.roles().UndeleteRole(owner.ctx(), &pb.UndeleteRoleRequest{Id: all[0].GetId()})
	mustNot(t, err)
	want := all[0]
	want.Etag, want.UpdateTime = back.GetRole().GetEtag(), back.GetRole().GetUpdateTime()
	same(t, "brought back", back.GetRole(), want)
	_, err = owner.roles().DeleteRole(owner.ctx(), &pb.DeleteRoleRequest{Id: "US"})
	check(t, "deleting a built-in role", err, codes.FailedPrecondition, "PRECONDITION_FAILED")

	_, err = owner.roles().DeleteRole(owner.ctx(), &pb.DeleteRoleRequest{Id: all[1].GetId()})
	mustNot(t, err)
	owner.clock.forward(28 * 24 * time.Hour)
	owner = owner.signIn(owner.organization, webSurface)
	_, err = owner.roles().UndeleteRole(owner.ctx(), &pb.UndeleteRoleRequest{Id: all[1].GetId()})
	check(t, "bringing back too late", err, codes.NotFound, "RECORD_NOT_FOUND")
}

func TestAPlanOpensItsAddOns(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	got, err := uma.plans().GetPlan(uma.ctx(), &pb.GetPlanRequest{})
	mustNot(t, err)
	plan := got.GetPlan()
	same(t, "plan", plan, &pb.Plan{
		Id: owner.organization, Etag: plan.GetEtag(), CreateTime: plan.GetCreateTime(), UpdateTime: plan.GetUpdateTime(), FirstOwnerId: owner.id,
	})
	if uma.holds("Text Messaging").GetAllowed() {
		t.Error("an add-on that was not bought counts")
	}
	resp, err := owner.plans().UpdateBillingPlan(owner.ctx(), &pb.UpdateBillingPlanRequest{
		Plan: &pb.Plan{Etag: plan.GetEtag(), Features: []string{"texting", "routing", "texting"}},
	})
	mustNot(t, err)
	plan.Etag, plan.UpdateTime, plan.Features = resp.GetPlan().GetEtag(), resp.GetPlan().GetUpdateTime(), []string{"routing", "texting"}
	same(t, "bought", resp.GetPlan(), plan)
	if !uma.holds("Text Messaging").GetAllowed() || uma.holds("Feedback").GetAllowed() || !uma.holds("feature:texting").GetAllowed() {
		t.Error("what was bought does not count, or what was not does")
	}
	for name, p := range map[string]*pb.Plan{"no such feature": {Features: []string{"flying"}}} {
		_, err := owner.plans().UpdateBillingPlan(owner.ctx(), &pb.UpdateBillingPlanRequest{Plan: p})
		check(t, name, err, codes.InvalidArgument, "FIELD_INVALID")
	}
	_, err = owner.plans().UpdateBillingPlan(owner.ctx(), &pb.UpdateBillingPlanRequest{Plan: &pb.Plan{Etag: "0", Features: []string{"pages"}}})
	check(t, "an old etag", err, codes.Aborted, "ETAG_STALE")
	_, err = owner.plans().UpdateBillingPlan(owner.ctx(), &pb.UpdateBillingPlanRequest{Plan: &pb.Plan{Id: servertest.UUID(1)}})
	check(t, "another's plan", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = uma.plans().UpdateBillingPlan(uma.ctx(), &pb.UpdateBillingPlanRequest{Plan: plan})
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organizations: Roles")
	_, err = owner.plans().UpdateBillingPlan(owner.ctx(), &pb.UpdateBillingPlanRequest{Plan: &pb.Plan{}, UpdateMask: mask("features")})
	mustNot(t, err)
	if uma.holds("Text Messaging").GetAllowed() {
		t.Error("an add-on that was given back counts")
	}
}
