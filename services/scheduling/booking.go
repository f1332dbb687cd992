package scheduling

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	maxDuration = 24 * time.Hour // as the comment of Appointment.duration says
	maxLate     = 366 * 24 * time.Hour
	maxAhead    = 3653 * 24 * time.Hour
	maxActual   = 31 * 24 * time.Hour
)

// book gives the appointment a service agent and a time, if that time is free.
func book(tx *store.Tx, v viewer, a *pb.Appointment, agent *pb.ServiceAgent, start *timestamppb.Timestamp) error {
	if err := checkStart(start, tx.Now()); err != nil {
		return err
	}
	a.ServiceAgentId, a.AgentUserId = agent.GetId(), agent.GetUserId()
	a.StartTime = start
	a.EndTime = timestamppb.New(start.AsTime().Add(a.GetDuration().AsDuration()))
	if other := overlapping(tx, a); other != nil {
		return doubleBooking(agent, other, v.sees(other))
	}
	return nil
}

// unbook takes service agent and time away.
func unbook(a *pb.Appointment) {
	a.ServiceAgentId, a.AgentUserId, a.StartTime, a.EndTime = "", "", nil, nil
}

// overlapping returns an appointment that takes time of the same service agent while
// a does, or nil.
func overlapping(tx *store.Tx, a *pb.Appointment) *pb.Appointment {
	start, end := a.GetStartTime().AsTime(), a.GetEndTime().AsTime()
	near := busy.Range(a.GetServiceAgentId()).From(start.Add(-maxDuration)).To(end)
	for other := range busy.Scan(tx, near) {
		if other.GetId() != a.GetId() && overlap(start, end, other.GetStartTime().AsTime(), other.GetEndTime().AsTime()) {
			return other
		}
	}
	return nil
}

// overlap tells whether two times, each without its end, have a moment in common.
func overlap(start, end, otherStart, otherEnd time.Time) bool {
	return start.Before(otherEnd) && otherStart.Before(end)
}

// doubleBooking names the other appointment only if the caller may see it.
func doubleBooking(agent *pb.ServiceAgent, other *pb.Appointment, seen bool) error {
	metadata := map[string]string{"agent_id": agent.GetId()}
	if seen {
		metadata["appointment_id"] = other.GetId()
	}
	return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_DOUBLE_BOOKING,
		"the service agent has another appointment at that time: choose another time, or another service agent", metadata)
}

// bookable finds a service agent to whom appointments can be given.
func bookable(tx *store.Tx, id string) (*pb.ServiceAgent, error) {
	agent, ok := agents.Get(tx, id)
	if !ok {
		return nil, fault.NotFound("service_agent", id)
	}
	if !agent.GetActive() {
		return nil, fault.Refused("the service agent is not active: choose another one, or make this one active")
	}
	return agent, nil
}

// checkStart bounds when an appointment can begin.
func checkStart(start *timestamppb.Timestamp, now time.Time) error {
	earliest, latest := now.Add(-maxLate), now.Add(maxAhead)
	if !start.IsValid() || start.AsTime().Before(earliest) || start.AsTime().After(latest) {
		return fault.Invalid("start_time", "must be between %s and %s", earliest.Format(time.RFC3339), latest.Format(time.RFC3339))
	}
	return nil
}

// actualTimes returns when work begun at recorded and reported done at now really
// began and ended, if whoever reports it says so in start or finish.
func actualTimes(recorded, now time.Time, start, finish *timestamppb.Timestamp) (from, to time.Time, err error) {
	from, to = recorded, now
	if finish != nil {
		if !finish.IsValid() || finish.AsTime().After(now) {
			return from, to, fault.Invalid("actual_finish", "must not be in the future")
		}
		to = finish.AsTime()
	}
	if start != nil {
		if earliest := now.Add(-maxActual); !start.IsValid() || start.AsTime().Before(earliest) {
			return from, to, fault.Invalid("actual_start", "must not be before %s", earliest.Format(time.RFC3339))
		}
		from = start.AsTime()
	}
	if (start != nil || finish != nil) && !from.Before(to) {
		field := "actual_start"
		if start == nil {
			field = "actual_finish"
		}
		return from, to, fault.Invalid(field, "must leave time between begin, %s, and end, %s",
			from.Format(time.RFC3339Nano), to.Format(time.RFC3339Nano))
	}
	return from, to, nil
}
