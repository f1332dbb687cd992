package identity

import (
	"context"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const reopenPrefix = "lkb_"

// CloseBrand implements pb.BrandServiceServer.
func (s *service) CloseBrand(ctx context.Context, req *pb.CloseBrandRequest) (*pb.CloseBrandResponse, error) {
	caller := authz.Caller(ctx)
	secret, hash := token.New(reopenPrefix, s.random)
	var resp *pb.CloseBrandResponse
	closed := false // now, and not by a call that this one repeats
	end := func(ctx context.Context) (tags []string, err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.CloseBrandResponse, error) {
			if err := admit(tx, callerAsSubject(caller), pathClose); err != nil {
				return nil, err
			}
			b, err := brandOf(tx, caller.Organization)
			if err != nil {
				return nil, err
			}
			if tags = tagsOf(tx, b); req.GetId() != b.GetId() {
				return nil, fault.NotFound("brand", req.GetId())
			}
			closed = true
			return closeBrand(tx, b, req, tokenID(hash[:]))
		})
		return tags, err
	}
	if req.GetValidateOnly() {
		_, err := end(ctx)
		return resp, err
	}
	if err := s.shutOutAll(ctx, end); err != nil {
		return nil, err
	}
	if closed {
		resp.ReopenCode = secret
	}
	return resp, nil
}

// tagsOf are those of everybody who is in an organization of a brand.
func tagsOf(tx *store.Tx, b *pb.Brand) (tags []string) {
	for o := range organizationsByName.Scan(tx, organizationsByName.Range(b.GetId())) {
		tags = append(tags, organizationTag(o.GetId()))
	}
	return tags
}

func closeBrand(tx *store.Tx, b *pb.Brand, req *pb.CloseBrandRequest, reopening string) (*pb.CloseBrandResponse, error) {
	if req.GetName() != b.GetName() {
		return nil, fault.Invalid("name", "must be the name of the brand, to confirm that this one is meant")
	}
	if err := brands.Match(b, req.GetEtag()); err != nil {
		return nil, err
	}
	b.DeleteTime, b.PurgeTime = endNow(tx)
	if err := reopenings.Put(tx, &identitystorepb.Reopening{Id: reopening, BrandId: b.GetId()}); err != nil {
		return nil, err
	}
	return &pb.CloseBrandResponse{Brand: b}, brands.Put(tx, b)
}

// ReopenBrand implements pb.BrandServiceServer.
func (s *service) ReopenBrand(ctx context.Context, req *pb.ReopenBrandRequest) (*pb.ReopenBrandResponse, error) {
	hash, err := token.Hash(req.GetReopenCode())
	if err != nil {
		return nil, wrongReopenCode()
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.ReopenBrandResponse, error) {
		id := tokenID(hash[:])
		if err := admit(tx, subject{reopening: id}, pathReopen); err != nil {
			return nil, err
		}
		reopening, _ := reopenings.Get(tx, id)
		b, _ := brands.Get(tx, reopening.GetBrandId())
		reopenings.Delete(tx, id)
		b.DeleteTime, b.PurgeTime = nil, nil
		return &pb.ReopenBrandResponse{Brand: b}, brands.Put(tx, b)
	})
}

func wrongReopenCode() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID,
		"this is not the code of a brand that is closed, or it can be reopened no more", nil)
}
