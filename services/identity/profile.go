package identity

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/store"
)

// GetProfile implements pb.ProfileServiceServer.
func (s *service) GetProfile(ctx context.Context, _ *pb.GetProfileRequest) (*pb.GetProfileResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.GetProfileResponse, error) {
		caller := authz.Caller(ctx)
		u, _ := users.Get(tx, userKey(caller.Organization, caller.ID))
		if u.GetServiceAccount() {
			return &pb.GetProfileResponse{Profile: profileOfAccount(u)}, nil
		}
		p, err := profileOf(tx, caller.ID)
		return &pb.GetProfileResponse{Profile: p}, err
	})
}

// profileOfAccount is what a service account is told of itself.
func profileOfAccount(u *pb.User) *pb.Profile {
	return &pb.Profile{Id: u.GetId(), CreateTime: u.GetCreateTime(), UpdateTime: u.GetUpdateTime(), DisplayName: u.GetDisplayName()}
}

func profileOf(tx *store.Tx, id string) (*pb.Profile, error) {
	p, ok := profiles.Get(tx, id)
	if !ok {
		return nil, fault.NotFound("profile", id)
	}
	return p, nil
}

// UpdateProfile implements pb.ProfileServiceServer.
func (s *service) UpdateProfile(ctx context.Context, req *pb.UpdateProfileRequest) (*pb.UpdateProfileResponse, error) {
	if !authz.Caller(ctx).InPerson() {
		return nil, inPersonOnly()
	}
	caller := authz.Caller(ctx).ID
	if id := req.GetProfile().GetId(); id != "" && id != caller {
		return nil, fault.NotFound("profile", id)
	}
	return do(ctx, s, req, func(tx *store.Tx) (*pb.UpdateProfileResponse, error) {
		p, err := profileOf(tx, caller)
		if err != nil {
			return nil, err
		}
		if err := profiles.Match(p, req.GetProfile().GetEtag()); err != nil {
			return nil, err
		}
		if err := mask.Apply(p, req.GetProfile(), req.GetUpdateMask(), "display_name", "language"); err != nil {
			return nil, err
		}
		if err := checkName("profile.display_name", p.GetDisplayName()); err != nil {
			return nil, err
		}
		if err := checkLanguage("profile.language", p.GetLanguage()); err != nil {
			return nil, err
		}
		if err := renameEverywhere(tx, p); err != nil {
			return nil, err
		}
		return &pb.UpdateProfileResponse{Profile: p}, profiles.Put(tx, p)
	})
}

// renameEverywhere gives a person the profile's name in each organization.
func renameEverywhere(tx *store.Tx, p *pb.Profile) error {
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(p.GetId())) {
		u.DisplayName = p.GetDisplayName()
		if err := users.Put(tx, u); err != nil {
			return err
		}
	}
	return nil
}

// ChangePassword implements pb.ProfileServiceServer.
func (s *service) ChangePassword(ctx context.Context, req *pb.ChangePasswordRequest) (*pb.ChangePasswordResponse, error) {
	caller := authz.Caller(ctx)
	if !caller.InPerson() { // and is not to guess passwords either
		return nil, inPersonOnly()
	}
	if err := s.checkOwnPassword(ctx, "new_password", req.GetNewPassword()); err != nil {
		return nil, err
	}
	known, err := s.proveForChange(ctx, caller.ID, req)
	if err != nil {
		return nil, err
	}
	phc, err := s.hasher.hash(ctx, req.GetNewPassword())
	if err != nil {
		return nil, err
	}
	from := s.placeOf(ctx)
	var resp *pb.ChangePasswordResponse
	change := func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.ChangePasswordResponse, error) {
			who := callerAsSubject(caller)
			who.password = known
			if err := admit(tx, who, pathPassword); err != nil {
				return nil, err
			}
			credential, ok := credentials.Get(tx, caller.ID)
			if !ok {
				return nil, wrongPassword()
			}
			clearFailures(tx, sessionFailures(caller.ID), passwordFailures(caller.ID))
			credential.PasswordTime = timestamppb.New(tx.Now())
			resets.Delete(tx, caller.ID)
			endSessions(tx, caller.ID, func(session *pb.Session) bool { return session.GetId() != caller.SessionID })
			tx.Involve(caller.Organization)
			tx.Emit(&pb.PasswordChanged{
				OrganizationId: caller.Organization, UserId: caller.ID, Address: from.address, UserAgent: from.userAgent,
			})
			return &pb.ChangePasswordResponse{}, replacePassword(tx, credential, phc, isShort(req.GetNewPassword()))
		})
		return err
	}
	if req.GetValidateOnly() {
		return resp, errors.Join(change(ctx), s.uncount(ctx, sessionFailures(caller.ID)))
	}
	return resp, s.shutOut(ctx, change, userTag(caller.ID))
}

