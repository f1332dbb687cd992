package permissions

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

// TestFlipsFlipByTheReference tries every flip of every grant on random worlds with the
// naive evaluator, and that nothing less would do.
func TestFlipsFlipByTheReference(t *testing.T) {
	flips := 0
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		user := rapid.SampledFrom(sorted(w.users)).Draw(t, "user")
		keepLast(w.users[user])
		l := w.loader(noon)
		v := l.access(w.users[user]).judge(noon)
		tr := &trial{l: l, user: w.users[user]}
		for _, k := range allKeys {
			held := v.set.Has(k.Bit())
			all := tr.flips(&v, k.Bit())
			if len(all) == 0 {
				t.Fatalf("nothing flips %s of %s", k.Name, user)
			}
			for _, f := range all {
				flips++
				if w.after(f.GetSteps(), user)[k.Name] == held {
					t.Fatalf("%v does not flip %s, which is %v", f, k.Name, held)
				}
				for i := range f.GetSteps() {
					part := append(append([]*pb.FlipStep{}, f.GetSteps()[:i]...), f.GetSteps()[i+1:]...)
					if w.after(part, user)[k.Name] != held {
						t.Fatalf("less than %v flips %s", f, k.Name)
					}
				}
			}
		}
	})
	t.Logf("%d flips", flips)
}

// keepLast leaves one override of a key, as records have it.
func keepLast(u *pb.UserAccess) {
	list := u.GetOverrides()
	u.Overrides = nil
	for _, o := range list {
		setOverride(u, o)
	}
}

// after returns what counts by the reference after some steps.
func (w *world) after(steps []*pb.FlipStep, user string) map[string]bool {
	n := &world{users: map[string]*pb.UserAccess{user: proto.CloneOf(w.users[user])}, roles: w.roles, groups: map[string]*pb.Group{}, plan: w.plan}
	u := n.users[user]
	if g := w.groups[u.GetGroupId()]; g != nil {
		n.groups[g.GetId()] = proto.CloneOf(g)
	}
	features := w.plan.GetFeatures()
	for _, s := range steps {
		g := n.groups[u.GetGroupId()]
		switch name := s.GetGrant(); s.GetKind() {
		case pb.FlipKind_FLIP_KIND_GRANT_OVERRIDE:
			setOverride(u, &pb.Override{Key: name, Effect: pb.Effect_EFFECT_GRANT})
		case pb.FlipKind_FLIP_KIND_DENY_OVERRIDE:
			setOverride(u, &pb.Override{Key: name, Effect: pb.Effect_EFFECT_DENY})
		case pb.FlipKind_FLIP_KIND_CLEAR_OVERRIDE:
			clearOverride(u, name)
		case pb.FlipKind_FLIP_KIND_LIFT_GROUP_DENY:
			g.Denies = but(g.GetDenies(), name)
		case pb.FlipKind_FLIP_KIND_DROP_GROUP_GRANT:
			g.Grants = but(g.GetGrants(), name)
		case pb.FlipKind_FLIP_KIND_ADD_FEATURE:
			features = append(append([]string{}, features...), name[len("feature:"):])
		case pb.FlipKind_FLIP_KIND_REMOVE_FEATURE:
			features = but(features, name[len("feature:"):])
		}
	}
	return n.keys(user, noon, features)
}

func but(list []string, name string) (rest []string) {
	for _, s := range list {
		if s != name {
			rest = append(rest, s)
		}
	}
	return rest
}

// TestSettingsFlip switches every boolean setting of users who are agents and who are not.
func TestSettingsFlip(t *testing.T) {
	for _, agent := range []string{"", "agent"} {
		u := &pb.UserAccess{Id: "uma", RoleId: "OA", ServiceAgentId: agent, Settings: &pb.UserSettings{PullFromQueue: yes()}}
		l := &loader{now: noon, roles: map[string]baseline{}, teams: map[string]team{}}
		v := l.access(u).judge(noon)
		tr := &trial{l: l, user: u}
		for n, b := range settingBits {
			if n == 0 || !boolSettings.has(n) {
				continue
			}
			all := tr.flips(&v, b)
			if len(all) != 1 {
				t.Fatalf("agent %q: %d flips of %s: %v", agent, len(all), b, all)
			}
			if tr.holds(all[0].GetSteps(), b) == v.set.Has(b) {
				t.Errorf("agent %q: %v does not flip %s", agent, all[0], b)
			}
			if links := all[0].GetSteps()[0].GetKind() == pb.FlipKind_FLIP_KIND_LINK_SERVICE_AGENT; links != (agent == "" && agentSettings.has(n)) {
				t.Errorf("agent %q: %s flips by %v", agent, b, all[0])
			}
		}
	}
}

// TestWordsSayWhatDecides holds the words of the layers against the layer that an
// explanation names.
func TestWordsSayWhatDecides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		user := rapid.SampledFrom(sorted(w.users)).Draw(t, "user")
		keepLast(w.users[user])
		v := w.access(user).judge(noon)
		var grants catalog.Set
		for _, k := range allKeys {
			grants.Add(k.Bit())
		}
		for n, b := range settingBits {
			if n > 0 && boolSettings.has(n) {
				grants.Add(b)
			}
		}
		for b := range grants.All() {
			want, got, effect := v.explainGrant(b).layer, pb.Layer_LAYER_NONE, pb.Effect_EFFECT_DENY
			for _, word := range v.words(w.users[user], b) {
				if word.GetDecided() {
					got, effect = word.GetLayer(), word.GetEffect()
				}
			}
			counts := effect == pb.Effect_EFFECT_GRANT
			for _, g := range v.gates(b) {
				counts = counts && g.GetCounts()
			}
			if got != want || counts != v.set.Has(b) {
				t.Fatalf("%s: the words say %v by %v, want %v by %v", b, counts, got, v.set.Has(b), want)
			}
		}
	})
}
