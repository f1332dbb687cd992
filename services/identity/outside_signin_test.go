package identity_test

import (
	"encoding/base64"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
)

func TestSignInByProvider(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	ada := owner.hire("ada", "US")
	elsewhere := ada.signIn("")
	ada = ada.linked(f, owner.configureFake(f), "ada there")
	if ada.signedIn(elsewhere.token) || !ada.signedIn(ada.token) {
		t.Error("linking leaves the other session open, or ends the own")
	}
	by := ada.signInOutside(&pb.BeginOutsideSignInRequest{WithRefresh: true, DeviceName: "Her phone"})
	s := by.session
	if !by.signedIn(by.token) || s.GetUserId() != ada.user.GetId() || s.GetProviderId() != ada.outsideAccount.provider.GetId() ||
		!slices.Equal(s.GetFactors(), []pb.Factor{pb.Factor_FACTOR_PROVIDER}) || s.GetStrength() != pb.Strength_STRENGTH_SINGLE_FACTOR ||
		s.GetDeviceName() != "Her phone" || by.refresh == "" {
		t.Errorf("got %v", s)
	}
	f.rotate()
	again := by.again()
	if by := by.in(again).signInOutside(&pb.BeginOutsideSignInRequest{}); !by.signedIn(by.token) {
		t.Error("after a restart, with another key of the provider: not signed in")
	}
}

// The word of a provider is worth one factor, unless the provider is trusted with both and
// says that it has made sure of both.
func TestProviderAndSecondFactor(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	f.claims["amr"] = []string{"pwd", "mfa"}
	plain := owner.configureFake(f)
	ada := owner.hire("ada", "US").linked(f, plain, "ada there").withApp()
	resp, err := ada.trySignInOutside(&pb.BeginOutsideSignInRequest{})
	if err != nil || resp.GetChallenge() == nil || resp.GetToken() != "" {
		t.Fatalf("got %v, %v, want a challenge", resp, err)
	}
	answered, err := ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: resp.GetChallenge().GetSecret(), Proof: recovery(ada.codes[1])})
	if err != nil || answered.GetSession().GetStrength() != pb.Strength_STRENGTH_MULTI_FACTOR || answered.GetSession().GetProviderId() != plain.GetId() {
		t.Errorf("got %v, %v, want a session of two factors", answered, err)
	}
	owner.update(plain, func(p *pb.OutsideProvider) { p.TrustedForMfa = true }, "trusted_for_mfa")
	by := ada.signInOutside(&pb.BeginOutsideSignInRequest{})
	if by.session.GetStrength() != pb.Strength_STRENGTH_MULTI_FACTOR || !slices.Equal(by.session.GetFactors(), []pb.Factor{pb.Factor_FACTOR_PROVIDER_MULTI}) {
		t.Errorf("trusted: got %v", by.session)
	}
	f.change(func(f *fake) { f.claims["amr"] = []string{"pwd"} })
	if resp, err := ada.trySignInOutside(&pb.BeginOutsideSignInRequest{}); err != nil || resp.GetChallenge() == nil {
		t.Errorf("trusted, with one factor there: got %v, %v, want a challenge", resp, err)
	}
}

// update changes one field of a provider.
func (c *caller) update(p *pb.OutsideProvider, change func(*pb.OutsideProvider), field string) {
	c.t.Helper()
	next := &pb.OutsideProvider{Id: p.GetId()}
	change(next)
	_, err := c.providers().UpdateOutsideProvider(c.ctx(), &pb.UpdateOutsideProviderRequest{OutsideProvider: next, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}}})
	mustNot(c.t, err)
}

