package identity_test

import (
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
)

// clock is a clock that a test moves.
type clock struct{ at atomic.Pointer[time.Time] }

func newClock() *clock {
	c := &clock{}
	now := time.Now()
	c.at.Store(&now)
	return c
}

func (c *clock) now() time.Time { return *c.at.Load() }

func (c *clock) pass(d time.Duration) {
	next := c.now().Add(d)
	c.at.Store(&next)
}

// refreshed exchanges the refresh token.
func (c *caller) refreshed(requestID string) (*caller, error) {
	resp, err := c.sessions().RefreshSession(c.t.Context(), &pb.RefreshSessionRequest{RequestId: requestID, RefreshToken: c.refresh})
	next := *c
	next.token, next.refresh = resp.GetToken(), resp.GetRefreshToken()
	return &next, err
}

func TestRefresh(t *testing.T) {
	owner := owned(t)
	first := owner.signInWith(&pb.CreateSessionRequest{WithRefresh: true, DeviceName: "the old laptop"})
	if !first.session.GetRefreshable() || first.session.GetDeviceName() != "the old laptop" {
		t.Errorf("got the session %v", first.session)
	}
	_, err := first.sessions().RefreshSession(t.Context(), &pb.RefreshSessionRequest{RefreshToken: first.refresh, ValidateOnly: true})
	mustNot(t, err)
	lost, err := first.refreshed(servertest.UUID(1))
	mustNot(t, err)
	if !first.signedIn(first.token) || !lost.signedIn(lost.token) {
		t.Error("a token is not accepted")
	}
	second, err := first.refreshed(servertest.UUID(1)) // the answer was lost
	mustNot(t, err)
	if second.token == lost.token || second.refresh == lost.refresh || lost.signedIn(lost.token) {
		t.Error("what was lost is still worth something")
	}
	_, err = lost.refreshed("")
	check(t, "the refresh token that was lost", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
	third, err := second.refreshed("")
	mustNot(t, err)
	_, err = first.refreshed(servertest.UUID(1))
	check(t, "a repeat, after what it got was used", err, codes.Unauthenticated, "REFRESH_REUSED")
	for what, c := range map[string]*caller{"first": first, "second": second, "third": third} {
		if c.signedIn(c.token) {
			t.Errorf("the %s token is still accepted", what)
		}
		_, err := c.refreshed("")
		check(t, what, err, codes.Unauthenticated, "CREDENTIALS_INVALID")
	}
	if !owner.signedIn(owner.token) {
		t.Error("another session has ended too")
	}
	for what, secret := range map[string]string{"nonsense": "x", "a session's token": owner.token} {
		_, err := owner.sessions().RefreshSession(t.Context(), &pb.RefreshSessionRequest{RefreshToken: secret})
		check(t, what, err, codes.Unauthenticated, "CREDENTIALS_INVALID")
	}
}

// SECURITY: a refresh token that was exchanged is noticed after a restart, and each of
// two thieves who are as fast as each other ends the session of both.
func TestRefreshIsExchangedOnce(t *testing.T) {
	owner := owned(t)
	who := owner.signInWith(&pb.CreateSessionRequest{WithRefresh: true})
	next, err := who.refreshed("")
	mustNot(t, err)
	now := owner.again()
	_, err = who.in(now).refreshed("")
	check(t, "after a restart", err, codes.Unauthenticated, "REFRESH_REUSED")
	if now.signedIn(next.token) {
		t.Error("the session goes on")
	}
	who = owner.in(now).signInWith(&pb.CreateSessionRequest{WithRefresh: true})
	outcomes := make(chan error, 4)
	for range cap(outcomes) {
		go func() {
			_, err := who.refreshed("")
			outcomes <- err
		}()
	}
	won := 0
	for range cap(outcomes) {
		if err := <-outcomes; err == nil {
			won++
		}
	}
	if won > 1 || now.signedIn(who.token) {
		t.Errorf("%d of %d at the same time went on, and the session with them", won, cap(outcomes))
	}
}

func TestSessionsRunOut(t *testing.T) {
	c := newClock()
	owner := newSuite(t, c.now).claim()
	web := owner.signInWith(&pb.CreateSessionRequest{WithRefresh: true})
	app := owner.signInWith(&pb.CreateSessionRequest{WithRefresh: true, Surface: pb.Surface_SURFACE_APP})
	c.pass(15 * time.Minute)
	if web.signedIn(web.token) || !owner.signedIn(owner.token) {
		t.Error("a token that can be refreshed lives on, or one that cannot does not")
	}
	web, err := web.refreshed("")
	mustNot(t, err)
	c.pass(time.Hour + 10*time.Minute)
	if owner.signedIn(owner.token) {
		t.Error("a session goes on that nobody used")
	}
	_, err = web.refreshed("")
	check(t, "left idle", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
	c.pass(6 * 24 * time.Hour)
	app, err = app.refreshed("")
	mustNot(t, err)
	c.pass(7*24*time.Hour + 10*time.Minute)
	_, err = app.refreshed("")
	check(t, "an app left idle", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
}

func TestSessionsOfAUser(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	elsewhere := owner.found("Hill Homes")
	list := func(c *caller) []*pb.Session {
		t.Helper()
		resp, err := c.sessions().ListUserSessions(c.ctx(), &pb.ListUserSessionsRequest{UserId: ada.user.GetId()})
		mustNot(t, err)
		return resp.GetSessions()
	}
	second := ada.signIn("")
	got := list(owner)
	if len(got) != 2 || got[0].GetId() != second.session.GetId() || got[0].GetAddress() != "127.0.0.1" || got[0].GetLastSeenTime() == nil {
		t.Errorf("got %v", got)
	}
	_, err := elsewhere.sessions().ListUserSessions(elsewhere.ctx(), &pb.ListUserSessionsRequest{UserId: ada.user.GetId()})
	check(t, "from another organization", err, codes.NotFound, "RECORD_NOT_FOUND")
	clerk := owner.hire("clerk", "OA")
	_, err = clerk.sessions().EndUserSessions(clerk.ctx(), &pb.EndUserSessionsRequest{UserId: owner.user.GetId()})
	check(t, "of somebody who holds more", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	end := func(req *pb.EndUserSessionsRequest) (int32, error) {
		req.UserId = ada.user.GetId()
		resp, err := owner.sessions().EndUserSessions(owner.ctx(), req)
		return resp.GetEnded(), err
	}
	_, err = end(&pb.EndUserSessionsRequest{SessionId: owner.session.GetId()})
	check(t, "somebody else's session", err, codes.NotFound, "RECORD_NOT_FOUND")
	n, err := end(&pb.EndUserSessionsRequest{SessionId: ada.session.GetId()})
	if err != nil || n != 1 || ada.signedIn(ada.token) || !ada.signedIn(second.token) {
		t.Errorf("one session: got %d, %v", n, err)
	}
	third := ada.signIn("")
	n, err = end(&pb.EndUserSessionsRequest{ValidateOnly: true})
	if err != nil || n != 2 || !ada.signedIn(third.token) {
		t.Errorf("only validated: got %d, %v", n, err)
	}
	n, err = end(&pb.EndUserSessionsRequest{})
	if err != nil || n != 2 || ada.signedIn(second.token) || ada.signedIn(third.token) {
		t.Errorf("all: got %d, %v", n, err)
	}
	ada = ada.signIn("")
	last := ada.signIn("")
	resp, err := last.sessions().EndOtherSessions(last.ctx(), &pb.EndOtherSessionsRequest{})
	if err != nil || resp.GetEnded() != 1 || ada.signedIn(ada.token) || !ada.signedIn(last.token) {
		t.Errorf("all others: got %v, %v", resp, err)
	}
}

// SECURITY: whoever guesses a person's password keeps the person out nowhere that is
// known, and learns by being slowed down neither that there is such a person nor, with the
// right password, that it is right.
func TestLockoutIsNoWeapon(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	known := ada.signInWith(&pb.CreateSessionRequest{RememberDevice: true})
	try := func(in *suite, email, password, device string) error {
		_, err := in.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
			Email: email, Password: password, Surface: pb.Surface_SURFACE_WEB, DeviceToken: device,
		})
		return err
	}
	addresses := []string{ada.email, "nobody@example.com"}
	for _, email := range addresses {
		for range 5 {
			check(t, "a wrong password of "+email, try(owner.suite, email, "wrong", ""), codes.Unauthenticated, "SIGN_IN_FAILED")
		}
	}
	mustNot(t, identity.Postpone(t.Context(), "password/"))
	for range 2 {
		for _, email := range addresses {
			before := identity.Hashes()
			check(t, "the right one of "+email, try(owner.suite, email, ada.password, ""), codes.ResourceExhausted, "LIMIT_REACHED")
			check(t, "with somebody's device", try(owner.suite, email, ada.password, known.token), codes.ResourceExhausted, "LIMIT_REACHED")
			if n := identity.Hashes() - before; n != 0 {
				t.Errorf("%d hashes for %s while it is locked", n, email)
			}
		}
		owner = owner.in(owner.again())
	}
	for range 5 {
		check(t, "a wrong one on the known device", try(owner.suite, ada.email, "wrong", known.device), codes.Unauthenticated, "SIGN_IN_FAILED")
	}
	check(t, "after that it is unknown", try(owner.suite, ada.email, ada.password, known.device), codes.ResourceExhausted, "LIMIT_REACHED")
	check(t, "and does not help others", try(owner.suite, "owner@example.com", "wrong", known.device), codes.Unauthenticated, "SIGN_IN_FAILED")
}

func TestKnownDeviceLetsIn(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	var devices []string
	for range 6 {
		devices = append(devices, ada.signInWith(&pb.CreateSessionRequest{RememberDevice: true}).device)
	}
	for range 5 {
		_, err := ada.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{Email: ada.email, Password: "wrong", Surface: pb.Surface_SURFACE_WEB})
		check(t, "a wrong password", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	}
	mustNot(t, identity.Postpone(t.Context(), "password/"))
	try := func(device string) error {
		_, err := ada.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
			Email: ada.email, Password: ada.password, Surface: pb.Surface_SURFACE_WEB, DeviceToken: device,
		})
		return err
	}
	check(t, "the oldest of six devices", try(devices[0]), codes.ResourceExhausted, "LIMIT_REACHED")
	mustNot(t, try(devices[5]))
	// The right password clears what others have done to the account, not to their place.
	check(t, "from the place of the guesses", try(""), codes.ResourceExhausted, "LIMIT_REACHED")
}
