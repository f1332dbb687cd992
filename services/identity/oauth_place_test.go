package identity_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/permissions"
)

// browserAt is a browser with an address of its own.
func (s *suite) browserAt(address, agent string) *browser {
	b := s.browser()
	inner := b.client.Transport.(*http.Transport)
	inner.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext(ctx, network, s.HTTPAddr())
	}
	b.client.Transport = agented{inner, agent}
	return b
}

// agented says what a browser calls itself.
type agented struct {
	http.RoundTripper
	agent string
}

// RoundTrip implements http.RoundTripper.
func (a agented) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", a.agent)
	return a.RoundTripper.RoundTrip(r)
}

// Of a sign-in on a page it is told where the browser was, and so it is of the session of the
// client that was let in there.
func TestPagesTellWhereTheBrowserIs(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	client := owner.register(site("openid"))
	b := owner.browserAt("127.0.0.7", "Größter Browser/1.0")
	code := b.letIn(ada, client.authorizePath()).Get("code")
	if r := client.redeem(owner.suite, code); r.status != 200 {
		t.Fatalf("got %d %s", r.status, r.text)
	}
	resp, err := ada.sessions().ListMySessions(ada.ctx(), &pb.ListMySessionsRequest{})
	mustNot(t, err)
	if len(resp.GetSessions()) != 3 { // the web, the page, the client
		t.Fatalf("got %v, want three sessions", resp.GetSessions())
	}
	for _, s := range resp.GetSessions()[:2] {
		if s.GetAddress() != "127.0.0.7" || s.GetUserAgent() != "Größter Browser/1.0" {
			t.Errorf("got %q and %q of a session that was opened on a page", s.GetAddress(), s.GetUserAgent())
		}
	}
}

// SECURITY: whoever guesses on a page keeps nobody out who signs in elsewhere, nor a browser that
// is known; and nobody says himself where he is.
func TestLockoutOnPages(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	client := owner.register(site("openid"))
	known := owner.browserAt("127.0.0.7", "hers")
	known.letIn(ada, client.authorizePath())
	signIn := func(b *browser, password string) *reply {
		t.Helper()
		return b.submit(b.open(client.authorizePath("prompt", "login")), "email", ada.email, "password", password)
	}
	guesser := owner.browserAt("127.0.0.7", "his")
	for range 5 {
		if r := signIn(guesser, "wrong"); r.status != 403 {
			t.Fatalf("got %d %s", r.status, r.text)
		}
	}
	mustNot(t, identity.Postpone(t.Context(), "password/"))
	r := signIn(guesser, ada.password)
	if r.status != 429 || r.header.Get("Retry-After") == "" || !strings.Contains(r.text, "wrong passwords: try again in ") {
		t.Errorf("where it was guessed: got %d %v %s, want to be told when to try again", r.status, r.header, r.text)
	}
	if r := signIn(known, ada.password); known.away == nil {
		t.Errorf("a browser that is known is kept out where somebody guesses: %d %s", r.status, r.text)
	}
	elsewhere := ""
	for n := 20; elsewhere == ""; n++ { // places share a few counters
		if address := net.IPv4(127, 0, 1, byte(n)).String(); identity.SourceOf(address) != identity.SourceOf("127.0.0.7") {
			elsewhere = address
		}
	}
	if r := signIn(owner.browserAt(elsewhere, "hers"), ada.password); r.status == 429 {
		t.Errorf("from elsewhere: got %d %s", r.status, r.text)
	}

	ctx := metadata.AppendToOutgoingContext(t.Context(), "latchkey-page-key", "", "latchkey-page-address", elsewhere)
	_, err := owner.sessions().CreateSession(ctx, &pb.CreateSessionRequest{Email: ada.email, Password: ada.password, Surface: pb.Surface_SURFACE_WEB})
	mustNot(t, err)
	resp, err := ada.sessions().ListMySessions(ada.ctx(), &pb.ListMySessionsRequest{PageSize: 1})
	mustNot(t, err)
	if got := resp.GetSessions()[0].GetAddress(); got != "127.0.0.1" {
		t.Errorf("whoever says where he is himself is taken to be at %q", got)
	}
}

// Behind a proxy of ours it counts where that has the call from, in the API and on pages; what
// others say of it does not.
func TestWhereCallsComeFromBehindProxies(t *testing.T) {
	c := config(t)
	mustNot(t, c.TrustedProxies.Set("127.0.0.8/32"))
	s := start(t, c, time.Now, identity.Cheap, permissions.Part)
	s.ready()
	owner := s.claim()
	ada := owner.hire("ada", "US")
	client := owner.register(site("openid"))
	for _, at := range []struct{ peer, said, want string }{
		{"127.0.0.8", "198.51.100.1, 192.0.2.7", "192.0.2.7"},
		{"127.0.0.9", "192.0.2.7", "127.0.0.9"},
	} {
		b := s.browserAt(at.peer, "hers")
		b.client.Transport = saying{b.client.Transport, at.said}
		b.letIn(ada, client.authorizePath())
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-forwarded-for", at.said)
		_, err := ada.at(at.peer).sessions().CreateSession(ctx, &pb.CreateSessionRequest{Email: ada.email, Password: ada.password, Surface: pb.Surface_SURFACE_WEB})
		mustNot(t, err)
		resp, err := ada.sessions().ListMySessions(ada.ctx(), &pb.ListMySessionsRequest{PageSize: 2})
		mustNot(t, err)
		for _, session := range resp.GetSessions() {
			if session.GetAddress() != at.want {
				t.Errorf("from %s, which says %q: got %q of a session of %v, want %q", at.peer, at.said, session.GetAddress(), session.GetSurface(), at.want)
			}
		}
	}
}

// saying says where a request comes from.
type saying struct {
	http.RoundTripper
	said string
}

// RoundTrip implements http.RoundTripper.
func (f saying) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", f.said)
	return f.RoundTripper.RoundTrip(r)
}