// SECURITY: a challenge that a provider's word was shown for is worth nothing once the link is
// gone, and what follows a provider is not fresher than the sign-in there.
func TestProviderWordEnds(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	ada := owner.hire("ada", "US").linked(f, owner.configureFake(f), "ada there").withApp()
	resp, err := ada.trySignInOutside(&pb.BeginOutsideSignInRequest{})
	mustNot(t, err)
	_, err = owner.links().DeleteUserOutsideLink(owner.ctx(), &pb.DeleteUserOutsideLinkRequest{UserId: ada.user.GetId(), Id: ada.outsideAccount.link.GetId()})
	mustNot(t, err)
	_, err = ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: resp.GetChallenge().GetSecret(), Proof: recovery(ada.codes[1])})
	check(t, "answer after the link is gone", err, codes.Unauthenticated, "CHALLENGE_OVER")

	bob := owner.hire("bob", "OA").linked(f, ada.outsideAccount.provider, "bob there")
	for name, claim := range map[string]any{"an old one": time.Now().Add(-time.Hour).Unix(), "one that does not say": nil} {
		f.change(func(f *fake) { f.claims["auth_time"] = claim })
		by := bob.signInOutside(&pb.BeginOutsideSignInRequest{})
		_, err = by.apiKeys().CreateApiKey(by.ctx(), &pb.CreateApiKeyRequest{Name: "key", Scopes: []string{"Organization"}})
		check(t, "by a sign-in there, "+name, err, codes.FailedPrecondition, "STEP_UP_NEEDED")
		_, err = bob.trySignInOutside(&pb.BeginOutsideSignInRequest{Fresh: true})
		check(t, "a fresh one, "+name, err, codes.Unauthenticated, "PROOF_WRONG")
	}
	f.change(func(f *fake) { delete(f.claims, "auth_time") })
	bob.signInOutside(&pb.BeginOutsideSignInRequest{Fresh: true}).withKey("Organization")
}

// SECURITY: nothing but an ID token that this provider signed for this sign-in signs in.
func TestIDTokensThatDoNotDo(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	ada := owner.hire("ada", "US").linked(f, owner.configureFake(f), "ada there")
	sign := func(alg jose.SignatureAlgorithm, key any) func(f *fake) {
		return func(f *fake) { f.sign = func(text []byte) string { return signed(t, alg, key, f.keyID, text) } }
	}
	claim := func(name string, value any) func(f *fake) { return func(f *fake) { f.claims[name] = value } }
	other := newFake(t)
	for name, change := range map[string]func(f *fake){
		"another nonce": claim("nonce", "another"), "no nonce": claim("nonce", nil),
		"for another": claim("aud", "another"), "for several, of whom another asked": claim("aud", []string{"latchkey", "another"}),
		"asked by another": claim("azp", "another"), "of another": claim("iss", other.URL), "of nobody": claim("iss", nil),
		"expired": claim("exp", time.Now().Add(-time.Minute).Unix()), "old": claim("iat", time.Now().Add(-time.Hour).Unix()),
		"of tomorrow": claim("iat", time.Now().Add(24*time.Hour).Unix()), "not yet valid": claim("nbf", time.Now().Add(time.Hour).Unix()),
		"with another access token": claim("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"),
		"signed with our secret":    sign(jose.HS256, []byte(fakeSecret)), "signed with another key": sign(jose.ES256, other.key),
		"not signed": func(f *fake) {
			f.sign = func(text []byte) string {
				return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(text) + "."
			}
		},
		"cut": func(f *fake) {
			f.sign = func(text []byte) string {
				return strings.TrimRight(signed(t, jose.ES256, f.key, f.keyID, text), "=")[1:]
			}
		},
	} {
		f.change(change)
		_, err := ada.trySignInOutside(&pb.BeginOutsideSignInRequest{})
		check(t, name, err, codes.Unauthenticated, "PROOF_WRONG")
		f.change(func(f *fake) { f.sign, f.claims = nil, map[string]any{} })
	}
	for name, change := range map[string]func(f *fake){
		"no subject": claim("sub", nil), "a long subject": claim("sub", strings.Repeat("x", 256)),
		"no ID token": func(f *fake) { f.sign = func([]byte) string { return "" } },
	} {
		f.change(change)
		_, err := ada.trySignInOutside(&pb.BeginOutsideSignInRequest{})
		check(t, name, err, codes.FailedPrecondition, "PROVIDER_UNFIT")
		f.change(func(f *fake) { f.sign, f.claims = nil, map[string]any{} })
	}
	f.change(claim("aud", []string{"latchkey", "another"}))
	f.change(claim("azp", "latchkey"))
	ada.signInOutside(&pb.BeginOutsideSignInRequest{})
}