// checkOwnPassword says what is wrong with a new password of the caller.
func (s *service) checkOwnPassword(ctx context.Context, field, password string) error {
	caller := authz.Caller(ctx)
	_, err := read(ctx, s, func(tx *store.Tx) (any, error) {
		p, _ := profiles.Get(tx, caller.ID)
		least := leastLength(tx, caller.ID, caller.Organization)
		return nil, checkPassword(field, password, least, namesAround(tx, p, caller.Organization)...)
	})
	return err
}

// replacePassword keeps another hash of a person's password.
func replacePassword(tx *store.Tx, c *identitystorepb.Credential, phc string, short bool) error {
	if err := forgetImported(tx, c); err != nil {
		return err
	}
	c.PasswordHash, c.Short = phc, short
	return credentials.Put(tx, c)
}

// proveForChange returns the mark of the kept hash that current_password belongs to. A
// repeat of a change that was made proves itself with the new password, and gets no mark:
// it must find its answer in the store.
func (s *service) proveForChange(ctx context.Context, caller string, req *pb.ChangePasswordRequest) ([]byte, error) {
	if err := s.countFailure(ctx, sessionFailures(caller)); err != nil {
		return nil, err
	}
	kept, err := s.keptPassword(ctx, caller)
	if err != nil {
		return nil, err
	}
	ok, _, err := s.hasher.verify(ctx, kept, req.GetCurrentPassword())
	if err == nil && !ok && req.GetRequestId() != "" {
		if ok, _, err = s.hasher.verify(ctx, kept, req.GetNewPassword()); ok {
			return nil, s.uncount(ctx, sessionFailures(caller))
		}
	}
	switch {
	case err != nil:
		return nil, errors.Join(err, s.uncount(ctx, sessionFailures(caller)))
	case !ok:
		f := failure{user: caller, organizations: []string{authz.Caller(ctx).Organization}, factor: factorPassword, from: s.placeOf(ctx)}
		return nil, s.tellFailure(ctx, sessionFailures(caller), f, wrongPassword())
	}
	return passwordMark(kept), nil
}

// keptPassword returns the hash of somebody's password, or nothing.
func (s *service) keptPassword(ctx context.Context, user string) (string, error) {
	kept, err := read(ctx, s, func(tx *store.Tx) (*identitystorepb.Credential, error) {
		c, _ := credentials.Get(tx, user)
		return c, nil
	})
	return kept.GetPasswordHash(), err
}

// provePasswordAgain tells whether a password is that of somebody signed in.
func (s *service) provePasswordAgain(ctx context.Context, user, password string) (use, error) {
	u := use{counter: sessionFailures(user)}
	if err := s.countFailure(ctx, u.counter); err != nil {
		return u, err
	}
	kept, err := s.keptPassword(ctx, user)
	if err != nil {
		return u, err
	}
	ok, _, err := s.hasher.verify(ctx, kept, password)
	if err != nil {
		return u, errors.Join(err, s.uncount(ctx, u.counter))
	}
	if !ok {
		return u, proofWrong()
	}
	u.take = func(tx *store.Tx) error {
		if passwordChanged(tx, subject{user: user, password: passwordMark(kept)}) {
			return proofWrong()
		}
		return nil
	}
	return u, nil
}

func wrongPassword() error { return fault.Invalid("current_password", "must be your password") }
