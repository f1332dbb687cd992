package identity_test

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/permissions"
	"latchkey.dev/services/scheduling"
)

const (
	onApp = pb.Surface_SURFACE_APP
	onWeb = pb.Surface_SURFACE_WEB
	onAPI = pb.Surface_SURFACE_API
)

var withScheduling = []server.Part{identity.Cheap, permissions.Part, scheduling.Part}

// working is a suite with scheduling, whose clock shows what the test sets.
type working struct {
	*caller // the owner
	clock   *atomic.Pointer[time.Time]
}

func newWorking(t *testing.T, now string) *working {
	t.Helper()
	w := &working{clock: &atomic.Pointer[time.Time]{}}
	w.set(now)
	s := start(t, config(t), w.now, withScheduling...)
	s.ready()
	w.caller = s.claim()
	return w
}

func (w *working) now() time.Time { return *w.clock.Load() }

// set sets the clock, to a time of RFC 3339.
func (w *working) set(text string) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	w.clock.Store(&at)
}

func (s *suite) serviceAgents() schedulingpb.ServiceAgentServiceClient {
	return schedulingpb.NewServiceAgentServiceClient(s.conn)
}

func (s *suite) appointments() schedulingpb.AppointmentServiceClient {
	return schedulingpb.NewAppointmentServiceClient(s.conn)
}

// agent is somebody who uses the app for work.
type agent struct {
	*caller
	id string // of the service agent
}

// employ adds a service agent with the role for the app.
func (c *caller) employ(name, zone string, shifts ...*schedulingpb.Shift) *agent {
	c.t.Helper()
	u := c.add(name, "SA")
	u.surface = onApp
	return &agent{u, c.makeAgent(u, zone, shifts...)}
}

func (c *caller) makeAgent(u *caller, zone string, shifts ...*schedulingpb.Shift) string {
	c.t.Helper()
	resp, err := c.serviceAgents().CreateServiceAgent(c.ctx(), &schedulingpb.CreateServiceAgentRequest{
		UserId: u.user.GetId(), TimeZone: zone, Shifts: shifts,
	})
	mustNot(c.t, err)
	return resp.GetServiceAgent().GetId()
}

// restrict bounds the use of the app around the work; nil lifts the bound.
func (c *caller) restrict(u *caller, bounds *permissionspb.LoginRestrictions) {
	c.t.Helper()
	_, err := c.access().UpdateUserSettings(c.ctx(), &permissionspb.UpdateUserSettingsRequest{
		UserId: u.user.GetId(), Settings: &permissionspb.UserSettings{LoginRestrictions: bounds},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"login_restrictions"}},
	})
	mustNot(c.t, err)
}

func minutes(before, after int32) *permissionspb.LoginRestrictions {
	return &permissionspb.LoginRestrictions{BeforeMinutes: before, AfterMinutes: after}
}

func shift(day time.Weekday, start, end int32) *schedulingpb.Shift {
	return &schedulingpb.Shift{Weekday: schedulingpb.Weekday((int(day)+6)%7 + 1), StartMinute: start, EndMinute: end}
}

// book gives a service agent an appointment.
func (c *caller) book(agent, start string, long time.Duration) *schedulingpb.Appointment {
	c.t.Helper()
	at, err := time.Parse(time.RFC3339, start)
	mustNot(c.t, err)
	resp, err := c.appointments().CreateAppointment(c.ctx(), &schedulingpb.CreateAppointmentRequest{
		Style: schedulingpb.AppointmentStyle_APPOINTMENT_STYLE_AD_HOC, Title: "Mend", Duration: durationpb.New(long),
		ServiceAgentId: agent, StartTime: timestamppb.New(at),
	})
	mustNot(c.t, err)
	return resp.GetAppointment()
}

// infoOf is what an error says beside its reason.
func infoOf(err error) map[string]string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetMetadata()
		}
	}
	return nil
}

