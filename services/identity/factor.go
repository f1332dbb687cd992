package identity

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/seal"
	"latchkey.dev/services/internal/store"
)

const (
	factorPassword = pb.Factor_FACTOR_PASSWORD
	factorTOTP     = pb.Factor_FACTOR_TOTP
	factorPasskey  = pb.Factor_FACTOR_PASSKEY
	factorRecovery = pb.Factor_FACTOR_RECOVERY_CODE

	factorProvider      = pb.Factor_FACTOR_PROVIDER
	factorProviderMulti = pb.Factor_FACTOR_PROVIDER_MULTI

	singleFactor = pb.Strength_STRENGTH_SINGLE_FACTOR
	multiFactor  = pb.Strength_STRENGTH_MULTI_FACTOR
)

// box returns what seals secrets, or why there is none.
func (s *service) box() (*seal.Box, error) {
	if s.sealError != nil {
		return nil, fault.Refused("second factors need a key to encrypt their secrets with, and this suite has none: %v", s.sealError)
	}
	return s.sealer, nil
}

// secondFactors are what a person can prove beside the password: none if nothing was
// set up.
func secondFactors(tx *store.Tx, user string) (factors []pb.Factor) {
	if !hasSecondFactor(tx, user) {
		return nil
	}
	if totps.Has(tx, user) {
		factors = append(factors, factorTOTP)
	}
	if len(usablePasskeys(tx, user)) > 0 {
		factors = append(factors, factorPasskey)
	}
	if kept, _ := recoveryCodes.Get(tx, user); len(kept.GetHashes()) > 0 {
		factors = append(factors, factorRecovery)
	}
	return factors
}

// hasSecondFactor tells whether a password alone does not do.
//
// SECURITY: a passkey counts that proves nothing any more, or whoever has a copy of it
// could take the second factor away by it.
func hasSecondFactor(tx *store.Tx, user string) bool {
	return totps.Has(tx, user) || len(passkeysOf(tx, user)) > 0
}

// demandsSecondFactor tells whether an organization lets nobody in with a password alone.
func demandsSecondFactor(tx *store.Tx, organization string) bool {
	o, _ := organizations.Get(tx, organization)
	b, _ := brands.Get(tx, o.GetBrandId())
	return o.GetSecondFactorRequired() || b.GetSecondFactorRequired()
}

// hasFactor tells whether a person can still prove a factor at all.
func hasFactor(tx *store.Tx, user string, f pb.Factor) bool {
	if f == factorPassword {
		return credentials.Has(tx, user)
	}
	for _, has := range secondFactors(tx, user) {
		if has == f {
			return true
		}
	}
	return false
}

// GetFactors implements pb.FactorServiceServer.
func (s *service) GetFactors(ctx context.Context, _ *pb.GetFactorsRequest) (*pb.GetFactorsResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetFactorsResponse, error) {
		user := authz.Caller(ctx).ID
		totp, _ := totps.Get(tx, user)
		codes, _ := recoveryCodes.Get(tx, user)
		return &pb.GetFactorsResponse{
			TotpTime: totp.GetCreateTime(), RecoveryCodesLeft: int32(len(codes.GetHashes())), Passkeys: int32(len(passkeysOf(tx, user))),
			Removals: removalsOf(tx, user),
		}, nil
	})
}

// change is a request that can be tried without changing anything.
type change interface {
	proto.Message
	GetValidateOnly() bool
}

// changeFactors runs a change of what proves who the caller is, if the gate admits who
// asks for it on the path, and ends all other sessions of the caller with it. It returns
// when no service accepts them.
func changeFactors[R proto.Message](ctx context.Context, s *service, req change, who subject, p path, f func(*store.Tx) (R, error)) (R, error) {
	var resp R
	change := func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (none R, _ error) {
			if err := admit(tx, who, p); err != nil {
				return none, err
			}
			endSessions(tx, who.user, func(session *pb.Session) bool { return session.GetId() != who.session })
			return f(tx)
		})
		return err
	}
	return resp, s.shutOutUnless(ctx, req.GetValidateOnly(), change, userTag(who.user))
}

// checkFactorsLeft says whether a person may do with the factors that are left now. With
// the last second factor its recovery codes go.
func checkFactorsLeft(tx *store.Tx, user string) error {
	if hasSecondFactor(tx, user) {
		return nil
	}
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(user)) {
		if demandsSecondFactor(tx, u.GetOrganizationId()) {
			return fault.Refused("an organization of yours demands a second factor: set up another one first")
		}
	}
	if kept, _ := credentials.Get(tx, user); kept.GetShort() {
		return shortAlone()
	}
	recoveryCodes.Delete(tx, user)
	return nil
}
