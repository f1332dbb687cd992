package permissions

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

// What must be true of any evaluation, one test each.

// layered returns what the layers give a user at noon, before gates.
func (w *world) layered(user string) catalog.Set {
	set, _ := w.access(user).layers(noon)
	return set
}

// held returns all that counts for a user at noon.
func (w *world) held(user string) catalog.Set { return w.access(user).judge(noon).set }

func law(t *testing.T, holds func(t *rapid.T, w *world, u *pb.UserAccess)) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		holds(t, w, w.users["user0"])
	})
}

// anOverride is one that does not end.
func anOverride(key string, effect pb.Effect) *pb.Override {
	return &pb.Override{Key: key, Effect: effect, SetBy: "somebody"}
}

func aKey(t *rapid.T) (string, catalog.Bit) {
	k := rapid.SampledFrom(allKeys).Draw(t, "key")
	return k.Name, k.Bit()
}

// noOverride takes a user's overrides of a key away.
func noOverride(u *pb.UserAccess, key string) {
	for i := len(u.Overrides) - 1; i >= 0; i-- {
		if u.Overrides[i].GetKey() == key {
			u.Overrides = append(u.Overrides[:i], u.Overrides[i+1:]...)
		}
	}
}

// inGroup puts a user into a group that a test may change.
func (w *world) inGroup(u *pb.UserAccess) *pb.Group {
	g := w.groups[u.GetGroupId()]
	if g == nil {
		g = &pb.Group{Id: "another", RoleId: u.GetRoleId()}
		w.groups[g.Id], u.GroupId = g, g.GetId()
	}
	return g
}

// ownRole gives a user a role that a test may change, and takes the user out of a group.
func (w *world) ownRole(u *pb.UserAccess) *pb.Role {
	r := &pb.Role{Id: "another", Keys: w.roles[u.GetRoleId()].GetKeys()}
	w.roles[r.Id], u.RoleId, u.GroupId = r, r.GetId(), ""
	return r
}

func TestLawDefaultIsDeny(t *testing.T) {
	law(t, func(t *rapid.T, w *world, u *pb.UserAccess) {
		w.users["stranger"] = &pb.UserAccess{Id: "stranger"}
		w.users["dangling"] = &pb.UserAccess{Id: "dangling", RoleId: "gone", GroupId: "gone too"}
		for _, id := range []string{"stranger", "dangling"} {
			if set := w.held(id); !set.OnlyKeys().Empty() {
				t.Fatalf("%s, whom nobody gave anything, holds %v", id, keyNames(set))
			}
		}
		var given catalog.Set
		for _, r := range []*pb.Role{w.roles[u.GetRoleId()], w.roles[w.groups[u.GetGroupId()].GetRoleId()]} {
			given = given.Union(keySet(r.GetKeys()))
		}
		given = given.Union(keySet(w.groups[u.GetGroupId()].GetGrants())).Union(regionalKeys)
		for _, o := range u.GetOverrides() {
			if o.GetEffect() == pb.Effect_EFFECT_GRANT {
				given.Add(catalog.MustGrant(o.GetKey()))
			}
		}
		given.Add(catalog.MustGrant("App")) // which Web includes
		if more := w.held(u.GetId()).OnlyKeys().Without(given); !more.Empty() {
			t.Fatalf("nobody gave %v", keyNames(more))
		}
	})
}

func TestLawDenyWinsWithinALayer(t *testing.T) {
	law(t, func(t *rapid.T, w *world, u *pb.UserAccess) {
		key, bit := aKey(t)
		noOverride(u, key)
		g := w.inGroup(u)
		g.Grants, g.Denies = append(g.Grants, key), append(g.Denies, key)
		if w.layered(u.GetId()).Has(bit) {
			t.Fatalf("the group's grant of %s wins over its deny", key)
		}
		both := []*pb.Override{anOverride(key, pb.Effect_EFFECT_GRANT), anOverride(key, pb.Effect_EFFECT_DENY)}
		if rapid.Bool().Draw(t, "deny first") {
			both[0], both[1] = both[1], both[0]
		}
		g.Denies, u.Overrides = nil, append(u.Overrides, both...)
		if w.layered(u.GetId()).Has(bit) {
			t.Fatalf("the override that grants %s wins over the one that denies it", key)
		}
	})
}

func TestLawTheMoreSpecificLayerWins(t *testing.T) {
	law(t, func(t *rapid.T, w *world, u *pb.UserAccess) {
		key, bit := aKey(t)
		noOverride(u, key)
		g := w.inGroup(u)
		set := func(groups, overrides pb.Effect) {
			g.Grants, g.Denies = nil, nil
			switch groups {
			case pb.Effect_EFFECT_GRANT:
				g.Grants = []string{key}
			case pb.Effect_EFFECT_DENY:
				g.Denies = []string{key}
			}
			noOverride(u, key)
			if overrides != pb.Effect_EFFECT_UNSPECIFIED {
				u.Overrides = append(u.Overrides, anOverride(key, overrides))
			}
		}
		const none, grant, deny = pb.Effect_EFFECT_UNSPECIFIED, pb.Effect_EFFECT_GRANT, pb.Effect_EFFECT_DENY
		for _, c := range []struct {
			group, override pb.Effect
			want            bool
		}{{grant, none, true}, {deny, none, false}, {none, grant, true}, {none, deny, false}, {deny, grant, true}, {grant, deny, false}} {
			set(c.group, c.override)
			if got := w.layered(u.GetId()).Has(bit); got != c.want {
				t.Fatalf("%s: group %s, override %s: got %t", key, c.group, c.override, got)
			}
		}
	})
}

