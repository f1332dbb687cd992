package permissions_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/servertest"
)

func (p *person) group(req *pb.CreateGroupRequest) *pb.Group {
	p.t.Helper()
	resp, err := p.groups().CreateGroup(p.ctx(), req)
	mustNot(p.t, err)
	return resp.GetGroup()
}

func (p *person) put(user, group string) {
	p.t.Helper()
	_, err := p.access().SetUserGroup(p.ctx(), &pb.SetUserGroupRequest{UserId: user, GroupId: group})
	mustNot(p.t, err)
}

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func TestAGroupTakesThePlaceOfTheRole(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	g := owner.group(&pb.CreateGroupRequest{
		Name: " Night shift ", Description: "after ten", RoleId: "PM", Grants: []string{"reports", "Calendar", "Calendar"}, Denies: []string{"ServiceRequests: Review"},
		Settings: &pb.UserSettings{SeePricing: new(false)},
	})
	same(t, "group", g, &pb.Group{
		Id: g.GetId(), Etag: g.GetEtag(), CreateTime: g.GetCreateTime(), UpdateTime: g.GetUpdateTime(),
		Name: "Night shift", Description: "after ten", RoleId: "PM", Grants: []string{"Calendar", "Reports"}, Denies: []string{"ServiceRequests:Review"},
		Settings: &pb.UserSettings{SeePricing: new(false)}, DenyAuthors: map[string]string{"ServiceRequests:Review": owner.id},
	})
	owner.put(uma.id, g.GetId())
	for grant, want := range map[string]*pb.CheckResponse{
		"Invoices":               {Layer: pb.Layer_LAYER_NONE},
		"MakeReady:Create":       {Allowed: true, Layer: pb.Layer_LAYER_ROLE, Source: "PM"},
		"Reports":                {Allowed: true, Layer: pb.Layer_LAYER_GROUP, Source: g.GetId()},
		"ServiceRequests:Review": {Layer: pb.Layer_LAYER_GROUP, Source: g.GetId()},
		"setting:see_pricing":    {Layer: pb.Layer_LAYER_GROUP, Source: g.GetId()},
	} {
		got := uma.holds(grant)
		want.Revision = got.GetRevision()
		same(t, grant, got, want)
	}

	resp, err := owner.groups().UpdateGroup(owner.ctx(), &pb.UpdateGroupRequest{
		Group: &pb.Group{Id: g.GetId(), RoleId: "SP", Grants: []string{"Web"}, Denies: []string{"Tasks"}, Name: "ignored"}, UpdateMask: mask("role_id", "grants", "denies"),
	})
	mustNot(t, err)
	want := g
	want.RoleId, want.Grants, want.Denies, want.DenyAuthors = "SP", []string{"Web"}, []string{"Tasks"}, map[string]string{"Tasks": owner.id}
	want.Etag, want.UpdateTime = resp.GetGroup().GetEtag(), resp.GetGroup().GetUpdateTime()
	same(t, "updated", resp.GetGroup(), want)
	if uma.holds("MakeReady:Create").GetAllowed() || !uma.holds("ServiceRequests:Work").GetAllowed() || uma.holds("Tasks").GetAllowed() {
		t.Error("the change did not reach the group's user")
	}
	got, err := owner.groups().GetGroup(owner.ctx(), &pb.GetGroupRequest{Id: g.GetId()})
	mustNot(t, err)
	same(t, "got", got.GetGroup(), want)

	owner.put(uma.id, "")
	if !uma.holds("Invoices").GetAllowed() {
		t.Error("the own role is not back")
	}
}

