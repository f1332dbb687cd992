package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	organization = "0198c0de-0000-7000-8000-0000000000aa"
	user         = "0198c0de-0000-7000-8000-0000000000bb"
	part         = "0198c0de-0000-7000-8000-0000000000cc"
)

var (
	samples = store.NewCollection("sample", (*storepb.Sample).GetId)
	schema  = store.NewSchema(samples)
)

// suite is three parts that stand for the services: identity and permissions, which
// know whom the test makes known, and invoicing, whose methods the test writes.
type suite struct {
	getPart     func(context.Context, *invoicingpb.GetPartRequest) (*invoicingpb.GetPartResponse, error)
	lookupParts func(context.Context, *invoicingpb.LookupPartsRequest) (*invoicingpb.LookupPartsResponse, error)
	onStart     func(*server.Env) error // of invoicing

	mu       sync.Mutex
	away     error                               // what identity and permissions answer instead, if set
	noGrants bool                                // permissions answers with something that is no set of grants
	sessions map[string]*identitypb.SessionFacts // by the hash of the token
	grants   catalog.Set                         // of everybody
	settings *permissionspb.EffectiveSettings
}

func newSuite() *suite {
	grants, err := catalog.SetOf("Organization:Parts", "Web")
	if err != nil {
		panic(err)
	}
	return &suite{sessions: map[string]*identitypb.SessionFacts{}, grants: grants}
}

func (s *suite) parts() []server.Part {
	return []server.Part{s.identity(), s.permissions(), s.invoicing()}
}

func (s *suite) identity() server.Part {
	return server.Part{Name: "identity", Schema: schema, Start: func(env *server.Env) error {
		env.AddHub(lease.NewHub(lease.HubConfig{Source: "identity", Duration: env.Lease, FirstStart: env.FirstStart, Replicated: env.Store.Shared(), Log: env.Log}))
		identitypb.RegisterSessionServiceServer(env.Registrar, identityService{suite: s})
		return nil
	}}
}

func (s *suite) permissions() server.Part {
	return server.Part{Name: "permissions", Schema: schema, Start: func(env *server.Env) error {
		env.AddHub(lease.NewHub(lease.HubConfig{Source: "permissions", Duration: env.Lease, FirstStart: env.FirstStart, Replicated: env.Store.Shared(), Log: env.Log}))
		permissionspb.RegisterGrantServiceServer(env.Registrar, permissionsService{suite: s})
		return nil
	}}
}

func (s *suite) invoicing() server.Part {
	return server.Part{Name: "invoicing", Schema: schema, Start: func(env *server.Env) error {
		invoicingpb.RegisterPartServiceServer(env.Registrar, invoicingService{suite: s})
		if s.onStart != nil {
			return s.onStart(env)
		}
		return nil
	}}
}

type identityService struct {
	identitypb.UnimplementedSessionServiceServer
	*suite
}

func (s identityService) ResolveSession(_ context.Context, req *identitypb.ResolveSessionRequest) (*identitypb.ResolveSessionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return nil, s.away
	}
	session, ok := s.sessions[string(req.GetTokenHash())]
	if !ok {
		return nil, fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID, "no such session", nil)
	}
	return &identitypb.ResolveSessionResponse{Session: session}, nil
}

type permissionsService struct {
	permissionspb.UnimplementedGrantServiceServer
	*suite
}

func (s permissionsService) ResolveGrants(ctx context.Context, req *permissionspb.ResolveGrantsRequest) (*permissionspb.ResolveGrantsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noGrants {
		return &permissionspb.ResolveGrantsResponse{}, nil
	}
	if store.OriginOf(ctx).Tenant != organization || req.GetUserId() != user {
		return &permissionspb.ResolveGrantsResponse{Grants: catalog.Set{}.Bytes()}, nil
	}
	return &permissionspb.ResolveGrantsResponse{Grants: s.grants.Bytes(), Settings: s.settings, Revision: 7}, nil
}

type invoicingService struct {
	invoicingpb.UnimplementedPartServiceServer
	*suite
}

func (s invoicingService) GetPart(ctx context.Context, req *invoicingpb.GetPartRequest) (*invoicingpb.GetPartResponse, error) {
	if s.getPart == nil {
		return &invoicingpb.GetPartResponse{Part: &invoicingpb.Part{Id: req.GetId()}}, nil
	}
	return s.getPart(ctx, req)
}

func (s invoicingService) LookupParts(ctx context.Context, req *invoicingpb.LookupPartsRequest) (*invoicingpb.LookupPartsResponse, error) {
	if s.lookupParts == nil {
		return &invoicingpb.LookupPartsResponse{Ids: req.GetIds()}, nil
	}
	return s.lookupParts(ctx, req)
}

// signIn opens a session of the user, and returns the context of a call in it.
func (s *suite) signIn(ctx context.Context) context.Context {
	text, hash := token.New("lk_", rand.Reader)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[string(hash[:])] = &identitypb.SessionFacts{
		SessionId: "session", UserId: user, OrganizationId: organization,
		Surface: identitypb.Surface_SURFACE_WEB, ExpireTime: timestamppb.New(time.Now().Add(time.Hour)),
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+text)
}

// config returns the configuration of a process of the test's own.
func config(t testing.TB) server.Config {
	c := server.Defaults()
	c.Listen = "127.0.0.1:0"
	c.Store = "bolt:" + t.TempDir()
	return c
}

// journal keeps the lines that a process logs.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// lines returns those with each of the words.
func (j *journal) lines(words ...string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []string
	for line := range strings.Lines(j.text.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func (j *journal) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start starts parts and waits until they serve.
func start(t testing.TB, c server.Config, parts ...server.Part) *server.Process {
	t.Helper()
	p, _ := startLogged(t, c, parts...)
	return p
}

func startLogged(t testing.TB, c server.Config, parts ...server.Part) (*server.Process, *journal) {
	t.Helper()
	j := &journal{}
	p, err := server.Start(t.Context(), c, parts, server.Options{Log: j.log()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	waitServing(t, p)
	return p, j
}

// startApart starts identity and permissions in one process, and invoicing in another. It
// returns what each logs, too.
func startApart(t testing.TB, s *suite, from, to server.Config) (sources, invoicing *server.Process, heard, told *journal) {
	t.Helper()
	from.ServiceKey = strings.Repeat("k", 32)
	to.ServiceKey = from.ServiceKey
	sources, heard = startLogged(t, from, s.identity(), s.permissions())
	if err := to.Peers.Set("identity=" + sources.Addr() + ",permissions=" + sources.Addr()); err != nil {
		t.Fatal(err)
	}
	invoicing, told = startLogged(t, to, s.invoicing())
	return sources, invoicing, heard, told
}

func waitServing(t testing.TB, p *server.Process) {
	t.Helper()
	select {
	case <-p.Serving():
	case <-p.Done():
		t.Fatal(p.Err())
	case <-t.Context().Done():
		t.Fatal("the process does not serve")
	}
}

// dial connects to a process as anybody can.
func dial(t testing.TB, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return dialWith(t, addr, insecure.NewCredentials(), options...)
}

func dialWith(t testing.TB, addr string, creds credentials.TransportCredentials, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(options, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func getPart(ctx context.Context, conn grpc.ClientConnInterface) error {
	_, err := invoicingpb.NewPartServiceClient(conn).GetPart(ctx, &invoicingpb.GetPartRequest{Id: part})
	return err
}

// reason returns the reason of a status error.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// inBackground runs f and returns a function that waits for its error.
func inBackground(f func() error) func() error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return func() error { return <-result }
}
