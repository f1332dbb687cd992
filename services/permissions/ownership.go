package permissions

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// ListOrganizationOwners implements pb.OwnerServiceServer.
func (s *service) ListOrganizationOwners(ctx context.Context, req *pb.ListOrganizationOwnersRequest) (*pb.ListOrganizationOwnersResponse, error) {
	resp, err := store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListOrganizationOwnersResponse, error) { return listOwners(tx, req) })
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, o := range resp.GetOwners() {
		ids = append(ids, o.GetUserId())
	}
	members, err := s.membersAmong(ctx, ids)
	if err != nil {
		return nil, err
	}
	resp.Owners = slices.DeleteFunc(resp.Owners, func(o *pb.Owner) bool {
		m := members[o.GetUserId()]
		o.DisplayName, o.Email = m.GetDisplayName(), m.GetEmail()
		o.Active = m.GetState() == identitypb.UserState_USER_STATE_ACTIVE
		o.Sufficient = o.Sufficient && o.Active
		return m == nil || m.GetServiceAccount()
	})
	return resp, nil
}

// listOwners returns a page of those who hold the owner's key, be they members or not.
func listOwners(tx *store.Tx, req *pb.ListOrganizationOwnersRequest) (*pb.ListOrganizationOwnersResponse, error) {
	l, resp := newLoader(tx), &pb.ListOrganizationOwnersResponse{}
	keep := func(u *pb.UserAccess) bool {
		a := l.access(u)
		v := a.judge(l.now)
		if v.set.Has(ownerKey) {
			resp.Owners = append(resp.Owners, &pb.Owner{
				UserId: u.GetId(), Sufficient: a.owns(l.now) && !u.GetLeaveTime().AsTime().After(l.now), ExpireTime: timestampOf(v.next),
			})
		}
		return v.set.Has(ownerKey)
	}
	var err error
	_, resp.NextPageToken, err = store.Page(tx, req, keep, l.candidates(inquiry{bit: ownerKey})...)
	return resp, err
}

// TransferOrganizationOwnership implements pb.OwnerServiceServer.
func (s *service) TransferOrganizationOwnership(ctx context.Context, req *pb.TransferOrganizationOwnershipRequest) (*pb.TransferOrganizationOwnershipResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() {
		return nil, inPersonOnly()
	}
	if err := s.checkStepUp(ctx); err != nil {
		return nil, err
	}
	if req.GetUserId() == caller.ID {
		return nil, fault.Invalid("user_id", "must be somebody else")
	}
	persons, err := s.ownersAnd(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	if !persons[req.GetUserId()] {
		return nil, fault.Invalid("user_id", "must be a person: a service account owns nothing")
	}
	return change(ctx, s, organizationTag(ctx), req, func(tx *store.Tx) (*pb.TransferOrganizationOwnershipResponse, error) {
		return newLoader(tx).transfer(granterOf(ctx), req)
	})
}

// checkStepUp asks identity whether something was proven lately in the caller's session.
func (s *service) checkStepUp(ctx context.Context) error {
	caller := authz.Caller(ctx)
	_, err := s.sessions.CheckStepUp(ctx, &identitypb.CheckStepUpRequest{UserId: caller.ID, SessionId: caller.SessionID})
	if err == nil {
		return nil
	}
	if told := fault.Relay(err, faultpb.Reason_REASON_STEP_UP_NEEDED, faultpb.Reason_REASON_CREDENTIALS_INVALID); told != nil {
		return told
	}
	return unavailable("identity", err)
}

// transfer makes another user an owner in the place of the granter.
func (l *loader) transfer(g granter, req *pb.TransferOrganizationOwnershipRequest) (*pb.TransferOrganizationOwnershipResponse, error) {
	role := req.GetRoleId()
	if role == "" {
		role = "OA"
	}
	switch r := l.role(role); {
	case r.id == "":
		return nil, fault.NotFound("role", role)
	case r.keys.Has(ownerKey):
		return nil, fault.Invalid("role_id", "must be a role without %s: the organization is handed over", ownerKey)
	}
	by, next, former := l.delegation(g), l.user(req.GetUserId()), l.user(g.id)
	if err := accesses.Match(next, req.GetEtag()); err != nil {
		return nil, err
	}
	if next.GetLeaveTime().AsTime().After(l.now) {
		return nil, fault.Refused("the user is about to be removed or deactivated: hand the organization over to somebody else")
	}
	edits := []edit{{user: next.GetId(), before: l.access(next)}, {user: former.GetId(), before: l.access(former)}}
	handOver(former, next, l.liveOverrides(former), l.now)
	former.RoleId = role
	former.ChangeReason, next.ChangeReason = req.GetReason(), req.GetReason()
	edits[0].after, edits[1].after = l.access(next), l.access(former)
	for _, e := range edits {
		if err := l.notHeld(e.before.role, e.after.role); err != nil {
			return nil, err
		}
		if err := by.check(e); err != nil {
			return nil, err
		}
	}
	if !edits[0].after.owns(l.now) {
		return nil, fault.Refused("the user would not count as an owner, because a deny keeps %s or %s from him: clear it first", ownerKey, usersKey)
	}
	if err := accesses.Put(l.tx, next); err != nil {
		return nil, err
	}
	return &pb.TransferOrganizationOwnershipResponse{Owner: next, Former: former}, accesses.Put(l.tx, former)
}

// handOver gives the next owner the owner's role and the grants among the former one's
// overrides, which he loses.
func handOver(former, next *pb.UserAccess, overrides []*pb.Override, now time.Time) {
	next.RoleId, next.GroupId, next.RegionalManager = ownerRole, "", false
	former.GroupId, former.RegionalManager = "", false
	for _, o := range overrides {
		if o.GetEffect() == pb.Effect_EFFECT_GRANT {
			clearOverride(former, o.GetKey())
			setOverride(next, &pb.Override{
				Key: o.GetKey(), Effect: o.GetEffect(), Reason: o.GetReason(), ExpireTime: o.GetExpireTime(),
				SetBy: former.GetId(), SetTime: timestamppb.New(now),
			})
		}
	}
}

// inPersonOnly is what an API key is told, and whoever acts for another.
func inPersonOnly() error {
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_IN_PERSON_ONLY,
		"only the person may do this, signed in: not an API key, and nobody who acts in the person's name", nil)
}
