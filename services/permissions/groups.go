package permissions

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// CreateGroup creates a group. Nobody is in it yet, so nobody's access changes.
func (s *service) CreateGroup(ctx context.Context, req *pb.CreateGroupRequest) (*pb.CreateGroupResponse, error) {
	g := &pb.Group{
		Id: s.newID(), Name: strings.TrimSpace(req.GetName()), Description: req.GetDescription(),
		RoleId: req.GetRoleId(), Settings: req.GetSettings(), ChangeReason: req.GetReason(),
	}
	if err := spell(g, "", req.GetGrants(), req.GetDenies()); err != nil {
		return nil, err
	}
	if err := s.mustHaveMember(ctx, req.GetSettings().GetInvoiceApprover()); err != nil {
		return nil, err
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreateGroupResponse, error) {
		return &pb.CreateGroupResponse{Group: g}, newLoader(tx).createGroup(granterOf(ctx), g)
	})
}

func (l *loader) createGroup(by granter, g *pb.Group) error {
	if err := l.checkGroup(l.delegation(by), &pb.Group{}, g); err != nil {
		return err
	}
	return groups.Put(l.tx, g)
}

// spell gives a group the keys that a person typed, as the catalog spells them.
func spell(g *pb.Group, prefix string, grants, denies []string) error {
	granted, err := findKeys(prefix+"grants", grants)
	if err != nil {
		return err
	}
	denied, err := findKeys(prefix+"denies", denies)
	if err != nil {
		return err
	}
	g.Grants, g.Denies = keyNames(granted), keyNames(denied)
	return nil
}

// checkGroup checks that the caller may make a group what it is now, and notes who put
// each deny. What it means to those in it is checked apart.
func (l *loader) checkGroup(by *delegation, old, g *pb.Group) error {
	if g.GetName() == "" {
		return fault.Invalid("group.name", "must not be blank")
	}
	role := l.role(g.GetRoleId())
	if role.id == "" {
		return fault.NotFound("role", g.GetRoleId())
	}
	if err := l.notHeld(role, l.role(old.GetRoleId())); err != nil {
		return err
	}
	grants, denies := keySet(g.GetGrants()), keySet(g.GetDenies())
	for b := range grants.Without(grants.Without(denies)).All() {
		return fault.Invalid("group.denies", "must not hold %q, which the group grants", b)
	}
	granted, denied := grants.Without(keySet(old.GetGrants())), denies.Without(keySet(old.GetDenies()))
	if err := by.names(granted.Union(denied)); err != nil {
		return err
	}
	for b := range keySet(old.GetDenies()).Without(denies).All() {
		if err := by.mayLift(b, old.GetDenyAuthors()[b.String()]); err != nil {
			return err
		}
	}
	g.DenyAuthors = authorsOf(denies, old.GetDenyAuthors(), by.caller)
	return nil
}

// authorsOf returns who put each deny: whoever did before, else the caller.
func authorsOf(denies catalog.Set, before map[string]string, caller string) map[string]string {
	authors := map[string]string{}
	for b := range denies.All() {
		authors[b.String()] = caller
		if author, ok := before[b.String()]; ok {
			authors[b.String()] = author
		}
	}
	return authors
}

// GetGroup gets a group.
func (s *service) GetGroup(ctx context.Context, req *pb.GetGroupRequest) (*pb.GetGroupResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetGroupResponse, error) {
		g, err := findGroup(tx, req.GetId(), "")
		return &pb.GetGroupResponse{Group: g}, err
	})
}

func findGroup(tx *store.Tx, id, etag string) (*pb.Group, error) {
	g, ok := groups.Get(tx, id)
	if !ok {
		return nil, fault.NotFound("group", id)
	}
	return g, groups.Match(g, etag)
}

// ListGroups lists groups by name.
func (s *service) ListGroups(ctx context.Context, req *pb.ListGroupsRequest) (*pb.ListGroupsResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListGroupsResponse, error) {
		list, next, err := store.Page(tx, req, nil, groupByName.Range(req.GetDeleted()))
		return &pb.ListGroupsResponse{Groups: list, NextPageToken: next}, err
	})
}

