package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// certificate is the server's certificate, read again when its file changes.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	loaded *tls.Certificate
	stamp  stamp  // of the files that were loaded
	wrong  string // what was last logged
}

// stamp is when the two files were changed.
type stamp struct{ cert, key time.Time }

func loadCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("read the TLS certificate: %w", err)
	}
	return c, nil
}

// get returns the certificate of the files as they are now. If changed files cannot be
// read, as in the middle of a renewal, the last good one serves on.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wrong := ""
	if err := c.load(); err != nil {
		wrong = err.Error()
	}
	if wrong != "" && wrong != c.wrong {
		c.log.Warn("the changed TLS certificate cannot be read; the one before serves on", "error", wrong)
	}
	c.wrong = wrong
	return c.loaded, nil
}

// load reads the files, if they have changed.
func (c *certificate) load() error {
	cert, err := os.Stat(c.certFile)
	if err != nil {
		return err
	}
	key, err := os.Stat(c.keyFile)
	if err != nil {
		return err
	}
	now := stamp{cert.ModTime(), key.ModTime()}
	if c.loaded != nil && now == c.stamp {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.loaded, c.stamp = &pair, now
	return nil
}

// serverCredentials are those of the listener; plaintext where there is no
// certificate, which Config allows on loopback only.
func serverCredentials(c *certificate) credentials.TransportCredentials {
	if c == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: c.get})
}

// selfCredentials are for a call to a process with the very certificate, whatever names
// that has.
func selfCredentials(c *certificate) credentials.TransportCredentials {
	if c == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection is stricter
		VerifyConnection: func(cs tls.ConnectionState) error {
			own, err := c.get(nil)
			if err != nil {
				return err
			}
			if !bytes.Equal(cs.PeerCertificates[0].Raw, own.Certificate[0]) {
				return errors.New("it has another certificate than this one")
			}
			return nil
		},
	})
}

// peerCredentials are for calls to other processes.
func peerCredentials(useTLS bool, caFile string) (credentials.TransportCredentials, error) {
	if !useTLS {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("read --tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--tls-ca %s holds no PEM certificate", caFile)
		}
	}
	return credentials.NewTLS(config), nil
}
