package identity_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
)

// elsewhere is the same person at an address whose guesses are counted apart.
func (c *caller) elsewhere() *caller {
	c.t.Helper()
	for n := byte(2); ; n++ {
		if at := net.IPv4(127, 0, 2, n).String(); identity.SourceOf(at) != identity.SourceOf("127.0.0.1") {
			return c.at(at)
		}
	}
}

// at is the same person at another address.
func (c *caller) at(address string) *caller {
	c.t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	dial := func(ctx context.Context, target string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", target)
	}
	conn, err := grpc.NewClient(c.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	mustNot(c.t, err)
	c.t.Cleanup(func() { conn.Close() })
	s, next := *c.suite, *c
	s.conn = conn
	next.suite = &s
	return &next
}

// Whoever shows the right password where he may not come in guesses nothing, and is not kept
// out for it where he may.
func TestRightPasswordIsNoGuess(t *testing.T) {
	owner := owned(t)
	sam := owner.add("sam", "SA")
	try := func(surface pb.Surface) error {
		_, err := sam.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{Email: sam.email, Password: sam.password, Surface: surface})
		return err
	}
	for range 8 {
		check(t, "on the web", try(pb.Surface_SURFACE_WEB), codes.PermissionDenied, "SURFACE_CLOSED")
	}
	mustNot(t, try(pb.Surface_SURFACE_APP))

	// So it is with a code of an app.
	ada := owner.hire("ada", "US").withApp()
	challenge, err := ada.trySignIn()
	mustNot(t, err)
	open := owner.closeTo(ada)
	for range 8 {
		_, err := ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge.GetSecret(), Proof: recovery(ada.codes[2])})
		check(t, "with a code, without a surface", err, codes.PermissionDenied, "SURFACE_CLOSED")
	}
	open()
	_, err = ada.sessions().AnswerChallenge(t.Context(), &pb.AnswerChallengeRequest{Challenge: challenge.GetSecret(), Proof: recovery(ada.codes[2])})
	mustNot(t, err)
}

// SECURITY: whoever tries codes for somebody's password from elsewhere uses up no try of hers.
func TestResetOutlivesGuessesElsewhere(t *testing.T) {
	owner := owned(t)
	bob := owner.hire("bob", "US")
	code := owner.issue(bob)
	stranger := bob.elsewhere()
	for range 5 {
		check(t, "a wrong code", stranger.reset("wrong", resetTo), codes.Unauthenticated, "PROOF_WRONG")
	}
	check(t, "one more from there", stranger.reset("wrong", resetTo), codes.ResourceExhausted, "LIMIT_REACHED")
	mustNot(t, bob.reset(code, resetTo))
}

// SECURITY: whoever has stolen a session does not change where the codes of a client go.
func TestClientChangesByAFreshProof(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	owner := s.claim()
	client := owner.register(site("openid"))
	update := func() error {
		_, err := owner.clients().UpdateOauthClient(owner.ctx(), &pb.UpdateOauthClientRequest{
			OauthClient: &pb.OauthClient{Id: client.GetId(), RedirectUris: []string{"https://evil.example/"}},
		})
		return err
	}
	offset.Store(int64(11 * time.Minute))
	check(t, "long after", update(), codes.FailedPrecondition, "STEP_UP_NEEDED")
	owner = owner.signIn("")
	mustNot(t, update())
}
