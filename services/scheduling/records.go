package scheduling

import (
	"strings"

	storepb "latchkey.dev/gen/go/latchkey/scheduling/store/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/store"
)

var schema = store.NewSchema(agents, appointments, cancelledRequests).PerOrganization()

var (
	agents      = store.NewCollection("service_agent", (*pb.ServiceAgent).GetId)
	agentByUser = agents.Unique("user_id", func(a *pb.ServiceAgent) store.Key {
		return store.Key{a.GetUserId()}
	})
	agentsByName = agents.Index("name", func(a *pb.ServiceAgent) store.Key {
		return store.Key{strings.ToLower(a.GetDisplayName())}
	})
)

var (
	appointments = store.NewCollection("appointment", (*pb.Appointment).GetId)

	// inScope has each appointment once for each reason to see it: see viewer.ranges.
	inScope = appointments.MultiIndex("scope", func(a *pb.Appointment) []store.Key {
		at := a.GetStartTime()
		if at == nil {
			at = a.GetCreateTime()
		}
		rest := []any{a.GetState(), at.AsTime()}
		keys := []store.Key{
			append(store.Key{scopeAll, ""}, rest...),
			append(store.Key{scopeOwner, a.GetOwnerId()}, rest...),
		}
		if a.GetAgentUserId() != "" {
			keys = append(keys, append(store.Key{scopeAgent, a.GetAgentUserId()}, rest...))
		}
		return keys
	})

	// busy has what takes up a service agent's time, by start.
	busy = appointments.Index("busy", func(a *pb.Appointment) store.Key {
		if !takesTime(a) {
			return nil
		}
		return store.Key{a.GetServiceAgentId(), a.GetStartTime().AsTime()}
	})

	// openByRequest has what is still to come for a service request.
	openByRequest = appointments.Index("open_by_request", func(a *pb.Appointment) store.Key {
		if a.GetServiceRequestId() == "" || a.GetState() != queued && a.GetState() != scheduled {
			return nil
		}
		return store.Key{a.GetServiceRequestId()}
	})
)

// The scopes of the index inScope, each followed by a user id.
const (
	scopeAll   = "all"
	scopeOwner = "owner"
	scopeAgent = "agent"
)

var cancelledRequests = store.NewCollection("cancelled_request", (*storepb.CancelledRequest).GetId)

// takesTime tells whether the service agent can do nothing else meanwhile.
func takesTime(a *pb.Appointment) bool {
	return a.GetState() == scheduled || a.GetState() == inProgress
}
