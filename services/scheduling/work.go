package scheduling

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/store"
)

func (s *appointmentService) StartAppointment(ctx context.Context, req *pb.StartAppointmentRequest) (*pb.StartAppointmentResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.StartAppointmentResponse, error) {
		a, err := s.change(ctx, tx, req, pb.AppointmentService_StartAppointment_FullMethodName, func(_ viewer, a *pb.Appointment) error {
			a.RecordedStart = timestamppb.New(tx.Now())
			return nil
		})
		return &pb.StartAppointmentResponse{Appointment: a}, err
	})
}

func (s *appointmentService) FinishAppointment(ctx context.Context, req *pb.FinishAppointmentRequest) (*pb.FinishAppointmentResponse, error) {
	partsErr := s.peers.checkParts(ctx, req.GetParts())
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.FinishAppointmentResponse, error) {
		a, err := s.change(ctx, tx, req, pb.AppointmentService_FinishAppointment_FullMethodName, func(_ viewer, a *pb.Appointment) error {
			if partsErr != nil {
				return partsErr
			}
			return finish(tx, a, req)
		})
		return &pb.FinishAppointmentResponse{Appointment: a}, err
	})
}

// finish records how the work went, and tells the other services.
func finish(tx *store.Tx, a *pb.Appointment, req *pb.FinishAppointmentRequest) error {
	from, to, err := actualTimes(a.GetRecordedStart().AsTime(), tx.Now(), req.GetActualStart(), req.GetActualFinish())
	if err != nil {
		return err
	}
	a.RecordedFinish = timestamppb.New(tx.Now())
	a.ActualStart, a.ActualFinish = timestamppb.New(from), timestamppb.New(to)
	a.Summary = req.GetSummary()
	a.Parts = req.GetParts()
	a.CompletionRequested = req.GetSendCompletion()
	tx.Emit(&pb.AppointmentFinished{
		AppointmentId: a.GetId(), ServiceRequestId: a.GetServiceRequestId(),
		PropertyId: a.GetPropertyId(), UnitId: a.GetUnitId(), AgentUserId: a.GetAgentUserId(),
		FinishTime: a.GetActualFinish(), Parts: a.GetParts(), Summary: a.GetSummary(),
		CompletionRequested: a.GetCompletionRequested(),
	})
	return nil
}
