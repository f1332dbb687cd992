package scheduling

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/store"
)

func (s *appointmentService) AssignAppointment(ctx context.Context, req *pb.AssignAppointmentRequest) (*pb.AssignAppointmentResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.AssignAppointmentResponse, error) {
		a, err := s.change(ctx, tx, req, pb.AppointmentService_AssignAppointment_FullMethodName, func(v viewer, a *pb.Appointment) error {
			agent, err := bookable(tx, req.GetServiceAgentId())
			if err != nil {
				return err
			}
			return book(tx, v, a, agent, req.GetStartTime())
		})
		return &pb.AssignAppointmentResponse{Appointment: a}, err
	})
}

func (s *appointmentService) UnassignAppointment(ctx context.Context, req *pb.UnassignAppointmentRequest) (*pb.UnassignAppointmentResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UnassignAppointmentResponse, error) {
		a, err := s.change(ctx, tx, req, pb.AppointmentService_UnassignAppointment_FullMethodName, func(_ viewer, a *pb.Appointment) error {
			unbook(a)
			return nil
		})
		return &pb.UnassignAppointmentResponse{Appointment: a}, err
	})
}

func (s *appointmentService) RescheduleAppointment(ctx context.Context, req *pb.RescheduleAppointmentRequest) (*pb.RescheduleAppointmentResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.RescheduleAppointmentResponse, error) {
		a, err := s.change(ctx, tx, req, pb.AppointmentService_RescheduleAppointment_FullMethodName, func(v viewer, a *pb.Appointment) error {
			agent, err := bookable(tx, a.GetServiceAgentId())
			if err != nil {
				return err
			}
			return book(tx, v, a, agent, req.GetStartTime())
		})
		return &pb.RescheduleAppointmentResponse{Appointment: a}, err
	})
}

func (s *appointmentService) CancelAppointment(ctx context.Context, req *pb.CancelAppointmentRequest) (*pb.CancelAppointmentResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CancelAppointmentResponse, error) {
		a, err := s.change(ctx, tx, req, pb.AppointmentService_CancelAppointment_FullMethodName, func(_ viewer, a *pb.Appointment) error {
			a.CancelReason = req.GetReason()
			return nil
		})
		return &pb.CancelAppointmentResponse{Appointment: a}, err
	})
}
