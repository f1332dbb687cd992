package identity

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	codePrefix = "lko_"
	// codeLife is how long a code can be redeemed (RFC 6749 4.1.2).
	codeLife = time.Minute
	// codeRest is how long it is remembered that a code was redeemed, so that a second
	// redemption is noticed.
	codeRest = 24 * time.Hour
)

// authorization is what a client asks of a person.
type authorization struct {
	asked    url.Values // what the browser came with
	query    url.Values // what that stands for, if it was pushed
	pushed   string     // what that is kept by; empty if it was not
	client   *pb.OauthClient
	redirect string
	state    string
	scopes   []string
	prompt   []string
	classes  []string      // acr_values
	maxAge   time.Duration // negative if it does not matter
}

// sentBack is an error that the client is told, by way of the person's browser (RFC 6749
// 4.1.2.1).
type sentBack struct {
	*authorization
	code, description string
}

// Error returns what the client is told.
func (e *sentBack) Error() string { return e.code + ": " + e.description }

func (a *authorization) refuse(code, description string) error {
	return &sentBack{a, code, description}
}

// back is where the person is sent with the answer, which names who gives it (RFC 9207), so
// that a client of several servers knows whose it is.
func (a *authorization) back(issuer string, pairs ...string) string {
	u, err := url.Parse(a.redirect)
	if err != nil {
		return issuer // it was checked when it was registered
	}
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	if a.state != "" {
		q.Set("state", a.state)
	}
	q.Set("iss", issuer)
	u.RawQuery = q.Encode()
	return u.String()
}

