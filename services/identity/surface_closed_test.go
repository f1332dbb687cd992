package identity_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// closeTo takes every surface from somebody, and returns what gives them back.
func (c *caller) closeTo(u *caller) (open func()) {
	c.t.Helper()
	keys := []string{"Web", "App"}
	for _, key := range keys {
		_, err := c.access().SetOverride(c.ctx(), &permissionspb.SetOverrideRequest{
			UserId: u.user.GetId(), Key: key, Effect: permissionspb.Effect_EFFECT_DENY,
		})
		mustNot(c.t, err)
	}
	return func() {
		for _, key := range keys {
			_, err := c.access().ClearOverride(c.ctx(), &permissionspb.ClearOverrideRequest{UserId: u.user.GetId(), Key: key})
			mustNot(c.t, err)
		}
	}
}

// SECURITY: whoever may use neither the web nor the app has no session of a program either, and
// lets no client in; no client that was let in before goes on.
func TestNoSessionWithoutASurface(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "OA")
	client := owner.register(with(site("openid", "offline_access"), func(c *pb.OauthClient) {
		c.GrantTypes = append(c.GrantTypes, pb.OauthGrantType_OAUTH_GRANT_TYPE_DEVICE_CODE)
	}))
	b := ada.browser()
	redeemed := client.redeem(owner.suite, b.letIn(ada, client.authorizePath()).Get("code"))
	code := b.letIn(ada, client.authorizePath()).Get("code")
	onAPI := ada.signInWith(&pb.CreateSessionRequest{Surface: pb.Surface_SURFACE_API, WithRefresh: true})
	list := func() error {
		_, err := onAPI.users().ListUsers(onAPI.ctx(), &pb.ListUsersRequest{})
		return err
	}
	active := func() any { return client.introspects(owner.suite, onAPI.token).body["active"] }
	device := owner.post("/oauth2/device-authorization", "client_id", client.GetId(), "client_secret", client.secret)
	if err := list(); err != nil || active() != true || device.status != 200 {
		t.Fatalf("before: got %v, %v, %d", err, active(), device.status)
	}

	open := owner.closeTo(ada)
	for what, r := range map[string]*reply{
		"to redeem a code": client.redeem(owner.suite, code), "to renew tokens": client.refresh(owner.suite, redeemed.str("refresh_token")),
	} {
		if r.status != 400 || r.str("error") != "invalid_grant" {
			t.Errorf("%s: got %d %s, want invalid_grant", what, r.status, r.text)
		}
	}
	if got := b.letIn(ada, client.authorizePath("prompt", "none")).Get("error"); got != "access_denied" {
		t.Errorf("to let a client in: got %q, want access_denied", got)
	}
	page := b.submit(b.open("/oauth2/device"), "user_code", device.str("user_code"))
	if page = b.submit(page, "decision", "allow"); page.status == 200 {
		t.Errorf("to let a device in: got %s", page.text)
	}
	check(t, "a session of a program", list(), codes.PermissionDenied, "SURFACE_CLOSED")
	if active() != false {
		t.Error("the session of a program is told to be active")
	}
	_, err := onAPI.sessions().RefreshSession(t.Context(), &pb.RefreshSessionRequest{RefreshToken: onAPI.refresh})
	check(t, "to refresh it", err, codes.PermissionDenied, "SURFACE_CLOSED")

	open()
	mustNot(t, list())
	if r := client.redeem(owner.suite, code); r.status != 200 {
		t.Errorf("a code that was not used up: got %d %s", r.status, r.text)
	}
	if r := client.refresh(owner.suite, redeemed.str("refresh_token")); r.status != 200 {
		t.Errorf("a refresh token that was not used up: got %d %s", r.status, r.text)
	}
}
