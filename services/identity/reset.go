package identity

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/seal"
	"latchkey.dev/services/internal/store"
)

// resetLife is how long a code for a password is good.
const resetLife = 10 * time.Minute

// resetsAsked counts the codes that were asked for, so that nobody is flooded with them.
func resetsAsked(account string) counter {
	return counter{id: "password reset/" + account, what: "codes for passwords", free: 3, most: 1 << 20, base: time.Minute}
}

// resetGuesses counts the wrong codes from one place. Another code begins anew.
//
// SECURITY: nobody guesses a code, but whoever tries elsewhere must not use up the tries of her
// who has it.
func resetGuesses(account, source string) counter {
	return counter{id: "code for a password/" + account + "/" + source, what: "wrong codes", free: 5, most: 5, base: time.Minute}
}

// allResetGuesses are those from all places.
func allResetGuesses(account string) (all []counter) {
	for i := range sources {
		all = append(all, resetGuesses(account, sourceName(i)))
	}
	return all
}

func resetName(account string) string { return "password reset/" + account }

// accountOf is what an address is counted under: the person who has it, or what it shares
// with other addresses that nobody has.
func (s *service) accountOf(tx *store.Tx, email string) (account string, known *pb.Profile) {
	if p, ok := profileByEmail.First(tx, email); ok {
		return p.GetId(), p
	}
	return s.unknownAccount(email), nil
}

// RequestPasswordReset implements pb.PasswordServiceServer.
//
// SECURITY: of an address that nobody has the same is written, but for the event.
func (s *service) RequestPasswordReset(ctx context.Context, req *pb.RequestPasswordResetRequest) (*pb.RequestPasswordResetResponse, error) {
	if _, err := s.resetsAsked.try(s.placeOf(ctx).network()); err != nil {
		return nil, err
	}
	if s.sealError != nil {
		return nil, fault.Refused("codes for passwords need a key to encrypt them with, and this suite has none: %v", s.sealError)
	}
	email, _ := normalEmail(req.GetEmail())
	code, id := s.newCode(), s.newPersonID()
	err := s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		account, known := s.accountOf(tx, email)
		if err := resetsAsked(account).count(tx); err != nil {
			return err
		}
		if known != nil {
			tx.Emit(&pb.PasswordResetRequested{Id: id, UserId: account})
		}
		return keepReset(tx, &identitystorepb.PasswordReset{
			UserId: account, Id: id, Hash: typedHash(account, code), Sealed: s.sealer.Seal(resetName(account), []byte(code)),
		})
	})
	if tooMany, ok := errors.AsType[*fault.Error](err); ok && tooMany.Reason == faultpb.Reason_REASON_LIMIT_REACHED {
		err = nil
	}
	return &pb.RequestPasswordResetResponse{}, err
}

// keepReset keeps a code in the place of an earlier one.
func keepReset(tx *store.Tx, r *identitystorepb.PasswordReset) error {
	r.ExpireTime = timestamppb.New(tx.Now().Add(resetLife))
	clearFailures(tx, allResetGuesses(r.GetUserId())...)
	return resets.Put(tx, r)
}

// IssuePasswordReset implements pb.PasswordServiceServer.
//
// SECURITY: a person has one password for all organizations. Whoever manages the users of
// one must not get into another by it.
func (s *service) IssuePasswordReset(ctx context.Context, req *pb.IssuePasswordResetRequest) (*pb.IssuePasswordResetResponse, error) {
	caller, user := authz.Caller(ctx), req.GetUserId()
	if err := s.checkMember(ctx, user); err != nil {
		return nil, err
	}
	code, id := s.newCode(), s.newPersonID()
	issued := false // now, and not by a call that this one repeats
	resp, err := do(ctx, s, req, func(tx *store.Tx) (*pb.IssuePasswordResetResponse, error) {
		if err := admit(tx, callerAsSubject(caller), pathIssueReset); err != nil {
			return nil, err
		}
		if err := onlyMember(tx, caller.Organization, user, "the password is not for this organization alone: let the person ask for a code by RequestPasswordReset"); err != nil {
			return nil, err
		}
		if u, _ := users.Get(tx, userKey(caller.Organization, user)); u.GetServiceAccount() {
			return nil, fault.Refused("a service account has no password: make an API key for it")
		}
		r := &identitystorepb.PasswordReset{UserId: user, Id: id, Hash: typedHash(user, code)}
		if err := keepReset(tx, r); err != nil {
			return nil, err
		}
		tx.Involve(caller.Organization)
		tx.Emit(&pb.PasswordResetIssued{OrganizationId: caller.Organization, UserId: user})
		issued = true
		return &pb.IssuePasswordResetResponse{ExpireTime: r.GetExpireTime()}, nil
	})
	if err == nil && issued && !req.GetValidateOnly() {
		resp.Code = code
	}
	return resp, err
}

// OpenPasswordReset implements pb.PasswordServiceServer.
func (s *service) OpenPasswordReset(ctx context.Context, req *pb.OpenPasswordResetRequest) (*pb.OpenPasswordResetResponse, error) {
	box, err := s.box()
	if err != nil {
		return nil, err
	}
	return read(ctx, s, func(tx *store.Tx) (*pb.OpenPasswordResetResponse, error) {
		return openReset(tx, box, req.GetId())
	})
}

