package permissions

import (
	"context"
	"iter"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// CreateRole creates a role. Nobody has it yet, so nobody's access changes.
func (s *service) CreateRole(ctx context.Context, req *pb.CreateRoleRequest) (*pb.CreateRoleResponse, error) {
	keys, err := findKeys("keys", req.GetKeys())
	if err != nil {
		return nil, err
	}
	if err := s.mustHaveMember(ctx, req.GetSettings().GetInvoiceApprover()); err != nil {
		return nil, err
	}
	r := &pb.Role{
		Id: s.newID(), Name: strings.TrimSpace(req.GetName()), Description: req.GetDescription(),
		Keys: keyNames(keys), Settings: req.GetSettings(), ChangeReason: req.GetReason(),
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreateRoleResponse, error) {
		return &pb.CreateRoleResponse{Role: r}, newLoader(tx).createRole(granterOf(ctx), r)
	})
}

func (l *loader) createRole(g granter, r *pb.Role) error {
	if err := checkRoleName("name", r.GetName()); err != nil {
		return err
	}
	if err := l.delegation(g).names(keySet(r.GetKeys())); err != nil {
		return err
	}
	return roles.Put(l.tx, r)
}

// checkRoleName returns nil if a role can be called so.
func checkRoleName(field, name string) error {
	switch {
	case name == "":
		return fault.Invalid(field, "must not be blank")
	case isCode(name):
		return fault.Invalid(field, "must not be the code of a built-in role, and %q is one", name)
	case strings.HasPrefix(foldName(name), ofBrand):
		return fault.Invalid(field, "must not begin with %q, by which files name the roles of the brand", ofBrand)
	}
	return nil
}

// GetRole gets a role, built-in, the organization's own or its brand's.
func (s *service) GetRole(ctx context.Context, req *pb.GetRoleRequest) (*pb.GetRoleResponse, error) {
	for _, r := range builtInRoles() {
		if r.GetId() == req.GetId() {
			return &pb.GetRoleResponse{Role: r}, nil
		}
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetRoleResponse, error) {
		r, ok := roles.Get(tx, req.GetId())
		if !ok {
			return nil, fault.NotFound("role", req.GetId())
		}
		return &pb.GetRoleResponse{Role: r}, nil
	})
}

// ListRoles lists the organization's own roles and its brand's by name, and the built-in ones.
func (s *service) ListRoles(ctx context.Context, req *pb.ListRolesRequest) (*pb.ListRolesResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListRolesResponse, error) {
		list, next, err := store.Page(tx, req, nil, roleByName.Range(req.GetDeleted()))
		if err != nil {
			return nil, err
		}
		resp := &pb.ListRolesResponse{Roles: list, NextPageToken: next}
		if req.GetPageToken() == "" && !req.GetDeleted() {
			resp.BuiltInRoles = builtInRoles()
		}
		return resp, nil
	})
}

// UpdateRole changes the masked fields of a role.
func (s *service) UpdateRole(ctx context.Context, req *pb.UpdateRoleRequest) (*pb.UpdateRoleResponse, error) {
	wanted := proto.CloneOf(req.GetRole())
	keys, err := findKeys("role.keys", wanted.GetKeys())
	if err != nil {
		return nil, err
	}
	wanted.Keys, wanted.ChangeReason = keyNames(keys), req.GetReason()
	active, err := s.ownersAnd(ctx, wanted.GetSettings().GetInvoiceApprover())
	if err != nil {
		return nil, err
	}
	return change(ctx, s, organizationTag(ctx), req, func(tx *store.Tx) (*pb.UpdateRoleResponse, error) {
		r, err := newLoader(tx).updateRole(granterOf(ctx), wanted, req.GetUpdateMask(), active)
		return &pb.UpdateRoleResponse{Role: r}, err
	})
}

