package identity_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	ics "github.com/arran4/golang-ical"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/servertest"
)

func (c *caller) connect() *pb.ConnectCalendarResponse {
	c.t.Helper()
	resp, err := c.calendars().ConnectCalendar(c.ctx(), &pb.ConnectCalendarRequest{})
	mustNot(c.t, err)
	return resp
}

func TestConnectCalendar(t *testing.T) {
	owner := owned(t)
	u := owner.hire("uma", "OA").withKey("Organization")
	get := func() (*pb.CalendarConnection, error) {
		resp, err := u.calendars().GetCalendarConnection(u.ctx(), &pb.GetCalendarConnectionRequest{})
		return resp.GetCalendarConnection(), err
	}
	_, err := get()
	check(t, "before", err, codes.NotFound, "RECORD_NOT_FOUND")
	req := &pb.ConnectCalendarRequest{RequestId: servertest.UUID(1)}
	dry := proto.CloneOf(req)
	dry.ValidateOnly = true
	resp, err := u.calendars().ConnectCalendar(u.ctx(), dry)
	mustNot(t, err)
	if _, err := get(); resp.GetFeedToken() != "" || err == nil {
		t.Error("a call that only validates connected a calendar")
	}
	first, err := u.calendars().ConnectCalendar(u.ctx(), req)
	mustNot(t, err)
	c := first.GetCalendarConnection()
	same(t, "connection", c, &pb.CalendarConnection{
		Id: c.GetId(), Etag: c.GetEtag(), CreateTime: c.GetCreateTime(), UpdateTime: c.GetUpdateTime(),
		UserId: u.user.GetId(), OrganizationId: u.user.GetOrganizationId(),
	})
	if first.GetPath() != "/calendar.ics?token="+first.GetFeedToken() || !strings.HasPrefix(first.GetFeedToken(), "lkf_") {
		t.Errorf("got the token %q at %q", first.GetFeedToken(), first.GetPath())
	}
	again, err := u.calendars().ConnectCalendar(u.ctx(), req)
	mustNot(t, err)
	same(t, "the repeat, which has no token", again, &pb.ConnectCalendarResponse{CalendarConnection: c})
	kept, err := get()
	mustNot(t, err)
	same(t, "kept", kept, c)
	mustNot(t, u.resolve(first.GetFeedToken()))

	second := u.connect()
	check(t, "the address before", u.resolve(first.GetFeedToken()), codes.Unauthenticated, "CREDENTIALS_INVALID")
	mustNot(t, u.resolve(second.GetFeedToken()))
	_, err = u.calendars().DisconnectCalendar(u.ctx(), &pb.DisconnectCalendarRequest{Etag: "0"})
	check(t, "another version", err, codes.Aborted, "ETAG_STALE")
	_, err = u.calendars().DisconnectCalendar(u.ctx(), &pb.DisconnectCalendarRequest{ValidateOnly: true})
	mustNot(t, err)
	mustNot(t, u.resolve(second.GetFeedToken()))
	acting := owner.as(u, owner.actFor(u))
	for what, other := range map[string]*caller{"an API key": u.program(), "who acts for another": acting} {
		_, err := other.calendars().ConnectCalendar(other.ctx(), &pb.ConnectCalendarRequest{})
		check(t, what+" connects", err, codes.PermissionDenied, "IN_PERSON_ONLY")
		_, err = other.calendars().DisconnectCalendar(other.ctx(), &pb.DisconnectCalendarRequest{})
		check(t, what+" disconnects", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	}
	_, err = u.calendars().DisconnectCalendar(u.ctx(), &pb.DisconnectCalendarRequest{})
	mustNot(t, err)
	check(t, "disconnected", u.resolve(second.GetFeedToken()), codes.Unauthenticated, "CREDENTIALS_INVALID")
	_, err = u.calendars().DisconnectCalendar(u.ctx(), &pb.DisconnectCalendarRequest{})
	check(t, "once more", err, codes.NotFound, "RECORD_NOT_FOUND")
}

// SECURITY: who comes back after the membership has ended does not get the feed back.
func TestCalendarEndsWithTheMembership(t *testing.T) {
	owner := owned(t)
	u := owner.hire("uma", "US")
	token := u.connect().GetFeedToken()
	_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: u.user.GetId()})
	mustNot(t, err)
	_, err = owner.users().ReactivateUser(owner.ctx(), &pb.ReactivateUserRequest{Id: u.user.GetId()})
	mustNot(t, err)
	check(t, "reactivated", u.resolve(token), codes.Unauthenticated, "CREDENTIALS_INVALID")
}

