package scheduling

import (
	"context"
	"time"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// view is one way to list appointments: the permission it asks for, and which
// appointments it shows.
type view struct {
	key      string
	states   []pb.AppointmentState
	upcoming bool // only those that start now or later
}

var views = map[pb.AppointmentView]view{
	pb.AppointmentView_APPOINTMENT_VIEW_ALL: {
		key:    "Appointments:Grid:All",
		states: []pb.AppointmentState{queued, scheduled, inProgress, finished, cancelled},
	},
	pb.AppointmentView_APPOINTMENT_VIEW_BACKLOG: {
		key: "Appointments:Grid:Backlog", states: []pb.AppointmentState{queued},
	},
	pb.AppointmentView_APPOINTMENT_VIEW_IN_PROGRESS: {
		key: "Appointments:Grid:InProgress", states: []pb.AppointmentState{inProgress},
	},
	pb.AppointmentView_APPOINTMENT_VIEW_UPCOMING: {
		key: "Appointments:Grid:Upcoming", states: []pb.AppointmentState{scheduled}, upcoming: true,
	},
}

// shows tells whether the appointment is in the view.
func (w view) shows(a *pb.Appointment, now time.Time) bool {
	for _, s := range w.states {
		if a.GetState() == s {
			return !w.upcoming || !a.GetStartTime().AsTime().Before(now)
		}
	}
	return false
}

// viewer decides which appointments exist for the caller.
type viewer struct {
	caller *authz.Principal
	now    time.Time
	// horizon is where the caller's own schedule ends for him; zero if nowhere.
	horizon time.Time
}

// maxVisibility is the greatest Future Visibility that is told from none, in days.
const maxVisibility = 36500

func newViewer(ctx context.Context, tx *store.Tx) viewer {
	v := viewer{caller: authz.Caller(ctx), now: tx.Now()}
	if days, ok := v.caller.Int("future_visibility"); ok && days <= maxVisibility {
		if agent, ok := agentByUser.First(tx, v.caller.ID); ok {
			v.horizon = startOfDay(v.now, int(max(days, 0))+1, zoneOf(agent))
		}
	}
	return v
}

// sees tells whether the appointment exists for the caller.
//
// SECURITY: get, lists and changes all ask this, so that none of them shows what
// another hides.
func (v viewer) sees(a *pb.Appointment) bool {
	if v.own(a) {
		if v.beyond(a) {
			return false
		}
		if v.caller.Has("My Schedule:Appointments") {
			return true
		}
	}
	return v.owns(a) && v.opens(a)
}

func (v viewer) own(a *pb.Appointment) bool {
	return a.GetAgentUserId() != "" && a.GetAgentUserId() == v.caller.ID
}

// beyond tells whether the appointment is planned for after the horizon. Work that
// has begun is not a plan any more.
func (v viewer) beyond(a *pb.Appointment) bool {
	return !v.horizon.IsZero() && a.GetRecordedStart() == nil && !a.GetStartTime().AsTime().Before(v.horizon)
}

// owns tells whether View:OwnedBy lets the caller see records of the owner.
func (v viewer) owns(a *pb.Appointment) bool {
	switch a.GetOwnerId() {
	case "":
		return v.caller.Has("View:OwnedBy:Nobody")
	case v.caller.ID:
		return v.caller.Has("View:OwnedBy:Me")
	}
	return v.caller.Has("View:OwnedBy:Others")
}

// opens tells whether the caller holds a permission that has to do with the
// appointment as it is now.
func (v viewer) opens(a *pb.Appointment) bool {
	if v.caller.Has("Dispatch") || v.caller.Has("Appointments:Edit") {
		return true
	}
	if a.GetOwnerId() == v.caller.ID && v.caller.Has("Appointments:Create") {
		return true
	}
	for _, w := range views {
		if v.caller.Has(w.key) && w.shows(a, v.now) {
			return true
		}
	}
	return false
}

// ranges returns parts of inScope in which every appointment in one of the states
// is that the caller sees. There are others in them too: sees tells.
func (v viewer) ranges(states ...pb.AppointmentState) []store.Range[*pb.Appointment] {
	type scope struct{ kind, id string }
	var scopes []scope
	if v.caller.Has("View:OwnedBy:Others") {
		scopes = append(scopes, scope{scopeAll, ""})
	} else {
		if v.caller.Has("View:OwnedBy:Me") {
			scopes = append(scopes, scope{scopeOwner, v.caller.ID})
		}
		if v.caller.Has("View:OwnedBy:Nobody") {
			scopes = append(scopes, scope{scopeOwner, ""})
		}
		if v.caller.Has("My Schedule:Appointments") {
			scopes = append(scopes, scope{scopeAgent, v.caller.ID})
		}
	}
	var ranges []store.Range[*pb.Appointment]
	for _, s := range scopes {
		for _, state := range states {
			ranges = append(ranges, inScope.Range(s.kind, s.id, state))
		}
	}
	return ranges
}

// find returns the appointment if it exists for the caller.
func (v viewer) find(tx *store.Tx, id string) (*pb.Appointment, error) {
	a, ok := appointments.Get(tx, id)
	if !ok || !v.sees(a) {
		return nil, fault.NotFound("appointment", id)
	}
	return a, nil
}

// zoneOf returns the time zone of a service agent.
func zoneOf(agent *pb.ServiceAgent) *time.Location {
	loc, err := time.LoadLocation(agent.GetTimeZone())
	if err != nil {
		return time.UTC // the zone is gone from a newer database
	}
	return loc
}
