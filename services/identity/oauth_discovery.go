package identity

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"latchkey.dev/services/internal/catalog"
)

// providerMetadata is what clients discover (RFC 8414 2, OpenID Connect Discovery 1.0 3).
type providerMetadata struct {
	Issuer                string   `json:"issuer"`
	TokenEndpoint         string   `json:"token_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	IntrospectionEndpoint string   `json:"introspection_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	ScopesSupported       []string `json:"scopes_supported"`
	GrantTypes            []string `json:"grant_types_supported"`
	ClientAuth            []string `json:"token_endpoint_auth_methods_supported"`
	IntrospectionAuth     []string `json:"introspection_endpoint_auth_methods_supported"`
	RevocationAuth        []string `json:"revocation_endpoint_auth_methods_supported"`
	AccessTokenAlgorithms []string `json:"access_token_signing_alg_values_supported"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	UserInfoEndpoint      string   `json:"userinfo_endpoint"`
	EndSessionEndpoint    string   `json:"end_session_endpoint"`
	DeviceEndpoint        string   `json:"device_authorization_endpoint"`
	PushEndpoint          string   `json:"pushed_authorization_request_endpoint"`
	RequirePushed         bool     `json:"require_pushed_authorization_requests"`
	ResponseTypes         []string `json:"response_types_supported"`
	ResponseModes         []string `json:"response_modes_supported"`
	SubjectTypes          []string `json:"subject_types_supported"`
	IDTokenAlgorithms     []string `json:"id_token_signing_alg_values_supported"`
	ChallengeMethods      []string `json:"code_challenge_methods_supported"`
	PromptValues          []string `json:"prompt_values_supported"`
	Claims                []string `json:"claims_supported"`
	Classes               []string `json:"acr_values_supported"`
	NamesIssuer           bool     `json:"authorization_response_iss_parameter_supported"`
	RequestParameter      bool     `json:"request_parameter_supported"`
	RequestURIParameter   bool     `json:"request_uri_parameter_supported"`
	ClaimsParameter       bool     `json:"claims_parameter_supported"`
}

func (s *service) metadata() *providerMetadata {
	secrets := []string{"client_secret_basic", "client_secret_post"}
	m := &providerMetadata{
		Issuer: s.issuer, TokenEndpoint: s.issuer + tokenPath, JWKSURI: s.issuer + keysPath,
		IntrospectionEndpoint: s.issuer + introspectPath, RevocationEndpoint: s.issuer + revokePath,
		ScopesSupported: plainScopes, GrantTypes: slices.Sorted(maps.Keys(grants)),
		ClientAuth: append(secrets, "none"), IntrospectionAuth: secrets, RevocationAuth: append(secrets, "none"),
		AuthorizationEndpoint: s.issuer + authorizePath, UserInfoEndpoint: s.issuer + userInfoPath,
		EndSessionEndpoint: s.issuer + signOutPath, DeviceEndpoint: s.issuer + deviceAuthPath, PushEndpoint: s.issuer + pushPath,
		ResponseTypes: []string{"code"}, ResponseModes: []string{"query"}, SubjectTypes: []string{"public"},
		ChallengeMethods: []string{"S256"}, PromptValues: []string{"none", "login", "consent", "select_account"},
		Claims: []string{"sub", "iss", "aud", "exp", "iat", "auth_time", "acr", "amr", "nonce", "name", "updated_at", "email", "email_verified"}, NamesIssuer: true,
		Classes: classes,
	}
	for _, key := range catalog.Keys() {
		m.ScopesSupported = append(m.ScopesSupported[:len(m.ScopesSupported):len(m.ScopesSupported)], scopeOf(key))
	}
	for _, alg := range algorithms {
		m.AccessTokenAlgorithms = append(m.AccessTokenAlgorithms, string(alg))
	}
	m.IDTokenAlgorithms = m.AccessTokenAlgorithms
	return m
}

// public lets a document be kept, and read by pages of any origin.
func public(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%.0f", keysFresh.Seconds()))
}

func (s *service) discovery(w http.ResponseWriter, _ *http.Request) {
	public(w)
	writeJSON(w, http.StatusOK, s.metadata())
}

// jwks serves the keys that verify tokens (RFC 7517 5).
func (s *service) jwks(w http.ResponseWriter, r *http.Request) {
	keys, err := s.publicKeys(origin(r, "").Context())
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	public(w)
	writeJSON(w, http.StatusOK, map[string][]json.RawMessage{"keys": keys})
}
