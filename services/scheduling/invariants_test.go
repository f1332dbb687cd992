package scheduling

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	storepb "latchkey.dev/gen/go/latchkey/scheduling/store/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

// at is an appointment of an hour of the service agent.
func at(tx *store.Tx, id string, state pb.AppointmentState, hour int) *pb.Appointment {
	start := tx.Now().Truncate(24 * time.Hour).Add(time.Duration(hour) * time.Hour)
	return &pb.Appointment{
		Id: id, State: state, ServiceAgentId: "agent", AgentUserId: "ann", Duration: durationpb.New(time.Hour),
		StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)), ServiceRequestId: "request of " + id,
	}
}

// soundSchedule is an appointment of each kind.
func soundSchedule(tx *store.Tx) error {
	now := timestamppb.New(tx.Now())
	begun, done := at(tx, "begun", inProgress, 9), at(tx, "done", finished, 8)
	begun.RecordedStart, done.RecordedStart = now, now
	done.RecordedFinish, done.ActualStart, done.ActualFinish = now, now, now
	err := errors.Join(
		agents.Put(tx, &pb.ServiceAgent{Id: "agent", UserId: "ann", Active: proto.Bool(true)}),
		agents.Put(tx, &pb.ServiceAgent{Id: "idle", UserId: "ida", Active: proto.Bool(false)}),
		cancelledRequests.Put(tx, &storepb.CancelledRequest{Id: "over"}),
	)
	for _, a := range []*pb.Appointment{
		{Id: "queued", State: queued, Duration: durationpb.New(time.Hour)}, at(tx, "planned", scheduled, 10), begun, done,
		at(tx, "cancelled", cancelled, 10), // which takes no time
	} {
		err = errors.Join(err, appointments.Put(tx, a))
	}
	return err
}

// TestInvariants damages one record for each of them.
func TestInvariants(t *testing.T) {
	change := func(id string, change func(*pb.Appointment)) servertest.Damage {
		return servertest.Changed(appointments, id, change)
	}
	servertest.FindsDamage(t, schema, soundSchedule, map[string][]servertest.Damage{
		"appointment/service_agent_id": {change("done", func(a *pb.Appointment) { a.ServiceAgentId = "nobody" }), servertest.Removed(agents, "agent")},
		"appointment/booking": {
			change("planned", func(a *pb.Appointment) { a.StartTime = nil }),
			change("planned", func(a *pb.Appointment) { a.EndTime = a.GetStartTime() }),
			change("planned", func(a *pb.Appointment) { a.State = queued }),
			change("queued", func(a *pb.Appointment) { a.State = finished }),
		},
		"appointment/service agent": {
			change("planned", func(a *pb.Appointment) { a.AgentUserId = "ida" }),
			servertest.Changed(agents, "agent", func(a *pb.ServiceAgent) { a.Active = proto.Bool(false) }),
		},
		"appointment/one at a time": {
			func(tx *store.Tx) error { return appointments.Put(tx, at(tx, "another", scheduled, 10)) },
			change("cancelled", func(a *pb.Appointment) { a.State = scheduled }),
			change("planned", func(a *pb.Appointment) {
				a.StartTime = timestamppb.New(a.GetStartTime().AsTime().Add(-time.Second))
				a.Duration = durationpb.New(time.Hour + time.Second)
			}),
		},
		"appointment/cancelled request": {
			change("planned", func(a *pb.Appointment) { a.ServiceRequestId = "over" }),
			servertest.Put(cancelledRequests, &storepb.CancelledRequest{Id: "request of planned"}),
		},
		"appointment/work": {
			change("begun", func(a *pb.Appointment) { a.RecordedStart = nil }),
			change("done", func(a *pb.Appointment) { a.State = inProgress }),
			change("done", func(a *pb.Appointment) { a.ActualFinish = nil }),
			change("cancelled", func(a *pb.Appointment) { a.State = 0 }),
		},
	})
}
