package identity_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

// pushes asks a client's endpoint for what authorizePath would have in its URL.
func (c *registered) pushes(s *suite, pairs ...string) *reply {
	s.t.Helper()
	_, query, _ := strings.Cut(c.authorizePath(pairs...), "?")
	f, err := url.ParseQuery(query)
	mustNot(s.t, err)
	req := s.formRequest("/oauth2/par", f)
	req.SetBasicAuth(c.GetId(), c.secret)
	return s.send(req)
}

// pushed is where a client sends a person after it has pushed a request.
func (c *registered) pushed(s *suite, pairs ...string) string {
	s.t.Helper()
	r := c.pushes(s, pairs...)
	if r.status != 201 {
		s.t.Fatalf("got %d %s", r.status, r.text)
	}
	return "/oauth2/authorize?" + values("client_id", c.GetId(), "request_uri", r.str("request_uri")).Encode()
}

// Requests that a client pushes, each check named after its section.
func TestPushedRequests(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid", "email"))
	t.Run("RFC 9126 2.2: response", func(t *testing.T) {
		r := c.pushes(owner.suite)
		if r.status != 201 || !strings.HasPrefix(r.str("request_uri"), "urn:ietf:params:oauth:request_uri:") || r.body["expires_in"] != 60.0 ||
			!strings.Contains(r.header.Get("Cache-Control"), "no-store") {
			t.Errorf("got %d %v %s", r.status, r.header, r.text)
		}
		if other := c.pushes(owner.suite); other.str("request_uri") == r.str("request_uri") {
			t.Error("two requests have the same URI")
		}
	})
	t.Run("RFC 9126 2.1, 2.3: errors", func(t *testing.T) {
		for want, pairs := range map[string][]string{
			"invalid_scope": {"scope", "openid Invoices"}, "unsupported_response_type": {"response_type", "token"}, "request_not_supported": {"request", "x"},
		} {
			wantRefusal(t, want, c.pushes(owner.suite, pairs...), 400, want)
		}
		for name, pairs := range map[string][]string{
			"another redirect URI": {"redirect_uri", "https://evil.example/"}, "no PKCE": {"code_challenge", ""},
			"a request URI": {"request_uri", "urn:ietf:params:oauth:request_uri:x"},
		} {
			wantRefusal(t, name, c.pushes(owner.suite, pairs...), 400, "invalid_request")
		}
		wantRefusal(t, "too long", c.pushes(owner.suite, "state", strings.Repeat("x", 9000)), 413, "invalid_request")
		wrong := *c
		wrong.secret = "wrong"
		wantRefusal(t, "a wrong secret", wrong.pushes(owner.suite), 401, "invalid_client")
		if r := owner.fetch("/oauth2/par"); r.status != 405 {
			t.Errorf("GET: got %d", r.status)
		}
	})
	t.Run("RFC 9126 2.2: bound to the client", func(t *testing.T) {
		other := owner.register(site("openid"))
		path := strings.Replace(c.pushed(owner.suite), c.GetId(), other.GetId(), 1)
		if b := owner.browser(); b.open(path).status != 400 || b.away != nil {
			t.Errorf("for another client: sent to %v", b.away)
		}
	})
	t.Run("RFC 9126 5: metadata", func(t *testing.T) {
		doc := owner.fetch("/.well-known/openid-configuration").body
		if doc["pushed_authorization_request_endpoint"] != issuer+"/oauth2/par" || doc["require_pushed_authorization_requests"] != false {
			t.Errorf("got %v", doc)
		}
	})
}

