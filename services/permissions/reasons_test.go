package permissions_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// reasonedChange is a change of somebody's access that is made with a reason.
type reasonedChange struct {
	why    string
	change func(reason string) error
}

// reasonedChanges returns a change of every kind, each of which makes a difference to a user.
func (p *person) reasonedChanges(user string) []reasonedChange {
	desk := p.role("Desk", "Web", "Calendar").GetId()
	brand, err := p.brandRoles().CreateBrandRole(p.ctx(), &pb.CreateBrandRoleRequest{Name: "House", Keys: []string{"Web"}})
	mustNot(p.t, err)
	night := p.group(&pb.CreateGroupRequest{Name: "Night", RoleId: desk}).GetId()
	keys := &fieldmaskpb.FieldMask{Paths: []string{"keys"}}
	return []reasonedChange{
		{"a role", func(why string) error {
			_, err := p.access().SetUserRole(p.ctx(), &pb.SetUserRoleRequest{UserId: user, RoleId: brand.GetRole().GetId(), Reason: why})
			return err
		}},
		{"what the brand's role may", func(why string) error {
			_, err := p.brandRoles().UpdateBrandRole(p.ctx(), &pb.UpdateBrandRoleRequest{
				Role: &pb.Role{Id: brand.GetRole().GetId(), Keys: []string{"Web", "Maps"}}, UpdateMask: keys, Reason: why,
			})
			return err
		}},
		{"a group", func(why string) error {
			_, err := p.access().SetUserGroup(p.ctx(), &pb.SetUserGroupRequest{UserId: user, GroupId: night, Reason: why})
			return err
		}},
		{"what the role may", func(why string) error {
			_, err := p.roles().UpdateRole(p.ctx(), &pb.UpdateRoleRequest{
				Role: &pb.Role{Id: desk, Keys: []string{"Web", "Maps"}}, UpdateMask: keys, Reason: why,
			})
			return err
		}},
		{"what the group may", func(why string) error {
			_, err := p.groups().UpdateGroup(p.ctx(), &pb.UpdateGroupRequest{Group: &pb.Group{Id: night, Denies: []string{"Maps"}}, Reason: why})
			return err
		}},
		{"an override", func(why string) error {
			_, err := p.access().SetOverride(p.ctx(), &pb.SetOverrideRequest{UserId: user, Key: "Maps", Effect: pb.Effect_EFFECT_GRANT, Reason: why})
			return err
		}},
		{"no override", func(why string) error {
			_, err := p.access().ClearOverride(p.ctx(), &pb.ClearOverrideRequest{UserId: user, Key: "Maps", Reason: why})
			return err
		}},
		{"a setting", func(why string) error {
			_, err := p.access().UpdateUserSettings(p.ctx(), &pb.UpdateUserSettingsRequest{
				UserId: user, Settings: &pb.UserSettings{SeePricing: new(true)}, Reason: why,
			})
			return err
		}},
		{"the plan", func(why string) error {
			_, err := p.plans().UpdateBillingPlan(p.ctx(), &pb.UpdateBillingPlanRequest{Plan: &pb.Plan{Features: []string{"routing"}}, Reason: why})
			return err
		}},
		{"a file", func(why string) error {
			_, err := p.tryImport(p.ctx(), "users:\n  - user: uma@example.com\n    role: US\n", &pb.ImportAccessRequest{Reason: why})
			return err
		}},
		{"", func(string) error { return p.override(user, "Maps", pb.Effect_EFFECT_DENY) }},
	}
}

// TestEveryChangeTellsWhy changes somebody's access in every way there is, each with a reason,
// and reads it in the history of his access.
func TestEveryChangeTellsWhy(t *testing.T) {
	owner := start(t)
	uma := owner.add("uma", "")
	for _, c := range owner.reasonedChanges(uma) {
		mustNot(t, c.change(c.why))
		resp, err := owner.analysis().ListAccessChanges(owner.ctx(), &pb.ListAccessChangesRequest{UserId: &uma, PageSize: 1})
		mustNot(t, err)
		got := resp.GetChanges()[0]
		if got.GetProvenance().GetReason() != c.why || strings.Join(got.GetReasons(), ", ") != c.why {
			t.Errorf("%q: got %v", c.why, got)
		}
	}
	_, err := owner.access().ClearOverride(owner.ctx(), &pb.ClearOverrideRequest{UserId: uma, Key: "Calendar", Reason: "there is none"})
	mustNot(t, err)
	if got := owner.stored(uma).GetChangeReason(); got != "" {
		t.Errorf("what changed nothing left the reason %q", got)
	}
}

