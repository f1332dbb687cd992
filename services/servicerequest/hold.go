package servicerequest

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

func (s *service) HoldServiceRequest(ctx context.Context, req *pb.HoldServiceRequestRequest) (*pb.HoldServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_HoldServiceRequest_FullMethodName
	if t := req.GetExpireTime(); t != nil && !t.IsValid() {
		return nil, fault.Invalid("expire_time", "must be a time between the years 1 and 9999")
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.HoldServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			if t := req.GetExpireTime(); t != nil && !t.AsTime().After(tx.Now()) {
				return fault.Invalid("expire_time", "must be in the future")
			}
			r.Hold.Reason, r.Hold.StartTime, r.Hold.ExpireTime = req.GetReason(), timestamppb.New(tx.Now()), req.GetExpireTime()
			return nil
		})
		return &pb.HoldServiceRequestResponse{ServiceRequest: r}, err
	})
}

func (s *service) ResumeServiceRequest(ctx context.Context, req *pb.ResumeServiceRequestRequest) (*pb.ResumeServiceRequestResponse, error) {
	const method = pb.ServiceRequestService_ResumeServiceRequest_FullMethodName
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.ResumeServiceRequestResponse, error) {
		r, err := move(ctx, tx, method, req, func(r *pb.ServiceRequest) error {
			r.CycleTimer = resume(r, tx.Now())
			return nil
		})
		return &pb.ResumeServiceRequestResponse{ServiceRequest: r}, err
	})
}

// resume ends the hold of a request as of a time, but no later than the hold expired
// by itself, and returns the timer that it has then.
func resume(r *pb.ServiceRequest, at time.Time) *pb.CycleTimer {
	if t := r.GetHold().GetExpireTime(); t != nil && t.AsTime().Before(at) {
		at = t.AsTime()
	}
	setState(r, r.GetHold().GetPreviousState())
	return turned(r.GetCycleTimer(), busy(r), at)
}

// resumeExpired ends holds that have expired, a bounded number of them, and reports
// whether there may be more. The suite acts itself: ctx names a tenant and no caller.
func (s *service) resumeExpired(ctx context.Context) (more bool, err error) {
	return s.work(ctx, func(tx *store.Tx) (bool, error) {
		left := batch
		for r := range requestExpiry.Scan(tx, requestExpiry.Range().To(justAfter(tx.Now()))) {
			if left--; left < 0 {
				return true, nil
			}
			if err := requestStates.Apply(ctx, pb.ServiceRequestService_ResumeServiceRequest_FullMethodName, r); err != nil {
				return false, fmt.Errorf("resume %s: %w", r.GetId(), err)
			}
			r.CycleTimer = resume(r, tx.Now())
			if err := requests.Put(tx, r); err != nil {
				return false, err
			}
		}
		return false, nil
	})
}
