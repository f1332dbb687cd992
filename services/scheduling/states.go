package scheduling

import (
	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/states"
)

const (
	queued     = pb.AppointmentState_APPOINTMENT_STATE_QUEUED
	scheduled  = pb.AppointmentState_APPOINTMENT_STATE_SCHEDULED
	inProgress = pb.AppointmentState_APPOINTMENT_STATE_IN_PROGRESS
	finished   = pb.AppointmentState_APPOINTMENT_STATE_FINISHED
	cancelled  = pb.AppointmentState_APPOINTMENT_STATE_CANCELLED
)

type action = states.Action[*pb.Appointment, pb.AppointmentState]

// table is what can be done with an appointment, and when.
var table = states.New("appointment", (*pb.Appointment).GetId, (*pb.Appointment).GetState,
	func(a *pb.Appointment, s pb.AppointmentState) { a.State = s },
	action{
		Method: pb.AppointmentService_AssignAppointment_FullMethodName,
		From:   []pb.AppointmentState{queued}, To: scheduled,
	},
	action{
		Method: pb.AppointmentService_UnassignAppointment_FullMethodName,
		From:   []pb.AppointmentState{scheduled}, To: queued,
	},
	action{
		Method: pb.AppointmentService_RescheduleAppointment_FullMethodName,
		From:   []pb.AppointmentState{scheduled}, Check: mayMove,
	},
	action{
		Method: pb.AppointmentService_StartAppointment_FullMethodName,
		From:   []pb.AppointmentState{scheduled}, To: inProgress, Check: mayWork,
	},
	action{
		Method: pb.AppointmentService_FinishAppointment_FullMethodName,
		From:   []pb.AppointmentState{inProgress}, To: finished, Check: mayWork,
	},
	action{
		Method: pb.AppointmentService_CancelAppointment_FullMethodName,
		From:   []pb.AppointmentState{queued, scheduled}, To: cancelled,
	},
)

// mayMove says who may give an appointment another time: in the app the setting
// decides, everywhere else the permission.
func mayMove(c *authz.Principal, a *pb.Appointment) error {
	if c.Surface != authz.SurfaceApp {
		return needs(c, "Appointments:Edit", pb.AppointmentService_RescheduleAppointment_FullMethodName)
	}
	err := needs(c, "setting:reschedule_appointments", pb.AppointmentService_RescheduleAppointment_FullMethodName)
	if err == nil && a.GetAgentUserId() != c.ID && !c.Has("Appointments:Edit") {
		return fault.Relation("the appointment's service agent")
	}
	return err
}

// mayWork says who may report how the work goes.
func mayWork(c *authz.Principal, a *pb.Appointment) error {
	if c.Has("Dispatch") || a.GetAgentUserId() == c.ID && c.Has("My Schedule:Appointments") {
		return nil
	}
	return fault.Relation("the appointment's service agent or a dispatcher")
}

// needs returns the denial that names the grant if the caller lacks it.
func needs(c *authz.Principal, grant, method string) error {
	if c.Has(grant) {
		return nil
	}
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_GRANT_MISSING,
		"this needs "+grant+", which you do not have: ask an administrator for it",
		map[string]string{"grant": grant, "method": method[1:]})
}