// TestWhyTellsTheReasonOfEachLayer: of the change that had it say what it says, and of that
// which gave it to the user.
func TestWhyTellsTheReasonOfEachLayer(t *testing.T) {
	owner := start(t)
	desk, err := owner.roles().CreateRole(owner.ctx(), &pb.CreateRoleRequest{Name: "Desk", Keys: []string{"Web", "Calendar"}, Reason: "a desk"})
	mustNot(t, err)
	night, err := owner.groups().CreateGroup(owner.ctx(), &pb.CreateGroupRequest{
		Name: "Night", RoleId: desk.GetRole().GetId(), Grants: []string{"Calendar"}, Reason: "nights",
	})
	mustNot(t, err)
	uma := owner.add("uma", "")
	_, err = owner.access().SetUserGroup(owner.ctx(), &pb.SetUserGroupRequest{UserId: uma, GroupId: night.GetGroup().GetId(), Reason: "covers for Petra"})
	mustNot(t, err)
	words := func() (told []string) {
		for _, w := range owner.why(uma, "Calendar").GetGrant().GetWords() {
			told = append(told, w.GetEffect().String(), w.GetSet().GetReason(), w.GetAssigned().GetReason())
		}
		return told
	}
	want := []string{"EFFECT_GRANT", "a desk", "nights", "EFFECT_GRANT", "nights", "covers for Petra"}
	if got := words(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err = owner.groups().UpdateGroup(owner.ctx(), &pb.UpdateGroupRequest{
		Group:      &pb.Group{Id: night.GetGroup().GetId(), Denies: []string{"Calendar"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"grants", "denies"}}, Reason: "too many changes",
	})
	mustNot(t, err)
	want[3], want[4] = "EFFECT_DENY", "too many changes" // and not who granted it before
	if got := words(); !slices.Equal(got, want) {
		t.Errorf("turned round: got %q, want %q", got, want)
	}
	text, err := owner.review(&pb.ExportAccessReviewRequest{Format: pb.ReviewFormat_REVIEW_FORMAT_JSON})
	mustNot(t, err)
	var rows []map[string]any
	mustNot(t, json.Unmarshal(text, &rows))
	reasons := map[any]any{}
	for _, row := range rows {
		if row["user_id"] == uma {
			reasons[row["key"]] = row["reason"]
		}
	}
	if reasons["Calendar"] != "too many changes" || reasons["Web"] != "a desk" {
		t.Errorf("the review tells %v", reasons)
	}
}

// TestWhyOfASettingThatWasTurnedRound names who switched it, and not who first spoke of it.
func TestWhyOfASettingThatWasTurnedRound(t *testing.T) {
	owner := start(t)
	ola := owner.hire("ola", "OW")
	mustNot(t, owner.override(ola.id, "Organizations: Roles", pb.Effect_EFFECT_GRANT))
	desk, err := owner.roles().CreateRole(owner.ctx(), &pb.CreateRoleRequest{
		Name: "Desk", Keys: []string{"Web"}, Settings: &pb.UserSettings{SeePricing: new(true)},
	})
	mustNot(t, err)
	uma := owner.add("uma", desk.GetRole().GetId())
	_, err = ola.roles().UpdateRole(ola.ctx(), &pb.UpdateRoleRequest{
		Role: &pb.Role{Id: desk.GetRole().GetId(), Settings: &pb.UserSettings{SeePricing: new(false)}}, Reason: "margins leaked",
	})
	mustNot(t, err)
	w := owner.why(uma, "setting:see_pricing").GetGrant().GetWords()[0]
	if w.GetEffect() != pb.Effect_EFFECT_DENY || w.GetSet().GetAuthor() != ola.id || w.GetSet().GetReason() != "margins leaked" {
		t.Errorf("got %v", w)
	}
}
