package permissions_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/servertest"
)

// await waits until what is asked of the suite comes about.
func (s *suite) await(what string, holds func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("it never came about: %s", what)
		}
	}
}

// TestWhoIsMadeAnAgentGetsAnAgentsSettings gives settings of service agents by a role and by
// a group, to people who have them before they are agents and to agents who have had them all
// along.
func TestWhoIsMadeAnAgentGetsAnAgentsSettings(t *testing.T) {
	owner := start(t)
	week := &pb.UserSettings{FutureVisibility: new(int32(7)), PullFromQueue: new(true)}
	r, err := owner.roles().CreateRole(owner.ctx(), &pb.CreateRoleRequest{Name: "Van", Keys: []string{"App", "My Schedule:Appointments"}, Settings: week})
	mustNot(t, err)
	set := owner.group(&pb.CreateGroupRequest{Name: "Vans", RoleId: "SA", Settings: week}).GetId()
	later := owner.group(&pb.CreateGroupRequest{Name: "Trucks", RoleId: "SA"}).GetId()
	byRole, byGroup, byLater, none := owner.add("rita", r.GetRole().GetId()), owner.add("gus", "SA"), owner.add("lena", "SA"), owner.add("nils", "")
	owner.put(byGroup, set)
	owner.put(byLater, later)
	owner.put(none, set)
	has := func(user string) bool {
		t.Helper()
		resp, err := owner.grants().ResolveGrants(owner.inside(owner.organization), &pb.ResolveGrantsRequest{UserId: user})
		mustNot(t, err)
		asked, err := owner.access().Check(owner.ctx(), &pb.CheckRequest{UserId: &user, Grant: "setting:pull_from_queue"})
		mustNot(t, err)
		return resp.GetSettings().GetFutureVisibility() == 7 && asked.GetAllowed()
	}
	agents := []string{byRole, byGroup, byLater}
	for _, user := range append(agents, none) {
		if has(user) {
			t.Errorf("%s has settings of a service agent and is none", user)
		}
	}
	for _, user := range agents {
		owner.makeAgent(user)
	}
	_, err = owner.groups().UpdateGroup(owner.ctx(), &pb.UpdateGroupRequest{
		Group: &pb.Group{Id: later, Settings: week}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"settings"}},
	})
	mustNot(t, err)
	for _, user := range agents {
		owner.await("the settings of "+user, func() bool { return has(user) })
	}
	if has(none) {
		t.Error("who is no service agent has settings of one")
	}
	if got := owner.stored(none).GetServiceAgentId(); got != "" {
		t.Errorf("he is linked to %s", got)
	}
	changes, err := owner.analysis().ListAccessChanges(owner.ctx(), &pb.ListAccessChangesRequest{UserId: &byRole, PageSize: 1})
	mustNot(t, err)
	if c := changes.GetChanges()[0]; c.GetProvenance().GetAuthor() != owner.id || len(c.GetGained()) != 1 || c.GetGained()[0] != "setting:pull_from_queue" {
		t.Errorf("the history of who was made an agent tells %v", c)
	}
}

// TestWhatIsRememberedOfAnAgentIsDropped: the interceptor lets somebody set what his group
// lets agents set, once he is one.
func TestWhatIsRememberedOfAnAgentIsDropped(t *testing.T) {
	owner := start(t)
	g := owner.group(&pb.CreateGroupRequest{Name: "Vans", RoleId: "SW", Settings: &pb.UserSettings{AlterStartFinish: new(true)}})
	sam := owner.hire("sam", "SW")
	owner.put(sam.id, g.GetId())
	finish := func() error {
		_, err := schedulingpb.NewAppointmentServiceClient(sam.conn).FinishAppointment(sam.ctx(), &schedulingpb.FinishAppointmentRequest{
			Id: servertest.UUID(1), ActualStart: timestamppb.Now(),
		})
		return err
	}
	check(t, "before", finish(), codes.PermissionDenied, "GRANT_MISSING", "grant", "setting:alter_start_finish")
	owner.makeAgent(sam.id)
	owner.await("sam's setting", func() bool { return status.Code(finish()) != codes.PermissionDenied })
	check(t, "after", finish(), codes.NotFound, "RECORD_NOT_FOUND")
}

// TestAFormerAgentIsStillOne: who becomes a member again is the service agent that he was.
func TestAFormerAgentIsStillOne(t *testing.T) {
	owner := start(t)
	sam := owner.hire("sam", "SW")
	owner.makeAgent(sam.id)
	linked := func() bool { return owner.stored(sam.id).GetServiceAgentId() != "" }
	owner.await("sam's link", linked)
	_, err := identitypb.NewUserServiceClient(owner.conn).EndMembership(owner.ctx(), &identitypb.EndMembershipRequest{Id: sam.id})
	mustNot(t, err)
	owner.join(&identitypb.CreateUserRequest{Email: sam.email, DisplayName: "sam"}, "")
	if got := owner.stored(sam.id); got.GetRoleId() != "" || !linked() {
		t.Errorf("got %v, want nothing but the link", got)
	}
}
