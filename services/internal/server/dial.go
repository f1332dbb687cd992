package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// serviceConfig balances over the addresses of a name and tries again what a
// service did not take: methods between services can be repeated.
const serviceConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"methodConfig": [{
		"name": [{}],
		"retryPolicy": {
			"maxAttempts": 4, "initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]
		}
	}]
}`

// connectParams bring a connection back soon after its service did: without it no
// caller can be let in.
var connectParams = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// dialer connects the parts of this process to the services of the suite.
type dialer struct {
	self      map[string]bool // services of this process
	pipe      *bufconn.Listener
	peers     peers
	peerCreds credentials.TransportCredentials
	key       string
	options   []grpc.DialOption // of all connections

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn // by "from to"
	closed bool
}

// conn returns the connection of one service to another. It connects when first
// used. A service that nobody said where to find fails every call.
func (d *dialer) conn(from, to string) grpc.ClientConnInterface {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.conns[from+" "+to]; ok {
		return c
	}
	target, options := d.target(to)
	if target == "" || d.closed {
		return nowhere(to)
	}
	c, err := grpc.NewClient(target, append(options,
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(connectParams),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithChainUnaryInterceptor(d.asUnary(from)),
		grpc.WithChainStreamInterceptor(d.asStream(from)),
	)...)
	if err != nil {
		return nowhere(to)
	}
	d.conns[from+" "+to] = c
	return c
}

// target returns where a service is and how to connect to it; nowhere is empty.
func (d *dialer) target(service string) (string, []grpc.DialOption) {
	if d.self[service] {
		return d.itself()
	}
	return d.peers[service], append(slices.Clone(d.options), grpc.WithTransportCredentials(d.peerCreds))
}

// itself returns how to connect to this process: through the pipe, which nobody else
// can listen on, so in plaintext.
func (d *dialer) itself() (string, []grpc.DialOption) {
	return "passthrough:///pipe", append(slices.Clone(d.options),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// public returns a connection to this process without credentials.
func (d *dialer) public() grpc.ClientConnInterface {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.conns[""]; ok {
		return c
	}
	if d.closed {
		return nowhere("listener")
	}
	target, options := d.itself()
	c, err := grpc.NewClient(target, options...)
	if err != nil {
		return nowhere("listener")
	}
	d.conns[""] = c
	return c
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true // what is still at work must not connect anew
	for _, c := range d.conns {
		c.Close()
	}
}

// as says who calls, for whom, and as part of which request.
func (d *dialer) as(ctx context.Context, service string) context.Context {
	o := store.OriginOf(ctx)
	ctx = metadata.AppendToOutgoingContext(ctx,
		authz.ServiceHeader, service, authz.ServiceKeyHeader, d.key,
		authz.TenantHeader, o.Tenant, authz.CallerHeader, o.Caller, authz.ActorHeader, o.Actor)
	if id := requestID(ctx); id != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, requestIDHeader, id)
	}
	return ctx
}

func (d *dialer) asUnary(service string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoke(d.as(ctx, service), method, req, reply, cc, opts...)
	}
}

func (d *dialer) asStream(service string) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return stream(d.as(ctx, service), desc, cc, method, opts...)
	}
}

// nowhere is the connection to a service of which no address is known.
type nowhere string

func (n nowhere) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return fault.Unreachable(string(n))
}

func (n nowhere) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, fault.Unreachable(string(n))
}

// reach returns an address under which this process reaches its own listener.
func reach(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// advertised returns the address under which other processes reach this one.
func (p *Process) advertised() string {
	if p.config.Advertise != "" {
		return p.config.Advertise
	}
	addr := p.Addr()
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			return net.JoinHostPort(name, port)
		}
	}
	return addr
}

// missingPeers returns the first of the services that this process cannot find.
func (d *dialer) missingPeers(services ...string) error {
	for _, s := range services {
		if !d.self[s] && d.peers[s] == "" {
			return fmt.Errorf("the %s service runs in another process, but nobody said where: set --peers %s=HOST:PORT", s, s)
		}
	}
	return nil
}
