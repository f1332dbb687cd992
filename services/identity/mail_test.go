package identity_test

import (
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/mail/mailtest"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/permissions"
)

const (
	signInPage   = "https://app.example.com/sign-in"
	resetSubject = "A code for a new password"
)

// post is a suite that writes to people by a server of the test.
type post struct {
	*caller // the owner
	server  *mailtest.Server
	metrics string
	clock   *atomic.Int64 // how far it is ahead
}

func withMail(t testing.TB, c server.Config, at *mailtest.Server) server.Config {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	mustNot(t, err)
	defer l.Close()
	c.SMTP, c.SMTPSender, c.SignInPage = at.URL(), "Harbour Group <no-reply@example.com>", signInPage
	c.MetricsListen = l.Addr().String()
	return c
}

func newPost(t testing.TB) *post {
	t.Helper()
	p := &post{server: mailtest.Start(t, mailtest.Options{}), clock: &atomic.Int64{}}
	c := withMail(t, config(t), p.server)
	s := start(t, c, func() time.Time { return time.Now().Add(time.Duration(p.clock.Load())) }, identity.Cheap, permissions.Part)
	s.ready()
	p.caller, p.metrics = s.claim(), "http://"+c.MetricsListen+"/metrics"
	return p
}

// after lets time go by.
func (p *post) after(d time.Duration) { p.clock.Add(int64(d)) }

// ask asks for a code for a password.
func (p *post) ask(email string) {
	p.t.Helper()
	_, err := p.passwords().RequestPasswordReset(p.t.Context(), &pb.RequestPasswordResetRequest{Email: email})
	mustNot(p.t, err)
}

// until waits until a metric, of all kinds together or of one, is at least as high.
func (p *post) until(metric string, least float64) {
	p.t.Helper()
	p.await(metric, func(got float64) bool { return got >= least })
}

// empty waits until nothing is to be sent.
func (p *post) empty() {
	p.t.Helper()
	p.await("latchkey_mail_waiting", func(got float64) bool { return got == 0 })
}

func (p *post) await(metric string, holds func(float64) bool) {
	p.t.Helper()
	var got float64
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(p.metrics)
		mustNot(p.t, err)
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		mustNot(p.t, err)
		got = 0
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && (name == metric || strings.HasPrefix(name, metric+"{")) {
				n, err := strconv.ParseFloat(value, 64)
				mustNot(p.t, err)
				got += n
			}
		}
		if holds(got) {
			return
		}
	}
	p.t.Fatalf("%s stays at %g", metric, got)
}

var codeForm = regexp.MustCompile(`(?m)^    ([0-9a-z]{4}(-[0-9a-z]{4}){5})$`)

// codeIn returns the code that a message has.
func codeIn(t testing.TB, m mailtest.Message) string {
	t.Helper()
	found := codeForm.FindStringSubmatch(m.Text)
	if found == nil {
		t.Fatalf("there is no code in\n%s", m.Text)
	}
	return found[1]
}

// Whoever has forgotten his password gets a code by mail and sets another one. Nobody else
// gets anything, and no answer tells whom it was.
func TestResetByMail(t *testing.T) {
	p := newPost(t)
	bob := p.hire("bob", "US")
	p.ask("nobody@example.com")
	p.ask(" BOB@example.com")
	m := p.server.Wait(1, resetSubject)[0]
	if m.To != bob.email || m.From != "no-reply@example.com" {
		t.Errorf("got a message from %s to %s", m.From, m.To)
	}
	code := codeIn(t, m)
	want := regexp.MustCompile(`^Hello bob,

Somebody, probably you, has asked for a code to set a new password. The code is

    ` + code + `

It is good once, until [0-9]{1,2} [A-Z][a-z]+ [0-9]{4} at [0-9]{2}:[0-9]{2} UTC.

Go where you sign in, and enter it there together with your address:

    ` + signInPage + `

If it was not you, you need do nothing: your password stays as it is. Do not tell anybody the code, whoever asks for it.

This message is about your account \(bob@example.com\) and was sent by a program. Nobody reads answers to it.
$`)
	if !want.MatchString(m.Text) {
		t.Errorf("got\n%s\nwant\n%s", m.Text, want)
	}
	mustNot(t, bob.reset(code, resetTo))
	bob.password = resetTo
	bob.signIn("")
	p.until(`latchkey_mail_sent_total{kind="PasswordResetRequested"}`, 1)
	p.empty()
}

// A server that is away loses nothing: neither while the process runs, nor if it is
// started anew meanwhile.
func TestMailServerIsAway(t *testing.T) {
	p := newPost(t)
	bob, eve := p.hire("bob", "US"), p.hire("eve", "US")
	p.server.Down()
	asked := time.Now()
	p.ask(bob.email)
	p.until(`latchkey_mail_failed_total{kind=""}`, 2)
	p.until("latchkey_mail_waiting", 1)
	p.until("latchkey_mail_oldest_seconds", float64(asked.Unix()))
	p.server.Up()
	if m := p.server.Wait(1, resetSubject)[0]; m.To != bob.email {
		t.Errorf("got a message to %s", m.To)
	}
	p.empty()
	p.await("latchkey_mail_oldest_seconds", func(got float64) bool { return got == 0 })
	p.server.Down()
	p.ask(eve.email)
	p.until("latchkey_mail_waiting", 1)
	next := p.again()
	p.server.Up()
	m := p.server.Wait(2, resetSubject)[1]
	if m.To != eve.email {
		t.Errorf("got a message to %s", m.To)
	}
	eve.suite = next
	mustNot(t, eve.reset(codeIn(t, m), resetTo))
}

