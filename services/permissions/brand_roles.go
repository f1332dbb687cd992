package permissions

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// CreateBrandRole creates a role in every organization of the caller's brand. Nobody has
// it yet, so nobody's access changes.
func (s *service) CreateBrandRole(ctx context.Context, req *pb.CreateBrandRoleRequest) (*pb.CreateBrandRoleResponse, error) {
	e, err := s.createOfBrand(ctx, granterOf(ctx), req)
	if err != nil {
		return nil, err
	}
	return makeBrandEdit(ctx, e, req, func(r *pb.Role) *pb.CreateBrandRoleResponse { return &pb.CreateBrandRoleResponse{Role: r} })
}

func (s *service) createOfBrand(ctx context.Context, by granter, req *pb.CreateBrandRoleRequest) (*brandEdit, error) {
	keys, err := findKeys("keys", req.GetKeys())
	if err != nil {
		return nil, err
	}
	if err := nobodysApprover("settings", req.GetSettings()); err != nil {
		return nil, err
	}
	e, err := s.newBrandEdit(ctx, by, s.newID())
	if err != nil {
		return nil, err
	}
	r := &pb.Role{
		Id: e.role, BrandId: e.brand, Name: strings.TrimSpace(req.GetName()), Description: req.GetDescription(),
		Keys: keyNames(keys), Settings: req.GetSettings(), ChangeReason: req.GetReason(),
	}
	e.change = func(*store.Tx) (*pb.Role, error) {
		if err := checkRoleName("name", r.GetName()); err != nil {
			return nil, err
		}
		return proto.CloneOf(r), e.own.names(keys)
	}
	return e, nil
}

// nobodysApprover returns nil if the settings of a brand's role name no invoice approver.
func nobodysApprover(field string, s *pb.UserSettings) error {
	if s.GetInvoiceApprover() != "" {
		return fault.Invalid(field+".invoice_approver", "must not be set in a role of the brand: he would be a member of one organization")
	}
	return nil
}

// GetBrandRole gets a role of the caller's brand.
func (s *service) GetBrandRole(ctx context.Context, req *pb.GetBrandRoleRequest) (*pb.GetBrandRoleResponse, error) {
	brand, err := s.brandOf(ctx)
	if err != nil {
		return nil, err
	}
	return store.Read(inBrand(ctx, brand), s.db, func(tx *store.Tx) (*pb.GetBrandRoleResponse, error) {
		r, err := brandRole(tx, req.GetId(), "")
		return &pb.GetBrandRoleResponse{Role: r}, err
	})
}

// brandRole returns a role out of the brand's own records.
func brandRole(tx *store.Tx, id, etag string) (*pb.Role, error) {
	r, ok := roles.Get(tx, id)
	if !ok {
		return nil, fault.NotFound("role", id)
	}
	return r, roles.Match(r, etag)
}

// ListBrandRoles lists the roles of the caller's brand by name.
func (s *service) ListBrandRoles(ctx context.Context, req *pb.ListBrandRolesRequest) (*pb.ListBrandRolesResponse, error) {
	brand, err := s.brandOf(ctx)
	if err != nil {
		return nil, err
	}
	return store.Read(inBrand(ctx, brand), s.db, func(tx *store.Tx) (*pb.ListBrandRolesResponse, error) {
		list, next, err := store.Page(tx, req, nil, roleByName.Range(req.GetDeleted()))
		return &pb.ListBrandRolesResponse{Roles: list, NextPageToken: next}, err
	})
}

// UpdateBrandRole changes the masked fields of a role in every organization.
func (s *service) UpdateBrandRole(ctx context.Context, req *pb.UpdateBrandRoleRequest) (*pb.UpdateBrandRoleResponse, error) {
	e, err := s.updateOfBrand(ctx, granterOf(ctx), "", req)
	if err != nil {
		return nil, err
	}
	return makeBrandEdit(ctx, e, req, func(r *pb.Role) *pb.UpdateBrandRoleResponse { return &pb.UpdateBrandRoleResponse{Role: r} })
}

