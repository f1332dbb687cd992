package identity

import (
	"context"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// BeginPasskeySignIn implements pb.SessionServiceServer.
func (s *service) BeginPasskeySignIn(ctx context.Context, req *pb.BeginPasskeySignInRequest) (*pb.BeginPasskeySignInResponse, error) {
	if _, err := s.passkeyParty(); err != nil {
		return nil, err
	}
	c := s.newChallenge("")
	c.OrganizationId, c.Surface, c.Factors = req.GetOrganizationId(), int32(req.GetSurface()), numbersOf(factorPasskey)
	c.WithRefresh, c.DeviceName, c.RememberDevice = req.GetWithRefresh(), req.GetDeviceName(), req.GetRememberDevice()
	shown, err := s.shownChallenge(ctx, c)
	return &pb.BeginPasskeySignInResponse{Challenge: shown}, err
}

// answerByPasskey opens the session of whoever a passkey says it belongs to.
//
// SECURITY: the signature is looked at before anything of the person is, so that nobody
// learns by a made-up answer whether there is such a person, and whether she is let in.
func (s *service) answerByPasskey(ctx context.Context, req *pb.AnswerChallengeRequest, c *identitystorepb.Challenge) (*pb.AnswerChallengeResponse, error) {
	answer, err := protocol.ParseCredentialRequestResponseBytes([]byte(req.GetProof().GetPasskey()))
	if err != nil || uuid.Validate(string(answer.Response.UserHandle)) != nil {
		return nil, proofWrong()
	}
	c.UserId = string(answer.Response.UserHandle)
	use, err := s.provePasskey(ctx, c, req.GetProof().GetPasskey())
	if err != nil {
		return nil, err
	}
	who := answerer(c, factorPasskey)
	// From here on the person is known: the journal names her, and her answers are hers.
	o := store.OriginOf(ctx)
	o.Caller = who.user
	ctx = store.WithOrigin(ctx, o)
	found, err := read(ctx, s, func(tx *store.Tx) (person, error) {
		return findMemberships(tx, who, person{}), nil
	})
	if err != nil {
		return nil, err
	}
	if who.organization, err = found.choose(c.GetOrganizationId()); err != nil {
		return nil, err
	}
	c.OrganizationId = who.organization
	return s.answerSignIn(ctx, req, c, who, use)
}

// provePasskey tells whether the answer of a passkey is one to a challenge, and of a
// passkey of its user. Whether the passkey was copied, the transaction finds out.
func (s *service) provePasskey(ctx context.Context, c *identitystorepb.Challenge, text string) (use, error) {
	party, err := s.passkeyParty()
	if err != nil {
		return use{}, err
	}
	answer, err := protocol.ParseCredentialRequestResponseBytes([]byte(text))
	if err != nil {
		return use{}, proofWrong()
	}
	h, err := read(ctx, s, func(tx *store.Tx) (*holder, error) { return holderOf(tx, c.GetUserId()), nil })
	if err != nil {
		return use{}, err
	}
	shown, err := party.ValidateLogin(h, s.ceremony(c), answer)
	if err != nil {
		return use{}, proofWrong()
	}
	count := answer.Response.AuthenticatorData.Counter
	return use{counter: passkeyFailures(c.GetUserId()), take: func(tx *store.Tx) error { return usePasskey(tx, c.GetUserId(), shown, count) }}, nil
}

// usePasskey notes that a passkey proved something, and how far its counter is.
func usePasskey(tx *store.Tx, user string, shown *webauthn.Credential, count uint32) error {
	k, _ := passkeyKeys.Get(tx, credentialKey(shown.ID))
	p, ok := passkeys.Get(tx, k.GetPasskeyId())
	if !ok || p.GetUserId() != user || p.GetCloneTime() != nil {
		return proofWrong()
	}
	// Web Authentication Level 3, 6.1.1: one that does not count is always at 0.
	if count <= k.GetSignCount() && (count > 0 || k.GetSignCount() > 0) {
		return &cloned{passkey: p.GetId(), user: user}
	}
	k.SignCount, k.LastUseTime = count, timestamppb.New(tx.Now())
	if err := passkeyKeys.Put(tx, k); err != nil {
		return err
	}
	if p.GetBackedUp() == shown.Flags.BackupState {
		return nil
	}
	p.BackedUp = shown.Flags.BackupState
	return passkeys.Put(tx, p)
}

// cloned says that the counter of a passkey went back, so that there are two of it.
type cloned struct{ passkey, user string }

// Error says so.
func (c *cloned) Error() string { return "the counter of passkey " + c.passkey + " went back" }

// barPasskey makes a passkey worth nothing of which there are two, ends all sessions of
// its person, and returns what the caller is told.
//
// SECURITY: one of the two is stolen, and which one nobody knows.
func (s *service) barPasskey(ctx context.Context, found *cloned, validateOnly bool) error {
	if validateOnly {
		return passkeyCloned()
	}
	from := s.placeOf(ctx)
	o := store.OriginOf(ctx)
	o.Caller = found.user
	ctx = store.WithOrigin(ctx, o)
	bar := func(ctx context.Context) error {
		return s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
			p, ok := passkeys.Get(tx, found.passkey)
			if !ok || p.GetCloneTime() != nil {
				return nil
			}
			p.CloneTime = timestamppb.New(tx.Now())
			tellCloned(tx, found, from)
			endSessions(tx, found.user, func(*pb.Session) bool { return true })
			return passkeys.Put(tx, p)
		})
	}
	if err := s.shutOut(ctx, bar, userTag(found.user)); err != nil {
		return err
	}
	s.log.WarnContext(ctx, "the counter of a passkey went back, so its person's sessions have ended", "passkey", found.passkey, "user", found.user)
	return passkeyCloned()
}

func passkeyCloned() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_PASSKEY_CLONED,
		"this passkey's counter went back, so somebody has a copy of it: it proves nothing any more, sign in otherwise and remove it", nil)
}
