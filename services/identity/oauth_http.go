package identity

import (
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// The paths of the endpoints, below the issuer.
const (
	discoveryPath  = "/.well-known/openid-configuration"
	metadataPath   = "/.well-known/oauth-authorization-server"
	keysPath       = "/oauth2/keys"
	tokenPath      = "/oauth2/token"
	introspectPath = "/oauth2/introspect"
	revokePath     = "/oauth2/revoke"
	authorizePath  = "/oauth2/authorize"
	signInPath     = "/oauth2/sign-in"
	challengePath  = "/oauth2/challenge"
	consentPath    = "/oauth2/consent"
	userInfoPath   = "/oauth2/userinfo"
	signOutPath    = "/oauth2/sign-out"
	devicePath     = "/oauth2/device"
	deviceAuthPath = "/oauth2/device-authorization"
	pushPath       = "/oauth2/par"

	revocationsPath = "/oauth2/revocations"
	outsidePath     = "/oauth2/outside"
	outsideBackPath = "/oauth2/outside/callback"
)

// serveOAuth registers the endpoints of OAuth 2.0 and OpenID Connect.
func (s *service) serveOAuth(h *server.HTTP) {
	h.Handle("GET "+discoveryPath, s.discovery)
	h.Handle("GET "+metadataPath, s.discovery)
	h.Handle("GET "+keysPath, s.jwks)
	h.Handle("POST "+tokenPath, s.tokenEndpoint)
	h.Handle("POST "+introspectPath, s.introspectEndpoint)
	h.Handle("POST "+revokePath, s.revokeEndpoint)
	for _, method := range []string{"GET ", "POST "} {
		h.Handle(method+authorizePath, s.authorizeEndpoint)
		h.Handle(method+userInfoPath, s.userInfoEndpoint)
	}
	h.Handle("GET "+signInPath, s.signInPage)
	h.Handle("POST "+signInPath, s.signIn)
	h.Handle("POST "+challengePath, s.answerChallenge)
	h.Handle("POST "+consentPath, s.consent)
	h.Handle("GET "+signOutPath, s.signOutPage)
	h.Handle("POST "+signOutPath, s.signOut)
	h.Handle("POST "+pushPath, s.pushEndpoint)
	h.Handle("POST "+deviceAuthPath, s.deviceEndpoint)
	h.Handle("GET "+revocationsPath, s.listRevocations)
	h.Feed("GET "+revocationsPath+"/feed", s.feedRevocations)
	h.Handle("GET "+devicePath, s.devicePage)
	h.Handle("POST "+devicePath, s.decideDevice)
	h.Handle("GET "+outsidePath, s.outsidePage)
	h.Handle("GET "+outsideBackPath, s.outsideBack)
}

// oauthError is an error of an endpoint, as RFC 6749 5.2 writes it.
type oauthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description,omitempty"`
	status      int
}

// Error returns what the caller is told.
func (e *oauthError) Error() string { return e.Code + ": " + e.Description }

func oauthRefusal(code, description string) error {
	return &oauthError{code, description, http.StatusBadRequest}
}

// invalidClient is the one answer to a client that does not prove itself.
func invalidClient() error {
	return &oauthError{"invalid_client", "there is no such client, or it does not prove itself", http.StatusUnauthorized}
}

// invalidGrant is the one answer to whatever is wrong with what a client redeems.
func invalidGrant() error {
	return oauthRefusal("invalid_grant", "what the client shows is not valid, or not any more")
}

// asOAuth says an error of the suite in the words of OAuth. An error that it does not
// know is the suite's own.
func asOAuth(err error) *oauthError {
	if known, ok := errors.AsType[*oauthError](err); ok {
		return known
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		return &oauthError{"temporarily_unavailable", "try again", http.StatusServiceUnavailable}
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		switch f.Code {
		case codes.Unauthenticated, codes.PermissionDenied: // by the gate
			return invalidGrant().(*oauthError)
		case codes.Unavailable, codes.ResourceExhausted:
			return &oauthError{"temporarily_unavailable", "try again", http.StatusServiceUnavailable}
		}
	}
	return &oauthError{"server_error", "the suite is at fault; its log says more", http.StatusInternalServerError}
}

// refuse answers with an error.
func (s *service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := asOAuth(err)
	switch e.status {
	case http.StatusInternalServerError:
		s.log.ErrorContext(r.Context(), "an endpoint of OAuth is broken", "path", r.URL.Path, "error", err)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", strconv.Itoa(1))
	case http.StatusUnauthorized:
		if r.Header.Get("Authorization") != "" { // RFC 6749 5.2
			w.Header().Set("WWW-Authenticate", `Basic realm="latchkey"`)
		}
	}
	writeJSON(w, e.status, e)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// form reads the body of a request. Each parameter may be there once (RFC 6749 3.1), and
// an empty one counts as absent.
func form(r *http.Request) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, oauthRefusal("invalid_request", "the body must be application/x-www-form-urlencoded")
	}
	if err := r.ParseForm(); err != nil {
		return nil, oauthRefusal("invalid_request", "the body cannot be read")
	}
	return once(r.PostForm)
}

// once returns the parameters, if each is there once and readable.
func once(all url.Values) (url.Values, error) {
	clean := url.Values{}
	for name, values := range all {
		switch {
		case len(values) > 1:
			return nil, oauthRefusal("invalid_request", "a parameter is there more than once")
		case !utf8.ValidString(name) || !utf8.ValidString(values[0]):
			return nil, oauthRefusal("invalid_request", "a parameter is not UTF-8")
		case values[0] != "":
			clean.Set(name, values[0])
		}
	}
	return clean, nil
}

// origin says in the journal what an endpoint does, and for whom.
func origin(r *http.Request, caller string) *http.Request {
	o := store.Origin{Tenant: directory, Caller: caller, Method: "http" + r.URL.Path}
	return r.WithContext(store.WithOrigin(r.Context(), o))
}
