package permissions

import (
	"slices"
	"time"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/store"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// loader compiles the records of one transaction. Roles and groups are compiled
// once; what is put into its maps takes the place of the record.
type loader struct {
	tx    *store.Tx
	now   time.Time
	roles map[string]baseline
	teams map[string]team
	plan  catalog.Set
	past  int64 // the revision whose records it compiles; 0 for those of the transaction
}

func newLoader(tx *store.Tx) *loader {
	l := &loader{tx: tx, now: tx.Now()}
	l.loadPlan()
	return l
}

func (l *loader) loadPlan() {
	if p, ok := find(l, plans, l.tx.Tenant()); ok {
		l.plan = featuresOf(p.GetFeatures())
	}
}

// with returns a loader of the same transaction in which a role is as given.
func (l *loader) with(b baseline) *loader {
	return &loader{tx: l.tx, now: l.now, plan: l.plan, roles: map[string]baseline{b.id: b}}
}

// withGroup returns a loader of the same transaction in which a group is as given.
func (l *loader) withGroup(g *pb.Group) *loader {
	t := compileGroup(g, l.role(g.GetRoleId()))
	return &loader{tx: l.tx, now: l.now, plan: l.plan, teams: map[string]team{t.id: t}}
}

// user returns a user's record, an empty one if there is none.
func (l *loader) user(id string) *pb.UserAccess {
	if a, ok := find(l, accesses, id); ok {
		return a
	}
	return &pb.UserAccess{Id: id}
}

// access compiles a user's access.
func (l *loader) access(u *pb.UserAccess) *access {
	a := &access{own: compileSettings(u.GetSettings()), agent: u.GetServiceAgentId() != "", plan: l.plan}
	if u.GetGroupId() != "" {
		a.group = l.team(u.GetGroupId())
	}
	if a.group.id != "" {
		a.role = a.group.role
	} else {
		a.role = l.role(u.GetRoleId())
	}
	a.regional = u.GetRegionalManager() && takesRegional(a.role.id)
	a.overrides = compileOverrides(u.GetOverrides())
	return a
}

// takesRegional reports whether being a regional manager adds to a role.
func takesRegional(role string) bool { return role == "PM" || role == "PM+" }

func compileOverrides(list []*pb.Override) []override {
	if len(list) == 0 {
		return nil
	}
	compiled := make([]override, 0, len(list))
	for _, o := range list {
		b, ok := catalog.Grant(o.GetKey())
		if !ok {
			continue // a key of another version of the catalog
		}
		c := override{bit: b, deny: o.GetEffect() != pb.Effect_EFFECT_GRANT, author: o.GetSetBy()}
		if o.ExpireTime != nil {
			c.until = o.ExpireTime.AsTime()
		}
		compiled = append(compiled, c)
	}
	return compiled
}

// role returns a role, or the zero baseline if there is none.
func (l *loader) role(id string) baseline {
	if b, ok := l.roles[id]; ok {
		return b
	}
	if b, ok := builtIn[id]; ok {
		return b
	}
	if id == "" {
		return baseline{}
	}
	var b baseline
	if r, ok := find(l, roles, id); ok && r.GetDeleteTime() == nil {
		b = compileRole(r)
	}
	if l.roles == nil {
		l.roles = map[string]baseline{}
	}
	l.roles[id] = b
	return b
}

func compileRole(r *pb.Role) baseline {
	return baseline{id: r.GetId(), brand: r.GetBrandId() != "", keys: keySet(r.GetKeys()), settings: compileSettings(r.GetSettings())}
}

// team returns a group, or the zero team if there is none.
func (l *loader) team(id string) team {
	if t, ok := l.teams[id]; ok {
		return t
	}
	var t team
	if g, ok := find(l, groups, id); ok && g.GetDeleteTime() == nil {
		t = compileGroup(g, l.role(g.GetRoleId()))
	}
	if l.teams == nil {
		l.teams = map[string]team{}
	}
	l.teams[id] = t
	return t
}

func compileGroup(g *pb.Group, role baseline) team {
	return team{
		id: g.GetId(), role: role, settings: compileSettings(g.GetSettings()),
		grants: keySet(g.GetGrants()), denies: keySet(g.GetDenies()), authors: g.GetDenyAuthors(),
	}
}

// keySet returns the set of stored keys. Names that the catalog lacks are left out:
// another version of it had them.
func keySet(names []string) catalog.Set {
	var set catalog.Set
	for _, name := range names {
		if b, ok := catalog.Grant(name); ok {
			set.Add(b)
		}
	}
	return set.OnlyKeys()
}

// keyNames returns the names of the keys of a set, in the order of the catalog.
func keyNames(set catalog.Set) []string {
	var names []string
	for b := range set.All() {
		names = append(names, b.String())
	}
	return names
}

func featuresOf(names []string) catalog.Set {
	var set catalog.Set
	for _, f := range catalog.Features() {
		if slices.Contains(names, f.Name) {
			set.Add(f.Bit())
		}
	}
	return set
}
