package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	challengeLife   = 5 * time.Minute
	challengePrefix = "lkc_"
	challengeName   = "challenge" // that it is sealed under
)

func (s *service) newChallenge(user string) *identitystorepb.Challenge {
	return &identitystorepb.Challenge{
		Id: s.hasher.bytes(16), UserId: user, ExpireTime: timestamppb.New(s.now().Add(challengeLife)),
	}
}

// sealChallenge returns the secret of a challenge: all that there is to know of it, so
// that nothing is kept until it is answered, and whoever asks for many fills no disk.
func (s *service) sealChallenge(c *identitystorepb.Challenge) (string, error) {
	box, err := s.box()
	if err != nil {
		return "", err
	}
	b, err := proto.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encode challenge: %w", err)
	}
	return challengePrefix + base64.RawURLEncoding.EncodeToString(box.Seal(challengeName, b)), nil
}

// openChallenge reads the secret of a challenge that has not expired.
func (s *service) openChallenge(secret string) (*identitystorepb.Challenge, error) {
	box, err := s.box()
	if err != nil {
		return nil, err
	}
	text, ok := strings.CutPrefix(secret, challengePrefix)
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil {
		return nil, challengeOver()
	}
	b, err := box.Open(challengeName, sealed)
	if err != nil {
		return nil, challengeOver()
	}
	c := &identitystorepb.Challenge{}
	if err := proto.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("decode challenge: %w", err)
	}
	if !c.GetExpireTime().AsTime().After(s.now()) {
		return nil, challengeOver()
	}
	return c, nil
}

// shownChallenge returns what its answerer gets to see.
func (s *service) shownChallenge(ctx context.Context, c *identitystorepb.Challenge) (*pb.Challenge, error) {
	secret, err := s.sealChallenge(c)
	if err != nil {
		return nil, err
	}
	shown := &pb.Challenge{Secret: secret, Factors: factorsOf(c.GetFactors()), ExpireTime: c.GetExpireTime()}
	if slices.Contains(shown.GetFactors(), factorPasskey) {
		shown.PasskeyOptions, err = s.requestOptions(ctx, c)
	}
	return shown, err
}

func factorsOf(numbers []int32) (factors []pb.Factor) {
	for _, n := range numbers {
		factors = append(factors, pb.Factor(n))
	}
	return factors
}

func numbersOf(factors ...pb.Factor) (numbers []int32) {
	for _, f := range factors {
		numbers = append(numbers, int32(f))
	}
	return numbers
}

// passwordMark tells one kept hash from another, where the hash itself must not be.
func passwordMark(phc string) []byte {
	sum := sha256.Sum256([]byte(phc))
	return sum[:]
}

// spendChallenge notes that a challenge was answered.
func spendChallenge(tx *store.Tx, c *identitystorepb.Challenge) error {
	return spentChallenges.Put(tx, &identitystorepb.SpentChallenge{
		Id: hex.EncodeToString(c.GetId()), ExpireTime: c.GetExpireTime(),
	})
}

// use is what the right proof uses up, in the transaction that goes by it.
type use struct {
	counter counter // of wrong ones; none if they do not count
	take    func(tx *store.Tx) error
}

func (u use) in(tx *store.Tx) error {
	clearFailures(tx, u.counter)
	return u.take(tx)
}

// AnswerChallenge implements pb.SessionServiceServer.
func (s *service) AnswerChallenge(ctx context.Context, req *pb.AnswerChallengeRequest) (*pb.AnswerChallengeResponse, error) {
	c, err := s.openChallenge(req.GetChallenge())
	if err != nil {
		return nil, err
	}
	if len(c.GetFactors()) == 0 { // the setup of an app, which ConfirmTotp takes
		return nil, challengeOver()
	}
	factor := factorOf(req.GetProof())
	if !slices.Contains(factorsOf(c.GetFactors()), factor) {
		return nil, proofWrong()
	}
	resp, err := s.answerProof(ctx, req, c, factor)
	if copied, ok := errors.AsType[*cloned](err); ok {
		return nil, s.barPasskey(ctx, copied, req.GetValidateOnly())
	}
	return resp, s.tellWrongProof(ctx, c, factor, err)
}

