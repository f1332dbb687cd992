package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

const (
	// automateEvery is how often it is looked what the suite is to do by itself.
	automateEvery = time.Hour
	// unusedDays are after how many days it does so unless the brand says otherwise. How long a
	// user's places are known is the longest that it can be.
	unusedDays = 90

	deactivateUnused = pb.AutomationKind_AUTOMATION_KIND_DEACTIVATE_UNUSED_USERS
	revokeUnused     = pb.AutomationKind_AUTOMATION_KIND_REVOKE_UNUSED_KEYS
)

var automationKinds = []pb.AutomationKind{deactivateUnused, revokeUnused}

// automationOf returns an automation of a brand, off while nobody has said otherwise.
func automationOf(tx *store.Tx, brand string, kind pb.AutomationKind) *pb.Automation {
	id := fmt.Sprintf("%s/%d", brand, kind)
	if a, ok := automations.Get(tx, id); ok {
		return a
	}
	return &pb.Automation{Id: id, BrandId: brand, Kind: kind, AfterDays: unusedDays}
}

// GetAutomations implements pb.AutomationServiceServer.
func (s *service) GetAutomations(ctx context.Context, _ *pb.GetAutomationsRequest) (*pb.GetAutomationsResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetAutomationsResponse, error) {
		b, err := brandOf(tx, authz.Caller(ctx).Organization)
		resp := &pb.GetAutomationsResponse{}
		for _, kind := range automationKinds {
			resp.Automations = append(resp.Automations, automationOf(tx, b.GetId(), kind))
		}
		return resp, err
	})
}

// UpdateAutomation implements pb.AutomationServiceServer.
func (s *service) UpdateAutomation(ctx context.Context, req *pb.UpdateAutomationRequest) (*pb.UpdateAutomationResponse, error) {
	w := req.GetAutomation()
	if w.GetKind() == 0 {
		return nil, fault.Invalid("automation.kind", "must be a kind")
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateAutomationResponse, error) {
		b, err := brandOf(tx, authz.Caller(ctx).Organization)
		if err != nil {
			return nil, err
		}
		a := automationOf(tx, b.GetId(), w.GetKind())
		if id := w.GetId(); id != "" && id != a.GetId() {
			return nil, fault.NotFound("automation", id)
		}
		if err := automations.Match(a, w.GetEtag()); err != nil {
			return nil, err
		}
		if err := mask.Apply(a, w, req.GetUpdateMask(), "enabled", "after_days"); err != nil {
			return nil, err
		}
		if a.GetAfterDays() == 0 {
			a.AfterDays = unusedDays
		}
		return &pb.UpdateAutomationResponse{Automation: a}, automations.Put(tx, a)
	})
}

// automate does what brands have the suite do by itself, if it was not looked lately.
func (s *service) automate(ctx context.Context) {
	if s.now().Before(s.automated.Add(automateEvery)) {
		return
	}
	s.automated = s.now()
	if err := s.automateAll(ctx); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "what brands have the suite do by itself is left to the next time", "error", err)
	}
}

func (s *service) automateAll(ctx context.Context) error {
	ctx = store.WithOrigin(ctx, store.Origin{Tenant: directory, Method: "automation"})
	on, err := read(ctx, s, func(tx *store.Tx) (on []*pb.Automation, _ error) {
		for a := range automations.All(tx) {
			if b, ok := brands.Get(tx, a.GetBrandId()); ok && a.GetEnabled() && b.GetDeleteTime() == nil {
				on = append(on, a)
			}
		}
		return on, nil
	})
	for _, a := range on {
		unused := s.deactivateUnused
		if a.GetKind() == revokeUnused {
			unused = s.revokeUnused
		}
		err = errors.Join(err, unused(ctx, a))
	}
	return err
}

// since returns from when on something must have been used not to be unused.
func since(tx *store.Tx, a *pb.Automation) time.Time {
	return tx.Now().Add(-time.Duration(a.GetAfterDays()) * day)
}

// organizationsOf returns the organizations of a brand that are not closed.
func (s *service) organizationsOf(ctx context.Context, brand string) (ids []string, err error) {
	return read(ctx, s, func(tx *store.Tx) (ids []string, _ error) {
		for o := range organizationsByName.Scan(tx, organizationsByName.Range(brand)) {
			ids = append(ids, o.GetId())
		}
		return ids, nil
	})
}

