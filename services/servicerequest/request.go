package servicerequest

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

func (s *service) CreateServiceRequest(ctx context.Context, req *pb.CreateServiceRequestRequest) (*pb.CreateServiceRequestResponse, error) {
	if err := checkAssignment(req.GetAssigneeId(), req.GetOpenToTeam()); err != nil {
		return nil, err
	}
	active, err := s.lookup(ctx, req.GetAssigneeId())
	if err != nil {
		return nil, err
	}
	defined, err := s.define(ctx, req)
	if err != nil {
		return nil, err
	}
	id := s.newID()
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreateServiceRequestResponse, error) {
		r := &pb.ServiceRequest{
			Id: id, State: drafted, OwnerId: authz.Caller(ctx).ID, AssigneeId: req.GetAssigneeId(), OpenToTeam: req.GetOpenToTeam(),
		}
		if err := place(ctx, tx, r, req, defined); err != nil {
			return nil, err
		}
		if err := active.mustHold(req.GetAssigneeId()); err != nil {
			return nil, err
		}
		setPurchaseOrder(r, req.GetPurchaseOrderNumber(), tx.Now())
		if err := requests.Put(tx, r); err != nil {
			return nil, err
		}
		return &pb.CreateServiceRequestResponse{ServiceRequest: leaving(ctx, tx, r)}, nil
	})
}

func (s *service) DocumentServiceRequest(ctx context.Context, req *pb.DocumentServiceRequestRequest) (*pb.DocumentServiceRequestResponse, error) {
	defined, err := s.define(ctx, req)
	if err != nil {
		return nil, err
	}
	id := s.newID()
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.DocumentServiceRequestResponse, error) {
		r := &pb.ServiceRequest{Id: id, State: documented, AuthorId: authz.Caller(ctx).ID}
		if err := place(ctx, tx, r, req, defined); err != nil {
			return nil, err
		}
		if err := requests.Put(tx, r); err != nil {
			return nil, err
		}
		return &pb.DocumentServiceRequestResponse{ServiceRequest: leaving(ctx, tx, r)}, nil
	})
}

// wish is what both ways to begin a service request say about the work.
type wish interface {
	sorted
	GetPropertyId() string
	GetUnitId() string
	GetTitle() string
	GetDescription() string
}

// place says in a new request what is wanted and where, and how it is sorted.
func place(ctx context.Context, tx *store.Tx, r *pb.ServiceRequest, w wish, defined *definitions) error {
	if _, err := findProperty(ctx, tx, w.GetPropertyId()); err != nil {
		return err
	}
	r.PropertyId = w.GetPropertyId()
	r.Title = proto.String(w.GetTitle())
	if w.GetDescription() != "" {
		r.Description = proto.String(w.GetDescription())
	}
	if w.GetUnitId() != "" {
		r.UnitId = proto.String(w.GetUnitId())
	}
	if w.GetCategoryId() != "" {
		r.CategoryId = proto.String(w.GetCategoryId())
	}
	r.CustomValues, r.LabelIds = w.GetCustomValues(), w.GetLabelIds()
	if err := checkUnit(tx, r.GetPropertyId(), r.GetUnitId()); err != nil {
		return err
	}
	return defined.check("", nil, r)
}

func (s *service) GetServiceRequest(ctx context.Context, req *pb.GetServiceRequestRequest) (*pb.GetServiceRequestResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetServiceRequestResponse, error) {
		r, err := findRequest(tx, authz.Caller(ctx), req.GetId())
		if err != nil {
			return nil, err
		}
		return &pb.GetServiceRequestResponse{ServiceRequest: leaving(ctx, tx, r)}, nil
	})
}

// changeable are the fields that UpdateServiceRequest changes.
var changeable = []string{"title", "description", "unit_id", "custom_values", "category_id", "label_ids"}

