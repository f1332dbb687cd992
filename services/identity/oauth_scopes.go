package identity

import (
	"slices"
	"strings"

	"latchkey.dev/services/internal/catalog"
)

// Scopes beside the keys of the catalog.
const (
	scopeOpenID  = "openid"
	scopeProfile = "profile"
	scopeEmail   = "email"
	scopeOffline = "offline_access"
	// scopeAll is whatever the person may do.
	scopeAll = "all"
)

var plainScopes = []string{scopeOpenID, scopeProfile, scopeEmail, scopeOffline, scopeAll}

// scopeOf is how a key is written among scopes, which have no blanks (RFC 6749 3.3).
func scopeOf(key catalog.Key) string { return strings.ReplaceAll(key.Name, " ", "") }

// keyByScope finds the key of a scope.
func keyByScope(scope string) (catalog.Key, bool) {
	for _, key := range catalog.Keys() {
		if scopeOf(key) == scope {
			return key, true
		}
	}
	return catalog.Key{}, false
}

// isScope tells whether there is such a scope.
func isScope(scope string) bool {
	_, ok := keyByScope(scope)
	return ok || slices.Contains(plainScopes, scope)
}

// carriedBy returns the keys that a token with these scopes carries at most.
func carriedBy(scopes []string) catalog.Set {
	var set catalog.Set
	for _, key := range catalog.Keys() {
		if slices.Contains(scopes, scopeAll) || slices.Contains(scopes, scopeOf(key)) {
			set.Add(key.Bit())
		}
	}
	return set
}

// scopesOfKeys are the scopes that an API key has.
func scopesOfKeys(names []string) []string {
	var scopes []string
	for _, name := range names {
		if key, ok := catalog.Lookup(name); ok {
			scopes = append(scopes, scopeOf(key))
		}
	}
	return scopes
}

// askedScopes reads the scope parameter: in the order of the request, each once.
func askedScopes(text string) []string {
	var scopes []string
	for _, scope := range strings.Fields(text) {
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// allowedScopes returns what is asked for of what is allowed; all of it, but for what
// people are asked about, if nothing is asked for (RFC 6749 3.3).
func allowedScopes(asked, allowed []string) ([]string, error) {
	if len(asked) == 0 {
		return allowed, nil
	}
	for _, scope := range asked {
		if !slices.Contains(allowed, scope) {
			return nil, oauthRefusal("invalid_scope", "the client may not ask for a scope that it asked for")
		}
	}
	return asked, nil
}
