package permissions

import (
	"context"
	"errors"
	"fmt"
	"time"

	permissionsstorepb "latchkey.dev/gen/go/latchkey/permissions/store/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// originOf is the origin of what an edit does in a tenant, whoever does it.
func originOf(edit *permissionsstorepb.RoleEdit, tenant string) store.Origin {
	return store.Origin{Tenant: tenant, Caller: edit.GetCaller(), Actor: edit.GetActor(), Method: edit.GetMethod()}
}

// complete makes a change of a brand's role that was decided in every organization. It
// does nothing if none goes on.
func (s *service) complete(ctx context.Context, brand, role string) error {
	var edit *permissionsstorepb.RoleEdit
	var r *pb.Role
	var members []string
	err := s.db.View(store.WithOrigin(ctx, store.Origin{Tenant: brand}), func(tx *store.Tx) error {
		edit, _ = roleEdits.Get(tx, role)
		r, _ = roles.Get(tx, role)
		members = membersIn(tx)
		return nil
	})
	if err != nil || !edit.GetDecided() {
		return err
	}
	if err := s.offerEverywhere(ctx, edit, r, members); err != nil {
		return err
	}
	return s.forgetEdit(ctx, brand, edit)
}

// offerEverywhere makes every organization's record of a role what the brand's is, and
// announces it.
//
// SECURITY: it announces the change also where it failed, because it was made in some.
func (s *service) offerEverywhere(ctx context.Context, edit *permissionsstorepb.RoleEdit, r *pb.Role, members []string) error {
	end := s.hub.Begin()
	defer end()
	err := each(members, func(organization string) error {
		return s.db.Update(store.WithOrigin(ctx, originOf(edit, organization)), func(tx *store.Tx) error { return offerIn(tx, edit, r) })
	})
	tags := make([]string, len(members))
	for i, organization := range members {
		tags[i] = "organization:" + organization
	}
	s.hub.Publish(tags...)
	return err
}

// offerIn makes the organization's record of a role what the brand's is. Where the edit holds
// nothing any more, that was done, and there may have been others since.
func offerIn(tx *store.Tx, edit *permissionsstorepb.RoleEdit, r *pb.Role) error {
	was, there := roles.Get(tx, r.GetId())
	if hold, _ := roleHolds.Get(tx, r.GetId()); hold.GetEditId() == edit.GetEditId() {
		roleHolds.Delete(tx, r.GetId())
	} else if there {
		return nil
	}
	return roles.Put(tx, offeredAs(r, was))
}

// giveUp takes back an edit that was not decided.
func (s *service) giveUp(ctx context.Context, brand string, edit *permissionsstorepb.RoleEdit) error {
	var members []string
	decided := false
	err := s.db.Update(store.WithOrigin(ctx, originOf(edit, brand)), func(tx *store.Tx) error {
		members = membersIn(tx)
		now, ok := roleEdits.Get(tx, edit.GetId())
		mine := ok && now.GetEditId() == edit.GetEditId()
		if decided = mine && now.GetDecided(); decided || !mine || now.GetGivenUp() {
			return nil
		}
		now.GivenUp = true // from now on nobody decides it
		return roleEdits.Put(tx, now)
	})
	if err != nil || decided {
		return err
	}
	if err := each(members, func(organization string) error { return s.release(ctx, edit, organization) }); err != nil {
		return err
	}
	return s.forgetEdit(ctx, brand, edit)
}

// release takes the hold of an edit away.
func (s *service) release(ctx context.Context, edit *permissionsstorepb.RoleEdit, organization string) error {
	return s.db.Update(store.WithOrigin(ctx, originOf(edit, organization)), func(tx *store.Tx) error {
		if hold, ok := roleHolds.Get(tx, edit.GetId()); ok && hold.GetEditId() == edit.GetEditId() {
			roleHolds.Delete(tx, edit.GetId())
		}
		return nil
	})
}

func (s *service) forgetEdit(ctx context.Context, brand string, edit *permissionsstorepb.RoleEdit) error {
	return s.db.Update(store.WithOrigin(ctx, originOf(edit, brand)), func(tx *store.Tx) error {
		if now, ok := roleEdits.Get(tx, edit.GetId()); ok && now.GetEditId() == edit.GetEditId() {
			roleEdits.Delete(tx, edit.GetId())
		}
		return nil
	})
}

// completeEdits completes edits of brands' roles that whoever made them left, and gives up
// those that were not decided, at once and every minute until ctx ends; and settles
// organizations every hour.
func (s *service) completeEdits(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	began := s.clock()
	if s.db.Shared() { // others may have begun them, and go on with them
		began = time.Time{}
	}
	var settled time.Time
	for {
		if err := s.completeAll(ctx, began); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "edits of brands' roles were not completed", "error", err)
		}
		if now := s.clock(); now.Sub(settled) >= time.Hour {
			if err := s.settleAll(ctx); err == nil {
				settled = now
			} else if ctx.Err() == nil {
				s.log.WarnContext(ctx, "organizations wait for their brand's roles", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// completeAll does so once. What was begun before an instant its maker has left.
func (s *service) completeAll(ctx context.Context, began time.Time) error {
	tenants, err := s.db.Tenants(ctx)
	if err != nil {
		return err
	}
	if given := s.clock().Add(-decideWithin); given.After(began) {
		began = given
	}
	var failed error
	for _, t := range tenants {
		if err := s.completeIn(ctx, t, began); err != nil {
			failed = errors.Join(failed, fmt.Errorf("in %s: %w", t, err))
		}
	}
	return failed
}

func (s *service) completeIn(ctx context.Context, tenant string, began time.Time) error {
	var edits []*permissionsstorepb.RoleEdit
	var holds []*permissionsstorepb.RoleHold
	err := s.db.View(store.WithOrigin(ctx, store.Origin{Tenant: tenant}), func(tx *store.Tx) error {
		for e := range roleEdits.All(tx) {
			if e.GetDecided() || !e.GetStartTime().AsTime().After(began) {
				edits = append(edits, e)
			}
		}
		for h := range roleHolds.All(tx) {
			if !h.GetStartTime().AsTime().After(began) {
				holds = append(holds, h)
			}
		}
		return nil
	})
	for _, e := range edits {
		step := s.giveUp
		if e.GetDecided() {
			step = func(ctx context.Context, brand string, e *permissionsstorepb.RoleEdit) error {
				return s.complete(ctx, brand, e.GetId())
			}
		}
		err = errors.Join(err, step(ctx, tenant, e))
	}
	for _, h := range holds {
		err = errors.Join(err, s.releaseLost(ctx, tenant, h))
	}
	return err
}

// releaseLost takes a hold away that no edit knows of any more: it was put by a process that
// was taken for dead, and then died.
func (s *service) releaseLost(ctx context.Context, organization string, h *permissionsstorepb.RoleHold) error {
	known := false
	err := s.db.View(store.WithOrigin(ctx, store.Origin{Tenant: h.GetBrandId()}), func(tx *store.Tx) error {
		edit, _ := roleEdits.Get(tx, h.GetId())
		known = edit.GetEditId() == h.GetEditId()
		return nil
	})
	if err != nil || known {
		return err
	}
	return s.release(ctx, &permissionsstorepb.RoleEdit{Id: h.GetId(), EditId: h.GetEditId()}, organization)
}

// notHeld returns nil if no edit of the brand holds one of some roles.
//
// SECURITY: an edit of a brand's role is checked in each organization for those who have the
// role there. Until it is made there, nobody may come to have it, or to have more besides.
func (l *loader) notHeld(roles ...baseline) error {
	for _, r := range roles {
		if r.brand && roleHolds.Has(l.tx, r.id) {
			return fault.RaceLost("role", r.id)
		}
	}
	return nil
}
