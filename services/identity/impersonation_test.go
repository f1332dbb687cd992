package identity_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/permissions"
)

// permit gives a user one more key.
func (c *caller) permit(u *caller, key string) {
	c.t.Helper()
	_, err := c.access().SetOverride(c.ctx(), &permissionspb.SetOverrideRequest{
		UserId: u.user.GetId(), Key: key, Effect: permissionspb.Effect_EFFECT_GRANT,
	})
	mustNot(c.t, err)
}

// subscribeToAll puts every add-on feature into the plan.
func (c *caller) subscribeToAll() {
	c.t.Helper()
	plan := &permissionspb.Plan{}
	for _, f := range catalog.Features() {
		plan.Features = append(plan.Features, f.Name)
	}
	_, err := permissionspb.NewPlanServiceClient(c.conn).UpdateBillingPlan(c.ctx(), &permissionspb.UpdateBillingPlanRequest{Plan: plan})
	mustNot(c.t, err)
}

func (c *caller) impersonate(req *pb.ImpersonateUserRequest) (*pb.ImpersonateUserResponse, error) {
	if req.GetReason() == "" {
		req.Reason = "Ticket 4711"
	}
	return c.impersonations().ImpersonateUser(c.ctx(), req)
}

// actFor opens a session in somebody's name.
func (c *caller) actFor(u *caller) *pb.ImpersonateUserResponse {
	c.t.Helper()
	resp, err := c.impersonate(&pb.ImpersonateUserRequest{UserId: u.user.GetId()})
	mustNot(c.t, err)
	return resp
}

// as is the caller of a session that was opened in somebody's name.
func (c *caller) as(u *caller, resp *pb.ImpersonateUserResponse) *caller {
	next := *u
	next.token = resp.GetToken()
	return &next
}

func (c *caller) listImpersonations() []*pb.Impersonation {
	c.t.Helper()
	resp, err := c.impersonations().ListMyImpersonations(c.ctx(), &pb.ListMyImpersonationsRequest{})
	mustNot(c.t, err)
	return resp.GetImpersonations()
}

func TestImpersonate(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "OA")
	req := &pb.ImpersonateUserRequest{
		UserId: bob.user.GetId(), Reason: "Ticket 4711", Lifetime: durationpb.New(5 * time.Minute), RequestId: servertest.UUID(1),
	}
	dry := proto.CloneOf(req)
	dry.ValidateOnly = true
	resp, err := owner.impersonate(dry)
	mustNot(t, err)
	if resp.GetToken() != "" || len(bob.listImpersonations()) != 0 {
		t.Error("a call that only validates began an impersonation")
	}
	resp, err = owner.impersonate(req)
	mustNot(t, err)
	i := resp.GetImpersonation()
	at := i.GetCreateTime().AsTime()
	same(t, "impersonation", i, &pb.Impersonation{
		Id: i.GetId(), Etag: i.GetEtag(), CreateTime: i.GetCreateTime(), UpdateTime: i.GetUpdateTime(), PurgeTime: i.GetPurgeTime(),
		UserId: bob.user.GetId(), ActorId: owner.user.GetId(), OrganizationId: owner.user.GetOrganizationId(),
		Reason: "Ticket 4711", ExpireTime: i.GetExpireTime(),
	})
	if life, kept := i.GetExpireTime().AsTime().Sub(at), i.GetPurgeTime().AsTime().Sub(at); life != 5*time.Minute || kept != 28*24*time.Hour {
		t.Errorf("got an impersonation for %v that is kept for %v", life, kept)
	}
	again, err := owner.impersonate(req)
	mustNot(t, err)
	same(t, "the repeat, which has no token", again, &pb.ImpersonateUserResponse{Impersonation: i})
	same(t, "announced", bob.listImpersonations()[0], i)
	_, err = owner.impersonate(&pb.ImpersonateUserRequest{UserId: bob.user.GetId()})
	check(t, "while another lasts", err, codes.FailedPrecondition, "PRECONDITION_FAILED")

	acting := owner.as(bob, resp)
	me, err := acting.profiles().GetProfile(acting.ctx(), &pb.GetProfileRequest{})
	mustNot(t, err)
	if me.GetProfile().GetId() != bob.user.GetId() {
		t.Errorf("acts as %v, want %s", me, bob.user.GetId())
	}
	ended, err := owner.impersonations().EndImpersonation(owner.ctx(), &pb.EndImpersonationRequest{})
	mustNot(t, err)
	if acting.signedIn(acting.token) || ended.GetImpersonation().GetEndTime() == nil {
		t.Errorf("an ended impersonation is accepted, or not written down: %v", ended)
	}
	_, err = owner.impersonations().EndImpersonation(owner.ctx(), &pb.EndImpersonationRequest{Id: i.GetId()})
	check(t, "an ended one", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = owner.impersonations().EndImpersonation(owner.ctx(), &pb.EndImpersonationRequest{})
	check(t, "none", err, codes.NotFound, "RECORD_NOT_FOUND")
}