// SECURITY: a feed is worth nothing where OAuth tells what a token is worth.
func TestCalendarIsNoToken(t *testing.T) {
	owner := owned(t)
	u := owner.hire("uma", "OA").withKey("Organization")
	machine := owner.register(site("openid"))
	for what, token := range map[string]string{"a feed": u.connect().GetFeedToken(), "a session": u.token} {
		r := machine.introspects(owner.suite, token)
		if active := r.body["active"]; active != (what == "a session") {
			t.Errorf("%s: got %s", what, r.text)
		}
	}
}

// feed reads a feed as a calendar program does.
func (s *suite) feed(path string) (int, string) {
	s.t.Helper()
	r := s.fetch(path)
	if kind := r.header.Get("Content-Type"); r.status == 200 && kind != "text/calendar; charset=utf-8" {
		s.t.Errorf("got a feed of the type %q", kind)
	}
	return r.status, r.text
}

// TestFeed reads a person's schedule as a calendar, and shows that its address opens
// nothing else.
func TestFeed(t *testing.T) {
	w := newWorking(t, "2026-03-04T07:00:00Z")
	a := w.employ("anna", "Europe/Berlin")
	resp, err := w.appointments().CreateAppointment(w.ctx(), &schedulingpb.CreateAppointmentRequest{
		Style: schedulingpb.AppointmentStyle_APPOINTMENT_STYLE_AD_HOC, Title: "Boiler; \"cold\", " + strings.Repeat("très ", 20) + "\r\nATTENDEE:mailto:x@example.com",
		Notes: "The key is under the mat.", ContactName: proto.String("Mrs Lovelace"), ContactPhone: proto.String("0815"),
		Duration: durationpb.New(90 * time.Minute), ServiceAgentId: a.id,
		StartTime: timestamppb.New(time.Date(2026, 3, 5, 8, 30, 0, 0, time.UTC)),
	})
	mustNot(t, err)
	visit := resp.GetAppointment()
	w.book(w.employ("ben", "Europe/Berlin").id, "2026-03-05T08:30:00Z", time.Hour)
	session := a.signIn("")
	connected := session.connect()
	connection := func() *pb.CalendarConnection {
		resp, err := session.calendars().GetCalendarConnection(session.ctx(), &pb.GetCalendarConnectionRequest{})
		mustNot(t, err)
		return resp.GetCalendarConnection()
	}
	if connection().GetLastReadTime() != nil {
		t.Error("nobody has read the feed, and it is said to have been read")
	}
	code, text := w.feed(connected.GetPath())
	if code != 200 {
		t.Fatalf("got %d %s", code, text)
	}
	calendar, err := ics.ParseCalendar(strings.NewReader(text))
	mustNot(t, err)
	events := calendar.Events()
	if len(events) != 1 {
		t.Fatalf("got %d events, want his own one:\n%s", len(events), text)
	}
	start, err := events[0].GetStartAt()
	mustNot(t, err)
	end, err := events[0].GetEndAt()
	mustNot(t, err)
	if !start.Equal(visit.GetStartTime().AsTime()) || !end.Equal(visit.GetEndTime().AsTime()) || events[0].Id() != visit.GetId() {
		t.Errorf("got %s from %v until %v, want %v", events[0].Id(), start, end, visit)
	}
	summary := events[0].GetProperty(ics.ComponentPropertySummary).Value
	if want := strings.Replace(visit.GetTitle(), "\r\n", "  ", 1); summary != want {
		t.Errorf("got the title %q, want %q", summary, want)
	}
	checkFeedText(t, text)
	if !connection().GetLastReadTime().AsTime().Equal(w.now()) {
		t.Errorf("got %v as when the feed was read, want %v", connection().GetLastReadTime().AsTime(), w.now())
	}
	session.opensOneMethod(connected.GetFeedToken(), visit.GetId())
	for path, want := range map[string]int{
		"/calendar.ics": 404, "/calendar.ics?token=": 404, connected.GetPath() + "0": 404, "/calendar.ics?token=" + strings.Repeat("x", 5000): 404,
		"/calendar.ics?token=%0d%0a": 404, "/calendar.ics?token=" + session.token: 404,
	} {
		if got, text := w.feed(path); got != want {
			t.Errorf("%.40s: got %d %s, want %d", path, got, text, want)
		}
	}
	_, err = w.access().SetOverride(w.ctx(), &permissionspb.SetOverrideRequest{
		UserId: a.user.GetId(), Key: "My Schedule:Appointments", Effect: permissionspb.Effect_EFFECT_DENY,
	})
	mustNot(t, err)
	if got, text := w.feed(connected.GetPath()); got != 403 {
		t.Errorf("without the key: got %d %s", got, text)
	}
	_, err = session.calendars().DisconnectCalendar(session.ctx(), &pb.DisconnectCalendarRequest{})
	mustNot(t, err)
	if got, text := w.feed(connected.GetPath()); got != 404 {
		t.Errorf("disconnected: got %d %s", got, text)
	}
}

