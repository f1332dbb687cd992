package scheduling

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"
)

// TestFutureVisibilityEndsWithTheDay looks ahead over the days on which clocks
// change, from the first and the last second of a day.
func TestFutureVisibilityEndsWithTheDay(t *testing.T) {
	const days = 7
	for _, c := range []struct {
		zone  string
		dates []string // on which clocks change
	}{
		{"Europe/Berlin", []string{"2026-03-29", "2026-10-25"}},
		{"America/New_York", []string{"2026-03-08", "2026-11-01"}},
		{"Australia/Sydney", []string{"2026-04-05", "2026-10-04"}},
		{"Australia/Lord_Howe", []string{"2026-04-05", "2026-10-04"}},
	} {
		s := newSuite(t)
		office := s.office()
		tech := as(s.As("My Schedule:Appointments", "Appointments:Grid:Upcoming"))
		agent := s.putAgent(tech.ID, c.zone)
		tech.Set("future_visibility", strconv.Itoa(days))
		loc, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, date := range c.dates {
			change, err := time.ParseInLocation(time.DateOnly, date, loc)
			if err != nil {
				t.Fatal(err)
			}
			for _, before := range []int{-1, 0, 3, days, days + 1} {
				today := change.AddDate(0, 0, -before)
				limit := today.AddDate(0, 0, days+1)
				s.clock.set(today)
				inside := office.create(t, adHoc(agent, limit.Add(-time.Minute), time.Minute))
				outside := office.create(t, adHoc(agent, limit, time.Minute))
				for _, now := range []time.Time{today, today.AddDate(0, 0, 1).Add(-time.Second)} {
					s.clock.set(now)
					name := fmt.Sprintf("%s, %v", c.zone, now)
					tech.wantSeen(t, name, inside, true)
					tech.wantSeen(t, name, outside, false)
				}
				s.clock.set(today.AddDate(0, 0, 1))
				tech.wantSeen(t, fmt.Sprintf("%s, the day after %v", c.zone, today), outside, true)
				office.dispose(t, inside)
				office.dispose(t, outside)
			}
		}
	}
}

// wantSeen asks for an appointment in each way there is.
func (c client) wantSeen(t *testing.T, name string, a *pb.Appointment, seen bool) {
	t.Helper()
	want := map[bool]string{true: "OK", false: "NotFound RECORD_NOT_FOUND"}[seen]
	_, err := c.GetAppointment(t.Context(), &pb.GetAppointmentRequest{Id: a.GetId()})
	wantOutcome(t, name+": get", err, want)
	mine, err := c.ListMySchedule(t.Context(), &pb.ListMyScheduleRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Contains(ids(mine.GetAppointments()), a.GetId()); got != seen {
		t.Errorf("%s: in the own schedule: got %v, want %v", name, got, seen)
	}
	upcoming, err := c.ListAppointments(t.Context(), &pb.ListAppointmentsRequest{View: pb.AppointmentView_APPOINTMENT_VIEW_UPCOMING})
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Contains(ids(upcoming.GetAppointments()), a.GetId()); got != seen {
		t.Errorf("%s: in the upcoming ones: got %v, want %v", name, got, seen)
	}
}

// TestFutureVisibilityIsOfTheOwnSchedule hides from a dispatcher who is a service
// agent too what lies ahead of himself, and nothing of others.
func TestFutureVisibilityIsOfTheOwnSchedule(t *testing.T) {
	s := newSuite(t)
	boss, own := s.technician(officeGrants...)
	_, other := s.technician()
	far := noon.Add(30 * 24 * time.Hour)
	mine, others := boss.scheduled(t, own, far), boss.scheduled(t, other, far)
	for _, c := range []struct {
		days string
		want string
	}{
		{"", "OK"}, {"0", "NotFound RECORD_NOT_FOUND"}, {"29", "NotFound RECORD_NOT_FOUND"}, {"30", "OK"},
		{"36501", "OK"}, {"9223372036854775807", "OK"}, {"-1", "NotFound RECORD_NOT_FOUND"},
	} {
		boss.Set("future_visibility", c.days)
		_, err := boss.GetAppointment(t.Context(), &pb.GetAppointmentRequest{Id: mine.GetId()})
		wantOutcome(t, "own with "+c.days, err, c.want)
		_, err = boss.CancelAppointment(t.Context(), &pb.CancelAppointmentRequest{Id: mine.GetId(), Reason: "?", ValidateOnly: true})
		wantOutcome(t, "cancel own with "+c.days, err, c.want)
		_, err = boss.GetAppointment(t.Context(), &pb.GetAppointmentRequest{Id: others.GetId()})
		wantOutcome(t, "another's with "+c.days, err, "OK")
	}

	// The time is taken all the same, by what he is not told.
	boss.Set("future_visibility", "7")
	_, err := boss.CreateAppointment(t.Context(), adHoc(own, far, time.Hour))
	wantOutcome(t, "book over the hidden one", err, "FailedPrecondition DOUBLE_BOOKING")
	if got := info(err).GetMetadata()["appointment_id"]; got != "" {
		t.Errorf("the refusal names the hidden appointment %s", got)
	}

	// Work that has begun is not a plan any more.
	if _, err := s.office().StartAppointment(t.Context(), &pb.StartAppointmentRequest{Id: mine.GetId()}); err != nil {
		t.Fatal(err)
	}
	_, err = boss.FinishAppointment(t.Context(), &pb.FinishAppointmentRequest{Id: mine.GetId()})
	wantOutcome(t, "finish what began early", err, "OK")
}

func TestMySchedule(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	tech, agent := s.technician()
	_, other := s.technician()
	at := func(hours int) time.Time { return noon.Add(time.Duration(hours) * time.Hour) }
	office.inState(t, agent, at(-40), finished) // before today
	late := office.scheduled(t, agent, at(-30))
	running := office.inState(t, agent, at(-26), inProgress)
	done := office.inState(t, agent, at(-2), finished)
	office.inState(t, agent, at(0), cancelled)
	next := office.scheduled(t, agent, at(1))
	office.scheduled(t, other, at(1))
	office.queued(t)
	want := ids([]*pb.Appointment{late, running, done, next})

	var got []string
	req := &pb.ListMyScheduleRequest{PageSize: 1}
	for {
		resp, err := tech.ListMySchedule(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range resp.GetAppointments() {
			got = append(got, a.GetId())
			wantEqual(t, "an appointment of the schedule", a, tech.get(t, a.GetId()))
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}

	_, err := as(s.As("My Schedule:Appointments")).ListMySchedule(t.Context(), &pb.ListMyScheduleRequest{})
	wantOutcome(t, "of nobody's", err, "FailedPrecondition NO_SERVICE_AGENT")
	_, err = s.office().ListMySchedule(t.Context(), &pb.ListMyScheduleRequest{})
	wantOutcome(t, "without the key", err, "PermissionDenied GRANT_MISSING")
	tech.Grant("Appointments:Grid:All", "Web")
	_, err = tech.GetAppointment(t.Context(), &pb.GetAppointmentRequest{Id: next.GetId()})
	wantOutcome(t, "the own without the key", err, "NotFound RECORD_NOT_FOUND")
}