func (c *caller) trySignInOn(surface pb.Surface) error {
	_, err := c.sessions().CreateSession(c.t.Context(), &pb.CreateSessionRequest{
		Email: c.email, Password: c.password, Surface: surface, ValidateOnly: true,
	})
	return err
}

// plan is the work of a service agent, and what it lets in.
type plan struct {
	name, zone   string
	shifts       []*schedulingpb.Shift
	appointments map[string]time.Duration
	bounds       *permissionspb.LoginRestrictions
	in, out      []string // when he may use the app, and when not
	from, until  string   // what the first refusal says
}

var plans = []plan{
	{
		name: "a day", zone: "Europe/Berlin", bounds: minutes(30, 30),
		shifts: []*schedulingpb.Shift{shift(time.Wednesday, 8*60, 12*60), shift(time.Wednesday, 13*60, 16*60)},
		in:     []string{"2026-03-04T06:30:00Z", "2026-03-04T11:30:00Z", "2026-03-04T15:29:59Z"},
		out:    []string{"2026-03-04T06:29:59Z", "2026-03-04T15:30:00Z", "2026-03-08T12:00:00Z"},
		from:   "2026-03-04T07:30:00+01:00", until: "2026-03-04T16:30:00+01:00",
	},
	{
		name: "over midnight", zone: "America/New_York", bounds: minutes(10, 20),
		shifts: []*schedulingpb.Shift{shift(time.Friday, 22*60, 30*60)},
		in:     []string{"2026-03-07T02:50:00Z", "2026-03-07T05:00:00Z", "2026-03-07T11:19:59Z"},
		out:    []string{"2026-03-07T11:20:00Z", "2026-03-07T02:49:59Z"},
		from:   "2026-03-13T21:50:00-04:00", until: "2026-03-14T06:20:00-04:00",
	},
	{
		name: "appointments alone", zone: "Australia/Sydney", bounds: minutes(0, 0),
		appointments: map[string]time.Duration{"2026-03-04T22:00:00Z": time.Hour, "2026-03-05T03:00:00Z": 2 * time.Hour},
		in:           []string{"2026-03-04T22:00:00Z", "2026-03-05T01:00:00Z", "2026-03-05T04:59:59Z"},
		out:          []string{"2026-03-04T21:59:59Z", "2026-03-05T05:00:00Z"},
		from:         "2026-03-05T09:00:00+11:00", until: "2026-03-05T16:00:00+11:00",
	},
	{
		name: "an appointment before the shift", zone: "UTC", bounds: minutes(60, 0),
		shifts:       []*schedulingpb.Shift{shift(time.Thursday, 8*60, 16*60)},
		appointments: map[string]time.Duration{"2026-03-05T06:00:00Z": time.Hour},
		in:           []string{"2026-03-05T05:00:00Z", "2026-03-05T15:59:00Z", "2026-03-12T07:00:00Z"},
		out:          []string{"2026-03-05T04:59:00Z", "2026-03-05T16:00:00Z", "2026-03-12T06:59:00Z"},
		from:         "2026-03-05T05:00:00Z", until: "2026-03-05T16:00:00Z",
	},
	{name: "no work", zone: "UTC", bounds: minutes(1440, 1440), out: []string{"2026-03-04T12:00:00Z"}},
	{
		name: "the whole day before, and after", zone: "Europe/Berlin", bounds: minutes(1440, 1440),
		shifts: []*schedulingpb.Shift{shift(time.Wednesday, 23*60, 47*60)},
		in:     []string{"2026-03-03T22:00:00Z", "2026-03-06T21:59:00Z"},
		out:    []string{"2026-03-03T21:59:00Z", "2026-03-06T22:00:00Z"},
		from:   "2026-03-03T23:00:00+01:00", until: "2026-03-06T23:00:00+01:00",
	},
	{
		name: "clocks put forward over the begin", zone: "Europe/Berlin", bounds: minutes(30, 30),
		shifts: []*schedulingpb.Shift{shift(time.Sunday, 150, 10*60)},
		in:     []string{"2026-03-29T00:30:00Z", "2026-03-29T08:29:00Z"},
		out:    []string{"2026-03-29T00:29:00Z", "2026-03-29T08:30:00Z"},
		from:   "2026-03-29T01:30:00+01:00", until: "2026-03-29T10:30:00+02:00",
	},
	{
		name: "clocks put forward in the night", zone: "Europe/Berlin", bounds: minutes(0, 0), shifts: night,
		in:   []string{"2026-03-28T21:00:00Z", "2026-03-29T03:59:00Z"},
		out:  []string{"2026-03-29T04:00:00Z", "2026-03-28T20:59:00Z"},
		from: "2026-04-04T22:00:00+02:00", until: "2026-04-05T06:00:00+02:00",
	},
	{
		name: "clocks put back over the begin", zone: "Europe/Berlin", bounds: minutes(30, 30),
		shifts: []*schedulingpb.Shift{shift(time.Sunday, 150, 10*60)},
		in:     []string{"2026-10-25T00:00:00Z", "2026-10-25T09:29:00Z"},
		out:    []string{"2026-10-24T23:59:00Z", "2026-10-25T09:30:00Z"},
		from:   "2026-10-25T02:00:00+02:00", until: "2026-10-25T10:30:00+01:00",
	},
	{
		name: "clocks put back over the end", zone: "Europe/Berlin", bounds: minutes(0, 30),
		shifts: []*schedulingpb.Shift{shift(time.Saturday, 18*60, 26*60+30)},
		in:     []string{"2026-10-24T16:00:00Z", "2026-10-25T01:59:00Z"},
		out:    []string{"2026-10-25T02:00:00Z", "2026-10-24T15:59:00Z"},
		from:   "2026-10-31T18:00:00+01:00", until: "2026-11-01T03:00:00+01:00",
	},
}

