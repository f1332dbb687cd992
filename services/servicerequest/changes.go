package servicerequest

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// move leads a request that exists for the caller through a row of the table, and
// lets effect do what the row does beside changing the state.
func move(ctx context.Context, tx *store.Tx, method string, t target, effect func(*pb.ServiceRequest) error) (*pb.ServiceRequest, error) {
	r, err := findRequest(tx, authz.Caller(ctx), t.GetId())
	if err != nil {
		return nil, err
	}
	if err := requests.Match(r, t.GetEtag()); err != nil {
		return nil, err
	}
	if err := requestStates.Apply(ctx, method, r); err != nil {
		return nil, err
	}
	if err := effect(r); err != nil {
		return nil, err
	}
	r.CycleTimer = turned(r.GetCycleTimer(), busy(r), tx.Now())
	if err := requests.Put(tx, r); err != nil {
		return nil, err
	}
	return leaving(ctx, tx, r), nil
}

func nothing(*pb.ServiceRequest) error { return nil }

func (s *service) RequestServiceRequest(ctx context.Context, req *pb.RequestServiceRequestRequest) (*pb.RequestServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_RequestServiceRequest_FullMethodName
	if err := checkAssignment(req.GetAssigneeId(), req.GetOpenToTeam()); err != nil {
		return nil, err
	}
	active, err := s.lookupFor(ctx, req.GetId(), req.GetAssigneeId())
	if err != nil {
		return nil, err
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.RequestServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			return offer(tx, r, active, req.AssigneeId, req.OpenToTeam)
		})
		return &pb.RequestServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) RecommendServiceRequest(ctx context.Context, req *pb.RecommendServiceRequestRequest) (*pb.RecommendServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_RecommendServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.RecommendServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, nothing)
		return &pb.RecommendServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) ApproveServiceRequest(ctx context.Context, req *pb.ApproveServiceRequestRequest) (*pb.ApproveServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_ApproveServiceRequest_FullMethodName
	if err := checkAssignment(req.GetAssigneeId(), req.GetOpenToTeam()); err != nil {
		return nil, err
	}
	active, err := s.lookupFor(ctx, req.GetId(), req.GetAssigneeId())
	if err != nil {
		return nil, err
	}
	defined, err := s.defineApproval(ctx, req)
	if err != nil {
		return nil, err
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.ApproveServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			was := proto.CloneOf(r)
			r.OwnerId = authz.Caller(ctx).ID
			rewrite(r, req)
			if err := defined.check("", was, r); err != nil {
				return err
			}
			return offer(tx, r, active, req.AssigneeId, req.OpenToTeam)
		})
		return &pb.ApproveServiceRequestResponse{ServiceRequest: r}, err
	})
}

// rewrite changes what an approval says anew about the work and how it is sorted.
func rewrite(r *pb.ServiceRequest, req *pb.ApproveServiceRequestRequest) {
	if req.Title != nil {
		r.Title = req.Title
	}
	if req.Description != nil {
		r.Description = req.Description
	}
	if len(req.GetCustomValues()) > 0 {
		r.CustomValues = req.GetCustomValues()
	}
	if req.CategoryId != nil {
		r.CategoryId = req.CategoryId
	}
	if len(req.GetLabelIds()) > 0 {
		r.LabelIds = req.GetLabelIds()
	}
}

func (s *service) DenyServiceRequest(ctx context.Context, req *pb.DenyServiceRequestRequest) (*pb.DenyServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_DenyServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.DenyServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.OwnerId, r.StateReason = authz.Caller(ctx).ID, req.GetReason()
			return nil
		})
		return &pb.DenyServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) ReleaseServiceRequest(ctx context.Context, req *pb.ReleaseServiceRequestRequest) (*pb.ReleaseServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_ReleaseServiceRequest_FullMethodName
	active, err := s.lookupFor(ctx, req.GetId(), "")
	if err != nil {
		return nil, err
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.ReleaseServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			return offer(tx, r, active, nil, nil)
		})
		return &pb.ReleaseServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) AcceptServiceRequest(ctx context.Context, req *pb.AcceptServiceRequestRequest) (*pb.AcceptServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_AcceptServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.AcceptServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			return accept(tx, r, req.GetTargetDate())
		})
		return &pb.AcceptServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) ClaimServiceRequest(ctx context.Context, req *pb.ClaimServiceRequestRequest) (*pb.ClaimServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_ClaimServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.ClaimServiceRequestResponse, error) {
		caller := authz.Caller(ctx).ID
		if r, ok := requests.Get(tx, req.GetId()); ok && claimedFrom(tx, r, caller) {
			return nil, fault.RaceLost(requests.Name(), req.GetId())
		}
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.AssigneeId = caller
			if req.GetTargetDate() == nil {
				r.AcceptTime = timestamppb.New(tx.Now())
				return nil
			}
			return accept(tx, r, req.GetTargetDate())
		})
		return &pb.ClaimServiceRequestResponse{ServiceRequest: r}, err
	})
}

