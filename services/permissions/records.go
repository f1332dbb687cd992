package permissions

import (
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	permissionsstorepb "latchkey.dev/gen/go/latchkey/permissions/store/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// The collections of an organization.
var (
	accesses = store.NewCollection("user_access", (*pb.UserAccess).GetId)
	roles    = store.NewCollection("role", (*pb.Role).GetId)
	groups   = store.NewCollection("group", (*pb.Group).GetId)
	plans    = store.NewCollection("plan", (*pb.Plan).GetId)
	// roleHolds are of edits of the brand's roles that go on.
	roleHolds = store.NewCollection("role_hold", (*permissionsstorepb.RoleHold).GetId)
)

// The collections of a brand, beside its roles, which are of the collection above.
var (
	brandMembers = store.NewCollection("brand_member", (*permissionsstorepb.BrandMember).GetId)
	roleEdits    = store.NewCollection("role_edit", (*permissionsstorepb.RoleEdit).GetId)
)

// Who has a role, is in a group, has an override of a key.
var (
	accessByRole = accesses.Index("role", func(a *pb.UserAccess) store.Key { return unlessEmpty(a.GetRoleId()) })

	accessByGroup = accesses.Index("group", func(a *pb.UserAccess) store.Key { return unlessEmpty(a.GetGroupId()) })

	accessByOverride = accesses.MultiIndex("override", func(a *pb.UserAccess) (keys []store.Key) {
		for _, o := range a.GetOverrides() {
			keys = append(keys, store.Key{o.GetKey()})
		}
		return keys
	})
)

// Roles and groups by name, the deleted ones apart, and by the time to purge them. A
// name is taken only by those that are not deleted.
var (
	roleByName = roles.Index("by_name", func(r *pb.Role) store.Key {
		return store.Key{r.GetDeleteTime() != nil, foldName(r.GetName())}
	})
	_ = roles.Unique("name", func(r *pb.Role) store.Key {
		name := nameUnlessDeleted(r.GetName(), r.GetDeleteTime())
		if name != nil && r.GetBrandId() != "" {
			name = append(name, r.GetBrandId()) // in no organization's way
		}
		return name
	})
	roleByPurge = roles.Index("purge", func(r *pb.Role) store.Key { return purgeKey(r.GetPurgeTime()) })

	groupByName = groups.Index("by_name", func(g *pb.Group) store.Key {
		return store.Key{g.GetDeleteTime() != nil, foldName(g.GetName())}
	})
	_ = groups.Unique("name", func(g *pb.Group) store.Key {
		return nameUnlessDeleted(g.GetName(), g.GetDeleteTime())
	})
	groupByPurge = groups.Index("purge", func(g *pb.Group) store.Key { return purgeKey(g.GetPurgeTime()) })

	// groupByRole holds the groups that are not deleted.
	groupByRole = groups.Index("role", func(g *pb.Group) store.Key {
		if g.GetDeleteTime() != nil {
			return nil
		}
		return store.Key{g.GetRoleId()}
	})
)

var schema = store.NewSchema(accesses, roles, groups, plans, roleHolds, brandMembers, roleEdits).PerOrganization()

func unlessEmpty(id string) store.Key {
	if id == "" {
		return nil
	}
	return store.Key{id}
}

func nameUnlessDeleted(name string, deleted *timestamppb.Timestamp) store.Key {
	if deleted != nil {
		return nil
	}
	return store.Key{foldName(name)}
}

func purgeKey(at *timestamppb.Timestamp) store.Key {
	if at == nil {
		return nil
	}
	return store.Key{at.AsTime()}
}

// foldName makes names equal that differ in case and in blanks around them.
func foldName(name string) string { return strings.ToLower(strings.TrimSpace(name)) }
