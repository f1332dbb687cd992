package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	claimID     = "claim"
	setupPrefix = "setup_"
)

// invitation is what stands on standard error when a suite without an owner starts.
const invitation = `
This suite has no owner yet. Whoever has this one-time code becomes its owner:

    %s

The code is good until it is used or this service starts again. With your own data:

    grpcurl -plaintext -d '{"code": "%s",
      "brand_name": "Harbour Group", "organization_name": "Harbour Homes",
      "time_zone": "Europe/Berlin", "currency_code": "EUR",
      "owner_email": "you@example.com", "owner_display_name": "Your Name",
      "owner_password": "fifteen characters or more"}' \
      %s latchkey.identity.v1.BootstrapService/ClaimOwnership

`

// offerClaim sets the one-time code of a suite that nobody has claimed: the
// operator's, or a new one that it prints.
func (s *service) offerClaim(chosen, addr string) error {
	code := chosen
	if code == "" {
		code, _ = token.New(setupPrefix, s.random)
	}
	offered := false
	err := s.db.Update(inDirectory(context.Background()), func(tx *store.Tx) error {
		claim, ok := claims.Get(tx, claimID)
		if !ok {
			claim = &identitystorepb.Claim{Id: claimID}
		}
		if offered = claim.GetBrandId() == ""; !offered {
			return nil
		}
		claim.CodeHash = codeHash(code)
		return claims.Put(tx, claim)
	})
	if err != nil {
		return fmt.Errorf("offer the suite to its first owner: %w", err)
	}
	if offered && chosen == "" {
		fmt.Fprintf(os.Stderr, invitation, code, code, addr)
	}
	return nil
}

// codeHash is what a code is kept as. It has at least the strength that its operator
// gave it, and 256 bits otherwise, so it needs no slow hash.
func codeHash(code string) []byte {
	sum := sha256.Sum256([]byte(code))
	return sum[:]
}

// ClaimOwnership implements pb.BootstrapServiceServer.
func (s *service) ClaimOwnership(ctx context.Context, req *pb.ClaimOwnershipRequest) (*pb.ClaimOwnershipResponse, error) {
	if err := s.checkCode(ctx, req.GetCode()); err != nil {
		return nil, err
	}
	fresh, err := s.newSuite(req)
	if err != nil {
		return nil, err
	}
	phc, err := s.hasher.hash(ctx, req.GetOwnerPassword())
	if err != nil {
		return nil, err
	}
	resp, err := do(ctx, s, req, func(tx *store.Tx) (*pb.ClaimOwnershipResponse, error) {
		if err := admit(tx, subject{code: req.GetCode()}, pathClaim); err != nil {
			return nil, err
		}
		claim, _ := claims.Get(tx, claimID)
		if claim.GetBrandId() != "" {
			return begun(tx, claim)
		}
		return fresh.found(tx, claim, phc)
	})
	if err != nil || req.GetValidateOnly() {
		return resp, err
	}
	// The owner can do nothing before permissions knows; a crash here leaves a Seeding
	// behind, which a repeat or upkeep brings to its end.
	return resp, s.seed(ctx, resp.GetOrganization().GetId())
}

// checkCode returns nil if the code is the current one.
//
// SECURITY: it is compared as a hash in constant time, and a minute has only so many
// attempts, also for a code that an operator chose badly.
func (s *service) checkCode(ctx context.Context, code string) error {
	succeeded, err := s.wrongCodes.try("")
	if err != nil {
		return err
	}
	claim, err := read(ctx, s, func(tx *store.Tx) (*identitystorepb.Claim, error) {
		c, _ := claims.Get(tx, claimID)
		return c, nil
	})
	if err != nil {
		return err
	}
	switch {
	case codeMatches(claim, code):
		succeeded()
		return nil
	case claim.GetFinishTime() != nil:
		return claimed()
	}
	return wrongCode()
}

func codeMatches(claim *identitystorepb.Claim, code string) bool {
	return subtle.ConstantTimeCompare(claim.GetCodeHash(), codeHash(code)) == 1
}

func claimed() error { return fault.Refused("the suite has an owner already: sign in") }

func wrongCode() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID,
		"this is not the one-time code that the identity service printed when it last started", nil)
}

// suite is what a claim makes.
type suite struct {
	brand        *pb.Brand
	organization *pb.Organization
	owner        *pb.Profile
}

// newSuite checks a claim and makes what it asks for, with its ids.
func (s *service) newSuite(req *pb.ClaimOwnershipRequest) (suite, error) {
	email, err := newEmail("owner_email", req.GetOwnerEmail())
	if err != nil {
		return suite{}, err
	}
	names := []string{email, req.GetOwnerDisplayName(), req.GetOrganizationName(), req.GetBrandName()}
	if err := checkPassword("owner_password", req.GetOwnerPassword(), minAlone, names...); err != nil {
		return suite{}, err
	}
	brand := &pb.Brand{Id: s.newID(), Name: req.GetBrandName()}
	made := suite{
		brand: brand,
		organization: &pb.Organization{
			Id: s.newID(), BrandId: brand.GetId(), Name: req.GetOrganizationName(),
			TimeZone: req.GetTimeZone(), CurrencyCode: req.GetCurrencyCode(), State: open,
		},
		owner: &pb.Profile{Id: s.newPersonID(), Email: email, DisplayName: req.GetOwnerDisplayName()},
	}
	return made, checkOrganization(made.organization, "")
}

// found keeps all of it at once, and in the claim that it was made.
func (m suite) found(tx *store.Tx, claim *identitystorepb.Claim, phc string) (*pb.ClaimOwnershipResponse, error) {
	if err := brands.Put(tx, m.brand); err != nil {
		return nil, err
	}
	if err := putPerson(tx, m.owner, &identitystorepb.Credential{PasswordHash: phc}); err != nil {
		return nil, err
	}
	user, err := foundOrganization(tx, m.organization, m.owner, nil)
	if err != nil {
		return nil, err
	}
	claim.BrandId, claim.OrganizationId, claim.OwnerUserId = m.brand.GetId(), m.organization.GetId(), m.owner.GetId()
	return &pb.ClaimOwnershipResponse{Brand: m.brand, Organization: m.organization, User: user}, claims.Put(tx, claim)
}

// begun is the answer to a repeat of a claim that was not brought to its end.
func begun(tx *store.Tx, claim *identitystorepb.Claim) (*pb.ClaimOwnershipResponse, error) {
	brand, err := brandOf(tx, claim.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	organization, err := own(tx, claim.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	user, err := member(tx, claim.GetOrganizationId(), claim.GetOwnerUserId())
	return &pb.ClaimOwnershipResponse{Brand: brand, Organization: organization, User: user}, err
}

// seed tells permissions of a new organization, unless that is done, and then
// remembers that it is: for the first organization also that the claim has ended.
func (s *service) seed(ctx context.Context, organization string) error {
	seeding, err := read(ctx, s, func(tx *store.Tx) (*identitystorepb.Seeding, error) {
		seeding, _ := seedings.Get(tx, organization)
		return seeding, nil
	})
	if err != nil || seeding == nil {
		return err
	}
	if err := s.seedPermissions(ctx, seeding); err != nil {
		return err
	}
	return s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		seedings.Delete(tx, organization)
		claim, ok := claims.Get(tx, claimID)
		if !ok || claim.GetOrganizationId() != organization || claim.GetFinishTime() != nil {
			return nil
		}
		claim.FinishTime = timestamppb.New(tx.Now())
		return claims.Put(tx, claim)
	})
}