// revokeUnused revokes the keys of a brand and its organizations that nobody has used.
func (s *service) revokeUnused(ctx context.Context, a *pb.Automation) error {
	owners, err := s.organizationsOf(ctx, a.GetBrandId())
	for _, owner := range append(owners, a.GetBrandId()) {
		stale, readErr := read(ctx, s, func(tx *store.Tx) (stale []*pb.ApiKey, _ error) {
			for key := range apiKeysByOwner.Scan(tx, apiKeysByOwner.Range(owner)) {
				if keyUnused(tx, a, key) {
					stale = append(stale, key)
				}
			}
			return stale, nil
		})
		err = errors.Join(err, readErr)
		for _, key := range stale {
			err = errors.Join(err, s.shutOut(ctx, func(ctx context.Context) error {
				return s.db.Update(ctx, func(tx *store.Tx) error {
					key, _ := apiKeys.Get(tx, key.GetId())
					if !keyUnused(tx, a, key) {
						return nil
					}
					tx.Involve(key.GetOrganizationId())
					return revokeKey(tx, key)
				})
			}, sessionTag(key.GetId())))
		}
	}
	return err
}

// keyUnused tells whether nobody has used an active key for as long as an automation says.
func keyUnused(tx *store.Tx, a *pb.Automation, key *pb.ApiKey) bool {
	use, _ := apiKeyUses.Get(tx, key.GetId())
	last := latest(key.GetCreateTime().AsTime(), use.GetLastUseTime().AsTime())
	return key.GetState() == keyActive && last.Before(since(tx, a))
}

// latest returns the later of two times.
func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// deactivateUnused deactivates the users of a brand's organizations whom nobody has seen.
func (s *service) deactivateUnused(ctx context.Context, a *pb.Automation) error {
	organizations, err := s.organizationsOf(ctx, a.GetBrandId())
	for _, organization := range organizations {
		for after := organization + "/"; after != ""; {
			some, readErr := read(ctx, s, func(tx *store.Tx) ([]*pb.User, error) {
				return take(users.Scan(tx, users.Range().From(after).To(organization+"0"))), nil // "0" follows "/"
			})
			if err = errors.Join(err, readErr); readErr != nil {
				break
			}
			after = ""
			for _, u := range some {
				err = errors.Join(err, s.deactivateIfUnused(ctx, a, u))
			}
			if len(some) == batch {
				after = userKey(organization, some[batch-1].GetId()) + "\x00"
			}
		}
	}
	return err
}

// deactivateIfUnused deactivates a user whom nobody has seen, unless no owner would be left.
func (s *service) deactivateIfUnused(ctx context.Context, a *pb.Automation, u *pb.User) error {
	stale, err := read(ctx, s, func(tx *store.Tx) (bool, error) { return userUnused(tx, a, u), nil })
	if err != nil || !stale {
		return err
	}
	_, err = s.grants.CheckRemovable(inTenant(ctx, u.GetOrganizationId()), &permissionspb.CheckRemovableRequest{UserId: u.GetId()})
	if status.Code(err) == codes.FailedPrecondition { // the last owner
		return nil
	}
	if err != nil {
		return unanswered(ctx, "permissions", "check whether a user is removable", err)
	}
	return s.shutOut(ctx, func(ctx context.Context) error {
		return s.db.Update(ctx, func(tx *store.Tx) error {
			u, ok := users.Get(tx, userKey(u.GetOrganizationId(), u.GetId()))
			if !ok || !userUnused(tx, a, u) {
				return nil
			}
			tx.Involve(u.GetOrganizationId())
			u.State = deactivated
			return shutUser(tx, u)
		})
	}, userTag(u.GetId()))
}

// userUnused tells whether nobody has seen an active member for as long as an automation says.
func userUnused(tx *store.Tx, a *pb.Automation, u *pb.User) bool {
	if u.GetState() != active || u.GetDeleteTime() != nil || u.GetServiceAccount() {
		return false
	}
	seen := latest(u.GetCreateTime().AsTime(), u.GetUpdateTime().AsTime())
	for _, p := range placesOf(tx, u.GetOrganizationId(), u.GetId()) {
		seen = latest(seen, p.GetUseTime().AsTime())
	}
	for session := range sessionsByUser.Scan(tx, sessionsByUser.Range(u.GetId())) {
		switch {
		case session.GetOrganizationId() != u.GetOrganizationId() || session.GetActorId() != "" || !session.GetExpireTime().AsTime().After(tx.Now()):
		case session.GetClientId() != "": // of which it is not written down when it is used
			return false
		default:
			seen = latest(seen, lastSeen(tx, session))
		}
	}
	for key := range apiKeysByUser.Scan(tx, apiKeysByUser.Range(u.GetOrganizationId(), u.GetId())) {
		use, _ := apiKeyUses.Get(tx, key.GetId())
		seen = latest(seen, use.GetLastUseTime().AsTime())
	}
	return seen.Before(since(tx, a))
}

// eraseAutomations removes the automations of a brand.
func eraseAutomations(tx *store.Tx, brand string) {
	for _, kind := range automationKinds {
		automations.Delete(tx, automationOf(tx, brand, kind).GetId())
	}
}