// A person comes with what was pushed, once, and it counts whatever else the URL says.
func TestPushedRequestsOnPages(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid", "email"))
	t.Run("RFC 9126 4: authorization request", func(t *testing.T) {
		b := owner.browser()
		back := b.letIn(owner, c.pushed(owner.suite, "scope", "openid email")+"&"+values("scope", "openid", "state", "another").Encode())
		r := c.redeem(owner.suite, back.Get("code"))
		if r.status != 200 || r.str("scope") != "openid email" || back.Get("state") != "a state" {
			t.Errorf("got %v, %d %s, want what was pushed", back, r.status, r.text)
		}
	})
	t.Run("RFC 9126 4, 7.3: used once", func(t *testing.T) {
		b, other := owner.browser(), owner.browser()
		path := c.pushed(owner.suite)
		b.open(path)
		if page := other.open(path); page.status != 400 || other.away != nil {
			t.Errorf("in another browser: got %d %v", page.status, other.away)
		}
		if back := b.letIn(owner, path); back.Get("code") == "" {
			t.Errorf("got %v, want a code", back)
		}
		if page := b.open(path); page.status != 400 || b.away != nil {
			t.Errorf("a second time: got %d %v", page.status, b.away)
		}
		path = c.pushed(owner.suite, "prompt", "consent")
		if b.submit(b.open(path), "decision", "deny"); b.away.Query().Get("error") != "access_denied" {
			t.Errorf("refused: got %v", b.away)
		}
		if page := b.open(path); page.status != 400 {
			t.Errorf("after a refusal: got %d", page.status)
		}
	})
	t.Run("RFC 9126 6: a client that has to push", func(t *testing.T) {
		strict := owner.register(with(site("openid"), func(c *pb.OauthClient) { c.RequirePushed = true }))
		b := owner.browser()
		if b.open(strict.authorizePath()); b.away == nil || b.away.Query().Get("error") != "invalid_request" {
			t.Errorf("without: got %v", b.away)
		}
		if back := b.letIn(owner, strict.pushed(owner.suite)); back.Get("code") == "" {
			t.Errorf("got %v, want a code", back)
		}
	})
	t.Run("Core 3.1.2.1: prompt login, pushed", func(t *testing.T) {
		b := owner.browser()
		b.letIn(owner, c.authorizePath())
		path := c.pushed(owner.suite, "prompt", "login", "login_hint", "ada@example.com")
		page := b.open(path)
		if !strings.Contains(page.text, `value="ada@example.com"`) {
			t.Errorf("got %d %s, want the hint", page.status, page.text)
		}
		b.submit(page, "email", owner.email, "password", "wrong")
		if page := b.open(path); !strings.Contains(page.text, "<h1>Sign in</h1>") {
			t.Errorf("after a wrong password: got %d %s", page.status, page.text)
		}
		if b.submit(page, "email", owner.email, "password", owner.password); b.away == nil || b.away.Query().Get("code") == "" {
			t.Errorf("after signing in: got %v, want a code", b.away)
		}
	})
}

// A request that was pushed too long ago is worth nothing, nor is one that nobody answers.
func TestPushedRequestsExpire(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	c := owner.register(site("openid"))
	path, begun := c.pushed(s), c.pushed(s)
	b := s.browser()
	b.open(begun)
	offset.Store(int64(2 * time.Minute))
	if page := b.open(path); page.status != 400 {
		t.Errorf("after two minutes: got %d %s", page.status, page.text)
	}
	if page := b.open(begun); !strings.Contains(page.text, "<h1>Sign in</h1>") {
		t.Errorf("begun in time: got %d %s", page.status, page.text)
	}
	offset.Store(int64(time.Hour))
	if page := b.open(begun); page.status != 400 {
		t.Errorf("after an hour: got %d %s", page.status, page.text)
	}
}

