package scheduling

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/servertest"
)

func weekly(day pb.Weekday, start, end int32) *pb.Shift {
	return &pb.Shift{Weekday: day, StartMinute: start, EndMinute: end}
}

func (c client) setShifts(t *testing.T, id string, shifts ...*pb.Shift) error {
	t.Helper()
	_, err := c.agents.UpdateServiceAgent(t.Context(), &pb.UpdateServiceAgentRequest{
		ServiceAgent: &pb.ServiceAgent{Id: id, Shifts: shifts}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"shifts"}},
	})
	return err
}

func TestShiftsAreChecked(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	mon := pb.Weekday_WEEKDAY_MONDAY
	many := make([]*pb.Shift, 51)
	for i := range many {
		many[i] = weekly(mon, int32(i), 600)
	}
	for _, shifts := range [][]*pb.Shift{
		{weekly(mon, 480, 480)}, {weekly(mon, 480, 400)}, {weekly(mon, 480, 1921)}, {weekly(mon, 1440, 1500)}, {weekly(mon, -1, 60)},
		{weekly(0, 480, 960)}, {weekly(8, 480, 960)}, {weekly(mon, 480, 600), weekly(mon, 480, 700)}, many,
	} {
		wantOutcome(t, fmt.Sprint(shifts), office.setShifts(t, agent.GetId(), shifts...), "InvalidArgument FIELD_INVALID")
		if got := office.agent(t, agent.GetId()).GetShifts(); len(got) != 0 {
			t.Errorf("after the refusal of %v: got %v", shifts, got)
		}
	}
	want := []*pb.Shift{weekly(mon, 0, 1440), weekly(mon, 1439, 2879), weekly(pb.Weekday_WEEKDAY_SUNDAY, 480, 960)}
	wantOutcome(t, "good ones", office.setShifts(t, agent.GetId(), want...), "OK")
	for i, got := range office.agent(t, agent.GetId()).GetShifts() {
		wantEqual(t, "kept", got, want[i])
	}
	wantOutcome(t, "none any more", office.setShifts(t, agent.GetId()), "OK")
	if got := office.agent(t, agent.GetId()).GetShifts(); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
}

