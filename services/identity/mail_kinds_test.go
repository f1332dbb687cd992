package identity_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authenticator"
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
	p.tells(ada.email, "You have another way to prove who you are", "Your account has got another proof of who you are, on ", ": an authenticator app.\n", "If it was not you, set a new password now")
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

// invites waits for an invitation that has something to say.
func (p *post) invites(who string, parts ...string) {
	p.t.Helper()
	for n := 1; ; n++ {
		m := p.server.Wait(n, "You are invited to sign in")[n-1]
		if m.To == who && strings.Contains(m.Text, parts[0]) {
			for _, part := range parts {
				if !strings.Contains(m.Text, part) {
					p.t.Errorf("there is no %q in\n%s", part, m.Text)
				}
			}
			return
		}
	}
}

// A person is told that an organization has added her, and of what she does herself.
func TestMailTellsOfOnesOwn(t *testing.T) {
	p := newPost(t)
	ada := p.hire("ada", "US")
	p.invites(ada.email, "Harbour Homes has added you to its members, on ", signInPage, "ask there for a code")
	const changed = "nine owls in a tall tree"
	_, err := ada.profiles().ChangePassword(ada.ctx(), &pb.ChangePasswordRequest{CurrentPassword: ada.password, NewPassword: changed})
	mustNot(t, err)
	ada.password = changed
	p.tells(ada.email, "Your password was changed", "by somebody who was signed in, on ", "It came from the address 127.0.0.1", "ask for a code")
	ada = ada.withApp()
	_, err = ada.factors().DeleteTotp(ada.ctx(), &pb.DeleteTotpRequest{})
	mustNot(t, err)
	p.tells(ada.email, "A way to prove who you are was removed", ": an authenticator app.\n", "If it was not you")
	_, err = pb.NewNotificationServiceClient(p.conn).UpdateNotificationDefaults(p.ctx(), &pb.UpdateNotificationDefaultsRequest{
		NotificationDefaults: &pb.NotificationDefaults{Choices: []*pb.NotificationChoice{{Event: pb.NotificationEvent_NOTIFICATION_EVENT_USER_ADDED}}},
	})
	mustNot(t, err)
	p.add("bob", "")
	p.ask(ada.email)
	p.server.Wait(1, resetSubject)
	for _, m := range p.server.Taken() {
		if m.To == "bob@example.com" {
			t.Errorf("the organization invites by itself, but bob got\n%s", m.Text)
		}
	}
}

// A person is told that somebody has copied her passkey, once.
func TestMailTellsOfClones(t *testing.T) {
	p := newPost(t)
	ada := p.hire("ada", "US").withPasskey(authenticator.New(origin))
	thief := ada.passkeys.Copy()
	ada.signInAlone(ada.challenged())
	for _, reason := range []string{"PASSKEY_CLONED", "PROOF_WRONG"} {
		_, err := p.tryOn(thief, p.beginAlone(&pb.BeginPasskeySignInRequest{}))
		check(t, "the copy", err, codes.Unauthenticated, reason)
	}
	p.ask(ada.email)
	p.server.Wait(1, resetSubject)
	p.tells(ada.email, "Somebody has copied a passkey of yours", "It came from the address 127.0.0.1", "you are signed out everywhere", "remove the passkey")
}

// A sign-in with a device that is not known is told: by another program, but not by a newer
// one, and not with a device that is remembered.
func TestMailTellsOfNewDevices(t *testing.T) {
	const subject = "You have signed in with a new device"
	p := newPost(t)
	ada := p.hire("ada", "US")
	by := func(program string, req *pb.CreateSessionRequest) *pb.CreateSessionResponse {
		t.Helper()
		conn, err := grpc.NewClient(p.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent(program))
		mustNot(t, err)
		defer conn.Close()
		req.Email, req.Password, req.Surface = ada.email, ada.password, pb.Surface_SURFACE_WEB
		resp, err := pb.NewSessionServiceClient(conn).CreateSession(t.Context(), req)
		mustNot(t, err)
		return resp
	}
	remembered := by("Browser/1.0", &pb.CreateSessionRequest{RememberDevice: true})
	p.tells(ada.email, subject, "signed in to Harbour Homes as you", "It came from the address 127.0.0.1, by a program that calls itself \"Browser/")
	by("Browser/1.1", &pb.CreateSessionRequest{})
	by("Another/1.0", &pb.CreateSessionRequest{DeviceToken: remembered.GetDeviceToken()})
	by("Third/1.0", &pb.CreateSessionRequest{})
	by("Third/2.0", &pb.CreateSessionRequest{})
	p.ask(ada.email)
	p.server.Wait(1, resetSubject)
	if all := p.server.Wait(2, subject); len(all) != 2 || !strings.Contains(all[1].Text, "Third/") {
		t.Errorf("got %d messages, the last one\n%s", len(all), all[len(all)-1].Text)
	}
	if found := p.told("NewDeviceUsed"); len(found) != 2 || found[0]["user_id"] != ada.user.GetId() {
		t.Errorf("the journal has %v", found)
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
	p.invites("ada@example.com", "Harbour Homes invites you to sign in by "+name+", with the account", "You can do so until ", signInPage)
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
	sent, last := map[string]int{}, map[string]int{} // several are on their way at once
	for _, m := range all {
		sent[m.To]++
		if strings.Contains(m.Text, "More of them are held back") {
			last[m.To]++
		}
	}
	if sent[bob.email] != 5 || sent[eve.email] != 1 || len(all) != 6 || last[bob.email] != 1 || last[eve.email] != 0 {
		t.Errorf("got messages to %v, of which %v tell that others are held back", sent, last)
	}
	p.after(time.Hour + time.Second)
	fresh := p.signIn("")
	fresh.issue(bob)
	if again := p.server.Wait(7, subject)[6]; again.To != bob.email {
		t.Errorf("got a message to %s", again.To)
	}
}
