package server_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/certify"
	"latchkey.dev/services/internal/server"
)

// certs calls the command, which has to succeed, and returns what it says it did.
func certs(t *testing.T, args ...string) map[string]string {
	t.Helper()
	code, out, errOut := called(append([]string{"certs", "--format=json"}, args...), nil)
	if code != 0 {
		t.Fatalf("certs %q ends with %d: %s", args, code, errOut)
	}
	var r struct {
		Authority    string
		Certificates []struct{ Name, Outcome string }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"ca": r.Authority}
	for _, c := range r.Certificates {
		all[c.Name] = c.Outcome
	}
	return all
}

// asPeer returns the configuration of a process that shows the certificate of a file.
func asPeer(t *testing.T, folder, file string) server.Config {
	c := config(t)
	c.PeerCA, c.PeerCert, c.PeerKey = filepath.Join(folder, "ca.pem"), filepath.Join(folder, file+".pem"), filepath.Join(folder, file+"-key.pem")
	c.ServiceKey = strings.Repeat("k", 32)
	return c
}

// pair starts identity and permissions in one process, and invoicing in another.
func pair(t *testing.T, s *suite, folder string) (sources, invoicing *server.Process) {
	sources, invoicing, _, _ = startApart(t, s, asPeer(t, folder, "latchkey"), asPeer(t, folder, "invoicing"))
	return sources, invoicing
}

// calls makes a call that only services of the suite may make, with the right key.
func calls(t *testing.T, p *server.Process, service string, creds *tls.Config) error {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(),
		authz.ServiceHeader, service, authz.ServiceKeyHeader, strings.Repeat("k", 32), authz.TenantHeader, organization)
	conn := dialWith(t, p.Addr(), credentials.NewTLS(creds))
	_, err := permissionspb.NewGrantServiceClient(conn).ResolveGrants(ctx, &permissionspb.ResolveGrantsRequest{UserId: user})
	return err
}

// showing returns the TLS of a client that shows a certificate and looks at none.
func showing(t *testing.T, folder, file string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, file+".pem"), filepath.Join(folder, file+"-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}
}

