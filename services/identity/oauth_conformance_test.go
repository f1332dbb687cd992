package identity_test

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// silently sends a person who has consented through a client's request without a page, and
// returns the error that the client is told.
func (b *browser) silently(c *registered, pairs ...string) string {
	b.t.Helper()
	b.open(c.authorizePath(append([]string{"prompt", "none"}, pairs...)...))
	if b.away == nil {
		b.t.Fatalf("%v: the person is not sent back", pairs)
	}
	if got := b.away.Query().Get("state"); got != "a state" {
		b.t.Errorf("%v: the state is %q", pairs, got)
	}
	return b.away.Query().Get("error")
}

// The checks of the Basic and Config profiles of OpenID Connect, each named after the
// section that asks for it.
func TestOpenIDConnectAnswers(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid", "profile", "email"))
	t.Run("Discovery 3: required metadata", func(t *testing.T) {
		doc := owner.fetch("/.well-known/openid-configuration").body
		for name, want := range map[string]string{
			"response_types_supported": "code", "subject_types_supported": "public", "scopes_supported": "openid",
			"id_token_signing_alg_values_supported": "RS256", "grant_types_supported": "authorization_code",
		} {
			list, _ := doc[name].([]any)
			if !slices.Contains(list, any(want)) {
				t.Errorf("%s is %v, want %s in it", name, list, want)
			}
		}
		for _, name := range []string{"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"} {
			if text, _ := doc[name].(string); !strings.HasPrefix(text, issuer) {
				t.Errorf("%s is %v", name, doc[name])
			}
		}
	})
	t.Run("Core 2, 3.1.3.7: ID token", func(t *testing.T) {
		r := c.tokens(owner, "scope", "openid profile email")
		claims, _ := owner.verify(r.str("id_token"), "JWT")
		if claims["iss"] != issuer || claims["aud"] != c.GetId() || claims["sub"] != owner.user.GetId() || claims["nonce"] != "a nonce" ||
			claims["auth_time"] == nil || claims["acr"] != "single_factor" || !reflect.DeepEqual(claims["amr"], []any{"pwd"}) || claims["at_hash"] == nil || claims["exp"].(float64) <= claims["iat"].(float64) {
			t.Errorf("got %v", claims)
		}
	})
	t.Run("Core 5.3: UserInfo", func(t *testing.T) {
		token := c.tokens(owner, "scope", "openid email").str("access_token")
		r := owner.post("/oauth2/userinfo", "access_token", token)
		if r.status != 200 || r.str("sub") != owner.user.GetId() || r.str("email") != owner.email || r.body["name"] != nil {
			t.Errorf("got %d %s", r.status, r.text)
		}
		for _, wrong := range []string{"nonsense", owner.token} {
			if r := owner.post("/oauth2/userinfo", "access_token", wrong); r.status != 401 || !strings.Contains(r.header.Get("WWW-Authenticate"), "invalid_token") {
				t.Errorf("got %d %v", r.status, r.header)
			}
		}
	})
}

// The same profiles, of what a client asks for.
func TestOpenIDConnectRequests(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid", "profile", "email"))
	b := owner.browser()
	b.letIn(owner, c.authorizePath("scope", "openid profile email"))
	t.Run("Core 3.1.2.1: what is not understood is ignored", func(t *testing.T) {
		if got := b.silently(c, "display", "page", "ui_locales", "de", "claims_locales", "de", "acr_values", "1", "extra", "x", "login_hint", owner.email); got != "" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("Core 3.1.2.1: POST", func(t *testing.T) {
		path, query, _ := strings.Cut(c.authorizePath("prompt", "none"), "?")
		req, err := http.NewRequestWithContext(t.Context(), "POST", issuer+path, strings.NewReader(query))
		mustNot(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if b.visit(req); b.away == nil || b.away.Query().Get("code") == "" {
			t.Errorf("got %v, want a code", b.away)
		}
	})
	t.Run("Core 3.1.2.1: prompt login, max_age", func(t *testing.T) {
		for _, pairs := range [][]string{{"prompt", "login"}, {"max_age", "0"}} {
			page := b.open(c.authorizePath(pairs...))
			if !strings.Contains(page.text, "<h1>Sign in</h1>") {
				t.Fatalf("%v: got %d %s, want to be asked", pairs, page.status, page.text)
			}
			if b.submit(page, "email", owner.email, "password", owner.password); b.away == nil || b.away.Query().Get("code") == "" {
				t.Errorf("%v: after signing in got %v, want a code", pairs, b.away)
			}
		}
		if got := b.silently(c, "max_age", "10000"); got != "" {
			t.Errorf("max_age that is not over: got %s", got)
		}
	})
	t.Run("Core 3.1.2.6, RFC 6749 4.1.2.1: errors that the client is told", func(t *testing.T) {
		for want, pairs := range map[string][]string{
			"unsupported_response_type": {"response_type", "token"}, "request_not_supported": {"request", "x"},
			"request_uri_not_supported": {"request_uri", "https://site.example/x"}, "invalid_scope": {"scope", "openid Invoices"},
			"invalid_request": {"code_challenge", ""},
		} {
			if got := b.silently(c, pairs...); got != want {
				t.Errorf("%v: got %q, want %s", pairs, got, want)
			}
		}
		if got := b.silently(c, "code_challenge_method", "plain"); got != "invalid_request" {
			t.Errorf("PKCE without a hash: got %q", got)
		}
	})
	t.Run("RFC 6749 3.1.2.4: errors that the client is not told", func(t *testing.T) {
		for _, pairs := range [][]string{{"redirect_uri", "https://site.example/callback/"}, {"redirect_uri", ""}, {"client_id", "nobody"}, {"client_id", ""}} {
			if page := b.open(c.authorizePath(pairs...)); b.away != nil || page.status != 400 {
				t.Errorf("%v: got %d, sent to %v", pairs, page.status, b.away)
			}
		}
	})
}

// Whatever is sent, no endpoint is broken by it.
func TestNonsenseOverHTTP(t *testing.T) {
	owner := owned(t)
	c := owner.register(site("openid"))
	pieces := []string{"", "\x00", "\xff\xfe", "%", "é", "lko_" + strings.Repeat("0", 49), "eyJ.e.e", "-1", "99999999999999999999", strings.Repeat("x", 5000), "<script>", "../", "a b", c.GetId(), c.secret}
	names := []string{"grant_type", "code", "client_id", "client_secret", "redirect_uri", "refresh_token", "scope", "token", "device_code", "user_code", "continue", "form", "email", "password", "prompt", "max_age", "state", "access_token", "code_verifier", "id_token_hint"}
	for i, path := range []string{"token", "introspect", "revoke", "authorize", "sign-in", "challenge", "consent", "userinfo", "sign-out", "device", "device-authorization", "outside", "outside/callback"} {
		for round := range 12 {
			f := values("client_id", c.GetId(), "client_secret", c.secret, "grant_type", []string{"authorization_code", "refresh_token", "client_credentials"}[round%3])
			for j := range 4 {
				f.Set(names[(i*7+round*5+j*3)%len(names)], pieces[(i*3+round*7+j*5)%len(pieces)])
			}
			for _, r := range []*reply{owner.send(owner.formRequest("/oauth2/"+path, f)), owner.fetch("/oauth2/" + path + "?" + f.Encode())} {
				if r.status >= 500 {
					t.Errorf("%s with %v: got %d %s", path, f, r.status, r.text)
				}
			}
		}
	}
}
