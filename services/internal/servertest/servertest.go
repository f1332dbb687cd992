// Package servertest runs parts of the suite for a test: the real server on a real
// port, with the real store in a temporary folder.
//
// Only who calls is made up: [Server.As] opens a session with exactly the grants
// that a test names, which comes to the server through the same leased caches as one
// of the identity service would. Tests of the whole suite, in package e2e, sign in for real.
package servertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

// Server is a running server of some parts.
type Server struct {
	*server.Process
	*Stores
	// Organization is the one whose users As makes.
	Organization string

	t     testing.TB
	facts *facts
	conn  *grpc.ClientConn
	ids   func() string
	now   func() time.Time
}

// facts are what the server is told of callers.
type facts struct {
	mu          sync.Mutex
	sessions    map[string]authz.Session // by the hash of the token
	grants      map[string]authz.Grants  // by authz.GrantsKey
	identity    *lease.Hub
	permissions *lease.Hub
}

// Start starts the parts and waits until they serve. They stop with the test.
func Start(t testing.TB, parts ...server.Part) *Server {
	t.Helper()
	return StartAt(t, time.Now, parts...)
}

// StartAt is Start with a clock of the test's own.
func StartAt(t testing.TB, now func() time.Time, parts ...server.Part) *Server {
	t.Helper()
	return StartWith(t, server.Options{Now: now}, parts...)
}

// StartIn is StartAt over a folder, which may have the stores of a server before.
func StartIn(t testing.TB, folder string, now func() time.Time, parts ...server.Part) *Server {
	t.Helper()
	return start(t, folder, server.Options{Now: now}, parts)
}

// StartWith is Start with options of the test's own, but for who calls and the log.
func StartWith(t testing.TB, o server.Options, parts ...server.Part) *Server {
	t.Helper()
	return start(t, t.TempDir(), o, parts)
}

