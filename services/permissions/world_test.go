package permissions

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

// noon is the instant that worlds are judged at.
var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// loader compiles a world without a store.
func (w *world) loader(at time.Time) *loader {
	l := &loader{now: at, roles: map[string]baseline{}, teams: map[string]team{}, plan: featuresOf(w.plan.GetFeatures())}
	for id, r := range w.roles {
		if !r.GetBuiltIn() && r.GetDeleteTime() == nil {
			l.roles[id] = compileRole(r)
		}
	}
	for _, id := range w.named() {
		if _, ok := l.roles[id]; !ok && builtIn[id].id == "" {
			l.roles[id] = baseline{}
		}
	}
	for id, g := range w.groups {
		if g.GetDeleteTime() == nil {
			l.teams[id] = compileGroup(g, l.role(g.GetRoleId()))
		}
	}
	for _, u := range w.users {
		if _, ok := l.teams[u.GetGroupId()]; !ok {
			l.teams[u.GetGroupId()] = team{}
		}
	}
	return l
}

// named returns the roles that are named somewhere, be they there or not.
func (w *world) named() (ids []string) {
	for _, u := range w.users {
		ids = append(ids, u.GetRoleId())
	}
	for _, g := range w.groups {
		ids = append(ids, g.GetRoleId())
	}
	return ids
}

// access compiles what a world says about a user.
func (w *world) access(user string) *access { return w.loader(noon).access(w.users[user]) }

func emptyWorld() *world {
	w := &world{users: map[string]*pb.UserAccess{}, roles: map[string]*pb.Role{}, groups: map[string]*pb.Group{}, plan: &pb.Plan{}}
	for _, r := range fixedRoles {
		w.roles[r.GetId()] = r
	}
	return w
}

var fixedRoles = builtInRoles()

// drawWorld draws an organization of a few users, in which the layers meet often: all
// of them draw from the same few keys.
func drawWorld(t *rapid.T) *world {
	w := emptyWorld()
	keys := drawKeys(t)
	for i := range rapid.IntRange(0, 2).Draw(t, "roles") {
		r := &pb.Role{Id: fmt.Sprint("role", i), BrandId: []string{"", "brand"}[i%2], Keys: some(t, keys), Settings: drawSettings(t)}
		w.roles[r.GetId()] = r
	}
	roleIDs := sorted(w.roles)
	for i := range rapid.IntRange(0, 3).Draw(t, "groups") {
		g := &pb.Group{
			Id: fmt.Sprint("group", i), RoleId: rapid.SampledFrom(roleIDs).Draw(t, "group's role"),
			Grants: some(t, keys), Denies: some(t, keys), Settings: drawSettings(t),
		}
		w.groups[g.GetId()] = g
	}
	w.plan.Features = some(t, featureNames())
	for i := range rapid.IntRange(1, 4).Draw(t, "users") {
		u := &pb.UserAccess{
			Id:              fmt.Sprint("user", i),
			RoleId:          rapid.SampledFrom(append(roleIDs, "")).Draw(t, "role"),
			GroupId:         rapid.SampledFrom(append(sorted(w.groups), "")).Draw(t, "group"),
			RegionalManager: rapid.Bool().Draw(t, "regional"), Settings: drawSettings(t),
			ServiceAgentId: rapid.SampledFrom([]string{"", "agent"}).Draw(t, "agent"),
		}
		for range rapid.IntRange(0, 6).Draw(t, "overrides") {
			u.Overrides = append(u.Overrides, drawOverride(t, keys))
		}
		w.users[u.GetId()] = u
	}
	return w
}

// drawKeys draws up to twelve keys, with all that they require.
func drawKeys(t *rapid.T) []string {
	var set catalog.Set
	for range rapid.IntRange(1, 6).Draw(t, "keys") {
		b := rapid.SampledFrom(allKeys).Draw(t, "key").Bit()
		set.Add(b)
		set = set.Union(catalog.Needs(b).OnlyKeys())
	}
	set.Add(web)
	set.Add(catalog.MustGrant("App"))
	return keyNames(set)
}

func drawOverride(t *rapid.T, keys []string) *pb.Override {
	o := &pb.Override{
		Key:    rapid.SampledFrom(keys).Draw(t, "override"),
		Effect: rapid.SampledFrom([]pb.Effect{pb.Effect_EFFECT_GRANT, pb.Effect_EFFECT_DENY}).Draw(t, "effect"),
		SetBy:  "somebody",
	}
	if rapid.Bool().Draw(t, "ends") {
		o.ExpireTime = timestamppb.New(noon.Add(time.Duration(rapid.IntRange(-1, 3).Draw(t, "end")) * time.Hour))
	}
	return o
}

func drawSettings(t *rapid.T) *pb.UserSettings {
	s := &pb.UserSettings{}
	m := s.ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); rapid.IntRange(0, 3).Draw(t, string(fd.Name())) == 0 {
			switch {
			case boolSettings.has(int(fd.Number())):
				v := m.NewField(fd)
				m.Set(fd, v)
				if rapid.Bool().Draw(t, "on") {
					m.Set(fd, protoTrue)
				}
			case fd.Number() == searchScope:
				s.SearchScope = search(pb.SearchScope(rapid.Int32Range(1, 3).Draw(t, "scope")))
			case fd.Number() == proposalScope:
				s.ProposalScope = proposals(pb.ProposalScope(rapid.Int32Range(1, 2).Draw(t, "scope")))
			case fd.Number() == invoiceApprover:
				approver := rapid.SampledFrom([]string{"", "boss"}).Draw(t, "approver")
				s.InvoiceApprover = &approver
			case fd.Number() == futureVisibility:
				days := rapid.Int32Range(0, 3).Draw(t, "days")
				s.FutureVisibility = &days
			default:
				s.LoginRestrictions = &pb.LoginRestrictions{BeforeMinutes: rapid.Int32Range(0, 2).Draw(t, "minutes")}
			}
		}
	}
	return s
}

func some(t *rapid.T, from []string) []string {
	return rapid.SliceOfN(rapid.SampledFrom(from), 0, 6).Draw(t, "some")
}

func featureNames() (names []string) {
	for _, f := range catalog.Features() {
		names = append(names, f.Name)
	}
	return names
}

func sorted[T any](m map[string]T) (ids []string) {
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
