package identity_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

// notices are what a verifier is told.
type notices struct {
	Time        int64
	Revocations []struct {
		Sid, Uid string
		Time     int64
	}
}

// names tells whether a token with these claims is void by what was told.
func (n *notices) names(claims map[string]any) bool {
	for _, r := range n.Revocations {
		if (r.Sid == claims["sid"] || r.Uid == claims["uid"]) && claims["iat"].(float64) <= float64(r.Time) {
			return true
		}
	}
	return false
}

// SECURITY: who verifies offline hears of whatever ends a token, live, and after a restart.
func TestRevocationsAreFed(t *testing.T) {
	owner := owned(t)
	gateway := owner.register(machine("Organization"))
	app := owner.register(site("openid"))
	authorized := func(s *suite, path string) *http.Request {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.Issuer()+path, nil)
		mustNot(t, err)
		req.SetBasicAuth(gateway.GetId(), gateway.secret)
		return req
	}
	resp, err := owner.web().Do(authorized(owner.suite, "/oauth2/revocations/feed"))
	mustNot(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() *notices {
		t.Helper()
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				n := &notices{}
				mustNot(t, json.Unmarshal([]byte(text), n))
				return n
			}
		}
		t.Fatal("the feed has ended")
		return nil
	}
	var gone []map[string]any
	for name, end := range map[string]func(u *caller, token string){
		"a session is ended": func(u *caller, _ string) {
			_, err := u.sessions().EndSession(u.ctx(), &pb.EndSessionRequest{})
			mustNot(t, err)
		},
		"a person is deactivated": func(u *caller, _ string) {
			_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: u.user.GetId()})
			mustNot(t, err)
		},
		"a token is revoked": func(_ *caller, token string) {
			owner.post("/oauth2/revoke", "client_id", app.GetId(), "client_secret", app.secret, "token", token)
		},
	} {
		u := owner.hire(strings.ReplaceAll(name, " ", "-"), "US")
		code := u.signedInBrowser().letIn(u, app.authorizePath()).Get("code")
		token := app.redeem(owner.suite, code).str("access_token")
		claims, _ := owner.verify(token, "at+jwt")
		if next().names(claims) {
			t.Fatalf("%s: a fresh token is told to be void", name)
		}
		end(u, token)
		for !next().names(claims) { // ends with the test at the latest
		}
		gone = append(gone, claims)
	}
	again := owner.again()
	r := again.send(authorized(again, "/oauth2/revocations"))
	n := &notices{}
	mustNot(t, json.Unmarshal([]byte(r.text), n))
	for _, claims := range gone {
		if !n.names(claims) {
			t.Errorf("after a restart the list %s lacks %v", r.text, claims)
		}
	}
	wantRefusal(t, "nobody", again.fetch("/oauth2/revocations"), 401, "invalid_client")
}
