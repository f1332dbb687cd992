package identity_test

import (
	"crypto/sha256"
	"maps"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
)

// ways is how the gate's test goes each path. None of them changes anything, so that
// one that is let in against the rule does not hide another.
var ways = map[string]func(*caller) error{
	"sign in with a password": func(c *caller) error {
		challenge, err := c.trySignIn()
		if challenge != nil {
			err = status.Error(codes.Unauthenticated, "the password does not do alone")
		}
		return err
	},
	"show a password for a challenge": func(c *caller) error {
		_, err := c.strong.trySignIn()
		return err
	},
	"refresh a session": func(c *caller) error {
		_, err := c.sessions().RefreshSession(c.t.Context(), &pb.RefreshSessionRequest{RefreshToken: c.refresh, ValidateOnly: true})
		return err
	},
	"answer a challenge": func(c *caller) error { return c.strong.tryAnswer(c.strong.challenge) },
	"sign in with a passkey": func(c *caller) error {
		answer, err := c.strong.passkeys.Get(c.strong.alone.GetPasskeyOptions())
		mustNot(c.t, err)
		_, err = c.sessions().AnswerChallenge(c.t.Context(), &pb.AnswerChallengeRequest{
			Challenge: c.strong.alone.GetSecret(), Proof: passkey(answer), ValidateOnly: true,
		})
		return err
	},
	"step up a session": func(c *caller) error { return c.strong.tryAnswer(c.strong.stepUp) },
	"change a second factor": func(c *caller) error {
		_, err := c.factors().RenewRecoveryCodes(c.strong.ctx(), &pb.RenewRecoveryCodesRequest{ValidateOnly: true})
		return err
	},
	"confirm a second factor": func(c *caller) error {
		_, err := c.factors().ConfirmTotp(c.strong.ctx(), &pb.ConfirmTotpRequest{
			Setup: c.strong.setup, Code: c.strong.app.now(), ValidateOnly: true,
		})
		return err
	},
	"show a session's token":  func(c *caller) error { return c.resolve(c.token) },
	"show an API key's token": func(c *caller) error { return c.resolve(c.key) },
	"show an actor's token":   func(c *caller) error { return c.resolve(c.acting) },
	"act for another": func(c *caller) error {
		_, err := c.impersonations().ImpersonateUser(c.ctx(), &pb.ImpersonateUserRequest{
			UserId: c.beneath, Reason: "to try", ValidateOnly: true,
		})
		return err
	},
	"hand out a code for a password": func(c *caller) error {
		_, err := c.passwords().IssuePasswordReset(c.ctx(), &pb.IssuePasswordResetRequest{UserId: c.beneath, ValidateOnly: true})
		return err
	},
	"reset a password": func(c *caller) error {
		_, err := c.passwords().ResetPassword(c.t.Context(), &pb.ResetPasswordRequest{
			Email: c.email, Code: c.resetCode, NewPassword: resetTo, ValidateOnly: true,
		})
		return err
	},
	"make an API key": func(c *caller) error {
		_, err := c.apiKeys().CreateApiKey(c.ctx(), &pb.CreateApiKeyRequest{
			Name: "another", Scopes: []string{"Organization"}, ValidateOnly: true,
		})
		return err
	},
	"make an OAuth client": func(c *caller) error {
		_, err := c.clients().CreateOauthClient(c.ctx(), &pb.CreateOauthClientRequest{OauthClient: machine("Organization"), ValidateOnly: true})
		return err
	},
	"prove an OAuth client": func(c *caller) error {
		err := refusedHTTP(c.machine.introspects(c.suite, "nonsense"))
		if pushed := refusedHTTP(c.machine.pushes(c.suite)); (pushed == nil) != (err == nil) {
			return status.Errorf(codes.Internal, "introspection answers %v, and a pushed request %v", err, pushed)
		}
		return err
	},
	"exchange an API key": func(c *caller) error { return refusedHTTP(c.machineToken(c.keyID, c.key)) },
	"issue a token to a client": func(c *caller) error {
		return refusedHTTP(c.machineToken(c.machine.GetId(), c.machine.secret))
	},
	"let a client in": func(c *caller) error {
		b := c.signedInBrowser()
		if page := b.open(c.machine.authorizePath("prompt", "none")); b.away == nil || b.away.Query().Get("code") == "" {
			return status.Errorf(codes.Unauthenticated, "%d %s %v", page.status, page.text, b.away)
		}
		return nil
	},
	"redeem a code": func(c *caller) error {
		code, err := identity.GrantCode(c.t.Context(), c.whom())
		mustNot(c.t, err)
		return refusedHTTP(c.machine.redeem(c.suite, code))
	},
	"renew tokens": func(c *caller) error {
		token, err := identity.GrantRefresh(c.t.Context(), c.personSession)
		mustNot(c.t, err)
		return refusedHTTP(c.machine.refresh(c.suite, token))
	},
	"show a brand's API key": func(c *caller) error {
		return c.resolveIn(c.brandKey, c.user.GetOrganizationId())
	},
	"show a service account's key": func(c *caller) error { return c.resolve(c.account.key) },
	"issue a token to a service account's client": func(c *caller) error {
		return refusedHTTP(c.machineToken(c.account.machine.GetId(), c.account.machine.secret))
	},
	"show the token of a service account's client": func(c *caller) error { return c.resolve(c.account.machineCall) },

	"show a token of a client's person": func(c *caller) error { return c.resolve(c.personCall) },
	"show the token of a client":        func(c *caller) error { return c.resolve(c.machineCall) },
	"sign in by a provider": func(c *caller) error {
		resp, err := c.trySignInOutside(&pb.BeginOutsideSignInRequest{})
		if resp.GetChallenge() != nil {
			err = status.Error(codes.Unauthenticated, "the provider does not do alone")
		}
		return err
	},
	"sign in by a provider on a page":     (*caller).signInOnPage,
	"come back from a provider to a page": (*caller).comeBackToPage,
	answerAfter:                           func(c *caller) error { return c.strong.answerOnPage() },
	"link an account of a provider": func(c *caller) error {
		_, err := c.links().BeginOutsideLink(c.ctx(), &pb.BeginOutsideLinkRequest{ProviderId: c.outsideAccount.provider.GetId(), RedirectUri: appBack})
		return err
	},
	"manage how others sign in": func(c *caller) error {
		_, err := c.links().InviteToOutsideProvider(c.ctx(), &pb.InviteToOutsideProviderRequest{
			UserId: c.invitee, ProviderId: c.outsideAccount.provider.GetId(), ValidateOnly: true,
		})
		return err
	},
	"configure an outside provider": func(c *caller) error {
		_, err := c.providers().CreateOutsideProvider(c.ctx(), &pb.CreateOutsideProviderRequest{OutsideProvider: company(), ValidateOnly: true})
		return err
	},
	"do what is sensitive elsewhere": func(c *caller) error {
		_, err := pb.NewSessionServiceClient(c.Conn("test", "identity")).CheckStepUp(
			inOrganization(c.t.Context(), c.user.GetOrganizationId()),
			&pb.CheckStepUpRequest{UserId: c.user.GetId(), SessionId: c.session.GetId()})
		return err
	},
	"close a brand": func(c *caller) error {
		_, err := c.brands().CloseBrand(c.ctx(), &pb.CloseBrandRequest{Id: c.brand, Name: "Harbour Group", ValidateOnly: true})
		return err
	},
	"take a factor from another": func(c *caller) error {
		_, err := c.userFactors().RemoveUserFactor(c.ctx(), &pb.RemoveUserFactorRequest{
			UserId: c.beneath, Factor: pb.Factor_FACTOR_TOTP, Reason: "lost", ValidateOnly: true,
		})
		return err
	},
	"connect a calendar": func(c *caller) error {
		_, err := c.calendars().ConnectCalendar(c.ctx(), &pb.ConnectCalendarRequest{ValidateOnly: true})
		return err
	},
	"show a calendar's token": func(c *caller) error { return c.resolve(c.calendar) },
	"change the password": func(c *caller) error {
		_, err := c.profiles().ChangePassword(c.ctx(), &pb.ChangePasswordRequest{
			CurrentPassword: c.password, NewPassword: "one that nobody will use", ValidateOnly: true,
		})
		return err
	},
}

