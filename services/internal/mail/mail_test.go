package mail_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey.dev/services/internal/mail"
	"latchkey.dev/services/internal/mail/mailtest"
)

const password = "a password, quite secret"

func server(t testing.TB, url, sender string) mail.Server {
	t.Helper()
	s, err := mail.ParseServer(url, "", sender)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sender(t testing.TB, s mail.Server) *mail.Sender {
	t.Helper()
	m, err := mail.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func message() mail.Message {
	return mail.Message{
		ID: "0198a5d2", To: "ada@example.com", Subject: "Grüße", Text: "Hello Ada,\n\n.a line with a point\n",
		Date: time.Date(2026, 11, 29, 4, 0, 0, 0, time.UTC),
	}
}

func send(t testing.TB, s *mail.Sender, m mail.Message) error {
	t.Helper()
	c, err := s.Connect(t.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Send(m)
}

// What is sent arrives as it was, with an id that stays the same.
func TestMessage(t *testing.T) {
	at := mailtest.Start(t, mailtest.Options{})
	s := sender(t, server(t, at.URL(), "Harbour Group <no-reply@example.com>"))
	for range 2 {
		if err := send(t, s, message()); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range at.Wait(2, "") {
		if m.From != "no-reply@example.com" || m.To != "ada@example.com" || m.Subject != "Grüße" || m.Text != message().Text {
			t.Errorf("got %+v", m)
		}
		for name, want := range map[string]string{
			"From": `"Harbour Group" <no-reply@example.com>`, "To": "<ada@example.com>", "Message-Id": "<0198a5d2@example.com>",
			"Date": "Sun, 29 Nov 2026 04:00:00 +0000", "Auto-Submitted": "auto-generated", "Content-Type": "text/plain; charset=UTF-8",
		} {
			if got := m.Header.Get(name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	}
}

// certificate returns one for mail.example.com, and who trusts it.
func certificate(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.example.com"}, DNSNames: []string{"mail.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, public, private)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}}, roots
}

// Over a network messages and the password go encrypted, to whom the name belongs, or not
// at all.
func TestEncryption(t *testing.T) {
	keys, roots := certificate(t)
	for name, c := range map[string]struct {
		url    string
		o      mailtest.Options
		roots  *x509.CertPool
		denied string // part of the error
	}{
		"STARTTLS":                     {url: "smtp://ada:PASSWORD@mail.example.com", o: mailtest.Options{TLS: keys}, roots: roots},
		"TLS":                          {url: "smtps://ada:PASSWORD@mail.example.com", o: mailtest.Options{TLS: keys, FromBeginning: true}, roots: roots},
		"no STARTTLS":                  {url: "smtp://ada:PASSWORD@mail.example.com", roots: roots, denied: "STARTTLS"},
		"an unknown authority":         {url: "smtp://ada:PASSWORD@mail.example.com", o: mailtest.Options{TLS: keys}, denied: "certificate"},
		"another's name":               {url: "smtp://ada:PASSWORD@post.example.com", o: mailtest.Options{TLS: keys}, roots: roots, denied: "certificate"},
		"another's name, TLS":          {url: "smtps://ada:PASSWORD@post.example.com", o: mailtest.Options{TLS: keys, FromBeginning: true}, roots: roots, denied: "certificate"},
		"a wrong password":             {url: "smtp://ada:another@mail.example.com", o: mailtest.Options{TLS: keys}, roots: roots, denied: "535"},
		"a server that is not on TLS":  {url: "smtps://ada:PASSWORD@mail.example.com", roots: roots, denied: "tls"},
		"no TLS on loopback, signs in": {url: "smtp://ada:PASSWORD@localhost"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.User, c.o.Password = "ada", password
			at := mailtest.Start(t, c.o)
			s := sender(t, server(t, strings.ReplaceAll(c.url, "PASSWORD", strings.ReplaceAll(password, " ", "%20")), "no-reply@example.com"))
			s.Reaches(at.Address(), c.roots)
			err := send(t, s, message())
			if c.denied == "" {
				if err != nil || len(at.Taken()) != 1 {
					t.Errorf("got %v, and %d messages", err, len(at.Taken()))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.denied) || strings.Contains(err.Error(), password) || len(at.Taken()) != 0 {
				t.Errorf("got %v, and %d messages; want an error with %q", err, len(at.Taken()), c.denied)
			}
		})
	}
}

// A password that is changed in its file is used from the next connection on.
func TestPasswordIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("of before")
	at := mailtest.Start(t, mailtest.Options{User: "ada@example.com", Password: password})
	parsed, err := mail.ParseServer("smtp://ada%40example.com@"+at.Address(), file, "no-reply@example.com")
	if err != nil {
		t.Fatal(err)
	}
	s := sender(t, parsed)
	if err := send(t, s, message()); err == nil {
		t.Error("the password of before lets in")
	}
	write(password)
	if err := send(t, s, message()); err != nil {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := mail.New(parsed); err == nil {
		t.Error("a file that is missing is found out late")
	}
}

// What the server refuses for good is told apart from what may do later, and the next
// message goes over the same connection.
func TestRefusals(t *testing.T) {
	at := mailtest.Start(t, mailtest.Options{})
	answer := ""
	at.Refuse(func(string) string { return answer })
	s := sender(t, server(t, at.URL(), "no-reply@example.com"))
	c, err := s.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, answer = range []string{"550 5.1.1 who?", "451 4.7.1 later", ""} {
		err := c.Send(message())
		if _, refused := errors.AsType[*mail.Refused](err); refused != strings.HasPrefix(answer, "5") || (err == nil) != (answer == "") {
			t.Errorf("%q: got %v", answer, err)
		}
		if err != nil && strings.Contains(err.Error(), "ada@") {
			t.Errorf("the error has the address: %v", err)
		}
	}
	at.LoseAnswers(1)
	if err := c.Send(message()); err == nil {
		t.Error("a message that was not answered counts as sent")
	}
	at.Down()
	if _, err := s.Connect(t.Context()); err == nil {
		t.Error("connected to a server that is down")
	}
}

// SECURITY: nothing in a message becomes a header, a recipient or a command.
func TestInjection(t *testing.T) {
	at := mailtest.Start(t, mailtest.Options{})
	s := sender(t, server(t, at.URL(), "no-reply@example.com"))
	c, err := s.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, change := range map[string]func(*mail.Message){
		"subject with a header":    func(m *mail.Message) { m.Subject = "hello\r\nBcc: eve@example.com" },
		"subject with a line":      func(m *mail.Message) { m.Subject = "hello\nworld" },
		"language with a header":   func(m *mail.Message) { m.Language = "de\r\nBcc: eve@example.com" },
		"id with a header":         func(m *mail.Message) { m.ID = "1\r\nBcc: eve@example.com" },
		"two addresses":            func(m *mail.Message) { m.To = "ada@example.com, eve@example.com" },
		"a name":                   func(m *mail.Message) { m.To = "Eve <eve@example.com>" },
		"a command":                func(m *mail.Message) { m.To = "ada@example.com>\r\nRCPT TO:<eve@example.com" },
		"a parameter":              func(m *mail.Message) { m.To = "ada@example.com> SIZE=1" },
		"no address":               func(m *mail.Message) { m.To = "" },
		"no domain":                func(m *mail.Message) { m.To = "root" },
		"points that no one takes": func(m *mail.Message) { m.To = "a..da@example.com" },
		"a text without an end":    func(m *mail.Message) { m.Text = strings.Repeat("x", 1<<20) },
	} {
		m := message()
		change(&m)
		if _, refused := errors.AsType[*mail.Refused](c.Send(m)); !refused {
			t.Errorf("%s was not refused", name)
		}
	}
	m := message()
	m.Text = "Hello\r\n.\r\nMAIL FROM:<eve@example.com>\r\n\nBcc: eve@example.com\n\n--\nX: y\n"
	m.Subject = "=?utf-8?q?a=0D=0ABcc:_eve@example.com?="
	if err := c.Send(m); err != nil {
		t.Fatal(err)
	}
	got := at.Wait(1, "")[0]
	if len(at.Taken()) != 1 || got.Header.Get("Bcc") != "" || got.Text != strings.ReplaceAll(m.Text, "\r\n", "\n") {
		t.Errorf("got %d messages, %q", len(at.Taken()), got.Raw)
	}
}

func TestWrongServers(t *testing.T) {
	const form = "expected smtp://USER@HOST:PORT or smtps://USER@HOST:PORT, for example smtp://latchkey@mail.example.com:587"
	for _, c := range []struct{ url, file, sender, want string }{
		{"mail.example.com", "", "a@example.com", form},
		{"http://mail.example.com", "", "a@example.com", form},
		{"smtp://", "", "a@example.com", form},
		{"smtp://mail.example.com/path", "", "a@example.com", form},
		{"smtp://mail.example.com?tls=no", "", "a@example.com", form},
		{"smtp://ada:secret%zz@mail.example.com", "", "a@example.com", form},
		{"smtp://mail.example.com:99999", "", "a@example.com", "expected a port from 1 to 65535"},
		{"smtp://ada@mail.example.com", "", "a@example.com", "there is a user, but no password"},
		{"smtp://ada:secret@mail.example.com", "file", "a@example.com", "the password is in the URL and in a file: leave out one of them"},
		{"smtp://mail.example.com", "file", "a@example.com", "there is a password, but no user in the URL"},
		{"smtp://:secret@mail.example.com", "", "a@example.com", "there is a password, but no user in the URL"},
		{"smtp://mail.example.com", "", "", `sender "": expected an address, for example no-reply@example.com or Harbour Group <no-reply@example.com>`},
		{"smtp://mail.example.com", "", "root@localhost", `sender "root@localhost": expected an address, for example no-reply@example.com or Harbour Group <no-reply@example.com>`},
		{"smtp://mail.example.com", "", "a@b.example\nBcc: c@d.example", `sender "a@b.example\nBcc: c@d.example": expected an address, for example no-reply@example.com or Harbour Group <no-reply@example.com>`},
	} {
		_, err := mail.ParseServer(c.url, c.file, c.sender)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s from %q: got %v, want %s", c.url, c.sender, err, c.want)
		}
	}
	for url, want := range map[string]mail.Server{
		"smtp://mail.example.com":      {Host: "mail.example.com", Port: 587},
		"smtps://mail.example.com/":    {Host: "mail.example.com", Port: 465, TLS: true},
		"smtp://[::1]:25":              {Host: "::1", Port: 25},
		"smtps://mail.example.com:999": {Host: "mail.example.com", Port: 999, TLS: true},
	} {
		got := server(t, url, "a@example.com")
		if got.Host != want.Host || got.Port != want.Port || got.TLS != want.TLS {
			t.Errorf("%s: got %+v, want %+v", url, got, want)
		}
	}
}