// openReset returns a code that is good, and to whom to send it.
func openReset(tx *store.Tx, box *seal.Box, id string) (*pb.OpenPasswordResetResponse, error) {
	r, ok := resetsByID.First(tx, id)
	p, known := profiles.Get(tx, r.GetUserId())
	if !ok || !known || len(r.GetSealed()) == 0 || !r.GetExpireTime().AsTime().After(tx.Now()) {
		return nil, fault.NotFound("password_reset", id)
	}
	code, err := box.Open(resetName(p.GetId()), r.GetSealed())
	if err != nil {
		return nil, fmt.Errorf("open a code for a password: %w", err)
	}
	return &pb.OpenPasswordResetResponse{
		Email: p.GetEmail(), DisplayName: p.GetDisplayName(), Code: string(code), ExpireTime: r.GetExpireTime(),
	}, nil
}

// ResetPassword implements pb.PasswordServiceServer.
//
// SECURITY: the password is hashed before the code is looked at, so that an address that
// nobody has costs the same work. What is wrong with the password as this person's own is
// told to whoever has the code.
func (s *service) ResetPassword(ctx context.Context, req *pb.ResetPasswordRequest) (*pb.ResetPasswordResponse, error) {
	if err := checkPassword("new_password", req.GetNewPassword(), minBeside); err != nil {
		return nil, err
	}
	email, _ := normalEmail(req.GetEmail())
	account, err := read(ctx, s, func(tx *store.Tx) (string, error) {
		account, _ := s.accountOf(tx, email)
		return account, nil
	})
	if err != nil {
		return nil, err
	}
	guesses := resetGuesses(account, s.sourceOf(s.placeOf(ctx)))
	if err := s.countFailure(ctx, guesses); err != nil {
		return nil, err
	}
	phc, err := s.hasher.hash(ctx, req.GetNewPassword())
	if err != nil {
		return nil, errors.Join(err, s.uncount(ctx, guesses))
	}
	who := subject{user: account, resetCode: typedHash(account, req.GetCode())}
	if _, err := read(ctx, s, func(tx *store.Tx) (any, error) { return nil, admit(tx, who, pathReset) }); err != nil {
		return nil, err
	}
	o := store.OriginOf(ctx)
	o.Caller = account
	ctx = store.WithOrigin(ctx, o)
	from := s.placeOf(ctx)
	resp := &pb.ResetPasswordResponse{}
	change := func(ctx context.Context) error {
		_, err := do(ctx, s, req, func(tx *store.Tx) (*pb.ResetPasswordResponse, error) {
			return resp, resetPassword(tx, who, phc, req.GetNewPassword(), from)
		})
		return err
	}
	err = s.shutOutUnless(ctx, req.GetValidateOnly(), change, userTag(account))
	if err != nil || req.GetValidateOnly() {
		return nil, errors.Join(err, s.uncount(ctx, guesses))
	}
	return resp, nil
}

// resetPassword replaces a person's password and shuts out whoever has come in by the old
// one, if the code is still the right one.
func resetPassword(tx *store.Tx, who subject, phc, password string, from place) error {
	if err := admit(tx, who, pathReset); err != nil {
		return err
	}
	p, err := profileOf(tx, who.user)
	if err != nil {
		return err
	}
	names := namesAround(tx, p, "")
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(who.user)) {
		names = append(names, namesAround(tx, p, u.GetOrganizationId())[2:]...)
		forgetPlaces(tx, u.GetOrganizationId(), who.user)
		tx.Involve(u.GetOrganizationId())
		tx.Emit(&pb.PasswordWasReset{
			OrganizationId: u.GetOrganizationId(), UserId: who.user, Address: from.address, UserAgent: from.userAgent,
		})
	}
	if err := checkPassword("new_password", password, leastLength(tx, who.user, ""), names...); err != nil {
		return err
	}
	if _, err := endThese(tx, who.user, func(*pb.Session) bool { return true }); err != nil {
		return err
	}
	for d := range devicesByUser.Scan(tx, devicesByUser.Range(who.user)) {
		devices.Delete(tx, d.GetId())
	}
	resets.Delete(tx, who.user)
	clearFailures(tx, append(passwordCounters(who.user), resetsAsked(who.user))...)
	clearFailures(tx, allResetGuesses(who.user)...)
	c, ok := credentials.Get(tx, who.user)
	if !ok {
		c = &identitystorepb.Credential{UserId: who.user}
	}
	c.PasswordTime = timestamppb.New(tx.Now())
	return replacePassword(tx, c, phc, isShort(password))
}

// resetWrong holds when a code is not the person's.
func resetWrong(tx *store.Tx, s subject) bool {
	r, ok := resets.Get(tx, s.user)
	return !ok || subtle.ConstantTimeCompare(r.GetHash(), s.resetCode) != 1
}

func resetExpired(tx *store.Tx, s subject) bool {
	r, ok := resets.Get(tx, s.user)
	return !ok || !r.GetExpireTime().AsTime().After(tx.Now())
}

func resetFailed() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_PROOF_WRONG,
		"e-mail address and code do not belong together, or the code is not good any more: ask for another", nil)
}

// purgeResets removes codes that have expired.
func purgeResets(tx *store.Tx) int {
	return removeDue(tx, resetsByExpiry, tx.Now(), func(r *identitystorepb.PasswordReset) { resets.Delete(tx, r.GetUserId()) })
}
