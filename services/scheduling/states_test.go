package scheduling

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/servertest"
)

var allStates = []pb.AppointmentState{queued, scheduled, inProgress, finished, cancelled}

// method is one call that changes an appointment, with valid arguments.
type method struct {
	name string // full
	from []pb.AppointmentState
	to   pb.AppointmentState
	call func(c client, t *testing.T, a *pb.Appointment, agent *pb.ServiceAgent, etag string) (*pb.Appointment, error)
}

// later is free in every test that walks the table.
var later = timestamppb.New(noon.Add(10 * 24 * time.Hour))

// methods says again, apart from the table, what is allowed.
var methods = []method{
	{
		name: pb.AppointmentService_AssignAppointment_FullMethodName,
		from: []pb.AppointmentState{queued}, to: scheduled,
		call: func(c client, t *testing.T, a *pb.Appointment, agent *pb.ServiceAgent, etag string) (*pb.Appointment, error) {
			resp, err := c.AssignAppointment(t.Context(), &pb.AssignAppointmentRequest{
				Id: a.GetId(), Etag: etag, ServiceAgentId: agent.GetId(), StartTime: later,
			})
			return resp.GetAppointment(), err
		},
	},
	{
		name: pb.AppointmentService_UnassignAppointment_FullMethodName,
		from: []pb.AppointmentState{scheduled}, to: queued,
		call: func(c client, t *testing.T, a *pb.Appointment, _ *pb.ServiceAgent, etag string) (*pb.Appointment, error) {
			resp, err := c.UnassignAppointment(t.Context(), &pb.UnassignAppointmentRequest{Id: a.GetId(), Etag: etag})
			return resp.GetAppointment(), err
		},
	},
	{
		name: pb.AppointmentService_RescheduleAppointment_FullMethodName,
		from: []pb.AppointmentState{scheduled}, to: scheduled,
		call: func(c client, t *testing.T, a *pb.Appointment, _ *pb.ServiceAgent, etag string) (*pb.Appointment, error) {
			resp, err := c.RescheduleAppointment(t.Context(), &pb.RescheduleAppointmentRequest{Id: a.GetId(), Etag: etag, StartTime: later})
			return resp.GetAppointment(), err
		},
	},
	{
		name: pb.AppointmentService_StartAppointment_FullMethodName,
		from: []pb.AppointmentState{scheduled}, to: inProgress,
		call: func(c client, t *testing.T, a *pb.Appointment, _ *pb.ServiceAgent, etag string) (*pb.Appointment, error) {
			resp, err := c.StartAppointment(t.Context(), &pb.StartAppointmentRequest{Id: a.GetId(), Etag: etag})
			return resp.GetAppointment(), err
		},
	},
	{
		name: pb.AppointmentService_FinishAppointment_FullMethodName,
		from: []pb.AppointmentState{inProgress}, to: finished,
		call: func(c client, t *testing.T, a *pb.Appointment, _ *pb.ServiceAgent, etag string) (*pb.Appointment, error) {
			resp, err := c.FinishAppointment(t.Context(), &pb.FinishAppointmentRequest{Id: a.GetId(), Etag: etag, Summary: "Done."})
			return resp.GetAppointment(), err
		},
	},
	{
		name: pb.AppointmentService_CancelAppointment_FullMethodName,
		from: []pb.AppointmentState{queued, scheduled}, to: cancelled,
		call: func(c client, t *testing.T, a *pb.Appointment, _ *pb.ServiceAgent, etag string) (*pb.Appointment, error) {
			resp, err := c.CancelAppointment(t.Context(), &pb.CancelAppointmentRequest{Id: a.GetId(), Etag: etag, Reason: "Not needed."})
			return resp.GetAppointment(), err
		},
	},
}

// TestStatesAndMethods calls every method in every state, and compares what it came
// to with what available_actions had said.
func TestStatesAndMethods(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	for _, state := range allStates {
		for _, m := range methods {
			name := fmt.Sprintf("%s in %s", short(m.name), state)
			a := office.inState(t, agent, noon, state)
			want := "OK"
			if !slices.Contains(m.from, state) {
				want = "FailedPrecondition STATE_FORBIDS"
			}
			for _, action := range a.GetAvailableActions() {
				if action.GetMethod() == m.name[1:] && (action.GetAllowed() != (want == "OK") || !strings.HasSuffix(want, action.GetReason())) {
					t.Errorf("%s: available_actions said %v, want %s", name, action, want)
				}
			}
			got, err := m.call(office, t, a, agent, "")
			wantOutcome(t, name, err, want)
			if want == "OK" {
				if got.GetState() != m.to {
					t.Errorf("%s: got state %v, want %v", name, got.GetState(), m.to)
				}
				wantEqual(t, name, withoutActions(got), s.stored(a.GetId()))
			} else {
				if got := info(err).GetMetadata(); got["kind"] != "appointment" || got["id"] != a.GetId() || len(strings.Split(got["allowed"], ",")) != len(m.from) {
					t.Errorf("%s: got metadata %v", name, got)
				}
				wantEqual(t, name, s.stored(a.GetId()), withoutActions(a))
			}
			office.dispose(t, s.stored(a.GetId()))
		}
	}
}