// authorization checks what a client asks for.
//
// SECURITY: as long as it is not certain that the client may have the answer at the
// redirect URI, the error is shown to the person and sent nowhere.
func (s *service) authorization(r *http.Request, query url.Values) (*authorization, error) {
	asked, err := once(query)
	if err != nil {
		return nil, err
	}
	q, pushed := asked, pushedID(asked)
	if pushed != "" {
		if q, err = s.pushed(r, asked); err != nil {
			return nil, err
		}
	}
	client, err := read(r.Context(), s, func(tx *store.Tx) (*pb.OauthClient, error) {
		c, ok := clients.Get(tx, q.Get("client_id"))
		if !ok || c.GetDeleteTime() != nil {
			return nil, oauthRefusal("invalid_request", "the application that sent you here is not known")
		}
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	a, err := requestOf(client, q)
	if a == nil {
		return nil, err
	}
	a.asked, a.pushed = asked, pushed
	if err == nil && client.GetRequirePushed() && pushed == "" {
		err = a.refuse("invalid_request", "the client has to push its requests (RFC 9126)")
	}
	return a, err
}

// requestOf reads what a client asks for. Without an authorization it may not have the answer
// where it wants it.
func requestOf(client *pb.OauthClient, q url.Values) (*authorization, error) {
	if !matchesRedirect(q.Get("redirect_uri"), client.GetRedirectUris()) {
		return nil, oauthRefusal("invalid_request", "the application that sent you here wants the answer where it may not have it")
	}
	a := &authorization{query: q, client: client, redirect: q.Get("redirect_uri"), state: q.Get("state"), maxAge: -1}
	return a, a.check()
}

// again is where a person comes back to with the same request.
func (a *authorization) again() *url.URL {
	return &url.URL{Path: authorizePath, RawQuery: a.asked.Encode()}
}

// check checks what the client is told about.
func (a *authorization) check() (err error) {
	q := a.query
	switch {
	case q.Has("request"):
		return a.refuse("request_not_supported", "request objects are not supported")
	case q.Has("request_uri"):
		return a.refuse("request_uri_not_supported", "request objects are not supported")
	case !q.Has("response_type"):
		return a.refuse("invalid_request", "response_type is missing")
	case q.Get("response_type") != "code":
		return a.refuse("unsupported_response_type", "only code is supported")
	case q.Has("response_mode") && q.Get("response_mode") != "query":
		return a.refuse("invalid_request", "only the response mode query is supported")
	case !mayUse(a.client, grantCode):
		return a.refuse("unauthorized_client", "the client may not use authorization codes")
	case !q.Has("code_challenge"):
		return a.refuse("invalid_request", "code_challenge is missing: PKCE is required")
	case q.Get("code_challenge_method") != "S256":
		return a.refuse("invalid_request", "code_challenge_method must be S256")
	}
	if sum, err := base64.RawURLEncoding.DecodeString(q.Get("code_challenge")); err != nil || len(sum) != 32 {
		return a.refuse("invalid_request", "code_challenge is not a SHA-256 in base64url")
	}
	if q.Has("max_age") {
		seconds, err := strconv.ParseUint(q.Get("max_age"), 10, 31)
		if err != nil {
			return a.refuse("invalid_request", "max_age is no number of seconds")
		}
		a.maxAge = time.Duration(seconds) * time.Second
	}
	a.prompt, a.classes = askedScopes(q.Get("prompt")), askedScopes(q.Get("acr_values"))
	if slices.Contains(a.prompt, "none") && len(a.prompt) > 1 {
		return a.refuse("invalid_request", "prompt none stands alone")
	}
	if a.scopes, err = allowedScopes(askedScopes(q.Get("scope")), a.client.GetScopes()); err != nil {
		return a.refuse("invalid_scope", "the client may not ask for a scope that it asked for")
	}
	return nil
}

// authorizeEndpoint lets a person let a client in (RFC 6749 3.1, OpenID Connect Core 1.0
// 3.1.2).
func (s *service) authorizeEndpoint(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	if r.Method == http.MethodPost { // OpenID Connect Core 1.0 3.1.2.1
		f, err := form(r)
		if err != nil {
			s.showError(w, r, err)
			return
		}
		http.Redirect(w, r, authorizePath+"?"+f.Encode(), http.StatusSeeOther)
		return
	}
	if err := s.authorize(w, r); err != nil {
		s.showError(w, r, err)
	}
}

func (s *service) authorize(w http.ResponseWriter, r *http.Request) error {
	if err := s.bindPushed(w, r); err != nil {
		return err
	}
	a, err := s.authorization(r, r.URL.Query())
	if err != nil {
		return err
	}
	who, err := s.browserOf(r)
	if err != nil {
		return err
	}
	silent := slices.Contains(a.prompt, "none")
	if mustSignIn(a, who) {
		if silent {
			return a.refuse("login_required", "nobody is signed in")
		}
		s.sendToSignIn(w, r, a)
		return nil
	}
	if asked, err := s.askMore(w, r, a, who); asked || err != nil {
		return err
	}
	if a.client.GetFirstParty() && !slices.Contains(a.prompt, "consent") {
		return s.sendCode(w, r, a, who)
	}
	return s.authorizeConsented(w, r, a, who, silent)
}

// sendToSignIn sends a person to the sign-in page, and from there back.
func (s *service) sendToSignIn(w http.ResponseWriter, r *http.Request, a *authorization) {
	http.Redirect(w, r, signInPath+"?continue="+url.QueryEscape(a.again().String()), http.StatusSeeOther)
}

// mustSignIn tells whether the person has to sign in, or again.
func mustSignIn(a *authorization, who *pb.Session) bool {
	if who == nil || slices.Contains(a.prompt, "login") || slices.Contains(a.prompt, "select_account") {
		return true
	}
	return a.client.GetOwner() != brandOwned && a.client.GetOrganizationId() != who.GetOrganizationId()
}

// afterSignIn leaves out of a request what asked for the sign-in that was just made.
func afterSignIn(query url.Values) url.Values {
	prompt := slices.DeleteFunc(askedScopes(query.Get("prompt")), func(p string) bool { return p == "login" || p == "select_account" })
	query.Set("prompt", strings.Join(prompt, " "))
	if query.Get("max_age") == "0" {
		query.Del("max_age")
	}
	return query
}

// sendCode sends the person back with a code.
func (s *service) sendCode(w http.ResponseWriter, r *http.Request, a *authorization, who *pb.Session) error {
	text, hash := token.New(codePrefix, s.random)
	r = origin(r, who.GetUserId())
	by, err := s.browserAsSubject(r.Context(), who, a.client)
	if err != nil {
		return err
	}
	err = s.db.Update(r.Context(), func(tx *store.Tx) error {
		if err := admit(tx, by, pathAuthorize); err != nil {
			return a.refuse("access_denied", "the person may not let the client in, or not any more")
		}
		if err := a.takePushed(tx); err != nil {
			return err
		}
		if a.client.GetOwner() == brandOwned {
			if brand, err := brandOf(tx, who.GetOrganizationId()); err != nil || brand.GetId() != a.client.GetBrandId() {
				return a.refuse("access_denied", "the client is not of the person's brand")
			}
		}
		return authCodes.Put(tx, &identitystorepb.AuthorizationCode{
			Id: tokenID(hash[:]), ClientId: a.client.GetId(), RedirectUri: a.redirect, Challenge: a.query.Get("code_challenge"),
			Scopes: a.scopes, Nonce: a.query.Get("nonce"), UserId: who.GetUserId(), OrganizationId: who.GetOrganizationId(),
			SessionId: who.GetId(), AuthTime: who.GetAuthTime(), Factors: numbersOf(who.GetFactors()...),
			ExpireTime: timestamppb.New(tx.Now().Add(codeLife)), PurgeTime: timestamppb.New(tx.Now().Add(codeRest)),
		})
	})
	if err != nil {
		return err
	}
	http.Redirect(w, r, a.back(s.issuer, "code", text), http.StatusSeeOther)
	return nil
}

// browserAsSubject is who lets a client in.
func (s *service) browserAsSubject(ctx context.Context, who *pb.Session, client *pb.OauthClient) (subject, error) {
	hours, err := s.hoursOf(ctx, who.GetOrganizationId(), who.GetUserId(), pb.Surface_SURFACE_API)
	return subject{
		organization: who.GetOrganizationId(), user: who.GetUserId(), session: who.GetId(), client: client.GetId(), hours: hours,
	}, err
}
