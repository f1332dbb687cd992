package servicerequest

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"
)

func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

func TestTurned(t *testing.T) {
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	timer := func(elapsed, since int) *pb.CycleTimer {
		c := &pb.CycleTimer{Elapsed: durationpb.New(time.Duration(elapsed) * time.Minute)}
		if since >= 0 {
			c.RunningSince = stamp(at(since))
		}
		return c
	}
	tests := []struct {
		name  string
		timer *pb.CycleTimer
		run   bool
		at    int
		want  *pb.CycleTimer
	}{
		{"never started", nil, false, 5, nil},
		{"start", nil, true, 5, timer(0, 5)},
		{"start again", timer(7, -1), true, 5, timer(7, 5)},
		{"go on", timer(7, 5), true, 9, timer(7, 5)},
		{"stop", timer(7, 5), false, 9, timer(11, -1)},
		{"stand", timer(7, -1), false, 9, timer(7, -1)},
		{"clock set back", timer(7, 5), false, 2, timer(7, -1)},
	}
	for _, tt := range tests {
		equal(t, tt.name, turned(tt.timer, tt.run, at(tt.at)), tt.want)
	}
}

// TestCycleTime leads a request through a life and reads its cycle time at each step.
func TestCycleTime(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	id := s.request(p, drafted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = c.ID, c.ID }).GetId()
	someday := &typepb.Date{Year: 2027, Month: 1, Day: 1}
	steps := []struct {
		name    string
		minutes int // before the step
		step    func() error
		want    int // minutes, a minute after the step
	}{
		{"drafted", 10, func() error { return nil }, 0},
		{"requested", 10, func() error {
			_, err := c.RequestServiceRequest(t.Context(), &pb.RequestServiceRequestRequest{Id: id})
			return err
		}, 1},
		{"held", 4, func() error {
			_, err := c.HoldServiceRequest(t.Context(), &pb.HoldServiceRequestRequest{Id: id, Reason: "Waits."})
			return err
		}, 5},
		{"still held", 100, func() error { return nil }, 5},
		{"resumed", 10, func() error {
			_, err := c.ResumeServiceRequest(t.Context(), &pb.ResumeServiceRequestRequest{Id: id})
			return err
		}, 6},
		{"declined", 4, func() error {
			_, err := c.DeclineServiceRequest(t.Context(), &pb.DeclineServiceRequestRequest{Id: id, Reason: "No."})
			return err
		}, 11},
		{"reassigned", 1, func() error {
			_, err := c.ReassignServiceRequest(t.Context(), &pb.ReassignServiceRequestRequest{Id: id, AssigneeId: c.ID})
			return err
		}, 13},
		{"accepted", 1, func() error {
			_, err := c.AcceptServiceRequest(t.Context(), &pb.AcceptServiceRequestRequest{Id: id, TargetDate: someday})
			return err
		}, 15},
		{"deleted", 4, func() error {
			_, err := c.DeleteServiceRequest(t.Context(), &pb.DeleteServiceRequestRequest{Id: id})
			return err
		}, 19},
		{"restored", 60, func() error {
			_, err := c.UndeleteServiceRequest(t.Context(), &pb.UndeleteServiceRequestRequest{Id: id})
			return err
		}, 20},
		{"completed", 4, func() error {
			_, err := c.CompleteServiceRequest(t.Context(), &pb.CompleteServiceRequestRequest{Id: id})
			return err
		}, 24},
		{"held when completed", 30, func() error {
			_, err := c.HoldServiceRequest(t.Context(), &pb.HoldServiceRequestRequest{Id: id, Reason: "Waits."})
			return err
		}, 24},
		{"resumed when completed", 30, func() error {
			_, err := c.ResumeServiceRequest(t.Context(), &pb.ResumeServiceRequestRequest{Id: id})
			return err
		}, 24},
		{"reopened", 30, func() error {
			_, err := c.ReopenServiceRequest(t.Context(), &pb.ReopenServiceRequestRequest{Id: id, Reason: "It drips."})
			return err
		}, 25},
		{"completed again", 4, func() error {
			_, err := c.CompleteServiceRequest(t.Context(), &pb.CompleteServiceRequestRequest{Id: id})
			return err
		}, 29},
		{"reviewed", 30, func() error {
			_, err := c.ReviewServiceRequest(t.Context(), &pb.ReviewServiceRequestRequest{Id: id})
			return err
		}, 29},
	}
	for _, step := range steps {
		s.clock.advance(time.Duration(step.minutes) * time.Minute)
		if err := step.step(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		s.clock.advance(time.Minute)
		r := must[*pb.GetServiceRequestResponse](t)(c.GetServiceRequest(t.Context(), &pb.GetServiceRequestRequest{Id: id})).GetServiceRequest()
		if got := r.GetCycleTime().AsDuration(); got != time.Duration(step.want)*time.Minute {
			t.Errorf("%s: got %s, want %d min", step.name, got, step.want)
		}
		if s.stored(id).GetCycleTime() != nil {
			t.Errorf("%s: the cycle time was stored", step.name)
		}
	}
	if r := s.stored(id); r.GetReopenCount() != 1 || r.GetArchiveReason() != pb.ArchiveReason_ARCHIVE_REASON_REVIEWED || len(r.GetCompleterIds()) != 1 {
		t.Errorf("got %v", r)
	}
}