// refusedHTTP makes a refusal of an endpoint one of gRPC.
func refusedHTTP(r *reply) error {
	switch r.status {
	case 200, 201:
		return nil
	case 400, 401:
		return status.Errorf(codes.Unauthenticated, "%s", r.text)
	}
	return status.Errorf(codes.Internal, "%d %s", r.status, r.text)
}

// resolve asks as a service of the suite whose token it is.
func (c *caller) resolve(token string) error { return c.resolveIn(token, "") }

// resolveIn is resolve for a call that names an organization.
func (c *caller) resolveIn(token, organization string) error {
	hash := sha256.Sum256([]byte(token))
	_, err := pb.NewSessionServiceClient(c.Conn("test", "identity")).
		ResolveSession(c.t.Context(), &pb.ResolveSessionRequest{TokenHash: hash[:], OrganizationId: organization})
	return err
}

// calls are the ways into a blocked state through the API. The others there are
// through tampering alone.
var calls = map[string]func(owner, c *caller) error{
	"membership ended": func(owner, c *caller) error {
		_, err := owner.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: c.user.GetId()})
		return err
	},
	"user deactivated": func(owner, c *caller) error {
		_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: c.user.GetId()})
		return err
	},
	"organization suspended": func(boss, c *caller) error {
		_, err := boss.organizations().SuspendOrganization(boss.ctx(), &pb.SuspendOrganizationRequest{
			Id: c.user.GetOrganizationId(), Reason: "does not pay",
		})
		return err
	},
	"organization closed": func(boss, c *caller) error {
		_, err := boss.organizations().DeleteOrganization(boss.ctx(), &pb.DeleteOrganizationRequest{Id: c.user.GetOrganizationId()})
		return err
	},
	"key revoked": func(owner, c *caller) error {
		_, err := owner.apiKeys().RevokeApiKey(owner.ctx(), &pb.RevokeApiKeyRequest{Id: c.keyID})
		if err == nil && c.brandKeyID != "" {
			_, err = owner.brandKeys().RevokeBrandApiKey(owner.ctx(), &pb.RevokeBrandApiKeyRequest{Id: c.brandKeyID})
		}
		return err
	},
	"calendar disconnected": func(_, c *caller) error {
		_, err := c.calendars().DisconnectCalendar(c.ctx(), &pb.DisconnectCalendarRequest{})
		return err
	},
	"provider deleted": func(owner, c *caller) error {
		_, err := owner.providers().DeleteOutsideProvider(owner.ctx(), &pb.DeleteOutsideProviderRequest{Id: c.outsideAccount.provider.GetId()})
		return err
	},
	"provider disabled": func(owner, c *caller) error {
		owner.update(c.outsideAccount.provider, func(p *pb.OutsideProvider) { p.Disabled = true }, "disabled")
		return nil
	},
	"address of another domain": func(owner, c *caller) error {
		owner.update(c.outsideAccount.provider, func(p *pb.OutsideProvider) { p.EmailDomains = []string{"elsewhere.example"} }, "email_domains")
		return nil
	},
	"link removed": func(owner, c *caller) error {
		_, err := owner.links().DeleteUserOutsideLink(owner.ctx(), &pb.DeleteUserOutsideLinkRequest{UserId: c.user.GetId(), Id: c.outsideAccount.link.GetId()})
		return err
	},
	"client deleted": func(_, c *caller) error {
		_, err := c.clients().DeleteOauthClient(c.ctx(), &pb.DeleteOauthClientRequest{Id: c.machine.GetId()})
		return err
	},
	"session ended": func(_, c *caller) error {
		_, err := c.sessions().EndSession(c.ctx(), &pb.EndSessionRequest{})
		return err
	},
	"refresh token exchanged": func(_, c *caller) error {
		_, err := c.sessions().RefreshSession(c.t.Context(), &pb.RefreshSessionRequest{RefreshToken: c.refresh})
		return err
	},
	"factor removed": func(_, c *caller) error {
		other := c.strong.signInBy(recovery(c.strong.codes[3]))
		for _, id := range other.passkeyIDs() {
			if _, err := other.factors().DeletePasskey(other.ctx(), &pb.DeletePasskeyRequest{Id: id}); err != nil {
				return err
			}
		}
		_, err := other.factors().DeleteTotp(other.ctx(), &pb.DeleteTotpRequest{})
		return err
	},
	"challenge answered": func(_, c *caller) error {
		for i, challenge := range []string{c.strong.stepUp, c.strong.challenge} {
			_, err := c.sessions().AnswerChallenge(c.t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge, Proof: recovery(c.strong.codes[4+i])})
			if err != nil {
				return err
			}
		}
		c.strong.signInAlone(c.strong.alone)
		c.finish()
		c.strong.finish()
		// Confirming ends the session that asks for the third, or uses up its setup.
		return nil
	},
	"password changed": func(_, c *caller) error {
		other := c.another()
		_, err := other.profiles().ChangePassword(other.ctx(), &pb.ChangePasswordRequest{
			CurrentPassword: c.password, NewPassword: "another password of theirs",
		})
		return err
	},
}

