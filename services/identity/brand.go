package identity

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
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
		if err := mask.Apply(b, req.GetBrand(), req.GetUpdateMask(), "name"); err != nil {
			return nil, err
		}
		if err := checkName("brand.name", b.GetName()); err != nil {
			return nil, err
		}
		return &pb.UpdateBrandResponse{Brand: b}, brands.Put(tx, b)
	})
}
