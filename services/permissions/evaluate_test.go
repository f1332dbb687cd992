package permissions

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

var protoTrue = protoreflect.ValueOfBool(true)

func TestEvaluationIsThatOfTheReference(t *testing.T) { rapid.Check(t, evaluationIsThatOfTheReference) }

func evaluationIsThatOfTheReference(t *rapid.T) {
	w := drawWorld(t)
	for id := range w.users {
		for _, at := range []time.Time{noon.Add(-time.Hour), noon, noon.Add(time.Hour - 1), noon.Add(time.Hour)} {
			if err := agree(w, id, at); err != nil {
				t.Fatalf("%s at %s: %s", id, at, err)
			}
		}
	}
}

// agree compares all that the service says about a user with the reference.
func agree(w *world, user string, at time.Time) error { return agreeOn(w, w.access(user), user, at) }

// agreeOn is agree for a user's access that is compiled already.
func agreeOn(w *world, a *access, user string, at time.Time) error {
	v := a.judge(at)
	want, given := w.keys(user, at, w.plan.GetFeatures()), w.given(user, at)
	for _, k := range v.keyAccess() {
		if k.GetAllowed() != want[k.GetKey()] {
			return fmt.Errorf("%s: got %t, want %t", k.GetKey(), k.GetAllowed(), want[k.GetKey()])
		}
		if err := explained(w, user, at, given, k); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	if got := a.keys(at, a.plan); got != v.set.OnlyKeys() {
		return fmt.Errorf("keys and grants differ in %v", keyNames(got.Without(v.set)))
	}
	if want, got := soonest(w.users[user], at), v.next; !got.Equal(want) {
		return fmt.Errorf("next change: got %s, want %s", got, want)
	}
	return agreeOnSettings(w, user, &v)
}

// explained compares why a key counts or not with the reference.
func explained(w *world, user string, at time.Time, given map[string]bool, k *pb.KeyAccess) error {
	layer, source := w.layer(user, k.GetKey(), at, given)
	if k.GetLayer() != layer || k.GetSource() != source {
		return fmt.Errorf("got %s of %q, want %s of %q", k.GetLayer(), k.GetSource(), layer, source)
	}
	gone := given[k.GetKey()] && !k.GetAllowed()
	if gone != (k.GetMissing() != "") {
		return fmt.Errorf("taken away: got %q, want %t", k.GetMissing(), gone)
	}
	feature, ok := strings.CutPrefix(k.GetMissing(), "feature:")
	if ok && slices.Contains(w.plan.GetFeatures(), feature) || !ok && given[k.GetMissing()] {
		return fmt.Errorf("%s is not missing", k.GetMissing())
	}
	return nil
}

func soonest(u *pb.UserAccess, at time.Time) (next time.Time) {
	for _, o := range u.GetOverrides() {
		if end := o.GetExpireTime(); end != nil && end.AsTime().After(at) && (next.IsZero() || end.AsTime().Before(next)) {
			next = end.AsTime()
		}
	}
	return next
}

func agreeOnSettings(w *world, user string, v *verdict) error {
	got := v.settings().proto(v.agent).ProtoReflect()
	fields := got.Descriptor().Fields()
	for i, s := range v.settingAccess() {
		fd := fields.ByName(protoreflect.Name(s.GetName()))
		want, layer := w.setting(user, s.GetName())
		if s.GetLayer() != layer {
			return fmt.Errorf("layer of %s: got %s, want %s", s.GetName(), s.GetLayer(), layer)
		}
		if layer != pb.Layer_LAYER_NONE && !got.Get(fd).Equal(want) {
			return fmt.Errorf("%s: got %s, want %s", s.GetName(), got.Get(fd), want)
		}
		if grant, ok := catalog.Grant("setting:" + s.GetName()); ok {
			if on := layer != pb.Layer_LAYER_NONE && want.Bool(); v.set.Has(grant) != on {
				return fmt.Errorf("grant %s: got %t, want %t", grant, v.set.Has(grant), on)
			}
		}
		if agentSettings.has(i+1) && !v.agent && got.Has(fd) {
			return fmt.Errorf("%s exists without a service agent", s.GetName())
		}
	}
	return nil
}

// TestEveryStateOfTheLayers goes through every state that the layers can have for one
// key, which has a parent and an add-on feature.
func TestEveryStateOfTheLayers(t *testing.T) {
	const key, parent, feature = "Campaigns:Create", "Campaigns", "campaigns"
	lists := [][]string{nil, {key}, {key, key}}
	parents := []*pb.Override{nil, {Key: parent, Effect: pb.Effect_EFFECT_GRANT}, {Key: parent, Effect: pb.Effect_EFFECT_DENY}}
	ends := []*timestamppb.Timestamp{nil, timestamppb.New(noon.Add(-1)), timestamppb.New(noon), timestamppb.New(noon.Add(1))}
	overrides := [][]pb.Effect{
		{}, {pb.Effect_EFFECT_GRANT}, {pb.Effect_EFFECT_DENY},
		{pb.Effect_EFFECT_GRANT, pb.Effect_EFFECT_DENY}, {pb.Effect_EFFECT_DENY, pb.Effect_EFFECT_GRANT},
	}
	n := 0
	for _, role := range [][]string{nil, {key}, {parent, key}} {
		for _, groupRole := range []string{"none", "empty", "full"} {
			for _, grants := range lists {
				for _, denies := range lists {
					for _, effects := range overrides {
						for _, end := range ends {
							for _, over := range parents {
								for _, features := range [][]string{nil, {feature}, {"routing"}} {
									w := emptyWorld()
									w.roles["own"] = &pb.Role{Id: "own", Keys: role}
									w.roles["empty"] = &pb.Role{Id: "empty"}
									w.roles["full"] = &pb.Role{Id: "full", Keys: []string{parent, key}}
									u := &pb.UserAccess{Id: "u", RoleId: "own"}
									if groupRole != "none" {
										u.GroupId = "g"
										w.groups["g"] = &pb.Group{Id: "g", RoleId: groupRole, Grants: grants, Denies: denies}
									}
									for _, e := range effects {
										u.Overrides = append(u.Overrides, &pb.Override{Key: key, Effect: e, ExpireTime: end})
									}
									if over != nil {
										u.Overrides = append(u.Overrides, over)
									}
									w.users["u"], w.plan.Features = u, features
									if err := agree(w, "u", noon); err != nil {
										t.Fatalf("role %v, group role %s, grants %v, denies %v, user %v, plan %v: %s", role, groupRole, grants, denies, u, features, err)
									}
									n++
								}
							}
						}
					}
				}
			}
		}
	}
	if want := 3 * 3 * 9 * 5 * 4 * 3 * 3; n != want {
		t.Errorf("went through %d states, want %d", n, want)
	}
}

func TestRegionalManagerAddsInsightsToPropertyManagersOnly(t *testing.T) {
	for _, r := range catalog.Roles() {
		u := &pb.UserAccess{Id: "u", RoleId: r.Code}
		l := &loader{now: noon}
		plain := l.access(u).keys(noon, allFeatures)
		u.RegionalManager = true
		got := l.access(u).keys(noon, allFeatures).Without(plain)
		var want catalog.Set
		if r.Code == "PM" || r.Code == "PM+" {
			want = regionalKeys.Without(plain)
		}
		if got != want {
			t.Errorf("%s: got %v, want %v", r.Code, keyNames(got), keyNames(want))
		}
	}
}

func TestSettingsAreThoseOfTheCatalog(t *testing.T) {
	fields := (&pb.UserSettings{}).ProtoReflect().Descriptor().Fields()
	if got, want := fields.Len(), len(catalog.Settings()); got != want {
		t.Fatalf("%d fields, want %d", got, want)
	}
	for i, s := range catalog.Settings() {
		fd := fields.ByName(protoreflect.Name(s.Name))
		if fd == nil || int(fd.Number()) != s.Number {
			t.Errorf("%s: is not field %d", s.Name, s.Number)
		}
		if got := fd.Kind() == protoreflect.BoolKind; got != (s.Kind == catalog.Bool) {
			t.Errorf("%s: bool is %t, want %t", s.Name, got, !got)
		}
		if i+1 != s.Number {
			t.Errorf("%s: setting %d is at place %d", s.Name, s.Number, i+1)
		}
	}
	effective := (&pb.EffectiveSettings{}).ProtoReflect().Descriptor().Fields()
	for i := range effective.Len() {
		fd := effective.Get(i)
		if same := fields.ByName(fd.Name()); same == nil || same.Number() != fd.Number() || boolSettings.has(int(fd.Number())) {
			t.Errorf("%s of EffectiveSettings is not the setting that is not boolean", fd.Name())
		}
	}
}

func TestEveryRoleSeesPricingButThoseInTheField(t *testing.T) {
	for _, r := range catalog.Roles() {
		set, _ := (&loader{now: noon}).access(&pb.UserAccess{RoleId: r.Code}).grants(noon)
		if got, want := set.Has(catalog.MustGrant("setting:see_pricing")), r.Code != "SA"; got != want {
			t.Errorf("%s: got %t, want %t", r.Code, got, want)
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	w := emptyWorld()
	w.groups["g"] = &pb.Group{Id: "g", RoleId: "PM", Grants: []string{"Calendar", "Reports"}, Denies: []string{"Tasks"}}
	w.users["u"] = &pb.UserAccess{Id: "u", RoleId: "US", GroupId: "g", Overrides: []*pb.Override{
		{Key: "Invoices", Effect: pb.Effect_EFFECT_GRANT}, {Key: "Invoices:Void", Effect: pb.Effect_EFFECT_GRANT, ExpireTime: timestamppb.New(noon)},
	}}
	l := w.loader(noon)
	a := l.access(w.users["u"])
	b.Run("grants", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			a.grants(noon)
		}
	})
	b.Run("compile and grants", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.access(w.users["u"]).grants(noon)
		}
	})
	b.Run("explain all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v := a.judge(noon)
			v.keyAccess()
		}
	})
}