// What a client asks of the strength and the age of a sign-in.
func TestAskedClasses(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	c := owner.register(with(site("openid"), func(c *pb.OauthClient) { c.FirstParty = new(true) }))
	classOf := func(t *testing.T, b *browser) any {
		t.Helper()
		if b.away == nil || b.away.Query().Get("code") == "" {
			t.Fatalf("got %v, want a code", b.away)
		}
		claims, _ := owner.verify(c.redeem(s, b.away.Query().Get("code")).str("id_token"), "JWT")
		return claims["acr"]
	}
	// Her session is older than her app, and has not shown it.
	ada := owner.hire("ada", "US").setUp()
	made, err := ada.factors().ConfirmTotp(ada.ctx(), &pb.ConfirmTotpRequest{Setup: ada.setup, Code: ada.app.now()})
	mustNot(t, err)
	b := ada.signedInBrowser()
	t.Run("Core 3.1.2.1: acr_values that the session has", func(t *testing.T) {
		for _, values := range []string{"single_factor", "multi_factor single_factor", "urn:unknown"} {
			b.open(c.authorizePath("acr_values", values))
			if got := classOf(t, b); got != "single_factor" {
				t.Errorf("%s: got %v", values, got)
			}
		}
	})
	t.Run("Core 3.1.2.1: prompt none with a weaker session", func(t *testing.T) {
		if got := b.silently(c, "acr_values", "multi_factor"); got != "login_required" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("RFC 9470 4: acr_values that the session lacks", func(t *testing.T) {
		page := b.open(c.authorizePath("acr_values", "multi_factor"))
		if !strings.Contains(page.text, "One thing more") {
			t.Fatalf("got %d %s, want to be asked for more", page.status, page.text)
		}
		if page = b.submit(page, "code", "000000"); page.status != 403 {
			t.Errorf("a wrong code: got %d", page.status)
		}
		b.submit(page, "code", made.GetRecoveryCodes()[0])
		if got := classOf(t, b); got != "multi_factor" {
			t.Errorf("got %v", got)
		}
	})
	t.Run("RFC 9470 4: max_age that is over", func(t *testing.T) {
		offset.Store(int64(10 * time.Minute))
		if got := b.silently(c, "max_age", "300"); got != "login_required" {
			t.Errorf("silently: got %s", got)
		}
		page := b.open(c.authorizePath("max_age", "300"))
		if !strings.Contains(page.text, "One thing more") {
			t.Fatalf("got %d %s, want to be asked", page.status, page.text)
		}
		b.submit(page, "code", made.GetRecoveryCodes()[1])
		classOf(t, b)
		b.submit(b.open(c.authorizePath("max_age", "0")), "code", made.GetRecoveryCodes()[2])
		classOf(t, b)
	})
}

// Of what a person cannot reach the client is told, and gets nothing less.
func TestClassesThatNobodyReaches(t *testing.T) {
	owner := owned(t)
	s := owner.suite
	c := owner.register(with(site("openid"), func(c *pb.OauthClient) { c.FirstParty = new(true) }))
	other, eve := owner.register(site("openid")), owner.hire("eve", "US")
	t.Run("RFC 9470 5: what the person cannot reach", func(t *testing.T) {
		b := s.browser()
		if back := b.letIn(owner, c.authorizePath("acr_values", "multi_factor")); back.Get("error") != "unmet_authentication_requirements" {
			t.Errorf("got %v", back)
		}
		if got := b.silently(c, "acr_values", "multi_factor"); got != "unmet_authentication_requirements" {
			t.Errorf("silently: got %s", got)
		}
	})
	t.Run("RFC 9470 5: a form of ours asks for no less", func(t *testing.T) {
		b := s.browser()
		page := b.submit(b.open(other.authorizePath()), "email", eve.email, "password", eve.password)
		page.text = strings.ReplaceAll(page.text, "response_type=code", "response_type=code&amp;acr_values=multi_factor")
		b.submit(page, "decision", "allow")
		if b.away == nil || b.away.Query().Get("error") != "unmet_authentication_requirements" {
			t.Errorf("got %v", b.away)
		}
	})
}

// A client that we did not write pushes what it asks for, and goes on as ever.
func TestRealClientPushes(t *testing.T) {
	owner := owned(t)
	c := owner.register(with(site("openid", "email"), func(c *pb.OauthClient) { c.RequirePushed = true }))
	ctx := oidc.ClientContext(t.Context(), owner.web())
	provider, err := oidc.NewProvider(ctx, issuer)
	mustNot(t, err)
	var metadata struct {
		Pushed string `json:"pushed_authorization_request_endpoint"`
	}
	mustNot(t, provider.Claims(&metadata))
	config := oauth2.Config{
		ClientID: c.GetId(), ClientSecret: c.secret, Endpoint: provider.Endpoint(), RedirectURL: c.GetRedirectUris()[0], Scopes: []string{"openid", "email"},
	}
	pkce := oauth2.GenerateVerifier()
	link, err := url.Parse(config.AuthCodeURL("its state", oauth2.S256ChallengeOption(pkce), oidc.Nonce("its nonce"), oauth2.SetAuthURLParam("acr_values", "single_factor")))
	mustNot(t, err)
	req, err := http.NewRequestWithContext(ctx, "POST", metadata.Pushed, strings.NewReader(link.RawQuery))
	mustNot(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(c.GetId()), url.QueryEscape(c.secret))
	pushed := owner.send(req)
	link.RawQuery = values("client_id", c.GetId(), "request_uri", pushed.str("request_uri")).Encode()
	answer := owner.browser().letIn(owner, strings.TrimPrefix(link.String(), issuer))
	if answer.Get("state") != "its state" || answer.Get("iss") != issuer {
		t.Errorf("it is sent back with %v", answer)
	}
	got, err := config.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(pkce))
	mustNot(t, err)
	idToken, err := provider.Verifier(&oidc.Config{ClientID: c.GetId()}).Verify(ctx, got.Extra("id_token").(string))
	mustNot(t, err)
	if idToken.Subject != owner.user.GetId() || idToken.Nonce != "its nonce" {
		t.Errorf("got %+v", idToken)
	}
}

// Nobody who speaks for a client without a secret fills the disk, nor keeps another client out.
func TestPushedRequestsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it sends hundreds of requests")
	}
	now := time.Now()
	s := newSuite(t, func() time.Time { return now })
	owner := s.claim()
	public := owner.register(with(site("openid"), func(c *pb.OauthClient) { c.Kind = pb.OauthClientKind_OAUTH_CLIENT_KIND_PUBLIC }))
	_, query, _ := strings.Cut(public.authorizePath(), "?")
	f, err := url.ParseQuery(query)
	mustNot(t, err)
	made, last := 0, s.send(s.formRequest("/oauth2/par", f))
	for ; last.status == 201 && made < 1000; made++ {
		last = s.send(s.formRequest("/oauth2/par", f))
	}
	if last.status != 429 || last.header.Get("Retry-After") == "" || made != 300 {
		t.Errorf("after %d requests: got %d %v %s", made, last.status, last.header, last.text)
	}
	if r := owner.register(site("openid")).pushes(s); r.status != 201 {
		t.Errorf("another client: got %d %s", r.status, r.text)
	}
}

