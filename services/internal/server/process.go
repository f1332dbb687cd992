package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"gocloud.dev/blob"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/journal"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/mail"
	"latchkey.dev/services/internal/store"
)

// Process is a running process of the suite: one listener, the parts behind it, and
// what they have in common.
type Process struct {
	config   Config
	parts    []Part
	log      *slog.Logger
	now      func() time.Time
	ids      *ids
	listener net.Listener
	http     *HTTP // nil where it is off
	grpc     *servers
	health   *health.Server
	edge     *edge
	guard    *authz.Guard
	dialer   *dialer
	leases   *lease.Server
	hubs     []*lease.Hub
	stores   map[string]*store.DB
	blobs    map[string]*blob.Bucket
	first    map[string]bool     // parts whose store is new
	replicas map[string]*replica // by part, those whose store other processes can share
	sessions *lease.Cache[authz.Session]
	grants   *lease.Cache[authz.Grants]
	keepers  []keeper // that parts have made
	factsAt  string   // the part that has the hubs, if not identity and permissions have
	metrics  *metrics
	mail     *mail.Sender // nil where it is off
	tracing  *tracing
	ends     []endOf // of certificates

	decisions decisions
	journals  map[string]*journal.Source // by part

	ctx      context.Context // of background work; its cause is why the process ends
	cancel   context.CancelCauseFunc
	work     sync.WaitGroup
	serving  chan struct{} // closed when all leases are held
	draining chan struct{}
	stopOnce sync.Once
}

// Options are what a program, or a test, sets.
type Options struct {
	Log     *slog.Logger
	Now     func() time.Time
	Loaders *Loaders // instead of asking identity and permissions; the last part then has the hubs
	// Engines are the databases that the stores can be in, beside files.
	Engines Engines
	// MaxBytes is the size at which a file of a store counts as a full disk; 0 is none.
	MaxBytes int
}