// TestHoldExpires lets holds expire long before anybody looks: they end when they
// expired.
func TestHoldExpires(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	states := map[string]pb.ServiceRequestState{}
	for _, state := range []pb.ServiceRequestState{requested, accepted, completed} {
		for range batch {
			id := s.request(p, state, func(r *pb.ServiceRequest) { r.OwnerId = c.ID }).GetId()
			_, err := c.HoldServiceRequest(t.Context(), &pb.HoldServiceRequestRequest{Id: id, Reason: "Waits.", ExpireTime: stamp(noon.Add(time.Hour))})
			if err != nil {
				t.Fatal(err)
			}
			states[id] = state
		}
	}
	forever := s.request(p, accepted, func(r *pb.ServiceRequest) { r.OwnerId = c.ID }).GetId()
	must[*pb.HoldServiceRequestResponse](t)(c.HoldServiceRequest(t.Context(), &pb.HoldServiceRequestRequest{Id: forever, Reason: "Waits."}))
	s.clock.advance(3 * time.Hour)
	// Any commit makes the upkeep look at the clock again.
	s.property(c)
	for id, want := range states {
		eventually(t, "end of the hold", func() bool { return s.stored(id).GetState() == want })
		r := s.stored(id)
		elapsed := 2 * time.Hour
		if want == completed {
			elapsed = 0
		}
		if got := cycleTime(r.GetCycleTimer(), s.clock.read()); got != elapsed || r.GetHold() != nil {
			t.Errorf("%s: got %s and %v, want %s and no hold", want, got, r.GetHold(), elapsed)
		}
	}
	if got := s.stored(forever).GetState(); got != onHold {
		t.Errorf("hold without an end: got %s", got)
	}
	_, err := c.HoldServiceRequest(t.Context(), &pb.HoldServiceRequestRequest{Id: newID(), Reason: "Waits.", ExpireTime: stamp(noon)})
	expect(t, "unknown id", err, "NotFound RECORD_NOT_FOUND")
	for id, state := range states {
		if state == requested {
			_, err = c.HoldServiceRequest(t.Context(), &pb.HoldServiceRequestRequest{Id: id, Reason: "Waits.", ExpireTime: stamp(s.clock.read())})
			break
		}
	}
	if expect(t, "end in the past", err, "InvalidArgument FIELD_INVALID"); field(err) != "expire_time" {
		t.Errorf("got field %q", field(err))
	}
}
