package identity

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/query"
	"latchkey.dev/services/internal/store"
)

// ofBrand finds an organization of the caller's brand, closed ones as long as they can be
// brought back.
func ofBrand(tx *store.Tx, caller *authz.Principal, id string) (*pb.Organization, error) {
	home, err := own(tx, caller.Organization)
	if err != nil {
		return nil, err
	}
	o, ok := organizations.Get(tx, id)
	if !ok || o.GetBrandId() != home.GetBrandId() || purgeDue(tx, o) {
		return nil, fault.NotFound("organization", id)
	}
	return o, nil
}

// ListBrandOrganizations implements pb.OrganizationServiceServer.
func (s *service) ListBrandOrganizations(ctx context.Context, req *pb.ListBrandOrganizationsRequest) (*pb.ListBrandOrganizationsResponse, error) {
	filter, err := query.Parse(req.GetFilter(), &pb.Organization{})
	if err != nil {
		return nil, err
	}
	return read(ctx, s, func(tx *store.Tx) (*pb.ListBrandOrganizationsResponse, error) {
		home, err := own(tx, authz.Caller(ctx).Organization)
		if err != nil {
			return nil, err
		}
		ranges := []store.Range[*pb.Organization]{organizationsByName.Range(home.GetBrandId())}
		if req.GetShowDeleted() {
			ranges = append(ranges, closedByName.Range(home.GetBrandId()))
		}
		keep := func(o *pb.Organization) bool { return !purgeDue(tx, o) && filter.Match(o) }
		page, next, err := store.Page(tx, req, keep, ranges...)
		for _, o := range page {
			shownToBrand(ctx, o)
		}
		return &pb.ListBrandOrganizationsResponse{Organizations: page, NextPageToken: next}, err
	})
}

// brandChange is a request that changes an organization for its brand.
type brandChange interface {
	GetId() string
	GetEtag() string
	GetValidateOnly() bool
}

// changeOfBrand finds an organization of the caller's brand that is to change, in the
// version that the caller read, and moves it by the row of the method. What is closed
// can only be brought back.
func changeOfBrand(ctx context.Context, tx *store.Tx, method string, req brandChange) (*pb.Organization, error) {
	o, err := ofBrand(tx, authz.Caller(ctx), req.GetId())
	if err != nil {
		return nil, err
	}
	if err := organizations.Match(o, req.GetEtag()); err != nil {
		return nil, err
	}
	if o.GetDeleteTime() != nil {
		return nil, fault.Refused("the organization is closed: UndeleteOrganization brings it back")
	}
	return o, organizationStates.Apply(ctx, method, o)
}

// shutOrganization runs a change that shuts everybody out of an organization, and returns
// when that holds everywhere.
func (s *service) shutOrganization(ctx context.Context, req brandChange, change func(context.Context) error) error {
	return s.shutOutUnless(ctx, req.GetValidateOnly(), change, organizationTag(req.GetId()))
}

// SuspendOrganization implements pb.OrganizationServiceServer.
func (s *service) SuspendOrganization(ctx context.Context, req *pb.SuspendOrganizationRequest) (*pb.SuspendOrganizationResponse, error) {
	var resp *pb.SuspendOrganizationResponse
	err := s.shutOrganization(ctx, req, func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.SuspendOrganizationResponse, error) {
			o, err := changeOfBrand(ctx, tx, pb.OrganizationService_SuspendOrganization_FullMethodName, req)
			if err != nil {
				return nil, err
			}
			o.SuspendReason = req.GetReason()
			if err := organizations.Put(tx, o); err != nil {
				return nil, err
			}
			return &pb.SuspendOrganizationResponse{Organization: shownToBrand(ctx, o)}, nil
		})
		return err
	})
	return resp, err
}

// ResumeOrganization implements pb.OrganizationServiceServer.
func (s *service) ResumeOrganization(ctx context.Context, req *pb.ResumeOrganizationRequest) (*pb.ResumeOrganizationResponse, error) {
	return do(ctx, s, req, func(tx *store.Tx) (*pb.ResumeOrganizationResponse, error) {
		o, err := changeOfBrand(ctx, tx, pb.OrganizationService_ResumeOrganization_FullMethodName, req)
		if err != nil {
			return nil, err
		}
		o.SuspendReason = ""
		if err := organizations.Put(tx, o); err != nil {
			return nil, err
		}
		return &pb.ResumeOrganizationResponse{Organization: shownToBrand(ctx, o)}, nil
	})
}

// DeleteOrganization implements pb.OrganizationServiceServer.
func (s *service) DeleteOrganization(ctx context.Context, req *pb.DeleteOrganizationRequest) (*pb.DeleteOrganizationResponse, error) {
	var resp *pb.DeleteOrganizationResponse
	err := s.shutOrganization(ctx, req, func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.DeleteOrganizationResponse, error) {
			o, err := changeOfBrand(ctx, tx, pb.OrganizationService_DeleteOrganization_FullMethodName, req)
			if err != nil {
				return nil, err
			}
			o.DeleteTime, o.PurgeTime = endNow(tx)
			if err := organizations.Put(tx, o); err != nil {
				return nil, err
			}
			return &pb.DeleteOrganizationResponse{Organization: shownToBrand(ctx, o)}, nil
		})
		return err
	})
	return resp, err
}

// UndeleteOrganization implements pb.OrganizationServiceServer.
func (s *service) UndeleteOrganization(ctx context.Context, req *pb.UndeleteOrganizationRequest) (*pb.UndeleteOrganizationResponse, error) {
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UndeleteOrganizationResponse, error) {
		o, err := ofBrand(tx, authz.Caller(ctx), req.GetId())
		if err != nil {
			return nil, err
		}
		if err := organizations.Match(o, req.GetEtag()); err != nil {
			return nil, err
		}
		if err := closedStates.Apply(ctx, pb.OrganizationService_UndeleteOrganization_FullMethodName, o); err != nil {
			return nil, err
		}
		o.DeleteTime, o.PurgeTime = nil, nil
		if err := organizations.Put(tx, o); err != nil {
			return nil, err
		}
		return &pb.UndeleteOrganizationResponse{Organization: shownToBrand(ctx, o)}, nil
	})
}
