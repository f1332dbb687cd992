package identity_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

// browser is that of a person: it keeps cookies, follows redirects within the issuer, and
// stops where it is sent elsewhere.
type browser struct {
	*suite
	client *http.Client
	away   *url.URL // where it was sent last, outside the issuer
}

func (s *suite) browser() *browser {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	mustNot(s.t, err)
	b := &browser{suite: s, client: s.web()}
	b.client.Jar = jar
	b.client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), s.Issuer()+"/") {
			return nil
		}
		b.away = req.URL
		return http.ErrUseLastResponse
	}
	return b
}

// signedInBrowser is one in which the caller's session is open.
func (c *caller) signedInBrowser() *browser {
	c.t.Helper()
	b := c.suite.browser()
	at, err := url.Parse(c.Issuer())
	mustNot(c.t, err)
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: "latchkey-session", Value: c.token, Path: "/"}})
	return b
}

// open opens a page, or is sent away.
func (b *browser) open(path string) *reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), "GET", b.Issuer()+path, nil)
	mustNot(b.t, err)
	return b.visit(req)
}

func (b *browser) visit(req *http.Request) *reply {
	b.t.Helper()
	b.away = nil
	was := b.suite.sender
	b.suite.sender = b.client
	defer func() { b.suite.sender = was }()
	return b.send(req)
}

var hidden = regexp.MustCompile(`<input type="hidden" name="(\w+)" value="([^"]*)">`)
var action = regexp.MustCompile(`<form method="post" action="([^"]*)">`)

// submit fills in the form of a page and sends it.
func (b *browser) submit(page *reply, pairs ...string) *reply {
	b.t.Helper()
	m := action.FindStringSubmatch(page.text)
	if m == nil {
		b.t.Fatalf("there is no form on the page: %d %s", page.status, page.text)
	}
	f := values(pairs...)
	for _, field := range hidden.FindAllStringSubmatch(page.text, -1) {
		f.Set(field[1], strings.NewReplacer("&amp;", "&", "&#43;", "+", "&#34;", `"`, "&#39;", "'").Replace(field[2]))
	}
	req := b.formRequest(m[1], f)
	req.Header.Set("Origin", b.Issuer())
	return b.visit(req)
}

// verifier is one of PKCE, and challenge what belongs to it.
const verifier = "a-verifier-that-is-as-long-as-the-standard-wants-it"

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// authorizePath is where a client sends a person. Pairs change what is usual; an empty value
// leaves something out.
func (c *registered) authorizePath(pairs ...string) string {
	q := values("response_type", "code", "client_id", c.GetId(), "redirect_uri", c.GetRedirectUris()[0], "scope", "openid",
		"state", "a state", "nonce", "a nonce", "code_challenge", challenge(), "code_challenge_method", "S256")
	for i := 0; i < len(pairs); i += 2 {
		q.Del(pairs[i])
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return "/oauth2/authorize?" + q.Encode()
}

// letIn has a person let a client in, as far as it has to, and returns the answer to the
// client.
func (b *browser) letIn(who *caller, path string) url.Values {
	b.t.Helper()
	page := b.open(path)
	if strings.Contains(page.text, "<h1>Sign in</h1>") {
		page = b.submit(page, "email", who.email, "password", who.password)
	}
	if strings.Contains(page.text, "asks to act in your name") {
		page = b.submit(page, "decision", "allow")
	}
	if b.away == nil {
		b.t.Fatalf("the person is not sent back: %d %s", page.status, page.text)
	}
	return b.away.Query()
}

// redeem redeems a code. Pairs change what is usual.
func (c *registered) redeem(s *suite, code string, pairs ...string) *reply {
	f := values("grant_type", "authorization_code", "client_id", c.GetId(), "client_secret", c.secret, "code", code,
		"redirect_uri", c.GetRedirectUris()[0], "code_verifier", verifier)
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
	}
	return s.send(s.formRequest("/oauth2/token", f))
}

func (c *registered) refresh(s *suite, token string, pairs ...string) *reply {
	return s.post("/oauth2/token", append([]string{"grant_type", "refresh_token", "client_id", c.GetId(), "client_secret", c.secret, "refresh_token", token}, pairs...)...)
}

// tokens has a person let a client in and redeems the code.
func (c *registered) tokens(who *caller, pairs ...string) *reply {
	who.t.Helper()
	answer := who.browser().letIn(who, c.authorizePath(pairs...))
	r := c.redeem(who.suite, answer.Get("code"))
	if r.status != 200 {
		who.t.Fatalf("got %d %s", r.status, r.text)
	}
	return r
}

