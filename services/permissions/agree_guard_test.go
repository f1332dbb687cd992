package permissions

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/token"
)

// gate is an interceptor as every process of the suite has it: it asks the service what
// its callers may do, and remembers that under a lease.
type gate struct {
	*authz.Guard
	hubs   map[string]*lease.Hub
	leases *lease.Server
	conn   *grpc.ClientConn
	users  map[string]string          // by the hash of a token
	calls  map[string]context.Context // by user
}

func newGate(c *company) *gate {
	c.t.Helper()
	g := &gate{hubs: map[string]*lease.Hub{}, leases: lease.NewServer(), users: map[string]string{}, calls: map[string]context.Context{}}
	for _, source := range []string{"identity", "permissions"} {
		g.hubs[source] = lease.NewHub(lease.HubConfig{Source: source, FirstStart: true, Log: slog.New(slog.DiscardHandler)})
		g.leases.Add(g.hubs[source])
	}
	g.serve(c.t)
	c.t.Cleanup(func() { g.hubs["identity"].Close(); g.hubs["permissions"].Close() })
	for i, user := range c.archive.walk.users {
		text, hash := token.New("lk_", strings.NewReader(fmt.Sprintf("%032d", i)))
		g.users[string(hash[:])] = user
		g.calls[user] = metadata.NewIncomingContext(c.t.Context(), metadata.Pairs("authorization", "Bearer "+text))
	}
	rules, err := authz.Compile(everyService())
	if err != nil {
		c.t.Fatal(err)
	}
	sessions := remembers(c.t, g, "identity", authz.Remember(g.session))
	grants := remembers(c.t, g, "permissions", func(ctx context.Context, key string) (authz.Grants, []string, error) {
		return c.load(ctx, key)
	})
	g.Guard = authz.NewGuard(authz.Config{
		Rules: rules, ServiceKey: "unused", Sessions: sessions, Grants: grants,
		Now: func() time.Time { return c.now }, Validate: func(proto.Message) error { return nil },
	})
	for _, held := range []func(context.Context) error{sessions.WaitHeld, grants.WaitHeld} {
		if err := held(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
	}
	return g
}

// serve serves the feeds on a port.
func (g *gate) serve(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	leasepb.RegisterLeaseServiceServer(server, g.leases)
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	if g.conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.conn.Close() })
}

func remembers[V any](t testing.TB, g *gate, source string, load func(context.Context, string) (V, []string, error)) *lease.Cache[V] {
	c := lease.NewCache(lease.CacheConfig[V]{
		Source: source, Subscriber: "test", Load: load, Log: slog.New(slog.DiscardHandler),
		Dial: func() grpc.ClientConnInterface { return g.conn },
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return c
}

func everyService() map[string]grpc.ServiceInfo {
	all := map[string]grpc.ServiceInfo{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if name := f.Services().Get(i).FullName(); strings.HasPrefix(string(name), "latchkey.") {
				all[string(name)] = grpc.ServiceInfo{}
			}
		}
		return true
	})
	return all
}

func (g *gate) session(_ context.Context, hash string) (authz.Session, []string, error) {
	user := g.users[hash]
	return authz.Session{
		ID: "session of " + user, User: user, Organization: "organization", Surface: authz.SurfaceApp, Expires: noon.AddDate(10, 0, 0),
	}, []string{"user:" + user}, nil
}

// load asks the service what a user may do, as a process of the suite does.
func (c *company) load(_ context.Context, key string) (authz.Grants, []string, error) {
	organization, user, _ := strings.Cut(key, "/")
	resp, err := c.ResolveGrants(c.archive.ctx, &pb.ResolveGrantsRequest{UserId: user})
	if err != nil {
		return authz.Grants{}, nil, err
	}
	set, err := catalog.SetFromBytes(resp.GetGrants())
	g := authz.Grants{Set: set, Revision: resp.GetRevision()}
	if resp.GetExpireTime() != nil {
		g.Expires = resp.GetExpireTime().AsTime()
	}
	return g, []string{"organization:" + organization, "user:" + key}, err
}

// changed tells the interceptor of a change of anybody's access, and returns when it is
// enforced.
func (g *gate) changed(t testing.TB) {
	t.Helper()
	hub := g.hubs["permissions"]
	if err := hub.Wait(t.Context(), hub.Publish("organization:organization")); err != nil {
		t.Fatal(err)
	}
}

// forget drops all that is remembered, of the interceptor and of the service.
func (c *company) forget() {
	c.t.Helper()
	c.service.kept = kept{}
	for _, hub := range c.gate.hubs {
		if err := hub.Wait(c.t.Context(), hub.PublishEverything()); err != nil {
			c.t.Fatal(err)
		}
	}
}

// agreeGate calls each method whose rule names grants as everybody, up to where its
// handler would be.
func (c *company) agreeGate(sets map[string]catalog.Set) {
	c.t.Helper()
	app := catalog.MustGrant("App")
	for _, name := range askingMethods {
		m := methods[name]
		if m.Kind != authz.RuleAll && m.Kind != authz.RuleAny {
			continue
		}
		service, method, _ := strings.Cut(name, "/")
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + method))
		if err != nil {
			c.t.Fatal(err)
		}
		req, resp := emptyOf(d.(protoreflect.MethodDescriptor).Input()), emptyOf(d.(protoreflect.MethodDescriptor).Output())
		for user, set := range sets {
			_, err := c.gate.Unary(c.gate.calls[user], req, &grpc.UnaryServerInfo{FullMethod: "/" + name},
				func(context.Context, any) (any, error) { return resp, nil })
			// Who holds neither Web nor App has no way in.
			if want := m.Permits(set) && set.Has(app); want != (err == nil) {
				c.t.Fatalf("the interceptor before %s for %s: %v, want let in: %t", name, user, err, want)
			}
		}
	}
}

func emptyOf(d protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err)
	}
	return t.New().Interface()
}