func TestImpersonationIsRefused(t *testing.T) {
	owner := owned(t)
	support, high := owner.hire("support", "US"), owner.hire("high", "OA")
	owner.permit(support, "User: Impersonation")
	other, off := owner.found("Other Homes").hire("stranger", "US"), owner.add("off", "US")
	_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: off.user.GetId()})
	mustNot(t, err)
	try := func(who *caller, user string) error {
		_, err := who.impersonate(&pb.ImpersonateUserRequest{UserId: user})
		return err
	}
	check(t, "without the key", try(high, support.user.GetId()), codes.PermissionDenied, "GRANT_MISSING")
	check(t, "a higher user", try(support, high.user.GetId()), codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	check(t, "another organization's user", try(owner, other.user.GetId()), codes.NotFound, "RECORD_NOT_FOUND")
	check(t, "nobody", try(owner, servertest.UUID(1)), codes.NotFound, "RECORD_NOT_FOUND")
	check(t, "somebody who is shut out", try(owner, off.user.GetId()), codes.NotFound, "RECORD_NOT_FOUND")
	checkField(t, "oneself", try(owner, owner.user.GetId()), "user_id")
	_, err = owner.impersonate(&pb.ImpersonateUserRequest{UserId: high.user.GetId(), Lifetime: durationpb.New(16 * time.Minute)})
	checkField(t, "too long", err, "lifetime")
	no := false
	_, err = owner.access().UpdateUserSettings(owner.ctx(), &permissionspb.UpdateUserSettingsRequest{
		UserId: support.user.GetId(), Settings: &permissionspb.UserSettings{SeePricing: &no},
	})
	mustNot(t, err)
	check(t, "a user who sees prices", try(support, owner.add("seeing", "US").user.GetId()), codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	program := owner.withKey("User: Impersonation").program()
	check(t, "an API key", try(program, high.user.GetId()), codes.PermissionDenied, "IN_PERSON_ONLY")
}

// SECURITY: whoever acts for another changes none of the other's credentials and
// opens no further session, and holds nothing that the other was given since.
func TestActingIsNotBeing(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "OA")
	owner.permit(bob, "User: Impersonation")
	carl := owner.hire("carl", "US")
	acting := owner.as(bob, owner.actFor(bob))
	ctx := acting.ctx()
	_, err := acting.profiles().ChangePassword(ctx, &pb.ChangePasswordRequest{CurrentPassword: bob.password, NewPassword: "a password of another's"})
	check(t, "ChangePassword", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	_, err = acting.apiKeys().CreateApiKey(ctx, &pb.CreateApiKeyRequest{Name: "x", Scopes: []string{"Organization"}})
	check(t, "CreateApiKey", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	_, err = acting.impersonate(&pb.ImpersonateUserRequest{UserId: carl.user.GetId()})
	check(t, "a chain", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	_, err = acting.sessions().EndSession(ctx, &pb.EndSessionRequest{Id: bob.session.GetId()})
	check(t, "another session", err, codes.PermissionDenied, "IN_PERSON_ONLY")

	owner.permit(bob, "Branding")
	brand := func(c *caller) error {
		_, err := c.brands().UpdateBrand(c.ctx(), &pb.UpdateBrandRequest{Brand: &pb.Brand{Id: servertest.UUID(1)}})
		return err
	}
	check(t, "what bob was given, by bob", brand(bob), codes.NotFound, "RECORD_NOT_FOUND")
	check(t, "what bob was given, by who acts", brand(acting), codes.PermissionDenied, "GRANT_MISSING")
}

// An impersonation ends with whatever lets either of the two in.
func TestImpersonationEnds(t *testing.T) {
	owner := owned(t)
	for name, end := range map[string]func(actor, bob, acting *caller) error{
		"actor-signs-out": func(actor, _, _ *caller) error {
			_, err := actor.sessions().EndSession(actor.ctx(), &pb.EndSessionRequest{})
			return err
		},
		"token-ends-itself": func(_, _, acting *caller) error {
			_, err := acting.sessions().EndSession(acting.ctx(), &pb.EndSessionRequest{})
			return err
		},
		"user-ends-it": func(_, bob, _ *caller) error {
			_, err := bob.sessions().EndSession(bob.ctx(), &pb.EndSessionRequest{Id: bob.listImpersonations()[0].GetId()})
			return err
		},
		"actor-removed": func(actor, _, _ *caller) error {
			_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: actor.user.GetId()})
			return err
		},
		"user-removed": func(_, bob, _ *caller) error {
			_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: bob.user.GetId()})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			actor, bob := owner.hire("actor-"+name, "OA"), owner.hire("bob-"+name, "US")
			owner.permit(actor, "User: Impersonation")
			acting := actor.as(bob, actor.actFor(bob))
			if !owner.signedIn(acting.token) {
				t.Fatal("not accepted before")
			}
			mustNot(t, end(actor, bob, acting))
			if owner.signedIn(acting.token) {
				t.Error("accepted after")
			}
		})
	}
}

