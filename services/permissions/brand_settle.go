package permissions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// settleWithin bounds how long one organization is settled.
const settleWithin = 10 * time.Second

// settleAll has every organization offer what its brand does: one that came here from another
// installation may have come into another brand, or have missed what its own has changed.
func (s *service) settleAll(ctx context.Context) error {
	tenants, err := s.db.Tenants(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, t := range tenants {
		if err := s.settle(store.WithOrigin(ctx, store.Origin{Tenant: t})); err != nil {
			failed = errors.Join(failed, fmt.Errorf("settle %s: %w", t, err))
		}
	}
	return failed
}

// settle has one organization offer what its brand does. It reads what the organization has
// before what the brand has, so where the one did not change since, the other is no older.
func (s *service) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	resp, err := s.organizations.LookupOrganization(ctx, &identitypb.LookupOrganizationRequest{})
	if status.Code(err) == codes.NotFound {
		return nil // a brand, or an organization that is gone
	}
	if err != nil {
		return unavailable("identity", err)
	}
	brand := resp.GetOrganization().GetBrandId()
	had := map[string]*pb.Role{}
	err = s.db.View(ctx, func(tx *store.Tx) error {
		for r := range roles.All(tx) {
			had[r.GetId()] = r
		}
		return nil
	})
	if err != nil {
		return err
	}
	offered, err := s.joinBrand(ctx, brand)
	if err != nil {
		return err
	}
	if !unsettled(brand, had, offered) {
		return nil
	}
	end := s.hub.Begin()
	defer end()
	err = s.db.Update(ctx, func(tx *store.Tx) error { return newLoader(tx).settle(brand, had, offered) })
	s.hub.Publish(organizationTag(ctx))
	return err
}

// unsettled tells whether an organization has something else than its brand offers.
func unsettled(brand string, had map[string]*pb.Role, offered []*pb.Role) bool {
	for _, r := range had {
		if r.GetBrandId() != "" && r.GetBrandId() != brand {
			return true
		}
	}
	for _, r := range offered {
		if was := had[r.GetId()]; !madeOwn(r, was) && !proto.Equal(offeredAs(r, was), was) {
			return true
		}
	}
	return false
}

// madeOwn tells whether a role that is deleted in the brand is the organization's own.
func madeOwn(r, was *pb.Role) bool {
	return r.GetDeleteTime() != nil && was != nil && was.GetBrandId() == ""
}

// settle makes the roles of other brands the organization's own, and those of its own brand
// what they are there. One that the brand has deleted, which it may while nobody has it, and
// that somebody here has who was elsewhere then, becomes the organization's own, too.
func (l *loader) settle(brand string, had map[string]*pb.Role, offered []*pb.Role) error {
	for _, r := range had {
		if r.GetBrandId() == "" || r.GetBrandId() == brand {
			continue
		}
		if err := l.makeOwn(r); err != nil {
			return err
		}
	}
	for _, r := range offered {
		was, _ := roles.Get(l.tx, r.GetId())
		if was.GetEtag() != had[r.GetId()].GetEtag() || roleHolds.Has(l.tx, r.GetId()) {
			continue // an edit of the brand's is faster, or goes on
		}
		is := offeredAs(r, was)
		var err error
		switch {
		case madeOwn(r, was), proto.Equal(is, was):
		case r.GetDeleteTime() != nil && was != nil && was.GetDeleteTime() == nil && l.unused(r.GetId(), "") != nil:
			err = l.makeOwn(was)
		default:
			err = roles.Put(l.tx, is)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeOwn makes a role of a brand the organization's own, under a name that is free.
func (l *loader) makeOwn(r *pb.Role) error {
	r = proto.CloneOf(r)
	r.BrandId = ""
	for name, n := r.GetName(), 2; l.taken(r); n++ {
		r.Name = fmt.Sprint(name, " ", n)
	}
	roleHolds.Delete(l.tx, r.GetId())
	return roles.Put(l.tx, r)
}

// taken tells whether another role of the organization's own has a role's name.
func (l *loader) taken(r *pb.Role) bool {
	for other := range roleByName.Scan(l.tx, roleByName.Range(false, foldName(r.GetName()))) {
		if r.GetDeleteTime() == nil && other.GetBrandId() == "" && other.GetId() != r.GetId() {
			return true
		}
	}
	return false
}
