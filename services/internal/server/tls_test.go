package server_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"latchkey.dev/services/internal/server"
)

// selfSigned writes a new certificate with the serial number into the folder.
func selfSigned(t *testing.T, folder string, serial int64) (cert, key string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "latchkey"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	writePEM(t, key, "PRIVATE KEY", pkcs)
	writePEM(t, cert, "CERTIFICATE", der)
	return cert, key
}

// writePEM writes a file, changed for certain: a file system may count in seconds.
func writePEM(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	before, statErr := os.Stat(name)
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if statErr == nil {
		later := before.ModTime().Add(time.Second)
		if err := os.Chtimes(name, later, later); err != nil {
			t.Fatal(err)
		}
	}
}

// trusting returns credentials of a client that trusts the certificates of a file.
func trusting(t *testing.T, file string) credentials.TransportCredentials {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "localhost"})
}

func TestTLS(t *testing.T) {
	c := config(t)
	c.TLSCert, c.TLSKey = selfSigned(t, t.TempDir(), 1)
	s := newSuite()
	p := start(t, c, s.parts()...) // it serves only if it reaches itself, for its leases
	if err := getPart(s.signIn(t.Context()), dialWith(t, p.Addr(), trusting(t, c.TLSCert))); err != nil {
		t.Errorf("who trusts its certificate: %v", err)
	}
	stranger, _ := selfSigned(t, t.TempDir(), 2)
	for name, conn := range map[string]*grpc.ClientConn{
		"who trusts another": dialWith(t, p.Addr(), trusting(t, stranger)),
		"in plaintext":       dial(t, p.Addr()),
	} {
		if got := status.Code(getPart(t.Context(), conn)); got != codes.Unavailable {
			t.Errorf("%s: got %v, want Unavailable", name, got)
		}
	}
	old, err := tls.Dial("tcp", p.Addr(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}})
	if err == nil {
		old.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

func TestCertificateIsReloaded(t *testing.T) {
	folder := t.TempDir()
	c := config(t)
	c.TLSCert, c.TLSKey = selfSigned(t, folder, 1)
	s := newSuite()
	p, j := startLogged(t, c, s.parts()...)
	wantSerial(t, p, 1)
	selfSigned(t, folder, 2)
	wantSerial(t, p, 2)
	if err := os.WriteFile(c.TLSCert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantSerial(t, p, 2)
	wantSerial(t, p, 2)
	if got := j.lines("the changed TLS certificate cannot be read"); len(got) != 1 {
		t.Errorf("of the file that cannot be read the log says %q, want one line", got)
	}
	if err := os.Remove(c.TLSCert); err != nil {
		t.Fatal(err)
	}
	wantSerial(t, p, 2)
	selfSigned(t, folder, 3)
	wantSerial(t, p, 3)
	// The process still reaches itself, by new connections too.
	if err := getPart(s.signIn(t.Context()), dialWith(t, p.Addr(), trusting(t, c.TLSCert))); err != nil {
		t.Error(err)
	}
}

// wantSerial connects and looks at the certificate.
func wantSerial(t *testing.T, p *server.Process, want int64) {
	t.Helper()
	conn, err := tls.Dial("tcp", p.Addr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != want {
		t.Errorf("got the certificate with the number %d, want %d", got, want)
	}
}

// SECURITY: a process that calls itself sends the service key, to nobody but itself.
func TestSelfConnectionIsPinned(t *testing.T) {
	ownCert, ownKey := selfSigned(t, t.TempDir(), 1)
	otherCert, otherKey := selfSigned(t, t.TempDir(), 1)
	for name, c := range map[string]struct {
		cert, key string
		ok        bool
	}{"itself": {ownCert, ownKey, true}, "another": {otherCert, otherKey, false}} {
		t.Run(name, func(t *testing.T) {
			pair, err := tls.LoadX509KeyPair(c.cert, c.key)
			if err != nil {
				t.Fatal(err)
			}
			client, peer := net.Pipe()
			defer client.Close()
			answered := inBackground(func() error {
				defer peer.Close()
				return tls.Server(peer, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}).HandshakeContext(t.Context())
			})
			creds, err := server.SelfCredentials(ownCert, ownKey)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = creds.ClientHandshake(t.Context(), "localhost", client)
			if (err == nil) != c.ok {
				t.Errorf("got %v, want it accepted: %t", err, c.ok)
			}
			client.Close()
			answered()
		})
	}
}