func start(t testing.TB, folder string, o server.Options, parts []server.Part) *Server {
	t.Helper()
	if o.Now == nil {
		o.Now = time.Now
	}
	f := &facts{
		sessions: map[string]authz.Session{}, grants: map[string]authz.Grants{},
		identity:    lease.NewHub(lease.HubConfig{Source: "identity", FirstStart: true, Log: quiet}),
		permissions: lease.NewHub(lease.HubConfig{Source: "permissions", FirstStart: true, Log: quiet}),
	}
	facts := server.Part{Name: "test", Start: func(env *server.Env) error {
		env.AddHub(f.identity)
		env.AddHub(f.permissions)
		return nil
	}}
	// After the parts, so that its hubs take the place of those of identity and
	// permissions, where these are among the parts.
	o.Log = slog.New(slog.NewTextHandler(output{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o.Loaders = &server.Loaders{Session: f.session, Grants: f.load}
	config := Config(t)
	config.Store = "bolt:" + folder
	stores, parts := StoresOf(t, parts...)
	p, err := server.Start(t.Context(), config, append(parts, facts), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	select {
	case <-p.Serving():
	case <-p.Done():
		t.Fatal(p.Err())
	}
	s := &Server{Process: p, Stores: stores, t: t, facts: f, ids: server.NewIDs(o.Now), now: o.Now}
	s.Organization = s.ids()
	s.conn = s.dial(grpc.WithDefaultCallOptions())
	return s
}

var quiet = slog.New(slog.DiscardHandler)

// Config returns the configuration of a process of a test's own: a free port, a
// temporary folder.
func Config(t testing.TB) server.Config {
	c := server.Defaults()
	c.Listen = "127.0.0.1:0"
	c.Store = "bolt:" + t.TempDir()
	c.Drain = 5 * time.Second
	c.BootstrapCode = rand.Text() // so that none is printed
	return c
}

func (f *facts) session(_ context.Context, hash string) (authz.Session, []string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.sessions[hash]
	if !ok {
		return s, nil, fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID, "no such session in this test", nil)
	}
	return s, []string{"session:" + s.ID}, nil
}

func (f *facts) load(_ context.Context, key string) (authz.Grants, []string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.grants[key], []string{"user:" + key}, nil
}

// User is somebody who is signed in.
type User struct {
	// ClientConnInterface is a connection that carries the user's session.
	grpc.ClientConnInterface
	ID           string
	Organization string
	Token        string

	server *Server
}

// InOrganization returns the same server, whose users belong to another organization.
func (s *Server) InOrganization(id string) *Server {
	other := *s
	other.Organization = id
	return &other
}

// As makes a user of the organization with a session of the web and exactly these
// grants, spelled as in the catalog, and Web.
func (s *Server) As(grants ...string) *User {
	s.t.Helper()
	return s.AsUser(s.ids(), authz.SurfaceWeb, append(grants, "Web")...)
}

// AsRole makes a user with the built-in role's keys, sees pricing included.
func (s *Server) AsRole(code string) *User {
	s.t.Helper()
	role, ok := catalog.LookupRole(code)
	if !ok {
		s.t.Fatalf("no role %q", code)
	}
	surface := authz.SurfaceWeb
	if !role.Set().Has(catalog.MustGrant("Web")) {
		surface = authz.SurfaceApp
	}
	return s.AsUser(s.ids(), surface, append(role.Keys, "setting:see_pricing")...)
}

// AsUser opens a session for a user of the test's choice.
func (s *Server) AsUser(id string, surface authz.Surface, grants ...string) *User {
	s.t.Helper()
	text, hash := token.New("lk_", rand.Reader)
	u := &User{ID: id, Organization: s.Organization, Token: text, server: s}
	s.facts.mu.Lock()
	s.facts.sessions[string(hash[:])] = authz.Session{
		ID: s.ids(), User: id, Organization: s.Organization, Surface: surface,
		Expires: s.now().Add(24 * 365 * time.Hour),
	}
	s.facts.mu.Unlock()
	u.Grant(grants...)
	u.ClientConnInterface = s.dial(grpc.WithPerRPCCredentials(bearer(text)))
	return u
}

// End ends the user's session, and returns when the server enforces it.
func (u *User) End() {
	u.server.t.Helper()
	f := u.server.facts
	hash, err := token.Hash(u.Token)
	if err != nil {
		u.server.t.Fatal(err)
	}
	f.mu.Lock()
	session := f.sessions[string(hash[:])]
	delete(f.sessions, string(hash[:]))
	f.mu.Unlock()
	if err := f.identity.Wait(u.server.t.Context(), f.identity.Publish("session:"+session.ID)); err != nil {
		u.server.t.Fatal(err)
	}
}

// Forget lets the server forget what identity said under tags, as identity does itself when
// it is the source of what the server knows.
func (s *Server) Forget(tags ...string) {
	s.t.Helper()
	if err := s.facts.identity.Wait(s.t.Context(), s.facts.identity.Publish(tags...)); err != nil {
		s.t.Fatal(err)
	}
}

// Grant replaces the user's grants, and returns when the server enforces it.
func (u *User) Grant(grants ...string) {
	u.server.t.Helper()
	set, err := catalog.SetOf(grants...)
	if err != nil {
		u.server.t.Fatal(err)
	}
	u.change(func(g *authz.Grants) { g.Set = set })
}

// Set gives the user a setting that is not boolean.
func (u *User) Set(name, value string) {
	u.server.t.Helper()
	u.change(func(g *authz.Grants) {
		values := map[string]string{name: value}
		for k, v := range g.Values {
			if k != name {
				values[k] = v
			}
		}
		g.Values = values
	})
}

func (u *User) change(change func(*authz.Grants)) {
	u.server.t.Helper()
	f, key := u.server.facts, authz.GrantsKey(u.Organization, u.ID)
	f.mu.Lock()
	g := f.grants[key]
	change(&g)
	f.grants[key] = g
	f.mu.Unlock()
	if err := f.permissions.Wait(u.server.t.Context(), f.permissions.Publish("user:"+key)); err != nil {
		u.server.t.Fatal(err)
	}
}

// Anonymous returns a connection without credentials.
func (s *Server) Anonymous() grpc.ClientConnInterface { return s.conn }

// Service returns a connection as a service of the suite, which acts for the server's
// organization.
func (s *Server) Service(name string) grpc.ClientConnInterface {
	return inTenant{s.Conn(name, s.self()), s.Organization}
}

// self is a service that runs in this process: all do behind one address.
func (s *Server) self() string { return "test" }

func (s *Server) dial(options ...grpc.DialOption) *grpc.ClientConn {
	s.t.Helper()
	c, err := grpc.NewClient(s.Addr(), append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// bearer sends a token with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return false }

// inTenant calls in the name of an organization.
type inTenant struct {
	grpc.ClientConnInterface
	tenant string
}

func (c inTenant) Invoke(ctx context.Context, method string, req, resp any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(c.origin(ctx), method, req, resp, opts...)
}

func (c inTenant) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(c.origin(ctx), desc, method, opts...)
}

func (c inTenant) origin(ctx context.Context) context.Context {
	if store.OriginOf(ctx).Tenant != "" {
		return ctx
	}
	return store.WithOrigin(ctx, store.Origin{Tenant: c.tenant})
}

// output writes a log into that of the test.
type output struct{ t testing.TB }

func (o output) Write(p []byte) (int, error) {
	if o.t.Context().Err() == nil {
		o.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// WithRequestID returns a context whose calls are logged under an id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-request-id", id)
}

// UUID returns the n-th of a row of valid ids that no record has.
func UUID(n int) string { return fmt.Sprintf("00000000-0000-7000-8000-%012d", n) }