// SECURITY: the key alone does not make a service where certificates are asked for, and
// each certificate makes none but its own.
func TestPeersShowCertificates(t *testing.T) {
	folder, other := t.TempDir(), t.TempDir()
	certs(t, folder, "latchkey", "invoicing", "scheduling")
	certs(t, other, "invoicing")
	expired := &certify.Folder{Path: folder, Now: func() time.Time { return time.Now().Add(-3 * time.Hour) }, Random: rand.Reader}
	if _, err := expired.Authority(false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := expired.Certificate(certify.Wanted{File: "late", Services: []string{"invoicing"}, Life: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s := newSuite()
	sources, invoicing := pair(t, s, folder)
	for name, c := range map[string]struct {
		as   string
		tls  *tls.Config
		want string // empty if it is let in
	}{
		"its own":             {"invoicing", showing(t, folder, "invoicing"), ""},
		"of the whole suite":  {"invoicing", showing(t, folder, "latchkey"), ""},
		"none":                {"invoicing", &tls.Config{InsecureSkipVerify: true}, "no certificate was shown"},
		"another service's":   {"invoicing", showing(t, folder, "scheduling"), "its certificate is for scheduling.latchkey.internal"},
		"of an operator":      {"operator", showing(t, folder, "invoicing"), "its certificate is for invoicing.latchkey.internal"},
		"expired":             {"invoicing", showing(t, folder, "late"), "expired"},
		"another authority's": {"invoicing", showing(t, other, "invoicing"), "signed by none of the authorities"},
	} {
		err := calls(t, sources, c.as, c.tls)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (status.Code(err) != codes.Unauthenticated || reason(err) != "PEER_UNPROVEN" || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want PEER_UNPROVEN and %q", name, err, c.want)
		}
	}
	// People have no certificate, and come with their token as ever.
	if err := getPart(s.signIn(t.Context()), dialWith(t, invoicing.Addr(), credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}))); err != nil {
		t.Error(err)
	}
	old, err := tls.Dial("tcp", invoicing.Addr(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}})
	if err == nil {
		old.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

// SECURITY: the key is sent to nobody who does not show the certificate of the service that
// is called. The log says what was wrong.
func TestPeerIsKnownByItsCertificate(t *testing.T) {
	folder, other := t.TempDir(), t.TempDir()
	certs(t, folder, "latchkey", "invoicing", "scheduling")
	certs(t, other)
	s := newSuite()
	for name, c := range map[string]struct {
		shown server.Config
		want  string
	}{
		"another authority's": {asPeer(t, other, "latchkey"), "signed by none of the authorities in --peer-ca"},
		"another service's":   {asPeer(t, folder, "scheduling"), "it is for scheduling.latchkey.internal"},
	} {
		t.Run(name, func(t *testing.T) {
			sources := start(t, c.shown, s.identity(), s.permissions())
			config := asPeer(t, folder, "invoicing")
			if err := config.Peers.Set("identity=" + sources.Addr() + ",permissions=" + sources.Addr()); err != nil {
				t.Fatal(err)
			}
			j := &journal{}
			p, err := server.Start(t.Context(), config, []server.Part{s.invoicing()}, server.Options{Log: j.log()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Stop)
			for limit := time.Now().Add(time.Minute); len(j.lines(c.want)) == 0; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatalf("the log does not say %q:\n%s", c.want, j.lines(""))
				}
			}
			select {
			case <-p.Serving():
				t.Error("it serves")
			default:
			}
		})
	}
}

// SECURITY: a connection ends with the certificate that was shown on it, and with it streams that
// would not end. Where none was shown it goes on.
func TestConnectionEndsWithCertificate(t *testing.T) {
	folder := t.TempDir()
	certs(t, folder, "latchkey", "invoicing")
	own, err := certify.ReadCertificates(filepath.Join(folder, "invoicing.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s := newSuite()
	p, err := server.Start(t.Context(), asPeer(t, folder, "latchkey"), s.parts(), server.Options{
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return own[0].NotAfter.Add(-100 * time.Millisecond) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	waitServing(t, p)
	var n connections
	without := dialWith(t, p.Addr(), credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}), grpc.WithStatsHandler(&n))
	watch := func(conn *grpc.ClientConn) healthpb.Health_WatchClient {
		w, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		waitHealth(t, w, healthpb.HealthCheckResponse_SERVING)
		return w
	}
	watch(without)
	service := watch(dialWith(t, p.Addr(), credentials.NewTLS(showing(t, folder, "invoicing"))))
	if _, err := service.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream of a service: got %v, want Unavailable", err)
	}
	if watch(without); n.begun.Load() != 1 {
		t.Errorf("who showed no certificate has connected %d times, want once", n.begun.Load())
	}
}

// A process goes on with certificates that are renewed, with new keys, and of a new
// authority, both as who calls and as who is called.
func TestPeerCertificatesAreReloaded(t *testing.T) {
	folder := t.TempDir()
	certs(t, folder)
	s := newSuite()
	sources, invoicing := pair(t, s, folder)
	for _, args := range [][]string{{"--renew"}, {"--new-keys"}, {"--new-ca"}, {"--renew"}, {"--forget-ca"}} {
		certs(t, append(args, folder)...)
		own, err := certify.ReadCertificates(filepath.Join(folder, "invoicing.pem"))
		if err != nil {
			t.Fatal(err)
		}
		wantShown(t, invoicing, "", own[0])
		if err := calls(t, sources, "invoicing", showing(t, folder, "invoicing")); err != nil {
			t.Errorf("after %q: %v", args, err)
		}
		// A process that starts now reaches those that have run all the time.
		c := asPeer(t, folder, "invoicing")
		if err := c.Peers.Set("identity=" + sources.Addr() + ",permissions=" + sources.Addr()); err != nil {
			t.Fatal(err)
		}
		start(t, c, s.invoicing()).Stop()
	}
}

// wantShown connects and looks at the certificate.
func wantShown(t *testing.T, p *server.Process, name string, want *x509.Certificate) {
	t.Helper()
	conn, err := tls.Dial("tcp", p.Addr(), &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(want) {
		t.Errorf("asked for %q: got the certificate of %s, number %d, want number %d", name, got.DNSNames, got.SerialNumber, want.SerialNumber)
	}
}

// A process with two certificates shows to people the one, and to services the other.
func TestPublicAndPeerCertificate(t *testing.T) {
	folder := t.TempDir()
	certs(t, folder)
	c := asPeer(t, folder, "latchkey")
	c.TLSCert, c.TLSKey = selfSigned(t, t.TempDir(), 1)
	s := newSuite()
	p := start(t, c, s.parts()...)
	public, err := certify.ReadCertificates(c.TLSCert)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := certify.ReadCertificates(c.PeerCert)
	if err != nil {
		t.Fatal(err)
	}
	wantShown(t, p, "localhost", public[0])
	wantShown(t, p, "", public[0])
	wantShown(t, p, "elsewhere.example", public[0])
	wantShown(t, p, certify.Name("identity"), peer[0])
	if err := getPart(s.signIn(t.Context()), dialWith(t, p.Addr(), trusting(t, c.TLSCert))); err != nil {
		t.Error(err)
	}
}

// The end of a certificate is told ahead, in the log and as a metric.
func TestCertificateEndIsTold(t *testing.T) {
	folder := t.TempDir()
	certs(t, folder, "latchkey")
	for name, c := range map[string]struct {
		later time.Duration
		want  int
	}{"at first": {0, 0}, "in its last quarter": {70 * 24 * time.Hour, 1}, "after its end": {91 * 24 * time.Hour, 1}} {
		t.Run(name, func(t *testing.T) {
			config := asPeer(t, folder, "latchkey")
			config.MetricsListen = freeAddr(t)
			j := &journal{}
			p, err := server.Start(t.Context(), config, newSuite().parts(), server.Options{
				Log: j.log(), Now: func() time.Time { return time.Now().Add(c.later) },
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Stop)
			waitServing(t, p)
			p.Stop() // which waits for whoever looks at them
			if got := j.lines("peer certificate ends soon"); len(got) != c.want {
				t.Errorf("the log says %q, want %d lines", got, c.want)
			}
		})
	}
	config := asPeer(t, folder, "latchkey")
	config.MetricsListen = freeAddr(t)
	start(t, config, newSuite().parts()...)
	_, text := get(t, http.DefaultClient, request(t, http.MethodGet, "http://"+config.MetricsListen+"/metrics", nil))
	for _, flag := range []string{"peer-cert", "peer-ca"} {
		if !strings.Contains(text, `latchkey_certificate_end_seconds{flag="`+flag+`"}`) {
			t.Errorf("no metric tells of the end of --%s", flag)
		}
	}
}

// The command makes what is missing, keeps what is good, and never writes over a key
// unless that was asked for.
func TestCertsCommand(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "certs")
	first := certs(t, folder)
	for _, name := range []string{"ca", "identity", "permissions", "invoicing", "latchkey", "operator"} {
		if first[name] != "made" {
			t.Errorf("at first: %s is %q, want made", name, first[name])
		}
	}
	safe(t, folder)
	before := read(t, folder)
	for _, c := range []struct {
		args    []string
		want    string
		ca      string
		changed []string // of identity's files and the authority's
	}{
		{nil, "kept", "kept", nil},
		{[]string{"--renew-within=2159h"}, "kept", "kept", nil},
		{[]string{"--lifetime=9000h", "--renew-within=2161h"}, "renewed", "kept", []string{"identity.pem"}},
		{[]string{"--hosts=id.example.com,10.0.0.1"}, "renewed", "kept", []string{"identity.pem"}},
		{[]string{"--hosts=id.example.com,10.0.0.1", "--new-keys"}, "rekeyed", "kept", []string{"identity.pem", "identity-key.pem"}},
		{[]string{"--hosts=id.example.com,10.0.0.1", "--new-ca"}, "kept", "rekeyed", []string{"ca.pem", "ca-key.pem"}},
		{[]string{"--hosts=id.example.com,10.0.0.1", "--renew"}, "renewed", "kept", []string{"identity.pem"}},
		{[]string{"--hosts=id.example.com,10.0.0.1", "--forget-ca"}, "kept", "kept", []string{"ca.pem"}},
	} {
		got := certs(t, append(c.args, folder)...)
		if got["identity"] != c.want || got["ca"] != c.ca {
			t.Errorf("%q: identity is %s and the authority %s, want %s and %s", c.args, got["identity"], got["ca"], c.want, c.ca)
		}
		after := read(t, folder)
		for _, file := range []string{"identity.pem", "identity-key.pem", "ca.pem", "ca-key.pem"} {
			if changed := after[file] != before[file]; changed != strings.Contains(strings.Join(c.changed, " "), file) {
				t.Errorf("%q: %s changed: %t, want changes to %q", c.args, file, changed, c.changed)
			}
		}
		before = after
		safe(t, folder)
	}
}

// safe wants each key readable by nobody else, and nothing left over.
func safe(t *testing.T, folder string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o644)
		if strings.HasSuffix(e.Name(), "-key.pem") {
			want = 0o600
		}
		if info.Mode() != want || !strings.HasSuffix(e.Name(), ".pem") {
			t.Errorf("%s has the mode %v, want %v", e.Name(), info.Mode(), want)
		}
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has %v, %v, want 0700", info.Mode(), err)
	}
}

// read returns the files of a folder.
func read(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(text)
	}
	return files
}

