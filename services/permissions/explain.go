package permissions

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"latchkey.dev/services/internal/catalog"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// verdict is what a user may do at one instant, with what it takes to say why.
type verdict struct {
	*access
	at      time.Time
	next    time.Time   // when it can change by itself, or zero
	plain   catalog.Set // after the layers
	layered catalog.Set // and with what keys include and the plan, before gates
	set     catalog.Set // keys, settings and features that count
}

func (a *access) judge(at time.Time) verdict {
	v := verdict{access: a, at: at}
	v.set, v.next = a.grants(at)
	v.plain, _ = a.layers(at)
	v.layered = catalog.Implied(v.plain.Union(a.plan))
	return v
}

// reason says which layer decided about a grant.
type reason struct {
	layer   pb.Layer
	source  string
	missing string                 // what took it away
	until   *timestamppb.Timestamp // when the override ends
}

// explain says why a key counts or does not.
func (v *verdict) explain(b catalog.Bit) reason {
	r := v.decided(b)
	if v.layered.Has(b) && !v.set.Has(b) {
		for need := range catalog.Needs(b).Without(v.layered).All() {
			r.missing = need.String()
			break
		}
	}
	return r
}

// decided returns the most specific layer that speaks about the key.
func (v *verdict) decided(b catalog.Bit) reason {
	if v.layered.Has(b) && !v.plain.Has(b) {
		return reason{layer: pb.Layer_LAYER_IMPLIED, source: web.String()}
	}
	if o := v.overrideOf(b); o != nil {
		r := reason{layer: pb.Layer_LAYER_OVERRIDE, source: o.author}
		if !o.until.IsZero() {
			r.until = timestamppb.New(o.until)
		}
		return r
	}
	switch {
	case v.group.grants.Has(b) || v.group.denies.Has(b):
		return reason{layer: pb.Layer_LAYER_GROUP, source: v.group.id}
	case v.role.keys.Has(b) || v.regional && regionalKeys.Has(b):
		return reason{layer: pb.Layer_LAYER_ROLE, source: v.role.id}
	}
	return reason{layer: pb.Layer_LAYER_NONE}
}

// web is the one key that includes another, App.
var web = catalog.MustGrant("Web")

// overrideOf returns the override that decides about a key, a deny if there is one.
func (v *verdict) overrideOf(b catalog.Bit) (found *override) {
	for i := range v.overrides {
		o := &v.overrides[i]
		if o.bit == b && o.counts(v.at) && (found == nil || o.deny && !found.deny) {
			found = o
		}
	}
	return found
}

// explainSetting says which layer a setting's value comes from.
func (v *verdict) explainSetting(n int) reason {
	switch {
	case agentSettings.has(n) && !v.agent:
		return reason{layer: pb.Layer_LAYER_NONE}
	case v.own.says.has(n):
		return reason{layer: pb.Layer_LAYER_OVERRIDE}
	case v.group.settings.says.has(n):
		return reason{layer: pb.Layer_LAYER_GROUP, source: v.group.id}
	case v.role.settings.says.has(n):
		return reason{layer: pb.Layer_LAYER_ROLE, source: v.role.id}
	}
	return reason{layer: pb.Layer_LAYER_NONE}
}

// keyAccess says of every key of the catalog whether it counts, and why.
func (v *verdict) keyAccess() []*pb.KeyAccess {
	keys := make([]*pb.KeyAccess, 0, len(allKeys))
	for _, k := range allKeys {
		r := v.explain(k.Bit())
		keys = append(keys, &pb.KeyAccess{
			Number: int32(k.Number), Key: k.Name, Allowed: v.set.Has(k.Bit()),
			Layer: r.layer, Source: r.source, Missing: r.missing, ExpireTime: r.until,
		})
	}
	return keys
}

// settingAccess says of every setting where its value comes from.
func (v *verdict) settingAccess() []*pb.SettingAccess {
	list := make([]*pb.SettingAccess, 0, len(settingNames))
	for i, name := range settingNames {
		r := v.explainSetting(i + 1)
		list = append(list, &pb.SettingAccess{Number: int32(i + 1), Name: name, Layer: r.layer, Source: r.source})
	}
	return list
}

// allKeys is the catalog.
var allKeys = catalog.Keys()

// explainGrant says why a grant of any kind counts or does not.
func (v *verdict) explainGrant(b catalog.Bit) reason {
	for n, bit := range settingBits {
		if n > 0 && boolSettings.has(n) && bit == b {
			return v.explainSetting(n)
		}
	}
	if allFeatures.Has(b) {
		if v.plan.Has(b) {
			return reason{layer: pb.Layer_LAYER_PLAN}
		}
		return reason{layer: pb.Layer_LAYER_NONE}
	}
	return v.explain(b)
}
