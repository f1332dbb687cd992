package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/server"
)

// What identity and permissions say of a caller comes to the handler, through the
// leased caches of this process and its own listener.
func TestCaller(t *testing.T) {
	s := newSuite()
	s.settings = &permissionspb.EffectiveSettings{
		ProposalScope: permissionspb.ProposalScope_PROPOSAL_SCOPE_OWNED, FutureVisibility: proto.Int32(0), InvoiceApprover: "somebody",
		LoginRestrictions: &permissionspb.LoginRestrictions{BeforeMinutes: 30},
	}
	s.getPart = func(ctx context.Context, _ *invoicingpb.GetPartRequest) (*invoicingpb.GetPartResponse, error) {
		p := authz.Caller(ctx)
		want := map[string]string{
			"proposal_scope": "PROPOSAL_SCOPE_OWNED", "future_visibility": "0", "invoice_approver": "somebody", "login_restrictions.before_minutes": "30",
		}
		if p.ID != user || p.Organization != organization || p.SessionID != "session" || p.Surface != authz.SurfaceWeb || p.Revision != 7 || !p.Has("Organization:Parts") || !maps.Equal(p.Values, want) {
			t.Errorf("got %+v, want the user with values %v", p, want)
		}
		return &invoicingpb.GetPartResponse{}, nil
	}
	p := start(t, config(t), s.parts()...)
	if err := getPart(s.signIn(t.Context()), dial(t, p.Addr())); err != nil {
		t.Error(err)
	}
	err := getPart(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer nonsense"), dial(t, p.Addr()))
	if reason(err) != "CREDENTIALS_INVALID" {
		t.Errorf("nonsense: got %v, want CREDENTIALS_INVALID", err)
	}
	s.mu.Lock()
	clear(s.sessions)
	s.mu.Unlock()
	other := newSuite()
	if err := getPart(other.signIn(t.Context()), dial(t, p.Addr())); reason(err) != "CREDENTIALS_INVALID" {
		t.Errorf("a session that identity does not know: got %v, want CREDENTIALS_INVALID", err)
	}
}

// That identity or permissions do not answer, or not well, is neither yes nor no, and
// is forgotten.
func TestCallerIsNotKnown(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*suite)
		want codes.Code
	}{
		"away":           {func(s *suite) { s.away = fault.Unreachable("the disk") }, codes.Unavailable},
		"too busy":       {func(s *suite) { s.away = fault.Limit("sessions", 0) }, codes.Unavailable},
		"broken":         {func(s *suite) { s.away = errors.New("secret") }, codes.Internal},
		"not understood": {func(s *suite) { s.noGrants = true }, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSuite()
			p := start(t, config(t), s.parts()...)
			conn, ctx := dial(t, p.Addr()), s.signIn(t.Context())
			s.mu.Lock()
			c.set(s)
			s.mu.Unlock()
			if err := getPart(ctx, conn); status.Code(err) != c.want || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %v", err, c.want)
			}
			s.mu.Lock()
			s.away, s.noGrants = nil, false
			s.mu.Unlock()
			if err := getPart(ctx, conn); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// Parts in processes of their own find each other by --peers, in whatever order they
// come up.
func TestProcessesApart(t *testing.T) {
	s := newSuite()
	addrs := map[string]string{"identity": freeAddr(t), "permissions": freeAddr(t), "invoicing": freeAddr(t)}
	var processes []*server.Process
	for _, part := range []server.Part{s.invoicing(), s.permissions(), s.identity()} {
		c := config(t)
		c.Listen, c.ServiceKey = addrs[part.Name], strings.Repeat("k", 40)
		for name, addr := range addrs {
			if err := c.Peers.Set(name + "=" + addr); err != nil {
				t.Fatal(err)
			}
		}
		p, err := server.Start(t.Context(), c, []server.Part{part}, server.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		processes = append(processes, p)
	}
	for _, p := range processes {
		waitServing(t, p)
	}
	if err := getPart(s.signIn(t.Context()), dial(t, addrs["invoicing"])); err != nil {
		t.Error(err)
	}
}

// freeAddr returns an address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestMissingPeer(t *testing.T) {
	_, err := server.Start(t.Context(), config(t), []server.Part{newSuite().invoicing()}, server.Options{})
	if want := "the identity service runs in another process, but nobody said where: set --peers identity=HOST:PORT"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A process says SERVING when it holds its leases, and not before; and NOT_SERVING as
// soon as it drains.
func TestHealth(t *testing.T) {
	var addHub func(*lease.Hub)
	hubs := server.Part{Name: "test", Start: func(env *server.Env) error {
		addHub = env.AddHub
		return nil
	}}
	p, err := server.Start(t.Context(), config(t), []server.Part{newSuite().invoicing(), hubs}, server.Options{
		Loaders: &server.Loaders{}, // the last part has the hubs
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	health := healthpb.NewHealthClient(dial(t, p.Addr()))
	check := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range []string{"", "latchkey.invoicing.v1.PartService", "grpc.health.v1.Health"} {
			resp, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || resp.GetStatus() != want {
				t.Errorf("%q: got %v, %v, want %v", service, resp.GetStatus(), err, want)
			}
		}
	}
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	addHub(lease.NewHub(lease.HubConfig{Source: "identity", FirstStart: true, Log: slog.New(slog.DiscardHandler)}))
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	addHub(lease.NewHub(lease.HubConfig{Source: "permissions", FirstStart: true, Log: slog.New(slog.DiscardHandler)}))
	waitServing(t, p)
	check(healthpb.HealthCheckResponse_SERVING)
}

func TestDrain(t *testing.T) {
	s := newSuite()
	called, finish := make(chan struct{}), make(chan struct{})
	s.getPart = func(context.Context, *invoicingpb.GetPartRequest) (*invoicingpb.GetPartResponse, error) {
		close(called)
		<-finish
		return &invoicingpb.GetPartResponse{}, nil
	}
	p := start(t, config(t), s.parts()...)
	conn, ctx := dial(t, p.Addr()), s.signIn(t.Context())
	result := inBackground(func() error { return getPart(ctx, conn) })
	<-called
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("got %v, %v, want SERVING", resp, err)
	}
	leases, err := leasepb.NewLeaseServiceClient(p.Conn("test", "permissions")).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leases.Send(&leasepb.WatchRequest{Source: "permissions", Ping: 1})
	if _, err := leases.Recv(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.Stop()
	}()
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("while it drains: got %v, %v, want NOT_SERVING", resp, err)
	}
	for { // it takes no new connection once it no longer listens
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			break
		}
		c.Close()
	}
	if err := getPart(ctx, dial(t, p.Addr())); status.Code(err) != codes.Unavailable {
		t.Errorf("a new call: got %v, want Unavailable", err)
	}
	select {
	case <-stopped:
		t.Error("it stopped while a call was running")
	default:
	}
	close(finish)
	if err := result(); err != nil {
		t.Errorf("the running call: got %v, want it to finish", err)
	}
	<-stopped
	for err == nil {
		_, err = leases.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the feed: got %v, want Unavailable", err)
	}
	p.Stop() // a second time
	if err := p.Err(); err != nil {
		t.Errorf("the process ended with %v, want nil", err)
	}
}

