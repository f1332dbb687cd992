package permissions

import (
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// smallest takes from a world whatever can be missing without its ceasing to be bad, and
// all users but one.
func smallest(w *world, user string, bad func(*world) bool) *world {
	w = w.clone()
	w.users = map[string]*pb.UserAccess{user: w.users[user]}
	for again := true; again; {
		again = false
		for _, take := range w.parts() {
			less := w.clone()
			if take(less); bad(less) {
				w, again = less, true
				break
			}
		}
	}
	return w
}

func (w *world) clone() *world {
	return &world{users: clones(w.users), roles: clones(w.roles), groups: clones(w.groups), plan: proto.CloneOf(w.plan)}
}

func clones[T proto.Message](records map[string]T) map[string]T {
	all := map[string]T{}
	for id, r := range records {
		all[id] = proto.CloneOf(r)
	}
	return all
}

// parts returns what takes one thing each from a world, the big ones first.
func (w *world) parts() (all []func(*world)) {
	for id := range w.groups {
		all = append(all, func(w *world) { delete(w.groups, id) })
	}
	for id, r := range w.roles {
		if r.GetBuiltIn() {
			continue
		}
		all = append(all, func(w *world) { delete(w.roles, id) }, func(w *world) { w.roles[id].Settings = nil })
		for i := range r.GetKeys() {
			all = append(all, func(w *world) { w.roles[id].Keys = slices.Delete(w.roles[id].Keys, i, i+1) })
		}
	}
	for id, g := range w.groups {
		all = append(all, func(w *world) { w.groups[id].Settings = nil })
		for i := range g.GetGrants() {
			all = append(all, func(w *world) { w.groups[id].Grants = slices.Delete(w.groups[id].Grants, i, i+1) })
		}
		for i := range g.GetDenies() {
			all = append(all, func(w *world) { w.groups[id].Denies = slices.Delete(w.groups[id].Denies, i, i+1) })
		}
	}
	for id, u := range w.users {
		all = append(all, func(w *world) { w.users[id].Settings = nil }, func(w *world) { w.users[id].GroupId = "" })
		for i := range u.GetOverrides() {
			all = append(all, func(w *world) { w.users[id].Overrides = slices.Delete(w.users[id].Overrides, i, i+1) })
		}
	}
	for i := range w.plan.GetFeatures() {
		all = append(all, func(w *world) { w.plan.Features = slices.Delete(w.plan.Features, i, i+1) })
	}
	// Clearing what is not there makes nothing smaller.
	return slices.DeleteFunc(all, func(take func(*world)) bool {
		less := w.clone()
		take(less)
		return less.equal(w)
	})
}

func (w *world) equal(v *world) bool {
	return proto.Equal(w.plan, v.plan) && equalRecords(w.users, v.users) && equalRecords(w.roles, v.roles) && equalRecords(w.groups, v.groups)
}

func equalRecords[T proto.Message](a, b map[string]T) bool {
	return maps.EqualFunc(a, b, func(x, y T) bool { return proto.Equal(x, y) })
}

// TestMistakesAreFound is the control: an evaluation that is wrong in one thing must be
// found out by worlds as TestAMillionUsers has, and the smallest of them must show it.
func TestMistakesAreFound(t *testing.T) {
	first := chosenSeed(t)
	for name, wrong := range map[string]func(w *world, user string, at time.Time) error{
		"an override counts at the instant of its end": mistaken(endLater),
		"group denies are ignored":                     mistaken(takeDenies),
		"every feature is included":                    mistaken(func(w *world) { w.plan.Features = featureNames() }),
		"deleted groups count": mistaken(func(w *world) {
			for _, g := range w.groups {
				g.DeleteTime = nil
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			for i := range uint64(8) { // one world may have every feature, or no group that is deleted
				if w := (dice{newRand(first + i)}).world(60); found(t, w, wrong) {
					return
				}
			}
			t.Fatal("the mistake was not found")
		})
	}
}

// found looks for a mistake in a world, and makes the world small that shows it.
func found(t *testing.T, w *world, wrong func(w *world, user string, at time.Time) error) bool {
	t.Helper()
	for _, user := range sorted(w.users) {
		for _, at := range boundaries {
			if wrong(w, user, at) == nil {
				continue
			}
			small := smallest(w, user, func(w *world) bool { return wrong(w, user, at) != nil })
			if n := len(small.users) + len(small.groups) + len(small.users[user].GetOverrides()); n > 4 {
				t.Errorf("%d records and overrides are left of what shows the mistake: %+v", n, small)
			}
			return true
		}
	}
	return false
}

// mistaken compares an evaluation of a world that was changed with the reference of the
// true one.
func mistaken(change func(*world)) func(*world, string, time.Time) error {
	return func(w *world, user string, at time.Time) error {
		other := w.clone()
		change(other)
		return agreeOn(w, other.access(user), user, at)
	}
}

func endLater(w *world) {
	for _, u := range w.users {
		for _, o := range u.GetOverrides() {
			if o.ExpireTime != nil {
				o.ExpireTime = timestamppb.New(o.GetExpireTime().AsTime().Add(1))
			}
		}
	}
}

func takeDenies(w *world) {
	for _, g := range w.groups {
		g.Denies = nil
	}
}
