package permissions

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

// maxFlips bounds how many ways are tried to turn one answer round.
const maxFlips = 64

// trial tries what changes would do to one user, on copies of the records.
type trial struct {
	l    *loader
	user *pb.UserAccess
}

// flips returns the smallest changes each of which turns the answer about a grant
// round. Each was tried, and is left out if a part of it does.
func (t *trial) flips(v *verdict, b catalog.Bit) []*pb.Flip {
	held := v.set.Has(b)
	var found []*pb.Flip
	for _, steps := range t.candidates(v, b, held) {
		if t.holds(steps, b) == held || t.partDoes(steps, b, held) {
			continue
		}
		found = append(found, &pb.Flip{Steps: steps})
	}
	slices.SortStableFunc(found, func(a, b *pb.Flip) int { return len(a.GetSteps()) - len(b.GetSteps()) })
	return found
}

// partDoes reports whether the steps but for one turn the answer round.
func (t *trial) partDoes(steps []*pb.FlipStep, b catalog.Bit, held bool) bool {
	if len(steps) == 1 {
		return false
	}
	for i := range steps {
		if t.holds(slices.Delete(slices.Clone(steps), i, i+1), b) != held {
			return true
		}
	}
	return false
}

func (t *trial) candidates(v *verdict, b catalog.Bit, held bool) [][]*pb.FlipStep {
	switch {
	case settingOf(b) != 0:
		return settingCandidates(v, b, held)
	case held:
		return v.ways(b, (*verdict).takings)
	}
	return v.ways(b, (*verdict).givings)
}

func settingCandidates(v *verdict, b catalog.Bit, held bool) [][]*pb.FlipStep {
	kind := pb.FlipKind_FLIP_KIND_SETTING_ON
	if held {
		kind = pb.FlipKind_FLIP_KIND_SETTING_OFF
	}
	change := &pb.FlipStep{Kind: kind, Grant: b.String()}
	link := &pb.FlipStep{Kind: pb.FlipKind_FLIP_KIND_LINK_SERVICE_AGENT, Grant: b.String()}
	if agentSettings.has(settingOf(b)) && !v.agent {
		return [][]*pb.FlipStep{{link}, {link, change}}
	}
	return [][]*pb.FlipStep{{change}}
}

// ways returns what could turn the answer about a grant round. Where it is held it takes
// one thing: to take away the grant or something that it needs. Where it is not it
// takes one thing for each that is missing.
func (v *verdict) ways(b catalog.Bit, steps func(*verdict, catalog.Bit) []*pb.FlipStep) [][]*pb.FlipStep {
	var all catalog.Set
	all.Add(b)
	all = all.Union(catalog.Needs(b))
	var ways [][]*pb.FlipStep
	if v.set.Has(b) {
		if b == appKey {
			all.Add(web)
		}
		for part := range all.All() {
			for _, step := range steps(v, part) {
				ways = append(ways, []*pb.FlipStep{step})
			}
		}
		if b == appKey || catalog.Needs(b).Has(appKey) {
			ways = append(ways, v.pairs(appKey, web)...)
		}
		return ways
	}
	ways = [][]*pb.FlipStep{nil}
	for part := range all.Without(v.layered).All() {
		var longer [][]*pb.FlipStep
		for _, way := range ways {
			for _, step := range steps(v, part) {
				if len(longer) < maxFlips {
					longer = append(longer, append(slices.Clone(way), step))
				}
			}
		}
		ways = longer
	}
	return ways
}

// appKey is the one key that another, Web, includes.
var appKey = catalog.MustGrant("App")

// pairs returns every way to take two keys away at once.
func (v *verdict) pairs(a, b catalog.Bit) (ways [][]*pb.FlipStep) {
	for _, one := range v.takings(a) {
		for _, two := range v.takings(b) {
			ways = append(ways, []*pb.FlipStep{one, two})
		}
	}
	return ways
}