// What would endanger a key, or cut the suite off, is refused and changes nothing.
func TestCertsCommandRefuses(t *testing.T) {
	const how = " (latchkey certs --help says how to call it)"
	whole := t.TempDir()
	certs(t, whole)
	without := func(file string) string {
		folder := t.TempDir()
		for name, text := range read(t, whole) {
			if name != file {
				if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		return folder
	}
	old := without("")
	certs(t, "--new-ca", old)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "expected FOLDER" + how},
		{[]string{"--lifetime=59s", whole}, 2, "--lifetime 59s: expected 1m to 9600h" + how},
		{[]string{"--lifetime=1h", "--renew-within=1h", whole}, 2, "--renew-within 1h0m0s: expected less than --lifetime" + how},
		{[]string{"--new-ca", "--forget-ca", whole}, 2, "--new-ca and --forget-ca at once would cut off every process until it has the new ca.pem" + how},
		{[]string{"--hosts=a:1", whole}, 2, `--hosts "a:1": expected names and IP addresses, without ports, with commas between` + how},
		{[]string{whole, "ca"}, 2, `"ca" cannot be the name of a service: expected small letters, digits and dashes, not ca, and no -key at the end` + how},
		{[]string{whole, "../identity"}, 2, `"../identity" cannot be the name of a service: expected small letters, digits and dashes, not ca, and no -key at the end` + how},
		{[]string{without("ca-key.pem")}, 1, "nothing is made beside what is there"},
		{[]string{without("ca.pem")}, 1, "nothing is made beside what is there"},
		{[]string{without("identity-key.pem")}, 1, "identity: there is identity.pem, and no identity-key.pem: move it away first"},
		{[]string{"--forget-ca", old}, 1, "is signed by an authority before the newest: renew it first"},
	} {
		var before map[string]string
		if c.code == 1 {
			before = read(t, c.args[len(c.args)-1])
		}
		code, _, errOut := called(append([]string{"certs"}, c.args...), nil)
		if code != c.code || !strings.Contains(errOut, c.want) {
			t.Errorf("%q: got %d %s, want %d and %s", c.args, code, errOut, c.code, c.want)
		}
		if c.code == 1 {
			for name, text := range read(t, c.args[len(c.args)-1]) {
				if before[name] != text {
					t.Errorf("%q changes %s", c.args, name)
				}
			}
		}
	}
}

// A command calls the processes as the operator, and is let in by the operator's
// certificate alone.
func TestOperatorShowsCertificate(t *testing.T) {
	folder := t.TempDir()
	certs(t, folder)
	c := asPeer(t, folder, "latchkey")
	p := start(t, c, newSuite().parts()...)
	for file, want := range map[string]int{"operator": 0, "latchkey": 0, "invoicing": 1} {
		own := asPeer(t, folder, file)
		code, _, errOut := called([]string{"verify"}, map[string]string{
			"LATCHKEY_STORE": c.Store, "LATCHKEY_LISTEN": p.Addr(), "LATCHKEY_SERVICE_KEY": c.ServiceKey,
			"LATCHKEY_PEER_CA": own.PeerCA, "LATCHKEY_PEER_CERT": own.PeerCert, "LATCHKEY_PEER_KEY": own.PeerKey,
		})
		if code != want {
			t.Errorf("with the certificate of %s: got exit code %d, %s, want %d", file, code, errOut, want)
		}
	}
}