// A message of which nobody knows whether it arrived is sent again, and is the same.
func TestMailIsSentAgain(t *testing.T) {
	p := newPost(t)
	bob := p.hire("bob", "US")
	p.server.LoseAnswers(1)
	p.ask(bob.email)
	p.server.Wait(1, resetSubject)
	p.until("latchkey_mail_failed_total", 1)
	p.after(11 * time.Second)
	both := p.server.Wait(2, resetSubject)
	if first, second := both[0].Header.Get("Message-Id"), both[1].Header.Get("Message-Id"); first == "" || first != second || codeIn(t, both[0]) != codeIn(t, both[1]) {
		t.Errorf("got the ids %q and %q, and\n%s\n%s", first, second, both[0].Text, both[1].Text)
	}
}

// A message that the server refuses keeps no other from being sent, and is given up in
// the end.
func TestMailIsRefused(t *testing.T) {
	p := newPost(t)
	bob, eve := p.hire("bob", "US"), p.hire("eve", "US")
	p.server.Refuse(func(to string) string {
		if to == bob.email {
			return "550 5.1.1 nobody of this name"
		}
		return ""
	})
	p.ask(bob.email)
	p.server.WaitTries(1)
	p.ask(eve.email)
	if m := p.server.Wait(1, resetSubject)[0]; m.To != eve.email {
		t.Errorf("got a message to %s", m.To)
	}
	for i := range 5 {
		p.until("latchkey_mail_failed_total", float64(i+1))
		p.after(10 * time.Second << i)
		p.server.WaitTries(3 + i)
	}
	p.until(`latchkey_mail_given_up_total{kind="PasswordResetRequested"}`, 1)
	p.empty()
}

// A code that is not good any more is not sent: neither one that has expired, nor one in
// whose place there is another.
func TestOldCodesAreNotMailed(t *testing.T) {
	p := newPost(t)
	bob, eve := p.hire("bob", "US"), p.hire("eve", "US")
	p.server.Down()
	p.ask(bob.email)
	p.until("latchkey_mail_waiting", 1)
	p.after(10*time.Minute + time.Second)
	p.until("latchkey_mail_given_up_total", 1)
	p.ask(eve.email)
	p.ask(eve.email)
	p.until("latchkey_mail_failed_total", 2)
	p.server.Up()
	p.after(2 * time.Minute)
	m := p.server.Wait(1, resetSubject)[0]
	mustNot(t, eve.reset(codeIn(t, m), resetTo))
	p.until("latchkey_mail_sent_total", 1)
	p.after(time.Hour)
	p.ask(bob.email)
	if all := p.server.Wait(2, resetSubject); all[0].To != eve.email || all[1].To != bob.email {
		t.Errorf("got %d messages, to %s and %s", len(all), all[0].To, all[1].To)
	}
}

// SECURITY: that a message is sent shows nowhere that others see: of an address that nobody
// has, as much is written to the directory.
func TestMailTellsNobody(t *testing.T) {
	p := newPost(t)
	bob := p.hire("bob", "US")
	var entries [2]int64
	for i, email := range []string{bob.email, "nobody@example.com"} {
		before := identity.Revision(t.Context())
		p.ask(email)
		p.until("latchkey_mail_sent_total", 1)
		entries[i] = identity.Revision(t.Context()) - before
	}
	if entries[0] != entries[1] {
		t.Errorf("got %d entries in the journal for an address that somebody has, and %d for one that nobody has", entries[0], entries[1])
	}
}

// SECURITY: what others call somebody is no header, no line and no link of a message.
func TestMailTakesNamesAsTheyAre(t *testing.T) {
	p := newPost(t)
	u := &caller{suite: p.suite, email: "mallory@example.com", password: "password of mallory for now"}
	const name = "Ann. Your account is closed: https://evil.example/now or www.evil.example"
	_, err := p.users().CreateUser(p.ctx(), &pb.CreateUserRequest{Email: u.email, DisplayName: name, InitialPassword: u.password})
	mustNot(t, err)
	_, err = p.users().CreateUser(p.ctx(), &pb.CreateUserRequest{Email: "eve@example.com", DisplayName: "Eve\r\nBcc: a@example.com\r\n\r\ntext", InitialPassword: u.password})
	sent := 2
	if err != nil {
		check(t, "a name of several lines", err, codes.InvalidArgument, "FIELD_INVALID")
		sent = 1
	}
	p.ask(u.email)
	p.ask("eve@example.com")
	for _, m := range p.server.Wait(sent, resetSubject) {
		hello, rest, _ := strings.Cut(m.Text, "\n\n")
		if strings.Contains(hello, "\n") || strings.Contains(m.Text, "evil.example") || strings.Contains(m.Text, "://evil") ||
			!strings.HasPrefix(rest, "Somebody, probably you, has asked") || m.Header.Get("Bcc") != "" {
			t.Errorf("got %s", m.Raw)
		}
	}
}

// A suite without mail sends nothing, and what happened meanwhile is not told afterwards.
func TestMailIsOffAndOn(t *testing.T) {
	at := mailtest.Start(t, mailtest.Options{})
	s := newSuite(t, time.Now)
	owner := s.claim()
	bob, eve := owner.hire("bob", "US"), owner.hire("eve", "US")
	p := &post{caller: owner}
	p.ask(bob.email)
	s.config = withMail(t, s.config, at)
	p.suite = s.again()
	p.ask(eve.email)
	if m := at.Wait(1, resetSubject)[0]; m.To != eve.email {
		t.Errorf("got a message to %s", m.To)
	}
}
