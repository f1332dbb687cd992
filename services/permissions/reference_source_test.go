package permissions

import (
	"slices"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

// What the reference says beside which keys count: settings, and which layer decided.

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
