package server

import (
	"cmp"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
)

// Bounds of a connection. A caller who exceeds one is cut off, and nobody else feels it.
const (
	maxHeaderBytes = 16 << 10
	handshakeTime  = 10 * time.Second
	idleTime       = 15 * time.Minute // without a call
	// connectionAge is after how long a caller is to make his next calls over another
	// connection, so that callers spread over new processes. What runs over the old one goes
	// on for as long as it takes: without end, if it is a lease.
	connectionAge = time.Hour
	leastPing     = 10 * time.Second
)

// workers is how many goroutines answer one call after the other. A call that finds
// none idle gets its own, whose stack has to grow anew for each interceptor.
const workers = 128

// innerWorkers is the same for the calls of parts of this process to each other.
const innerWorkers = 16

// pipeBytes is how much of a call between parts may be under way.
const pipeBytes = 256 << 10

// servers are two with the same services and the same interceptors: one for whoever
// connects to the listener, and one for the parts of this process, which call each
// other through a pipe. When the process drains, the first takes no new calls while those
// that run may still make theirs.
type servers struct {
	public, inner *grpc.Server
	pipe          *bufconn.Listener
}

func newServers(c *Config, creds credentials.TransportCredentials, unary []grpc.UnaryServerInterceptor, stream []grpc.StreamServerInterceptor, t *tracing) *servers {
	both := append(t.serverOptions(),
		grpc.ForceServerCodecV2(authz.Codec()),
		grpc.MaxRecvMsgSize(c.MaxMessage),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.WaitForHandlers(true),
		grpc.UnknownServiceHandler(unknown),
		grpc.ChainUnaryInterceptor(unary...), grpc.ChainStreamInterceptor(stream...),
	)
	return &servers{
		public: grpc.NewServer(append(slices.Clone(both),
			grpc.Creds(creds),
			grpc.MaxConcurrentStreams(uint32(c.MaxStreams)),
			grpc.ConnectionTimeout(handshakeTime),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastPing, PermitWithoutStream: true}),
			grpc.KeepaliveParams(keepalive.ServerParameters{
				MaxConnectionIdle: idleTime, MaxConnectionAge: cmp.Or(c.connectionAge, connectionAge),
				Time: 30 * time.Second, Timeout: 10 * time.Second,
			}),
			grpc.NumStreamWorkers(workers),
		)...),
		inner: grpc.NewServer(append(both, grpc.NumStreamWorkers(innerWorkers))...),
		pipe:  bufconn.Listen(pipeBytes),
	}
}

// RegisterService registers a service with both.
func (s *servers) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.public.RegisterService(desc, impl)
	s.inner.RegisterService(desc, impl)
}

// GetServiceInfo returns the services.
func (s *servers) GetServiceInfo() map[string]grpc.ServiceInfo { return s.public.GetServiceInfo() }

// serve serves until server is stopped.
func serve(server *grpc.Server, l net.Listener) error {
	if err := server.Serve(l); !errors.Is(err, grpc.ErrServerStopped) { // else it was stopped before
		return err
	}
	return nil
}

// stop ends both and whatever they do.
func (s *servers) stop() {
	s.public.Stop()
	s.inner.Stop()
	s.pipe.Close()
}

// interceptors returns the chain, outermost first.
func (p *Process) interceptors() (unary []grpc.UnaryServerInterceptor, stream []grpc.StreamServerInterceptor) {
	if p.metrics != nil {
		unary = append(unary, p.metrics.calls.UnaryServerInterceptor())
		stream = append(stream, p.ifKnown(p.metrics.calls.StreamServerInterceptor()))
	}
	unary = append(unary, p.edge.unary, recovery.UnaryServerInterceptor(recovering()), p.guard.Unary)
	stream = append(stream, p.edge.stream, recovery.StreamServerInterceptor(recovering()), p.guard.Stream)
	return unary, stream
}

// ifKnown passes by calls of methods that do not exist, which gRPC takes for streams:
// else whoever makes up names fills the memory with a count for each.
func (p *Process) ifKnown(count grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if !p.guard.Rules.Has(info.FullMethod) {
			return handler(srv, ss)
		}
		return count(srv, ss, info, handler)
	}
}

// unknown answers calls to methods that nobody registered. The guard has denied
// them before; this says the same if it were ever reached.
func unknown(any, grpc.ServerStream) error {
	return fault.New(codes.Unimplemented, faultpb.Reason_REASON_METHOD_UNKNOWN, "there is no such method here", nil)
}
