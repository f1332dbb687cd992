package scheduling

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	// daysBefore and daysAfter are how far an answer reaches around its instant. What
	// began three days ago can matter still: it is 24 hours long at most, as what is added
	// to it.
	daysBefore, daysAfter = 3, 7
	// lateFor is how long work that is late counts as going on at least.
	lateFor = 10 * time.Minute

	minutesOfDay = 24 * 60
)

func (s *serviceAgentService) LookupWorkDays(ctx context.Context, req *pb.LookupWorkDaysRequest) (*pb.LookupWorkDaysResponse, error) {
	if err := req.GetTime().CheckValid(); err != nil {
		return nil, fault.Invalid("time", "must be a time")
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.LookupWorkDaysResponse, error) {
		agent, ok := agentByUser.First(tx, req.GetUserId())
		if !ok {
			return &pb.LookupWorkDaysResponse{}, nil
		}
		return &pb.LookupWorkDaysResponse{
			ServiceAgentId: agent.GetId(), TimeZone: agent.GetTimeZone(), WorkDays: workDays(tx, agent, req.GetTime().AsTime()),
		}, nil
	})
}

// workDays returns the days around an instant on which a service agent works.
func workDays(tx *store.Tx, agent *pb.ServiceAgent, at time.Time) (days []*pb.WorkDay) {
	loc := zoneOf(agent)
	var of [daysBefore + 1 + daysAfter]span
	first := startOfDay(at, -daysBefore, loc)
	for i := range of {
		if agent.GetActive() {
			of[i] = shiftsOn(agent.GetShifts(), civil(at, i-daysBefore, loc), loc)
		}
	}
	end := startOfDay(at, daysAfter+1, loc)
	for _, state := range []pb.AppointmentState{scheduled, inProgress, finished} {
		r := inScope.Range(scopeAgent, agent.GetUserId(), state).From(first).To(end)
		for a := range inScope.Scan(tx, r) {
			day := int(civil(a.GetStartTime().AsTime(), 0, loc).Sub(civil(at, -daysBefore, loc)) / (24 * time.Hour))
			of[day].add(workOf(a, at))
		}
	}
	for _, day := range of {
		if !day.start.IsZero() {
			days = append(days, &pb.WorkDay{StartTime: timestamppb.New(day.start), EndTime: timestamppb.New(day.end)})
		}
	}
	return days
}

// span is a time from one instant to another; none if it is zero.
type span struct{ start, end time.Time }

// add widens a span so that it has another too.
func (s *span) add(o span) {
	if o.start.IsZero() {
		return
	}
	if s.start.IsZero() {
		*s = o
		return
	}
	if o.start.Before(s.start) {
		s.start = o.start
	}
	if o.end.After(s.end) {
		s.end = o.end
	}
}

// workOf is how long an appointment takes as far as is known at an instant, by the
// server's clock: what the service agent says of it does not lengthen it.
func workOf(a *pb.Appointment, at time.Time) span {
	s := span{a.GetStartTime().AsTime(), a.GetEndTime().AsTime()}
	if begun := a.GetRecordedStart(); begun != nil && begun.AsTime().Before(s.start) {
		s.start = begun.AsTime()
	}
	switch done := a.GetRecordedFinish(); {
	case done != nil && done.AsTime().After(s.end):
		s.end = done.AsTime()
	case a.GetState() == inProgress && at.Add(lateFor).After(s.end):
		s.end = at.Add(lateFor)
	}
	return s
}

// shiftsOn returns from when until when the shifts are that begin on a day.
func shiftsOn(shifts []*pb.Shift, midnight time.Time, loc *time.Location) (day span) {
	weekday := pb.Weekday((int(midnight.Weekday())+6)%7 + 1) // ISO 8601
	for _, shift := range shifts {
		if shift.GetWeekday() != weekday {
			continue
		}
		start, _ := shown(midnight.Add(time.Duration(shift.GetStartMinute())*time.Minute), loc)
		_, end := shown(midnight.Add(time.Duration(shift.GetEndMinute())*time.Minute), loc)
		if start.Before(end) {
			day.add(span{start, end})
		}
	}
	return day
}

// checkShifts returns nil if a service agent can have the shifts.
func checkShifts(shifts []*pb.Shift, field string) error {
	for i, shift := range shifts {
		if long := shift.GetEndMinute() - shift.GetStartMinute(); long <= 0 || long > minutesOfDay {
			return fault.Invalid(fmt.Sprintf("%s[%d].end_minute", field, i), "must be after start_minute, by %d minutes at most", minutesOfDay)
		}
		if slices.ContainsFunc(shifts[:i], func(before *pb.Shift) bool {
			return before.GetWeekday() == shift.GetWeekday() && before.GetStartMinute() == shift.GetStartMinute()
		}) {
			return fault.Invalid(fmt.Sprintf("%s[%d]", field, i), "must not begin when another one does")
		}
	}
	return nil
}
