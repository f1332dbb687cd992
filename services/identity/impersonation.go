package identity

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

// actLife is how long one may act for another at most, and unless less is asked for.
const actLife = 15 * time.Minute

var seePricing = catalog.MustGrant("setting:see_pricing")

var surfaceOf = map[authz.Surface]pb.Surface{
	authz.SurfaceWeb: pb.Surface_SURFACE_WEB, authz.SurfaceApp: pb.Surface_SURFACE_APP, authz.SurfaceAPI: pb.Surface_SURFACE_API,
}

// ImpersonateUser implements pb.ImpersonationServiceServer.
func (s *service) ImpersonateUser(ctx context.Context, req *pb.ImpersonateUserRequest) (*pb.ImpersonateUserResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	if req.GetUserId() == caller.ID {
		return nil, fault.Invalid("user_id", "must be somebody else")
	}
	theirs, err := s.actable(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	id := s.newID()
	secret, hash := token.New(sessionPrefix, s.random)
	resp, err := do(ctx, s, req, func(tx *store.Tx) (*pb.ImpersonateUserResponse, error) {
		if err := admit(tx, callerAsSubject(caller), pathAct); err != nil {
			return nil, err
		}
		if _, ok := acting(tx, caller); ok {
			return nil, fault.Refused("end the impersonation that you began before")
		}
		i, err := openAct(tx, req, caller, id)
		if err != nil {
			return nil, err
		}
		scopes := theirs.OnlyKeys().Bytes()
		t := &identitystorepb.SessionToken{Id: tokenID(hash[:]), SessionId: id, ActorSessionId: caller.SessionID, Scopes: scopes}
		return &pb.ImpersonateUserResponse{Impersonation: i}, tokens.Put(tx, t)
	})
	if err == nil && !req.GetValidateOnly() && resp.GetImpersonation().GetId() == id {
		resp.Token = secret
	}
	return resp, err
}

// actable returns what an active member of the caller's organization holds, if the
// caller holds no less and the member may come in on the caller's surface.
//
// SECURITY: it is what a session in the member's name carries at most. What the
// member is given later, the caller may not hold.
func (s *service) actable(ctx context.Context, user string) (catalog.Set, error) {
	caller := authz.Caller(ctx)
	_, err := read(ctx, s, func(tx *store.Tx) (*pb.User, error) { return activeMember(tx, caller.Organization, user) })
	if err != nil {
		return catalog.Set{}, err
	}
	theirs, err := s.reachable(ctx, user, "act for")
	if err != nil {
		return catalog.Set{}, err
	}
	return theirs, checkSurface(surfaceOf[caller.Surface], theirs)
}

// reachable returns what a user of the caller's organization holds, if the caller holds no
// less. Doing is what the caller wants to do to the user.
func (s *service) reachable(ctx context.Context, user, doing string) (catalog.Set, error) {
	caller := authz.Caller(ctx)
	theirs, err := s.grantsOf(ctx, caller.Organization, user)
	if err != nil {
		return catalog.Set{}, err
	}
	return theirs, within(reachOf(theirs), caller.Grants, doing)
}

// reachOf returns those of a user's grants that whoever calls as him must have himself.
func reachOf(grants catalog.Set) catalog.Set {
	reach := grants.OnlyKeys()
	if grants.Has(seePricing) { // a setting, but amounts are as secret as keys keep anything
		reach.Add(seePricing)
	}
	return reach
}

// activeMember finds a member who may come in. One who may not is as unknown as
// nobody.
func activeMember(tx *store.Tx, organization, id string) (*pb.User, error) {
	u, err := member(tx, organization, id)
	switch {
	case err != nil:
	case u.GetState() != active:
		err = fault.NotFound("user", id)
	case u.GetServiceAccount():
		err = fault.Refused("a service account is no person, so nobody acts for it: make an API key for it")
	}
	return u, err
}

// openAct keeps a session in a user's name, and that it was opened.
func openAct(tx *store.Tx, req *pb.ImpersonateUserRequest, caller *authz.Principal, id string) (*pb.Impersonation, error) {
	if _, err := activeMember(tx, caller.Organization, req.GetUserId()); err != nil {
		return nil, err
	}
	life := actLife
	if req.GetLifetime() != nil {
		life = req.GetLifetime().AsDuration()
	}
	now, end := timestamppb.New(tx.Now()), timestamppb.New(tx.Now().Add(life))
	session := &pb.Session{
		Id: id, UserId: req.GetUserId(), OrganizationId: caller.Organization, Surface: surfaceOf[caller.Surface],
		CreateTime: now, ExpireTime: end, ActorId: caller.ID,
	}
	if err := sessions.Put(tx, session); err != nil {
		return nil, err
	}
	i := &pb.Impersonation{
		Id: id, UserId: req.GetUserId(), ActorId: caller.ID, OrganizationId: caller.Organization, Reason: req.GetReason(),
		CreateTime: now, ExpireTime: end, PurgeTime: timestamppb.New(tx.Now().Add(undeleteLife)),
	}
	tx.Involve(caller.Organization)
	tx.Emit(&pb.ImpersonationBegan{OrganizationId: caller.Organization, UserId: i.GetUserId(), ActorId: caller.ID, ImpersonationId: id})
	return i, impersonations.Put(tx, i)
}

// acting finds the impersonation that the caller is in the middle of.
func acting(tx *store.Tx, caller *authz.Principal) (*pb.Impersonation, bool) {
	i, ok := impersonationsByActor.First(tx, caller.Organization, caller.ID)
	if !ok || i.GetEndTime() != nil || !i.GetExpireTime().AsTime().After(tx.Now()) {
		return nil, false
	}
	return i, sessions.Has(tx, i.GetId())
}

// EndImpersonation implements pb.ImpersonationServiceServer.
func (s *service) EndImpersonation(ctx context.Context, req *pb.EndImpersonationRequest) (*pb.EndImpersonationResponse, error) {
	caller := authz.Caller(ctx)
	var resp *pb.EndImpersonationResponse
	end := func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.EndImpersonationResponse, error) {
			i, err := actOf(tx, caller, req)
			if err != nil {
				return nil, err
			}
			endSession(tx, i.GetId())
			i.EndTime = timestamppb.New(tx.Now())
			return &pb.EndImpersonationResponse{Impersonation: i}, impersonations.Put(tx, i)
		})
		return err
	}
	if req.GetValidateOnly() {
		return resp, end(ctx)
	}
	// Which one it is, the change finds out: the tag of who acts covers each of them.
	return resp, s.shutOut(ctx, end, userTag(caller.ID))
}