// attachments serves uploads.
type attachments struct {
	servicerequestpb.UnimplementedAttachmentServiceServer
}

func (attachments) UploadAttachment(stream servicerequestpb.AttachmentService_UploadAttachmentServer) error {
	for {
		if _, err := stream.Recv(); err == io.EOF {
			return stream.SendAndClose(&servicerequestpb.UploadAttachmentResponse{})
		} else if err != nil {
			return err
		}
	}
}

// An upload under way when the process is told to stop may come to its end: its caller
// stays known.
func TestDrainLetsUploadsFinish(t *testing.T) {
	s := newSuite()
	s.grants.Add(catalog.MustGrant("ServiceRequests:Attachments"))
	s.onStart = func(env *server.Env) error {
		servicerequestpb.RegisterAttachmentServiceServer(env.Registrar, attachments{})
		return nil
	}
	p := start(t, config(t), s.parts()...)
	conn := dial(t, p.Addr())
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	upload, err := servicerequestpb.NewAttachmentServiceClient(conn).UploadAttachment(s.signIn(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	chunk := &servicerequestpb.UploadAttachmentRequest{Part: &servicerequestpb.UploadAttachmentRequest_Chunk{Chunk: []byte("x")}}
	if err := upload.Send(chunk); err != nil {
		t.Fatal(err)
	}
	for p.Running() == 0 { // until the upload has arrived
		runtime.Gosched()
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.Stop()
	}()
	waitHealth(t, watch, healthpb.HealthCheckResponse_NOT_SERVING)
	for range 100 {
		if err := upload.Send(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := upload.CloseAndRecv(); err != nil {
		t.Errorf("the upload: got %v, want it to finish", err)
	}
	<-stopped
}

// A call that does not end is ended when the time to drain is over.
func TestDrainHasALimit(t *testing.T) {
	s := newSuite()
	called := make(chan struct{})
	s.getPart = func(ctx context.Context, _ *invoicingpb.GetPartRequest) (*invoicingpb.GetPartResponse, error) {
		close(called)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	c := config(t)
	c.Drain = time.Millisecond
	p := start(t, c, s.parts()...)
	ctx, conn := s.signIn(t.Context()), dial(t, p.Addr())
	result := inBackground(func() error { return getPart(ctx, conn) })
	<-called
	p.Stop()
	if err := result(); err == nil {
		t.Error("the call went well, want it ended")
	}
}

func TestStopAtOnce(t *testing.T) {
	for range 5 {
		p, err := server.Start(t.Context(), config(t), newSuite().parts(), server.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p.Stop()
		if err := p.Err(); err != nil {
			t.Errorf("the process ended with %v, want nil", err)
		}
	}
}

// A start that fails half-way leaves no goroutine, port or lock behind: goleak looks
// for goroutines when all tests are over.
func TestFailedStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(*server.Config, *suite)
		want   string
	}{
		"taken port": {func(c *server.Config, _ *suite) { c.Listen = taken.Addr().String() }, "address already in use"},
		"metrics":    {func(c *server.Config, _ *suite) { c.MetricsListen = taken.Addr().String() }, "address already in use"},
		"certificate": {func(c *server.Config, _ *suite) {
			c.TLSCert, c.TLSKey, c.MetricsListen = "nowhere", "nowhere", "127.0.0.1:0"
		}, "nowhere"},
		"service key":   {func(c *server.Config, _ *suite) { c.ServiceKeyFile, c.MetricsListen = "nowhere", "127.0.0.1:0" }, "nowhere"},
		"trust":         {func(c *server.Config, _ *suite) { c.TLSCA, c.TraceEndpoint = "nowhere", "http://127.0.0.1:1" }, "nowhere"},
		"a part's work": {func(c *server.Config, s *suite) { s.onStart = func(*server.Env) error { return broken } }, "start invoicing: broken"},
		"a part with work under way": {func(c *server.Config, s *suite) {
			c.MetricsListen = "127.0.0.1:0"
			s.onStart = func(env *server.Env) error {
				env.Go("work", func(ctx context.Context) error { <-ctx.Done(); return nil })
				env.Go("calls", func(ctx context.Context) error { getPart(ctx, env.Conn("invoicing")); return nil })
				env.Consume("scheduling", nil)
				return broken
			}
		}, "start invoicing: broken"},
		"a method without a rule": {func(c *server.Config, s *suite) {
			s.onStart = func(env *server.Env) error {
				env.Registrar.RegisterService(&grpc.ServiceDesc{ServiceName: "nobody.Knows", HandlerType: (*any)(nil)}, s)
				return nil
			}
		}, "nobody.Knows: its descriptor is not linked"},
	} {
		t.Run(name, func(t *testing.T) {
			s, conf := newSuite(), config(t)
			c.change(&conf, s)
			p, err := server.Start(t.Context(), conf, s.parts(), server.Options{})
			if err == nil {
				p.Stop()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			// What it had opened can be opened again.
			conf2 := config(t)
			conf2.Store = conf.Store
			start(t, conf2, newSuite().parts()...).Stop()
		})
	}
}

// Background work that fails ends the process, and says why.
func TestBrokenWork(t *testing.T) {
	s := newSuite()
	fail := make(chan struct{})
	s.onStart = func(env *server.Env) error {
		env.Go("work", func(context.Context) error { <-fail; return fmt.Errorf("tired: %w", context.Canceled) })
		return nil
	}
	p := start(t, config(t), s.parts()...)
	close(fail)
	<-p.Done()
	p.Stop()
	if err := p.Err(); err == nil || err.Error() != "invoicing: work: tired: context canceled" {
		t.Errorf("got %v, want invoicing: work: tired", err)
	}
}

func TestFirstStart(t *testing.T) {
	c := config(t)
	for _, want := range []bool{true, false} {
		s := newSuite()
		s.onStart = func(env *server.Env) error {
			if env.FirstStart != want {
				t.Errorf("FirstStart: got %t, want %t", env.FirstStart, want)
			}
			return nil
		}
		start(t, c, s.parts()...).Stop()
	}
}

func TestBlobs(t *testing.T) {
	folder := t.TempDir()
	for name, c := range map[string]struct{ blobs, want string }{
		"by default": {"", "data/blobs/invoicing/photo"},
		"elsewhere":  {"file://" + filepath.Join(folder, "photos"), "photos/invoicing/photo"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := config(t)
			conf.Store, conf.Blobs = "bolt:"+filepath.Join(folder, "data"), c.blobs
			s := newSuite()
			s.onStart = func(env *server.Env) error {
				bucket, err := env.Blobs(t.Context())
				if err != nil {
					return err
				}
				return errors.Join(bucket.WriteAll(t.Context(), "photo", []byte("x"), nil), bucket.Close())
			}
			start(t, conf, s.parts()...).Stop()
			if text, err := os.ReadFile(filepath.Join(folder, c.want)); err != nil || string(text) != "x" {
				t.Errorf("got %q, %v, want x", text, err)
			}
		})
	}
}

func TestReflection(t *testing.T) {
	p := start(t, config(t), newSuite().parts()...)
	stream, err := reflectionpb.NewServerReflectionClient(dial(t, p.Addr())).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, s := range resp.GetListServicesResponse().GetService() {
		found = found || s.GetName() == "latchkey.invoicing.v1.PartService"
	}
	if !found {
		t.Errorf("got %v, want invoicing's", resp)
	}
}
