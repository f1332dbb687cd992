package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/certify"
	"latchkey.dev/services/internal/fault"
)

// peerIdentity is by which this process and the others of the suite know each other over
// TLS: the service that one calls, and the service that calls, each show a certificate of
// the suite's authority with their name. Where a service is does not matter.
type peerIdentity struct {
	certs certificates // of this process, the one for peers last
	cas   *authorities
	now   func() time.Time
}

// readPeerIdentity reads it; nil where certificates are not asked for.
func readPeerIdentity(c *Config, certs certificates, now func() time.Time, log *slog.Logger) (*peerIdentity, error) {
	if c.PeerCA == "" {
		return nil, nil
	}
	cas, err := readAuthorities("peer authority", "peer-ca", c.PeerCA, log)
	if err != nil {
		return nil, err
	}
	return &peerIdentity{certs: certs, cas: cas, now: now}, nil
}

// verify says what is wrong with a chain of certificates that a process shows.
func (p *peerIdentity) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: p.cas.get().pool, Intermediates: between, CurrentTime: p.now(), KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return errors.New("it is signed by none of the authorities in --peer-ca")
	}
	return err
}

// client returns the credentials of calls to a service.
func (p *peerIdentity) client(service string) credentials.TransportCredentials {
	name := certify.Name(service)
	return toPeer{name: name, TransportCredentials: credentials.NewTLS(&tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.certs[len(p.certs)-1].get(), nil },
		InsecureSkipVerify:   true, // VerifyConnection does it, by the authorities as they are now
		VerifyConnection: func(cs tls.ConnectionState) error {
			err := p.verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth)
			if err == nil && !slices.Contains(cs.PeerCertificates[0].DNSNames, name) {
				err = fmt.Errorf("it is for %s", strings.Join(cs.PeerCertificates[0].DNSNames, ", "))
			}
			if err != nil {
				return fmt.Errorf("the certificate that is shown for %s is not accepted: %w", name, err)
			}
			return nil
		},
	})}
}

// toPeer asks for the certificate of a service, at whatever address.
type toPeer struct {
	credentials.TransportCredentials
	name string
}

func (c toPeer) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.TransportCredentials.ClientHandshake(ctx, c.name, conn)
}

func (c toPeer) Clone() credentials.TransportCredentials {
	return toPeer{c.TransportCredentials.Clone(), c.name}
}

// server returns the credentials of the listener. It asks everybody for a certificate and
// lets those in who have none: people prove who they are by their tokens.
func (p *peerIdentity) server(config *tls.Config) credentials.TransportCredentials {
	config.ClientAuth = tls.RequestClientCert
	asks := config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := asks.Clone()
		now.ClientCAs = p.cas.get().pool // tells clients which certificates are meant
		now.NextProtos = []string{"h2"}
		return now, nil
	}
	return fromPeer{credentials.NewTLS(config), p}
}

// fromPeer keeps with a connection whose certificate was shown.
type fromPeer struct {
	credentials.TransportCredentials
	own *peerIdentity
}

func (c fromPeer) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	s := shown{TLSInfo: info.(credentials.TLSInfo)}
	if chain := s.State.PeerCertificates; len(chain) > 0 {
		s.certificate, s.wrong = chain[0], c.own.verify(chain, x509.ExtKeyUsageClientAuth)
	}
	if s.certificate != nil && s.wrong == nil { // else each call is told what is wrong
		conn = ending(conn, s.certificate.NotAfter.Sub(c.own.now()))
	}
	return conn, s, nil
}

// endingConn is a connection that ends by itself.
type endingConn struct {
	net.Conn
	end *time.Timer
}

// ending has a connection end after a time, which is that of the certificate that was shown
// on it: its calls go on to others long before, and its streams, which know of no end, do then.
func ending(conn net.Conn, after time.Duration) net.Conn {
	return endingConn{conn, time.AfterFunc(after, func() { conn.Close() })}
}

// Close closes the connection before its end.
func (c endingConn) Close() error {
	c.end.Stop()
	return c.Conn.Close()
}

func (c fromPeer) Clone() credentials.TransportCredentials {
	return fromPeer{c.TransportCredentials.Clone(), c.own}
}

// shown is what is known of who is at the other end of a connection.
type shown struct {
	credentials.TLSInfo
	certificate *x509.Certificate // nil if none was shown
	wrong       error             // why it is not accepted
}

// proves tells whether a call comes over a connection on which the service has shown its
// certificate, or from within this process.
//
// SECURITY: a connection outlives certificates, so the end of one is looked at with each
// call.
func (p *peerIdentity) proves(ctx context.Context, service string) error {
	from, ok := peer.FromContext(ctx)
	if ok && from.Addr.Network() == pipeNetwork {
		return nil
	}
	var s shown
	if ok {
		s, _ = from.AuthInfo.(shown)
	}
	c := s.certificate
	switch {
	case c == nil:
		return unproven(service, "no certificate was shown: set --peer-cert and --peer-key")
	case s.wrong != nil:
		return unproven(service, "its certificate is not accepted: "+s.wrong.Error())
	case p.now().After(c.NotAfter):
		return unproven(service, "its certificate has expired, at "+c.NotAfter.UTC().Format(time.RFC3339))
	case !slices.Contains(c.DNSNames, certify.Name(service)):
		return unproven(service, "its certificate is for "+strings.Join(c.DNSNames, ", "))
	}
	return nil
}

// pipeNetwork is the network of the pipe between the parts of a process, by which nobody
// else can connect.
const pipeNetwork = "bufconn"

func unproven(service, why string) error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_PEER_UNPROVEN,
		"services of the suite show each other certificates, and "+service+" is not proven: "+why,
		map[string]string{"service": service})
}

// soon is the part of a certificate's life that is left when the end is told ahead. It was
// to be renewed before.
const soon = 4

// endOf is when something that a flag names ends, and how long it lasts.
type endOf struct {
	what, flag string
	span       func() (from, until time.Time)
}

// ends returns all ends that there are.
func (all certificates) ends(own *peerIdentity) (ends []endOf) {
	for _, c := range all {
		ends = append(ends, endOf{c.what, c.flag, func() (time.Time, time.Time) {
			leaf := c.get().Leaf
			return leaf.NotBefore, leaf.NotAfter
		}})
	}
	if own != nil {
		ends = append(ends, endOf{own.cas.what, own.cas.flag, func() (time.Time, time.Time) {
			t := own.cas.get()
			return t.from, t.until
		}})
	}
	return ends
}

// Certificates are looked at so often, for files that have changed and for their end.
const certificateCheck = time.Minute

// watchCertificates tells ahead of the end of certificates, once a day.
func (p *Process) watchCertificates(ctx context.Context) error {
	told := make([]time.Time, len(p.ends))
	tick := time.NewTicker(certificateCheck)
	defer tick.Stop()
	for {
		now := p.now()
		for i, e := range p.ends {
			from, until := e.span()
			if until.Sub(now) < until.Sub(from)/soon && now.Sub(told[i]) >= 24*time.Hour {
				told[i] = now
				p.log.Warn("the "+e.what+" ends soon, or has ended: renew it", "flag", "--"+e.flag, "until", until.UTC())
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// showCertificates shows when certificates end.
func (p *Process) showCertificates() {
	if p.metrics == nil {
		return
	}
	for _, e := range p.ends {
		p.metrics.gauge("latchkey_certificate_end_seconds", "When a certificate ends, in seconds since 1970, by the flag that names it.",
			prometheus.Labels{"flag": e.flag}, func() float64 {
				_, until := e.span()
				return float64(until.Unix())
			})
	}
}
