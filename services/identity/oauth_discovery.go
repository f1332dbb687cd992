package identity

import (
	"encoding/json"
	"fmt"
	"net/http"

	"latchkey.dev/services/internal/catalog"
)

// metadata is what clients discover (RFC 8414 2, OpenID Connect Discovery 1.0 3).
type metadata struct {
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
}

func (s *service) metadata() *metadata {
	secrets := []string{"client_secret_basic", "client_secret_post"}
	m := &metadata{
		Issuer: s.issuer, TokenEndpoint: s.issuer + tokenPath, JWKSURI: s.issuer + keysPath,
		IntrospectionEndpoint: s.issuer + introspectPath, RevocationEndpoint: s.issuer + revokePath,
		ScopesSupported: plainScopes, GrantTypes: []string{"client_credentials"},
		ClientAuth: append(secrets, "none"), IntrospectionAuth: secrets, RevocationAuth: append(secrets, "none"),
	}
	for _, key := range catalog.Keys() {
		m.ScopesSupported = append(m.ScopesSupported[:len(m.ScopesSupported):len(m.ScopesSupported)], scopeOf(key))
	}
	for _, alg := range algorithms {
		m.AccessTokenAlgorithms = append(m.AccessTokenAlgorithms, string(alg))
	}
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
