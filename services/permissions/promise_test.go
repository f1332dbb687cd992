package permissions_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// TestWhatHasReturnedIsEnforced gives and takes a key by each kind of change. The
// interceptor decides the call that follows by what it has cached, and must know.
func TestWhatHasReturnedIsEnforced(t *testing.T) {
	owner := start(t)
	without, with := []string{"Web", "Organization"}, []string{"Web", "Organization", "Organization: Users"}
	r := owner.role("Desk", without...)
	g := owner.group(&pb.CreateGroupRequest{Name: "Desk", RoleId: "US", Grants: without})
	uma, gus := owner.hire("uma", r.GetId()), owner.hire("gus", "US")
	owner.put(gus.id, g.GetId())
	changes := []struct {
		name       string
		user       *person
		give, take func() error
	}{
		{
			"override", uma,
			func() error { return owner.override(uma.id, "Organization: Users", pb.Effect_EFFECT_GRANT) },
			func() error {
				_, err := owner.access().ClearOverride(owner.ctx(), &pb.ClearOverrideRequest{UserId: uma.id, Key: "Organization: Users"})
				return err
			},
		},
		{"role", uma, func() error { return owner.setKeys(r, with) }, func() error { return owner.setKeys(r, without) }},
		{"group", gus, func() error { return owner.setGrants(g, with) }, func() error { return owner.setGrants(g, without) }},
		{
			"another role", uma,
			func() error {
				_, err := owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: uma.id, RoleId: "OA"})
				return err
			},
			func() error {
				_, err := owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: uma.id, RoleId: r.GetId()})
				return err
			},
		},
	}
	for _, c := range changes {
		for range 5 {
			mustNot(t, c.give())
			if err := c.user.listKeys(); err != nil {
				t.Fatalf("%s: given, and denied: %v", c.name, err)
			}
			mustNot(t, c.take())
			check(t, c.name+" taken", c.user.listKeys(), codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Users")
		}
	}
}

func (p *person) listKeys() error {
	_, err := p.access().ListAssignableKeys(p.ctx(), &pb.ListAssignableKeysRequest{})
	return err
}

func (p *person) setKeys(r *pb.Role, keys []string) error {
	_, err := p.roles().UpdateRole(p.ctx(), &pb.UpdateRoleRequest{Role: &pb.Role{Id: r.GetId(), Keys: keys}, UpdateMask: mask("keys")})
	return err
}

func (p *person) setGrants(g *pb.Group, keys []string) error {
	_, err := p.groups().UpdateGroup(p.ctx(), &pb.UpdateGroupRequest{Group: &pb.Group{Id: g.GetId(), Grants: keys}, UpdateMask: mask("grants")})
	return err
}

// BenchmarkCheck is a Check of one's own key over the wire, with the whole chain.
func BenchmarkCheck(b *testing.B) {
	owner := start(b)
	uma := owner.hire("uma", "US")
	ctx, req := uma.ctx(), &pb.CheckRequest{Grant: "Invoices:Edit"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := uma.access().Check(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
}
