package identity_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

func device(scopes ...string) *pb.OauthClient {
	return &pb.OauthClient{
		Owner: pb.OauthClientOwner_OAUTH_CLIENT_OWNER_ORGANIZATION, Name: "a television", Kind: pb.OauthClientKind_OAUTH_CLIENT_KIND_PUBLIC,
		GrantTypes: []pb.OauthGrantType{pb.OauthGrantType_OAUTH_GRANT_TYPE_DEVICE_CODE}, Scopes: scopes,
	}
}

func (c *registered) poll(s *suite, code string) *reply {
	return s.post("/oauth2/token", "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "client_id", c.GetId(), "device_code", code)
}

// RFC 8628: a device waits, a person lets it in, and only then it gets tokens, once.
func TestDevice(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	c := owner.register(device("openid", "Organization"))
	begin := func() *reply {
		t.Helper()
		r := s.post("/oauth2/device-authorization", "client_id", c.GetId(), "scope", "openid")
		if r.status != 200 || r.str("verification_uri") != issuer+"/oauth2/device" || r.body["interval"] != 5.0 {
			t.Fatalf("got %d %s", r.status, r.text)
		}
		return r
	}
	r := begin()
	wantRefusal(t, "at first", c.poll(s, r.str("device_code")), 400, "authorization_pending")
	wantRefusal(t, "too soon", c.poll(s, r.str("device_code")), 400, "slow_down")
	offset.Add(int64(10 * time.Second))
	b := s.browser()
	page := b.submit(b.open("/oauth2/device?user_code="+r.str("user_code")), "email", owner.email, "password", owner.password)
	page = b.submit(page, "user_code", strings.ToLower(r.str("user_code")))
	if !strings.Contains(page.text, "a television will act in your name") || !strings.Contains(page.text, "know who you are") || strings.Contains(page.text, "Control panel") {
		t.Fatalf("got %d %s, want to be asked", page.status, page.text)
	}
	b.submit(page, "user_code", r.str("user_code"), "decision", "allow")
	got := c.poll(s, r.str("device_code"))
	if got.status != 200 || !owner.signedIn(got.str("access_token")) || got.str("refresh_token") == "" {
		t.Fatalf("got %d %s", got.status, got.text)
	}
	wantRefusal(t, "a second time", c.poll(s, r.str("device_code")), 400, "invalid_grant")
	if owner.signedIn(got.str("access_token")) {
		t.Error("the token is accepted after its code was shown twice")
	}

	r = begin()
	page = b.submit(b.open("/oauth2/device"), "user_code", r.str("user_code"))
	b.submit(page, "user_code", r.str("user_code"), "decision", "deny")
	wantRefusal(t, "refused", c.poll(s, r.str("device_code")), 400, "access_denied")
	r = begin()
	offset.Add(int64(10 * time.Minute))
	wantRefusal(t, "too late", c.poll(s, r.str("device_code")), 400, "expired_token")
	// SECURITY: codes cannot be guessed.
	for i := range 11 {
		page = b.submit(b.open("/oauth2/device"), "user_code", "BBBB-BBBB")
		if page.status != 403 {
			t.Fatalf("guess %d: got %d, want 403", i, page.status)
		}
	}
	r = begin()
	if page = b.submit(b.open("/oauth2/device"), "user_code", r.str("user_code")); page.status != 403 {
		t.Errorf("after many wrong ones the right one: got %d, want 403", page.status)
	}
}

// SECURITY: anybody can speak for a client without a secret, and fills no disk by it.
func TestDevicesAreBounded(t *testing.T) {
	owner := owned(t)
	c := owner.register(device("openid"))
	for range 300 {
		if r := owner.post("/oauth2/device-authorization", "client_id", c.GetId()); r.status != 200 {
			t.Fatalf("got %d %s", r.status, r.text)
		}
	}
	wantRefusal(t, "one more", owner.post("/oauth2/device-authorization", "client_id", c.GetId()), 429, "temporarily_unavailable")
}