// checkFeedText shows that a feed has lines of its own alone, and nothing of who is visited.
func checkFeedText(t *testing.T, text string) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSuffix(text, "\r\n"), "\r\n") {
		if strings.HasPrefix(line, "ATTENDEE") || strings.ContainsAny(line, "\r\n") || len(line) > 75 {
			t.Errorf("got the line %q", line)
		}
	}
	for _, secret := range []string{"under the mat", "Lovelace", "0815"} {
		if strings.Contains(text, secret) {
			t.Errorf("the feed has %q:\n%s", secret, text)
		}
	}
}

// opensOneMethod shows what the token of a feed is good for.
//
// SECURITY: whoever finds the address gets nothing else by it.
func (c *caller) opensOneMethod(token, visit string) {
	c.t.Helper()
	found := *c
	found.token = token
	if _, err := found.appointments().ListMySchedule(found.ctx(), &schedulingpb.ListMyScheduleRequest{}); err != nil {
		c.t.Errorf("its own method: %v", err)
	}
	_, err := found.profiles().GetProfile(found.ctx(), &pb.GetProfileRequest{})
	check(c.t, "the profile", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	_, err = found.appointments().StartAppointment(found.ctx(), &schedulingpb.StartAppointmentRequest{Id: visit})
	check(c.t, "to start", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	_, err = found.appointments().GetAppointment(found.ctx(), &schedulingpb.GetAppointmentRequest{Id: visit})
	check(c.t, "to read one", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	_, err = found.calendars().GetCalendarConnection(found.ctx(), &pb.GetCalendarConnectionRequest{})
	check(c.t, "the connection", err, codes.PermissionDenied, "IN_PERSON_ONLY")
}

// ask reads a feed with If-None-Match.
func (s *suite) ask(path, etag string) (status int, header http.Header, text string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.HTTPAddr()+path, nil)
	mustNot(s.t, err)
	if etag != "" {
		r.Header.Set("If-None-Match", etag)
	}
	resp, err := http.DefaultClient.Do(r)
	mustNot(s.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	mustNot(s.t, err)
	return resp.StatusCode, resp.Header, string(b)
}

// A program asks whether something has changed; a change, a move over a change of the
// clocks and a cancellation are there at the next read.
func TestFeedIsAskedAgain(t *testing.T) {
	w := newWorking(t, "2026-03-27T07:00:00Z")
	a := w.employ("anna", "Europe/Berlin")
	// Around the hour that the clocks leave out in Berlin: 1:30 of winter, 3:30 of summer.
	before := w.book(a.id, "2026-03-29T00:30:00Z", 30*time.Minute)
	after := w.book(a.id, "2026-03-29T01:30:00Z", 30*time.Minute)
	path := a.signIn("").connect().GetPath()
	status, header, text := w.ask(path, "")
	etag := header.Get("ETag")
	if status != 200 || etag == "" || header.Get("Cache-Control") != "private, no-cache" {
		t.Fatalf("got %d, %v", status, header)
	}
	for _, line := range []string{"DTSTART:20260329T003000Z", "DTEND:20260329T010000Z", "DTSTART:20260329T013000Z", "DTEND:20260329T020000Z"} {
		if !strings.Contains(text, line+"\r\n") {
			t.Errorf("the feed lacks %s:\n%s", line, text)
		}
	}
	w.set("2026-03-27T07:20:00Z")
	for _, known := range []string{etag, "W/" + etag, `"other", ` + etag} {
		if status, _, text := w.ask(path, known); status != 304 || text != "" {
			t.Errorf("with %s: got %d %q, want 304", known, status, text)
		}
	}
	if status, _, _ := w.ask(path, `"other"`); status != 200 {
		t.Errorf("with another ETag: got %d", status)
	}
	changed := func(what string, change func() error) {
		t.Helper()
		mustNot(t, change())
		status, header, _ := w.ask(path, etag)
		if status != 200 || header.Get("ETag") == etag {
			t.Errorf("%s: got %d with the ETag %s", what, status, header.Get("ETag"))
		}
		etag = header.Get("ETag")
	}
	changed("moved", func() error {
		_, err := w.appointments().RescheduleAppointment(w.ctx(), &schedulingpb.RescheduleAppointmentRequest{
			Id: after.GetId(), StartTime: timestamppb.New(time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC)),
		})
		return err
	})
	changed("cancelled", func() error {
		_, err := w.appointments().CancelAppointment(w.ctx(), &schedulingpb.CancelAppointmentRequest{Id: before.GetId(), Reason: "away"})
		return err
	})
	if _, _, text := w.ask(path, ""); strings.Contains(text, before.GetId()) || !strings.Contains(text, "DTSTART:20261025T003000Z\r\n") {
		t.Errorf("after both:\n%s", text)
	}
}

// SECURITY: the feed has the hours of the app, for whoever may not use the web, so that
// no one looks at his work by it when he may not.
func TestFeedOutsideHours(t *testing.T) {
	w := newWorking(t, "2026-03-04T09:00:00Z")
	a := w.employ("anna", "Europe/Berlin", shift(time.Wednesday, 8*60, 16*60))
	path := a.signIn("").connect().GetPath()
	w.restrict(a.caller, minutes(30, 30))
	for _, at := range []struct {
		now    string
		status int
		pause  string
	}{
		{"2026-03-04T15:29:59Z", 200, ""}, {"2026-03-04T15:30:00Z", 503, "572400"}, // a week, less 9 hours
		{"2026-03-11T06:29:00Z", 503, "60"}, {"2026-03-11T06:30:00Z", 200, ""},
	} {
		w.set(at.now)
		if status, header, text := w.ask(path, ""); status != at.status || header.Get("Retry-After") != at.pause {
			t.Errorf("at %s: got %d, Retry-After %q, %s; want %d, %q", at.now, status, header.Get("Retry-After"), text, at.status, at.pause)
		}
	}
	w.set("2026-03-11T20:00:00Z")
	if status, _, _ := w.ask(path, ""); status != 503 {
		t.Errorf("in the evening: got %d", status)
	}
	w.caller = w.signIn("") // it was a week
	_, err := w.access().SetOverride(w.ctx(), &permissionspb.SetOverrideRequest{UserId: a.user.GetId(), Key: "Web", Effect: permissionspb.Effect_EFFECT_GRANT})
	mustNot(t, err)
	w.set("2026-03-11T20:06:00Z")
	if status, _, text := w.ask(path, ""); status != 200 {
		t.Errorf("in the evening, with the web: got %d %s", status, text)
	}
}
