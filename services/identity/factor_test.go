package identity_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
)

// app is an authenticator app. It is written from RFC 4226 apart from the service, so
// that both would have to be wrong in the same way.
type app struct{ secret []byte }

func newApp(t testing.TB, setup *pb.TotpSetup) *app {
	t.Helper()
	secret, err := base32.StdEncoding.DecodeString(setup.GetKey())
	mustNot(t, err)
	return &app{secret}
}

func (a *app) at(when time.Time) string {
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(when.Unix())/30)
	mac := hmac.New(sha1.New, a.secret)
	mac.Write(counter[:])
	sum := mac.Sum(nil)
	offset := int(sum[19] & 15)
	code := (int(sum[offset])&0x7f)<<24 | int(sum[offset+1])<<16 | int(sum[offset+2])<<8 | int(sum[offset+3])
	return fmt.Sprintf("%06d", code%1000000)
}

func (a *app) now() string { return a.at(time.Now()) }

func totp(code string) *pb.Proof { return &pb.Proof{Proof: &pb.Proof_TotpCode{TotpCode: code}} }
func recovery(code string) *pb.Proof {
	return &pb.Proof{Proof: &pb.Proof_RecoveryCode{RecoveryCode: code}}
}
func password(text string) *pb.Proof { return &pb.Proof{Proof: &pb.Proof_Password{Password: text}} }

// setUp begins to set up an authenticator app.
func (c *caller) setUp() *caller {
	c.t.Helper()
	resp, err := c.factors().BeginTotp(c.ctx(), &pb.BeginTotpRequest{})
	mustNot(c.t, err)
	next := *c
	next.app, next.setup = newApp(c.t, resp.GetTotpSetup()), resp.GetSetup()
	return &next
}

// withApp sets up an authenticator app, and signs in with it.
func (c *caller) withApp() *caller {
	c.t.Helper()
	next := c.setUp()
	resp, err := next.factors().ConfirmTotp(next.ctx(), &pb.ConfirmTotpRequest{Setup: next.setup, Code: next.app.now()})
	mustNot(c.t, err)
	next.codes = resp.GetRecoveryCodes()
	return next.signInBy(recovery(next.codes[0]))
}

// challenged shows the password of somebody who has a second factor.
func (c *caller) challenged() *pb.Challenge {
	c.t.Helper()
	resp, err := c.sessions().CreateSession(c.t.Context(), &pb.CreateSessionRequest{
		Email: c.email, Password: c.password, Surface: c.on(), OrganizationId: c.user.GetOrganizationId(),
	})
	mustNot(c.t, err)
	if resp.GetToken() != "" || resp.GetSession() != nil || resp.GetChallenge() == nil {
		c.t.Fatalf("a password alone got %v", resp)
	}
	return resp.GetChallenge()
}

// signInBy signs in with the password and another proof.
func (c *caller) signInBy(proof *pb.Proof) *caller {
	c.t.Helper()
	return c.answer(c.challenged().GetSecret(), proof)
}

// answer answers a challenge, and goes on with the token.
func (c *caller) answer(challenge string, proof *pb.Proof) *caller {
	c.t.Helper()
	resp, err := c.sessions().AnswerChallenge(c.t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge, Proof: proof})
	mustNot(c.t, err)
	next := *c
	next.session, next.token = resp.GetSession(), resp.GetToken()
	if !next.signedIn(next.token) {
		c.t.Fatal("the token of an answered challenge is not accepted")
	}
	return &next
}

// another signs the same person in once more.
func (c *caller) another() *caller {
	c.t.Helper()
	if c.codes != nil {
		return c.signInBy(recovery(c.codes[3]))
	}
	return c.signIn(c.user.GetOrganizationId())
}

// withChallenges begins all that the gate's test brings to an end.
func (c *caller) withChallenges() *caller {
	c.t.Helper()
	next := c.setUp()
	next.challenge = next.challenged().GetSecret()
	next.stepUp = next.beginStepUp().GetSecret()
	next.alone = next.beginAlone(&pb.BeginPasskeySignInRequest{Surface: c.on(), OrganizationId: c.user.GetOrganizationId()})
	return next
}

