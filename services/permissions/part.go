package permissions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// source is the name of the service, and of the feed of what it says.
const source = "permissions"

// Part is the service.
var Part = server.Part{Name: source, Schema: schema, Start: start}

// service is what the handlers need.
type service struct {
	pb.UnimplementedCatalogServiceServer
	pb.UnimplementedRoleServiceServer
	pb.UnimplementedBrandRoleServiceServer
	pb.UnimplementedGroupServiceServer
	pb.UnimplementedPlanServiceServer
	pb.UnimplementedAccessServiceServer
	pb.UnimplementedAnalysisServiceServer
	pb.UnimplementedGrantServiceServer
	pb.UnimplementedOwnerServiceServer
	pb.UnimplementedUsageServiceServer
	pb.UnimplementedAccessFileServiceServer
	pb.UnimplementedReplayServiceServer

	db       *store.DB
	hub      *lease.Hub
	log      *slog.Logger
	newID    func() string
	clock    func() time.Time
	users    identitypb.UserServiceClient
	sessions identitypb.SessionServiceClient
	// organizations asks identity what the brand lets an organization decide.
	organizations identitypb.OrganizationServiceClient
	brands        identitypb.BrandServiceClient
	agent         schedulingpb.ServiceAgentServiceClient
	counts        []counts
	kept          kept

	validator protovalidate.Validator // of files
}

func start(env *server.Env) error {
	validator, err := protovalidate.New()
	if err != nil {
		return fmt.Errorf("make the validator: %w", err)
	}
	s := &service{
		validator: validator,
		db:        env.Store, log: env.Log, newID: env.NewID, clock: env.Now, counts: dialCounts(env),
		hub: lease.NewHub(lease.HubConfig{
			Source: source, Duration: env.Lease, FirstStart: env.FirstStart, Replicated: env.Store.Shared(), Log: env.Log,
		}),
		users:    identitypb.NewUserServiceClient(env.Conn("identity")),
		sessions: identitypb.NewSessionServiceClient(env.Conn("identity")),

		organizations: identitypb.NewOrganizationServiceClient(env.Conn("identity")),
		brands:        identitypb.NewBrandServiceClient(env.Conn("identity")),
		agent:         schedulingpb.NewServiceAgentServiceClient(env.Conn("scheduling")),
	}
	env.AddHub(s.hub)
	pb.RegisterCatalogServiceServer(env.Registrar, s)
	pb.RegisterRoleServiceServer(env.Registrar, s)
	pb.RegisterBrandRoleServiceServer(env.Registrar, s)
	pb.RegisterGroupServiceServer(env.Registrar, s)
	pb.RegisterPlanServiceServer(env.Registrar, s)
	pb.RegisterAccessServiceServer(env.Registrar, s)
	pb.RegisterAnalysisServiceServer(env.Registrar, s)
	pb.RegisterGrantServiceServer(env.Registrar, s)
	pb.RegisterOwnerServiceServer(env.Registrar, s)
	pb.RegisterUsageServiceServer(env.Registrar, s)
	showJournal(env.Journal)
	pb.RegisterAccessFileServiceServer(env.Registrar, s)
	pb.RegisterReplayServiceServer(env.Registrar, s)
	env.ConsumeAround("scheduling", linkAgent, s.announceLinks, "latchkey.scheduling.v1.ServiceAgentCreated")
	env.GoAlone("purge", s.purge)
	env.GoAlone("brands' roles", s.completeEdits)
	return nil
}

// userTag is the tag of what is known of a user in an organization.
func userTag(ctx context.Context, user string) string {
	return userTagIn(store.OriginOf(ctx).Tenant, user)
}

func userTagIn(organization, user string) string { return "user:" + organization + "/" + user }

// organizationTag is the tag of what is known of anybody in an organization.
func organizationTag(ctx context.Context) string {
	return "organization:" + store.OriginOf(ctx).Tenant
}

// change is store.Do for what changes the access of those whom a tag stands for. It
// returns when no service of the suite can use what was true before, also where a
// repeated request changes nothing: the first call may not have waited to the end.
//
// SECURITY: where the outcome is unknown it announces the change, because it may
// have been made.
func change[R proto.Message](ctx context.Context, s *service, tag string, req proto.Message, f func(*store.Tx) (R, error)) (R, error) {
	var none R
	if r, ok := req.(interface{ GetValidateOnly() bool }); ok && r.GetValidateOnly() {
		return store.Do(ctx, s.db, req, f)
	}
	end := s.hub.Begin()
	defer end()
	resp, err := store.Do(ctx, s.db, req, f)
	if refused(err) {
		return none, err
	}
	s.hub.Publish(tag)
	end()
	if err != nil {
		return none, err
	}
	if err := s.hub.Barrier(ctx); err != nil {
		return none, err
	}
	return resp, nil
}

// refused reports whether err says that surely nothing was changed.
func refused(err error) bool {
	_, ok := errors.AsType[*fault.Error](err)
	return ok
}

// members returns which of the users are active members of the organization.
func (s *service) members(ctx context.Context, users ...string) (map[string]bool, error) {
	active := map[string]bool{}
	if len(users) == 0 {
		return active, nil
	}
	resp, err := s.users.LookupMembers(ctx, &identitypb.LookupMembersRequest{UserIds: users})
	if err != nil {
		return nil, unavailable("identity", err)
	}
	for _, m := range resp.GetMembers() {
		active[m.GetUserId()] = true
	}
	return active, nil
}

// membersAmong returns those of the users who are members, deactivated ones too, by id.
func (s *service) membersAmong(ctx context.Context, users []string) (map[string]*identitypb.Member, error) {
	members := map[string]*identitypb.Member{}
	for some := range slices.Chunk(users, maxLookup) {
		found, err := s.lookUp(ctx, &identitypb.LookupMembersRequest{UserIds: some, IncludeDeactivated: true})
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			members[m.GetUserId()] = m
		}
	}
	return members, nil
}

// memberState tells how somebody belongs to the organization, by what identity found of him.
func memberState(m *identitypb.Member) pb.MemberState {
	switch {
	case m == nil:
		return pb.MemberState_MEMBER_STATE_ENDED
	case m.GetState() == identitypb.UserState_USER_STATE_DEACTIVATED:
		return pb.MemberState_MEMBER_STATE_DEACTIVATED
	}
	return pb.MemberState_MEMBER_STATE_ACTIVE
}

// mustHaveMember returns nil if the user is an active member, or empty.
func (s *service) mustHaveMember(ctx context.Context, user string) error {
	active, err := s.members(ctx, withoutEmpty(user)...)
	if err == nil && user != "" && !active[user] {
		err = fault.NotFound("user", user)
	}
	return err
}

// agentOf returns the service agent that a user is linked to, or "".
func (s *service) agentOf(ctx context.Context, user string) (link, error) {
	resp, err := s.agent.LookupServiceAgent(ctx, &schedulingpb.LookupServiceAgentRequest{UserId: user})
	if err != nil {
		return "", unavailable("scheduling", err)
	}
	return link(resp.GetServiceAgentId()), nil
}

// unavailable says what another service's error means here.
func unavailable(service string, err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return fault.Unreachable(service)
	}
	return fmt.Errorf("ask %s: %w", service, err)
}
