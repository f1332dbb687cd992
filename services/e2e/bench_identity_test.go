package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/argon2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/demo"
)

// introspect asks over gRPC what a token is worth.
var introspect = aCall{identitypb.OauthClientService_IntrospectToken_FullMethodName, func(b *bench) proto.Message {
	return &identitypb.IntrospectTokenRequest{Token: b.company.Person("US").Token}
}, &identitypb.IntrospectTokenResponse{}}

// sessions measures what it takes to know whose token comes with a call: of one whose session
// the process knows, or of one that it has to ask identity about, over gRPC.
func (b *bench) sessions(cached bool) finding {
	if cached {
		g := b.guard("Web")
		name := identitypb.ProfileService_GetProfile_FullMethodName
		handler := func(context.Context, any) (any, error) { return &identitypb.GetProfileResponse{}, nil }
		req := &identitypb.GetProfileRequest{}
		return measureFunc(func() { b.unary(g, name, req, handler) }, func() { sha256.Sum256([]byte(g.token)) }, "the SHA-256 of the token")
	}
	s := b.one()
	hash := sha256.Sum256([]byte(b.company.Person("OW").Token))
	ask := aCall{identitypb.SessionService_ResolveSession_FullMethodName, nil, &identitypb.ResolveSessionResponse{}}
	req, resp := &identitypb.ResolveSessionRequest{TokenHash: hash[:]}, &identitypb.ResolveSessionResponse{}
	conn := s.toService("identity", "invoicing", b.company.Organization)
	if err := conn.Invoke(b.t.Context(), ask.path, req, resp); err != nil {
		b.t.Fatal(err)
	}
	bare := b.answering(ask, req, resp)
	call, echo := ask.on(conn, req), ask.on(bare.conn(names[0]), req)
	rate, ratio := beside(rounds, func() float64 { return b.rate(1, call) }, func() float64 { return b.rate(1, echo) })
	return finding{perSecond(rate, "checks"), ratio, "a bare grpc-go server with the same answers"}
}

// others are two people who may use the web and make no other calls: whose sign-ins are too
// many loses the oldest sessions.
func (b *bench) others() []*demo.Person {
	return []*demo.Person{b.company.Person("OA"), b.company.Person("PM")}
}

// signIn signs people of the company in, one after the other.
func (b *bench) signIn() func(context.Context) error {
	b.one()
	client := identitypb.NewSessionServiceClient(b.suite.conn(names[0]))
	var next atomic.Int64
	return func(ctx context.Context) error {
		p := b.others()[next.Add(1)%2]
		_, err := client.CreateSession(ctx, &identitypb.CreateSessionRequest{
			Email: p.Email, Password: p.Password, Surface: identitypb.Surface_SURFACE_WEB,
		})
		return err
	}
}

// signIns measures how much of what the hash alone allows is left to sign-ins, when all
// cores are busy with them.
func (b *bench) signIns() finding {
	signIn, salt := b.signIn(), []byte("sixteen bytes ..")
	callers := 2 * runtime.GOMAXPROCS(0)
	bare := func(context.Context) error {
		argon2.IDKey([]byte("nine owls in a tall tree"), salt, 2, 19456, 1, 32)
		return nil
	}
	rate, ratio := beside(rounds,
		func() float64 { return b.rate(callers, signIn) },
		func() float64 { return b.rate(runtime.GOMAXPROCS(0), bare) })
	return finding{perSecond(rate, "sign-ins"), ratio, "argon2id alone on as many cores"}
}

// unknowns measures whether the time tells if somebody has an address: wrong passwords of
// addresses that nobody has beside those of people, who then sign in so as not to be
// slowed down.
func (b *bench) unknowns() finding {
	b.one()
	client := identitypb.NewSessionServiceClient(b.suite.conn(names[0]))
	try := func(email, password string, want codes.Code) time.Duration {
		start := time.Now()
		_, err := client.CreateSession(b.t.Context(), &identitypb.CreateSessionRequest{
			Email: email, Password: password, Surface: identitypb.Surface_SURFACE_WEB,
		})
		if status.Code(err) != want {
			b.t.Fatalf("%s: got %v, want %v", email, err, want)
		}
		return time.Since(start)
	}
	people := b.others()
	measure := func(wrong func(p *demo.Person) time.Duration) func() float64 {
		return func() float64 {
			var took []time.Duration
			for range 4 {
				for _, p := range people {
					took = append(took, wrong(p))
					try(p.Email, p.Password, codes.OK)
				}
			}
			return float64(percentile(took, 50))
		}
	}
	unknown := func(*demo.Person) time.Duration {
		return try(strings.ToLower(rand.Text())+"@example.com", "wrong", codes.Unauthenticated)
	}
	known := func(p *demo.Person) time.Duration { return try(p.Email, "wrong", codes.Unauthenticated) }
	p50, ratio := beside(2*rounds, measure(unknown), measure(known))
	return finding{"p50 " + milliseconds(time.Duration(p50)), ratio, "a wrong password of a known address (p50)"}
}