// givings returns each single thing that could make a key or a feature be there.
func (v *verdict) givings(b catalog.Bit) (steps []*pb.FlipStep) {
	if allFeatures.Has(b) {
		return []*pb.FlipStep{{Kind: pb.FlipKind_FLIP_KIND_ADD_FEATURE, Grant: b.String()}}
	}
	o := v.overrideOf(b)
	if o != nil && o.deny {
		steps = append(steps, &pb.FlipStep{Kind: pb.FlipKind_FLIP_KIND_CLEAR_OVERRIDE, Grant: b.String(), SetBy: o.author})
	}
	give := &pb.FlipStep{Kind: pb.FlipKind_FLIP_KIND_GRANT_OVERRIDE, Grant: b.String()}
	if o != nil {
		give.SetBy = o.author
	}
	steps = append(steps, give)
	if v.group.denies.Has(b) {
		steps = append(steps, &pb.FlipStep{
			Kind: pb.FlipKind_FLIP_KIND_LIFT_GROUP_DENY, Grant: b.String(), SetBy: v.group.authors[b.String()], Source: v.group.id,
		})
	}
	return steps
}

// takings returns each single thing that could make a key or a feature not be there.
func (v *verdict) takings(b catalog.Bit) (steps []*pb.FlipStep) {
	if allFeatures.Has(b) {
		return []*pb.FlipStep{{Kind: pb.FlipKind_FLIP_KIND_REMOVE_FEATURE, Grant: b.String()}}
	}
	o := v.overrideOf(b)
	if o != nil && !o.deny {
		steps = append(steps, &pb.FlipStep{Kind: pb.FlipKind_FLIP_KIND_CLEAR_OVERRIDE, Grant: b.String(), SetBy: o.author})
	}
	take := &pb.FlipStep{Kind: pb.FlipKind_FLIP_KIND_DENY_OVERRIDE, Grant: b.String()}
	if o != nil {
		take.SetBy = o.author
	}
	steps = append(steps, take)
	if v.group.grants.Has(b) {
		steps = append(steps, &pb.FlipStep{Kind: pb.FlipKind_FLIP_KIND_DROP_GROUP_GRANT, Grant: b.String(), Source: v.group.id})
	}
	return steps
}

// holds tells whether the user would hold a grant after the steps.
func (t *trial) holds(steps []*pb.FlipStep, b catalog.Bit) bool {
	l := &loader{tx: t.l.tx, now: t.l.now, plan: t.l.plan, past: t.l.past, roles: t.l.roles, teams: map[string]team{}}
	u := proto.CloneOf(t.user)
	var group team
	if u.GetGroupId() != "" {
		group = t.l.team(u.GetGroupId())
	}
	for _, s := range steps {
		bit := catalog.MustGrant(s.GetGrant())
		switch s.GetKind() {
		case pb.FlipKind_FLIP_KIND_GRANT_OVERRIDE:
			setOverride(u, &pb.Override{Key: s.GetGrant(), Effect: pb.Effect_EFFECT_GRANT})
		case pb.FlipKind_FLIP_KIND_DENY_OVERRIDE:
			setOverride(u, &pb.Override{Key: s.GetGrant(), Effect: pb.Effect_EFFECT_DENY})
		case pb.FlipKind_FLIP_KIND_CLEAR_OVERRIDE:
			clearOverride(u, s.GetGrant())
		case pb.FlipKind_FLIP_KIND_LIFT_GROUP_DENY:
			group.denies.Remove(bit)
		case pb.FlipKind_FLIP_KIND_DROP_GROUP_GRANT:
			group.grants.Remove(bit)
		case pb.FlipKind_FLIP_KIND_ADD_FEATURE:
			l.plan.Add(bit)
		case pb.FlipKind_FLIP_KIND_REMOVE_FEATURE:
			l.plan.Remove(bit)
		case pb.FlipKind_FLIP_KIND_LINK_SERVICE_AGENT:
			u.ServiceAgentId = "linked"
		default:
			switchSetting(u, bit, s.GetKind() == pb.FlipKind_FLIP_KIND_SETTING_ON)
		}
	}
	l.teams[group.id] = group
	set, _ := l.access(u).grants(l.now)
	return set.Has(b)
}

// switchSetting switches the user's own boolean setting.
func switchSetting(u *pb.UserAccess, b catalog.Bit, on bool) {
	if u.Settings == nil {
		u.Settings = &pb.UserSettings{}
	}
	m := u.GetSettings().ProtoReflect()
	field := m.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(settingOf(b)))
	m.Set(field, protoreflect.ValueOfBool(on))
}
