package scheduling

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

// suite is scheduling alone on a real port, with a clock of its own. Its service
// agents are put into the store, because making one asks identity; that is tested
// with the real peers, in peers_test.go.
type suite struct {
	*servertest.Server
	t     *testing.T
	db    *store.DB
	clock *clock
	made  atomic.Int64 // service agents put into the store
}

// noon is what the clock of a suite shows at first.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func newSuite(t *testing.T) *suite {
	s := &suite{t: t, clock: &clock{now: noon}}
	part := Part
	part.Start = func(env *server.Env) error {
		s.db = env.Store
		return start(env)
	}
	s.Server = servertest.StartAt(t, s.clock.read, part)
	t.Cleanup(s.Verify)
	return s
}

// clock shows what a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// client is somebody who is signed in.
type client struct {
	*servertest.User
	pb.AppointmentServiceClient
	agents pb.ServiceAgentServiceClient
}

func as(u *servertest.User) client {
	return client{u, pb.NewAppointmentServiceClient(u), pb.NewServiceAgentServiceClient(u)}
}

// officeGrants are whatever has to do with appointments, with the sight of every owner's.
var officeGrants = []string{
	"Appointments:Create", "Appointments:Edit", "Dispatch", "Organization", "Organization: Service Agents",
	"Appointments:Grid:All", "Appointments:Grid:Backlog", "Appointments:Grid:InProgress", "Appointments:Grid:Upcoming",
	"Appointments:Finish:AddParts", "Appointments:Finish:SendCompletion", "setting:alter_start_finish",
	"Contacts", "Contacts:View", "View:OwnedBy:Me", "View:OwnedBy:Others", "View:OwnedBy:Nobody",
}

func (s *suite) office() client { return as(s.As(officeGrants...)) }

// technician is a user with these grants and "My Schedule:Appointments" who is a
// service agent.
func (s *suite) technician(grants ...string) (client, *pb.ServiceAgent) {
	c := as(s.As(append(grants, "My Schedule:Appointments")...))
	return c, s.putAgent(c.ID, "Europe/Berlin")
}

// inApp is the same user in a session of the app.
func (s *suite) inApp(c client, grants ...string) client {
	return as(s.AsUser(c.ID, authz.SurfaceApp, append(grants, "App")...))
}

func (s *suite) putAgent(userID, zone string) *pb.ServiceAgent {
	s.t.Helper()
	agent := &pb.ServiceAgent{
		Id: servertest.UUID(int(s.made.Add(1)) + 1000), UserId: userID,
		DisplayName: proto.String("Agent"), TimeZone: proto.String(zone), Active: proto.Bool(true),
	}
	s.update(func(tx *store.Tx) error { return agents.Put(tx, agent) })
	return agent
}

func (s *suite) tenant() context.Context {
	return store.WithOrigin(s.t.Context(), store.Origin{Tenant: s.Organization, Method: "test"})
}

func (s *suite) update(f func(*store.Tx) error) {
	s.t.Helper()
	if err := s.db.Update(s.tenant(), f); err != nil {
		s.t.Fatal(err)
	}
}

// stored returns an appointment as it is on disk.
func (s *suite) stored(id string) *pb.Appointment {
	s.t.Helper()
	var a *pb.Appointment
	err := s.db.View(s.tenant(), func(tx *store.Tx) error {
		a, _ = appointments.Get(tx, id)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// create creates an appointment.
func (c client) create(t *testing.T, req *pb.CreateAppointmentRequest) *pb.Appointment {
	t.Helper()
	resp, err := c.CreateAppointment(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetAppointment()
}

// queued creates an appointment of an hour in the queue.
func (c client) queued(t *testing.T) *pb.Appointment {
	t.Helper()
	return c.create(t, &pb.CreateAppointmentRequest{
		Style: pb.AppointmentStyle_APPOINTMENT_STYLE_QUEUED, Title: "Mend the boiler", Duration: durationpb.New(time.Hour),
	})
}

// scheduled creates an appointment of an hour for the service agent.
func (c client) scheduled(t *testing.T, agent *pb.ServiceAgent, start time.Time) *pb.Appointment {
	t.Helper()
	return c.create(t, adHoc(agent, start, time.Hour))
}

func adHoc(agent *pb.ServiceAgent, start time.Time, d time.Duration) *pb.CreateAppointmentRequest {
	return &pb.CreateAppointmentRequest{
		Style: pb.AppointmentStyle_APPOINTMENT_STYLE_AD_HOC, Title: "Mend the boiler", Duration: durationpb.New(d),
		ServiceAgentId: agent.GetId(), StartTime: timestamppb.New(start),
	}
}

// inState creates an appointment of the service agent and leads it to a state.
func (c client) inState(t *testing.T, agent *pb.ServiceAgent, start time.Time, state pb.AppointmentState) *pb.Appointment {
	t.Helper()
	if state == queued {
		return c.queued(t)
	}
	a := c.scheduled(t, agent, start)
	must := func(got *pb.Appointment, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		a = got
	}
	if state == cancelled {
		resp, err := c.CancelAppointment(t.Context(), &pb.CancelAppointmentRequest{Id: a.GetId(), Reason: "Not needed."})
		must(resp.GetAppointment(), err)
	}
	if state == inProgress || state == finished {
		resp, err := c.StartAppointment(t.Context(), &pb.StartAppointmentRequest{Id: a.GetId()})
		must(resp.GetAppointment(), err)
	}
	if state == finished {
		resp, err := c.FinishAppointment(t.Context(), &pb.FinishAppointmentRequest{Id: a.GetId()})
		must(resp.GetAppointment(), err)
	}
	return a
}

// outcome returns "OK", or the code and the reason of an error.
func outcome(err error) string {
	if err == nil {
		return "OK"
	}
	return status.Code(err).String() + " " + info(err).GetReason()
}

func info(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return i
		}
	}
	return nil
}

// wantOutcome compares what a call came to.
func wantOutcome(t *testing.T, call string, err error, want string) {
	t.Helper()
	if got := outcome(err); got != want {
		t.Errorf("%s: got %s (%v), want %s", call, got, err, want)
	}
}

// wantEqual compares two messages whole.
func wantEqual(t *testing.T, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// ids returns the ids of appointments in their order.
func ids(all []*pb.Appointment) []string {
	found := []string{}
	for _, a := range all {
		found = append(found, a.GetId())
	}
	return found
}

// withoutActions returns the appointment as it is stored.
func withoutActions(a *pb.Appointment) *pb.Appointment {
	a = proto.Clone(a).(*pb.Appointment)
	a.AvailableActions = nil
	return a
}
