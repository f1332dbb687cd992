package identity

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// CreateOrganization implements pb.OrganizationServiceServer.
func (s *service) CreateOrganization(ctx context.Context, req *pb.CreateOrganizationRequest) (*pb.CreateOrganizationResponse, error) {
	caller := authz.Caller(ctx)
	fresh := &pb.Organization{
		Id: s.newID(), Name: req.GetName(), TimeZone: req.GetTimeZone(), CurrencyCode: req.GetCurrencyCode(), State: open,
		SecondFactorRequired: req.GetSecondFactorRequired(), LegalName: req.GetLegalName(), Website: req.GetWebsite(), Email: req.GetEmail(),
		Phone: req.GetPhone(), Address: req.GetAddress(), Language: req.GetLanguage(), WeekStart: req.GetWeekStart(),
	}
	if err := checkOrganization(fresh, ""); err != nil {
		return nil, err
	}
	resp, err := do(ctx, s, req, func(tx *store.Tx) (*pb.CreateOrganizationResponse, error) {
		home, err := own(tx, caller.Organization)
		if err != nil {
			return nil, err
		}
		owner, ok := profiles.Get(tx, caller.ID)
		if !ok {
			return nil, fault.Refused("a service account owns no organization: let a person make it")
		}
		fresh.BrandId = home.GetBrandId()
		_, err = foundOrganization(tx, fresh, owner, caller.Grants.Bytes())
		return &pb.CreateOrganizationResponse{Organization: fresh}, err
	})
	if err != nil || req.GetValidateOnly() {
		return resp, err
	}
	return resp, s.seed(ctx, resp.GetOrganization().GetId())
}

// foundOrganization keeps a new organization with its first owner, and that
// permissions is still to be told of both, and of what its maker held.
func foundOrganization(tx *store.Tx, o *pb.Organization, owner *pb.Profile, makerGrants []byte) (*pb.User, error) {
	if err := organizations.Put(tx, o); err != nil {
		return nil, err
	}
	seeding := &identitystorepb.Seeding{OrganizationId: o.GetId(), OwnerUserId: owner.GetId(), MakerGrants: makerGrants}
	if err := seedings.Put(tx, seeding); err != nil {
		return nil, err
	}
	return addMember(tx, o.GetId(), owner, owner.GetDisplayName(), nil)
}

// own finds the organization that a session acts in.
func own(tx *store.Tx, id string) (*pb.Organization, error) {
	o, ok := organizations.Get(tx, id)
	if !ok {
		return nil, fault.NotFound("organization", id)
	}
	return o, nil
}

// GetOrganization implements pb.OrganizationServiceServer.
func (s *service) GetOrganization(ctx context.Context, req *pb.GetOrganizationRequest) (*pb.GetOrganizationResponse, error) {
	caller := authz.Caller(ctx)
	other := req.GetId() != "" && req.GetId() != caller.Organization
	if other && !caller.Has("Branding") {
		return nil, fault.NotFound("organization", req.GetId())
	}
	return read(ctx, s, func(tx *store.Tx) (*pb.GetOrganizationResponse, error) {
		if other {
			o, err := ofBrand(tx, caller, req.GetId())
			if err != nil {
				return nil, err
			}
			return &pb.GetOrganizationResponse{Organization: shownToBrand(ctx, o)}, nil
		}
		o, err := own(tx, caller.Organization)
		return &pb.GetOrganizationResponse{Organization: o}, err
	})
}

// ListOrganizations implements pb.OrganizationServiceServer.
func (s *service) ListOrganizations(ctx context.Context, req *pb.ListOrganizationsRequest) (*pb.ListOrganizationsResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListOrganizationsResponse, error) {
		in := func(u *pb.User) bool {
			o, ok := organizations.Get(tx, u.GetOrganizationId())
			return ok && u.GetState() == active && o.GetDeleteTime() == nil
		}
		page, next, err := store.Page(tx, req, in, usersByPerson.Range(authz.Caller(ctx).ID))
		if err != nil {
			return nil, err
		}
		resp := &pb.ListOrganizationsResponse{NextPageToken: next}
		for _, u := range page {
			o, err := own(tx, u.GetOrganizationId())
			if err != nil {
				return nil, err
			}
			resp.Organizations = append(resp.Organizations, o)
		}
		return resp, nil
	})
}

// organizationSettings are the fields of an organization that can be changed, and that its
// brand can lock.
var organizationSettings = []string{
	"name", "time_zone", "currency_code", "second_factor_required", "legal_name", "website", "email", "phone", "address", "language", "week_start",
}

// checkLocked returns nil unless a field has changed that the brand has locked and that the
// caller may not change for the brand.
func checkLocked(ctx context.Context, tx *store.Tx, was, is *pb.Organization) error {
	b, err := brandOf(tx, is.GetId())
	if err != nil || authz.Caller(ctx).Has("Branding") {
		return err
	}
	for _, name := range b.GetAllowance().GetLockedFields() {
		fd := is.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
		if was.ProtoReflect().Get(fd).Equal(is.ProtoReflect().Get(fd)) {
			continue
		}
		return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_GRANT_MISSING,
			fmt.Sprintf("the brand decides the %s of its organizations, which needs the permission Branding", name),
			map[string]string{
				"grant": "Branding", "field": "organization." + name, "method": pb.OrganizationService_UpdateOrganization_FullMethodName[1:],
			})
	}
	return nil
}

// LookupOrganization implements pb.OrganizationServiceServer.
func (s *service) LookupOrganization(ctx context.Context, _ *pb.LookupOrganizationRequest) (*pb.LookupOrganizationResponse, error) {
	id := store.OriginOf(ctx).Tenant
	return read(ctx, s, func(tx *store.Tx) (*pb.LookupOrganizationResponse, error) {
		o, err := own(tx, id)
		if err != nil {
			return nil, err
		}
		b, err := brandOf(tx, id)
		return &pb.LookupOrganizationResponse{Organization: o, Allowance: b.GetAllowance()}, err
	})
}

// UpdateOrganization implements pb.OrganizationServiceServer.
func (s *service) UpdateOrganization(ctx context.Context, req *pb.UpdateOrganizationRequest) (*pb.UpdateOrganizationResponse, error) {
	id := req.GetOrganization().GetId()
	if id != authz.Caller(ctx).Organization {
		return nil, fault.NotFound("organization", id)
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateOrganizationResponse, error) {
		o, err := own(tx, id)
		if err != nil {
			return nil, err
		}
		if err := organizations.Match(o, req.GetOrganization().GetEtag()); err != nil {
			return nil, err
		}
		was := proto.CloneOf(o)
		if err := mask.Apply(o, req.GetOrganization(), req.GetUpdateMask(), organizationSettings...); err != nil {
			return nil, err
		}
		if err := checkLocked(ctx, tx, was, o); err != nil {
			return nil, err
		}
		if err := checkOrganization(o, "organization."); err != nil {
			return nil, err
		}
		return &pb.UpdateOrganizationResponse{Organization: o}, organizations.Put(tx, o)
	})
}