// SECURITY: what comes back signs in only whoever began, once, and only from the provider to
// which she went.
func TestAnswersThatDoNotDo(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	ada := owner.hire("ada", "US").linked(f, owner.configureFake(f), "ada there")
	begin := func() *pb.BeginOutsideSignInResponse {
		begun, err := ada.beginOutside(&pb.BeginOutsideSignInRequest{})
		mustNot(t, err)
		return begun
	}
	complete := func(challenge string, answer *pb.OutsideAnswer) error {
		_, err := ada.outside().CompleteOutsideSignIn(t.Context(), &pb.CompleteOutsideSignInRequest{Challenge: challenge, Answer: answer})
		return err
	}
	for name, change := range map[string]func(a *pb.OutsideAnswer){
		"another state": func(a *pb.OutsideAnswer) { a.State = "another" }, "another code": func(a *pb.OutsideAnswer) { a.Code = "another" },
		"another issuer": func(a *pb.OutsideAnswer) { a.Iss = "https://evil.example" }, "no issuer": func(a *pb.OutsideAnswer) { a.Iss = "" },
	} {
		begun := begin()
		wrong := f.answer("ada there", begun.GetAuthorizationUrl())
		right := f.answer("ada there", begun.GetAuthorizationUrl())
		change(wrong)
		check(t, name, complete(begun.GetChallenge(), wrong), codes.Unauthenticated, "PROOF_WRONG")
		check(t, name+", then the right one", complete(begun.GetChallenge(), right), codes.Unauthenticated, "CHALLENGE_OVER")
	}
	mine, foreign := begin(), begin()
	stolen := f.answer("mallory there", foreign.GetAuthorizationUrl())
	check(t, "what another browser began", complete(mine.GetChallenge(), stolen), codes.Unauthenticated, "PROOF_WRONG")
	mine = begin()
	answer := f.answer("mallory there", foreign.GetAuthorizationUrl())
	answer.State = f.answer("ada there", mine.GetAuthorizationUrl()).GetState()
	check(t, "a code that another browser asked for", complete(mine.GetChallenge(), answer), codes.Unauthenticated, "PROOF_WRONG")
	begun := begin()
	answer = f.answer("ada there", begun.GetAuthorizationUrl())
	mustNot(t, complete(begun.GetChallenge(), answer))
	check(t, "a second time", complete(begun.GetChallenge(), answer), codes.Unauthenticated, "CHALLENGE_OVER")
	again := ada.in(ada.again())
	_, err := again.outside().CompleteOutsideSignIn(t.Context(), &pb.CompleteOutsideSignInRequest{Challenge: begun.GetChallenge(), Answer: answer})
	check(t, "a second time, after a restart", err, codes.Unauthenticated, "CHALLENGE_OVER")
	_, err = again.outside().CompleteOutsideSignIn(t.Context(), &pb.CompleteOutsideSignInRequest{Challenge: "lkc_AAAA", Answer: answer})
	check(t, "no challenge", err, codes.Unauthenticated, "CHALLENGE_OVER")
	_, err = again.beginOutside(&pb.BeginOutsideSignInRequest{OrganizationId: "0198a5d2-6c1e-7f43-9d0a-3b1f6f0f9a61"})
	check(t, "to another organization", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	_, err = again.outside().BeginOutsideSignIn(t.Context(), &pb.BeginOutsideSignInRequest{
		ProviderId: ada.outsideAccount.provider.GetId(), RedirectUri: appBack + "/", Surface: pb.Surface_SURFACE_WEB,
	})
	checkField(t, "another redirect URI", err, "redirect_uri")
}

// What is wrong with a provider is never the suite's fault, and says what to do.
func TestProvidersThatDoNotDo(t *testing.T) {
	owner := owned(t)
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	const discovery, token, keys = "/.well-known/openid-configuration", "/token", "/keys"
	document := func(name string, value any) func(*fake) { return func(f *fake) { f.document[name] = value } }
	answers := func(path string, with http.HandlerFunc) func(*fake) { return func(f *fake) { f.answers[path] = with } }
	for name, x := range map[string]struct {
		change func(f *fake)
		code   codes.Code
		reason string
	}{
		"of another name":        {document("issuer", "https://other.example"), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"with keys by http":      {document("jwks_uri", "http://keys.example/"), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"with tokens of a file":  {document("token_endpoint", "file:///etc/passwd"), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"with pages of a script": {document("authorization_endpoint", "javascript:alert(1)"), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"that is none":           {answers(discovery, status(404)), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"that is down":           {answers(discovery, status(503)), codes.Unavailable, "PROVIDER_UNREACHABLE"},
		"that sends elsewhere":   {answers(discovery, http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound).ServeHTTP), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"that never ends":        {answers(discovery, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 2<<20)) }), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"without tokens":         {answers(token, status(503)), codes.Unavailable, "PROVIDER_UNREACHABLE"},
		"whose tokens are pages": {answers(token, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"without keys":           {answers(keys, status(500)), codes.Unavailable, "PROVIDER_UNREACHABLE"},
		"that does not know us": {answers(token, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			w.Write([]byte(`{"error":"invalid_client"}`))
		}), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"that does not listen":     {func(f *fake) { f.Listener.Close() }, codes.Unavailable, "PROVIDER_UNREACHABLE"},
		"whose keys are no keys":   {answers(keys, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("[]")) }), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"who sends keys no more":   {answers(keys, status(404)), codes.FailedPrecondition, "PROVIDER_UNFIT"},
		"that sends to its tokens": {answers(token, http.RedirectHandler("/keys", http.StatusTemporaryRedirect).ServeHTTP), codes.FailedPrecondition, "PROVIDER_UNFIT"},
	} {
		f := newFake(t)
		ada := *owner
		ada.outsideAccount = &foreign{fake: f, provider: owner.configureFake(f), subject: "somebody"}
		f.change(x.change)
		_, err := ada.trySignInOutside(&pb.BeginOutsideSignInRequest{})
		check(t, name, err, x.code, x.reason)
	}
}

// SECURITY: whoever configures a provider does not make the suite go where only it comes.
func TestAddressesOutside(t *testing.T) {
	private := []string{
		"127.0.0.1:443", "[::1]:443", "10.0.0.1:443", "172.16.0.1:443", "192.168.1.1:443", "169.254.169.254:80", "[fe80::1]:443", "[fd00:ec2::254]:80",
		"100.64.0.1:443", "0.0.0.0:443", "[::]:443", "[::ffff:10.0.0.1]:443", "[::ffff:169.254.169.254]:443", "[64:ff9b::a9fe:a9fe]:443", "[2002:a00:1::]:443",
		"224.0.0.1:443", "[ff02::1]:443", "255.255.255.255:443", "192.0.2.1:443", "198.18.0.1:443", "[fec0::1]:443", "[::7f00:1]:443", "", "login.example:443",
	}
	for _, address := range private {
		if identity.GoesTo(address, false) == nil {
			t.Errorf("the suite goes to %q", address)
		}
	}
	for _, address := range []string{"1.1.1.1:443", "[2606:4700::1111]:443", "[::ffff:1.1.1.1]:443"} {
		mustNot(t, identity.GoesTo(address, false))
	}
	for _, address := range []string{"127.0.0.1:443", "[::1]:443", "10.1.2.3:443", "[::ffff:10.1.2.3]:443"} {
		mustNot(t, identity.GoesTo(address, true, netip.MustParsePrefix("10.1.0.0/16")))
	}
	for _, address := range []string{"10.2.0.1:443", "169.254.169.254:80"} {
		if identity.GoesTo(address, true, netip.MustParsePrefix("10.1.0.0/16")) == nil {
			t.Errorf("the suite goes to %q", address)
		}
	}
}
