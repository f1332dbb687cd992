package permissions_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// Check and BatchCheck answer from memory, GetEffectiveAccess from the records: after each
// change of anything that decides, and at each instant, they must agree.
func TestWhatIsKeptIsWhatTheRecordsSay(t *testing.T) {
	owner := start(t)
	r := owner.role("Front desk", "web", "Calendar", "Contacts")
	uma := owner.hire("uma", r.GetId())
	g := owner.group(&pb.CreateGroupRequest{Name: "Desk", RoleId: "US"})
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"at first", func() error { return nil }},
		{"the role", func() error {
			_, err := owner.roles().UpdateRole(owner.ctx(), &pb.UpdateRoleRequest{Role: &pb.Role{Id: r.GetId(), Keys: []string{"Web", "Invoices"}}})
			return err
		}},
		{"an override", func() error { return owner.override(uma.id, "Calendar", pb.Effect_EFFECT_GRANT) }},
		{"an override with an end", func() error {
			_, err := owner.access().SetOverride(owner.ctx(), &pb.SetOverrideRequest{
				UserId: uma.id, Key: "Contacts", Effect: pb.Effect_EFFECT_GRANT, ExpireTime: timestamppb.New(owner.clock.now().Add(time.Hour)),
			})
			return err
		}},
		{"shortly before its end", func() error { owner.clock.forward(59 * time.Minute); return nil }},
		{"its end", func() error { owner.clock.forward(time.Minute); return nil }},
		{"a clock that goes back", func() error { owner.clock.forward(-30 * time.Minute); return nil }},
		{"the plan", func() error {
			_, err := owner.plans().UpdateBillingPlan(owner.ctx(), &pb.UpdateBillingPlanRequest{Plan: &pb.Plan{Features: []string{"routing"}}})
			return err
		}},
		{"a group", func() error { owner.put(uma.id, g.GetId()); return nil }},
		{"another group", func() error {
			_, err := owner.groups().UpdateGroup(owner.ctx(), &pb.UpdateGroupRequest{Group: &pb.Group{Id: g.GetId(), Denies: []string{"Invoices"}}})
			return err
		}},
		{"settings", func() error {
			_, err := owner.access().UpdateUserSettings(owner.ctx(), &pb.UpdateUserSettingsRequest{
				UserId: uma.id, Settings: &pb.UserSettings{SeePricing: new(false)},
			})
			return err
		}},
	} {
		mustNot(t, step.do())
		for range 2 { // the first may make what the second is answered from
			owner.agree(step.name, uma.id, "Invoices", "Calendar", "Contacts", "setting:see_pricing", "feature:routing")
		}
	}
}

// agree compares what Check, BatchCheck and GetEffectiveAccess say of a user.
func (p *person) agree(what, user string, grants ...string) {
	p.t.Helper()
	effective, err := p.access().GetEffectiveAccess(p.ctx(), &pb.GetEffectiveAccessRequest{UserId: &user})
	mustNot(p.t, err)
	recorded := map[string]*pb.CheckResponse{}
	for _, k := range effective.GetKeys() {
		recorded[k.GetKey()] = &pb.CheckResponse{
			Allowed: k.GetAllowed(), Revision: effective.GetRevision(), Layer: k.GetLayer(), Source: k.GetSource(),
			Missing: k.GetMissing(), ExpireTime: effective.GetExpireTime(),
		}
	}
	req := &pb.BatchCheckRequest{UserId: &user}
	for _, grant := range grants {
		req.Evaluations = append(req.Evaluations, &pb.Evaluation{Grant: grant})
	}
	resp, err := p.access().BatchCheck(p.ctx(), req)
	mustNot(p.t, err)
	for i, grant := range grants {
		e := resp.GetEvaluations()[i]
		want := &pb.CheckResponse{
			Allowed: e.GetAllowed(), Revision: resp.GetRevision(), Layer: e.GetLayer(), Source: e.GetSource(),
			Missing: e.GetMissing(), ExpireTime: e.GetExpireTime(),
		}
		got, err := p.access().Check(p.ctx(), &pb.CheckRequest{UserId: &user, Grant: grant})
		mustNot(p.t, err)
		same(p.t, what+": "+grant, got, want)
		if r := recorded[grant]; r != nil {
			same(p.t, what+": "+grant+" by the records", got, r)
		}
	}
}
