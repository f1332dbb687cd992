package identity

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

// makeIDToken makes what tells a client who its person is (OpenID Connect Core 1.0 2);
// empty if it did not ask.
func (s *service) makeIDToken(ctx context.Context, client *pb.OauthClient, a access, nonce, accessToken string) (string, error) {
	if !slices.Contains(a.scopes, scopeOpenID) {
		return "", nil
	}
	now, alg := s.now(), algorithmOf(client)
	claims := map[string]any{
		"iss": s.issuer, "sub": a.subject, "aud": client.GetId(), "iat": now.Unix(), "exp": now.Add(accessLife).Unix(),
		"auth_time": a.authTime.Unix(), "at_hash": halfHash(alg, accessToken), "sid": a.session, "org": a.organization,
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if acr := classOf(a.factors); acr != "" {
		claims["acr"], claims["amr"] = acr, methodsOf(a.factors)
	}
	return s.sign(ctx, alg, "JWT", claims)
}

// classOf is how much factors are worth, in the words of STEP_UP_NEEDED (acr of OpenID
// Connect Core 1.0 2); empty if there are none.
func classOf(factors []pb.Factor) string {
	switch {
	case len(factors) == 0:
		return ""
	case strengthOf(factors) == multiFactor:
		return "multi_factor"
	}
	return "single_factor"
}

// methods are the names of factors in RFC 8176 2, which has none for the word of another
// provider.
var methods = map[pb.Factor]string{
	factorPassword: "pwd", factorTOTP: "otp", factorPasskey: "pop", factorRecovery: "otp", factorProvider: "fed", factorProviderMulti: "fed",
}

// methodsOf names what a person signed in with (amr), each once.
func methodsOf(factors []pb.Factor) (names []string) {
	for _, f := range factors {
		if name := methods[f]; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if strengthOf(factors) == multiFactor {
		names = append(names, "mfa")
	}
	return names
}

// halfHash is the left half of the hash that an algorithm uses (OpenID Connect Core 1.0
// 3.1.3.6).
func halfHash(alg jose.SignatureAlgorithm, text string) string {
	if alg == jose.EdDSA {
		sum := sha512.Sum512([]byte(text))
		return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
	}
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// userInfo is what a client is told of its person (OpenID Connect Core 1.0 5.1).
type userInfo struct {
	Subject       string `json:"sub"`
	Name          string `json:"name,omitempty"`
	UpdatedAt     int64  `json:"updated_at,omitempty"`
	Email         string `json:"email,omitempty"`
	EmailVerified *bool  `json:"email_verified,omitempty"`
}

// userInfoEndpoint tells a client about its person (OpenID Connect Core 1.0 5.3).
func (s *service) userInfoEndpoint(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	text, err := shownToken(r)
	if err != nil {
		s.challenge(w, r, err)
		return
	}
	found, err := s.introspect(r.Context(), text, "")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	switch {
	case found == nil || found.kept.GetClientId() == "" || found.kept.GetClientId() == found.facts.GetSessionId():
		s.challenge(w, r, &oauthError{"invalid_token", "the access token is not valid, or not any more", http.StatusUnauthorized})
		return
	case !slices.Contains(askedScopes(found.kept.GetScope()), scopeOpenID):
		s.challenge(w, r, &oauthError{"insufficient_scope", "the access token lacks the scope openid", http.StatusForbidden})
		return
	}
	info, err := s.userInfo(r.Context(), found)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, info)
}

func (s *service) userInfo(ctx context.Context, found *introspected) (*userInfo, error) {
	profile, err := read(ctx, s, func(tx *store.Tx) (*pb.Profile, error) { return profileOf(tx, found.facts.GetUserId()) })
	if err != nil {
		return nil, err
	}
	info := &userInfo{Subject: profile.GetId()}
	scopes := askedScopes(found.kept.GetScope())
	if slices.Contains(scopes, scopeProfile) {
		info.Name, info.UpdatedAt = profile.GetDisplayName(), profile.GetUpdateTime().GetSeconds()
	}
	if slices.Contains(scopes, scopeEmail) {
		info.Email, info.EmailVerified = profile.GetEmail(), new(bool) // nobody has verified it
	}
	return info, nil
}

// shownToken reads the access token of a request: from the header, or of a form from its
// body (RFC 6750 2).
func shownToken(r *http.Request) (string, error) {
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if ok && strings.EqualFold(scheme, "bearer") {
		return text, nil
	}
	if r.Method == http.MethodPost {
		f, err := form(r)
		if err == nil && f.Has("access_token") {
			return f.Get("access_token"), nil
		}
	}
	return "", &oauthError{"", "", http.StatusUnauthorized}
}

// challenge answers to whoever shows no valid token (RFC 6750 3).
func (s *service) challenge(w http.ResponseWriter, r *http.Request, err error) {
	e := asOAuth(err)
	value := `Bearer realm="latchkey"`
	if e.Code != "" {
		value += `, error="` + e.Code + `", error_description="` + e.Description + `"`
	}
	w.Header().Set("WWW-Authenticate", value)
	writeJSON(w, e.status, e)
}
