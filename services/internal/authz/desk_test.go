package authz_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/token"
)

const serviceKey = "a key that only the services of the suite know"

// desk is a guard alone, with real leases from hubs that the test can take away.
type desk struct {
	*authz.Guard
	leases *lease.Server
	conn   *grpc.ClientConn

	mu       sync.Mutex
	now      time.Time
	hubs     map[string]*lease.Hub
	sessions map[string]authz.Session // by the hash of the token
	grants   map[string]authz.Grants  // by authz.GrantsKey
	loads    map[string]int           // by source
	loading  func(source string)      // called at each load
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	d := &desk{
		leases: lease.NewServer(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), hubs: map[string]*lease.Hub{},
		sessions: map[string]authz.Session{}, grants: map[string]authz.Grants{}, loads: map[string]int{}, loading: func(string) {},
	}
	d.serve(t)
	d.open("identity")
	d.open("permissions")
	t.Cleanup(func() { d.close("identity"); d.close("permissions") })
	d.Guard = authz.NewGuard(authz.Config{
		Rules:    shopRules(t),
		Sessions: cache(t, d, "identity", authz.Remember(d.session)), Grants: cache(t, d, "permissions", d.load),
		ServiceKey: serviceKey, Now: d.clock, Validate: func(proto.Message) error { return nil },
	})
	d.SetPatience(time.Minute)
	for _, wait := range []func(context.Context) error{d.Sessions.WaitHeld, d.Grants.WaitHeld} {
		if err := wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// serve serves the hubs on a port.
func (d *desk) serve(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	leasepb.RegisterLeaseServiceServer(s, d.leases)
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	if d.conn, err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.conn.Close() })
}

func cache[V any](t testing.TB, d *desk, source string, load func(context.Context, string) (V, []string, error)) *lease.Cache[V] {
	c := lease.NewCache(lease.CacheConfig[V]{
		Source: source, Subscriber: "test", Load: load, Log: slog.New(slog.DiscardHandler),
		Dial:    func() grpc.ClientConnInterface { return d.conn },
		Backoff: func(int) time.Duration { return time.Millisecond },
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return c
}

// open lets a source grant leases, close ends them.
func (d *desk) open(source string) {
	h := lease.NewHub(lease.HubConfig{Source: source, FirstStart: true, Log: slog.New(slog.DiscardHandler)})
	d.leases.Add(h)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hubs[source] = h
}

func (d *desk) close(source string) { d.hub(source).Close() }

func (d *desk) hub(source string) *lease.Hub {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hubs[source]
}

func (d *desk) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// pass lets time go by.
func (d *desk) pass(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

func (d *desk) count(source string) func(string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loads[source]++
	return d.loading
}

// loaded returns how often a source was asked.
func (d *desk) loaded(source string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.loads[source]
}

func (d *desk) session(_ context.Context, hash string) (authz.Session, []string, error) {
	d.count("identity")("identity")
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.sessions[hash]
	if !ok {
		return s, nil, fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID, "no such session", nil)
	}
	return s, []string{"session:" + s.ID, "user:" + s.User}, nil
}

func (d *desk) load(_ context.Context, key string) (authz.Grants, []string, error) {
	d.mu.Lock()
	g := d.grants[key] // as it is when asked, and not when answered
	d.mu.Unlock()
	d.count("permissions")("permissions")
	return g, []string{"user:" + key}, nil
}

// signIn opens a session for a user of the organization org with the grants, and
// returns the context of a call in it.
func (d *desk) signIn(t testing.TB, user, grants string) context.Context {
	t.Helper()
	text, hash := token.New("lk_", rand.Reader)
	d.mu.Lock()
	d.sessions[string(hash[:])] = authz.Session{
		ID: "session of " + user, User: user, Organization: "org", Surface: authz.SurfaceNone, Expires: d.now.Add(time.Hour),
	}
	d.grants["org/"+user] = authz.Grants{Set: grantsOf(t, grants), Revision: 1}
	d.mu.Unlock()
	return metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+text, "user-agent", "test", ":authority", "test", "content-type", "application/grpc"))
}

// change changes what is known of callers under a tag, and returns when it is
// enforced.
func (d *desk) change(t testing.TB, source, tag string, change func()) {
	t.Helper()
	d.mu.Lock()
	change()
	d.mu.Unlock()
	h := d.hub(source)
	if err := h.Wait(t.Context(), h.Publish(tag)); err != nil {
		t.Fatal(err)
	}
}

// grant replaces the grants of a user.
func (d *desk) grant(t testing.TB, user, grants string) {
	t.Helper()
	set := grantsOf(t, grants)
	d.change(t, "permissions", "user:org/"+user, func() {
		g := d.grants["org/"+user]
		g.Set = set
		d.grants["org/"+user] = g
	})
}

// end ends every session of a user.
func (d *desk) end(t testing.TB, user string) {
	t.Helper()
	d.change(t, "identity", "user:"+user, func() {
		for hash, s := range d.sessions {
			if s.User == user {
				delete(d.sessions, hash)
			}
		}
	})
}

// call makes a unary call of a method of the shop, and returns who the handler sees.
func (d *desk) call(t testing.TB, ctx context.Context, name, request string) (*authz.Principal, error) {
	t.Helper()
	var caller *authz.Principal
	_, err := d.Unary(ctx, input(t, name, request), &grpc.UnaryServerInfo{FullMethod: method(name)},
		func(ctx context.Context, _ any) (any, error) {
			caller = authz.Caller(ctx)
			return message(t, "Answer", ""), nil
		})
	return caller, err
}

// asService returns the context of a call of a service of the suite.
func asService(ctx context.Context, name, key string, more ...string) context.Context {
	return metadata.NewIncomingContext(ctx, metadata.Pairs(append(more, authz.ServiceHeader, name, authz.ServiceKeyHeader, key)...))
}

// inBackground runs f and returns a function that waits for what it returned.
func inBackground[V any](f func() (V, error)) func() (V, error) {
	var v V
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		v, err = f()
	}()
	return func() (V, error) {
		<-done
		return v, err
	}
}

// reasonOf returns the reason of a fault, or what else the error is.
func reasonOf(err error) string {
	var f *fault.Error
	switch e := err.(type) {
	case nil:
		return "OK"
	case *fault.Error:
		f = e
	default:
		return fmt.Sprintf("%T: %v", err, err)
	}
	return f.ReasonName()
}