// dispose makes the time of an appointment free.
func (c client) dispose(t *testing.T, a *pb.Appointment) {
	t.Helper()
	var err error
	switch a.GetState() {
	case queued, scheduled:
		_, err = c.CancelAppointment(t.Context(), &pb.CancelAppointmentRequest{Id: a.GetId(), Reason: "Over."})
	case inProgress:
		_, err = c.FinishAppointment(t.Context(), &pb.FinishAppointmentRequest{Id: a.GetId()})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTableIsWholeAndAsSaid(t *testing.T) {
	rows := table.Rows()
	if len(rows) != len(methods) {
		t.Fatalf("got %d rows, want %d", len(rows), len(methods))
	}
	for i, row := range rows {
		want := methods[i].to
		if row.To == 0 {
			want = scheduled // stays
		}
		if row.Method != methods[i].name || !slices.Equal(row.From, methods[i].from) || methods[i].to != want {
			t.Errorf("row %d: got %s from %v to %v, want %s from %v to %v", i, row.Method, row.From, row.To, methods[i].name, methods[i].from, methods[i].to)
		}
	}
}

// TestEveryChangeKeepsTheHouseRules sends each change with a stale etag, as a dry
// run, twice under one request id, and to ids that the caller cannot reach.
func TestEveryChangeKeepsTheHouseRules(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	stranger := as(s.InOrganization(servertest.UUID(77)).As(officeGrants...))
	_, agent := s.technician()
	for _, m := range methods {
		a := office.inState(t, agent, noon, m.from[0])
		before := s.stored(a.GetId())

		_, err := m.call(office, t, a, agent, "0")
		wantOutcome(t, short(m.name)+" with a stale etag", err, "Aborted ETAG_STALE")
		if got := info(err).GetMetadata()["etag"]; got != a.GetEtag() {
			t.Errorf("%s: got etag %q in the refusal, want %q", short(m.name), got, a.GetEtag())
		}
		_, err = m.call(stranger, t, a, agent, "")
		wantOutcome(t, short(m.name)+" from another organization", err, "NotFound RECORD_NOT_FOUND")
		unknown := &pb.Appointment{Id: servertest.UUID(1)}
		_, err2 := m.call(office, t, unknown, agent, "")
		wantOutcome(t, short(m.name)+" of an unknown id", err2, "NotFound RECORD_NOT_FOUND")
		if got, want := sentence(err, a.GetId()), sentence(err2, unknown.GetId()); got != want {
			t.Errorf("%s: another organization's answers %q, an unknown one %q", short(m.name), got, want)
		}
		_, err = m.call(office, t, &pb.Appointment{Id: "no uuid"}, agent, "")
		wantOutcome(t, short(m.name)+" of a malformed id", err, "InvalidArgument FIELD_INVALID")
		wantEqual(t, short(m.name)+" refused", s.stored(a.GetId()), before)

		got, err := m.call(office, t, a, agent, a.GetEtag())
		wantOutcome(t, short(m.name)+" with the current etag", err, "OK")
		office.dispose(t, got)
	}
}

func TestChangesRepeatAndRehearse(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	a := office.queued(t)
	req := &pb.AssignAppointmentRequest{Id: a.GetId(), ServiceAgentId: agent.GetId(), StartTime: later, ValidateOnly: true, RequestId: servertest.UUID(5)}
	resp, err := office.AssignAppointment(t.Context(), req)
	if err != nil || resp.GetAppointment().GetState() != scheduled {
		t.Fatalf("dry run: got %v, %v, want it scheduled", resp, err)
	}
	wantEqual(t, "after the dry run", s.stored(a.GetId()), withoutActions(a))

	req.ValidateOnly = false
	first, err := office.AssignAppointment(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := office.UnassignAppointment(t.Context(), &pb.UnassignAppointmentRequest{Id: a.GetId()}); err != nil {
		t.Fatal(err)
	}
	again, err := office.AssignAppointment(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "the repeat", again, first)
	if got := s.stored(a.GetId()).GetState(); got != queued {
		t.Errorf("after the repeat: got %v, want QUEUED", got)
	}
	req.StartTime = timestamppb.New(noon)
	_, err = office.AssignAppointment(t.Context(), req)
	wantOutcome(t, "the request id for another request", err, "InvalidArgument REQUEST_ID_REUSED")
}

// TestWhoMayCall gives a caller exactly one grant beside the sight of everything.
func TestWhoMayCall(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	sight := []string{"View:OwnedBy:Others", "Appointments:Grid:All"}
	all := []string{"Dispatch", "Appointments:Edit", "Appointments:Create", "My Schedule:Appointments", "setting:reschedule_appointments"}
	allowed := map[string][]string{
		"AssignAppointment": {"Dispatch"}, "UnassignAppointment": {"Dispatch"}, "CancelAppointment": {"Appointments:Edit"},
		"RescheduleAppointment": {"Appointments:Edit"}, "StartAppointment": {"Dispatch"}, "FinishAppointment": {"Dispatch"},
	}
	for _, m := range methods {
		for _, grant := range all {
			a := office.inState(t, agent, noon, m.from[0])
			c := as(s.As(append(sight, grant)...))
			_, err := m.call(c, t, a, agent, "")
			if slices.Contains(allowed[short(m.name)], grant) {
				wantOutcome(t, short(m.name)+" with "+grant, err, "OK")
			} else if status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s with %s: got %v, want PERMISSION_DENIED", short(m.name), grant, err)
			}
			office.dispose(t, s.stored(a.GetId()))
		}
	}
}

// TestOwnWork lets a service agent work on the own appointments and no other.
func TestOwnWork(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	tech, agent := s.technician("Appointments:Grid:All", "View:OwnedBy:Others")
	_, other := s.technician()
	own, others := office.scheduled(t, agent, noon), office.scheduled(t, other, noon)
	for _, name := range []string{"StartAppointment", "FinishAppointment"} {
		m := methods[slices.IndexFunc(methods, func(m method) bool { return short(m.name) == name })]
		_, err := m.call(tech, t, others, other, "")
		wantOutcome(t, name+" of another's", err, "PermissionDenied RELATION_MISSING")
		_, err = m.call(tech, t, own, agent, "")
		wantOutcome(t, name+" of the own", err, "OK")
		if name == "StartAppointment" {
			_, err = m.call(office, t, others, other, "")
			wantOutcome(t, name+" by a dispatcher", err, "OK")
		}
	}
}

// TestRescheduleInTheApp has the setting decide in the app, and the permission
// everywhere else.
func TestRescheduleInTheApp(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	tech, agent := s.technician()
	_, other := s.technician()
	own, others := office.scheduled(t, agent, noon), office.scheduled(t, other, noon)
	const setting, edit, schedule = "setting:reschedule_appointments", "Appointments:Edit", "My Schedule:Appointments"
	for _, c := range []struct {
		app    bool
		a      *pb.Appointment
		grants []string
		want   string
	}{
		{true, own, []string{schedule, setting}, "OK"},
		{true, own, []string{schedule, edit}, "PermissionDenied GRANT_MISSING"},
		{true, own, []string{schedule, setting, edit}, "OK"},
		{true, others, []string{schedule, setting, "View:OwnedBy:Others", "Appointments:Grid:All"}, "PermissionDenied RELATION_MISSING"},
		{true, others, []string{schedule, setting, "View:OwnedBy:Others", edit}, "OK"},
		{false, own, []string{schedule, setting}, "PermissionDenied GRANT_MISSING"},
		{false, own, []string{schedule, edit}, "OK"},
		{false, others, []string{schedule, edit, "View:OwnedBy:Others"}, "OK"},
		{false, others, []string{schedule, edit}, "NotFound RECORD_NOT_FOUND"},
	} {
		caller := s.inApp(tech, c.grants...)
		if !c.app {
			caller = tech
			caller.Grant(append(c.grants, "Web")...)
		}
		name := fmt.Sprintf("app %v, own %v, %v", c.app, c.a == own, c.grants)
		got, err := caller.GetAppointment(t.Context(), &pb.GetAppointmentRequest{Id: c.a.GetId()})
		for _, action := range got.GetAppointment().GetAvailableActions() {
			if strings.HasSuffix(action.GetMethod(), "/RescheduleAppointment") && !strings.HasSuffix(c.want, action.GetReason()) {
				t.Errorf("%s: available_actions said %v, want %s", name, action, c.want)
			}
		}
		if err != nil && c.want != "NotFound RECORD_NOT_FOUND" {
			t.Errorf("%s: get: %v", name, err)
		}
		_, err = caller.RescheduleAppointment(t.Context(), &pb.RescheduleAppointmentRequest{Id: c.a.GetId(), StartTime: later})
		wantOutcome(t, name, err, c.want)
	}
}

// sentence returns what an error says, without the id that was asked for.
func sentence(err error, id string) string {
	return strings.ReplaceAll(status.Convert(err).Message(), id, "ID")
}

func short(fullMethod string) string { return fullMethod[strings.LastIndex(fullMethod, "/")+1:] }
