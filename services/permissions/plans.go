package permissions

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// GetPlan gets the plan of the caller's organization.
func (s *service) GetPlan(ctx context.Context, _ *pb.GetPlanRequest) (*pb.GetPlanResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetPlanResponse, error) {
		p, ok := plans.Get(tx, tx.Tenant())
		if !ok {
			return nil, fault.NotFound("plan", tx.Tenant())
		}
		return &pb.GetPlanResponse{Plan: p}, nil
	})
}

// UpdateBillingPlan changes the masked fields of the plan.
func (s *service) UpdateBillingPlan(ctx context.Context, req *pb.UpdateBillingPlanRequest) (*pb.UpdateBillingPlanResponse, error) {
	features, err := findFeatures(req.GetPlan().GetFeatures())
	if err != nil {
		return nil, err
	}
	wanted := proto.CloneOf(req.GetPlan())
	wanted.Features, wanted.ChangeReason = features, req.GetReason()
	allowed, err := s.allowedFeatures(ctx, granterOf(ctx))
	if err != nil {
		return nil, err
	}
	return change(ctx, s, organizationTag(ctx), req, func(tx *store.Tx) (*pb.UpdateBillingPlanResponse, error) {
		p, err := updatePlan(tx, wanted, req.GetUpdateMask(), allowed)
		return &pb.UpdateBillingPlanResponse{Plan: p}, err
	})
}

// allowedFeatures are the features that somebody may put into the plan and take out.
func (s *service) allowedFeatures(ctx context.Context, by granter) (names []string, err error) {
	if by.carries.Has(rolesKey) {
		for _, f := range catalog.Features() {
			names = append(names, f.Name)
		}
		return names, nil
	}
	resp, err := s.organizations.LookupOrganization(ctx, &identitypb.LookupOrganizationRequest{})
	if err != nil {
		return nil, unavailable("identity", err)
	}
	return resp.GetAllowance().GetFeatures(), nil
}

// checkAllowed returns nil if no feature has come or gone but for allowed ones.
func checkAllowed(was, is, allowed []string) error {
	for _, f := range slices.Concat(was, is) {
		if slices.Contains(was, f) == slices.Contains(is, f) || slices.Contains(allowed, f) {
			continue
		}
		return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_GRANT_MISSING,
			fmt.Sprintf("the brand does not let its organizations decide on the feature %s, so changing it needs the permission Organizations: Roles", f),
			map[string]string{
				"grant": "Organizations: Roles", "field": "plan.features", "method": pb.PlanService_UpdateBillingPlan_FullMethodName[1:],
			})
	}
	return nil
}

func updatePlan(tx *store.Tx, wanted *pb.Plan, m *fieldmaskpb.FieldMask, allowed []string) (*pb.Plan, error) {
	p, ok := plans.Get(tx, tx.Tenant())
	if id := wanted.GetId(); !ok || id != "" && id != tx.Tenant() {
		return nil, fault.NotFound("plan", wanted.GetId())
	}
	if err := plans.Match(p, wanted.GetEtag()); err != nil {
		return nil, err
	}
	was := slices.Clone(p.GetFeatures())
	if err := mask.Apply(p, wanted, m, "features"); err != nil {
		return nil, err
	}
	p.ChangeReason = wanted.GetChangeReason()
	if err := checkAllowed(was, p.GetFeatures(), allowed); err != nil {
		return nil, err
	}
	return p, plans.Put(tx, p)
}

// findFeatures returns the features in the order of the catalog, each once.
func findFeatures(names []string) (found []string, err error) {
	var known []string
	for _, f := range catalog.Features() {
		known = append(known, f.Name)
		if slices.Contains(names, f.Name) {
			found = append(found, f.Name)
		}
	}
	for i, name := range names {
		if !slices.Contains(known, name) {
			return nil, fault.Invalid(fmt.Sprintf("plan.features[%d]", i), "must be one of %q, and %q is not", known, name)
		}
	}
	return found, nil
}
