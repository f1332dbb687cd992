package permissions

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionsstorepb "latchkey.dev/gen/go/latchkey/permissions/store/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// brandPage is how many organizations one question to identity is about.
const brandPage = 500

// brandOf returns the brand of the organization that a call is for.
func (s *service) brandOf(ctx context.Context) (string, error) {
	resp, err := s.organizations.LookupOrganization(ctx, &identitypb.LookupOrganizationRequest{})
	return resp.GetOrganization().GetBrandId(), noOrganization(ctx, err)
}

// organizationsOf returns the organizations of the brand of a call, closed ones too.
func (s *service) organizationsOf(ctx context.Context) (ids []string, err error) {
	req := &identitypb.LookupBrandRequest{PageSize: brandPage}
	for {
		resp, err := s.brands.LookupBrand(ctx, req)
		if err != nil {
			return nil, noOrganization(ctx, err)
		}
		ids = append(ids, resp.GetOrganizationIds()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			slices.Sort(ids)
			return slices.Compact(ids), nil
		}
	}
}

func noOrganization(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case status.Code(err) == codes.NotFound:
		return fault.NotFound("organization", store.OriginOf(ctx).Tenant)
	}
	return unavailable("identity", err)
}

// membersOf returns the organizations that offer the roles of a brand.
func (s *service) membersOf(ctx context.Context, brand string) (ids []string, err error) {
	err = s.db.View(inBrand(ctx, brand), func(tx *store.Tx) error {
		ids = membersIn(tx)
		return nil
	})
	return ids, err
}

func membersIn(tx *store.Tx) (ids []string) {
	for m := range brandMembers.All(tx) {
		ids = append(ids, m.GetId())
	}
	return ids
}

// keepMembers notes which organizations a brand has. Of those that it was known to have
// before identity was asked, the ones that identity lacks are gone for good.
func keepMembers(tx *store.Tx, before, organizations []string) error {
	for _, id := range before {
		if _, is := slices.BinarySearch(organizations, id); !is {
			brandMembers.Delete(tx, id)
		}
	}
	for _, id := range organizations {
		if err := addMember(tx, id); err != nil {
			return err
		}
	}
	return nil
}

func addMember(tx *store.Tx, organization string) error {
	if brandMembers.Has(tx, organization) {
		return nil
	}
	return brandMembers.Put(tx, &permissionsstorepb.BrandMember{Id: organization})
}

// joinBrand notes that a brand has an organization, and returns the roles that it offers
// from then on. Each later change of one goes to the organization too.
func (s *service) joinBrand(ctx context.Context, brand string) (offered []*pb.Role, err error) {
	if brand == "" {
		return nil, nil
	}
	organization, is := store.OriginOf(ctx).Tenant, false
	look := func(tx *store.Tx) error {
		offered, is = slices.Collect(roles.All(tx)), brandMembers.Has(tx, organization)
		return nil
	}
	// Most are there already; looking costs no turn at writing.
	if err := s.db.View(inBrand(ctx, brand), look); err != nil || is {
		return offered, err
	}
	err = s.db.Update(inBrand(ctx, brand), func(tx *store.Tx) error { return errors.Join(look(tx), addMember(tx, organization)) })
	return offered, err
}

// offer puts the roles of the brand that the organization does not have.
func (l *loader) offer(offered []*pb.Role) error {
	for _, r := range offered {
		if roles.Has(l.tx, r.GetId()) {
			continue // a change of it was faster
		}
		if err := roles.Put(l.tx, offeredAs(r, nil)); err != nil {
			return err
		}
	}
	return nil
}

// offeredAs returns the organization's record of a role of its brand, by the one that it has.
func offeredAs(r, was *pb.Role) *pb.Role {
	is := proto.CloneOf(r)
	is.Etag, is.CreateTime, is.UpdateTime = was.GetEtag(), was.GetCreateTime(), was.GetUpdateTime()
	return is
}