// claimedFrom tells whether the user could have claimed the request if nobody else
// had. That somebody has is all that he learns of a request that existed for him.
func claimedFrom(tx *store.Tx, r *pb.ServiceRequest, user string) bool {
	return r.GetOpenToTeam() && r.GetState() == accepted && r.GetDeleteTime() == nil &&
		r.GetAssigneeId() != user && onTeam(tx, r.GetPropertyId(), user)
}

func (s *service) DeclineServiceRequest(ctx context.Context, req *pb.DeclineServiceRequestRequest) (*pb.DeclineServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_DeclineServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.DeclineServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.StateReason = req.GetReason()
			return nil
		})
		return &pb.DeclineServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) ReassignServiceRequest(ctx context.Context, req *pb.ReassignServiceRequestRequest) (*pb.ReassignServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_ReassignServiceRequest_FullMethodName
	if req.GetAssigneeId() == "" && !req.GetOpenToTeam() {
		return nil, fault.Invalid("assignee_id", "must be set unless open_to_team is true")
	}
	if err := checkAssignment(req.GetAssigneeId(), req.GetOpenToTeam()); err != nil {
		return nil, err
	}
	active, err := s.lookup(ctx, req.GetAssigneeId())
	if err != nil {
		return nil, err
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.ReassignServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			if err := active.mustHold(req.GetAssigneeId()); err != nil {
				return err
			}
			r.AcceptTime, r.TargetDate = nil, nil
			if req.PurchaseOrderNumber != nil {
				setPurchaseOrder(r, req.GetPurchaseOrderNumber(), tx.Now())
			}
			r.AssigneeId, r.OpenToTeam = req.GetAssigneeId(), req.GetOpenToTeam()
			return nil
		})
		return &pb.ReassignServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) CompleteServiceRequest(ctx context.Context, req *pb.CompleteServiceRequestRequest) (*pb.CompleteServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_CompleteServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CompleteServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.CompleteTime = timestamppb.New(tx.Now())
			if caller := authz.Caller(ctx).ID; !slices.Contains(r.GetCompleterIds(), caller) {
				r.CompleterIds = append(r.CompleterIds, caller)
			}
			return nil
		})
		return &pb.CompleteServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) ReopenServiceRequest(ctx context.Context, req *pb.ReopenServiceRequestRequest) (*pb.ReopenServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_ReopenServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.ReopenServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.CompleteTime, r.StateReason = nil, req.GetReason()
			r.ReopenCount++
			return nil
		})
		return &pb.ReopenServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) ReviewServiceRequest(ctx context.Context, req *pb.ReviewServiceRequestRequest) (*pb.ReviewServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_ReviewServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.ReviewServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.ReviewTime = timestamppb.New(tx.Now())
			r.ArchiveReason = pb.ArchiveReason_ARCHIVE_REASON_REVIEWED
			return nil
		})
		return &pb.ReviewServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) CancelServiceRequest(ctx context.Context, req *pb.CancelServiceRequestRequest) (*pb.CancelServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_CancelServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CancelServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.StateReason = req.GetReason()
			r.ArchiveReason = pb.ArchiveReason_ARCHIVE_REASON_CANCELLED
			tx.Emit(&pb.ServiceRequestCancelled{ServiceRequestId: r.GetId()})
			return nil
		})
		return &pb.CancelServiceRequestResponse{ServiceRequest: r}, err
	})
}
