package permissions_test

import (
	"testing"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// Ways in which what is remembered of one has been taken for another's. What a cache
// alone can get wrong is in internal/lease/trap_test.go.

// The same person, with the same id and the same built-in role, in two organizations.
func TestTrapARoleSharedByTwoOrganizations(t *testing.T) {
	owner := start(t)
	there := owner.elsewhere()
	here := owner.hire("uma", "US")
	same(t, "id", &pb.UserAccess{Id: there.join(&identitypb.CreateUserRequest{Email: here.email, DisplayName: "uma"}, "US")}, &pb.UserAccess{Id: here.id})
	away := here.signIn(there.organization, identitypb.Surface_SURFACE_WEB)
	const key = "Calendar"
	want := func(what string, inHere, inThere bool) {
		t.Helper()
		for range 2 { // the second is answered from memory
			if got := here.holds(key).GetAllowed(); got != inHere {
				t.Errorf("%s: here %t, want %t", what, got, inHere)
			}
			if got := away.holds(key).GetAllowed(); got != inThere {
				t.Errorf("%s: there %t, want %t", what, got, inThere)
			}
		}
	}
	want("at first", true, true)
	mustNot(t, owner.override(here.id, key, pb.Effect_EFFECT_DENY))
	want("denied here", false, true)
	mustNot(t, there.override(here.id, key, pb.Effect_EFFECT_DENY))
	_, err := owner.access().ClearOverride(owner.ctx(), &pb.ClearOverrideRequest{UserId: here.id, Key: key})
	mustNot(t, err)
	want("denied there", true, false)
}

// A member who is removed and admitted anew has the same id, and nothing of before.
func TestTrapAUserRecreated(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	const key = "Calendar"
	if !uma.holds(key).GetAllowed() {
		t.Fatal("the role lacks the key")
	}
	_, err := identitypb.NewUserServiceClient(owner.conn).EndMembership(owner.ctx(), &identitypb.EndMembershipRequest{Id: uma.id})
	mustNot(t, err)
	again := owner.join(&identitypb.CreateUserRequest{Email: uma.email, DisplayName: "uma"}, "")
	same(t, "id", &pb.UserAccess{Id: again}, &pb.UserAccess{Id: uma.id})
	asked := func() bool {
		resp, err := owner.access().Check(owner.ctx(), &pb.CheckRequest{UserId: &again, Grant: key})
		mustNot(t, err)
		return resp.GetAllowed()
	}
	mustNot(t, owner.override(again, "Web", pb.Effect_EFFECT_GRANT))
	back := uma.signIn(owner.organization, identitypb.Surface_SURFACE_WEB)
	for range 2 {
		if asked() || back.holds(key).GetAllowed() {
			t.Errorf("what was before is held again")
		}
	}
	mustNot(t, owner.override(again, key, pb.Effect_EFFECT_GRANT))
	if !asked() || !back.holds(key).GetAllowed() {
		t.Error("what was given now is not held")
	}
}
