package scheduling

import (
	"fmt"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/store"
)

// What doc.go says that is always true, as far as one can see it in the records: verify asks for it.
var (
	_ = appointments.Refers("service_agent_id", (*pb.Appointment).GetServiceAgentId, agents)
	_ = appointments.Always("booking", bookedOrNot)
	_ = appointments.Always("service agent", agentComes)
	_ = appointments.Always("one at a time", isAlone)
	_ = appointments.Always("cancelled request", requestGoesOn)
	_ = appointments.Always("work", workFitsState)
)

// bookedOrNot holds if an appointment has a service agent and a time, or neither, as its state asks for.
func bookedOrNot(_ *store.Tx, a *pb.Appointment) string {
	agent, start, end := a.GetServiceAgentId(), a.GetStartTime(), a.GetEndTime()
	switch booked := agent != ""; {
	case booked != (a.GetAgentUserId() != ""), booked != (start != nil), booked != (end != nil):
		return fmt.Sprintf("service_agent_id is %q, agent_user_id %q, start_time %s and end_time %s: all or none should be there",
			agent, a.GetAgentUserId(), start.AsTime(), end.AsTime())
	case booked && !end.AsTime().Equal(start.AsTime().Add(a.GetDuration().AsDuration())):
		return fmt.Sprintf("it takes %s from %s, and its end_time is %s", a.GetDuration().AsDuration(), start.AsTime(), end.AsTime())
	case booked && a.GetState() == queued, !booked && a.GetState() != queued && a.GetState() != cancelled:
		return fmt.Sprintf("state is %s, and service_agent_id %q", a.GetState(), agent)
	}
	return ""
}

// agentComes holds if an appointment's service agent is the user whom it names, and active as long as
// it is to be done.
func agentComes(tx *store.Tx, a *pb.Appointment) string {
	agent, ok := agents.Get(tx, a.GetServiceAgentId())
	switch {
	case !ok:
		return ""
	case agent.GetUserId() != a.GetAgentUserId():
		return fmt.Sprintf("agent_user_id is %q, and service agent %q is user %q", a.GetAgentUserId(), agent.GetId(), agent.GetUserId())
	case takesTime(a) && !agent.GetActive():
		return fmt.Sprintf("state is %s, and service agent %q is not active", a.GetState(), agent.GetId())
	}
	return ""
}

// isAlone holds if the service agent has nothing else to do meanwhile.
func isAlone(tx *store.Tx, a *pb.Appointment) string {
	if !takesTime(a) {
		return ""
	}
	if other := overlapping(tx, a); other != nil {
		return fmt.Sprintf("it is from %s to %s, and that of %q of the same service agent from %s to %s",
			a.GetStartTime().AsTime(), a.GetEndTime().AsTime(), other.GetId(), other.GetStartTime().AsTime(), other.GetEndTime().AsTime())
	}
	return ""
}

// requestGoesOn holds if an appointment that is to come is of no service request that was cancelled.
func requestGoesOn(tx *store.Tx, a *pb.Appointment) string {
	if a.GetState() != queued && a.GetState() != scheduled || !cancelledRequests.Has(tx, a.GetServiceRequestId()) {
		return ""
	}
	return fmt.Sprintf("state is %s, and service request %q is cancelled", a.GetState(), a.GetServiceRequestId())
}

// workFitsState holds if what was reported of the work is what has led to the state.
func workFitsState(_ *store.Tx, a *pb.Appointment) string {
	begun, done := a.GetRecordedStart() != nil, a.GetRecordedFinish() != nil
	told := a.GetActualStart() != nil && a.GetActualFinish() != nil
	switch a.GetState() {
	case queued, scheduled, cancelled:
		if !begun && !done && !told {
			return ""
		}
	case inProgress:
		if begun && !done && !told {
			return ""
		}
	case finished:
		if begun && done && told {
			return ""
		}
	}
	return fmt.Sprintf("state is %s, and whether it has a recorded_start %t, a recorded_finish %t, actual times %t", a.GetState(), begun, done, told)
}
