package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// certificate is the server's certificate, read again when its file changes.
type certificate struct {
	certFile, keyFile string

	mu     sync.Mutex
	loaded *tls.Certificate
	time   time.Time // of the file that was loaded
}

func loadCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	_, err := c.get(nil)
	return c, err
}

// get returns the certificate of the file as it is now. If a changed file cannot be
// read, as in the middle of a renewal, the last good one serves on.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.certFile)
	if err == nil && c.loaded != nil && info.ModTime().Equal(c.time) {
		return c.loaded, nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	switch {
	case err == nil:
		c.loaded = &pair
		if info != nil {
			c.time = info.ModTime()
		}
	case c.loaded == nil:
		return nil, fmt.Errorf("read the TLS certificate: %w", err)
	}
	return c.loaded, nil
}

// serverCredentials are those of the listener; plaintext where there is no
// certificate, which Config allows on loopback only.
func serverCredentials(c *certificate) credentials.TransportCredentials {
	if c == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: c.get})
}

// selfCredentials are for calls from this process to itself: whatever names its
// certificate has, it is the very one.
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
				return errors.New("another process answers on this process's address")
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
