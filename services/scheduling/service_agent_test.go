package scheduling

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/servertest"
)

func TestCreateServiceAgentNeedsIdentity(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	for _, c := range []struct {
		req  *pb.CreateServiceAgentRequest
		want string
	}{
		{&pb.CreateServiceAgentRequest{UserId: servertest.UUID(1), TimeZone: "Europe/Berlin"}, "Unavailable SERVICE_UNREACHABLE"},
		{&pb.CreateServiceAgentRequest{UserId: servertest.UUID(1), TimeZone: "Europe/Atlantis"}, "InvalidArgument FIELD_INVALID"},
		{&pb.CreateServiceAgentRequest{UserId: servertest.UUID(1)}, "InvalidArgument FIELD_INVALID"},
		{&pb.CreateServiceAgentRequest{UserId: "x", TimeZone: "UTC"}, "InvalidArgument FIELD_INVALID"},
	} {
		_, err := office.agents.CreateServiceAgent(t.Context(), c.req)
		wantOutcome(t, fmt.Sprint(c.req), err, c.want)
	}
	_, err := as(s.As("Dispatch")).agents.CreateServiceAgent(t.Context(), &pb.CreateServiceAgentRequest{})
	wantOutcome(t, "malformed, without the key", err, "PermissionDenied GRANT_MISSING")
}

func TestUpdateServiceAgent(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	tech, agent := s.technician()
	agent = office.agent(t, agent.GetId())
	update := func(change *pb.ServiceAgent, paths ...string) (*pb.ServiceAgent, error) {
		req := &pb.UpdateServiceAgentRequest{ServiceAgent: change}
		if paths != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
		}
		resp, err := office.agents.UpdateServiceAgent(t.Context(), req)
		return resp.GetServiceAgent(), err
	}
	invalid := "InvalidArgument FIELD_INVALID"
	for _, c := range []struct {
		change *pb.ServiceAgent
		paths  []string
		want   string
	}{
		{&pb.ServiceAgent{Id: agent.GetId(), Etag: "0", DisplayName: proto.String("B")}, nil, "Aborted ETAG_STALE"},
		{&pb.ServiceAgent{Id: servertest.UUID(1), DisplayName: proto.String("B")}, nil, "NotFound RECORD_NOT_FOUND"},
		{&pb.ServiceAgent{Id: agent.GetId(), DisplayName: proto.String("")}, nil, invalid},
		{&pb.ServiceAgent{Id: agent.GetId()}, []string{"display_name"}, invalid},
		{&pb.ServiceAgent{Id: agent.GetId(), TimeZone: proto.String("Local")}, nil, invalid},
		{&pb.ServiceAgent{Id: agent.GetId(), UserId: servertest.UUID(1)}, []string{"user_id"}, invalid},
		{&pb.ServiceAgent{Id: agent.GetId()}, []string{"nothing"}, invalid},
		{&pb.ServiceAgent{Id: agent.GetId(), DisplayName: proto.String("B"), TimeZone: proto.String("x")}, []string{"display_name", "time_zone"}, invalid},
	} {
		_, err := update(c.change, c.paths...)
		wantOutcome(t, fmt.Sprint(c.change, " masked ", c.paths), err, c.want)
		wantEqual(t, "after the refusal", office.agent(t, agent.GetId()), agent)
	}
	want := proto.Clone(agent).(*pb.ServiceAgent)
	want.DisplayName, want.TimeZone = proto.String("Bea"), proto.String("Australia/Sydney")
	got, err := update(&pb.ServiceAgent{
		Id: agent.GetId(), Etag: agent.GetEtag(), DisplayName: want.DisplayName, TimeZone: want.TimeZone, Active: proto.Bool(false),
	}, "display_name", "time_zone")
	if err != nil {
		t.Fatal(err)
	}
	want.Etag = got.GetEtag()
	wantEqual(t, "updated", got, want)
	wantEqual(t, "read by himself", tech.agent(t, agent.GetId()), want)
}