// UpdateGroup changes the masked fields of a group.
func (s *service) UpdateGroup(ctx context.Context, req *pb.UpdateGroupRequest) (*pb.UpdateGroupResponse, error) {
	wanted := proto.CloneOf(req.GetGroup())
	wanted.ChangeReason = req.GetReason()
	if err := spell(wanted, "group.", wanted.GetGrants(), wanted.GetDenies()); err != nil {
		return nil, err
	}
	active, err := s.ownersAnd(ctx, wanted.GetSettings().GetInvoiceApprover())
	if err != nil {
		return nil, err
	}
	return change(ctx, s, organizationTag(ctx), req, func(tx *store.Tx) (*pb.UpdateGroupResponse, error) {
		g, err := newLoader(tx).updateGroup(granterOf(ctx), wanted, req.GetUpdateMask(), active)
		return &pb.UpdateGroupResponse{Group: g}, err
	})
}

func (l *loader) updateGroup(who granter, wanted *pb.Group, m *fieldmaskpb.FieldMask, active map[string]bool) (*pb.Group, error) {
	old, err := findGroup(l.tx, wanted.GetId(), wanted.GetEtag())
	if err != nil {
		return nil, err
	}
	if old.GetDeleteTime() != nil {
		return nil, fault.Refused("the group is deleted: bring it back first")
	}
	g := proto.CloneOf(old)
	if err := mask.Apply(g, wanted, m, "name", "description", "role_id", "grants", "denies", "settings"); err != nil {
		return nil, err
	}
	g.Name, g.ChangeReason = strings.TrimSpace(g.GetName()), wanted.GetChangeReason()
	by := l.delegation(who)
	if err := l.checkGroup(by, old, g); err != nil {
		return nil, err
	}
	if err := l.editShared(by, l.withGroup(g), active, l.inGroup(g.GetId())); err != nil {
		return nil, err
	}
	return g, groups.Put(l.tx, g)
}

// DeleteGroup deletes a group that nobody is in.
func (s *service) DeleteGroup(ctx context.Context, req *pb.DeleteGroupRequest) (*pb.DeleteGroupResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.DeleteGroupResponse, error) {
		g, err := newLoader(tx).deleteGroup(req.GetId(), req.GetEtag())
		return &pb.DeleteGroupResponse{Group: g}, err
	})
}

func (l *loader) deleteGroup(id, etag string) (*pb.Group, error) {
	g, err := findGroup(l.tx, id, etag)
	if err != nil || g.GetDeleteTime() != nil {
		return g, err
	}
	if u, ok := accessByGroup.First(l.tx, id); ok {
		return nil, fault.Refused("user %s and maybe others are in the group: take them out first", u.GetId())
	}
	g.DeleteTime = timestamppb.New(l.now)
	g.PurgeTime = timestamppb.New(l.now.Add(purgeAfter))
	return g, groups.Put(l.tx, g)
}

// UndeleteGroup brings a deleted group back.
func (s *service) UndeleteGroup(ctx context.Context, req *pb.UndeleteGroupRequest) (*pb.UndeleteGroupResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UndeleteGroupResponse, error) {
		g, err := newLoader(tx).undeleteGroup(req.GetId(), req.GetEtag())
		return &pb.UndeleteGroupResponse{Group: g}, err
	})
}

func (l *loader) undeleteGroup(id, etag string) (*pb.Group, error) {
	g, err := findGroup(l.tx, id, etag)
	if err != nil || g.GetDeleteTime() == nil {
		return g, err
	}
	if !l.now.Before(g.GetPurgeTime().AsTime()) {
		return nil, fault.NotFound("group", id)
	}
	role := l.role(g.GetRoleId())
	if err := l.notHeld(role); err != nil {
		return nil, err
	}
	if role.id == "" {
		return nil, fault.Refused("the role of the group is gone: bring role %s back first", g.GetRoleId())
	}
	g.DeleteTime, g.PurgeTime = nil, nil
	return g, groups.Put(l.tx, g)
}
