package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
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

// pingTime is how long nothing comes over a connection to another process before it is asked
// whether it is there: more than leastPing.
const pingTime = 20 * time.Second

// dialer connects the parts of this process to the services of the suite.
type dialer struct {
	self      map[string]bool // services of this process
	pipe      *bufconn.Listener
	peers     peers
	peerCreds credentials.TransportCredentials
	own       *peerIdentity // instead of peerCreds, if not nil
	key       string
	options   []grpc.DialOption // of all connections

	advertised string // the address by which others know this process
	plaintext  bool   // connections to other processes are not encrypted

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn // by "from to"
	// replicas are the connections to single replicas, by "from to address".
	replicas map[string]*grpc.ClientConn
	closed   bool
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
	c, err := d.dial(from, target, options)
	if err != nil {
		return nowhere(to)
	}
	d.conns[from+" "+to] = c
	return c
}

func (d *dialer) dial(from, target string, options []grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, append(options,
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(connectParams),
		grpc.WithChainUnaryInterceptor(d.asUnary(from)),
		grpc.WithChainStreamInterceptor(d.asStream(from)),
	)...)
}

// maxReplicaConns is how many connections to replicas there are before those are closed
// that nobody uses, because the replicas are gone.
const maxReplicaConns = 64

// replica returns the connection to one replica of a service, at an address that the
// list of them tells. Its certificate is that of the service, as --peers names it.
//
// SECURITY: the service key goes along, so without TLS only to this machine.
func (d *dialer) replica(from, to, address string) grpc.ClientConnInterface {
	if d.self[to] && address == d.advertised {
		return d.conn(from, to)
	}
	host, _, err := splitAddress(address)
	if err != nil || d.plaintext && !isLoopback(host) {
		return nowhere(to)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	name := from + " " + to + " " + address
	if c, ok := d.replicas[name]; ok {
		return c
	}
	if d.closed {
		return nowhere(to)
	}
	d.weed()
	options := d.toOthers(to)
	if served := d.peers.name(to); served != "" && !d.plaintext {
		options = append(options, grpc.WithAuthority(served))
	}
	c, err := d.dial(from, "passthrough:///"+address, options)
	if err != nil {
		return nowhere(to)
	}
	d.replicas[name] = c
	return c
}

// toOthers are the options of a connection to a service in another process, which may go away
// without a word.
func (d *dialer) toOthers(service string) []grpc.DialOption {
	creds := d.peerCreds
	if d.own != nil {
		creds = d.own.client(service)
	}
	return append(slices.Clone(d.options),
		grpc.WithTransportCredentials(creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingTime, Timeout: 5 * time.Second}))
}

// weed closes connections to replicas of which nothing is heard. d.mu is held.
func (d *dialer) weed() {
	if len(d.replicas) < maxReplicaConns {
		return
	}
	for name, c := range d.replicas {
		if c.GetState() != connectivity.Ready {
			c.Close()
			delete(d.replicas, name)
		}
	}
}

// target returns where a service is and how to connect to it; nowhere is empty.
func (d *dialer) target(service string) (string, []grpc.DialOption) {
	if d.self[service] {
		return d.itself()
	}
	addresses := d.peers[service]
	options := d.toOthers(service)
	if len(addresses) < 2 {
		return strings.Join(addresses, ""), options
	}
	all := manual.NewBuilderWithScheme("latchkey")
	all.InitialState(resolver.State{Addresses: toResolve(addresses)})
	return all.Scheme() + ":///" + service, append(options, grpc.WithResolvers(all))
}

// toResolve returns what a name with these addresses resolves to. Each certificate is that
// of its address.
func toResolve(addresses []string) (all []resolver.Address) {
	for _, a := range addresses {
		host, _, _ := net.SplitHostPort(a)
		all = append(all, resolver.Address{Addr: a, ServerName: host})
	}
	return all
}

// itself returns how to connect to this process: through the pipe, which nobody else
// can listen on, so in plaintext, and which cannot break, so without pings.
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
	for _, conns := range []map[string]*grpc.ClientConn{d.conns, d.replicas} {
		for _, c := range conns {
			c.Close()
		}
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
		if !d.self[s] && len(d.peers[s]) == 0 {
			return fmt.Errorf("the %s service runs in another process, but nobody said where: set --peers %s=HOST:PORT", s, s)
		}
	}
	return nil
}
