package identity

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// grantsOf asks permissions what a user may do in an organization.
func (s *service) grantsOf(ctx context.Context, organization, user string) (catalog.Set, error) {
	set, _, err := s.accessOf(ctx, organization, user)
	return set, err
}

// accessOf is grantsOf with the settings that are not boolean.
func (s *service) accessOf(ctx context.Context, organization, user string) (catalog.Set, *permissionspb.EffectiveSettings, error) {
	resp, err := s.grants.ResolveGrants(inTenant(ctx, organization), &permissionspb.ResolveGrantsRequest{UserId: user})
	if err != nil {
		return catalog.Set{}, nil, unanswered(ctx, "permissions", "resolve grants", err)
	}
	set, err := catalog.SetFromBytes(resp.GetGrants())
	if err != nil {
		return catalog.Set{}, nil, fmt.Errorf("resolve grants: %w", err)
	}
	return set, resp.GetSettings(), nil
}

// checkWithin returns nil if the user holds no key in the caller's organization that
// the caller lacks.
func (s *service) checkWithin(ctx context.Context, user string) error {
	caller := authz.Caller(ctx)
	theirs, err := s.grantsOf(ctx, caller.Organization, user)
	if err != nil {
		return err
	}
	return within(theirs.OnlyKeys(), caller.Grants, "change")
}

// within returns nil if a user who holds theirs holds nothing beyond own. Doing is what
// the caller wants to do to the user.
func within(theirs, own catalog.Set, doing string) error {
	for grant := range theirs.Without(own).All() {
		return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_BEYOND_OWN_GRANTS,
			fmt.Sprintf("the user has the permission %s and you do not: only somebody who has it may %s this user", grant, doing),
			map[string]string{"grant": grant.String()})
	}
	return nil
}

// checkRemovable returns nil if the caller's organization keeps an owner without the
// user of a removal. From then on the user counts as leaving for a minute, so that two
// owners cannot shut each other out.
func (s *service) checkRemovable(ctx context.Context, req removal) error {
	_, err := s.grants.CheckRemovable(ctx, &permissionspb.CheckRemovableRequest{
		UserId: req.GetId(), ValidateOnly: req.GetValidateOnly(),
	})
	if status.Code(err) == codes.FailedPrecondition {
		return fault.New(codes.FailedPrecondition, faultpb.Reason_REASON_LAST_OWNER,
			"the organization would be left without an owner: make somebody else an owner first", nil)
	}
	if err != nil {
		return unanswered(ctx, "permissions", "check whether a user is removable", err)
	}
	return nil
}

// seedPermissions tells permissions of a new organization and its owner. It may be
// told again.
func (s *service) seedPermissions(ctx context.Context, seeding *identitystorepb.Seeding) error {
	o, err := read(ctx, s, func(tx *store.Tx) (*pb.Organization, error) { return own(tx, seeding.GetOrganizationId()) })
	if err != nil {
		return err
	}
	_, err = s.grants.SeedOrganization(inTenant(ctx, seeding.GetOrganizationId()), &permissionspb.SeedOrganizationRequest{
		OwnerUserId: seeding.GetOwnerUserId(), MakerGrants: seeding.MakerGrants, BrandId: o.GetBrandId(),
	})
	if err != nil {
		return unanswered(ctx, "permissions", "seed the permissions of a new organization", err)
	}
	return nil
}

// unanswered says what an error of another service means here: as a rule that it cannot
// be reached, else that the suite is at fault.
func unanswered(ctx context.Context, service, doing string, err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		if ctx.Err() == nil {
			return fault.Unreachable(service)
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
