package permissions

import (
	"slices"
	"time"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

// world is every record of one organization. Its methods are the reference: they
// follow the order of evaluation in doc.go word by word, over names and maps, and
// share nothing with the evaluation that the service uses.
type world struct {
	users  map[string]*pb.UserAccess
	roles  map[string]*pb.Role // the built-in ones too
	groups map[string]*pb.Group
	plan   *pb.Plan
}

var keyByName = func() map[string]catalog.Key {
	byName := map[string]catalog.Key{}
	for _, k := range catalog.Keys() {
		byName[k.Name] = k
	}
	return byName
}()

func (w *world) layersOf(user string) (*pb.UserAccess, *pb.Group, *pb.Role) {
	u := w.users[user]
	g, role := w.groups[u.GetGroupId()], u.GetRoleId()
	if g.GetDeleteTime() != nil {
		g = nil
	}
	if g != nil {
		role = g.GetRoleId()
	}
	r := w.roles[role]
	if r.GetDeleteTime() != nil {
		r = nil
	}
	return u, g, r
}

// keys returns what counts for a user, with a plan of these features.
func (w *world) keys(user string, at time.Time, features []string) map[string]bool {
	counts := w.given(user, at)
	if counts["Web"] {
		counts["App"] = true
	}
	for removed := true; removed; {
		removed = false
		for name := range counts {
			k := keyByName[name]
			lost := k.AddOn != "" && !slices.Contains(features, k.AddOn)
			for _, parent := range k.Requires {
				lost = lost || !counts[parent]
			}
			if lost {
				delete(counts, name)
				removed = true
			}
		}
	}
	return counts
}

// given returns what the layers give, before Web and gates.
func (w *world) given(user string, at time.Time) map[string]bool {
	u, g, r := w.layersOf(user)
	counts := map[string]bool{}
	apply(counts, r.GetKeys(), nil)
	if u.GetRegionalManager() && (r.GetId() == "PM" || r.GetId() == "PM+") {
		apply(counts, catalog.RegionalManagerKeys(), nil)
	}
	apply(counts, g.GetGrants(), g.GetDenies())
	apply(counts, live(u, pb.Effect_EFFECT_GRANT, at), live(u, pb.Effect_EFFECT_DENY, at))
	return counts
}

// live returns the keys of the overrides of one effect that have not ended.
func live(u *pb.UserAccess, effect pb.Effect, at time.Time) (keys []string) {
	for _, o := range u.GetOverrides() {
		if o.GetEffect() == effect && (o.ExpireTime == nil || at.Before(o.ExpireTime.AsTime())) {
			keys = append(keys, o.GetKey())
		}
	}
	return keys
}

func apply(counts map[string]bool, grants, denies []string) {
	for _, k := range grants {
		counts[k] = true
	}
	for _, k := range denies {
		delete(counts, k)
	}
}
