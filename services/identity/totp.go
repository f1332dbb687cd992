package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// What an authenticator app does (RFC 6238). Every app knows these values, and some
// know no others.
const (
	totpPeriod = 30 * time.Second
	totpDigits = 6
	totpSecret = 20 // bytes, as long as the hash (RFC 4226 4)
	// totpSkew is how many periods the app's clock may be off.
	totpSkew = 1
	// totpIssuer is how the suite is called in the app.
	totpIssuer = "Latchkey"
)

// totpStep numbers the period of a time.
func totpStep(t time.Time) int64 { return t.Unix() / int64(totpPeriod/time.Second) }

// totpCode returns the code of a period (RFC 4226 5.3).
func totpCode(secret []byte, step int64) string {
	mac := hmac.New(sha1.New, secret)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(step)))
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	n := binary.BigEndian.Uint32(sum[at:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", totpDigits, n%1_000_000)
}

// matchTOTP returns the period that a code is of, if it is about now. All periods are
// compared, in constant time.
func matchTOTP(secret []byte, code string, now time.Time) (step int64, ok bool) {
	code = strings.ReplaceAll(code, " ", "")
	for at := totpStep(now) - totpSkew; at <= totpStep(now)+totpSkew; at++ {
		if subtle.ConstantTimeCompare([]byte(totpCode(secret, at)), []byte(code)) == 1 {
			step, ok = at, true
		}
	}
	return step, ok
}

// totpSetup is what an app has to know of a secret.
func totpSetup(secret []byte, account string) *pb.TotpSetup {
	key := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
	uri := url.URL{
		Scheme: "otpauth", Host: "totp", Path: "/" + totpIssuer + ":" + account,
		RawQuery: "secret=" + key + "&issuer=" + totpIssuer + "&algorithm=SHA1&digits=6&period=30",
	}
	return &pb.TotpSetup{Key: key, Uri: uri.String()}
}

func totpName(user string) string { return "totp/" + user }

// BeginTotp implements pb.FactorServiceServer.
func (s *service) BeginTotp(ctx context.Context, _ *pb.BeginTotpRequest) (*pb.BeginTotpResponse, error) {
	caller := authz.Caller(ctx)
	p, err := read(ctx, s, func(tx *store.Tx) (*pb.Profile, error) {
		if err := admit(tx, callerAsSubject(caller), pathFactor); err != nil {
			return nil, err
		}
		return profileOf(tx, caller.ID)
	})
	if err != nil {
		return nil, err
	}
	c := s.newChallenge(caller.ID)
	c.SessionId, c.TotpSecret = caller.SessionID, s.hasher.bytes(totpSecret)
	setup, err := s.sealChallenge(c)
	if err != nil {
		return nil, err
	}
	return &pb.BeginTotpResponse{TotpSetup: totpSetup(c.GetTotpSecret(), p.GetEmail()), Setup: setup}, nil
}

// ConfirmTotp implements pb.FactorServiceServer.
func (s *service) ConfirmTotp(ctx context.Context, req *pb.ConfirmTotpRequest) (*pb.ConfirmTotpResponse, error) {
	caller := authz.Caller(ctx)
	c, err := s.openChallenge(req.GetSetup())
	if err != nil {
		return nil, err
	}
	if c.GetSessionId() != caller.SessionID || len(c.GetTotpSecret()) == 0 {
		return nil, challengeOver()
	}
	use, err := s.proveTOTP(ctx, c, req.GetCode())
	if err != nil {
		return nil, err
	}
	who := callerAsSubject(caller)
	who.challenge = c.GetId()
	codes, kept := s.newRecoveryCodes(), false
	resp, err := changeFactors(ctx, s, req, who, pathConfirm, func(tx *store.Tx) (_ *pb.ConfirmTotpResponse, err error) {
		if err := use.in(tx); err != nil {
			return nil, err
		}
		if err := spendChallenge(tx, c); err != nil {
			return nil, err
		}
		kept, err = keepFirstRecoveryCodes(tx, caller.ID, codes)
		return &pb.ConfirmTotpResponse{}, err
	})
	if err == nil && req.GetValidateOnly() {
		return resp, s.uncount(ctx, use.counter)
	}
	if err == nil && kept {
		resp.RecoveryCodes = codes
	}
	return resp, err
}

// setUpTOTP makes the app of a challenge its user's second factor.
func (s *service) setUpTOTP(tx *store.Tx, c *identitystorepb.Challenge, step int64) error {
	box, err := s.box()
	if err != nil {
		return err
	}
	user := c.GetUserId()
	tellFactorAdded(tx, user, factorTOTP)
	return totps.Put(tx, &identitystorepb.Totp{
		UserId: user, Sealed: box.Seal(totpName(user), c.GetTotpSecret()), LastStep: step, CreateTime: timestamppb.New(tx.Now()),
	})
}

// proveTOTP tells whether a code is of the app that a challenge sets up, or else of the
// one that its user has. Whether it was used before, the transaction finds out.
func (s *service) proveTOTP(ctx context.Context, c *identitystorepb.Challenge, code string) (use, error) {
	user, secret := c.GetUserId(), c.GetTotpSecret()
	u := use{counter: totpGuesses(c)}
	if err := s.countFailure(ctx, u.counter); err != nil {
		return u, err
	}
	first := len(secret) > 0
	if !first {
		var err error
		if secret, err = s.totpOf(ctx, user); err != nil {
			return u, err
		}
	}
	step, ok := matchTOTP(secret, code, s.now())
	if !ok {
		return u, proofWrong()
	}
	u.take = func(tx *store.Tx) error {
		if first {
			return s.setUpTOTP(tx, c, step)
		}
		return s.useTOTP(tx, user, step)
	}
	return u, nil
}

// totpOf returns the secret of somebody's authenticator app.
func (s *service) totpOf(ctx context.Context, user string) ([]byte, error) {
	box, err := s.box()
	if err != nil {
		return nil, err
	}
	kept, err := read(ctx, s, func(tx *store.Tx) (*identitystorepb.Totp, error) {
		t, _ := totps.Get(tx, user)
		return t, nil
	})
	switch {
	case err != nil:
		return nil, err
	case kept == nil:
		return nil, proofWrong()
	}
	secret, err := box.Open(totpName(user), kept.GetSealed())
	if err != nil {
		return nil, fmt.Errorf("open the secret of an authenticator app: %w", err)
	}
	return secret, nil
}

// useTOTP takes a code, so that it is not taken again (RFC 6238 5.2), and seals the
// secret anew if it was sealed with another key than such are today.
func (s *service) useTOTP(tx *store.Tx, user string, step int64) error {
	kept, ok := totps.Get(tx, user)
	if !ok || step <= kept.GetLastStep() {
		return proofWrong()
	}
	box, err := s.box()
	if err != nil {
		return err
	}
	if !box.Current(kept.GetSealed()) {
		secret, err := box.Open(totpName(user), kept.GetSealed())
		if err != nil {
			return fmt.Errorf("open the secret of an authenticator app: %w", err)
		}
		kept.Sealed = box.Seal(totpName(user), secret)
	}
	kept.LastStep = step
	return totps.Put(tx, kept)
}

// DeleteTotp implements pb.FactorServiceServer.
func (s *service) DeleteTotp(ctx context.Context, req *pb.DeleteTotpRequest) (*pb.DeleteTotpResponse, error) {
	caller := authz.Caller(ctx)
	return changeFactors(ctx, s, req, callerAsSubject(caller), pathFactor, func(tx *store.Tx) (*pb.DeleteTotpResponse, error) {
		if !totps.Has(tx, caller.ID) {
			return nil, fault.NotFound("totp", caller.ID)
		}
		totps.Delete(tx, caller.ID)
		tellFactorRemoved(tx, caller.ID, factorTOTP)
		return &pb.DeleteTotpResponse{}, checkFactorsLeft(tx, caller.ID)
	})
}
