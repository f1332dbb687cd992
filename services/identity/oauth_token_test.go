package identity_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

func TestClientCredentials(t *testing.T) {
	owner := owned(t)
	c := owner.register(machine("Organization", "Organization:Users"))
	r := owner.machineToken(c.GetId(), c.secret, "scope", "Organization:Users")
	if r.status != 200 || r.str("token_type") != "Bearer" || r.body["expires_in"] != 300.0 || r.str("scope") != "Organization:Users" || r.body["refresh_token"] != nil {
		t.Fatalf("got %d %s", r.status, r.text)
	}
	claims, _ := owner.verify(r.str("access_token"), "at+jwt")
	for name, want := range map[string]any{
		"iss": issuer, "aud": issuer, "sub": c.GetId(), "client_id": c.GetId(), "sid": c.GetId(), "scope": "Organization:Users",
		"uid": owner.user.GetId(), "org": owner.user.GetOrganizationId(),
	} {
		if claims[name] != want {
			t.Errorf("%s is %v, want %v", name, claims[name], want)
		}
	}
	if life := claims["exp"].(float64) - claims["iat"].(float64); life != 300 {
		t.Errorf("it lives %v s, want 300", life)
	}
	// It is accepted by gRPC as well, with its scopes and no more.
	program := *owner
	program.token = r.str("access_token")
	if _, err := program.users().ListUsers(program.ctx(), &pb.ListUsersRequest{}); err != nil {
		t.Errorf("within its scopes: %v", err)
	}
	_, err := program.apiKeys().ListApiKeys(program.ctx(), &pb.ListApiKeysRequest{})
	check(t, "beyond its scopes", err, codes.PermissionDenied, "GRANT_MISSING")
	_, err = program.profiles().ChangePassword(program.ctx(), &pb.ChangePasswordRequest{CurrentPassword: owner.password, NewPassword: "one of a program's own"})
	check(t, "change a password", err, codes.PermissionDenied, "IN_PERSON_ONLY")
}

// An API key is exchanged for short tokens, by those who want to verify offline.
func TestApiKeyIsExchanged(t *testing.T) {
	owner := owned(t).withKey("Organization", "Organization: Users")
	r := owner.machineToken(owner.keyID, owner.key)
	if r.status != 200 || r.str("scope") != "Organization Organization:Users" {
		t.Fatalf("got %d %s", r.status, r.text)
	}
	if !owner.signedIn(r.str("access_token")) {
		t.Error("gRPC does not accept it")
	}
	wantRefusal(t, "a token in the place of a key", owner.machineToken(owner.keyID, r.str("access_token")), 401, "invalid_client")
	other := owner.withKey("Organization")
	wantRefusal(t, "another key's token", owner.machineToken(owner.keyID, other.key), 401, "invalid_client")
	_, err := owner.apiKeys().RevokeApiKey(owner.ctx(), &pb.RevokeApiKeyRequest{Id: owner.keyID})
	mustNot(t, err)
	if owner.signedIn(r.str("access_token")) {
		t.Error("the token outlives its key")
	}
}

func TestTokenEndpointRefuses(t *testing.T) {
	owner := owned(t)
	c := owner.register(machine("Organization"))
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	good := values("grant_type", "client_credentials")
	for name, x := range map[string]struct {
		form   url.Values
		header string
		status int
		code   string
	}{
		"no client":           {good, "", 401, "invalid_client"},
		"unknown client":      {good, basic("nobody", c.secret), 401, "invalid_client"},
		"no secret":           {good, basic(c.GetId(), ""), 401, "invalid_client"},
		"wrong secret":        {good, basic(c.GetId(), "lks_"+strings.Repeat("0", 49)), 401, "invalid_client"},
		"not basic":           {good, "Bearer " + c.secret, 401, "invalid_client"},
		"not encoded":         {good, basic("%zz", c.secret), 401, "invalid_client"},
		"two ways":            {values("grant_type", "client_credentials", "client_secret", c.secret), basic(c.GetId(), c.secret), 400, "invalid_request"},
		"no grant":            {values("scope", "Organization"), basic(c.GetId(), c.secret), 400, "invalid_request"},
		"password grant":      {values("grant_type", "password", "username", owner.email, "password", owner.password), basic(c.GetId(), c.secret), 400, "unsupported_grant_type"},
		"scope of others":     {values("grant_type", "client_credentials", "scope", "Invoices"), basic(c.GetId(), c.secret), 400, "invalid_scope"},
		"twice":               {url.Values{"grant_type": {"client_credentials", "client_credentials"}}, basic(c.GetId(), c.secret), 400, "invalid_request"},
		"not UTF-8":           {values("grant_type", "client_credentials", "scope", "\xff"), basic(c.GetId(), c.secret), 400, "invalid_request"},
		"anything but a form": {nil, basic(c.GetId(), c.secret), 400, "invalid_request"},
	} {
		req := owner.formRequest("/oauth2/token", x.form)
		if x.header != "" {
			req.Header.Set("Authorization", x.header)
		}
		if x.form == nil {
			req.Header.Set("Content-Type", "application/json")
		}
		r := owner.send(req)
		wantRefusal(t, name, r, x.status, x.code)
		if r.header.Get("Cache-Control") != "no-store" || (x.status == 401 && x.header != "") != (r.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: got the headers %v", name, r.header)
		}
	}
	if r := owner.fetch("/oauth2/token"); r.status != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %d, want 405", r.status)
	}
}

