package scheduling

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/servertest"
)

func TestCreateAppointment(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	tech, agent := s.technician()
	req := adHoc(agent, noon.Add(time.Hour), 90*time.Minute)
	req.RequestId, req.Notes = servertest.UUID(3), "Ring twice."
	req.ContactName, req.ContactPhone = proto.String("Ada Byron"), proto.String("+49 30 1234")
	got, err := office.CreateAppointment(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	a := got.GetAppointment()
	want := &pb.Appointment{
		Id: a.GetId(), Etag: a.GetEtag(), CreateTime: timestamppb.New(noon), UpdateTime: timestamppb.New(noon),
		OwnerId: office.ID, State: scheduled, Title: "Mend the boiler", Notes: "Ring twice.",
		ContactName: proto.String("Ada Byron"), ContactPhone: proto.String("+49 30 1234"), Duration: durationpb.New(90 * time.Minute),
		ServiceAgentId: agent.GetId(), AgentUserId: tech.ID,
		StartTime: timestamppb.New(noon.Add(time.Hour)), EndTime: timestamppb.New(noon.Add(150 * time.Minute)),
		AvailableActions: a.GetAvailableActions(),
	}
	wantEqual(t, "created", a, want)
	wantEqual(t, "read again", office.get(t, a.GetId()), want)
	again, err := office.CreateAppointment(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "the repeat", again, got)

	// The service agent reads it, without the contact that he may not see.
	want.ContactName, want.ContactPhone = nil, nil
	mine := tech.get(t, a.GetId())
	want.AvailableActions = mine.GetAvailableActions()
	wantEqual(t, "read by the service agent", mine, want)

	req.RequestId, req.ValidateOnly, req.StartTime = "", true, timestamppb.New(noon.Add(9*time.Hour))
	dry := office.create(t, req)
	_, err = office.GetAppointment(t.Context(), &pb.GetAppointmentRequest{Id: dry.GetId()})
	wantOutcome(t, "get what was only rehearsed", err, "NotFound RECORD_NOT_FOUND")
}

func TestCreateAppointmentRefuses(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	_, idle := s.technician()
	if _, err := office.agents.UpdateServiceAgent(t.Context(), &pb.UpdateServiceAgentRequest{
		ServiceAgent: &pb.ServiceAgent{Id: idle.GetId(), Active: proto.Bool(false)},
	}); err != nil {
		t.Fatal(err)
	}
	invalid := "InvalidArgument FIELD_INVALID"
	for name, c := range map[string]struct {
		change func(*pb.CreateAppointmentRequest)
		want   string
	}{
		"no style":            {func(r *pb.CreateAppointmentRequest) { r.Style = 0 }, invalid},
		"unknown style":       {func(r *pb.CreateAppointmentRequest) { r.Style = 7 }, invalid},
		"queued with agent":   {func(r *pb.CreateAppointmentRequest) { r.Style, r.StartTime = 1, nil }, invalid},
		"queued with time":    {func(r *pb.CreateAppointmentRequest) { r.Style, r.ServiceAgentId = 1, "" }, invalid},
		"ad hoc, no agent":    {func(r *pb.CreateAppointmentRequest) { r.ServiceAgentId = "" }, invalid},
		"ad hoc, no time":     {func(r *pb.CreateAppointmentRequest) { r.StartTime = nil }, invalid},
		"no title":            {func(r *pb.CreateAppointmentRequest) { r.Title = "" }, invalid},
		"no duration":         {func(r *pb.CreateAppointmentRequest) { r.Duration = nil }, invalid},
		"malformed duration":  {func(r *pb.CreateAppointmentRequest) { r.Duration = &durationpb.Duration{Seconds: 60, Nanos: -1} }, invalid},
		"malformed agent":     {func(r *pb.CreateAppointmentRequest) { r.ServiceAgentId = "x" }, invalid},
		"unit, no property":   {func(r *pb.CreateAppointmentRequest) { r.UnitId = servertest.UUID(1) }, invalid},
		"unknown agent":       {func(r *pb.CreateAppointmentRequest) { r.ServiceAgentId = servertest.UUID(1) }, "NotFound RECORD_NOT_FOUND"},
		"inactive agent":      {func(r *pb.CreateAppointmentRequest) { r.ServiceAgentId = idle.GetId() }, "FailedPrecondition PRECONDITION_FAILED"},
		"no servicerequest":   {func(r *pb.CreateAppointmentRequest) { r.PropertyId = servertest.UUID(1) }, "Unavailable SERVICE_UNREACHABLE"},
		"no servicerequest 2": {func(r *pb.CreateAppointmentRequest) { r.ServiceRequestId = servertest.UUID(1) }, "Unavailable SERVICE_UNREACHABLE"},
	} {
		req := adHoc(agent, noon, time.Hour)
		c.change(req)
		_, err := office.CreateAppointment(t.Context(), req)
		wantOutcome(t, name, err, c.want)
	}
	clerk := as(s.As("Appointments:Create"))
	req := adHoc(agent, noon, time.Hour)
	req.ContactName = proto.String("Ada Byron")
	_, err := clerk.CreateAppointment(t.Context(), req)
	wantOutcome(t, "a contact without Contacts:View", err, "PermissionDenied GRANT_MISSING")
	_, err = as(s.As("Dispatch", "Appointments:Edit")).CreateAppointment(t.Context(), &pb.CreateAppointmentRequest{})
	wantOutcome(t, "malformed, without the key", err, "PermissionDenied GRANT_MISSING")
}

func TestUnassignTakesAgentAndTimeAway(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	tech, agent := s.technician()
	a := office.scheduled(t, agent, noon)
	resp, err := office.UnassignAppointment(t.Context(), &pb.UnassignAppointmentRequest{Id: a.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	want := withoutActions(a)
	want.Etag, want.State = resp.GetAppointment().GetEtag(), queued
	want.ServiceAgentId, want.AgentUserId, want.StartTime, want.EndTime = "", "", nil, nil
	wantEqual(t, "unassigned", withoutActions(resp.GetAppointment()), want)
	_, err = tech.GetAppointment(t.Context(), &pb.GetAppointmentRequest{Id: a.GetId()})
	wantOutcome(t, "get by the former service agent", err, "NotFound RECORD_NOT_FOUND")
}

// TestWorkIsRecorded starts and finishes an appointment, with the server's clock
// going on, and reads the event.
func TestWorkIsRecorded(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	tech, agent := s.technician("Appointments:Finish:SendCompletion", "setting:alter_start_finish")
	for _, c := range []struct {
		req                 *pb.FinishAppointmentRequest
		from, to            time.Duration // after the recorded start
		completionRequested bool
	}{
		{&pb.FinishAppointmentRequest{Summary: "Valve replaced."}, 0, time.Hour, false},
		{&pb.FinishAppointmentRequest{SendCompletion: proto.Bool(true)}, 0, time.Hour, true},
		{&pb.FinishAppointmentRequest{ActualStart: timestamppb.New(noon.Add(-time.Hour))}, -time.Hour, time.Hour, false},
		{&pb.FinishAppointmentRequest{ActualFinish: timestamppb.New(noon.Add(time.Minute))}, 0, time.Minute, false},
	} {
		s.clock.set(noon)
		a := office.inState(t, agent, noon, inProgress)
		s.clock.set(noon.Add(time.Hour))
		req := proto.Clone(c.req).(*pb.FinishAppointmentRequest)
		req.Id = a.GetId()
		resp, err := tech.FinishAppointment(t.Context(), req)
		if err != nil {
			t.Fatalf("%v: %v", req, err)
		}
		want := withoutActions(a)
		want.Etag, want.UpdateTime, want.State = resp.GetAppointment().GetEtag(), timestamppb.New(noon.Add(time.Hour)), finished
		want.RecordedStart, want.RecordedFinish = timestamppb.New(noon), timestamppb.New(noon.Add(time.Hour))
		want.ActualStart, want.ActualFinish = timestamppb.New(noon.Add(c.from)), timestamppb.New(noon.Add(c.to))
		want.Summary, want.CompletionRequested = c.req.GetSummary(), c.completionRequested
		wantEqual(t, fmt.Sprint("finished by ", c.req), withoutActions(resp.GetAppointment()), want)
		wantEqual(t, "the event", s.lastEvent(), &pb.AppointmentFinished{
			AppointmentId: a.GetId(), AgentUserId: tech.ID, FinishTime: want.GetActualFinish(),
			Summary: c.req.GetSummary(), CompletionRequested: c.completionRequested,
		})
	}
}

// lastEvent returns the newest event of the store.
func (s *suite) lastEvent() *pb.AppointmentFinished {
	s.t.Helper()
	events, err := s.db.Events(s.t.Context(), s.Organization, 0, 1000)
	if err != nil || len(events) == 0 {
		s.t.Fatalf("got %d events, %v, want one at least", len(events), err)
	}
	e := &pb.AppointmentFinished{}
	last := events[len(events)-1]
	if err := proto.Unmarshal(last.Payload, e); err != nil || last.Type != "latchkey.scheduling.v1.AppointmentFinished" {
		s.t.Fatalf("got %s, %v, want an AppointmentFinished", last.Type, err)
	}
	return e
}

// TestFinishAsksForEachPart has a caller with all of the grants but one.
func TestFinishAsksForEachPart(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	parts := []*pb.UsedPart{{PartId: servertest.UUID(1), QuantityThousandths: 2000}}
	twice := []*pb.UsedPart{parts[0], {PartId: servertest.UUID(1), QuantityThousandths: 1}}
	const addParts, sendCompletion, alter = "Appointments:Finish:AddParts", "Appointments:Finish:SendCompletion", "setting:alter_start_finish"
	for _, c := range []struct {
		req  *pb.FinishAppointmentRequest
		has  []string
		want string
	}{
		{&pb.FinishAppointmentRequest{Parts: parts}, []string{sendCompletion, alter}, "PermissionDenied GRANT_MISSING " + addParts},
		{&pb.FinishAppointmentRequest{SendCompletion: proto.Bool(true)}, []string{addParts, alter}, "PermissionDenied GRANT_MISSING " + sendCompletion},
		{&pb.FinishAppointmentRequest{ActualStart: timestamppb.New(noon)}, []string{addParts, sendCompletion}, "PermissionDenied GRANT_MISSING " + alter},
		{&pb.FinishAppointmentRequest{ActualFinish: timestamppb.New(noon)}, []string{addParts, sendCompletion}, "PermissionDenied GRANT_MISSING " + alter},
		{&pb.FinishAppointmentRequest{Parts: parts}, []string{addParts}, "Unavailable SERVICE_UNREACHABLE "},
		{&pb.FinishAppointmentRequest{Parts: twice}, []string{addParts}, "InvalidArgument FIELD_INVALID "},
		{&pb.FinishAppointmentRequest{Parts: []*pb.UsedPart{{PartId: servertest.UUID(1)}}}, []string{addParts}, "InvalidArgument FIELD_INVALID "},
		{&pb.FinishAppointmentRequest{Parts: []*pb.UsedPart{{PartId: "x", QuantityThousandths: 1}}}, []string{addParts}, "InvalidArgument FIELD_INVALID "},
		{&pb.FinishAppointmentRequest{ActualFinish: timestamppb.New(noon.Add(time.Second))}, []string{alter}, "InvalidArgument FIELD_INVALID "},
		{&pb.FinishAppointmentRequest{}, nil, "OK "},
	} {
		tech, agent := s.technician(c.has...)
		a := office.inState(t, agent, noon, inProgress)
		req := proto.Clone(c.req).(*pb.FinishAppointmentRequest)
		req.Id = a.GetId()
		_, err := tech.FinishAppointment(t.Context(), req)
		if got := outcome(err) + " " + info(err).GetMetadata()["grant"]; got != c.want {
			t.Errorf("%v with %q: got %s (%v), want %s", c.req, c.has, got, err, c.want)
		}
		if err != nil {
			wantEqual(t, "after the refusal", s.stored(a.GetId()), withoutActions(a))
		}
	}
}
