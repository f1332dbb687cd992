package identity

import (
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// maxRemovals is how many removals of factors are shown.
const maxRemovals = 20

// onlyMember finds a member of an organization who is in no other.
//
// SECURITY: what proves a person lets her into all her organizations. Whoever manages the
// users of one must not get into another by it, nor learn by what she gets in there.
func onlyMember(tx *store.Tx, organization, user, what string) error {
	if _, err := member(tx, organization, user); err != nil {
		return err
	}
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(user)) {
		if u.GetOrganizationId() != organization {
			return fault.Refused("%s", what)
		}
	}
	return nil
}

const sharedFactors = "the factors are not for this organization alone: the person changes them by FactorService"

// GetUserFactors implements pb.UserFactorServiceServer.
func (s *service) GetUserFactors(ctx context.Context, req *pb.GetUserFactorsRequest) (*pb.GetUserFactorsResponse, error) {
	organization, user := authz.Caller(ctx).Organization, req.GetUserId()
	if err := s.checkMember(ctx, user); err != nil {
		return nil, err
	}
	return read(ctx, s, func(tx *store.Tx) (*pb.GetUserFactorsResponse, error) {
		if err := onlyMember(tx, organization, user, sharedFactors); err != nil {
			return nil, err
		}
		totp, _ := totps.Get(tx, user)
		codes, _ := recoveryCodes.Get(tx, user)
		resp := &pb.GetUserFactorsResponse{
			TotpTime: totp.GetCreateTime(), RecoveryCodesLeft: int32(len(codes.GetHashes())), Removals: removalsOf(tx, user),
		}
		for _, p := range passkeysOf(tx, user) {
			resp.Passkeys = append(resp.Passkeys, withLastUse(tx, p))
		}
		return resp, nil
	})
}

// RemoveUserFactor implements pb.UserFactorServiceServer.
func (s *service) RemoveUserFactor(ctx context.Context, req *pb.RemoveUserFactorRequest) (*pb.RemoveUserFactorResponse, error) {
	caller, user := authz.Caller(ctx), req.GetUserId()
	switch {
	case user == caller.ID:
		return nil, fault.Invalid("user_id", "must be somebody else: remove your own by FactorService")
	case req.GetPasskeyId() != "" && req.GetFactor() != factorPasskey:
		return nil, fault.Invalid("passkey_id", "must be left out but for FACTOR_PASSKEY")
	}
	if err := s.checkMember(ctx, user); err != nil {
		return nil, err
	}
	id := s.newID()
	var resp *pb.RemoveUserFactorResponse
	change := func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.RemoveUserFactorResponse, error) {
			if err := admit(tx, callerAsSubject(caller), pathTakeFactor); err != nil {
				return nil, err
			}
			if err := onlyMember(tx, caller.Organization, user, sharedFactors); err != nil {
				return nil, err
			}
			r, err := takeFactor(tx, req, &pb.FactorRemoval{Id: id, OrganizationId: caller.Organization, RemoverId: caller.ID})
			return &pb.RemoveUserFactorResponse{FactorRemoval: r}, err
		})
		return err
	}
	return resp, s.shutOutUnless(ctx, req.GetValidateOnly(), change, userTag(user))
}

// takeFactor removes a factor of a user, ends all sessions of the person, and writes down
// and tells that it did.
func takeFactor(tx *store.Tx, req *pb.RemoveUserFactorRequest, r *pb.FactorRemoval) (*pb.FactorRemoval, error) {
	r.UserId, r.Factor, r.Reason = req.GetUserId(), req.GetFactor(), req.GetReason()
	r.PurgeTime = timestamppb.New(tx.Now().Add(undeleteLife))
	switch r.GetFactor() {
	case factorTOTP:
		if !totps.Has(tx, r.GetUserId()) {
			return nil, fault.NotFound("totp", r.GetUserId())
		}
		totps.Delete(tx, r.GetUserId())
	case factorRecovery:
		if !recoveryCodes.Has(tx, r.GetUserId()) {
			return nil, fault.NotFound("recovery_codes", r.GetUserId())
		}
		recoveryCodes.Delete(tx, r.GetUserId())
	default:
		r.PasskeyNames = takePasskeys(tx, r.GetUserId(), req.GetPasskeyId())
		if len(r.GetPasskeyNames()) == 0 {
			return nil, fault.NotFound("passkey", req.GetPasskeyId())
		}
	}
	if !hasSecondFactor(tx, r.GetUserId()) {
		recoveryCodes.Delete(tx, r.GetUserId())
	}
	var err error
	if r.Ended, err = endThese(tx, r.GetUserId(), func(*pb.Session) bool { return true }); err != nil {
		return nil, err
	}
	tx.Involve(r.GetOrganizationId())
	tx.Emit(&pb.UserFactorRemoved{
		OrganizationId: r.GetOrganizationId(), UserId: r.GetUserId(), RemoverId: r.GetRemoverId(), Factor: r.GetFactor(), FactorRemovalId: r.GetId(),
	})
	return r, factorRemovals.Put(tx, r)
}

// takePasskeys removes one passkey of a person, or all if id is empty, and returns the names
// of what it removed.
func takePasskeys(tx *store.Tx, user, id string) (names []string) {
	for _, p := range passkeysOf(tx, user) {
		if id == "" || p.GetId() == id {
			deletePasskey(tx, p)
			names = append(names, p.GetName())
		}
	}
	return names
}

// removalsOf are the last factors that were taken from a person.
func removalsOf(tx *store.Tx, user string) []*pb.FactorRemoval {
	all := slices.Collect(factorRemovalsByUser.Scan(tx, factorRemovalsByUser.Range(user)))
	return all[:min(len(all), maxRemovals)]
}

// purgeRemovals forgets removals of factors of long ago.
func purgeRemovals(tx *store.Tx) int { return deleteDue(tx, factorRemovals, factorRemovalsByPurge) }