// wholeOrganization are the states that block everybody in an organization.
var wholeOrganization = []string{"organization unknown", "organization suspended", "organization closed", "brand closed"}

// both are the calls that are made for the person with the second factor too.
var both = []string{"membership ended", "user deactivated", "session ended", "password changed",
	"provider deleted", "provider disabled", "address of another domain", "link removed"}

// ofAccounts are the states that a service account comes into too, with its key and client.
var ofAccounts = []string{"membership ended", "user deactivated", "key revoked", "key expired", "client deleted", "client not proven", "access token expired"}

// subject is somebody whom a state blocks.
type subject struct {
	*caller
	how, block string
}

// byItself is what goes on without its maker's session.
var byItself = []string{"prove an OAuth client", "exchange an API key", "issue a token to a client", "show the token of a client"}

// byAccount is what goes on whatever becomes of persons.
var byAccount = []string{"show a service account's key", "issue a token to a service account's client", "show the token of a service account's client"}

// free are the paths that a state does not block. All others it does.
var free = map[string][]string{
	"session ended":   append(byItself, notBySession...),
	"session expired": append(byItself, notBySession...),
	// A client says itself how long it needs its session.
	"session left idle":           append(append(byItself, notBySession...), "renew tokens", "show a token of a client's person"),
	"refresh token unknown":       allBut("refresh a session"),
	"refresh token exchanged":     allBut("refresh a session"),
	"code for a password wrong":   allBut("reset a password"),
	"code for a password expired": allBut("reset a password"),
	// A change of the password ends the other sessions, each as such.
	"password changed":        allBut("sign in with a password", "show a password for a challenge", "answer a challenge", "change the password"),
	"key revoked":             allBut("show an API key's token", "show a brand's API key", "exchange an API key", "show a service account's key"),
	"key expired":             allBut("show an API key's token", "show a brand's API key", "exchange an API key", "show a service account's key"),
	"key not proven":          allBut("exchange an API key"),
	"actor shut out":          allBut("show an actor's token"),
	"challenge answered":      allBut("answer a challenge", "sign in with a passkey", "step up a session", "come back from a provider to a page", answerAfter),
	"factor removed":          allBut("answer a challenge", "sign in with a passkey", "step up a session", answerAfter),
	"second factor not shown": allBut(append(slices.Clone(onPage), "sign in with a password", "sign in by a provider")...),
	"calendar disconnected":   allBut("show a calendar's token"),
	"second factor not shown in the session": allBut("connect a calendar", "change the password", "change a second factor", "confirm a second factor",
		"make an API key", "act for another", "make an OAuth client", "hand out a code for a password", "take a factor from another", "close a brand",
		"configure an outside provider", "manage how others sign in", "link an account of a provider", "do what is sensitive elsewhere"),
	"nothing proven lately": allBut("change a second factor", "confirm a second factor", "make an API key", "act for another", "make an OAuth client",
		"hand out a code for a password", "take a factor from another", "close a brand",
		"configure an outside provider", "manage how others sign in", "link an account of a provider", "do what is sensitive elsewhere"),
	"provider deleted":                 allBut(append(slices.Clone(onPage), "sign in by a provider", answerAfter)...),
	"provider disabled":                allBut(append(slices.Clone(onPage), "sign in by a provider", answerAfter)...),
	"provider of another organization": allBut(append(slices.Clone(onPage), "sign in by a provider", answerAfter)...),
	"link removed":                     allBut(append(slices.Clone(onPage), "sign in by a provider", answerAfter)...),
	"address of another domain":        allBut(append(slices.Clone(onPage), "sign in by a provider", answerAfter)...),
	"proven by a provider alone":       allBut("change a second factor", "confirm a second factor", "link an account of a provider"),

	"client deleted": allBut("prove an OAuth client", "issue a token to a client", "show the token of a client",
		"issue a token to a service account's client", "show the token of a service account's client",
		"let a client in", "redeem a code", "renew tokens", "show a token of a client's person",
		"sign in by a provider on a page", "come back from a provider to a page", answerAfter),
	"client not proven": allBut("prove an OAuth client", "issue a token to a client", "issue a token to a service account's client",
		"redeem a code", "renew tokens"),
	"access token expired": allBut("show the token of a client", "show the token of a service account's client", "show a token of a client's person"),
	// A client belongs to the organization: that its maker has left does not keep it from
	// looking at tokens, but from acting.
	"organization unknown":   {"prove an OAuth client", "reset a password"},
	"organization suspended": {"prove an OAuth client", "reset a password"},
	"organization closed":    {"prove an OAuth client", "reset a password"},
	"brand closed":           {"prove an OAuth client", "reset a password"},
	"person deleted":         append(byAccount, "prove an OAuth client"),
	"service account":        slices.Concat(byItself, byAccount, []string{"show an API key's token", "show a brand's API key", "reset a password"}),
	"membership ended":       {"prove an OAuth client", "reset a password"},
	"user deactivated":       {"prove an OAuth client", "reset a password"},
}