// introspects asks as a client what a token is worth.
func (c *registered) introspects(s *suite, token string) *reply {
	return s.post("/oauth2/introspect", "client_id", c.GetId(), "client_secret", c.secret, "token", token)
}

func TestIntrospection(t *testing.T) {
	owner := owned(t).withKey("Organization")
	gateway := owner.register(machine("Organization"))
	mine := owner.machineToken(gateway.GetId(), gateway.secret).str("access_token")
	for name, x := range map[string]struct {
		token string
		want  map[string]any
	}{
		"a session": {owner.token, map[string]any{"active": true, "sub": owner.user.GetId(), "sid": owner.session.GetId(), "client_id": nil}},
		"a key":     {owner.key, map[string]any{"active": true, "sub": owner.user.GetId(), "sid": owner.keyID, "client_id": nil}},
		"an access token": {mine, map[string]any{
			"active": true, "sub": gateway.GetId(), "client_id": gateway.GetId(), "scope": "Organization", "iss": issuer, "aud": issuer, "token_type": "Bearer",
		}},
		"nonsense": {"nonsense", map[string]any{"active": false, "sub": nil}},
	} {
		r := gateway.introspects(owner.suite, x.token)
		for member, want := range x.want {
			if r.status != 200 || r.body[member] != want {
				t.Errorf("%s: got %d %s, want %s: %v", name, r.status, r.text, member, want)
			}
		}
		resp, err := owner.clients().IntrospectToken(owner.ctx(), &pb.IntrospectTokenRequest{Token: x.token})
		if err != nil || resp.GetActive() != x.want["active"] {
			t.Errorf("%s: by gRPC got %v, %v", name, resp, err)
		}
	}
	// SECURITY: a client of another organization learns nothing.
	there := owner.found("Hill Homes")
	stranger := there.register(machine("Organization"))
	for name, token := range map[string]string{"a session": owner.token, "an access token": mine} {
		if r := stranger.introspects(owner.suite, token); r.status != 200 || len(r.body) != 1 || r.body["active"] != false {
			t.Errorf("%s of another organization: got %d %s, want inactive", name, r.status, r.text)
		}
		if resp, err := there.clients().IntrospectToken(there.ctx(), &pb.IntrospectTokenRequest{Token: token}); err != nil || resp.GetActive() {
			t.Errorf("%s of another organization, by gRPC: got %v, %v, want inactive", name, resp, err)
		}
	}
	wantRefusal(t, "without a client", owner.post("/oauth2/introspect", "token", mine), 401, "invalid_client")
	wantRefusal(t, "without a token", owner.post("/oauth2/introspect", "client_id", gateway.GetId(), "client_secret", gateway.secret), 400, "invalid_request")
}

func TestRevocation(t *testing.T) {
	owner := owned(t)
	c, other := owner.register(machine("Organization")), owner.register(machine("Organization"))
	mine := owner.machineToken(c.GetId(), c.secret).str("access_token")
	second := owner.machineToken(c.GetId(), c.secret).str("access_token")
	revoke := func(c *registered, token string) *reply {
		return owner.post("/oauth2/revoke", "client_id", c.GetId(), "client_secret", c.secret, "token", token)
	}
	for name, x := range map[string]struct {
		client *registered
		token  string
	}{"another's": {other, mine}, "nonsense": {c, "nonsense"}, "a session's": {c, owner.token}} {
		if r := revoke(x.client, x.token); r.status != 200 || r.text != "" {
			t.Errorf("%s: got %d %s, want 200", name, r.status, r.text)
		}
	}
	if !owner.signedIn(mine) || !owner.signedIn(owner.token) {
		t.Error("a client has ended what is not its own")
	}
	if r := revoke(c, mine); r.status != 200 {
		t.Errorf("got %d %s, want 200", r.status, r.text)
	}
	if owner.signedIn(mine) || !owner.signedIn(second) {
		t.Error("want the one token refused when the call has returned, and the other accepted")
	}
	wantRefusal(t, "without a token", owner.post("/oauth2/revoke", "client_id", c.GetId(), "client_secret", c.secret), 400, "invalid_request")
}

// An access token ends by itself after 5 minutes, and is then removed.
func TestAccessTokenExpires(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	c := owner.register(machine("Organization"))
	token := owner.machineToken(c.GetId(), c.secret).str("access_token")
	if !owner.signedIn(token) {
		t.Fatal("a fresh token is refused")
	}
	offset.Add(int64(5 * time.Minute))
	if owner.signedIn(token) || c.introspects(s, token).body["active"] != false {
		t.Error("it is accepted after 5 minutes")
	}
}
