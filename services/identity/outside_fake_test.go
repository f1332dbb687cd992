package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

// fakeSecret is what the fake provider knows the suite by.
const fakeSecret = "what the provider made up for the suite"

// fake is an outside provider, which says what a test wants it to.
type fake struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	key      *ecdsa.PrivateKey
	keyID    string
	requests map[string]url.Values // of people who have signed in, by code
	claims   map[string]any        // that the ID tokens have beside the usual, or in their place; nil leaves one out
	info     map[string]any        // of userinfo; none if nil
	document map[string]any        // as claims, of the discovery document
	sign     func(claims []byte) string
	answers  map[string]http.HandlerFunc // in the place of the usual, by path
}

func newFake(t testing.TB) *fake {
	f := &fake{t: t, requests: map[string]url.Values{}, claims: map[string]any{}, document: map[string]any{}, answers: map[string]http.HandlerFunc{}}
	f.rotate()
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// rotate gives the provider another key, and it forgets the one before.
func (f *fake) rotate() {
	f.mu.Lock()
	defer f.mu.Unlock()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustNot(f.t, err)
	f.key, f.keyID = key, fmt.Sprintf("key of %d", time.Now().UnixNano())
}

// change changes what the provider says from now on.
func (f *fake) change(change func(f *fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// ServeHTTP implements http.Handler.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.answers[r.URL.Path]; other != nil {
		other(w, r)
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		f.write(w, f.with(map[string]any{
			"issuer": f.URL, "authorization_endpoint": f.URL + "/authorize", "token_endpoint": f.URL + "/token", "jwks_uri": f.URL + "/keys",
			"userinfo_endpoint": f.URL + "/userinfo", "authorization_response_iss_parameter_supported": true,
			"id_token_signing_alg_values_supported": []string{"ES256", "HS256", "none"},
		}, f.document))
	case "/keys":
		f.write(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: f.key.Public(), KeyID: f.keyID, Algorithm: "ES256", Use: "sig"}}})
	case "/token":
		f.token(w, r)
	case "/userinfo":
		f.write(w, f.info)
	default:
		http.NotFound(w, r)
	}
}

func (f *fake) with(usual, others map[string]any) map[string]any {
	all := maps.Clone(usual)
	for name, value := range others {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	return all
}

func (f *fake) write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// token redeems a code as the standards have it.
func (f *fake) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":%q}`, code)
	}
	if id, secret, _ := r.BasicAuth(); id != "latchkey" || secret != url.QueryEscape(fakeSecret) {
		refuse("invalid_client")
		return
	}
	asked, ok := f.requests[r.PostFormValue("code")]
	delete(f.requests, r.PostFormValue("code"))
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != asked.Get("code_challenge") || r.PostFormValue("redirect_uri") != asked.Get("redirect_uri") {
		refuse("invalid_grant")
		return
	}
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": f.URL, "aud": "latchkey", "sub": asked.Get("sub"), "nonce": asked.Get("nonce"), "iat": now, "exp": now + 300, "auth_time": now,
	}
	text, err := json.Marshal(f.with(claims, f.claims))
	mustNot(f.t, err)
	answer := map[string]any{"access_token": "of the fake", "token_type": "Bearer", "expires_in": 300}
	if f.sign == nil {
		answer["id_token"] = signed(f.t, jose.ES256, f.key, f.keyID, text)
	} else if token := f.sign(text); token != "" {
		answer["id_token"] = token
	}
	f.write(w, answer)
}

func signed(t testing.TB, alg jose.SignatureAlgorithm, key any, id string, payload []byte) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", id))
	mustNot(t, err)
	jws, err := signer.Sign(payload)
	mustNot(t, err)
	text, err := jws.CompactSerialize()
	mustNot(t, err)
	return text
}

// answer has somebody sign in at the provider, where an application sent her, and returns what
// she is sent back with.
func (f *fake) answer(subject, address string) *pb.OutsideAnswer {
	f.t.Helper()
	u, err := url.Parse(address)
	mustNot(f.t, err)
	q := u.Query()
	if !strings.HasPrefix(address, f.URL+"/authorize?") || q.Get("response_type") != "code" || q.Get("client_id") != "latchkey" ||
		q.Get("code_challenge_method") != "S256" || len(q.Get("state")) != 43 || len(q.Get("nonce")) != 43 || q.Get("redirect_uri") == "" {
		f.t.Fatalf("sent to %s", address)
	}
	q.Set("sub", subject)
	f.mu.Lock()
	defer f.mu.Unlock()
	code := rand.Text()
	f.requests[code] = q
	return &pb.OutsideAnswer{State: q.Get("state"), Code: code, Iss: f.URL}
}