func (c *caller) beginStepUp() *pb.Challenge {
	c.t.Helper()
	resp, err := c.sessions().BeginStepUp(c.ctx(), &pb.BeginStepUpRequest{})
	mustNot(c.t, err)
	return resp.GetChallenge()
}

// trySignIn shows the password without changing anything.
func (c *caller) trySignIn() (*pb.Challenge, error) {
	resp, err := c.sessions().CreateSession(c.t.Context(), &pb.CreateSessionRequest{
		Email: c.email, Password: c.password, Surface: c.on(),
		OrganizationId: c.user.GetOrganizationId(), ValidateOnly: true,
	})
	return resp.GetChallenge(), err
}

func (c *caller) tryAnswer(challenge string) error {
	_, err := c.sessions().AnswerChallenge(c.t.Context(), &pb.AnswerChallengeRequest{
		Challenge: challenge, Proof: recovery(c.codes[2]), ValidateOnly: true,
	})
	return err
}

func TestSecondFactor(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	begun := ada.setUp()
	confirm := func(code string) (*pb.ConfirmTotpResponse, error) {
		return begun.factors().ConfirmTotp(begun.ctx(), &pb.ConfirmTotpRequest{RequestId: servertest.UUID(1), Setup: begun.setup, Code: code})
	}
	elsewhere := ada.signIn("")
	_, err := confirm("000000")
	check(t, "a wrong code", err, codes.Unauthenticated, "PROOF_WRONG")
	resp, err := confirm(begun.app.now())
	mustNot(t, err)
	if n := len(resp.GetRecoveryCodes()); n != 10 {
		t.Fatalf("got %d recovery codes, want 10", n)
	}
	if ada.signedIn(elsewhere.token) || !ada.signedIn(ada.token) {
		t.Error("the other session lives on, or the own one has ended")
	}
	again, err := confirm(begun.app.now())
	mustNot(t, err)
	if len(again.GetRecoveryCodes()) != 0 {
		t.Error("a repeat shows the recovery codes again")
	}
	begun.codes = resp.GetRecoveryCodes()
	challenge := begun.challenged()
	if got, want := challenge.GetFactors(), []pb.Factor{pb.Factor_FACTOR_TOTP, pb.Factor_FACTOR_RECOVERY_CODE}; !slices.Equal(got, want) {
		t.Errorf("the factors are %v, want %v", got, want)
	}
	try := func(secret string, proof *pb.Proof) error {
		_, err := owner.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: secret, Proof: proof})
		return err
	}
	check(t, "the code that set it up", try(challenge.GetSecret(), totp(begun.app.now())), codes.Unauthenticated, "PROOF_WRONG")
	check(t, "the password once more", try(challenge.GetSecret(), password(ada.password)), codes.Unauthenticated, "PROOF_WRONG")
	check(t, "no such recovery code", try(challenge.GetSecret(), recovery("0000-0000-0000-0000")), codes.Unauthenticated, "PROOF_WRONG")
	strong := begun.answer(challenge.GetSecret(), totp(begun.app.at(time.Now().Add(30*time.Second))))
	if got := strong.session; got.GetStrength() != pb.Strength_STRENGTH_MULTI_FACTOR || len(got.GetFactors()) != 2 || got.GetAuthTime() == nil {
		t.Errorf("the session is %v", got)
	}
	check(t, "an answered challenge", try(challenge.GetSecret(), recovery(begun.codes[0])), codes.Unauthenticated, "CHALLENGE_OVER")
	next := begun.challenged().GetSecret()
	typed := strings.ToUpper(strings.ReplaceAll(begun.codes[0], "-", " "))
	begun.answer(next, recovery(typed))
	next = begun.challenged().GetSecret()
	check(t, "a used recovery code", try(next, recovery(begun.codes[0])), codes.Unauthenticated, "PROOF_WRONG")
	for what, secret := range map[string]string{
		"nonsense": "lkc_x", "no prefix": next[4:], "changed": next[:len(next)-6] + "AAAAAA", "a setup": begun.setup, "padding": next + "=",
	} {
		check(t, what, try(secret, recovery(begun.codes[1])), codes.Unauthenticated, "CHALLENGE_OVER")
	}
	factors, err := strong.factors().GetFactors(strong.ctx(), &pb.GetFactorsRequest{})
	mustNot(t, err)
	if factors.GetTotpTime() == nil || factors.GetRecoveryCodesLeft() != 9 {
		t.Errorf("got the factors %v", factors)
	}
	renewed, err := strong.factors().RenewRecoveryCodes(strong.ctx(), &pb.RenewRecoveryCodesRequest{})
	mustNot(t, err)
	check(t, "an earlier recovery code", try(next, recovery(begun.codes[1])), codes.Unauthenticated, "PROOF_WRONG")
	begun.answer(next, recovery(renewed.GetRecoveryCodes()[0]))
	_, err = strong.factors().DeleteTotp(strong.ctx(), &pb.DeleteTotpRequest{})
	mustNot(t, err)
	_, err = strong.factors().DeleteTotp(strong.ctx(), &pb.DeleteTotpRequest{})
	check(t, "what is gone", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = strong.factors().RenewRecoveryCodes(strong.ctx(), &pb.RenewRecoveryCodesRequest{})
	check(t, "codes without a factor", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	ada.signIn("")
}

// SECURITY: two answers with one code at the same time are one sign-in.
func TestCodeIsTakenOnce(t *testing.T) {
	ada := owned(t).hire("ada", "US").withApp()
	challenges := []string{ada.challenged().GetSecret(), ada.challenged().GetSecret(), ada.challenged().GetSecret()}
	code := ada.app.at(time.Now().Add(30 * time.Second))
	outcomes := make(chan error, len(challenges))
	for _, secret := range challenges {
		go func() {
			_, err := ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: secret, Proof: totp(code)})
			outcomes <- err
		}()
	}
	ok := 0
	for range challenges {
		if err := <-outcomes; err == nil {
			ok++
		} else {
			check(t, "another", err, codes.Unauthenticated, "PROOF_WRONG")
		}
	}
	if ok != 1 {
		t.Errorf("%d sign-ins with one code", ok)
	}
}

