package identity_test

import (
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
)

func (c *caller) automate(a *pb.Automation) (*pb.Automation, error) {
	resp, err := pb.NewAutomationServiceClient(c.conn).UpdateAutomation(c.ctx(), &pb.UpdateAutomationRequest{Automation: a})
	return resp.GetAutomation(), err
}

func (c *caller) automations() []*pb.Automation {
	c.t.Helper()
	resp, err := pb.NewAutomationServiceClient(c.conn).GetAutomations(c.ctx(), &pb.GetAutomationsRequest{})
	mustNot(c.t, err)
	return resp.GetAutomations()
}

const (
	unusedUsers = pb.AutomationKind_AUTOMATION_KIND_DEACTIVATE_UNUSED_USERS
	unusedKeys  = pb.AutomationKind_AUTOMATION_KIND_REVOKE_UNUSED_KEYS
)

// What the brand switches on is seen in each of its organizations, and nobody else switches it.
func TestAutomations(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes").hire("uma", "US")
	for _, a := range there.automations() {
		if a.GetEnabled() || a.GetAfterDays() != 90 || a.GetEtag() != "" {
			t.Errorf("at first: got %v, want it to be off", a)
		}
	}
	_, err := owner.hire("admin", "OA").automate(&pb.Automation{Kind: unusedKeys, Enabled: true})
	check(t, "without Branding", err, codes.PermissionDenied, "GRANT_MISSING")
	a, err := owner.automate(&pb.Automation{Kind: unusedKeys, Enabled: true, AfterDays: 60})
	mustNot(t, err)
	same(t, "in another organization", there.automations()[1], a)
	_, err = owner.automate(&pb.Automation{Kind: unusedKeys, Etag: "another", AfterDays: 30})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = owner.automate(&pb.Automation{Enabled: true})
	checkField(t, "no kind", err, "automation.kind")
	_, err = owner.automate(&pb.Automation{Kind: unusedUsers, AfterDays: 29})
	checkField(t, "too soon", err, "automation.after_days")
	_, err = owner.automate(&pb.Automation{Kind: unusedUsers, AfterDays: 181})
	checkField(t, "longer than it is known", err, "automation.after_days")
	_, err = owner.automate(&pb.Automation{Id: there.automations()[0].GetId(), Kind: unusedKeys, AfterDays: 30})
	check(t, "the id of another", err, codes.NotFound, "RECORD_NOT_FOUND")
}

// SECURITY: who and what nobody has seen for so long comes in no more, and nobody else is kept
// out by it.
func TestUnusedIsShutOut(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	organization := owner.session.GetOrganizationId()
	idle, busy, app, fresh := owner.hire("idle", "US"), owner.hire("busy", "US"), owner.add("app", "SA"), owner.add("fresh", "US")
	refreshed := app.signInWith(&pb.CreateSessionRequest{Surface: pb.Surface_SURFACE_APP, WithRefresh: true})
	unused, used := owner.withKey("Organization"), owner.withKey("Organization")
	client := owner.register(site("openid", "offline_access"))
	client.redeem(s, owner.add("distant", "US").browser().letIn(owner.signedAs("distant"), client.authorizePath("scope", "openid offline_access")).Get("code"))

	for _, days := range []int{6, 12, 18} {
		offset.Store(int64(days) * int64(24*time.Hour))
		resp, err := app.sessions().RefreshSession(t.Context(), &pb.RefreshSessionRequest{RefreshToken: refreshed.refresh})
		mustNot(t, err)
		refreshed.refresh = resp.GetRefreshToken()
	}
	offset.Store(int64(20 * 24 * time.Hour))
	busy.signIn(organization)
	if !s.signedIn(used.key) {
		t.Fatal("a key is not accepted")
	}
	owner = owner.signIn(organization)
	_, err := owner.users().UpdateUser(owner.ctx(), &pb.UpdateUserRequest{User: &pb.User{Id: fresh.user.GetId(), DisplayName: "Frieda"}})
	mustNot(t, err)

	offset.Store(int64(45 * 24 * time.Hour))
	mustNot(t, identity.Automate(t.Context()))
	owner = owner.signIn(organization)
	if got := owner.states()[idle.email]; got != pb.UserState_USER_STATE_ACTIVE || !s.signedIn(unused.key) {
		t.Fatalf("what nobody has switched on was done: %v", got)
	}
	offset.Store(int64(76 * 24 * time.Hour)) // 31 days after that use of the key
	for _, kind := range []pb.AutomationKind{unusedUsers, unusedKeys} {
		_, err := owner.signIn(organization).automate(&pb.Automation{Kind: kind, Enabled: true, AfterDays: 60})
		mustNot(t, err)
	}
	mustNot(t, identity.Automate(t.Context()))
	owner = owner.signIn(organization)
	got := owner.states()
	for who, want := range map[*caller]pb.UserState{
		idle: pb.UserState_USER_STATE_DEACTIVATED, busy: pb.UserState_USER_STATE_ACTIVE, app: pb.UserState_USER_STATE_ACTIVE,
		fresh: pb.UserState_USER_STATE_ACTIVE, owner: pb.UserState_USER_STATE_ACTIVE,
	} {
		if got[who.email] != want {
			t.Errorf("%s is %v, want %v", who.email, got[who.email], want)
		}
	}
	if got["distant@example.com"] != pb.UserState_USER_STATE_ACTIVE {
		t.Error("somebody for whom a client goes on was deactivated")
	}
	_, err = idle.trySignIn()
	check(t, "an unused user", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	if !s.signedIn(used.key) || !s.signedIn(unused.key) {
		t.Error("a key that was used lately was revoked")
	}
	thenOthers(t, &offset, owner, idle, busy, used.key)
}

// thenOthers goes on with who is brought back, who stays, and who follows.
func thenOthers(t *testing.T, offset *atomic.Int64, owner, idle, busy *caller, used string) {
	t.Helper()
	// Whoever is brought back stays, and the last owner stays whatever it is.
	_, err := owner.users().ReactivateUser(owner.ctx(), &pb.ReactivateUserRequest{Id: idle.user.GetId()})
	mustNot(t, err)
	mustNot(t, identity.Automate(t.Context()))
	if got := owner.states()[idle.email]; got != pb.UserState_USER_STATE_ACTIVE {
		t.Errorf("somebody who was brought back is %v", got)
	}
	offset.Store(int64(140 * 24 * time.Hour))
	mustNot(t, identity.Automate(t.Context()))
	if owner.signedIn(used) {
		t.Error("a key that nobody used is accepted")
	}
	owner = owner.signIn("")
	if got := owner.states(); got[busy.email] != pb.UserState_USER_STATE_DEACTIVATED || got[idle.email] != pb.UserState_USER_STATE_DEACTIVATED {
		t.Errorf("after longer: got %v", got)
	}
}

// states are the states of the users of the caller's organization, by their addresses.
func (c *caller) states() map[string]pb.UserState {
	c.t.Helper()
	resp, err := c.users().ListUsers(c.ctx(), &pb.ListUsersRequest{})
	mustNot(c.t, err)
	got := map[string]pb.UserState{}
	for _, u := range resp.GetUsers() {
		got[u.GetEmail()] = u.GetState()
	}
	return got
}

// signedAs is a user that was added, by the name.
func (c *caller) signedAs(name string) *caller {
	return &caller{suite: c.suite, email: name + "@example.com", password: "password of " + name + " for now"}
}
