package identity

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

// signOutPage asks a person who was sent to sign out (OpenID Connect RP-Initiated Logout
// 1.0 2). It always asks: a link alone signs nobody out.
func (s *service) signOutPage(w http.ResponseWriter, r *http.Request) {
	q, err := once(r.URL.Query())
	if err != nil {
		s.showError(w, r, err)
		return
	}
	client := q.Get("client_id")
	if client == "" {
		client = hintedClient(q.Get("id_token_hint"))
	}
	s.show(w, http.StatusOK, "sign-out", originOf(q.Get("post_logout_redirect_uri")), signOutForm{
		Form: s.formToken(w, r), ClientID: client, Redirect: q.Get("post_logout_redirect_uri"), State: q.Get("state"),
	})
}

// hintedClient returns the client that an ID token was for. Nothing is decided by it but
// whose registered URIs count, so its signature does not matter.
func hintedClient(text string) string {
	signed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.RS256})
	if err != nil {
		return ""
	}
	var claims jwt.Claims
	if signed.UnsafeClaimsWithoutVerification(&claims) != nil || len(claims.Audience) != 1 {
		return ""
	}
	return claims.Audience[0]
}

// signOut ends the session of the browser, and with it those of clients that it let in
// for as long as it lasts.
func (s *service) signOut(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	f, err := s.sentByForm(r)
	if err == nil {
		err = s.endBrowserSession(r.Context(), r)
	}
	if err != nil {
		s.showError(w, r, err)
		return
	}
	over := s.cookie(sessionCookie, "")
	over.MaxAge = -1
	http.SetCookie(w, over)
	client, err := read(r.Context(), s, func(tx *store.Tx) (*pb.OauthClient, error) {
		c, _ := clients.Get(tx, f.Get("client_id"))
		return c, nil
	})
	target := f.Get("post_logout_redirect_uri")
	if err != nil || !slices.Contains(client.GetPostLogoutRedirectUris(), target) {
		s.show(w, http.StatusOK, "signed-out", "", nil)
		return
	}
	if f.Has("state") {
		u, err := url.Parse(target)
		if err != nil {
			s.showError(w, r, err)
			return
		}
		q := u.Query()
		q.Set("state", f.Get("state"))
		u.RawQuery = q.Encode()
		target = u.String()
	}
	http.Redirect(w, r, target, http.StatusSeeOther)
}
