package permissions

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// GetUserAccess gets what is stored of a user's access.
func (s *service) GetUserAccess(ctx context.Context, req *pb.GetUserAccessRequest) (*pb.GetUserAccessResponse, error) {
	if err := s.mustKnow(ctx, req.GetUserId()); err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetUserAccessResponse, error) {
		return &pb.GetUserAccessResponse{UserAccess: newLoader(tx).user(req.GetUserId())}, nil
	})
}

// ListAssignableKeys lists the keys that the caller may grant and deny.
func (s *service) ListAssignableKeys(ctx context.Context, _ *pb.ListAssignableKeysRequest) (*pb.ListAssignableKeysResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListAssignableKeysResponse, error) {
		return &pb.ListAssignableKeysResponse{Keys: keyNames(newLoader(tx).delegation(granterOf(ctx)).assignable())}, nil
	})
}

// GetEffectiveAccess tells all that a user may do.
func (s *service) GetEffectiveAccess(ctx context.Context, req *pb.GetEffectiveAccessRequest) (*pb.GetEffectiveAccessResponse, error) {
	user, err := s.subject(ctx, req.UserId)
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetEffectiveAccessResponse, error) {
		l, err := loaderAsOf(tx, req.GetAsOfTime())
		if err != nil {
			return nil, err
		}
		v := l.access(l.user(user)).judge(l.now)
		resp := &pb.GetEffectiveAccessResponse{
			UserId: user, Revision: l.revision(), EvaluateTime: timestampOf(v.at), ExpireTime: timestampOf(v.next),
			RoleId: v.role.id, GroupId: v.group.id, Keys: v.keyAccess(),
			Settings: v.settings().proto(v.agent), SettingSources: v.settingAccess(),
		}
		for _, f := range catalog.Features() {
			if v.plan.Has(f.Bit()) {
				resp.Features = append(resp.Features, f.Name)
			}
		}
		return resp, nil
	})
}

// subject returns whom a question is about: the caller, or a member he names.
func (s *service) subject(ctx context.Context, named *string) (string, error) {
	if named == nil {
		return authz.Caller(ctx).ID, nil
	}
	return *named, s.mustKnow(ctx, *named)
}

// mustKnow returns nil if something is stored of a user or he is a member. An unknown
// user and another organization's get the same answer.
func (s *service) mustKnow(ctx context.Context, user string) error {
	var known bool
	err := s.db.View(ctx, func(tx *store.Tx) error {
		known = accesses.Has(tx, user)
		return nil
	})
	if err != nil || known {
		return err
	}
	active, err := s.members(ctx, user)
	if err == nil && !active[user] {
		err = fault.NotFound("user", user)
	}
	return err
}
