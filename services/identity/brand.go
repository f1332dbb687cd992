package identity

import (
	"context"
	"fmt"
	"slices"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// GetBrand implements pb.BrandServiceServer.
func (s *service) GetBrand(ctx context.Context, _ *pb.GetBrandRequest) (*pb.GetBrandResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetBrandResponse, error) {
		b, err := brandOf(tx, authz.Caller(ctx).Organization)
		return &pb.GetBrandResponse{Brand: b}, err
	})
}

// brandOf finds the brand of an organization.
func brandOf(tx *store.Tx, organization string) (*pb.Brand, error) {
	o, err := own(tx, organization)
	if err != nil {
		return nil, err
	}
	b, ok := brands.Get(tx, o.GetBrandId())
	if !ok {
		return nil, fault.NotFound("brand", o.GetBrandId())
	}
	return b, nil
}

// LookupBrand implements pb.BrandServiceServer.
func (s *service) LookupBrand(ctx context.Context, req *pb.LookupBrandRequest) (*pb.LookupBrandResponse, error) {
	id := store.OriginOf(ctx).Tenant
	return read(ctx, s, func(tx *store.Tx) (*pb.LookupBrandResponse, error) {
		o, err := own(tx, id)
		if err != nil {
			return nil, err
		}
		there := func(o *pb.Organization) bool { return !purgeDue(tx, o) }
		page, next, err := store.Page(tx, req, there, organizationsByName.Range(o.GetBrandId()), closedByName.Range(o.GetBrandId()))
		resp := &pb.LookupBrandResponse{BrandId: o.GetBrandId(), NextPageToken: next}
		for _, o := range page {
			resp.OrganizationIds = append(resp.OrganizationIds, o.GetId())
		}
		return resp, err
	})
}

// UpdateBrand implements pb.BrandServiceServer.
func (s *service) UpdateBrand(ctx context.Context, req *pb.UpdateBrandRequest) (*pb.UpdateBrandResponse, error) {
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateBrandResponse, error) {
		b, err := brandOf(tx, authz.Caller(ctx).Organization)
		if err != nil {
			return nil, err
		}
		if id := req.GetBrand().GetId(); id != b.GetId() {
			return nil, fault.NotFound("brand", id)
		}
		if err := brands.Match(b, req.GetBrand().GetEtag()); err != nil {
			return nil, err
		}
		err = mask.Apply(b, req.GetBrand(), req.GetUpdateMask(), "name", "website", "logo_uri", "color", "second_factor_required", "allowance")
		if err != nil {
			return nil, err
		}
		if err := checkBrand(b); err != nil {
			return nil, err
		}
		return &pb.UpdateBrandResponse{Brand: b}, brands.Put(tx, b)
	})
}

// checkBrand says which field of a brand will not do.
func checkBrand(b *pb.Brand) error {
	if err := checkName("brand.name", b.GetName()); err != nil {
		return err
	}
	for i, name := range b.GetAllowance().GetLockedFields() {
		if !slices.Contains(organizationSettings, name) {
			return fault.Invalid(fmt.Sprintf("brand.allowance.locked_fields[%d]", i), "must be one of %q, and %q is not", organizationSettings, name)
		}
	}
	for i, name := range b.GetAllowance().GetFeatures() {
		if !slices.ContainsFunc(catalog.Features(), func(f catalog.Feature) bool { return f.Name == name }) {
			return fault.Invalid(fmt.Sprintf("brand.allowance.features[%d]", i), "must be an add-on feature of the catalog, and %q is none", name)
		}
	}
	return nil
}