// Wrong codes slow down, in the store; they do not take away what is written down.
func TestWrongTOTPCodesAreLimited(t *testing.T) {
	ada := owned(t).hire("ada", "US").withApp()
	challenge := ada.challenged().GetSecret()
	try := func(in *suite, proof *pb.Proof) error {
		_, err := in.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge, Proof: proof})
		return err
	}
	for range 5 {
		check(t, "a wrong code", try(ada.suite, totp("000000")), codes.Unauthenticated, "PROOF_WRONG")
	}
	mustNot(t, identity.Postpone(t.Context(), "totp/"))
	check(t, "one more", try(ada.suite, totp("000000")), codes.ResourceExhausted, "LIMIT_REACHED")
	now := ada.again()
	check(t, "after a restart", try(now, totp(ada.app.at(time.Now().Add(30*time.Second)))), codes.ResourceExhausted, "LIMIT_REACHED")
	mustNot(t, try(now, recovery(ada.codes[5])))
}

func TestOrganizationDemandsSecondFactor(t *testing.T) {
	owner := owned(t)
	ada := owner.add("ada", "US")
	_, err := owner.organizations().UpdateOrganization(owner.ctx(), &pb.UpdateOrganizationRequest{
		Organization: &pb.Organization{Id: owner.user.GetOrganizationId(), SecondFactorRequired: true},
	})
	mustNot(t, err)
	challenge := ada.challenged()
	ada.app = newApp(t, challenge.GetTotpSetup())
	if uri := challenge.GetTotpSetup().GetUri(); !strings.HasPrefix(uri, "otpauth://totp/Latchkey:ada@example.com?secret="+challenge.GetTotpSetup().GetKey()) {
		t.Errorf("got the URI %s", uri)
	}
	_, err = ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge.GetSecret(), Proof: totp("000000")})
	check(t, "a wrong code", err, codes.Unauthenticated, "PROOF_WRONG")
	other := ada.challenged() // with another secret
	resp, err := ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge.GetSecret(), Proof: totp(ada.app.now())})
	mustNot(t, err)
	if len(resp.GetRecoveryCodes()) != 10 || !ada.signedIn(resp.GetToken()) {
		t.Errorf("got %v", resp)
	}
	_, err = ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{
		Challenge: other.GetSecret(), Proof: totp(newApp(t, other.GetTotpSetup()).now()),
	})
	check(t, "a second app in the place of the first", err, codes.Unauthenticated, "PROOF_WRONG")
	ada.codes = resp.GetRecoveryCodes()
	ada = ada.signInBy(recovery(ada.codes[0]))
	_, err = ada.factors().DeleteTotp(ada.ctx(), &pb.DeleteTotpRequest{})
	check(t, "remove the last one", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
}

