package scheduling

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/query"
	"latchkey.dev/services/internal/store"
)

type appointmentService struct {
	pb.UnimplementedAppointmentServiceServer
	db    *store.DB
	newID func() string
	peers *peers
}

func (s *appointmentService) CreateAppointment(ctx context.Context, req *pb.CreateAppointmentRequest) (*pb.CreateAppointmentResponse, error) {
	if err := checkStyle(req); err != nil {
		return nil, err
	}
	where, whereErr := s.peers.placeOf(ctx, req.GetServiceRequestId(), place{req.GetPropertyId(), req.GetUnitId()})
	id := s.newID()
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreateAppointmentResponse, error) {
		if whereErr != nil {
			return nil, whereErr
		}
		if cancelledRequests.Has(tx, req.GetServiceRequestId()) {
			return nil, requestOver()
		}
		a := &pb.Appointment{
			Id: id, OwnerId: authz.Caller(ctx).ID, State: queued,
			ServiceRequestId: req.GetServiceRequestId(), PropertyId: where.propertyID, UnitId: where.unitID,
			Title: req.GetTitle(), Notes: req.GetNotes(), Duration: req.GetDuration(),
			ContactName: req.ContactName, ContactPhone: req.ContactPhone,
		}
		if req.GetStyle() == pb.AppointmentStyle_APPOINTMENT_STYLE_AD_HOC {
			agent, err := bookable(tx, req.GetServiceAgentId())
			if err != nil {
				return nil, err
			}
			a.State = scheduled
			if err := book(tx, newViewer(ctx, tx), a, agent, req.GetStartTime()); err != nil {
				return nil, err
			}
		}
		if err := appointments.Put(tx, a); err != nil {
			return nil, err
		}
		return &pb.CreateAppointmentResponse{Appointment: show(ctx, a)}, nil
	})
}

// checkStyle returns nil if what the request carries fits its style.
func checkStyle(req *pb.CreateAppointmentRequest) error {
	timed := req.GetStyle() == pb.AppointmentStyle_APPOINTMENT_STYLE_AD_HOC
	switch {
	case timed && req.GetServiceAgentId() == "":
		return fault.Invalid("service_agent_id", "must be set with style AD_HOC")
	case timed && req.GetStartTime() == nil:
		return fault.Invalid("start_time", "must be set with style AD_HOC")
	case !timed && req.GetServiceAgentId() != "":
		return fault.Invalid("service_agent_id", "must be left out with style QUEUED")
	case !timed && req.GetStartTime() != nil:
		return fault.Invalid("start_time", "must be left out with style QUEUED")
	}
	return nil
}

func (s *appointmentService) GetAppointment(ctx context.Context, req *pb.GetAppointmentRequest) (*pb.GetAppointmentResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetAppointmentResponse, error) {
		a, err := newViewer(ctx, tx).find(tx, req.GetId())
		if err != nil {
			return nil, err
		}
		return &pb.GetAppointmentResponse{Appointment: show(ctx, a)}, nil
	})
}

func (s *appointmentService) ListAppointments(ctx context.Context, req *pb.ListAppointmentsRequest) (*pb.ListAppointmentsResponse, error) {
	filter, err := query.Parse(req.GetFilter(), &pb.Appointment{})
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListAppointmentsResponse, error) {
		v, w := newViewer(ctx, tx), views[req.GetView()]
		ranges := v.ranges(w.states...)
		if w.upcoming {
			for i := range ranges {
				ranges[i] = ranges[i].From(v.now)
			}
		}
		keep := func(a *pb.Appointment) bool { return v.sees(a) && w.shows(a, v.now) && filter.Match(a) }
		page, next, err := store.Page(tx, req, keep, ranges...)
		return &pb.ListAppointmentsResponse{Appointments: showAll(ctx, page), NextPageToken: next}, err
	})
}

func (s *appointmentService) ListMySchedule(ctx context.Context, req *pb.ListMyScheduleRequest) (*pb.ListMyScheduleResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListMyScheduleResponse, error) {
		v := newViewer(ctx, tx)
		agent, ok := agentByUser.First(tx, v.caller.ID)
		if !ok {
			return nil, noServiceAgent()
		}
		ahead := inScope.Range(scopeAgent, v.caller.ID, scheduled)
		if !v.horizon.IsZero() {
			ahead = ahead.To(v.horizon)
		}
		page, next, err := store.Page(tx, req, v.sees, ahead,
			inScope.Range(scopeAgent, v.caller.ID, inProgress),
			inScope.Range(scopeAgent, v.caller.ID, finished).From(startOfDay(v.now, 0, zoneOf(agent))))
		return &pb.ListMyScheduleResponse{Appointments: showAll(ctx, page), NextPageToken: next}, err
	})
}

// changeRequest is a request to change one appointment.
type changeRequest interface {
	proto.Message
	GetId() string
	GetEtag() string
}

// change moves an appointment by the row of a method, and calls do for the rest.
func (s *appointmentService) change(ctx context.Context, tx *store.Tx, req changeRequest, method string, do func(viewer, *pb.Appointment) error) (*pb.Appointment, error) {
	v := newViewer(ctx, tx)
	a, err := v.find(tx, req.GetId())
	if err != nil {
		return nil, err
	}
	if err := appointments.Match(a, req.GetEtag()); err != nil {
		return nil, err
	}
	if err := table.Apply(ctx, method, a); err != nil {
		return nil, err
	}
	if err := do(v, a); err != nil {
		return nil, err
	}
	if err := appointments.Put(tx, a); err != nil {
		return nil, err
	}
	return show(ctx, a), nil
}

// show completes an appointment that leaves.
func show(ctx context.Context, a *pb.Appointment) *pb.Appointment {
	a.AvailableActions = table.Actions(ctx, a)
	return a
}

func showAll(ctx context.Context, all []*pb.Appointment) []*pb.Appointment {
	for _, a := range all {
		show(ctx, a)
	}
	return all
}
