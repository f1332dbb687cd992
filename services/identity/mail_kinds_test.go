package identity_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

// tells waits for the one message with a subject to somebody, and looks for what it has to
// say.
func (p *post) tells(who, subject string, parts ...string) {
	p.t.Helper()
	all := p.server.Wait(1, subject)
	if len(all) != 1 || all[0].To != who {
		p.t.Fatalf("%s: got %d messages, the first one to %s; want one to %s", subject, len(all), all[0].To, who)
	}
	for _, part := range parts {
		if !strings.Contains(all[0].Text, part) {
			p.t.Errorf("%s: there is no %q in\n%s", subject, part, all[0].Text)
		}
	}
}

// A person is told of what others do with her account, and of what she did, if it was she.
func TestMailTellsOfAccounts(t *testing.T) {
	p := newPost(t)
	owner := p.caller
	owner.permit(owner, "User: Impersonation")
	owner = owner.signIn("")
	ada, bob := p.hire("ada", "US").withApp(), p.hire("bob", "US")
	p.tells(ada.email, "You have another way to prove who you are", "an authenticator app was set up, on ", "If it was not you, set a new password now")
	owner.actFor(ada)
	p.tells(ada.email, "Somebody acts in your name", "Olga Owner of Harbour Homes has begun to act in your name, on ", "It ends on ",
		"The reason that was given: Ticket 4711\n", "written down with both names")
	_, err := owner.take(ada, pb.Factor_FACTOR_TOTP)
	mustNot(t, err)
	p.tells(ada.email, "Somebody took a way to prove who you are from you",
		"Olga Owner of Harbour Homes has taken an authenticator app from your account, on ", "The reason that was given: the phone is lost\n")
	code := owner.issue(bob)
	p.tells(bob.email, "An administrator can set your password", "An administrator of Harbour Homes got a code for a new password of yours, on ")
	mustNot(t, bob.reset(code, resetTo))
	p.tells(bob.email, "Your password was replaced", "by means of a code, on ", "It came from the address 127.0.0.1, by a program that calls itself \"grpc-go/")
	check(t, "wrong passwords", bob.guess(4), codes.Unauthenticated, "SIGN_IN_FAILED")
	p.after(11 * time.Minute)
	bob.guess(1)
	p.tells(bob.email, "Somebody tries to sign in as you", "Somebody has shown a password for your account that was wrong, 5 times in a row, the last time on ",
		"it takes longer until another one is looked at", "Nobody was let in")
	_, err = owner.passwords().UnlockUser(owner.ctx(), &pb.UnlockUserRequest{UserId: bob.user.GetId()})
	mustNot(t, err)
	p.tells(bob.email, "You can sign in again", "An administrator of Harbour Homes has made them forgotten, on ", signInPage)
	for _, m := range p.server.Taken() {
		if strings.Contains(m.Text, code) || strings.Contains(m.Text, resetTo) {
			t.Errorf("a message has a secret:\n%s", m.Text)
		}
	}
}

// A person is told of outside providers: that somebody invites her, that an account there
// signs her in, and that it does not any more.
func TestMailTellsOfProviders(t *testing.T) {
	p := newPost(t)
	owner := p.caller
	f := newFake(t)
	f.claims["email"], f.claims["email_verified"] = "ada@example.com", true
	owner.outsideAccount = &foreign{fake: f, provider: owner.configureFake(f), subject: "new there"}
	user := owner.addWithoutPassword("ada", "US")
	_, err := owner.links().InviteToOutsideProvider(owner.ctx(), &pb.InviteToOutsideProviderRequest{UserId: user, ProviderId: owner.outsideAccount.provider.GetId()})
	mustNot(t, err)
	name := owner.outsideAccount.provider.GetDisplayName()
	p.tells("ada@example.com", "You are invited to sign in", "Harbour Homes invites you to sign in by "+name+", with the account", "You can do so until ", signInPage)
	owner.signInOutside(&pb.BeginOutsideSignInRequest{})
	p.tells("ada@example.com", "You can sign in in another way", "Your account was linked with one at "+name)
	list, err := owner.links().ListUserOutsideLinks(owner.ctx(), &pb.ListUserOutsideLinksRequest{UserId: user})
	mustNot(t, err)
	_, err = owner.links().DeleteUserOutsideLink(owner.ctx(), &pb.DeleteUserOutsideLinkRequest{UserId: user, Id: list.GetLinks()[0].GetId()})
	mustNot(t, err)
	p.tells("ada@example.com", "A way to sign in has ended", "The link of your account with one at "+name+" was removed")
}

// Nobody is flooded: of each kind a person gets so many within an hour, and the last one
// says so.
func TestMailIsBounded(t *testing.T) {
	const subject = "An administrator can set your password"
	p := newPost(t)
	bob, eve := p.hire("bob", "US"), p.hire("eve", "US")
	for range 7 {
		p.issue(bob)
	}
	p.issue(eve)
	p.until("latchkey_mail_held_back_total", 2)
	all := p.server.Wait(6, subject)
	var last string
	for i, m := range all {
		if said := strings.Contains(m.Text, "More of them are held back"); said != (i == 4) || (m.To == bob.email) != (i < 5) {
			t.Errorf("message %d, to %s, tells that others are held back: %v", i, m.To, said)
		}
		last = m.To
	}
	if len(all) != 6 || last != eve.email {
		t.Errorf("got %d messages, the last one to %s", len(all), last)
	}
	p.after(time.Hour + time.Second)
	fresh := p.signIn("")
	fresh.issue(bob)
	if again := p.server.Wait(7, subject)[6]; again.To != bob.email {
		t.Errorf("got a message to %s", again.To)
	}
}