func (s *service) UpdateServiceRequest(ctx context.Context, req *pb.UpdateServiceRequestRequest) (*pb.UpdateServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_UpdateServiceRequest_FullMethodName
	defined, err := s.defineChange(ctx, req)
	if err != nil {
		return nil, err
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UpdateServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req.GetServiceRequest(), func(r *pb.ServiceRequest) error {
			was := proto.CloneOf(r)
			if err := mask.Apply(r, req.GetServiceRequest(), req.GetUpdateMask(), changeable...); err != nil {
				return err
			}
			if r.GetTitle() == "" {
				return fault.Invalid("service_request.title", "must not be empty")
			}
			if err := defined.check("service_request.", was, r); err != nil {
				return err
			}
			return checkUnit(tx, r.GetPropertyId(), r.GetUnitId())
		})
		return &pb.UpdateServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) SetPurchaseOrderNumber(ctx context.Context, req *pb.SetPurchaseOrderNumberRequest) (*pb.SetPurchaseOrderNumberResponse, error) {
	const method = pb.ServiceRequestService_SetPurchaseOrderNumber_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.SetPurchaseOrderNumberResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			setPurchaseOrder(r, req.GetPurchaseOrderNumber(), tx.Now())
			return nil
		})
		return &pb.SetPurchaseOrderNumberResponse{ServiceRequest: r}, err
	})
}

// setPurchaseOrder remembers since when the request has had a number without a break.
func setPurchaseOrder(r *pb.ServiceRequest, number string, now time.Time) {
	switch {
	case number == "":
		r.PurchaseOrderTime = nil
	case r.GetPurchaseOrderNumber() == "":
		r.PurchaseOrderTime = timestamppb.New(now)
	}
	r.PurchaseOrderNumber = number
}

// orderedBeforeCompletion tells whether the request has a purchase order number, and
// had one when it was completed, if it was.
func orderedBeforeCompletion(r *pb.ServiceRequest) bool {
	if r.GetPurchaseOrderNumber() == "" {
		return false
	}
	return r.GetCompleteTime() == nil || !r.GetPurchaseOrderTime().AsTime().After(r.GetCompleteTime().AsTime())
}

func (s *service) DeleteServiceRequest(ctx context.Context, req *pb.DeleteServiceRequestRequest) (*pb.DeleteServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_DeleteServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.DeleteServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.DeleteTime = timestamppb.New(tx.Now())
			r.PurgeTime = timestamppb.New(tx.Now().Add(retention))
			return nil
		})
		return &pb.DeleteServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) UndeleteServiceRequest(ctx context.Context, req *pb.UndeleteServiceRequestRequest) (*pb.UndeleteServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_UndeleteServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UndeleteServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.DeleteTime, r.PurgeTime = nil, nil
			return nil
		})
		return &pb.UndeleteServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) LookupServiceRequest(ctx context.Context, req *pb.LookupServiceRequestRequest) (*pb.LookupServiceRequestResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.LookupServiceRequestResponse, error) {
		r, ok := requests.Get(tx, req.GetId())
		if !ok || r.GetDeleteTime() != nil {
			return nil, fault.NotFound(requests.Name(), req.GetId())
		}
		return &pb.LookupServiceRequestResponse{Summary: &pb.ServiceRequestSummary{
			Id: r.GetId(), PropertyId: r.GetPropertyId(), UnitId: r.GetUnitId(), AssigneeId: r.GetAssigneeId(),
			OwnerId: r.GetOwnerId(), State: r.GetState(), PurchaseOrderNumber: r.GetPurchaseOrderNumber(),
			PurchaseOrderBeforeCompletion: orderedBeforeCompletion(r), Title: r.GetTitle(),
		}}, nil
	})
}

// leaving fills in what is computed anew each time a request leaves.
func leaving(ctx context.Context, tx *store.Tx, r *pb.ServiceRequest) *pb.ServiceRequest {
	if r.GetCycleTimer() != nil {
		r.CycleTime = durationpb.New(cycleTime(r.GetCycleTimer(), tx.Now()))
	}
	r.AvailableActions = requestStates.Actions(ctx, r)
	return r
}