// withForeign links somebody with an account at a fake provider that the caller's organization
// has: for whom something happens to it, one of its own.
func (c *caller) withForeign(u *caller, name string) *caller {
	c.t.Helper()
	organization := c.session.GetOrganizationId()
	a := c.fakes[organization]
	own := strings.Contains(name, "provider") || strings.Contains(name, "address")
	if a == nil || own {
		f := newFake(c.t)
		a = &foreign{fake: f, provider: c.configureFake(f)}
	}
	if !own {
		c.fakes[organization] = a
	}
	return u.linked(a.fake, a.provider, name)
}

func (a *foreign) id() string {
	if a == nil {
		return ""
	}
	return a.provider.GetId()
}

func (a *foreign) linkID() string {
	if a == nil {
		return ""
	}
	return a.link.GetId()
}

// foreign is an account of somebody's at the fake provider.
type foreign struct {
	*fake
	provider *pb.OutsideProvider
	subject  string
	link     *pb.OutsideLink // with the caller
}

func (s *suite) outside() pb.OutsideSignInServiceClient {
	return pb.NewOutsideSignInServiceClient(s.conn)
}
func (s *suite) links() pb.OutsideLinkServiceClient { return pb.NewOutsideLinkServiceClient(s.conn) }

// configureFake configures the fake provider for the caller's organization.
func (c *caller) configureFake(f *fake, change ...func(*pb.OutsideProvider)) *pb.OutsideProvider {
	c.t.Helper()
	return c.configure(company(append([]func(*pb.OutsideProvider){func(p *pb.OutsideProvider) { p.Issuer = f.URL }}, change...)...), fakeSecret)
}

// tryLink links the caller with an account.
func (c *caller) tryLink(a *foreign) (*pb.OutsideLink, error) {
	c.t.Helper()
	begun, err := c.links().BeginOutsideLink(c.ctx(), &pb.BeginOutsideLinkRequest{ProviderId: a.provider.GetId(), RedirectUri: appBack})
	if err != nil {
		return nil, err
	}
	resp, err := c.links().CompleteOutsideLink(c.ctx(), &pb.CompleteOutsideLinkRequest{
		Challenge: begun.GetChallenge(), Answer: a.answer(a.subject, begun.GetAuthorizationUrl()),
	})
	return resp.GetLink(), err
}

// linked is the caller with an account that signs in.
func (c *caller) linked(f *fake, p *pb.OutsideProvider, subject string) *caller {
	c.t.Helper()
	next := *c
	next.outsideAccount = &foreign{fake: f, provider: p, subject: subject}
	var err error
	next.outsideAccount.link, err = c.tryLink(next.outsideAccount)
	mustNot(c.t, err)
	return &next
}

// beginOutside begins to sign in, on the web if nothing else is asked for.
func (c *caller) beginOutside(req *pb.BeginOutsideSignInRequest) (*pb.BeginOutsideSignInResponse, error) {
	req.ProviderId, req.RedirectUri = c.outsideAccount.provider.GetId(), appBack
	if req.GetSurface() == pb.Surface_SURFACE_UNSPECIFIED {
		req.Surface = c.on()
	}
	return c.outside().BeginOutsideSignIn(c.t.Context(), req)
}

// trySignInOutside signs in by the account.
func (c *caller) trySignInOutside(req *pb.BeginOutsideSignInRequest) (*pb.CompleteOutsideSignInResponse, error) {
	c.t.Helper()
	begun, err := c.beginOutside(req)
	if err != nil {
		return nil, err
	}
	return c.outside().CompleteOutsideSignIn(c.t.Context(), &pb.CompleteOutsideSignInRequest{
		Challenge: begun.GetChallenge(), Answer: c.outsideAccount.answer(c.outsideAccount.subject, begun.GetAuthorizationUrl()),
	})
}

// signInOutside signs in by the account, and goes on with the token.
func (c *caller) signInOutside(req *pb.BeginOutsideSignInRequest) *caller {
	c.t.Helper()
	resp, err := c.trySignInOutside(req)
	mustNot(c.t, err)
	if resp.GetChallenge() != nil {
		c.t.Fatal("a challenge, want a session")
	}
	next := *c
	next.session, next.token, next.refresh = resp.GetSession(), resp.GetToken(), resp.GetRefreshToken()
	return &next
}
