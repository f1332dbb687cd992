package mail

import (
	"context"
	"crypto/x509"
	"net"
)

// Reaches makes the server of a name be at an address, and its certificate be signed by one
// of the roots.
func (s *Sender) Reaches(address string, roots *x509.CertPool) {
	s.tls.RootCAs = roots
	s.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}
