package server_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"latchkey.dev/services/internal/server"
)

// values are a right value of each flag, other than its default.
var values = map[string]string{
	"listen": "localhost:9000", "tls-cert": "cert.pem", "tls-key": "key.pem", "store": "bolt:elsewhere", "blobs": "file:///photos", "counts": "counts",
	"demo": "true", "bootstrap-code": "twenty-characters-and-more", "peers": "identity=127.0.0.1:9001", "tls-ca": "ca.pem",
	"peer-cert": "peer.pem", "peer-key": "peer-key.pem", "peer-ca": "ca.pem",
	"service-key-file": "key", "service-key": strings.Repeat("k", 32), "lease": "10s", "advertise": "localhost:9003", "log-level": "debug", "log-format": "json",
	"metrics-listen": "127.0.0.1:9002", "trace-endpoint": "http://127.0.0.1:4317", "check": "live", "call-timeout": "1m",
	"http-listen": "127.0.0.1:9003", "issuer": "http://127.0.0.1:9003", "seal-key-file": "seal.key",
	"passkey-domain": "example.com", "passkey-origins": "https://app.example.com,android:apk-key-hash:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
	"outside-networks": "10.1.0.0/16,fd00::/8", "trusted-proxies": "10.2.0.0/16", "drain": "1s",
	"smtp": "smtp://127.0.0.1:2525", "smtp-sender": "no-reply@example.com", "smtp-password-file": "password", "sign-in-page": "https://app.example.com/",
	"max-message": "65536", "max-streams": "7",
}

func env(set map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		text, ok := set[name]
		return text, ok
	}
}

// Each flag can be given as a flag and as an environment variable, and does something.
func TestEachFlag(t *testing.T) {
	if got, want := len(server.FlagNames()), len(values); got != want {
		t.Fatalf("there are %d flags, but the test has a value for %d: add one", got, want)
	}
	for _, name := range server.FlagNames() {
		t.Run(name, func(t *testing.T) {
			value, ok := values[name]
			if !ok {
				t.Fatalf("the test has no value for --%s: add one", name)
			}
			args, vars := []string{"--" + name + "=" + value}, map[string]string{server.Variable(name): value}
			if strings.HasPrefix(name, "tls-") && name != "tls-ca" { // these two go together
				args = []string{"--tls-cert=cert.pem", "--tls-key=key.pem"}
				vars = map[string]string{"LATCHKEY_TLS_CERT": "cert.pem", "LATCHKEY_TLS_KEY": "key.pem"}
			}
			if strings.HasPrefix(name, "peer-") { // these three too
				args = []string{"--peer-cert=peer.pem", "--peer-key=peer-key.pem", "--peer-ca=ca.pem"}
				vars = map[string]string{"LATCHKEY_PEER_CERT": "peer.pem", "LATCHKEY_PEER_KEY": "peer-key.pem", "LATCHKEY_PEER_CA": "ca.pem"}
			}
			if name == "issuer" { // needs another
				args = append(args, "--http-listen=127.0.0.1:9003")
				vars["LATCHKEY_HTTP_LISTEN"] = "127.0.0.1:9003"
			}
			if name == "passkey-origins" { // likewise
				args = append(args, "--passkey-domain=example.com")
				vars["LATCHKEY_PASSKEY_DOMAIN"] = "example.com"
			}
			if strings.HasPrefix(name, "smtp") || name == "sign-in-page" { // these go together
				args = []string{"--smtp=smtp://ada@127.0.0.1:2525", "--smtp-sender=no-reply@example.com", "--smtp-password-file=password", "--sign-in-page=https://app.example.com/"}
				vars = map[string]string{
					"LATCHKEY_SMTP": "smtp://ada@127.0.0.1:2525", "LATCHKEY_SMTP_SENDER": "no-reply@example.com",
					"LATCHKEY_SMTP_PASSWORD_FILE": "password", "LATCHKEY_SIGN_IN_PAGE": "https://app.example.com/",
				}
			}
			byFlag, err := server.Parse(args, env(nil))
			if err != nil {
				t.Fatal(err)
			}
			byEnv, err := server.Parse(nil, env(vars))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(byFlag, byEnv) {
				t.Errorf("%v makes %+v, but %v makes %+v", args, byFlag, vars, byEnv)
			}
			if reflect.DeepEqual(byFlag, server.Defaults()) {
				t.Errorf("%v changes nothing", args)
			}
			// A flag wins over the environment.
			if name == "listen" {
				both, err := server.Parse([]string{"--listen", "127.0.0.1:1"}, env(vars))
				if err != nil || both.Listen != "127.0.0.1:1" {
					t.Errorf("with both: got %q, %v, want the flag's", both.Listen, err)
				}
			}
		})
	}
}

func TestSeveralPeers(t *testing.T) {
	c, err := server.Parse([]string{"--peers", "identity=localhost:1, permissions=127.0.0.1:2", "--peers=invoicing=[::1]:3"}, env(nil))
	if want := "identity=localhost:1,invoicing=[::1]:3,permissions=127.0.0.1:2"; err != nil || c.Peers.String() != want {
		t.Errorf("got %v, %v, want %s", c.Peers, err, want)
	}
}

