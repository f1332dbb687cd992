package lease

import (
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
)

// source is a hub behind a real gRPC server on a real port.
type source struct {
	hub    *Hub
	server *grpc.Server
	addr   string
}

func newSource(t testing.TB, edit func(*HubConfig)) *source {
	t.Helper()
	return newSourceAt(t, "127.0.0.1:0", edit)
}

func newSourceAt(t testing.TB, addr string, edit func(*HubConfig)) *source {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &source{hub: newTestHub(t, edit), server: grpc.NewServer(), addr: listener.Addr().String()}
	leasepb.RegisterLeaseServiceServer(s.server, NewServer(s.hub))
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(listener) }()
	t.Cleanup(func() {
		s.server.Stop()
		<-served
	})
	return s
}

func (s *source) conn(t testing.TB) grpc.ClientConnInterface { return dialTo(t, s.addr)() }

// dialTo returns a Dial of one connection to the address, closed after the test.
func dialTo(t testing.TB, addr string) func() grpc.ClientConnInterface {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: time.Millisecond, MaxDelay: 10 * time.Millisecond},
			MinConnectTimeout: patience,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func() grpc.ClientConnInterface { return conn }
}