func (l *loader) updateRole(g granter, wanted *pb.Role, m *fieldmaskpb.FieldMask, active map[string]bool) (*pb.Role, error) {
	old, err := ownRole(l.tx, wanted.GetId(), wanted.GetEtag())
	if err != nil {
		return nil, err
	}
	if old.GetDeleteTime() != nil {
		return nil, fault.Refused("the role is deleted: bring it back first")
	}
	r := proto.CloneOf(old)
	if err := mask.Apply(r, wanted, m, "name", "description", "keys", "settings"); err != nil {
		return nil, err
	}
	r.Name, r.ChangeReason = strings.TrimSpace(r.GetName()), wanted.GetChangeReason()
	if err := checkRoleName("role.name", r.GetName()); err != nil {
		return nil, err
	}
	by := l.delegation(g)
	if err := by.names(keySet(r.GetKeys()).Without(keySet(old.GetKeys()))); err != nil {
		return nil, err
	}
	if err := l.editShared(by, l.with(compileRole(r)), active, l.roleHolders(r.GetId())...); err != nil {
		return nil, err
	}
	return r, roles.Put(l.tx, r)
}

// roleHolders returns everybody whose role it is, or whose group's.
func (l *loader) roleHolders(role string) []iter.Seq[*pb.UserAccess] {
	holders := []iter.Seq[*pb.UserAccess]{l.withRole(role)}
	for g := range groupByRole.Scan(l.tx, groupByRole.Range(role)) {
		holders = append(holders, l.inGroup(g.GetId()))
	}
	return holders
}

// ownRole returns a role that the organization made itself.
func ownRole(tx *store.Tx, id, etag string) (*pb.Role, error) {
	if _, ok := builtIn[id]; ok {
		return nil, fault.Refused("the role %s is built-in and cannot change: make a role of your own", id)
	}
	r, ok := roles.Get(tx, id)
	if !ok {
		return nil, fault.NotFound("role", id)
	}
	if r.GetBrandId() != "" {
		return nil, fault.Refused("the role %q is the brand's, which changes it in all its organizations by UpdateBrandRole: make a role of your own", r.GetName())
	}
	return r, roles.Match(r, etag)
}

// DeleteRole deletes a role that nobody has.
func (s *service) DeleteRole(ctx context.Context, req *pb.DeleteRoleRequest) (*pb.DeleteRoleResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.DeleteRoleResponse, error) {
		r, err := newLoader(tx).deleteRole(req.GetId(), req.GetEtag())
		return &pb.DeleteRoleResponse{Role: r}, err
	})
}

func (l *loader) deleteRole(id, etag string) (*pb.Role, error) {
	r, err := ownRole(l.tx, id, etag)
	if err != nil || r.GetDeleteTime() != nil {
		return r, err
	}
	if err := l.unused(id, ""); err != nil {
		return nil, err
	}
	r.DeleteTime = timestamppb.New(l.now)
	r.PurgeTime = timestamppb.New(l.now.Add(purgeAfter))
	return r, roles.Put(l.tx, r)
}

// unused returns nil if nobody has a role. Where says in what organization, if it is another.
func (l *loader) unused(id, where string) error {
	if u, ok := accessByRole.First(l.tx, id); ok {
		return fault.Refused("%sthe role is that of user %s and maybe others: give them another first", where, u.GetId())
	}
	if g, ok := groupByRole.First(l.tx, id); ok {
		return fault.Refused("%sthe role is that of the group %q and maybe others: give them another first", where, g.GetName())
	}
	return nil
}

// UndeleteRole brings a deleted role back.
func (s *service) UndeleteRole(ctx context.Context, req *pb.UndeleteRoleRequest) (*pb.UndeleteRoleResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UndeleteRoleResponse, error) {
		r, err := newLoader(tx).undeleteRole(req.GetId(), req.GetEtag())
		return &pb.UndeleteRoleResponse{Role: r}, err
	})
}

func (l *loader) undeleteRole(id, etag string) (*pb.Role, error) {
	r, err := ownRole(l.tx, id, etag)
	if err != nil {
		return nil, err
	}
	if r.GetDeleteTime() != nil && !l.now.Before(r.GetPurgeTime().AsTime()) {
		return nil, fault.NotFound("role", id)
	}
	r.DeleteTime, r.PurgeTime = nil, nil
	return r, roles.Put(l.tx, r)
}