func TestGroupsThatAreRefused(t *testing.T) {
	owner := start(t)
	admin := owner.hire("ada", "OA")
	user := owner.add("uma", "US")
	g := owner.group(&pb.CreateGroupRequest{Name: "Office", RoleId: "US", Denies: []string{"Calendar"}})
	for _, test := range []struct {
		name   string
		req    *pb.CreateGroupRequest
		code   codes.Code
		reason string
	}{
		{"the same name", &pb.CreateGroupRequest{Name: "OFFICE", RoleId: "US"}, codes.AlreadyExists, "RECORD_EXISTS"},
		{"a blank name", &pb.CreateGroupRequest{Name: " ", RoleId: "US"}, codes.InvalidArgument, "FIELD_INVALID"},
		{"no role", &pb.CreateGroupRequest{Name: "A"}, codes.InvalidArgument, "FIELD_INVALID"},
		{"no such role", &pb.CreateGroupRequest{Name: "A", RoleId: "XX"}, codes.NotFound, "RECORD_NOT_FOUND"},
		{"no such key", &pb.CreateGroupRequest{Name: "A", RoleId: "US", Grants: []string{"Fly"}}, codes.InvalidArgument, "FIELD_INVALID"},
		{"a key granted and denied", &pb.CreateGroupRequest{Name: "A", RoleId: "US", Grants: []string{"Tasks"}, Denies: []string{"tasks"}}, codes.InvalidArgument, "FIELD_INVALID"},
		{"a grant the caller lacks", &pb.CreateGroupRequest{Name: "A", RoleId: "US", Grants: []string{"Branding"}}, codes.PermissionDenied, "BEYOND_OWN_GRANTS"},
		{"a deny the caller lacks", &pb.CreateGroupRequest{Name: "A", RoleId: "US", Denies: []string{"Branding"}}, codes.PermissionDenied, "BEYOND_OWN_GRANTS"},
		{"an add-on that was not bought", &pb.CreateGroupRequest{Name: "A", RoleId: "US", Grants: []string{"Pages"}}, codes.FailedPrecondition, "FEATURE_NOT_IN_PLAN"},
	} {
		_, err := admin.groups().CreateGroup(admin.ctx(), test.req)
		check(t, test.name, err, test.code, test.reason)
	}
	update := func(p *person, g *pb.Group, paths ...string) error {
		_, err := p.groups().UpdateGroup(p.ctx(), &pb.UpdateGroupRequest{Group: g, UpdateMask: mask(paths...)})
		return err
	}
	check(t, "a deny from above", update(admin, &pb.Group{Id: g.GetId()}, "denies"), codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	check(t, "an old etag", update(owner, &pb.Group{Id: g.GetId(), Etag: "0"}, "denies"), codes.Aborted, "ETAG_STALE")
	check(t, "a field that is the server's", update(owner, g, "deny_authors"), codes.InvalidArgument, "FIELD_INVALID")
	check(t, "nobody's id", update(owner, &pb.Group{Id: servertest.UUID(2)}, "denies"), codes.NotFound, "RECORD_NOT_FOUND")
	check(t, "no name", update(owner, &pb.Group{Id: g.GetId()}, "name"), codes.InvalidArgument, "FIELD_INVALID")

	owner.put(user, g.GetId())
	_, err := admin.access().SetUserGroup(admin.ctx(), &pb.SetUserGroupRequest{UserId: user})
	check(t, "leaving a deny from above", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = owner.groups().DeleteGroup(owner.ctx(), &pb.DeleteGroupRequest{Id: g.GetId()})
	check(t, "deleting a group that somebody is in", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = owner.access().SetUserGroup(owner.ctx(), &pb.SetUserGroupRequest{UserId: user, GroupId: servertest.UUID(3)})
	check(t, "joining no group", err, codes.NotFound, "RECORD_NOT_FOUND", "kind", "group")
	there := owner.elsewhere()
	_, err = there.groups().GetGroup(there.ctx(), &pb.GetGroupRequest{Id: g.GetId()})
	check(t, "another organization's group", err, codes.NotFound, "RECORD_NOT_FOUND", "id", g.GetId())
}

func TestGroupsAreListedDeletedAndBroughtBack(t *testing.T) {
	owner := start(t)
	var all []*pb.Group
	for i := range 5 {
		all = append(all, owner.group(&pb.CreateGroupRequest{Name: fmt.Sprint("Group ", i), RoleId: "US"}))
	}
	first, err := owner.groups().ListGroups(owner.ctx(), &pb.ListGroupsRequest{PageSize: 3})
	mustNot(t, err)
	second, err := owner.groups().ListGroups(owner.ctx(), &pb.ListGroupsRequest{PageSize: 3, PageToken: first.GetNextPageToken()})
	mustNot(t, err)
	same(t, "pages", &pb.ListGroupsResponse{Groups: append(first.GetGroups(), second.GetGroups()...)}, &pb.ListGroupsResponse{Groups: all})
	_, err = owner.groups().ListGroups(owner.ctx(), &pb.ListGroupsRequest{PageToken: first.GetNextPageToken(), Deleted: true})
	check(t, "token of another request", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")

	resp, err := owner.groups().DeleteGroup(owner.ctx(), &pb.DeleteGroupRequest{Id: all[0].GetId(), Etag: all[0].GetEtag()})
	mustNot(t, err)
	gone := resp.GetGroup()
	if got, want := gone.GetPurgeTime().AsTime(), gone.GetDeleteTime().AsTime().Add(28*24*time.Hour); !got.Equal(want) {
		t.Errorf("purge time: got %s, want %s", got, want)
	}
	again, err := owner.groups().DeleteGroup(owner.ctx(), &pb.DeleteGroupRequest{Id: gone.GetId()})
	mustNot(t, err)
	same(t, "deleted twice", again.GetGroup(), gone)
	deleted, err := owner.groups().ListGroups(owner.ctx(), &pb.ListGroupsRequest{Deleted: true})
	mustNot(t, err)
	same(t, "the deleted", deleted, &pb.ListGroupsResponse{Groups: []*pb.Group{gone}})
	_, err = owner.access().SetUserGroup(owner.ctx(), &pb.SetUserGroupRequest{UserId: owner.add("uma", ""), GroupId: gone.GetId()})
	check(t, "joining a deleted group", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = owner.groups().UpdateGroup(owner.ctx(), &pb.UpdateGroupRequest{Group: &pb.Group{Id: gone.GetId()}, UpdateMask: mask("grants")})
	check(t, "changing a deleted group", err, codes.FailedPrecondition, "PRECONDITION_FAILED")

	taken := owner.group(&pb.CreateGroupRequest{Name: "group 0", RoleId: "US"})
	_, err = owner.groups().UndeleteGroup(owner.ctx(), &pb.UndeleteGroupRequest{Id: gone.GetId()})
	check(t, "bringing back a name that is taken", err, codes.AlreadyExists, "RECORD_EXISTS", "field", "name")
	_, err = owner.groups().DeleteGroup(owner.ctx(), &pb.DeleteGroupRequest{Id: taken.GetId()})
	mustNot(t, err)
	back, err := owner.groups().UndeleteGroup(owner.ctx(), &pb.UndeleteGroupRequest{Id: gone.GetId()})
	mustNot(t, err)
	want := all[0]
	want.Etag, want.UpdateTime = back.GetGroup().GetEtag(), back.GetGroup().GetUpdateTime()
	same(t, "brought back", back.GetGroup(), want)

	owner.clock.forward(28 * 24 * time.Hour)
	owner = owner.signIn(owner.organization, webSurface)
	_, err = owner.groups().UndeleteGroup(owner.ctx(), &pb.UndeleteGroupRequest{Id: taken.GetId()})
	check(t, "bringing back too late", err, codes.NotFound, "RECORD_NOT_FOUND")
}

func TestAGroupThatSetsWhatOnlyAgentsHave(t *testing.T) {
	owner := start(t)
	g := owner.group(&pb.CreateGroupRequest{Name: "Vans", RoleId: "SA", Settings: &pb.UserSettings{TrackInventory: new(true)}})
	uma, sam := owner.add("uma", "US"), owner.add("sam", "SA")
	owner.makeAgent(sam)
	for user, want := range map[string]bool{uma: false, sam: true} {
		owner.put(user, g.GetId())
		got, err := owner.access().Check(owner.ctx(), &pb.CheckRequest{UserId: &user, Grant: "setting:track_inventory"})
		mustNot(t, err)
		if got.GetAllowed() != want {
			t.Errorf("got %v, want %t", got, want)
		}
	}
}

func TestAnEndingGrantEndsWhatItSupported(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	mustNot(t, owner.override(uma.id, "Organization: Settings", pb.Effect_EFFECT_GRANT))
	end := timestamppb.New(owner.clock.now().Add(time.Hour))
	_, err := owner.access().SetOverride(owner.ctx(), &pb.SetOverrideRequest{UserId: uma.id, Key: "Organization", Effect: pb.Effect_EFFECT_GRANT, ExpireTime: end})
	mustNot(t, err)
	got := uma.holds("Organization: Settings")
	same(t, "before", got, &pb.CheckResponse{Allowed: true, Revision: got.GetRevision(), Layer: pb.Layer_LAYER_OVERRIDE, Source: owner.id, ExpireTime: end})
	uma.clock.forward(time.Hour)
	got = uma.holds("Organization: Settings")
	same(t, "after", got, &pb.CheckResponse{Revision: got.GetRevision(), Layer: pb.Layer_LAYER_OVERRIDE, Source: owner.id, Missing: "Organization"})
}