var night = []*schedulingpb.Shift{shift(time.Saturday, 22*60, 30*60)}

// TestHours signs service agents in around their work. All of it is told from a process
// whose own time zone is none of theirs.
func TestHours(t *testing.T) {
	w := newWorking(t, "2026-03-02T09:00:00Z")
	for _, c := range plans {
		t.Run(c.name, func(t *testing.T) {
			w.set("2026-03-02T09:00:00Z")
			a := w.employ(strings.NewReplacer(" ", "-", ",", "").Replace(c.name), c.zone, c.shifts...)
			w.restrict(a.caller, c.bounds)
			for start, long := range c.appointments {
				w.book(a.id, start, long)
			}
			for _, at := range c.in {
				w.set(at)
				if err := a.trySignInOn(onApp); err != nil {
					t.Errorf("%s: got %v", at, err)
				}
			}
			for i, at := range c.out {
				w.set(at)
				err := a.trySignInOn(onApp)
				check(t, at, err, codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
				if got := infoOf(err); i == 0 && (got["from"] != c.from || got["until"] != c.until) {
					t.Errorf("%s: got %v, want from %s until %s", at, got, c.from, c.until)
				}
			}
		})
	}
}

// TestHoursOfASession follows a session through changes of plan.
func TestHoursOfASession(t *testing.T) {
	w := newWorking(t, "2026-03-04T07:00:00Z")
	a := w.employ("anna", "Europe/Berlin", shift(time.Wednesday, 8*60, 12*60))
	w.restrict(a.caller, minutes(30, 30))
	plain := a.signIn("")
	fresh := a.signInWith(&pb.CreateSessionRequest{WithRefresh: true})
	refresh := func() error {
		resp, err := fresh.sessions().RefreshSession(t.Context(), &pb.RefreshSessionRequest{RefreshToken: fresh.refresh})
		if err == nil {
			fresh.token, fresh.refresh = resp.GetToken(), resp.GetRefreshToken()
		}
		return err
	}
	use := func(c *caller) error {
		_, err := c.profiles().GetProfile(c.ctx(), &pb.GetProfileRequest{})
		return err
	}
	mustNot(t, use(plain))
	w.set("2026-03-04T11:29:00Z")
	mustNot(t, use(plain))
	mustNot(t, refresh())
	mustNot(t, use(fresh))

	w.set("2026-03-04T11:30:00Z")
	for what, err := range map[string]error{"a session": use(plain), "one that can be refreshed": use(fresh), "to refresh": refresh()} {
		check(t, "after work, "+what, err, codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
	}
	// As often as nobody may be wrong.
	for range 8 {
		check(t, "to sign in", a.trySignInOn(onApp), codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
	}
	check(t, "as a program", a.trySignInOn(onAPI), codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
	wrong := *a.caller
	wrong.password = "a wrong one"
	check(t, "with a wrong password", wrong.trySignInOn(onApp), codes.Unauthenticated, "SIGN_IN_FAILED")

	owner := w.signIn("")
	added := owner.book(a.id, "2026-03-04T15:00:00Z", time.Hour)
	mustNot(t, use(plain))
	mustNot(t, refresh())
	_, err := owner.appointments().CancelAppointment(owner.ctx(), &schedulingpb.CancelAppointmentRequest{Id: added.GetId(), Reason: "Away."})
	mustNot(t, err)
	mustNot(t, use(plain)) // what is known holds for five minutes
	w.set("2026-03-04T11:35:00Z")
	check(t, "after a cancellation", use(plain), codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
	check(t, "to refresh after it", refresh(), codes.PermissionDenied, "OUTSIDE_WORK_HOURS")

	owner.restrict(a.caller, nil)
	mustNot(t, use(plain))
	mustNot(t, refresh())
	mustNot(t, use(fresh))

	// A group says it for all of its users, and a user's own settings stand over it.
	groups := permissionspb.NewGroupServiceClient(owner.conn)
	group, err := groups.CreateGroup(owner.ctx(), &permissionspb.CreateGroupRequest{
		Name: "By the hour", RoleId: "SA", Settings: &permissionspb.UserSettings{LoginRestrictions: minutes(0, 0)},
	})
	mustNot(t, err)
	_, err = owner.access().SetUserGroup(owner.ctx(), &permissionspb.SetUserGroupRequest{UserId: a.user.GetId(), GroupId: group.GetGroup().GetId()})
	mustNot(t, err)
	check(t, "in the group", a.trySignInOn(onApp), codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
	owner.restrict(a.caller, minutes(0, 60))
	mustNot(t, a.trySignInOn(onApp))
	owner.restrict(a.caller, nil)
	owner.permit(a.caller, "Web")
	mustNot(t, a.trySignInOn(onWeb))
	mustNot(t, a.trySignInOn(onAPI)) // it opens no more than the web does
	check(t, "in the app, who may use the web", a.trySignInOn(onApp), codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
}

// TestHoursOfWorkThatIsLate lets in who has not finished yet, and for as long after.
func TestHoursOfWorkThatIsLate(t *testing.T) {
	w := newWorking(t, "2026-03-04T07:00:00Z")
	a := w.employ("late", "Europe/Berlin")
	w.restrict(a.caller, minutes(15, 15))
	visit := w.book(a.id, "2026-03-04T07:10:00Z", time.Hour)
	c := a.signIn("")
	_, err := c.appointments().StartAppointment(c.ctx(), &schedulingpb.StartAppointmentRequest{Id: visit.GetId()})
	mustNot(t, err)
	w.set("2026-03-04T12:00:00Z") // hours after it should have ended
	mustNot(t, a.trySignInOn(onApp))
	_, err = c.appointments().FinishAppointment(c.ctx(), &schedulingpb.FinishAppointmentRequest{Id: visit.GetId()})
	mustNot(t, err)
	w.set("2026-03-04T12:14:59Z")
	mustNot(t, a.trySignInOn(onApp))
	w.set("2026-03-04T12:15:00Z")
	check(t, "after it", a.trySignInOn(onApp), codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
}

// TestHoursWithoutScheduling shows what goes on when scheduling cannot be asked: sessions,
// until the hour that was known; nobody comes in.
func TestHoursWithoutScheduling(t *testing.T) {
	w := newWorking(t, "2026-03-04T07:00:00Z")
	a, free := w.employ("anna", "Europe/Berlin", shift(time.Wednesday, 8*60, 12*60)), w.employ("free", "Europe/Berlin")
	w.restrict(a.caller, minutes(0, 0))
	fresh := a.signInWith(&pb.CreateSessionRequest{WithRefresh: true})
	session := a.signIn("")
	w.Stop()
	alone := start(t, w.config, w.now, identity.Cheap, permissions.Part)
	alone.ready()
	session, fresh, a.caller, free.caller = session.in(alone), fresh.in(alone), a.in(alone), free.in(alone)

	check(t, "to sign in", a.trySignInOn(onApp), codes.Unavailable, "SERVICE_UNREACHABLE")
	_, err := fresh.sessions().RefreshSession(t.Context(), &pb.RefreshSessionRequest{RefreshToken: fresh.refresh})
	check(t, "to refresh", err, codes.Unavailable, "SERVICE_UNREACHABLE")
	mustNot(t, free.trySignInOn(onApp))
	if !session.signedIn(session.token) {
		t.Error("a session that is known to be within its hours is not accepted")
	}
	w.set("2026-03-04T11:00:00Z")
	_, err = session.profiles().GetProfile(session.ctx(), &pb.GetProfileRequest{})
	check(t, "after work", err, codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
}

// SECURITY: outside of the hours no path lets a service agent in on the app, as a program
// or as the person of a client, neither at once nor after a restart.
func TestGateOutsideHours(t *testing.T) {
	s := start(t, config(t), time.Now, withScheduling...)
	s.ready()
	owner := s.claim()
	c := owner.actedOn("late", onApp)
	for _, who := range []string{c.user.GetId(), c.strong.user.GetId(), c.beneath} {
		for key, effect := range map[string]permissionspb.Effect{"App": permissionspb.Effect_EFFECT_GRANT, "Web": permissionspb.Effect_EFFECT_DENY} {
			_, err := owner.access().SetOverride(owner.ctx(), &permissionspb.SetOverrideRequest{UserId: who, Key: key, Effect: effect})
			mustNot(t, err)
		}
	}
	closed := map[string]bool{}
	for _, cell := range identity.Gate() {
		closed[cell.Path] = closed[cell.Path] || cell.Block == "outside hours"
	}
	// Who acts in his name has hours of her own.
	closed["show an actor's token"] = false
	for way, path := range pathOnPage {
		closed[way] = closed[path]
	}
	for path, way := range ways {
		if err := way(c); err != nil {
			t.Errorf("%s, within the hours: %v", path, err)
		}
	}
	for _, who := range []*caller{c, c.strong} {
		owner.makeAgent(who, "Europe/Berlin")
		owner.restrict(who, minutes(0, 0))
	}
	for _, when := range []string{"at once", "after a restart"} {
		for _, token := range []string{c.token, c.personCall, c.strong.token} {
			check(t, when+", a session", c.resolve(token), codes.PermissionDenied, "OUTSIDE_WORK_HOURS")
		}
		for _, path := range slices.Sorted(maps.Keys(ways)) {
			switch err := ways[path](c); {
			case !closed[path] && err != nil:
				t.Errorf("%s, %s: got %v of a path that knows no hours", when, path, err)
			case closed[path] && status.Code(err) != codes.PermissionDenied && status.Code(err) != codes.Unauthenticated:
				t.Errorf("%s, %s: got %v, want a refusal", when, path, err)
			}
		}
		if when == "at once" {
			c = c.in(s.again())
		}
	}
}