var notBySession = []string{"sign in by a provider on a page", "come back from a provider to a page", answerAfter,
	"sign in with a password", "show a password for a challenge", "answer a challenge",
	"sign in with a passkey", "sign in by a provider", "show an API key's token", "show a brand's API key", "show an actor's token", "show a calendar's token", "reset a password",
	"show a service account's key", "issue a token to a service account's client", "show the token of a service account's client"}

// SECURITY: no path lets in whom a state blocks, neither at once nor after a restart.
// Every path with every state is a cell, but for those that are free.
func TestGate(t *testing.T) {
	owner := owned(t)
	nobody := owner.acted("free")
	var subjects []subject
	for _, cell := range identity.Gate() {
		if ways[cell.Path] == nil && identity.CanTamper(cell.Block) {
			t.Errorf("the test does not go the path %q", cell.Path)
		}
		known := slices.ContainsFunc(subjects, func(s subject) bool { return s.block == cell.Block })
		if known || !identity.CanTamper(cell.Block) {
			continue
		}
		subjects = append(subjects, owner.blocked(cell.Block)...)
	}
	try := func(when string, now *suite) {
		for path, way := range ways {
			if err := way(nobody.in(now)); err != nil {
				t.Errorf("%s, %s, of somebody whom nothing blocks: %v", when, path, err)
			}
		}
		for _, s := range subjects {
			for path := range ways {
				if !slices.Contains(free[s.block], path) {
					s.refused(when, path, now)
				}
			}
		}
	}
	try("at once", owner.suite)
	try("after a restart", owner.again())
}

func (s *subject) refused(when, path string, now *suite) {
	s.t.Helper()
	switch err := ways[path](s.in(now)); status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument:
	case codes.FailedPrecondition:
		check(s.t, path, err, codes.FailedPrecondition, "STEP_UP_NEEDED")
	default:
		s.t.Errorf("%s, %s, %s %s: got %v, want a refusal", when, path, s.block, s.how, err)
	}
}

// allBut returns every path but some.
func allBut(paths ...string) (others []string) {
	for other := range maps.Keys(ways) {
		if !slices.Contains(paths, other) {
			others = append(others, other)
		}
	}
	return others
}
