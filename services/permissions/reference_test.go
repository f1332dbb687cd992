package permissions

import (
	"slices"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

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
	g := w.groups[u.GetGroupId()]
	if g != nil {
		return u, g, w.roles[g.GetRoleId()]
	}
	return u, nil, w.roles[u.GetRoleId()]
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

// setting returns the value of a setting, and the layer that decided.
func (w *world) setting(user, name string) (protoreflect.Value, pb.Layer) {
	u, g, r := w.layersOf(user)
	for _, l := range []struct {
		layer    pb.Layer
		settings *pb.UserSettings
	}{{pb.Layer_LAYER_OVERRIDE, u.GetSettings()}, {pb.Layer_LAYER_GROUP, g.GetSettings()}, {pb.Layer_LAYER_ROLE, r.GetSettings()}} {
		m := l.settings.ProtoReflect()
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if s, _ := catalog.LookupSetting(name); s.AgentOnly && u.GetServiceAgentId() == "" {
			return protoreflect.Value{}, pb.Layer_LAYER_NONE
		}
		if l.settings != nil && m.Has(fd) {
			return m.Get(fd), l.layer
		}
	}
	return protoreflect.Value{}, pb.Layer_LAYER_NONE
}

// layer returns the most specific layer that speaks about a key, and its source. Given
// is what the layers give.
func (w *world) layer(user, key string, at time.Time, given map[string]bool) (pb.Layer, string) {
	u, g, r := w.layersOf(user)
	if key == "App" && given["Web"] && !given["App"] {
		return pb.Layer_LAYER_IMPLIED, "Web"
	}
	for _, o := range u.GetOverrides() {
		if o.GetKey() == key && (o.ExpireTime == nil || at.Before(o.ExpireTime.AsTime())) {
			return pb.Layer_LAYER_OVERRIDE, o.GetSetBy()
		}
	}
	if slices.Contains(g.GetGrants(), key) || slices.Contains(g.GetDenies(), key) {
		return pb.Layer_LAYER_GROUP, g.GetId()
	}
	if given[key] {
		return pb.Layer_LAYER_ROLE, r.GetId()
	}
	return pb.Layer_LAYER_NONE, ""
}