func TestLawGatesOnlyRemove(t *testing.T) {
	law(t, func(t *rapid.T, w *world, u *pb.UserAccess) {
		given := w.layered(u.GetId())
		if given.Has(web) {
			given.Add(catalog.MustGrant("App")) // included before the gates
		}
		held := w.held(u.GetId()).OnlyKeys()
		if !given.Contains(held) {
			t.Fatalf("gates added %v", keyNames(held.Without(given)))
		}
		w.plan.Features = featureNames()
		if more := w.held(u.GetId()).OnlyKeys(); !given.Contains(more) || !more.Contains(held) {
			t.Fatalf("with every feature %v", keyNames(more))
		}
	})
}

func TestLawOrderAndDuplicatesDoNotMatter(t *testing.T) {
	law(t, func(t *rapid.T, w *world, u *pb.UserAccess) {
		before := w.access(u.GetId()).judge(noon)
		for _, id := range sorted(w.roles) {
			if r := w.roles[id]; !r.GetBuiltIn() {
				r.Keys = mixed(t, r.Keys)
			}
		}
		for _, id := range sorted(w.groups) {
			g := w.groups[id]
			g.Grants, g.Denies = mixed(t, g.Grants), mixed(t, g.Denies)
		}
		u.Overrides, w.plan.Features = mixed(t, u.Overrides), mixed(t, w.plan.Features)
		after := w.access(u.GetId()).judge(noon)
		if after.set != before.set || after.layered != before.layered || !after.next.Equal(before.next) {
			t.Fatalf("got %v, want %v", keyNames(after.set), keyNames(before.set))
		}
	})
}

// mixed returns a list in another order, with some of it twice.
func mixed[T any](t *rapid.T, list []T) []T {
	if len(list) == 0 {
		return list
	}
	twice := append(list[:len(list):len(list)], list[:rapid.IntRange(0, len(list)).Draw(t, "twice")]...)
	return rapid.Permutation(twice).Draw(t, "order")
}

// TestLawAGrantRemovesNothing adds a grant in any layer.
func TestLawAGrantRemovesNothing(t *testing.T) {
	law(t, func(t *rapid.T, w *world, u *pb.UserAccess) {
		key, _ := aKey(t)
		add := rapid.SampledFrom([]string{"role", "group", "override", "plan"}).Draw(t, "layer")
		var r *pb.Role
		var g *pb.Group
		switch add {
		case "role":
			r = w.ownRole(u)
		case "group":
			g = w.inGroup(u)
		}
		before := w.held(u.GetId())
		switch add {
		case "role":
			r.Keys = append(r.Keys, key)
		case "group":
			g.Grants = append(g.Grants, key)
		case "override":
			u.Overrides = append(u.Overrides, anOverride(key, pb.Effect_EFFECT_GRANT))
		case "plan":
			w.plan.Features = append(w.plan.Features, rapid.SampledFrom(featureNames()).Draw(t, "feature"))
		}
		if after := w.held(u.GetId()); !after.Contains(before) {
			t.Fatalf("a grant of %s to the %s removed %v", key, add, keyNames(before.Without(after)))
		}
	})
}

// TestLawADenyAddsNothing adds a deny in either layer that has any.
func TestLawADenyAddsNothing(t *testing.T) {
	law(t, func(t *rapid.T, w *world, u *pb.UserAccess) {
		key, _ := aKey(t)
		g := w.inGroup(u)
		before := w.held(u.GetId())
		if rapid.Bool().Draw(t, "to the group") {
			g.Denies = append(g.Denies, key)
		} else {
			u.Overrides = append(u.Overrides, anOverride(key, pb.Effect_EFFECT_DENY))
		}
		if after := w.held(u.GetId()); !before.Contains(after) {
			t.Fatalf("a deny of %s added %v", key, keyNames(after.Without(before)))
		}
	})
}

// TestLawOneUserIsAllUsers loads each user alone, and all with one loader, in any order.
func TestLawOneUserIsAllUsers(t *testing.T) {
	law(t, func(t *rapid.T, w *world, _ *pb.UserAccess) {
		all := w.loader(noon)
		for _, id := range rapid.Permutation(sorted(w.users)).Draw(t, "order") {
			together, alone := all.access(w.users[id]).judge(noon), w.access(id).judge(noon)
			if together.set != alone.set || !proto.Equal(together.settings().proto(together.agent), alone.settings().proto(alone.agent)) {
				t.Fatalf("%s: together %v, alone %v", id, keyNames(together.set), keyNames(alone.set))
			}
		}
	})
}