// Start starts the parts. It returns when the process listens, which is before it
// serves: see Serving.
func Start(ctx context.Context, config Config, parts []Part, o Options) (*Process, error) {
	p := &Process{
		config: config, parts: parts, log: o.Log, now: o.Now,
		stores: map[string]*store.DB{}, blobs: map[string]*blob.Bucket{}, first: map[string]bool{}, replicas: map[string]*replica{}, leases: lease.NewServer(),
		serving: make(chan struct{}), draining: make(chan struct{}),
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.log = slog.New(requestLog{p.log.Handler()})
	p.ids = &ids{now: p.now}
	p.ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := p.start(ctx, o); err != nil {
		p.cancel(err)
		p.release()
		return nil, err
	}
	return p, nil
}

func (p *Process) start(ctx context.Context, o Options) error {
	for _, step := range []func(context.Context) error{
		p.listen, p.listenHTTP,
		func(ctx context.Context) error { return p.openStores(ctx, o) },
		p.observe, p.openMail, p.connect,
		func(ctx context.Context) error { return p.assemble(o) },
		p.startParts,
		func(context.Context) error { return p.enforce() },
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	p.serve()
	return nil
}

func (p *Process) listen(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.config.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (choose another with --listen)", p.config.Listen, cause(err))
	}
	p.listener = l
	return nil
}

// cause drops the words that net and os put before the reason.
func cause(err error) error {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err
}

// fail ends the process: after a commit of which nobody knows whether it is on disk,
// only a fresh start tells what is true.
func (p *Process) fail(err error) {
	p.log.Error("stopping, so that nothing is built on a write of unknown outcome", "error", err)
	p.cancel(err)
}

func (p *Process) connect(context.Context) error {
	key, err := p.key()
	if err != nil {
		return err
	}
	certs, err := p.config.certificates(p.log)
	if err != nil {
		return err
	}
	own, err := readPeerIdentity(&p.config, certs, p.now, p.log)
	if err != nil {
		return err
	}
	encrypted := p.config.encrypted() || p.config.TLSCA != ""
	peerCreds, err := peerCredentials(encrypted, p.config.TLSCA)
	if err != nil {
		return err
	}
	p.dialer = &dialer{
		self: map[string]bool{}, peers: p.config.Peers, peerCreds: peerCreds, own: own, key: key, conns: map[string]*grpc.ClientConn{},
		advertised: p.advertised(), plaintext: !encrypted, replicas: map[string]*grpc.ClientConn{},
	}
	for _, part := range p.parts {
		p.dialer.self[part.Name] = true
	}
	p.edge = &edge{log: p.log, timeout: p.config.CallTimeout, newID: p.ids.next}
	if p.tracing, err = startTracing(p.ctx, p.config.TraceEndpoint, p.Name()); err != nil {
		return err
	}
	p.dialer.options = append(p.tracing.dialOptions(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(p.config.MaxMessage)))
	access := authz.Config{ServiceKey: key, Now: p.now, RequestID: requestID}
	if own != nil {
		access.Proves = own.proves
	}
	p.guard = authz.NewGuard(access)
	unary, stream := p.interceptors()
	p.grpc = newServers(&p.config, serverCredentials(certs, own), unary, stream, p.tracing)
	p.dialer.pipe = p.grpc.pipe
	p.assembleHTTP(certs)
	p.ends = certs.ends(own)
	p.showCertificates()
	return nil
}

func (p *Process) observe(context.Context) (err error) {
	if p.metrics, err = listenMetrics(p.config.MetricsListen); err != nil || p.metrics == nil {
		return err
	}
	p.goWork("metrics", p.metrics.run)
	return nil
}

// assemble makes the caches of what is known of callers.
func (p *Process) assemble(o Options) error {
	load := o.Loaders
	if load == nil {
		if err := p.dialer.missingPeers(identity, permissions); err != nil {
			return err
		}
		fromPeers := peersLoaders(func(service string) grpc.ClientConnInterface { return p.dialer.conn(p.Name(), service) })
		load = &fromPeers
	}
	if o.Loaders != nil {
		p.factsAt = p.parts[len(p.parts)-1].Name
	}
	p.sessions = newCache(p, identity, "sessions", lease.DefaultMaxEntries, authz.Remember(load.Session))
	p.grants = newCache(p, permissions, "grants", lease.DefaultMaxEntries, load.Grants)
	p.guard.Sessions, p.guard.Grants = p.sessions, p.grants
	if p.metrics != nil {
		showLease(p.metrics, identity, p.sessions)
		showLease(p.metrics, permissions, p.grants)
	}
	var err error
	p.guard.Validate, err = newValidate()
	return err
}

func (p *Process) startParts(ctx context.Context) error {
	leasepb.RegisterLeaseServiceServer(p.grpc, p.leases)
	eventpb.RegisterEventServiceServer(p.grpc, &events{stores: p.stores, draining: p.draining})
	operatorpb.RegisterOperatorServiceServer(p.grpc, &operator{
		stores: p.stores, blobs: p.blobs, draining: p.draining,
		importer: &importer{stores: p.stores, seal: sync.OnceValues(p.openSeal), passkeys: p.config.passkeys(p.Issuer()).Domain},
	})
	if err := p.openDecisions(ctx); err != nil {
		return err
	}
	p.openJournals()
	for _, part := range p.parts {
		if db := p.stores[part.Name]; db != nil && db.Shared() {
			p.replicas[part.Name] = &replica{
				db: db, log: p.log.With("service", part.Name), newID: p.ids.next, addr: p.advertised(),
				every: p.config.Lease / beatsPerLease,
			}
		}
		if err := part.Start(p.env(part)); err != nil {
			return fmt.Errorf("start %s: %w", part.Name, err)
		}
	}
	return nil
}

// enforce compiles the access rules of everything that was registered. Nothing is
// registered after it.
func (p *Process) enforce() error {
	p.health = health.NewServer()
	healthpb.RegisterHealthServer(p.grpc, p.health)
	reflection.Register(p.grpc)
	p.setHealth(healthpb.HealthCheckResponse_NOT_SERVING)
	rules, err := authz.Compile(p.grpc.GetServiceInfo())
	if err != nil {
		return fmt.Errorf("the access rules are not whole:\n%w", err)
	}
	rules.LogTo(p.decisions.of)
	p.guard.Rules = rules
	if p.metrics != nil {
		p.metrics.calls.InitializeMetrics(p.grpc)
	}
	return nil
}

func (p *Process) serve() {
	for _, r := range p.replicas {
		r.prepare()
	}
	p.goWork("serve", func(context.Context) error { return serve(p.grpc.public, p.listener) })
	p.goWork("serve the parts", func(context.Context) error { return serve(p.grpc.inner, p.grpc.pipe) })
	if p.http != nil {
		p.goWork("serve HTTP", p.http.run)
	}
	if len(p.ends) > 0 {
		p.goWork("certificates", p.watchCertificates)
	}
	for part, r := range p.replicas {
		p.goWork(part+": replicas", r.run)
	}
	p.goWork("sessions", p.sessions.Run)
	p.goWork("grants", p.grants.Run)
	for _, k := range p.keepers {
		p.goWork("facts", k.Run)
	}
	p.goWork("health", p.becomeHealthy)
}

// becomeHealthy says SERVING once all leases are held for the first time. Later a
// process without a lease answers UNAVAILABLE, which callers try again.
func (p *Process) becomeHealthy(ctx context.Context) error {
	if p.sessions.WaitHeld(ctx) != nil || p.grants.WaitHeld(ctx) != nil {
		return nil
	}
	for _, k := range p.keepers {
		if k.WaitHeld(ctx) != nil {
			return nil
		}
	}
	p.setHealth(healthpb.HealthCheckResponse_SERVING)
	close(p.serving)
	return nil
}

// setHealth says of each service, and of the process as a whole, how it is.
func (p *Process) setHealth(status healthpb.HealthCheckResponse_ServingStatus) {
	for name := range p.grpc.GetServiceInfo() {
		p.health.SetServingStatus(name, status)
	}
	p.health.SetServingStatus("", status)
}

// goWork runs background work that the process owns. Its error ends the process.
func (p *Process) goWork(name string, run func(context.Context) error) {
	p.work.Go(func() {
		if err := run(p.ctx); err != nil && p.ctx.Err() == nil {
			p.cancel(fmt.Errorf("%s: %w", name, err))
		}
	})
}

// Name returns the part's name, "identity", or "latchkey" for several.
func (p *Process) Name() string {
	if len(p.parts) == 1 {
		return p.parts[0].Name
	}
	return wholeSuite
}

// wholeSuite is the name of a process that is several services.
const wholeSuite = "latchkey"

// Addr returns the address that the process listens on.
func (p *Process) Addr() string { return p.listener.Addr().String() }

// Issuer returns the URL under which HTTP is served; empty where it is off.
func (p *Process) Issuer() string {
	if p.http == nil {
		return ""
	}
	return p.http.Issuer
}

// HTTPAddr returns the address on which HTTP is served; empty where it is off.
func (p *Process) HTTPAddr() string {
	if p.http == nil {
		return ""
	}
	return p.http.listener.Addr().String()
}

// Serving is closed once the process answers calls.
func (p *Process) Serving() <-chan struct{} { return p.serving }

// Conn returns a connection to a service as the service from, for tests and tools.
func (p *Process) Conn(from, to string) grpc.ClientConnInterface { return p.dialer.conn(from, to) }

// Rules returns the access rules that the process enforces.
func (p *Process) Rules() *authz.Rules { return p.guard.Rules }

// Done is closed when the process has failed; Err then says why.
func (p *Process) Done() <-chan struct{} { return p.ctx.Done() }

// Err returns why the process ended by itself, or nil.
func (p *Process) Err() error {
	if err := context.Cause(p.ctx); err != errStopped {
		return err
	}
	return nil
}

func (p *Process) services() string {
	var names []string
	for _, part := range p.parts {
		if part.Schema != nil {
			names = append(names, part.Name)
		}
	}
	return strings.Join(names, ", ")
}
