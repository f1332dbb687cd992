package identity

import (
	"context"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

const (
	// journeyCookie has what was begun in this browser, onwardCookie where it goes on after.
	journeyCookie = "latchkey-outside"
	onwardCookie  = "latchkey-onward"
	// maxOnward is how long that may be: browsers keep 4096 bytes in a cookie.
	maxOnward = 2800
)

// providerLink is the way to a provider on the sign-in page.
type providerLink struct{ Name, Address string }

type organizationForm struct{ Provider, Continue, Problem string }

// providersFor returns the ways to the providers that sign in where a client is.
func (s *service) providersFor(ctx context.Context, client *pb.OauthClient, next string) ([]providerLink, error) {
	return read(ctx, s, func(tx *store.Tx) (found []providerLink, _ error) {
		owners := []string{client.GetBrandId()}
		if client.GetOwner() != brandOwned {
			owners = append(owners, client.GetOrganizationId())
		}
		for _, owner := range owners {
			for p := range providersByOwner.Scan(tx, providersByOwner.Range(owner)) {
				if signsIn(p) {
					q := url.Values{"provider": {p.GetId()}, "continue": {next}}
					found = append(found, providerLink{p.GetDisplayName(), outsidePath + "?" + q.Encode()})
				}
			}
		}
		return found, nil
	})
}

// outsidePage sends a person to a provider.
func (s *service) outsidePage(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	if err := s.leave(w, r); err != nil {
		s.showError(w, r, err)
	}
}

func (s *service) leave(w http.ResponseWriter, r *http.Request) error {
	q, err := once(r.URL.Query())
	if err != nil {
		return err
	}
	next, err := onward(q.Get("continue"))
	if err != nil {
		return err
	}
	if len(next.String()) > maxOnward {
		return oauthRefusal("invalid_request", "the application that sent you here asks for too much at once: sign in without the provider")
	}
	req := &pb.BeginOutsideSignInRequest{
		ProviderId: q.Get("provider"), OrganizationId: q.Get("organization"), RedirectUri: s.issuer + outsideBackPath, Surface: pb.Surface_SURFACE_API,
	}
	if next.Path == authorizePath {
		a, err := s.authorization(r, next.Query())
		if err != nil {
			return err
		}
		if a.client.GetOwner() != brandOwned {
			req.OrganizationId = a.client.GetOrganizationId()
		}
		req.Fresh = a.maxAge >= 0 || slices.Contains(a.prompt, "login")
	}
	resp, err := pb.NewOutsideSignInServiceClient(s.public).BeginOutsideSignIn(s.forBrowser(r), req)
	if err != nil {
		code, problem := problemOf(w, err)
		s.showSignIn(w, r, code, signInForm{Continue: next.String(), Problem: problem})
		return nil
	}
	http.SetCookie(w, s.passing(journeyCookie, resp.GetChallenge()))
	http.SetCookie(w, s.passing(onwardCookie, base64.RawURLEncoding.EncodeToString([]byte(next.String()))))
	http.Redirect(w, r, resp.GetAuthorizationUrl(), http.StatusSeeOther)
	return nil
}

// passing is a cookie for as long as a person has at a provider, and one that ends it if it is
// empty.
func (s *service) passing(name, value string) *http.Cookie {
	c := s.cookie(name, value)
	if c.MaxAge = int(outsideLife.Seconds()); value == "" {
		c.MaxAge = -1
	}
	return c
}

// outsideBack takes a person who comes back from a provider.
//
// SECURITY: only in the browser in which the sign-in was begun, or somebody could be signed in
// as somebody else without noticing.
func (s *service) outsideBack(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	if err := s.arrive(w, r); err != nil {
		s.showError(w, r, err)
	}
}

func (s *service) arrive(w http.ResponseWriter, r *http.Request) error {
	q, err := once(r.URL.Query())
	if err != nil {
		return err
	}
	secret := s.cookieOf(r, journeyCookie)
	text, err := base64.RawURLEncoding.DecodeString(s.cookieOf(r, onwardCookie))
	if secret == "" || err != nil {
		return oauthRefusal("invalid_request", "this sign-in was not begun in this browser, or too long ago: go back and try again")
	}
	http.SetCookie(w, s.passing(journeyCookie, ""))
	http.SetCookie(w, s.passing(onwardCookie, ""))
	next, err := onward(string(text))
	if err != nil {
		return err
	}
	if q.Has("error") {
		s.showSignIn(w, r, http.StatusForbidden, signInForm{Continue: next.String(), Problem: "the provider did not sign you in"})
		return nil
	}
	resp, err := pb.NewOutsideSignInServiceClient(s.public).CompleteOutsideSignIn(s.forBrowser(r), &pb.CompleteOutsideSignInRequest{
		Challenge: secret, Answer: &pb.OutsideAnswer{State: q.Get("state"), Code: q.Get("code"), Iss: q.Get("iss")},
	})
	if err != nil {
		return s.notArrived(w, r, secret, next, err)
	}
	if c := resp.GetChallenge(); c != nil {
		s.showChallenge(w, r, http.StatusOK, next, challengeForm{
			Challenge: c.GetSecret(), Continue: next.String(), SetupKey: c.GetTotpSetup().GetKey(), SetupURI: template.URL(c.GetTotpSetup().GetUri()),
			PasskeyOptions: s.passkeyOnPages(c.GetPasskeyOptions()),
		})
		return nil
	}
	s.goOn(w, r, resp.GetToken(), next)
	return nil
}

// notArrived says to a person why a provider did not sign her in, and asks to which
// organization where that is why.
func (s *service) notArrived(w http.ResponseWriter, r *http.Request, secret string, next *url.URL, refusal error) error {
	code, problem := problemOf(w, refusal)
	st := status.Convert(refusal)
	c, err := s.openJourney(secret)
	if err != nil || st.Code() != codes.InvalidArgument || !strings.HasPrefix(st.Message(), "organization_id: ") {
		s.showSignIn(w, r, code, signInForm{Continue: next.String(), Problem: problem})
		return nil
	}
	p, err := read(r.Context(), s, func(tx *store.Tx) (*pb.OutsideProvider, error) {
		p, _ := providers.Get(tx, c.GetJourney().GetProviderId())
		return p, nil
	})
	if err != nil {
		return err
	}
	d, err := s.outside.discover(r.Context(), p.GetIssuer())
	if err != nil {
		return err
	}
	s.show(w, code, "organization", originOf(d.Endpoint().AuthURL), organizationForm{Provider: p.GetId(), Continue: next.String(), Problem: problem})
	return nil
}