// TestWorkDays asks as another service does.
func TestWorkDays(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	tech, agent := s.technician() // in Berlin; it is Wednesday, 4 March 2026
	wantOutcome(t, "shifts", office.setShifts(t, agent.GetId(),
		weekly(pb.Weekday_WEEKDAY_MONDAY, 480, 720), weekly(pb.Weekday_WEEKDAY_MONDAY, 780, 960), weekly(pb.Weekday_WEEKDAY_FRIDAY, 1320, 1800)), "OK")
	peer := pb.NewServiceAgentServiceClient(s.Service("identity"))
	lookup := func(user string) *pb.LookupWorkDaysResponse {
		t.Helper()
		resp, err := peer.LookupWorkDays(t.Context(), &pb.LookupWorkDaysRequest{UserId: user, Time: timestamppb.New(s.clock.read())})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	day := func(start, end string) *pb.WorkDay {
		at := func(text string) *timestamppb.Timestamp {
			v, err := time.Parse(time.RFC3339, text)
			if err != nil {
				t.Fatal(err)
			}
			return timestamppb.New(v)
		}
		return &pb.WorkDay{StartTime: at(start), EndTime: at(end)}
	}
	monday, friday, next := day("2026-03-02T07:00:00Z", "2026-03-02T15:00:00Z"),
		day("2026-03-06T21:00:00Z", "2026-03-07T05:00:00Z"), day("2026-03-09T07:00:00Z", "2026-03-09T15:00:00Z")
	want := &pb.LookupWorkDaysResponse{ServiceAgentId: agent.GetId(), TimeZone: "Europe/Berlin", WorkDays: []*pb.WorkDay{monday, friday, next}}
	wantEqual(t, "shifts alone", lookup(tech.ID), want)
	wantEqual(t, "of nobody", lookup(servertest.UUID(1)), &pb.LookupWorkDaysResponse{})

	office.inState(t, agent, noon.Add(24*time.Hour), cancelled)
	late := office.inState(t, agent, noon.Add(-time.Hour), inProgress)
	today := &pb.WorkDay{StartTime: late.GetStartTime(), EndTime: timestamppb.New(s.clock.read().Add(10 * time.Minute))}
	if late.GetEndTime().AsTime().After(today.EndTime.AsTime()) {
		today.EndTime = late.GetEndTime()
	}
	want.WorkDays = []*pb.WorkDay{monday, today, friday, next}
	wantEqual(t, "with one in progress", lookup(tech.ID), want)
	s.clock.set(noon.Add(3 * time.Hour))
	today.EndTime = timestamppb.New(noon.Add(3*time.Hour + 10*time.Minute))
	wantEqual(t, "with one that is late", lookup(tech.ID), want)
	office.dispose(t, late)
	today.EndTime = timestamppb.New(noon.Add(3 * time.Hour))
	wantEqual(t, "when that is finished", lookup(tech.ID), want)

	_, err := office.agents.UpdateServiceAgent(t.Context(), &pb.UpdateServiceAgentRequest{
		ServiceAgent: &pb.ServiceAgent{Id: agent.GetId(), Active: proto.Bool(false)},
	})
	wantOutcome(t, "rest", err, "OK")
	want.WorkDays = []*pb.WorkDay{today}
	wantEqual(t, "who is not active works no shifts", lookup(tech.ID), want)

	_, err = office.agents.LookupWorkDays(t.Context(), &pb.LookupWorkDaysRequest{UserId: tech.ID, Time: timestamppb.New(noon)})
	wantOutcome(t, "by a person", err, "PermissionDenied INTERNAL_ONLY")
	_, err = peer.LookupWorkDays(t.Context(), &pb.LookupWorkDaysRequest{UserId: tech.ID})
	wantOutcome(t, "at no time", err, "InvalidArgument FIELD_INVALID")
	_, err = peer.LookupWorkDays(t.Context(), &pb.LookupWorkDaysRequest{UserId: tech.ID, Time: &timestamppb.Timestamp{Nanos: -1}})
	wantOutcome(t, "at a time that is none", err, "InvalidArgument FIELD_INVALID")
}

// TestShown compares what clocks show at each minute of days on which they are changed
// with what shown says.
func TestShown(t *testing.T) {
	for name, days := range map[string][]string{
		"Europe/Berlin": {"2026-03-29", "2026-10-25", "2026-07-01"}, "Australia/Lord_Howe": {"2026-04-05", "2026-10-04"},
		"America/Havana": {"2026-03-08", "2026-11-01"}, "Pacific/Apia": {"2011-12-30"}, "America/New_York": {"2026-11-01"},
	} {
		loc, err := zone(name, "time_zone")
		if err != nil {
			t.Fatal(err)
		}
		for _, day := range days {
			midnight, err := time.Parse(time.DateOnly, day)
			if err != nil {
				t.Fatal(err)
			}
			for minute := 0; minute < 24*60; minute += 15 {
				clock := midnight.Add(time.Duration(minute) * time.Minute)
				var first, last, put time.Time
				before := clock.Add(-40 * time.Hour)
				for at := before; at.Before(clock.Add(40 * time.Hour)); at = at.Add(15 * time.Minute) {
					_, offset := at.In(loc).Zone()
					switch shows := at.Add(time.Duration(offset) * time.Second); {
					case shows.Equal(clock):
						if first.IsZero() {
							first = at
						}
						last = at
					case shows.After(clock) && put.IsZero():
						put = at
					}
				}
				if first.IsZero() {
					first, last = put, put
				}
				if gotFirst, gotLast := shown(clock, loc); !gotFirst.Equal(first) || !gotLast.Equal(last) {
					t.Errorf("%s, %v: got %v and %v, want %v and %v", name, clock, gotFirst, gotLast, first, last)
				}
			}
		}
	}
}
