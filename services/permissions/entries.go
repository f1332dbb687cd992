package permissions

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// ofBrand is what a file has before the name of a role of the brand.
const ofBrand = "brand/"

// naming is how a file calls roles, groups and users, by their ids.
type naming struct {
	roles, groups map[string]string
	users         map[string]string // addresses; who is no member has none
}

// newNaming returns the names of the roles and groups that are not deleted.
func newNaming(l *loader) (*naming, error) {
	n := &naming{roles: map[string]string{}, groups: map[string]string{}, users: map[string]string{}}
	for r := range roleByName.Scan(l.tx, roleByName.Range(false)) {
		n.roles[r.GetId()] = r.GetName()
		if r.GetBrandId() != "" {
			n.roles[r.GetId()] = ofBrand + r.GetName()
		} else if checkRoleName("name", r.GetName()) != nil {
			return nil, fault.Refused("the role %s is called %q, which in a file would be another: rename it first", r.GetId(), r.GetName())
		}
	}
	for g := range groupByName.Scan(l.tx, groupByName.Range(false)) {
		n.groups[g.GetId()] = g.GetName()
	}
	return n, l.tx.Failed()
}

// isCode reports whether a name is the code of a built-in role, but for case.
func isCode(name string) bool {
	return slices.ContainsFunc(catalog.Roles(), func(r catalog.Role) bool { return foldName(r.Code) == foldName(name) })
}

// learn asks identity for the addresses of those users whose are not known.
func (n *naming) learn(ctx context.Context, s *service, ids []string) error {
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		_, known := n.users[id]
		return known || id == ""
	})
	for some := range slices.Chunk(ids, maxLookup) {
		found, err := s.lookUp(ctx, &identitypb.LookupMembersRequest{UserIds: some, IncludeDeactivated: true})
		if err != nil {
			return err
		}
		for _, id := range some {
			n.users[id] = ""
		}
		for _, m := range found {
			n.users[m.GetUserId()] = m.GetEmail()
		}
	}
	return nil
}

// user returns what a file calls a user: who is no member goes by his id.
func (n *naming) user(id string) string {
	if email := n.users[id]; email != "" {
		return email
	}
	return id
}

// role returns what a file calls a role. One that is gone counts for nothing.
func (n *naming) role(id string) string {
	if _, ok := builtIn[id]; ok {
		return id
	}
	return n.roles[id]
}

func (n *naming) roleEntry(r *pb.Role) *pb.RoleEntry {
	e := &pb.RoleEntry{Name: r.GetName(), Description: r.GetDescription(), Keys: keyNames(keySet(r.GetKeys()))}
	e.Settings, e.InvoiceApprover = n.settings(r.GetSettings())
	return e
}

func (n *naming) groupEntry(g *pb.Group) *pb.GroupEntry {
	e := &pb.GroupEntry{
		Name: g.GetName(), Description: g.GetDescription(), Role: n.role(g.GetRoleId()),
		Grants: keyNames(keySet(g.GetGrants())), Denies: keyNames(keySet(g.GetDenies())),
	}
	e.Settings, e.InvoiceApprover = n.settings(g.GetSettings())
	return e
}

// userEntry returns what counts of what is stored of a user.
func (n *naming) userEntry(l *loader, u *pb.UserAccess) *pb.UserEntry {
	e := &pb.UserEntry{
		User: n.user(u.GetId()), Role: n.role(u.GetRoleId()), RegionalManager: u.GetRegionalManager(),
		Group: n.groups[u.GetGroupId()],
	}
	for _, o := range l.liveOverrides(u) {
		entry := &pb.OverrideEntry{Key: o.GetKey(), Reason: o.GetReason(), ExpireTime: o.GetExpireTime()}
		if o.GetEffect() == pb.Effect_EFFECT_GRANT {
			e.Grants = append(e.Grants, entry)
		} else {
			e.Denies = append(e.Denies, entry)
		}
	}
	e.Settings, e.InvoiceApprover = n.settings(u.GetSettings())
	return e
}

// settings returns the settings of a layer without its approver, and the approver. That it
// is nobody in particular stays in the settings.
func (n *naming) settings(s *pb.UserSettings) (*pb.UserSettings, string) {
	s = orNone(s)
	id := s.GetInvoiceApprover()
	if id == "" {
		return s, ""
	}
	s = proto.CloneOf(s)
	s.InvoiceApprover = nil
	return orNone(s), n.user(id)
}

// orNone returns nil for settings that say nothing.
func orNone(s *pb.UserSettings) *pb.UserSettings {
	if s == nil || proto.Size(s) == 0 {
		return nil
	}
	return s
}

// liveOverrides returns the overrides that say something: their key exists, and they have
// not ended.
func (l *loader) liveOverrides(u *pb.UserAccess) []*pb.Override {
	return slices.DeleteFunc(slices.Clone(u.GetOverrides()), func(o *pb.Override) bool {
		_, known := catalog.Grant(o.GetKey())
		return !known || o.ExpireTime != nil && !o.GetExpireTime().AsTime().After(l.now)
	})
}

// holdsNothing reports whether nothing is stored of a user that a file would tell.
func (l *loader) holdsNothing(u *pb.UserAccess) bool {
	return u.GetRoleId() == "" && u.GetGroupId() == "" && orNone(u.GetSettings()) == nil && len(l.liveOverrides(u)) == 0
}

// lookUp asks identity for members.
func (s *service) lookUp(ctx context.Context, req *identitypb.LookupMembersRequest) ([]*identitypb.Member, error) {
	resp, err := s.users.LookupMembers(ctx, req)
	if err != nil {
		return nil, unavailable("identity", err)
	}
	return resp.GetMembers(), nil
}

// recordsAfter returns the range of what is stored of the users after one.
func recordsAfter(user string) store.Range[*pb.UserAccess] {
	r := accesses.Range()
	if user != "" {
		r = r.From(user + "\x00")
	}
	return r
}
