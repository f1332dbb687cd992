package permissions

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// leaveTime is how long somebody whom identity asked about does not count as an owner.
const leaveTime = time.Minute

// firstOwnerReason explains the overrides of the first owner to whoever reads them.
const firstOwnerReason = "first owner: holds every key, so that every key can be handed out"

// ResolveGrants computes everything that a user may do.
func (s *service) ResolveGrants(ctx context.Context, req *pb.ResolveGrantsRequest) (*pb.ResolveGrantsResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ResolveGrantsResponse, error) {
		l := newLoader(tx)
		a := l.access(l.user(req.GetUserId()))
		set, next := a.grants(tx.Now())
		return &pb.ResolveGrantsResponse{
			Grants: set.Bytes(), Settings: a.settings().effective(),
			Revision: tx.Revision(), ExpireTime: timestampOf(next),
		}, nil
	})
}

// SeedOrganization gives a new organization its first owner and its plan.
func (s *service) SeedOrganization(ctx context.Context, req *pb.SeedOrganizationRequest) (*pb.SeedOrganizationResponse, error) {
	brand := builtIn["BA"].keys
	if req.MakerGrants != nil {
		made, err := catalog.SetFromBytes(req.GetMakerGrants())
		if err != nil {
			return nil, fault.Invalid("maker_grants", "must be a set of grants: %s", err)
		}
		brand = brand.Without(brand.Without(made))
	}
	offered, err := s.joinBrand(ctx, req.GetBrandId())
	if err != nil {
		return nil, err
	}
	return change(ctx, s, userTag(ctx, req.GetOwnerUserId()), req, func(tx *store.Tx) (*pb.SeedOrganizationResponse, error) {
		l := newLoader(tx)
		if err := l.seed(req.GetOwnerUserId(), brand); err != nil {
			return nil, err
		}
		return &pb.SeedOrganizationResponse{}, l.offer(offered)
	})
}

// seed makes a user the first owner. Of the brand's keys he gets the given ones.
func (l *loader) seed(owner string, brand catalog.Set) error {
	if p, ok := plans.Get(l.tx, l.tx.Tenant()); ok {
		if p.GetFirstOwnerId() != owner {
			return fault.Refused("the organization has its first owner already")
		}
		return nil
	}
	u := l.user(owner)
	u.RoleId = ownerRole
	for b := range firstOwnerKeys(brand).All() {
		setOverride(u, &pb.Override{
			Key: b.String(), Effect: pb.Effect_EFFECT_GRANT, Reason: firstOwnerReason, SetTime: timestamppb.New(l.now),
		})
	}
	if err := accesses.Put(l.tx, u); err != nil {
		return err
	}
	return plans.Put(l.tx, &pb.Plan{Id: l.tx.Tenant(), FirstOwnerId: owner})
}

// firstOwnerKeys returns the keys that the first owner gets in addition to his role:
// all that it lacks, of those of the brand only the given ones.
func firstOwnerKeys(brand catalog.Set) catalog.Set {
	var keys catalog.Set
	owner, reserved := builtIn[ownerRole].keys, builtIn["BA"].keys.Without(brand)
	for _, k := range allKeys {
		if !owner.Has(k.Bit()) && !reserved.Has(k.Bit()) {
			keys.Add(k.Bit())
		}
	}
	return keys
}

// CheckRemovable checks that the organization keeps an owner without a user.
//
// An owner is not counted from then for a minute: so two owners cannot be shut out at
// once, nor one be shut out here while the other is stripped by SetUserRole.
func (s *service) CheckRemovable(ctx context.Context, req *pb.CheckRemovableRequest) (*pb.CheckRemovableResponse, error) {
	active, err := s.ownersAnd(ctx)
	if err != nil {
		return nil, err
	}
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CheckRemovableResponse, error) {
		return &pb.CheckRemovableResponse{}, newLoader(tx).leave(req.GetUserId(), active)
	})
}

// leave notes that a user is about to be removed, if an owner stays. It is noted of whoever
// is no owner too, so that he is not made the last one meanwhile.
func (l *loader) leave(user string, active map[string]bool) error {
	u := l.user(user)
	if l.access(u).owns(l.now) {
		if err := l.keepOwner(active, user); err != nil {
			return err
		}
	}
	u.LeaveTime = timestamppb.New(l.now.Add(leaveTime))
	return accesses.Put(l.tx, u)
}

// ForgetUser forgets what a former member could do.
func (s *service) ForgetUser(ctx context.Context, req *pb.ForgetUserRequest) (*pb.ForgetUserResponse, error) {
	return change(ctx, s, userTag(ctx, req.GetUserId()), req, func(tx *store.Tx) (*pb.ForgetUserResponse, error) {
		return &pb.ForgetUserResponse{}, newLoader(tx).forget(req.GetUserId())
	})
}

// forget keeps nothing of a user but which service agent he is, which stays so.
func (l *loader) forget(user string) error {
	agent := l.user(user).GetServiceAgentId()
	if agent == "" {
		accesses.Delete(l.tx, user)
		return nil
	}
	return accesses.Put(l.tx, &pb.UserAccess{Id: user, ServiceAgentId: agent})
}

// timestampOf returns nil for the zero time.
func timestampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