func TestStepUp(t *testing.T) {
	now := atomic.Pointer[time.Time]{}
	start := time.Now()
	now.Store(&start)
	owner := newSuite(t, func() time.Time { return *now.Load() }).claim()
	makeKey := func(c *caller) error {
		_, err := c.apiKeys().CreateApiKey(c.ctx(), &pb.CreateApiKeyRequest{Name: "k", Scopes: []string{"Organization"}, ValidateOnly: true})
		return err
	}
	mustNot(t, makeKey(owner))
	later := start.Add(10 * time.Minute)
	now.Store(&later)
	err := makeKey(owner)
	check(t, "ten minutes later", err, codes.FailedPrecondition, "STEP_UP_NEEDED")
	for _, d := range status.Convert(err).Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		want := map[string]string{"error": "insufficient_user_authentication", "acr_values": "single_factor", "max_age": "600"}
		if ok && !maps.Equal(info.GetMetadata(), want) {
			t.Errorf("got %v, want %v", info.GetMetadata(), want)
		}
	}
	challenge := owner.beginStepUp()
	if got := challenge.GetFactors(); !slices.Equal(got, []pb.Factor{pb.Factor_FACTOR_PASSWORD}) {
		t.Errorf("the factors are %v", got)
	}
	_, err = owner.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge.GetSecret(), Proof: password("wrong")})
	check(t, "a wrong password", err, codes.Unauthenticated, "PROOF_WRONG")
	req := &pb.AnswerChallengeRequest{RequestId: servertest.UUID(1), Challenge: challenge.GetSecret(), Proof: password(owner.password)}
	resp, err := owner.sessions().AnswerChallenge(t.Context(), req)
	mustNot(t, err)
	if owner.signedIn(owner.token) {
		t.Error("the token from before is still accepted")
	}
	if id := resp.GetSession().GetId(); id != owner.session.GetId() {
		t.Errorf("the session is another one: %s, not %s", id, owner.session.GetId())
	}
	owner.token = resp.GetToken()
	mustNot(t, makeKey(owner))
	_, err = owner.sessions().AnswerChallenge(t.Context(), req)
	check(t, "a repeat", err, codes.Unauthenticated, "CHALLENGE_OVER")
	over := owner.beginStepUp().GetSecret()
	later = later.Add(5 * time.Minute)
	now.Store(&later)
	_, err = owner.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: over, Proof: password(owner.password)})
	check(t, "five minutes later", err, codes.Unauthenticated, "CHALLENGE_OVER")
}

// SECURITY: neither the secret of an app nor a recovery code nor a challenge is on disk.
func TestFactorsAreNotOnDisk(t *testing.T) {
	ada := owned(t).hire("ada", "US").withApp().withChallenges()
	ada.answer(ada.stepUp, recovery(ada.codes[1]))
	key := base32.StdEncoding.EncodeToString(ada.app.secret)
	secrets := append([]string{key, string(ada.app.secret), ada.challenge, ada.stepUp, ada.setup}, ada.codes...)
	for _, code := range ada.codes {
		secrets = append(secrets, strings.ReplaceAll(code, "-", ""))
	}
	ada.Stop()
	file, err := os.ReadFile(filepath.Join(strings.TrimPrefix(ada.config.Store, "bolt:"), "identity.db"))
	mustNot(t, err)
	for _, secret := range secrets {
		if strings.Contains(string(file), secret) {
			t.Errorf("the file has %q", secret)
		}
	}
}
