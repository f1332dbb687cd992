package identity_test

import (
	"slices"
	"strings"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/authenticator"
)

// blocked makes a subject for each way into a state.
func (c *caller) blocked(block string) []subject {
	c.t.Helper()
	home := c
	if slices.Contains(wholeOrganization, block) {
		home = c.found("to be gone") // or the test would have no owner any more
	}
	name := strings.ReplaceAll(block, " ", "-")
	s := subject{home.acted(name), "by tampering", block}
	s.known()
	for _, who := range []*caller{s.caller, s.strong} {
		if who.machine == nil {
			who.machine = &registered{OauthClient: &pb.OauthClient{RedirectUris: []string{""}}} // which nothing happens to
		}
		mustNot(c.t, identity.Tamper(c.t.Context(), block, who.whomOf(home)))
	}
	if slices.Contains(ofAccounts, block) {
		mustNot(c.t, identity.Tamper(c.t.Context(), block, s.account.whom()))
	}
	subjects := []subject{s}
	if call := calls[block]; call != nil {
		boss := c
		if home != c {
			home = c.found("to be gone by a call")
		}
		s := subject{home.acted("called-" + name), "by a call", block}
		s.known()
		mustNot(c.t, call(boss, s.caller))
		if slices.Contains(both, block) {
			mustNot(c.t, call(home, s.strong))
		}
		if slices.Contains(ofAccounts, block) {
			mustNot(c.t, call(boss, s.account))
		}
		subjects = append(subjects, s)
	}
	return subjects
}

// whom is what belongs to the caller.
func (c *caller) whom() identity.Whom {
	return identity.Whom{
		Organization: c.user.GetOrganizationId(), User: c.user.GetId(), Session: c.session.GetId(), Key: c.keyID, BrandKey: c.brandKeyID,
		Client: c.machine.GetId(), Redirect: c.machine.GetRedirectUris()[0], Challenge: challenge(), ClientSession: c.personSession,
		Provider: c.outsideAccount.id(), Link: c.outsideAccount.linkID(),
		Challenges: append(c.begun.challenges(), c.challenge, c.stepUp, c.setup, c.alone.GetSecret()),
	}
}

// whomOf is whom, with who acts in the caller's name.
func (c *caller) whomOf(actor *caller) identity.Whom {
	w := c.whom()
	w.Actor, w.ActorSession = actor.user.GetId(), c.actorSession
	return w
}

// known lets the process know the caller's session, so that it would go by what it
// knows.
func (c *caller) known() {
	c.t.Helper()
	if !c.signedIn(c.token) {
		c.t.Fatal("a fresh session is not accepted")
	}
	if !c.signedIn(c.key) {
		c.t.Fatal("a fresh API key is not accepted")
	}
	if !c.signedInTo(c.brandKey, c.user.GetOrganizationId()) {
		c.t.Fatal("a fresh key of the brand is not accepted")
	}
	if !c.signedIn(c.acting) {
		c.t.Fatal("the fresh token of an actor is not accepted")
	}
	if !c.signedIn(c.personCall) {
		c.t.Fatal("the fresh token of a client's person is not accepted")
	}
	mustNot(c.t, c.resolve(c.calendar))
	if !c.signedIn(c.machineCall) {
		c.t.Fatal("the fresh token of a client is not accepted")
	}
	if !c.signedIn(c.account.key) || !c.signedIn(c.account.machineCall) {
		c.t.Fatal("the fresh key of a service account, or the token of its client, is not accepted")
	}
}

// in is the same person in a process that was started again.
func (c *caller) in(s *suite) *caller {
	next := *c
	next.suite = s
	if c.strong != nil {
		next.strong = c.strong.in(s)
	}
	if c.account != nil {
		next.account = c.account.in(s)
	}
	return &next
}

// acted makes somebody who has every credential there is: a session, an API key, and a
// session that somebody else opened in that name. It needs another actor for each.
func (c *caller) acted(name string) *caller { return c.actedOn(name, pb.Surface_SURFACE_WEB) }

// actedOn is acted, signed in on a surface.
func (c *caller) actedOn(name string, surface pb.Surface) *caller {
	c.t.Helper()
	u := c.add(name, "OA")
	u.surface = surface
	u = u.signInWith(&pb.CreateSessionRequest{OrganizationId: c.session.GetOrganizationId(), WithRefresh: true})
	u = c.withForeign(u, name)
	c.permit(u, "User: Impersonation")
	c.permit(u, "Branding")
	brand, err := c.brands().GetBrand(c.ctx(), &pb.GetBrandRequest{})
	mustNot(c.t, err)
	u.brand = brand.GetBrand().GetId()
	c.permit(u, "Branding:ApiKeys")
	u = u.withKey("Organization").withBrandKey("Organization")
	u.machine = u.register(with(site("openid", "Organization"), func(c *pb.OauthClient) {
		c.GrantTypes = append(c.GrantTypes, pb.OauthGrantType_OAUTH_GRANT_TYPE_CLIENT_CREDENTIALS)
	}))
	code := u.signedInBrowser().letIn(u, u.machine.authorizePath()).Get("code")
	u.personCall = u.machine.redeem(u.suite, code).str("access_token")
	claims, _ := u.verify(u.personCall, "at+jwt")
	u.personSession = claims["sid"].(string)
	u.machineCall = u.machineToken(u.machine.GetId(), u.machine.secret).str("access_token")
	u.account = u.withAccount("OA", "Organization")
	u.calendar = u.connect().GetFeedToken()
	u.beneath = c.add("beneath-"+name, "US").user.GetId()
	mustNot(c.t, identity.GiveApp(c.t.Context(), u.beneath))
	u.invitee = c.addWithoutPassword("invited-"+name, "")
	actor := c.signIn(c.session.GetOrganizationId())
	resp := actor.actFor(u)
	u.acting, u.actorSession = resp.GetToken(), actor.session.GetId()
	// So that the next one can be acted for; the session goes on.
	mustNot(c.t, identity.Forget(c.t.Context(), resp.GetImpersonation().GetId()))
	u.resetCode, err = identity.GrantReset(c.t.Context(), u.user.GetId())
	mustNot(c.t, err)
	strong := c.add("strong-"+name, "OA")
	strong.surface = surface
	strong = strong.signIn(c.session.GetOrganizationId()).withApp().withPasskey(authenticator.New(origin))
	strong = c.withForeign(strong, "strong-"+name).withAsking(u.machine)
	u.strong = strong.withKey("Organization").withChallenges()
	u = u.withJourneys(u.machine)
	return u
}

// addWithoutPassword makes a user who cannot sign in yet.
func (c *caller) addWithoutPassword(name, role string) string {
	c.t.Helper()
	resp, err := c.users().CreateUser(c.ctx(), &pb.CreateUserRequest{Email: name + "@example.com", DisplayName: name})
	mustNot(c.t, err)
	if role != "" {
		c.giveRole(resp.GetUser().GetId(), role)
	}
	return resp.GetUser().GetId()
}
