package server

import (
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
)

// Bounds of a connection. A caller who exceeds one is cut off, and nobody else feels it.
const (
	maxHeaderBytes  = 16 << 10
	handshakeTime   = 10 * time.Second
	idleTime        = 15 * time.Minute // without a call
	connectionAge   = time.Hour        // so that connections spread over new processes
	connectionGrace = 5 * time.Minute
	leastPing       = 10 * time.Second
)

// workers is how many goroutines answer one call after the other. A call that finds
// none idle gets its own, whose stack has to grow anew for each interceptor.
const workers = 128

func newServer(c *Config, creds credentials.TransportCredentials, interceptors func() ([]grpc.UnaryServerInterceptor, []grpc.StreamServerInterceptor), t *tracing) *grpc.Server {
	options := []grpc.ServerOption{
		grpc.Creds(creds),
		grpc.ForceServerCodecV2(authz.Codec()),
		grpc.MaxConcurrentStreams(uint32(c.MaxStreams)),
		grpc.MaxRecvMsgSize(c.MaxMessage),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTime, MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: connectionGrace,
			Time: 30 * time.Second, Timeout: 10 * time.Second,
		}),
		grpc.WaitForHandlers(true),
		grpc.NumStreamWorkers(workers),
		grpc.UnknownServiceHandler(unknown),
	}
	unary, stream := interceptors()
	options = append(options, grpc.ChainUnaryInterceptor(unary...), grpc.ChainStreamInterceptor(stream...))
	return grpc.NewServer(append(options, t.serverOptions()...)...)
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