// What is done under impersonation has both names in the journal of every service,
// also where one service calls another for it.
func TestBothNamesInTheJournal(t *testing.T) {
	var db *store.DB
	spied := permissions.Part
	spied.Start = func(env *server.Env) error {
		db = env.Store
		return permissions.Part.Start(env)
	}
	s := start(t, config(t), time.Now, identity.Cheap, spied)
	s.ready()
	owner := s.claim()
	owner.subscribeToAll() // whoever acts for another hands out nothing that the plan lacks
	bob := owner.hire("bob", "OA")
	acting := owner.as(bob, owner.actFor(bob))
	acting.session = bob.session
	acting.add("new", "US") // identity calls permissions, and then the caller does
	found := map[string]bool{}
	for e, err := range db.Journal(t.Context(), bob.user.GetOrganizationId(), 0) {
		mustNot(t, err)
		if e.GetCaller() == bob.user.GetId() {
			found[e.GetMethod()] = e.GetActor() == owner.user.GetId()
		}
	}
	if !found["latchkey.permissions.v1.AccessService/SetUserRole"] {
		t.Errorf("got %v, want SetUserRole with both names", found)
	}
}

// TestDecisionsOfAnActor lists what was decided of calls in another's name, by who acted.
func TestDecisionsOfAnActor(t *testing.T) {
	owner := owned(t)
	u := owner.hire("uma", "US")
	acting := owner.as(u, owner.actFor(u))
	for _, c := range []*caller{u, acting} {
		_, err := c.users().CreateUser(c.ctx(), &pb.CreateUserRequest{Email: "new@example.com", DisplayName: "New"})
		check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING")
	}
	list := func(req *decisionpb.ListDecisionsRequest) []*decisionpb.Decision {
		req.Source, req.UserId = "identity", u.user.GetId()
		resp, err := decisionpb.NewDecisionServiceClient(owner.conn).ListDecisions(owner.ctx(), req)
		mustNot(t, err)
		return resp.GetDecisions()
	}
	if got := list(&decisionpb.ListDecisionsRequest{Reason: "GRANT_MISSING"}); len(got) != 2 {
		t.Errorf("got the denials %v, want that of each call", got)
	}
	got := list(&decisionpb.ListDecisionsRequest{ActorId: owner.user.GetId()})
	if len(got) != 1 || got[0].GetActorId() != owner.user.GetId() {
		t.Errorf("got %v of the actor, want one decision", got)
	}
	if got := list(&decisionpb.ListDecisionsRequest{ActorId: u.user.GetId()}); len(got) != 0 {
		t.Errorf("got %v of somebody who acts for nobody", got)
	}
}