// answerProof answers a challenge with a proof of a factor that it takes.
func (s *service) answerProof(ctx context.Context, req *pb.AnswerChallengeRequest, c *identitystorepb.Challenge, factor pb.Factor) (*pb.AnswerChallengeResponse, error) {
	if c.GetUserId() == "" {
		return s.answerByPasskey(ctx, req, c)
	}
	// SECURITY: what the challenge rests on is looked at first, so that nobody who was
	// shut out tries codes.
	who := answerer(c, factor)
	if _, err := read(ctx, s, func(tx *store.Tx) (any, error) { return nil, admit(tx, who, answerPath(c)) }); err != nil {
		return nil, err
	}
	use, err := s.prove(ctx, c, req.GetProof())
	if err != nil {
		return nil, err
	}
	o := store.OriginOf(ctx)
	o.Caller = c.GetUserId()
	ctx = store.WithOrigin(ctx, o)
	if c.GetSessionId() != "" {
		return s.stepUp(ctx, req, c, who, use)
	}
	return s.answerSignIn(ctx, req, c, who, use)
}

// answerPath is on which path a challenge is answered.
func answerPath(c *identitystorepb.Challenge) path {
	switch {
	case c.GetSessionId() != "":
		return pathStepUp
	case alone(c):
		return pathPasskey
	}
	return pathAnswer
}

// answerer is for whom an answer is to open a session, or to step one up.
func answerer(c *identitystorepb.Challenge, factor pb.Factor) subject {
	who := subject{
		organization: c.GetOrganizationId(), user: c.GetUserId(), session: c.GetSessionId(),
		provider: c.GetProviderId(), link: c.GetLinkId(), challenge: c.GetId(), factor: factor, setup: len(c.GetTotpSecret()) > 0, password: c.GetPasswordDigest(),
	}
	who.shown = append(factorsOf(c.GetShown()), factor)
	return who
}

func factorOf(p *pb.Proof) pb.Factor {
	switch p.GetProof().(type) {
	case *pb.Proof_Password:
		return factorPassword
	case *pb.Proof_TotpCode:
		return factorTOTP
	case *pb.Proof_RecoveryCode:
		return factorRecovery
	case *pb.Proof_Passkey:
		return factorPasskey
	}
	return pb.Factor_FACTOR_UNSPECIFIED
}

// prove tells whether a proof is the right one, and returns what it uses up. That it is
// wrong counts, before it is looked at; but of a passkey, whose answer nobody guesses, after.
func (s *service) prove(ctx context.Context, c *identitystorepb.Challenge, p *pb.Proof) (use, error) {
	user := c.GetUserId()
	switch p := p.GetProof().(type) {
	case *pb.Proof_Password:
		return s.provePasswordAgain(ctx, user, p.Password)
	case *pb.Proof_TotpCode:
		return s.proveTOTP(ctx, c, p.TotpCode)
	case *pb.Proof_RecoveryCode:
		hash := typedHash(user, p.RecoveryCode)
		take := func(tx *store.Tx) error { return useRecoveryCode(tx, user, hash) }
		return use{recoveryFailures(user), take}, s.countFailure(ctx, recoveryFailures(user))
	case *pb.Proof_Passkey:
		return s.provePasskey(ctx, c, p.Passkey)
	}
	return use{}, proofWrong()
}