// FuzzPushedRequests pushes what no client would, and comes with what none was given. All of it
// is refused as what it is, and nothing gets a code.
func FuzzPushedRequests(f *testing.F) {
	owner := owned(f)
	c := owner.register(site("openid"))
	for _, body := range []string{
		"", "request_uri=x", "response_type=code", "response_type=code&response_type=code", "%", "a=%zz", "scope=%ff", "client_id=another", "client_secret=x",
		"redirect_uri=javascript:alert(1)", "redirect_uri=https://site.example/back%0d%0aX:%20y&response_type=code", "acr_values=multi_factor&max_age=-1", "prompt=none+login",
	} {
		f.Add(body, "urn:ietf:params:oauth:request_uri:lkp_x")
	}
	for _, uri := range []string{"", "urn:ietf:params:oauth:request_uri:", "urn:ietf:params:oauth:request_uri:lks_x", "https://evil.example/jar", "\x00", "lkp_x"} {
		f.Add("response_type=code", uri)
	}
	f.Fuzz(func(t *testing.T, body, uri string) {
		s := *owner.suite // a fuzz target has no use of f
		s.t = t
		req := s.formRequest("/oauth2/par", nil)
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		req.SetBasicAuth(c.GetId(), c.secret)
		if r := s.send(req); r.status != 201 && r.status != 400 && r.status != 401 && r.status != 413 && r.status != 429 {
			t.Errorf("%q: got %d %s", body, r.status, r.text)
		}
		b := s.browser()
		page := b.open("/oauth2/authorize?" + values("client_id", c.GetId(), "request_uri", uri).Encode())
		if page.status != 400 || b.away != nil {
			t.Errorf("%q: got %d %s %v", uri, page.status, page.text, b.away)
		}
	})
}
