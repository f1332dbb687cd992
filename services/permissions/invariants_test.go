package permissions

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

// soundAccess is an organization with an owner, somebody in a group, and somebody whose role the brand
// has deleted.
func soundAccess(tx *store.Tx) error {
	now := timestamppb.New(tx.Now())
	err := errors.Join(
		plans.Put(tx, &pb.Plan{Id: tx.Tenant(), FirstOwnerId: "olga"}),
		roles.Put(tx, &pb.Role{Id: "own", Name: "Own"}),
		roles.Put(tx, &pb.Role{Id: "spare", Name: "Spare"}),
		roles.Put(tx, &pb.Role{Id: "brand's", Name: "Brand's", BrandId: "b", DeleteTime: now, PurgeTime: now}),
		groups.Put(tx, &pb.Group{Id: "g", Name: "G", RoleId: "own", Denies: []string{"Web"}, DenyAuthors: map[string]string{"Web": "olga"}}),
		groups.Put(tx, &pb.Group{Id: "gone", Name: "Gone", RoleId: "purged", DeleteTime: now, PurgeTime: now}),
	)
	for _, u := range []*pb.UserAccess{
		{Id: "olga", RoleId: ownerRole}, {Id: "ann", GroupId: "g", RoleId: "spare"}, {Id: "bob", RoleId: "brand's"}, {Id: "cat"},
	} {
		err = errors.Join(err, accesses.Put(tx, u))
	}
	return err
}

// TestInvariants damages one record for each of them.
func TestInvariants(t *testing.T) {
	user := func(id string, change func(*pb.UserAccess)) servertest.Damage {
		return servertest.Changed(accesses, id, change)
	}
	deleted := func(r *pb.Role) { r.DeleteTime, r.PurgeTime = timestamppb.Now(), timestamppb.Now() }
	servertest.FindsDamage(t, schema, soundAccess, map[string][]servertest.Damage{
		"plan/owner": {
			servertest.Removed(accesses, "olga"),
			user("olga", func(u *pb.UserAccess) { u.RoleId = "OA" }),
			user("olga", func(u *pb.UserAccess) {
				u.Overrides = []*pb.Override{{Key: ownerKey.String(), Effect: pb.Effect_EFFECT_DENY}}
			}),
		},
		"user_access/role_id": {
			servertest.Removed(roles, "spare"),
			servertest.Changed(roles, "spare", deleted),
			user("cat", func(u *pb.UserAccess) { u.RoleId = "never" }),
		},
		"user_access/group_id": {
			servertest.Removed(groups, "g"),
			user("cat", func(u *pb.UserAccess) { u.GroupId = "gone" }),
		},
		"group/role_id": {servertest.Removed(roles, "own"), servertest.Changed(roles, "own", deleted)},
		"group/denies": {
			servertest.Changed(groups, "g", func(g *pb.Group) { g.DenyAuthors = nil }),
			servertest.Changed(groups, "g", func(g *pb.Group) { g.Grants = g.GetDenies() }),
		},
		"group/purge_time": {servertest.Changed(groups, "gone", func(g *pb.Group) { g.PurgeTime = nil })},
		"role/purge_time":  {servertest.Changed(roles, "brand's", func(r *pb.Role) { r.PurgeTime = nil })},
	})
}

// TestBrandsRoleIsGone has a role of the brand purged that somebody had while the organization was
// elsewhere: nothing is wrong with that.
func TestBrandsRoleIsGone(t *testing.T) {
	s := servertest.OpenStore(t, schema)
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: "acme"})
	for _, step := range []servertest.Damage{soundAccess, servertest.Removed(roles, "brand's")} {
		if err := s.Update(ctx, step); err != nil {
			t.Fatal(err)
		}
		servertest.Verify(t, s)
	}
}
