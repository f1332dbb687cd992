package identity_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
)

// SECURITY: an account signs in whoever is linked with it, whatever address it has, and nobody
// else.
func TestLinksGoByTheSubject(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	p := owner.configureFake(f)
	ada, bob := owner.hire("ada", "US").linked(f, p, "ada there"), owner.hire("bob", "US")
	f.change(func(f *fake) { f.claims["email"], f.claims["email_verified"] = bob.email, true })
	if by := ada.signInOutside(&pb.BeginOutsideSignInRequest{}); by.session.GetUserId() != ada.user.GetId() {
		t.Errorf("with the address of bob: got %v, want ada", by.session)
	}
	bob.outsideAccount = &foreign{fake: f, provider: p, subject: "bob there"}
	_, err := bob.trySignInOutside(&pb.BeginOutsideSignInRequest{})
	check(t, "an address without a link", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	bob.outsideAccount.subject = "ada there"
	_, err = bob.tryLink(bob.outsideAccount)
	check(t, "the account of another", err, codes.AlreadyExists, "RECORD_EXISTS")
	mine, err := ada.links().ListMyOutsideLinks(ada.ctx(), &pb.ListMyOutsideLinksRequest{})
	if err != nil || len(mine.GetLinks()) != 1 || mine.GetLinks()[0].GetSubject() != "ada there" || mine.GetLinks()[0].GetIssuer() != f.URL {
		t.Errorf("got %v, %v", mine, err)
	}
	_, err = bob.links().DeleteMyOutsideLink(bob.ctx(), &pb.DeleteMyOutsideLinkRequest{Id: ada.outsideAccount.link.GetId()})
	check(t, "remove the link of another", err, codes.NotFound, "RECORD_NOT_FOUND")
	by := ada.signInOutside(&pb.BeginOutsideSignInRequest{})
	_, err = ada.links().DeleteMyOutsideLink(ada.ctx(), &pb.DeleteMyOutsideLinkRequest{Id: ada.outsideAccount.link.GetId()})
	mustNot(t, err)
	if ada.signedIn(by.token) {
		t.Error("a session by the link outlives it")
	}
	_, err = ada.trySignInOutside(&pb.BeginOutsideSignInRequest{})
	check(t, "without the link", err, codes.Unauthenticated, "SIGN_IN_FAILED")
}

// SECURITY: a link is begun and completed in one session, and there only.
func TestLinkIsOfTheSession(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	p := owner.configureFake(f)
	ada, bob := owner.hire("ada", "US"), owner.hire("bob", "US")
	begun, err := ada.links().BeginOutsideLink(ada.ctx(), &pb.BeginOutsideLinkRequest{ProviderId: p.GetId(), RedirectUri: appBack})
	mustNot(t, err)
	req := &pb.CompleteOutsideLinkRequest{Challenge: begun.GetChallenge(), Answer: f.answer("mallory there", begun.GetAuthorizationUrl())}
	_, err = bob.links().CompleteOutsideLink(bob.ctx(), req)
	check(t, "by another", err, codes.Unauthenticated, "CHALLENGE_OVER")
	other := ada.signIn("")
	_, err = other.links().CompleteOutsideLink(other.ctx(), req)
	check(t, "in another session", err, codes.Unauthenticated, "CHALLENGE_OVER")
	_, err = ada.outside().CompleteOutsideSignIn(t.Context(), &pb.CompleteOutsideSignInRequest{Challenge: req.GetChallenge(), Answer: req.GetAnswer()})
	check(t, "to sign in", err, codes.Unauthenticated, "CHALLENGE_OVER")
	_, err = ada.links().CompleteOutsideLink(ada.ctx(), req)
	mustNot(t, err)
	ada.outsideAccount = &foreign{fake: f, provider: p, subject: "ada there"}
	signIn, err := ada.beginOutside(&pb.BeginOutsideSignInRequest{})
	mustNot(t, err)
	_, err = ada.links().CompleteOutsideLink(ada.ctx(), &pb.CompleteOutsideLinkRequest{
		Challenge: signIn.GetChallenge(), Answer: f.answer("ada there", signIn.GetAuthorizationUrl()),
	})
	check(t, "what was to sign in", err, codes.Unauthenticated, "CHALLENGE_OVER")
	stranger := owner.found("another")
	_, err = stranger.links().BeginOutsideLink(stranger.ctx(), &pb.BeginOutsideLinkRequest{ProviderId: p.GetId(), RedirectUri: appBack})
	check(t, "a provider of another organization", err, codes.NotFound, "RECORD_NOT_FOUND")
}

// SECURITY: an invitation lets in the verified address of the invited, once, by the provider
// that is for its domain, and only who can prove himself by nothing else.
func TestInvitation(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	p := owner.configureFake(f)
	owner.outsideAccount = &foreign{fake: f, provider: p, subject: "new there"}
	user := owner.addWithoutPassword("ada", "US")
	says := func(email string, verified any) {
		f.change(func(f *fake) { f.claims["email"], f.claims["email_verified"] = email, verified })
	}
	refused := func(what string) {
		t.Helper()
		_, err := owner.trySignInOutside(&pb.BeginOutsideSignInRequest{})
		check(t, what, err, codes.Unauthenticated, "SIGN_IN_FAILED")
	}
	says("ada@example.com", true)
	refused("without an invitation")
	invite := func(user string) error {
		_, err := owner.links().InviteToOutsideProvider(owner.ctx(), &pb.InviteToOutsideProviderRequest{UserId: user, ProviderId: p.GetId()})
		return err
	}
	mustNot(t, invite(user))
	for what, x := range map[string]struct {
		email    string
		verified any
	}{
		"of another": {"bob@example.com", true}, "not verified": {"ada@example.com", false}, "verified in a text": {"ada@example.com", "true"},
		"not said whether": {"ada@example.com", nil}, "none": {"", true}, "of another domain": {"ada@elsewhere.example", true},
	} {
		says(x.email, x.verified)
		refused("an address " + what)
	}
	says("Ada@Example.com", true)
	by := owner.signInOutside(&pb.BeginOutsideSignInRequest{})
	if by.session.GetUserId() != user {
		t.Errorf("got %v, want the invited", by.session)
	}
	owner.outsideAccount.subject = "a second one there"
	refused("a second account of the address")
	list, err := owner.links().ListUserOutsideLinks(owner.ctx(), &pb.ListUserOutsideLinksRequest{UserId: user})
	if err != nil || len(list.GetLinks()) != 1 || !list.GetLinks()[0].GetInvited() || list.GetLinks()[0].GetEmail() != "ada@example.com" {
		t.Fatalf("got %v, %v", list, err)
	}
	_, err = by.links().DeleteMyOutsideLink(by.ctx(), &pb.DeleteMyOutsideLinkRequest{Id: list.GetLinks()[0].GetId()})
	check(t, "remove the last way in", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = by.sessions().BeginStepUp(by.ctx(), &pb.BeginStepUpRequest{})
	check(t, "step up without a factor of one's own", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	check(t, "invite who is linked", invite(user), codes.FailedPrecondition, "PRECONDITION_FAILED")
	check(t, "invite who has a password", invite(owner.hire("bob", "US").user.GetId()), codes.FailedPrecondition, "PRECONDITION_FAILED")
	check(t, "invite nobody", invite(servertest.UUID(9)), codes.NotFound, "RECORD_NOT_FOUND")
	owner.update(p, func(p *pb.OutsideProvider) { p.EmailDomains = []string{"elsewhere.example"} }, "email_domains")
	check(t, "invite to a provider of another domain", invite(owner.addWithoutPassword("carl", "US")), codes.FailedPrecondition, "PRECONDITION_FAILED")
}

// SECURITY: what has happened since an invitation counts.
func TestInvitationEnds(t *testing.T) {
	for what, change := range map[string]func(owner *caller, user string){
		"a password since": func(owner *caller, user string) {
			resp, err := owner.passwords().IssuePasswordReset(owner.ctx(), &pb.IssuePasswordResetRequest{UserId: user})
			mustNot(owner.t, err)
			_, err = owner.passwords().ResetPassword(owner.t.Context(), &pb.ResetPasswordRequest{Email: "ada@example.com", Code: resp.GetCode(), NewPassword: resetTo})
			mustNot(owner.t, err)
		},
		"the domain is gone since": func(owner *caller, _ string) {
			owner.update(owner.outsideAccount.provider, func(p *pb.OutsideProvider) { p.EmailDomains = []string{"elsewhere.example"} }, "email_domains")
		},
		"too long ago": func(owner *caller, user string) {
			mustNot(owner.t, identity.ExpireInvitation(owner.t.Context(), owner.outsideAccount.provider.GetId(), user))
		},
	} {
		owner := owned(t)
		f := newFake(t)
		f.claims["email"], f.claims["email_verified"] = "ada@example.com", true
		owner.outsideAccount = &foreign{fake: f, provider: owner.configureFake(f), subject: "new there"}
		user := owner.addWithoutPassword("ada", "US")
		_, err := owner.links().InviteToOutsideProvider(owner.ctx(), &pb.InviteToOutsideProviderRequest{UserId: user, ProviderId: owner.outsideAccount.provider.GetId()})
		mustNot(t, err)
		change(owner, user)
		_, err = owner.trySignInOutside(&pb.BeginOutsideSignInRequest{})
		check(t, what, err, codes.Unauthenticated, "SIGN_IN_FAILED")
	}
}

// The address may come from userinfo, of the same subject alone.
func TestInvitationByUserInfo(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	owner.outsideAccount = &foreign{fake: f, provider: owner.configureFake(f), subject: "new there"}
	user := owner.addWithoutPassword("ada", "US")
	_, err := owner.links().InviteToOutsideProvider(owner.ctx(), &pb.InviteToOutsideProviderRequest{UserId: user, ProviderId: owner.outsideAccount.provider.GetId()})
	mustNot(t, err)
	f.change(func(f *fake) {
		f.info = map[string]any{"sub": "another", "email": "ada@example.com", "email_verified": true}
	})
	_, err = owner.trySignInOutside(&pb.BeginOutsideSignInRequest{})
	check(t, "of another subject", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	f.change(func(f *fake) { f.info["sub"] = "new there" })
	owner.signInOutside(&pb.BeginOutsideSignInRequest{})
}

// SECURITY: whoever runs the provider of one organization gets into no other: it signs in there
// alone, and sets up nothing that would.
func TestProviderOfOneOrganization(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	ada := owner.hire("ada", "US").linked(f, owner.configureFake(f), "ada there")
	other := owner.found("another")
	_, err := other.users().CreateUser(other.ctx(), &pb.CreateUserRequest{Email: ada.email, DisplayName: "Ada"})
	mustNot(t, err)
	other.giveRole(ada.user.GetId(), "US")
	_, err = ada.trySignInOutside(&pb.BeginOutsideSignInRequest{OrganizationId: other.session.GetOrganizationId()})
	check(t, "to the other organization", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	by := ada.signInOutside(&pb.BeginOutsideSignInRequest{})
	if by.session.GetOrganizationId() != owner.session.GetOrganizationId() {
		t.Errorf("got %v", by.session)
	}
	_, err = by.factors().BeginTotp(by.ctx(), &pb.BeginTotpRequest{})
	check(t, "set up a factor for both", err, codes.FailedPrecondition, "STEP_UP_NEEDED")
	_, err = by.links().DeleteMyOutsideLink(by.ctx(), &pb.DeleteMyOutsideLinkRequest{Id: ada.outsideAccount.link.GetId()})
	check(t, "change links", err, codes.FailedPrecondition, "STEP_UP_NEEDED")
	resp, err := by.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{
		Challenge: by.beginStepUp().GetSecret(), Proof: &pb.Proof{Proof: &pb.Proof_Password{Password: by.password}},
	})
	mustNot(t, err)
	if resp.GetSession().GetStrength() != pb.Strength_STRENGTH_SINGLE_FACTOR {
		t.Errorf("provider and password: got %v, want one factor", resp.GetSession())
	}
	by.token = resp.GetToken()
	_, err = by.factors().BeginTotp(by.ctx(), &pb.BeginTotpRequest{})
	mustNot(t, err)
}

// A provider of the brand signs in to each organization of it, and asks to which.
func TestProviderOfTheBrand(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	p := owner.configureFake(f, func(p *pb.OutsideProvider) { p.Owner, p.EmailDomains = ofBrand, nil })
	boss := owner.linked(f, p, "boss there")
	other := owner.found("another")
	_, err := boss.trySignInOutside(&pb.BeginOutsideSignInRequest{})
	checkField(t, "to any", err, "organization_id")
	for _, organization := range []string{owner.session.GetOrganizationId(), other.session.GetOrganizationId()} {
		if by := boss.signInOutside(&pb.BeginOutsideSignInRequest{OrganizationId: organization}); by.session.GetOrganizationId() != organization {
			t.Errorf("got %v, want %s", by.session, organization)
		}
	}
	bob := owner.hire("bob", "US").linked(f, p, "bob there")
	_, err = other.users().CreateUser(other.ctx(), &pb.CreateUserRequest{Email: bob.email, DisplayName: "Bob"})
	mustNot(t, err)
	_, err = owner.links().DeleteUserOutsideLink(owner.ctx(), &pb.DeleteUserOutsideLinkRequest{UserId: bob.user.GetId(), Id: bob.outsideAccount.link.GetId()})
	check(t, "remove a link that is for others too", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
}

// When a provider is disabled or deleted, its sessions have ended.
func TestSessionsEndWithTheProvider(t *testing.T) {
	owner := owned(t)
	for name, end := range map[string]func(p *pb.OutsideProvider){
		"disabled": func(p *pb.OutsideProvider) {
			owner.update(p, func(p *pb.OutsideProvider) { p.Disabled = true }, "disabled")
		},
		"deleted": func(p *pb.OutsideProvider) {
			_, err := owner.providers().DeleteOutsideProvider(owner.ctx(), &pb.DeleteOutsideProviderRequest{Id: p.GetId()})
			mustNot(t, err)
		},
	} {
		f := newFake(t)
		ada := owner.hire("ada-"+name, "US").linked(f, owner.configureFake(f), "ada there")
		by := ada.signInOutside(&pb.BeginOutsideSignInRequest{})
		if !ada.signedIn(by.token) {
			t.Fatalf("%s: not signed in", name)
		}
		end(ada.outsideAccount.provider)
		if ada.signedIn(by.token) || !ada.signedIn(ada.token) {
			t.Errorf("%s: the session by it goes on, or another has ended", name)
		}
	}
}

// What happens to links, and what fails at a provider, its organization can read.
func TestJournalOfProviders(t *testing.T) {
	owner := owned(t)
	f := newFake(t)
	p := owner.configureFake(f)
	ada := owner.hire("ada", "US").linked(f, p, "ada there")
	f.change(func(f *fake) { f.claims["nonce"] = "another" })
	_, err := ada.trySignInOutside(&pb.BeginOutsideSignInRequest{})
	check(t, "another nonce", err, codes.Unauthenticated, "PROOF_WRONG")
	link := ada.outsideAccount.link.GetId()
	_, err = owner.links().DeleteUserOutsideLink(owner.ctx(), &pb.DeleteUserOutsideLinkRequest{UserId: ada.user.GetId(), Id: link})
	mustNot(t, err)
	for _, event := range []string{"OutsideLinked", "OutsideUnlinked"} {
		found := owner.told(event)
		if len(found) != 1 || found[0]["user_id"] != ada.user.GetId() || found[0]["provider_id"] != p.GetId() || found[0]["link_id"] != link {
			t.Errorf("%s: got %v", event, found)
		}
	}
	failed := owner.told("SignInFailed")
	if len(failed) != 1 || failed[0]["factor"] != "FACTOR_PROVIDER" || failed[0]["in_a_row"] != 1.0 || failed[0]["locked"] != nil {
		t.Errorf("got %v", failed)
	}
}
