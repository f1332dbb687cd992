package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"latchkey.dev/services/internal/certify"
)

// watched is what files hold, read again when one of them changes.
type watched[T any] struct {
	what  string // "TLS certificate"
	flag  string // which names the files
	files []string
	parse func() (T, error)
	until func(T) time.Time // when it is of no use any more
	log   *slog.Logger

	mu    sync.Mutex
	value T
	stamp []time.Time // of the files that were read, when they were changed
	wrong string      // what was last logged
}

type (
	certificate = watched[*tls.Certificate]
	authorities = watched[*trusted]
)

// read reads the files for the first time.
func (w *watched[T]) read() error {
	if err := w.load(); err != nil {
		return fmt.Errorf("read the %s: %w", w.what, err)
	}
	return nil
}

// get returns what the files hold now. If changed files cannot be read, as in the middle
// of a renewal, what was last good serves on.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	wrong := ""
	if err := w.load(); err != nil {
		wrong = err.Error()
	}
	if wrong != "" && wrong != w.wrong {
		w.log.Warn("the changed "+w.what+" cannot be read; the one before serves on", "error", wrong)
	}
	w.wrong = wrong
	return w.value
}

// load reads the files, if they have changed.
func (w *watched[T]) load() error {
	var now []time.Time
	for _, file := range w.files {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		now = append(now, info.ModTime())
	}
	if slices.Equal(now, w.stamp) {
		return nil
	}
	value, err := w.parse()
	if err != nil {
		return err
	}
	if w.stamp != nil {
		w.log.Info("the "+w.what+" was renewed", "until", w.until(value).UTC())
	}
	w.value, w.stamp = value, now
	return nil
}

// readCertificate reads the certificate of a flag and its key.
func readCertificate(what, flag, certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{what: what, flag: flag, files: []string{certFile, keyFile}, log: log, parse: func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &pair, err
	}, until: func(c *tls.Certificate) time.Time { return c.Leaf.NotAfter }}
	return c, c.read()
}

// trusted are certificates of authorities.
type trusted struct {
	pool        *x509.CertPool
	from, until time.Time // of the one that ends last
}

// readAuthorities reads the certificates that sign others.
func readAuthorities(what, flag, file string, log *slog.Logger) (*authorities, error) {
	a := &authorities{what: what, flag: flag, files: []string{file}, log: log, parse: func() (*trusted, error) {
		all, err := certify.ReadCertificates(file)
		if err != nil {
			return nil, err
		}
		t := &trusted{pool: x509.NewCertPool()}
		for _, c := range all {
			t.pool.AddCert(c)
			if c.NotAfter.After(t.until) {
				t.from, t.until = c.NotBefore, c.NotAfter
			}
		}
		return t, nil
	}, until: func(t *trusted) time.Time { return t.until }}
	return a, a.read()
}

// certificates are those that a listener shows; none in plaintext.
type certificates []*certificate

// certificates reads what the listener shows to others.
func (c *Config) certificates(log *slog.Logger) (all certificates, err error) {
	if c.TLSCert != "" {
		cert, err := readCertificate("TLS certificate", "tls-cert", c.TLSCert, c.TLSKey, log)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if c.PeerCert != "" {
		cert, err := readCertificate("peer certificate", "peer-cert", c.PeerCert, c.PeerKey, log)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	return all, nil
}

// encrypted tells whether the listeners speak TLS.
func (c *Config) encrypted() bool { return c.TLSCert != "" || c.PeerCert != "" }

// get returns the first certificate with the name that the client asks for, and the first
// of all if there is none.
func (all certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for _, c := range all {
		if cert := c.get(); hello.SupportsCertificate(cert) == nil {
			return cert, nil
		}
	}
	return all[0].get(), nil
}

// serverCredentials are those of the listener; plaintext where there is no
// certificate, which Config allows on loopback only.
func serverCredentials(all certificates, own *peerIdentity) credentials.TransportCredentials {
	if len(all) == 0 {
		return insecure.NewCredentials()
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: all.get}
	if own == nil {
		return credentials.NewTLS(config)
	}
	return own.server(config)
}

// selfCredentials are for a call to a process with the very certificate, whatever names
// that has.
func selfCredentials(all certificates) credentials.TransportCredentials {
	if len(all) == 0 {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection is stricter
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range all {
				if bytes.Equal(cs.PeerCertificates[0].Raw, c.get().Certificate[0]) {
					return nil
				}
			}
			return errors.New("it has another certificate than this one")
		},
	})
}

// peerCredentials are for calls to other processes that show no more than that they are
// at their address.
func peerCredentials(useTLS bool, caFile string) (credentials.TransportCredentials, error) {
	if !useTLS {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if caFile != "" {
		all, err := certify.ReadCertificates(caFile)
		if err != nil {
			return nil, fmt.Errorf("read --tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		for _, ca := range all {
			config.RootCAs.AddCert(ca)
		}
	}
	return credentials.NewTLS(config), nil
}
