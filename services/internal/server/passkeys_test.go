package server_test

import (
	"testing"

	"latchkey.dev/services/internal/server"
)

func TestPasskeyFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		ok   bool
	}{
		{[]string{"--passkey-domain=example.com"}, true},
		{[]string{"--passkey-domain=localhost", "--passkey-origins=http://localhost:8080"}, true},
		{[]string{"--passkey-domain=example.com", "--passkey-origins=https://example.com, https://app.example.com:8443"}, true},
		{[]string{"--issuer=https://id.example.com", "--http-listen=127.0.0.1:0", "--passkey-origins=https://id.example.com"}, true},
		{[]string{"--passkey-domain=Example.com"}, false},
		{[]string{"--passkey-domain=127.0.0.1"}, false},
		{[]string{"--passkey-domain=com:443"}, false},
		{[]string{"--passkey-domain=https://example.com"}, false},
		{[]string{"--passkey-origins=https://example.com"}, false},
		{[]string{"--issuer=https://10.0.0.1", "--http-listen=127.0.0.1:0", "--passkey-origins=https://10.0.0.1"}, false},
		{[]string{"--passkey-domain=example.com", "--passkey-origins=https://example.com/"}, false},
		{[]string{"--passkey-domain=example.com", "--passkey-origins=http://example.com"}, false},
		{[]string{"--passkey-domain=example.com", "--passkey-origins=https://notexample.com"}, false},
		{[]string{"--passkey-domain=example.com", "--passkey-origins=https://example.com.evil.org"}, false},
		{[]string{"--passkey-domain=example.com", "--passkey-origins=https://example.com@evil.org"}, false},
		{[]string{"--passkey-domain=example.com", "--passkey-origins=android:apk-key-hash:short"}, false},
	} {
		if _, err := server.Parse(c.args, env(nil)); (err == nil) != c.ok {
			t.Errorf("%v: got %v, want it taken: %v", c.args, err, c.ok)
		}
	}
}
