package identity_test

import (
	"strings"
	"testing"
	"time"

	"latchkey.dev/services/identity"
)

// RFC 8414 3, OpenID Connect Discovery 1.0 4: both documents say the same, name the issuer
// exactly, and every endpoint that they name is there.
func TestDiscovery(t *testing.T) {
	s := newSuite(t, time.Now)
	first := s.fetch("/.well-known/openid-configuration")
	second := s.fetch("/.well-known/oauth-authorization-server")
	if first.status != 200 || first.text != second.text || first.str("issuer") != issuer || first.header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s\nand %s", first.status, first.text, second.text)
	}
	if first.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(first.header.Get("Cache-Control"), "max-age=") {
		t.Errorf("got %v, want a document that anybody may read and keep", first.header)
	}
	for name, value := range first.body {
		url, _ := value.(string)
		if path, ok := strings.CutPrefix(url, issuer+"/"); ok {
			if r := s.fetch("/" + path); r.status == 404 {
				t.Errorf("there is no %s at %s", name, url)
			}
		}
	}
}

// Every key can be written as a scope, and no two alike (RFC 6749 3.3).
func TestScopesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, scope := range identity.Scopes() {
		if seen[scope] {
			t.Errorf("%q is there twice", scope)
		}
		seen[scope] = true
		for _, c := range []byte(scope) {
			if c <= ' ' || c == '"' || c == '\\' || c > '~' {
				t.Errorf("%q has the byte %q", scope, c)
			}
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d scopes", len(seen))
	}
}