// TestOnlyTheIdleBecomeInactive keeps a service agent active while there is work.
func TestOnlyTheIdleBecomeInactive(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	rest := func() error {
		_, err := office.agents.UpdateServiceAgent(t.Context(), &pb.UpdateServiceAgentRequest{
			ServiceAgent: &pb.ServiceAgent{Id: agent.GetId(), Active: proto.Bool(false)},
		})
		return err
	}
	for _, state := range []pb.AppointmentState{scheduled, inProgress} {
		a := office.inState(t, agent, noon.Add(-time.Hour), state)
		wantOutcome(t, fmt.Sprint("with one that is ", state), rest(), "FailedPrecondition PRECONDITION_FAILED")
		office.dispose(t, a)
	}
	wantOutcome(t, "with none", rest(), "OK")
	a := office.queued(t)
	_, err := office.AssignAppointment(t.Context(), &pb.AssignAppointmentRequest{Id: a.GetId(), ServiceAgentId: agent.GetId(), StartTime: later})
	wantOutcome(t, "assign to the inactive", err, "FailedPrecondition PRECONDITION_FAILED")
}

func TestWhoSeesServiceAgents(t *testing.T) {
	s := newSuite(t)
	tech, own := s.technician()
	_, other := s.technician()
	_, err := tech.agents.GetServiceAgent(t.Context(), &pb.GetServiceAgentRequest{Id: own.GetId()})
	wantOutcome(t, "himself", err, "OK")
	_, err = tech.agents.GetServiceAgent(t.Context(), &pb.GetServiceAgentRequest{Id: other.GetId()})
	wantOutcome(t, "another", err, "NotFound RECORD_NOT_FOUND")
	_, err = tech.agents.ListServiceAgents(t.Context(), &pb.ListServiceAgentsRequest{})
	wantOutcome(t, "the list", err, "PermissionDenied GRANT_MISSING")
	stranger := as(s.InOrganization(servertest.UUID(77)).As(officeGrants...))
	_, err = stranger.agents.GetServiceAgent(t.Context(), &pb.GetServiceAgentRequest{Id: own.GetId()})
	wantOutcome(t, "from another organization", err, "NotFound RECORD_NOT_FOUND")
	for _, grant := range []string{"Dispatch", "Appointments:Create"} {
		clerk := as(s.As(grant))
		clerk.agent(t, other.GetId())
		resp, err := clerk.agents.ListServiceAgents(t.Context(), &pb.ListServiceAgentsRequest{PageSize: 1})
		if err != nil || len(resp.GetServiceAgents()) != 1 || resp.GetNextPageToken() == "" {
			t.Errorf("list with %s: got %v, %v, want one of two", grant, resp, err)
		}
		resp, err = clerk.agents.ListServiceAgents(t.Context(), &pb.ListServiceAgentsRequest{Filter: fmt.Sprintf("user_id = %q", tech.ID)})
		if err != nil || len(resp.GetServiceAgents()) != 1 || resp.GetServiceAgents()[0].GetId() != own.GetId() {
			t.Errorf("filtered list with %s: got %v, %v, want the one of the filter", grant, resp, err)
		}
	}
}

func TestLookupServiceAgent(t *testing.T) {
	s := newSuite(t)
	tech, agent := s.technician()
	peer := pb.NewServiceAgentServiceClient(s.Service("permissions"))
	for user, want := range map[string]string{tech.ID: agent.GetId(), servertest.UUID(1): ""} {
		resp, err := peer.LookupServiceAgent(t.Context(), &pb.LookupServiceAgentRequest{UserId: user})
		if err != nil || resp.GetServiceAgentId() != want {
			t.Errorf("lookup of %s: got %v, %v, want %q", user, resp, err, want)
		}
	}
	_, err := s.office().agents.LookupServiceAgent(t.Context(), &pb.LookupServiceAgentRequest{UserId: tech.ID})
	wantOutcome(t, "by a person", err, "PermissionDenied INTERNAL_ONLY")
}

// agent returns a service agent as the caller sees it.
func (c client) agent(t *testing.T, id string) *pb.ServiceAgent {
	t.Helper()
	resp, err := c.agents.GetServiceAgent(t.Context(), &pb.GetServiceAgentRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetServiceAgent()
}
