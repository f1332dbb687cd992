package servicerequest

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
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

// TestCycleTime leads a request through a life and reads its cycle time a minute after
// each step.
func TestCycleTime(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	id := s.request(s.property(c), drafted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = c.ID, c.ID }).GetId()
	steps := []struct {
		minutes int // before the step
		method  string
		req     proto.Message
		want    int // minutes
	}{
		{10, "SetPurchaseOrderNumber", &pb.SetPurchaseOrderNumberRequest{PurchaseOrderNumber: "PO-1"}, 0},
		{10, "RequestServiceRequest", &pb.RequestServiceRequestRequest{}, 1},
		{4, "HoldServiceRequest", &pb.HoldServiceRequestRequest{Reason: "Waits."}, 5},
		{100, "SetPurchaseOrderNumber", &pb.SetPurchaseOrderNumberRequest{PurchaseOrderNumber: "PO-2"}, 5},
		{10, "ResumeServiceRequest", &pb.ResumeServiceRequestRequest{}, 6},
		{4, "DeclineServiceRequest", &pb.DeclineServiceRequestRequest{Reason: "No."}, 11},
		{1, "ReassignServiceRequest", &pb.ReassignServiceRequestRequest{AssigneeId: c.ID}, 13},
		{1, "AcceptServiceRequest", &pb.AcceptServiceRequestRequest{TargetDate: &typepb.Date{Year: 2027, Month: 1, Day: 1}}, 15},
		{4, "DeleteServiceRequest", &pb.DeleteServiceRequestRequest{}, 19},
		{60, "UndeleteServiceRequest", &pb.UndeleteServiceRequestRequest{}, 20},
		{4, "CompleteServiceRequest", &pb.CompleteServiceRequestRequest{}, 24},
		{30, "HoldServiceRequest", &pb.HoldServiceRequestRequest{Reason: "Waits."}, 24},
		{30, "ResumeServiceRequest", &pb.ResumeServiceRequestRequest{}, 24},
		{30, "ReopenServiceRequest", &pb.ReopenServiceRequestRequest{Reason: "It drips."}, 25},
		{4, "CompleteServiceRequest", &pb.CompleteServiceRequestRequest{}, 29},
		{30, "ReviewServiceRequest", &pb.ReviewServiceRequestRequest{}, 29},
	}
	for i, step := range steps {
		s.clock.advance(time.Duration(step.minutes) * time.Minute)
		if _, err := invoke(t, c, prefixService+step.method, set(step.req, "id", id)); err != nil {
			t.Fatalf("step %d, %s: %v", i, step.method, err)
		}
		s.clock.advance(time.Minute)
		r := must[*pb.GetServiceRequestResponse](t)(c.GetServiceRequest(t.Context(), &pb.GetServiceRequestRequest{Id: id})).GetServiceRequest()
		if got := r.GetCycleTime().AsDuration(); got != time.Duration(step.want)*time.Minute {
			t.Errorf("step %d, %s: got %s, want %d min", i, step.method, got, step.want)
		}
		if s.stored(id).GetCycleTime() != nil {
			t.Errorf("step %d, %s: the cycle time was stored", i, step.method)
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