// A client that we did not write signs a person in.
func TestRealClientSignsIn(t *testing.T) {
	owner := owned(t)
	for _, alg := range []pb.OauthSigningAlgorithm{1, 2, 3} {
		c := owner.register(with(site("openid", "profile", "email", "Organization"), func(c *pb.OauthClient) { c.SigningAlgorithm = alg }))
		ctx := oidc.ClientContext(t.Context(), owner.web())
		provider, err := oidc.NewProvider(ctx, issuer)
		mustNot(t, err)
		config := oauth2.Config{
			ClientID: c.GetId(), ClientSecret: c.secret, Endpoint: provider.Endpoint(), RedirectURL: c.GetRedirectUris()[0],
			Scopes: []string{"openid", "profile", "email", "Organization"},
		}
		pkce := oauth2.GenerateVerifier()
		link := config.AuthCodeURL("its state", oauth2.S256ChallengeOption(pkce), oidc.Nonce("its nonce"))
		answer := owner.browser().letIn(owner, strings.TrimPrefix(link, issuer))
		if answer.Get("state") != "its state" || answer.Get("iss") != issuer {
			t.Errorf("it is sent back with %v", answer)
		}
		got, err := config.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(pkce))
		mustNot(t, err)
		idToken, err := provider.Verifier(&oidc.Config{ClientID: c.GetId()}).Verify(ctx, got.Extra("id_token").(string))
		mustNot(t, err)
		if idToken.Subject != owner.user.GetId() || idToken.Nonce != "its nonce" || idToken.VerifyAccessToken(got.AccessToken) != nil {
			t.Errorf("%v: got %+v", alg, idToken)
		}
		info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(got))
		if err != nil || info.Subject != owner.user.GetId() || info.Email != owner.email || info.EmailVerified {
			t.Errorf("%v: got %+v, %v", alg, info, err)
		}
		expired := *got
		expired.Expiry = expired.Expiry.AddDate(-1, 0, 0)
		renewed, err := config.TokenSource(ctx, &expired).Token()
		if err != nil || renewed.AccessToken == got.AccessToken || renewed.RefreshToken == got.RefreshToken || !owner.signedIn(renewed.AccessToken) {
			t.Errorf("%v: renewed to %v, %v", alg, renewed, err)
		}
	}
}

// SECURITY: who shows a code or a refresh token a second time, also after a restart, ends
// what came of it.
func TestReuseEndsTheSession(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid", "Organization"))
	code := owner.browser().letIn(owner, c.authorizePath()).Get("code")
	first := c.redeem(owner.suite, code)
	if first.status != 200 || !owner.signedIn(first.str("access_token")) {
		t.Fatalf("got %d %s", first.status, first.text)
	}
	wantRefusal(t, "the code again", c.redeem(owner.suite, code), 400, "invalid_grant")
	if owner.signedIn(first.str("access_token")) {
		t.Error("the access token is accepted after its code was shown twice")
	}
	wantRefusal(t, "the refresh token, then", c.refresh(owner.suite, first.str("refresh_token")), 400, "invalid_grant")

	one := c.tokens(owner)
	two := c.refresh(owner.suite, one.str("refresh_token"))
	if two.status != 200 {
		t.Fatalf("got %d %s", two.status, two.text)
	}
	again := owner.in(owner.again())
	wantRefusal(t, "an old refresh token after a restart", c.refresh(again.suite, one.str("refresh_token")), 400, "invalid_grant")
	wantRefusal(t, "the new one, then", c.refresh(again.suite, two.str("refresh_token")), 400, "invalid_grant")
	if again.signedIn(two.str("access_token")) {
		t.Error("the access token is accepted after an old refresh token was shown")
	}
}

// SECURITY: a code is worth nothing to anybody else, nor with anything else than it was
// issued for.
func TestCodeIsBound(t *testing.T) {
	owner := owned(t)
	c, other := owner.register(site("openid")), owner.register(site("openid"))
	b := owner.browser()
	for name, redeem := range map[string]func(code string) *reply{
		"another client": func(code string) *reply { return other.redeem(owner.suite, code) },
		"another redirect URI": func(code string) *reply {
			return c.redeem(owner.suite, code, "redirect_uri", "https://site.example/other")
		},
		"another verifier":   func(code string) *reply { return c.redeem(owner.suite, code, "code_verifier", strings.Repeat("x", 43)) },
		"no verifier":        func(code string) *reply { return c.redeem(owner.suite, code, "code_verifier", "") },
		"nonsense":           func(string) *reply { return c.redeem(owner.suite, "nonsense") },
		"as a refresh token": func(code string) *reply { return c.refresh(owner.suite, code) },
	} {
		wantRefusal(t, name, redeem(b.letIn(owner, c.authorizePath()).Get("code")), 400, "invalid_grant")
	}
	code := b.letIn(owner, c.authorizePath()).Get("code")
	wantRefusal(t, "without its secret", c.redeem(owner.suite, code, "client_secret", ""), 401, "invalid_client")
}

