package identity_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

// issuer is under which the suite of a test issues tokens, also after a restart, whatever
// port it has. No request goes there: see web.
const issuer = "http://127.0.0.1:9"

// web is a client of HTTP that finds the issuer where it is, and follows no redirect.
func (s *suite) web() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if "http://"+addr == s.Issuer() {
					addr = s.HTTPAddr()
				}
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			},
		},
	}
}

func (s *suite) clients() pb.OauthClientServiceClient { return pb.NewOauthClientServiceClient(s.conn) }

// reply is what an endpoint answered.
type reply struct {
	status int
	header http.Header
	text   string
	body   map[string]any // if it is a JSON object
}

// str returns a member of the body that is a string.
func (r *reply) str(name string) string {
	text, _ := r.body[name].(string)
	return text
}

func (s *suite) send(req *http.Request) *reply {
	s.t.Helper()
	client := s.sender
	if client == nil {
		client = s.web()
	}
	resp, err := client.Do(req)
	mustNot(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	mustNot(s.t, err)
	r := &reply{status: resp.StatusCode, header: resp.Header, text: string(text)}
	json.Unmarshal(text, &r.body)
	return r
}

func (s *suite) fetch(path string) *reply {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), "GET", s.Issuer()+path, nil)
	mustNot(s.t, err)
	return s.send(req)
}

// post sends a form. Pairs are names and values in turn.
func (s *suite) post(path string, pairs ...string) *reply {
	s.t.Helper()
	return s.send(s.formRequest(path, values(pairs...)))
}

func values(pairs ...string) url.Values {
	f := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f
}

func (s *suite) formRequest(path string, f url.Values) *http.Request {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), "POST", s.Issuer()+path, strings.NewReader(f.Encode()))
	mustNot(s.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req
}

// registered is a client with its secret.
type registered struct {
	*pb.OauthClient
	secret string
}

// machine is a client that acts by itself.
func machine(scopes ...string) *pb.OauthClient {
	return &pb.OauthClient{
		Owner: pb.OauthClientOwner_OAUTH_CLIENT_OWNER_ORGANIZATION, Name: "a machine", Kind: pb.OauthClientKind_OAUTH_CLIENT_KIND_CONFIDENTIAL,
		GrantTypes: []pb.OauthGrantType{pb.OauthGrantType_OAUTH_GRANT_TYPE_CLIENT_CREDENTIALS}, Scopes: scopes,
	}
}

func (c *caller) register(client *pb.OauthClient) *registered {
	c.t.Helper()
	resp, err := c.clients().CreateOauthClient(c.ctx(), &pb.CreateOauthClientRequest{OauthClient: client})
	mustNot(c.t, err)
	return &registered{resp.GetOauthClient(), resp.GetClientSecret()}
}

// machineToken gets an access token for a client, or an API key, itself.
func (s *suite) machineToken(id, secret string, pairs ...string) *reply {
	s.t.Helper()
	return s.post("/oauth2/token", append([]string{"grant_type", "client_credentials", "client_id", id, "client_secret", secret}, pairs...)...)
}

// wantRefusal compares an answer with an error of OAuth.
func wantRefusal(t testing.TB, what string, r *reply, status int, code string) {
	t.Helper()
	if r.status != status || r.str("error") != code {
		t.Errorf("%s: got %d %s, want %d %s", what, r.status, r.text, status, code)
	}
}
