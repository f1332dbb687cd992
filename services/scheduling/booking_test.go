package scheduling

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/store"
)

func TestOverlapLeavesOutTheEnd(t *testing.T) {
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	for _, c := range []struct {
		from, to int // of another appointment, beside one from 0 to 60
		want     bool
	}{
		{-60, 0, false}, {-60, 1, true}, {0, 60, true}, {10, 20, true}, {-10, 70, true}, {59, 90, true}, {60, 90, false},
	} {
		if got := overlap(at(0), at(60), at(c.from), at(c.to)); got != c.want {
			t.Errorf("overlap(0 to 60, %d to %d): got %v, want %v", c.from, c.to, got, c.want)
		}
		if got := overlap(at(c.from), at(c.to), at(0), at(60)); got != c.want {
			t.Errorf("overlap(%d to %d, 0 to 60): got %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

func TestActualTimes(t *testing.T) {
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	stamp := func(minutes int) *timestamppb.Timestamp { return timestamppb.New(at(minutes)) }
	const recorded, now = 0, 60
	for _, c := range []struct {
		start, finish *timestamppb.Timestamp
		want          string
	}{
		{nil, nil, "0 60"},
		{stamp(-30), nil, "-30 60"},
		{nil, stamp(50), "0 50"},
		{stamp(10), stamp(20), "10 20"},
		{stamp(-31 * 24 * 60), nil, ""},
		{stamp(-31*24*60 + 60), nil, fmt.Sprint(-31*24*60+60, " 60")},
		{stamp(60), nil, ""},
		{nil, stamp(0), ""},
		{nil, stamp(-1), ""},
		{nil, stamp(61), ""},
		{stamp(20), stamp(10), ""},
		{&timestamppb.Timestamp{Seconds: 1 << 60}, nil, ""},
		{nil, &timestamppb.Timestamp{Nanos: -1}, ""},
	} {
		from, to, err := actualTimes(at(recorded), at(now), c.start, c.finish)
		got := fmt.Sprint(int(from.Sub(noon).Minutes()), " ", int(to.Sub(noon).Minutes()))
		if err != nil {
			got = ""
		}
		if got != c.want {
			t.Errorf("actualTimes(%v, %v): got %q (%v), want %q", c.start, c.finish, got, err, c.want)
		}
	}
}

func TestDoubleBookingIsRefused(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	_, other := s.technician()
	taken := office.scheduled(t, agent, noon)
	for _, c := range []struct {
		agent *pb.ServiceAgent
		start time.Time
		d     time.Duration
		want  string
	}{
		{agent, noon, time.Hour, "FailedPrecondition DOUBLE_BOOKING"},
		{agent, noon.Add(59 * time.Minute), time.Hour, "FailedPrecondition DOUBLE_BOOKING"},
		{agent, noon.Add(-time.Hour).Add(time.Second), time.Hour, "FailedPrecondition DOUBLE_BOOKING"},
		{agent, noon.Add(-23 * time.Hour).Add(time.Second), 24 * time.Hour, "FailedPrecondition DOUBLE_BOOKING"},
		{agent, noon.Add(-24 * time.Hour), 24 * time.Hour, "OK"},
		{agent, noon.Add(time.Hour), time.Hour, "OK"},
		{other, noon, time.Hour, "OK"},
	} {
		_, err := office.CreateAppointment(t.Context(), adHoc(c.agent, c.start, c.d))
		wantOutcome(t, fmt.Sprintf("create at %v for %v", c.start, c.d), err, c.want)
	}
	waiting := office.queued(t)
	_, err := office.AssignAppointment(t.Context(), &pb.AssignAppointmentRequest{
		Id: waiting.GetId(), ServiceAgentId: agent.GetId(), StartTime: timestamppb.New(noon.Add(30 * time.Minute)),
	})
	wantOutcome(t, "assign", err, "FailedPrecondition DOUBLE_BOOKING")
	if got := info(err).GetMetadata(); got["agent_id"] != agent.GetId() || got["appointment_id"] != taken.GetId() {
		t.Errorf("metadata: got %v, want agent %s and appointment %s", got, agent.GetId(), taken.GetId())
	}
	wantEqual(t, "the queued one", s.stored(waiting.GetId()), withoutActions(waiting))

	// Moving it within its own time collides with nothing; cancelling frees the time.
	_, err = office.RescheduleAppointment(t.Context(), &pb.RescheduleAppointmentRequest{Id: taken.GetId(), StartTime: timestamppb.New(noon)})
	wantOutcome(t, "reschedule to the same time", err, "OK")
	_, err = office.CancelAppointment(t.Context(), &pb.CancelAppointmentRequest{Id: taken.GetId(), Reason: "Not needed."})
	wantOutcome(t, "cancel", err, "OK")
	_, err = office.CreateAppointment(t.Context(), adHoc(agent, noon, time.Hour))
	wantOutcome(t, "create in the freed time", err, "OK")
}

// TestDoubleBookingNamesOnlyWhatTheCallerSees has a caller who may not see other
// owners' appointments.
func TestDoubleBookingNamesOnlyWhatTheCallerSees(t *testing.T) {
	s := newSuite(t)
	_, agent := s.technician()
	s.office().scheduled(t, agent, noon)
	clerk := as(s.As("Appointments:Create", "View:OwnedBy:Me"))
	_, err := clerk.CreateAppointment(t.Context(), adHoc(agent, noon, time.Hour))
	wantOutcome(t, "create", err, "FailedPrecondition DOUBLE_BOOKING")
	if got := info(err).GetMetadata(); len(got) != 1 || got["agent_id"] != agent.GetId() {
		t.Errorf("metadata: got %v, want the agent alone", got)
	}
}

// TestNeverTwoAtOnce lets sixteen callers book, move and free the time of three
// service agents at random, while another looks at the store.
func TestNeverTwoAtOnce(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	var team []*pb.ServiceAgent
	var work []string
	for range 3 {
		_, agent := s.technician()
		team = append(team, agent)
	}
	for range 24 {
		work = append(work, office.queued(t).GetId())
	}
	done := make(chan struct{})
	var looker sync.WaitGroup
	looker.Go(func() {
		for {
			s.checkNoOverlap(team)
			select {
			case <-done:
				s.checkNoOverlap(team)
				return
			default:
			}
		}
	})
	var callers sync.WaitGroup
	var happened sync.Map
	for i := range 16 {
		callers.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 40 {
				name, err := bookAtRandom(t, office, r, team, work)
				switch status.Code(err) {
				case codes.OK, codes.FailedPrecondition:
				default:
					t.Errorf("%s: got %v, want OK or FAILED_PRECONDITION", name, err)
				}
				happened.Store(name+" "+outcome(err), true)
			}
		})
	}
	callers.Wait()
	close(done)
	looker.Wait()
	for _, want := range []string{"assign OK", "assign FailedPrecondition DOUBLE_BOOKING", "move OK", "move FailedPrecondition DOUBLE_BOOKING", "unassign OK", "create OK"} {
		if _, ok := happened.Load(want); !ok {
			t.Errorf("%q never happened: the test shows nothing", want)
		}
	}
}

func bookAtRandom(t *testing.T, c client, r *rand.Rand, team []*pb.ServiceAgent, work []string) (name string, err error) {
	agent, id := team[r.IntN(len(team))], work[r.IntN(len(work))]
	start := timestamppb.New(noon.Add(time.Duration(r.IntN(5*60)) * time.Minute))
	switch n := r.IntN(10); {
	case n < 4:
		_, err = c.AssignAppointment(t.Context(), &pb.AssignAppointmentRequest{Id: id, ServiceAgentId: agent.GetId(), StartTime: start})
		return "assign", err
	case n < 7:
		_, err = c.RescheduleAppointment(t.Context(), &pb.RescheduleAppointmentRequest{Id: id, StartTime: start})
		return "move", err
	case n < 9:
		_, err = c.UnassignAppointment(t.Context(), &pb.UnassignAppointmentRequest{Id: id})
		return "unassign", err
	}
	made, err := c.CreateAppointment(t.Context(), adHoc(agent, start.AsTime(), time.Duration(1+r.IntN(120))*time.Minute))
	if err != nil {
		return "create", err
	}
	_, err = c.CancelAppointment(t.Context(), &pb.CancelAppointmentRequest{Id: made.GetAppointment().GetId(), Reason: "At random."})
	return "create", err
}

// checkNoOverlap looks at all that takes time in one snapshot.
func (s *suite) checkNoOverlap(team []*pb.ServiceAgent) {
	err := s.db.View(s.tenant(), func(tx *store.Tx) error {
		for _, agent := range team {
			var before *pb.Appointment
			for a := range busy.Scan(tx, busy.Range(agent.GetId())) {
				if before != nil && a.GetStartTime().AsTime().Before(before.GetEndTime().AsTime()) {
					s.t.Errorf("agent %s has two appointments at once:\n%v\n%v", agent.GetId(), before, a)
				}
				before = a
			}
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
}

func TestStartTimeIsBounded(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	for _, c := range []struct {
		start *timestamppb.Timestamp
		want  string
	}{
		{timestamppb.New(noon.Add(-maxLate)), "OK"},
		{timestamppb.New(noon.Add(-maxLate - 1)), "InvalidArgument FIELD_INVALID"},
		{timestamppb.New(noon.Add(maxAhead)), "OK"},
		{timestamppb.New(noon.Add(maxAhead + 1)), "InvalidArgument FIELD_INVALID"},
		{&timestamppb.Timestamp{Seconds: 1 << 62}, "InvalidArgument FIELD_INVALID"},
		{&timestamppb.Timestamp{Seconds: noon.Unix(), Nanos: 1_000_000_000}, "InvalidArgument FIELD_INVALID"},
	} {
		req := adHoc(agent, noon, time.Hour)
		req.StartTime = c.start
		_, err := office.CreateAppointment(t.Context(), req)
		wantOutcome(t, fmt.Sprint("create at ", c.start), err, c.want)
	}
	for _, d := range []time.Duration{-time.Hour, 0, 59 * time.Second, 24*time.Hour + 1} {
		req := adHoc(agent, noon, time.Hour)
		req.Duration = durationpb.New(d)
		_, err := office.CreateAppointment(t.Context(), req)
		wantOutcome(t, fmt.Sprint("create for ", d), err, "InvalidArgument FIELD_INVALID")
	}
}
