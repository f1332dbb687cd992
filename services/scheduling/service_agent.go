package scheduling

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/query"
	"latchkey.dev/services/internal/store"
)

type serviceAgentService struct {
	pb.UnimplementedServiceAgentServiceServer
	db    *store.DB
	newID func() string
	peers *peers
}

func (s *serviceAgentService) CreateServiceAgent(ctx context.Context, req *pb.CreateServiceAgentRequest) (*pb.CreateServiceAgentResponse, error) {
	userName, userErr := s.peers.member(ctx, req.GetUserId())
	id := s.newID()
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreateServiceAgentResponse, error) {
		if _, err := zone(req.GetTimeZone(), "time_zone"); err != nil {
			return nil, err
		}
		if err := checkShifts(req.GetShifts(), "shifts"); err != nil {
			return nil, err
		}
		if userErr != nil {
			return nil, userErr
		}
		name := req.GetDisplayName()
		if name == "" {
			name = userName
		}
		agent := &pb.ServiceAgent{
			Id: id, UserId: req.GetUserId(), DisplayName: proto.String(name),
			TimeZone: proto.String(req.GetTimeZone()), Active: proto.Bool(true),
			Shifts: req.GetShifts(),
		}
		if err := agents.Put(tx, agent); err != nil {
			return nil, err
		}
		tx.Emit(&pb.ServiceAgentCreated{ServiceAgentId: id, UserId: req.GetUserId()})
		return &pb.CreateServiceAgentResponse{ServiceAgent: agent}, nil
	})
}

func (s *serviceAgentService) GetServiceAgent(ctx context.Context, req *pb.GetServiceAgentRequest) (*pb.GetServiceAgentResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetServiceAgentResponse, error) {
		agent, ok := agents.Get(tx, req.GetId())
		if !ok || !seesAgent(authz.Caller(ctx), agent) {
			return nil, fault.NotFound("service_agent", req.GetId())
		}
		return &pb.GetServiceAgentResponse{ServiceAgent: agent}, nil
	})
}

// seesAgent tells whether the service agent exists for the caller.
func seesAgent(c *authz.Principal, agent *pb.ServiceAgent) bool {
	return agent.GetUserId() == c.ID ||
		c.Has("Organization: Service Agents") || c.Has("Dispatch") || c.Has("Appointments:Create")
}

func (s *serviceAgentService) ListServiceAgents(ctx context.Context, req *pb.ListServiceAgentsRequest) (*pb.ListServiceAgentsResponse, error) {
	filter, err := query.Parse(req.GetFilter(), &pb.ServiceAgent{})
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListServiceAgentsResponse, error) {
		page, next, err := store.Page(tx, req, func(a *pb.ServiceAgent) bool { return filter.Match(a) }, agentsByName.Range())
		return &pb.ListServiceAgentsResponse{ServiceAgents: page, NextPageToken: next}, err
	})
}

func (s *serviceAgentService) UpdateServiceAgent(ctx context.Context, req *pb.UpdateServiceAgentRequest) (*pb.UpdateServiceAgentResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UpdateServiceAgentResponse, error) {
		agent, ok := agents.Get(tx, req.GetServiceAgent().GetId())
		if !ok {
			return nil, fault.NotFound("service_agent", req.GetServiceAgent().GetId())
		}
		if err := agents.Match(agent, req.GetServiceAgent().GetEtag()); err != nil {
			return nil, err
		}
		if err := mask.Apply(agent, req.GetServiceAgent(), req.GetUpdateMask(), "display_name", "time_zone", "active", "shifts"); err != nil {
			return nil, err
		}
		if err := checkAgent(tx, agent); err != nil {
			return nil, err
		}
		if err := agents.Put(tx, agent); err != nil {
			return nil, err
		}
		return &pb.UpdateServiceAgentResponse{ServiceAgent: agent}, nil
	})
}

// checkAgent returns nil if the service agent can be as it is now.
func checkAgent(tx *store.Tx, agent *pb.ServiceAgent) error {
	if agent.GetDisplayName() == "" {
		return fault.Invalid("service_agent.display_name", "must not be empty")
	}
	if _, err := zone(agent.GetTimeZone(), "service_agent.time_zone"); err != nil {
		return err
	}
	if err := checkShifts(agent.GetShifts(), "service_agent.shifts"); err != nil {
		return err
	}
	agent.Active = proto.Bool(agent.GetActive())
	if _, at := busy.First(tx, agent.GetId()); at && !agent.GetActive() {
		return fault.Refused("the service agent must not have an appointment that is scheduled or in progress: unassign or finish them first")
	}
	return nil
}

func (s *serviceAgentService) LookupServiceAgent(ctx context.Context, req *pb.LookupServiceAgentRequest) (*pb.LookupServiceAgentResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.LookupServiceAgentResponse, error) {
		agent, _ := agentByUser.First(tx, req.GetUserId())
		return &pb.LookupServiceAgentResponse{ServiceAgentId: agent.GetId()}, nil
	})
}

// noServiceAgent says that the caller has no schedule.
func noServiceAgent() error {
	return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_NO_SERVICE_AGENT,
		"you are not a service agent, so you have no schedule: ask an administrator to make you one", nil)
}