// A session that a client was given lasts no longer than that of the browser, unless it was
// let in for longer.
func TestSignOutEndsClients(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid", "offline_access"))
	b := owner.browser()
	short := c.redeem(owner.suite, b.letIn(owner, c.authorizePath()).Get("code"))
	long := c.redeem(owner.suite, b.letIn(owner, c.authorizePath("scope", "openid offline_access")).Get("code"))
	page := b.open("/oauth2/sign-out?" + values("id_token_hint", short.str("id_token"), "post_logout_redirect_uri", "https://site.example/bye", "state", "s").Encode())
	b.submit(page)
	if b.away == nil || b.away.String() != "https://site.example/bye?state=s" {
		t.Errorf("sent to %v, want back to the client", b.away)
	}
	if owner.signedIn(short.str("access_token")) || !owner.signedIn(long.str("access_token")) {
		t.Error("want the short one ended and the long one not")
	}
	wantRefusal(t, "refresh", c.refresh(owner.suite, short.str("refresh_token")), 400, "invalid_grant")
	if r := c.refresh(owner.suite, long.str("refresh_token")); r.status != 200 {
		t.Errorf("offline: got %d %s", r.status, r.text)
	}
	if page := b.open(c.authorizePath()); !strings.Contains(page.text, "<h1>Sign in</h1>") {
		t.Errorf("got %d %s, want to be asked to sign in", page.status, page.text)
	}
}

// SECURITY: forms count only from our own pages, nothing is loaded or run by them, and
// nobody is told whether a person is known.
func TestPages(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid"))
	b := owner.browser()
	page := b.open(c.authorizePath())
	policy := page.header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "form-action 'self' https://site.example;") || strings.Contains(page.text, "<script") {
		t.Errorf("got the policy %q", policy)
	}
	unknown := b.submit(page, "email", "nobody@example.com", "password", "a password")
	wrong := b.submit(page, "email", owner.email, "password", "a password")
	if strings.ReplaceAll(unknown.text, "nobody@example.com", owner.email) != wrong.text || unknown.status != 403 || wrong.status != 403 {
		t.Errorf("an unknown person is told\n%d %s\na known one\n%d %s", unknown.status, unknown.text, wrong.status, wrong.text)
	}
	forged := b.formRequest("/oauth2/sign-in", values("email", owner.email, "password", owner.password, "continue", c.authorizePath()))
	if r := b.visit(forged); r.status != 400 {
		t.Errorf("a form without our token: got %d, want 400", r.status)
	}
	f := values("email", owner.email, "password", owner.password, "continue", c.authorizePath())
	f.Set("form", hidden.FindStringSubmatch(page.text)[2])
	cross := b.formRequest("/oauth2/sign-in", f)
	cross.Header.Set("Origin", "https://evil.example")
	if r := b.visit(cross); r.status != 400 {
		t.Errorf("a form from elsewhere: got %d, want 400", r.status)
	}
	for _, next := range []string{"https://evil.example/", "//evil.example/oauth2/authorize", "/\\evil.example", "/oauth2/token", ""} {
		if r := b.open("/oauth2/sign-in?continue=" + url.QueryEscape(next)); r.status != 400 {
			t.Errorf("on to %q: got %d, want 400", next, r.status)
		}
	}
	denied := b.submit(b.submit(page, "email", owner.email, "password", owner.password), "decision", "deny")
	if b.away == nil || b.away.Query().Get("error") != "access_denied" || b.away.Query().Get("iss") != issuer {
		t.Errorf("refused, the client is told %v %d", b.away, denied.status)
	}
}

// Nobody is asked about what is the company's own, and everybody once about others.
func TestConsent(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid", "email"))
	own := owner.register(with(site("openid"), func(c *pb.OauthClient) { c.FirstParty = proto.Bool(true) }))
	b := owner.browser()
	b.letIn(owner, c.authorizePath())
	if b.open(c.authorizePath("prompt", "none")); b.away == nil || b.away.Query().Get("code") == "" {
		t.Errorf("the second time: got %v, want a code", b.away)
	}
	if b.open(own.authorizePath("prompt", "none")); b.away == nil || b.away.Query().Get("code") == "" {
		t.Errorf("the company's own: got %v, want a code", b.away)
	}
	if page := b.open(c.authorizePath("scope", "openid email")); !strings.Contains(page.text, "know your e-mail address") {
		t.Errorf("for more: got %d %s, want to be asked", page.status, page.text)
	}
	if b.open(c.authorizePath("scope", "openid email", "prompt", "none")); b.away == nil || b.away.Query().Get("error") != "consent_required" {
		t.Errorf("for more, silently: got %v, want consent_required", b.away)
	}
}

// Who has a second factor shows it on the page as well, and nobody is let in without.
func TestPagesAskForTheSecondFactor(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid"))
	strong := owner.hire("ada", "US").withApp()
	b := owner.browser()
	page := b.submit(b.open(c.authorizePath()), "email", strong.email, "password", strong.password)
	if !strings.Contains(page.text, "One thing more") {
		t.Fatalf("got %d %s, want to be asked for more", page.status, page.text)
	}
	if r := b.open(c.authorizePath("prompt", "none")); b.away == nil || b.away.Query().Get("error") != "login_required" {
		t.Fatalf("with the password alone: got %d %v", r.status, b.away)
	}
	if page = b.submit(page, "code", "0000-0000"); page.status != 403 {
		t.Errorf("a wrong code: got %d, want 403", page.status)
	}
	page = b.submit(page, "code", strong.codes[1])
	if !strings.Contains(page.text, "asks to act in your name") {
		t.Errorf("with a recovery code: got %d %s", page.status, page.text)
	}
}