// answerSignIn opens the session of a sign-in whose challenge was answered.
func (s *service) answerSignIn(ctx context.Context, req *pb.AnswerChallengeRequest, c *identitystorepb.Challenge, who subject, use use) (*pb.AnswerChallengeResponse, error) {
	p := proven{
		subject: who, surface: pb.Surface(c.GetSurface()), refreshable: c.GetWithRefresh(),
		deviceName: c.GetDeviceName(), remember: c.GetRememberDevice(), from: s.placeOf(ctx),
	}
	if err := s.checkSurfaceOf(ctx, &p); err != nil { // the proof was right, so it was no guess
		return nil, errors.Join(err, s.uncount(ctx, use.counter))
	}
	fresh := s.newOpening()
	codes, kept := s.newRecoveryCodes(), false
	resp, err := do(context.WithoutCancel(ctx), s, req, func(tx *store.Tx) (_ *pb.AnswerChallengeResponse, err error) {
		if err := admit(tx, p.subject, answerPath(c)); err != nil {
			return nil, err
		}
		if err := use.in(tx); err != nil {
			return nil, err
		}
		if err := spendChallenge(tx, c); err != nil {
			return nil, err
		}
		if who.setup {
			if kept, err = keepFirstRecoveryCodes(tx, who.user, codes); err != nil {
				return nil, err
			}
		}
		session, err := fresh.open(tx, p)
		return &pb.AnswerChallengeResponse{Session: session}, err
	})
	if isOutsideHours(err) { // the proof was right, so it was no guess
		return nil, errors.Join(err, s.uncount(ctx, use.counter))
	}
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		return resp, s.uncount(ctx, use.counter)
	}
	if ok, err := s.opened(ctx, fresh, resp.GetSession()); !ok {
		return resp, errors.Join(err, s.uncount(ctx, use.counter))
	}
	resp.Token, resp.RefreshToken, resp.TokenExpireTime = fresh.token, fresh.refresh, timestamppb.New(fresh.expires)
	if p.remember {
		resp.DeviceToken = fresh.deviceToken
	}
	if kept {
		resp.RecoveryCodes = codes
	}
	return resp, nil
}

// stepUp makes a session stronger or fresher, and gives it another token.
//
// SECURITY: a token that was stolen before gets nothing of what was proven since.
func (s *service) stepUp(ctx context.Context, req *pb.AnswerChallengeRequest, c *identitystorepb.Challenge, who subject, use use) (*pb.AnswerChallengeResponse, error) {
	fresh := s.newHandout()
	var resp *pb.AnswerChallengeResponse
	done := false // now, and not by a call that this one repeats
	change := func(ctx context.Context) (err error) {
		done = false
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.AnswerChallengeResponse, error) {
			if err := admit(tx, who, pathStepUp); err != nil {
				return nil, err
			}
			if err := use.in(tx); err != nil {
				return nil, err
			}
			if err := spendChallenge(tx, c); err != nil {
				return nil, err
			}
			session, _ := sessions.Get(tx, who.session)
			note(session, tx.Now(), who.factor)
			if err := sessions.Put(tx, session); err != nil {
				return nil, err
			}
			endTokens(tx, who.session)
			done = true
			return &pb.AnswerChallengeResponse{Session: session}, fresh.keep(tx, session)
		})
		return err
	}
	if err := s.shutOutUnless(ctx, req.GetValidateOnly(), change, sessionTag(who.session)); err != nil {
		return nil, err
	}
	if req.GetValidateOnly() || !done {
		return resp, s.uncount(ctx, use.counter)
	}
	resp.Token, resp.RefreshToken, resp.TokenExpireTime = fresh.token, fresh.refresh, timestamppb.New(fresh.expires)
	return resp, nil
}

// note writes down in a session what was proven.
func note(session *pb.Session, now time.Time, factors ...pb.Factor) {
	for _, f := range factors {
		if !slices.Contains(session.GetFactors(), f) {
			session.Factors = append(session.Factors, f)
		}
	}
	slices.Sort(session.Factors)
	session.Strength = strengthOf(session.GetFactors())
	session.AuthTime = timestamppb.New(now)
}

// strengthOf is what factors are worth together. A passkey that opened a session has
// made sure of the person by itself, and so has a provider that is trusted with it. The
// word of any other is worth a password, and both together no more than one of them.
func strengthOf(factors []pb.Factor) pb.Strength {
	first, second := false, false
	for _, f := range factors {
		switch f {
		case factorPasskey, factorProviderMulti:
			return multiFactor
		case factorPassword, factorProvider:
			first = true
		default:
			second = true
		}
	}
	if first && second {
		return multiFactor
	}
	return singleFactor
}

func challengeOver() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CHALLENGE_OVER,
		"the challenge is over: it has expired, was answered, or what it rests on has changed: begin anew", nil)
}

func proofWrong() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_PROOF_WRONG,
		"this does not prove who you are: it is not the right code, it was used before, or this challenge does not take it", nil)
}