// updateOfBrand returns the edit that an update is. Prefix is where the request stands in
// another.
func (s *service) updateOfBrand(ctx context.Context, by granter, prefix string, req *pb.UpdateBrandRoleRequest) (*brandEdit, error) {
	wanted := proto.CloneOf(req.GetRole())
	keys, err := findKeys(prefix+"role.keys", wanted.GetKeys())
	if err != nil {
		return nil, err
	}
	wanted.Keys = keyNames(keys)
	if err := nobodysApprover(prefix+"role.settings", wanted.GetSettings()); err != nil {
		return nil, err
	}
	e, err := s.newBrandEdit(ctx, by, wanted.GetId())
	if err != nil {
		return nil, err
	}
	e.change = func(tx *store.Tx) (*pb.Role, error) {
		old, err := brandRole(tx, wanted.GetId(), wanted.GetEtag())
		if err != nil {
			return nil, err
		}
		if old.GetDeleteTime() != nil {
			return nil, fault.Refused("the role is deleted: bring it back first")
		}
		r := proto.CloneOf(old)
		if err := mask.Apply(r, wanted, req.GetUpdateMask(), "name", "description", "keys", "settings"); err != nil {
			return nil, err
		}
		r.Name, r.ChangeReason = strings.TrimSpace(r.GetName()), req.GetReason()
		if err := checkRoleName("role.name", r.GetName()); err != nil {
			return nil, err
		}
		return r, e.own.names(keySet(r.GetKeys()).Without(keySet(old.GetKeys())))
	}
	e.check = func(l *loader, r *pb.Role) error {
		return l.editShared(e.delegationIn(l), l.with(compileRole(r)), nil, l.roleHolders(r.GetId())...)
	}
	return e, nil
}

// DeleteBrandRole deletes a role that nobody has in any organization.
func (s *service) DeleteBrandRole(ctx context.Context, req *pb.DeleteBrandRoleRequest) (*pb.DeleteBrandRoleResponse, error) {
	e, err := s.deleteOfBrand(ctx, granterOf(ctx), req)
	if err != nil {
		return nil, err
	}
	return makeBrandEdit(ctx, e, req, func(r *pb.Role) *pb.DeleteBrandRoleResponse { return &pb.DeleteBrandRoleResponse{Role: r} })
}

func (s *service) deleteOfBrand(ctx context.Context, by granter, req *pb.DeleteBrandRoleRequest) (*brandEdit, error) {
	e, err := s.newBrandEdit(ctx, by, req.GetId())
	if err != nil {
		return nil, err
	}
	e.change = func(tx *store.Tx) (*pb.Role, error) {
		r, err := brandRole(tx, req.GetId(), req.GetEtag())
		if err == nil && r.GetDeleteTime() == nil {
			r.DeleteTime, r.PurgeTime = timestamppb.New(tx.Now()), timestamppb.New(tx.Now().Add(purgeAfter))
		}
		return r, err
	}
	e.check = func(l *loader, r *pb.Role) error { return l.unused(r.GetId(), "in organization "+l.tx.Tenant()+" ") }
	return e, nil
}

// UndeleteBrandRole brings a deleted role back in every organization.
func (s *service) UndeleteBrandRole(ctx context.Context, req *pb.UndeleteBrandRoleRequest) (*pb.UndeleteBrandRoleResponse, error) {
	e, err := s.newBrandEdit(ctx, granterOf(ctx), req.GetId())
	if err != nil {
		return nil, err
	}
	e.change = func(tx *store.Tx) (*pb.Role, error) {
		r, err := brandRole(tx, req.GetId(), req.GetEtag())
		if err != nil {
			return nil, err
		}
		if r.GetDeleteTime() != nil && !tx.Now().Before(r.GetPurgeTime().AsTime()) {
			return nil, fault.NotFound("role", req.GetId())
		}
		r.DeleteTime, r.PurgeTime = nil, nil
		return r, nil
	}
	e.check = func(*loader, *pb.Role) error { return nil }
	return makeBrandEdit(ctx, e, req, func(r *pb.Role) *pb.UndeleteBrandRoleResponse { return &pb.UndeleteBrandRoleResponse{Role: r} })
}
