package permissions

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

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
	wanted.Features = features
	return change(ctx, s, organizationTag(ctx), req, func(tx *store.Tx) (*pb.UpdateBillingPlanResponse, error) {
		p, err := updatePlan(tx, wanted, req.GetUpdateMask())
		return &pb.UpdateBillingPlanResponse{Plan: p}, err
	})
}

func updatePlan(tx *store.Tx, wanted *pb.Plan, m *fieldmaskpb.FieldMask) (*pb.Plan, error) {
	p, ok := plans.Get(tx, tx.Tenant())
	if id := wanted.GetId(); !ok || id != "" && id != tx.Tenant() {
		return nil, fault.NotFound("plan", wanted.GetId())
	}
	if err := plans.Match(p, wanted.GetEtag()); err != nil {
		return nil, err
	}
	if err := mask.Apply(p, wanted, m, "features"); err != nil {
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
