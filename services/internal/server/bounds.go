package server

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// check says what is wrong with the configuration as it was written, so that a process
// which was called wrongly says so before it does anything.
func (c *Config) check() error {
	for _, check := range []func() error{c.checkListen, c.checkHTTP, c.checkPasskeys, c.checkMail, c.checkStores, c.checkPeers, c.checkObservers, c.checkBounds} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkListen() error {
	host, _, err := splitAddress(c.Listen)
	switch {
	case err != nil:
		return fmt.Errorf("--listen %q: %w", c.Listen, err)
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key go together")
	case (c.PeerCert == "") != (c.PeerKey == "") || (c.PeerCert == "") != (c.PeerCA == ""):
		return errors.New("--peer-cert, --peer-key and --peer-ca go together")
	case c.PeerCA != "" && c.TLSCA != "":
		return errors.New("--tls-ca and --peer-ca: the certificates of other processes are signed by the one or by the other")
	case !c.encrypted() && !isLoopback(host):
		return fmt.Errorf("--listen %s is not a loopback address, and without TLS passwords would cross the network readable: "+
			"set --tls-cert and --tls-key (a certificate for a test: openssl req -x509 -newkey ed25519 -nodes -days 30 "+
			"-subj /CN=latchkey -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem)", c.Listen)
	}
	return nil
}

// checkHTTP wants of HTTP what is wanted of gRPC, and an issuer by which tokens of one
// server cannot be taken for another's (RFC 8414 2, but plaintext on loopback).
func (c *Config) checkHTTP() error {
	host, _, err := splitAddress(c.HTTPListen)
	loopback := isLoopback(host)
	switch {
	case c.HTTPListen == "" && c.Issuer == "":
		return nil
	case c.HTTPListen == "":
		return errors.New("--issuer needs --http-listen")
	case err != nil:
		return fmt.Errorf("--http-listen %q: %w", c.HTTPListen, err)
	case !c.encrypted() && !loopback:
		return fmt.Errorf("--http-listen %s is not a loopback address, and without TLS passwords would cross the network readable: set --tls-cert and --tls-key", c.HTTPListen)
	case c.Issuer == "" && !loopback:
		return fmt.Errorf("--http-listen %s is not a loopback address: set --issuer to the URL under which others reach it", c.HTTPListen)
	case c.Issuer == "":
		return nil
	}
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" || u.String() != u.Scheme+"://"+u.Host || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return fmt.Errorf("--issuer %q: expected https://HOST, without a path, or http:// on a loopback address", c.Issuer)
	}
	return nil
}

func (c *Config) checkStores() error {
	if err := c.checkStore(); err != nil {
		return err
	}
	if u, err := url.Parse(c.Blobs); c.Blobs != "" && (err != nil || u.Scheme == "") {
		return fmt.Errorf("--blobs %q: expected a URL, for example file:///FOLDER", c.Blobs)
	}
	return nil
}

// checkPeers wants TLS to other machines: the service key goes along with each call.
func (c *Config) checkPeers() error {
	if _, _, err := splitAddress(c.Advertise); c.Advertise != "" && err != nil {
		return fmt.Errorf("--advertise %q: %w", c.Advertise, err)
	}
	for peer := range strings.SplitSeq(c.Peers.String(), ",") {
		_, address, _ := strings.Cut(peer, "=")
		_, rest, found := strings.Cut(address, ":///")
		if found {
			address = rest
		}
		host, _, err := splitAddress(address)
		if peer != "" && !c.encrypted() && c.TLSCA == "" && (err != nil || !isLoopback(host)) {
			return fmt.Errorf("--peers %s is not a loopback address, and without TLS the service key would cross the network readable: "+
				"set --peer-cert, --peer-key and --peer-ca, or --tls-ca to the certificates that sign the peers' own", peer)
		}
	}
	if c.ServiceKey != "" {
		_, err := checkKey(c.ServiceKey, "--service-key")
		return err
	}
	return nil
}

func (c *Config) checkObservers() error {
	if _, _, err := splitAddress(c.MetricsListen); c.MetricsListen != "" && err != nil {
		return fmt.Errorf("--metrics-listen %q: %w", c.MetricsListen, err)
	}
	if u, err := url.Parse(c.TraceEndpoint); c.TraceEndpoint != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return fmt.Errorf("--trace-endpoint %q: expected a URL, for example http://127.0.0.1:4317", c.TraceEndpoint)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return fmt.Errorf("--log-level %q: expected debug, info, warn or error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("--log-format %q: expected text or json", c.LogFormat)
	}
	return nil
}

func (c *Config) checkBounds() error {
	switch {
	case c.Lease < 100*time.Millisecond || c.Lease > time.Minute:
		return fmt.Errorf("--lease %s: expected 100ms to 1m", c.Lease)
	case c.Drain < 0:
		return fmt.Errorf("--drain %s: expected 0s or more", c.Drain)
	case c.CallTimeout <= 0:
		return fmt.Errorf("--call-timeout %s: expected more than 0s", c.CallTimeout)
	case c.MaxMessage < 64<<10 || c.MaxMessage > 64<<20:
		return fmt.Errorf("--max-message %d: expected 65536 to 67108864", c.MaxMessage)
	case c.MaxStreams < 1 || c.MaxStreams > 1_000_000:
		return fmt.Errorf("--max-streams %d: expected 1 to 1000000", c.MaxStreams)
	case c.BootstrapCode != "" && len(c.BootstrapCode) < 20:
		return errors.New("--bootstrap-code: expected at least 20 characters")
	}
	return nil
}

// splitAddress reads HOST:PORT with a port that can be.
func splitAddress(address string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", "", errors.New("expected HOST:PORT, for example 127.0.0.1:8480")
	}
	return host, port, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