// What is written wrongly is told in one line, with exit code 2, before anything starts.
func TestWrongFlags(t *testing.T) {
	const lists = " (latchkey --help lists the flags)"
	const open = " (a certificate for a test: openssl req -x509 -newkey ed25519 -nodes -days 30 -subj /CN=latchkey -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem)"
	for _, c := range []struct {
		args []string
		vars map[string]string
		want string
	}{
		{[]string{"--bogus"}, nil, "flag provided but not defined: --bogus" + lists},
		{[]string{"--demo", "serve"}, nil, `unexpected argument "serve"` + lists},
		{[]string{"serve"}, nil, `there is no command "serve" (latchkey help lists them)`},
		{[]string{"--lease"}, nil, "flag needs an argument: --lease" + lists},
		{[]string{"--lease", "3"}, nil, `invalid value "3" for flag --lease: expected a duration, for example 30s or 1m30s` + lists},
		{[]string{"--lease", "99ms"}, nil, "--lease 99ms: expected 100ms to 1m"},
		{[]string{"--lease", "61s"}, nil, "--lease 1m1s: expected 100ms to 1m"},
		{[]string{"--max-streams", "-1"}, nil, `invalid value "-1" for flag --max-streams: expected a number, 0 or more` + lists},
		{[]string{"--max-streams", "0"}, nil, "--max-streams 0: expected 1 to 1000000"},
		{[]string{"--max-message", "1"}, nil, "--max-message 1: expected 65536 to 67108864"},
		{[]string{"--drain", "-1s"}, nil, "--drain -1s: expected 0s or more"},
		{[]string{"--call-timeout", "0s"}, nil, "--call-timeout 0s: expected more than 0s"},
		{[]string{"--demo=perhaps"}, nil, `invalid boolean value "perhaps" for --demo: expected true or false` + lists},
		{[]string{"--check=perhaps"}, nil, `invalid boolean value "perhaps" for --check: expected ready or live, got "perhaps"` + lists},
		{[]string{"--listen", "8480"}, nil, `--listen "8480": expected HOST:PORT, for example 127.0.0.1:8480`},
		{[]string{"--listen", "localhost:http!"}, nil, `--listen "localhost:http!": expected HOST:PORT, for example 127.0.0.1:8480`},
		{[]string{"--listen", "localhost:65536"}, nil, `--listen "localhost:65536": expected HOST:PORT, for example 127.0.0.1:8480`},
		{[]string{"--listen", ":8480"}, nil, "--listen :8480 is not a loopback address, and without TLS passwords would cross the network readable: set --tls-cert and --tls-key" + open},
		{[]string{"--listen", "0.0.0.0:8480"}, nil, "--listen 0.0.0.0:8480 is not a loopback address, and without TLS passwords would cross the network readable: set --tls-cert and --tls-key" + open},
		{[]string{"--listen", "example.org:8480"}, nil, "--listen example.org:8480 is not a loopback address, and without TLS passwords would cross the network readable: set --tls-cert and --tls-key" + open},
		{[]string{"--tls-cert", "x"}, nil, "--tls-cert and --tls-key go together"},
		{[]string{"--tls-key", "x"}, nil, "--tls-cert and --tls-key go together"},
		{[]string{"--peer-cert", "x", "--peer-key", "x"}, nil, "--peer-cert, --peer-key and --peer-ca go together"},
		{[]string{"--peer-ca", "x"}, nil, "--peer-cert, --peer-key and --peer-ca go together"},
		{[]string{"--peer-cert", "x", "--peer-key", "x", "--peer-ca", "x", "--tls-ca", "x"}, nil, "--tls-ca and --peer-ca: the certificates of other processes are signed by the one or by the other"},
		{[]string{"--http-listen", "9000"}, nil, `--http-listen "9000": expected HOST:PORT, for example 127.0.0.1:8480`},
		{[]string{"--http-listen", ":9000"}, nil, "--http-listen :9000 is not a loopback address, and without TLS passwords would cross the network readable: set --tls-cert and --tls-key"},
		{[]string{"--http-listen", ":9000", "--tls-cert", "x", "--tls-key", "x"}, nil, "--http-listen :9000 is not a loopback address: set --issuer to the URL under which others reach it"},
		{[]string{"--issuer", "https://id.example.com"}, nil, "--issuer needs --http-listen"},
		{[]string{"--http-listen", "[::1]:0", "--issuer", "http://id.example.com"}, nil, `--issuer "http://id.example.com": expected https://HOST, without a path, or http:// on a loopback address`},
		{[]string{"--http-listen", "[::1]:0", "--issuer", "https://id.example.com/"}, nil, `--issuer "https://id.example.com/": expected https://HOST, without a path, or http:// on a loopback address`},
		{[]string{"--http-listen", "[::1]:0", "--issuer", "https://id.example.com?x"}, nil, `--issuer "https://id.example.com?x": expected https://HOST, without a path, or http:// on a loopback address`},
		{[]string{"--http-listen", "[::1]:0", "--issuer", "https://a@id.example.com"}, nil, `--issuer "https://a@id.example.com": expected https://HOST, without a path, or http:// on a loopback address`},
		{[]string{"--http-listen", "[::1]:0", "--issuer", "id.example.com"}, nil, `--issuer "id.example.com": expected https://HOST, without a path, or http:// on a loopback address`},
		{[]string{"--store", "mysql://u:secret@x"}, nil, `--store mysql://...: expected bolt:FOLDER, or postgres://USER@HOST/DATABASE`},
		{[]string{"--store", "bolt:"}, nil, `--store "bolt:": expected bolt:FOLDER, or postgres://USER@HOST/DATABASE`},
		{[]string{"--blobs", "photos"}, nil, `--blobs "photos": expected a URL, for example file:///FOLDER`},
		{[]string{"--peers", "identity"}, nil, `invalid value "identity" for flag --peers: expected SERVICE=HOST:PORT, got "identity"` + lists},
		{[]string{"--peers", "identity=x"}, nil, `invalid value "identity=x" for flag --peers: expected SERVICE=HOST:PORT, got "identity=x"` + lists},
		{[]string{"--peers", "identity=10.0.0.1:8480"}, nil, "--peers identity=10.0.0.1:8480 is not a loopback address, and without TLS the service key would cross the network readable: set --peer-cert, --peer-key and --peer-ca, or --tls-ca to the certificates that sign the peers' own"},
		{[]string{"--service-key", "short"}, nil, "the service key in --service-key is too short: expected at least 32 characters"},
		{[]string{"--bootstrap-code", "short"}, nil, "--bootstrap-code: expected at least 20 characters"},
		{[]string{"--metrics-listen", "9000"}, nil, `--metrics-listen "9000": expected HOST:PORT, for example 127.0.0.1:8480`},
		{[]string{"--trace-endpoint", "127.0.0.1:4317"}, nil, `--trace-endpoint "127.0.0.1:4317": expected a URL, for example http://127.0.0.1:4317`},
		{[]string{"--log-level", "loud"}, nil, `--log-level "loud": expected debug, info, warn or error`},
		{[]string{"--log-format", "xml"}, nil, `--log-format "xml": expected text or json`},
		{nil, map[string]string{"LATCHKEY_LEASE": "long"}, `environment variable LATCHKEY_LEASE is "long": expected a duration, for example 30s or 1m30s`},
		{nil, map[string]string{"LATCHKEY_DEMO": ""}, `environment variable LATCHKEY_DEMO is "": expected true or false`},
		{nil, map[string]string{"LATCHKEY_LOG_LEVEL": "loud"}, `--log-level "loud": expected debug, info, warn or error`},
	} {
		var out, errOut bytes.Buffer
		code := server.Run(nil, newSuite().parts(), c.args, env(c.vars), &out, &errOut)
		if got, want := errOut.String(), "latchkey: "+c.want+"\n"; code != 2 || got != want || out.Len() > 0 {
			t.Errorf("%q %v:\n got %d %swant 2 %sand on standard output: %q", c.args, c.vars, code, got, want, &out)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--listen", "x:1", "--help"}} {
		var out, errOut bytes.Buffer
		if code := server.Run(nil, newSuite().parts(), args, env(nil), &out, &errOut); code != 0 || errOut.Len() > 0 {
			t.Fatalf("%q: got exit code %d and %q on standard error, want 0 and nothing", args, code, &errOut)
		}
		for _, name := range server.FlagNames() {
			if n := strings.Count(out.String(), "\n  --"+name+" "); n != 1 || !strings.Contains(out.String(), server.Variable(name)+"\n") {
				t.Errorf("%q tells of --%s %d times, or not of its environment variable", args, name, n)
			}
		}
		for line := range strings.Lines(out.String()) {
			if len(line) > 84 || strings.HasSuffix(line, " \n") {
				t.Errorf("a line of %d bytes: %q", len(line), line)
			}
		}
		if want := "latchkey runs Latchkey's services in one process: identity, permissions and\ninvoicing.\n\nUsage:\n"; !strings.HasPrefix(out.String(), want) {
			t.Errorf("got %.150q, want it to begin with %q", out.String(), want)
		}
	}
	var out bytes.Buffer
	server.Run(nil, []server.Part{newSuite().invoicing()}, []string{"--help"}, env(nil), &out, &out)
	if want := "invoicing runs the invoicing service of Latchkey.\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("one service: got %.150q, want it to begin with %q", out.String(), want)
	}
}

func TestDescription(t *testing.T) {
	s := newSuite()
	for want, parts := range map[string][]server.Part{
		"the invoicing service of Latchkey":                          {s.invoicing()},
		"Latchkey's services in one process: invoicing":              {s.invoicing(), {Name: "demo"}},
		"Latchkey's services in one process: identity and invoicing": {s.identity(), s.invoicing(), {Name: "demo"}},
	} {
		if got := server.Description(parts); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
