package identity

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/store"
)

// owned is what an organization has, or its brand for all of its organizations: OAuth clients
// and outside providers. It names both: the organization in which it was made, and the brand
// of that.
type owned interface {
	GetOrganizationId() string
	GetBrandId() string
}

// isBrands tells whether it is the brand's.
func isBrands(r owned) bool {
	switch r := r.(type) {
	case *pb.OauthClient:
		return r.GetOwner() == brandOwned
	case *pb.OutsideProvider:
		return r.GetOwner() == brandProvider
	}
	return false
}

// ownerOf returns the organization or the brand that it belongs to.
func ownerOf(r owned) string {
	if isBrands(r) {
		return r.GetBrandId()
	}
	return r.GetOrganizationId()
}

// isFor tells whether it is an organization's or that of its brand.
func isFor(tx *store.Tx, r owned, organization string) bool {
	if !isBrands(r) {
		return r.GetOrganizationId() == organization
	}
	o, ok := organizations.Get(tx, organization)
	return ok && o.GetBrandId() == r.GetBrandId()
}

// looksAfter tells whether the caller manages it, with a key for what his organization has,
// and another for what its brand has.
func looksAfter(ctx context.Context, tx *store.Tx, r owned, own, brands string) bool {
	key := own
	if isBrands(r) {
		key = brands
	}
	caller := authz.Caller(ctx)
	return caller.Has(key) && isFor(tx, r, caller.Organization)
}

// ownerAsked returns whose they are that a caller lists: his organization's, or its brand's.
func ownerAsked(ctx context.Context, tx *store.Tx, brands bool) (string, error) {
	organization := authz.Caller(ctx).Organization
	if !brands {
		return organization, nil
	}
	b, err := brandOf(tx, organization)
	return b.GetId(), err
}