// storms measures what others notice while more people sign in than there is room for.
func (b *bench) storms() finding {
	signIn := b.signIn()
	call, ctx := getPart.on(b.suite.conn(names[0]), getPart.req(b)), b.company.As(b.t.Context(), "OW")
	p99 := func() float64 {
		took := make([]time.Duration, 200)
		for i := range took {
			took[i] = b.took(func(context.Context) error { return call(ctx) })
		}
		return float64(percentile(took, 99))
	}
	storm := func() float64 {
		var done sync.WaitGroup
		stop, cancel := context.WithCancel(b.t.Context())
		for range 20 * runtime.GOMAXPROCS(0) {
			done.Go(func() {
				for stop.Err() == nil {
					switch err := signIn(stop); status.Code(err) {
					case codes.OK, codes.ResourceExhausted, codes.Canceled:
					default:
						b.t.Error(err)
						return
					}
				}
			})
		}
		defer done.Wait()
		defer cancel()
		return p99()
	}
	in, ratio := beside(rounds, storm, p99)
	return finding{"p99 " + milliseconds(time.Duration(in)), ratio, "the same calls at rest (p99)"}
}

// issuing is a suite that issues tokens over HTTP, with a client and its access token.
type issuing struct {
	*bench
	issuer, id, secret, token string
}

func (b *bench) issuing() *issuing {
	b.t.Helper()
	at := freeAddr(b.t)
	s := one(b.t, "LATCHKEY_HTTP_LISTEN="+at, "LATCHKEY_ISSUER=http://"+at)
	i := &issuing{bench: b, issuer: "http://" + at}
	made, err := identitypb.NewOauthClientServiceClient(s).CreateOauthClient(s.fill().As(b.t.Context(), "OW"), &identitypb.CreateOauthClientRequest{
		OauthClient: &identitypb.OauthClient{
			Owner: identitypb.OauthClientOwner_OAUTH_CLIENT_OWNER_ORGANIZATION, Name: "a gateway", Scopes: []string{"Organization"},
			Kind:             identitypb.OauthClientKind_OAUTH_CLIENT_KIND_CONFIDENTIAL,
			GrantTypes:       []identitypb.OauthGrantType{identitypb.OauthGrantType_OAUTH_GRANT_TYPE_CLIENT_CREDENTIALS},
			SigningAlgorithm: identitypb.OauthSigningAlgorithm_OAUTH_SIGNING_ALGORITHM_EDDSA,
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	i.id, i.secret = made.GetOauthClient().GetId(), made.GetClientSecret()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(i.post(i.issuer+"/oauth2/token", "grant_type", "client_credentials"), &answer); err != nil || answer.Token == "" {
		b.t.Fatalf("got no access token: %v", err)
	}
	i.token = answer.Token
	return i
}

// post sends a form as the client and returns the answer, which must be a good one.
func (i *issuing) post(to string, pairs ...string) []byte {
	form := url.Values{"client_id": {i.id}, "client_secret": {i.secret}}
	for n := 0; n < len(pairs); n += 2 {
		form.Set(pairs[n], pairs[n+1])
	}
	resp, err := http.Post(to, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		i.t.Fatalf("%s: %s %s %v", to, resp.Status, text, err)
	}
	return text
}

// introspectsHTTP measures introspection as a gateway has it, one after the other, beside a
// bare server of net/http with the same answer.
func (b *bench) introspectsHTTP() finding {
	i := b.issuing()
	at := i.issuer + "/oauth2/introspect"
	answer := i.post(at, "token", i.token)
	if !strings.Contains(string(answer), `"active":true`) {
		b.t.Fatalf("got %s", answer)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	bare := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		w.Write(answer)
	})}
	go bare.Serve(l)
	b.t.Cleanup(func() { bare.Close() })
	measure := func(to string) func() float64 {
		return func() float64 {
			return b.rate(1, func(context.Context) error {
				i.post(to, "token", i.token)
				return nil
			})
		}
	}
	rate, ratio := beside(rounds, measure(at), measure("http://"+l.Addr().String()))
	return finding{perSecond(rate, "calls"), ratio, "a bare net/http server with the same answer, in the test's process"}
}

// verifies measures the verification of an access token by whoever has the suite's public
// keys at hand, or fetches them each time, beside that of the signature alone.
func (b *bench) verifies(cached bool) finding {
	i := b.issuing()
	keys := i.keys()
	verify := func() float64 {
		start := time.Now()
		times := 1
		if cached {
			times = 1000
		}
		for range times {
			if !cached {
				keys = i.keys()
			}
			signed, err := jose.ParseSignedCompact(i.token, []jose.SignatureAlgorithm{jose.EdDSA})
			if err == nil {
				_, err = signed.Verify(keys)
			}
			if err != nil {
				b.t.Fatal(err)
			}
		}
		return float64(time.Since(start).Nanoseconds()) / float64(times)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	text := []byte(i.token)
	signature := ed25519.Sign(private, text)
	bare := func() float64 {
		start := time.Now()
		for range 1000 {
			if !ed25519.Verify(public, text, signature) {
				b.t.Fatal("not verified")
			}
		}
		return float64(time.Since(start).Nanoseconds()) / 1000
	}
	ns, ratio := beside(5*rounds, verify, bare)
	return finding{fmt.Sprintf("%.3g µs", ns/1000), ratio, "ed25519.Verify of as many bytes"}
}

// keys fetches the public keys of the suite.
func (i *issuing) keys() *jose.JSONWebKeySet {
	resp, err := http.Get(i.issuer + "/oauth2/keys")
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	keys := &jose.JSONWebKeySet{}
	if err := json.NewDecoder(resp.Body).Decode(keys); err != nil || len(keys.Keys) == 0 {
		i.t.Fatalf("got %d keys: %v", len(keys.Keys), err)
	}
	return keys
}