// actOf finds the impersonation that the caller wants to end.
func actOf(tx *store.Tx, caller *authz.Principal, req *pb.EndImpersonationRequest) (*pb.Impersonation, error) {
	i, ok := acting(tx, caller)
	if id := req.GetId(); id != "" {
		if i, ok = impersonations.Get(tx, id); ok {
			ok = i.GetActorId() == caller.ID && i.GetOrganizationId() == caller.Organization
		}
	}
	if !ok {
		return nil, fault.NotFound("impersonation", req.GetId())
	}
	if err := impersonations.Match(i, req.GetEtag()); err != nil {
		return nil, err
	}
	if !sessions.Has(tx, i.GetId()) {
		return nil, fault.Refused("the impersonation has ended")
	}
	return i, nil
}

// noteEnd writes down that a session has ended that somebody opened in another's name.
func noteEnd(tx *store.Tx, session string) error {
	i, ok := impersonations.Get(tx, session)
	if !ok {
		return nil
	}
	i.EndTime = timestamppb.New(tx.Now())
	return impersonations.Put(tx, i)
}

// ListMyImpersonations implements pb.ImpersonationServiceServer.
func (s *service) ListMyImpersonations(ctx context.Context, req *pb.ListMyImpersonationsRequest) (*pb.ListMyImpersonationsResponse, error) {
	caller := authz.Caller(ctx)
	return read(ctx, s, func(tx *store.Tx) (*pb.ListMyImpersonationsResponse, error) {
		page, next, err := store.Page(tx, req, nil, impersonationsByUser.Range(caller.Organization, caller.ID))
		return &pb.ListMyImpersonationsResponse{Impersonations: page, NextPageToken: next}, err
	})
}
