package identity

import (
	"context"

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
		p, err := profileOf(tx, authz.Caller(ctx).ID)
		return &pb.GetProfileResponse{Profile: p}, err
	})
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
		if err := mask.Apply(p, req.GetProfile(), req.GetUpdateMask(), "display_name"); err != nil {
			return nil, err
		}
		if err := checkName("profile.display_name", p.GetDisplayName()); err != nil {
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
	if err := checkPassword("new_password", req.GetNewPassword()); err != nil {
		return nil, err
	}
	known, err := s.provePassword(ctx, caller.ID, req)
	if err != nil {
		return nil, err
	}
	phc, err := s.hasher.hash(ctx, req.GetNewPassword())
	if err != nil {
		return nil, err
	}
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
			credential.PasswordHash, credential.PasswordTime = phc, timestamppb.New(tx.Now())
			endSessions(tx, caller.ID, func(session *pb.Session) bool { return session.GetId() != caller.SessionID })
			return &pb.ChangePasswordResponse{}, credentials.Put(tx, credential)
		})
		return err
	}
	if req.GetValidateOnly() {
		return resp, change(ctx)
	}
	return resp, s.shutOut(ctx, change, userTag(caller.ID))
}

// provePassword returns the kept hash that current_password belongs to. A repeat of a
// change that was made proves itself with the new password, and gets no hash: it
// must find its answer in the store.
func (s *service) provePassword(ctx context.Context, caller string, req *pb.ChangePasswordRequest) (string, error) {
	succeeded, err := s.wrongPasswords.try(caller)
	if err != nil {
		return "", err
	}
	kept, err := read(ctx, s, func(tx *store.Tx) (*identitystorepb.Credential, error) {
		c, _ := credentials.Get(tx, caller)
		return c, nil
	})
	if err != nil {
		return "", err
	}
	ok, _, err := s.hasher.verify(ctx, kept.GetPasswordHash(), req.GetCurrentPassword())
	if err != nil {
		return "", err
	}
	if ok {
		succeeded()
		return kept.GetPasswordHash(), nil
	}
	if req.GetRequestId() == "" {
		return "", wrongPassword()
	}
	ok, _, err = s.hasher.verify(ctx, kept.GetPasswordHash(), req.GetNewPassword())
	if err == nil && !ok {
		err = wrongPassword()
	}
	return "", err
}

func wrongPassword() error { return fault.Invalid("current_password", "must be your password") }
