package permissions_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/permissions"
	"latchkey.dev/services/scheduling"
)

// suite is a process of permissions with its real peers. Its callers sign in, and what
// they may do comes to it by its own feed.
type suite struct {
	*server.Process
	t     testing.TB
	conn  *grpc.ClientConn
	clock *clock
}

// clock is the time of the suite, which a test can set forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

const code = "a code that the operator chose"

// person is somebody who is signed in.
type person struct {
	*suite
	id, email, password string
	organization        string
	token               string
}

// start starts a suite and signs in its first owner.
func start(t testing.TB) *person {
	t.Helper()
	return startWith(t)
}

// startWith is start with more services.
func startWith(t testing.TB, more ...server.Part) *person {
	t.Helper()
	config := servertest.Config(t)
	config.BootstrapCode, config.Lease = code, time.Second
	s := &suite{t: t, clock: &clock{}}
	stores, parts := servertest.StoresOf(t, append([]server.Part{identity.Part, permissions.Part, scheduling.Part}, more...)...)
	p, err := server.Start(t.Context(), config, parts, server.Options{Now: s.clock.now, Log: slog.New(slog.DiscardHandler)})
	mustNot(t, err)
	t.Cleanup(p.Stop)
	t.Cleanup(stores.Verify)
	select {
	case <-p.Serving():
	case <-p.Done():
		t.Fatal(p.Err())
	}
	s.Process = p
	s.conn, err = grpc.NewClient(p.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	mustNot(t, err)
	t.Cleanup(func() { s.conn.Close() })
	owner := &person{suite: s, email: "olga@example.com", password: "password of the owner"}
	resp, err := identitypb.NewBootstrapServiceClient(s.conn).ClaimOwnership(t.Context(), &identitypb.ClaimOwnershipRequest{
		Code: code, BrandName: "Harbour Group", OrganizationName: "Harbour Homes", TimeZone: "Europe/Berlin",
		CurrencyCode: "EUR", OwnerEmail: owner.email, OwnerDisplayName: "Olga Owner", OwnerPassword: owner.password,
	})
	mustNot(t, err)
	owner.id = resp.GetUser().GetId()
	return owner.signIn(resp.GetOrganization().GetId(), identitypb.Surface_SURFACE_WEB)
}

func (p *person) signIn(organization string, surface identitypb.Surface) *person {
	p.t.Helper()
	resp, err := identitypb.NewSessionServiceClient(p.conn).CreateSession(p.t.Context(), &identitypb.CreateSessionRequest{
		Email: p.email, Password: p.password, Surface: surface, OrganizationId: organization,
	})
	mustNot(p.t, err)
	next := *p
	next.organization, next.token = organization, resp.GetToken()
	return &next
}

// add makes a member who cannot sign in, and gives him a role, "" for none.
func (p *person) add(name, role string) string {
	p.t.Helper()
	return p.join(&identitypb.CreateUserRequest{Email: name + "@example.com", DisplayName: name}, role)
}

func (p *person) join(req *identitypb.CreateUserRequest, role string) string {
	p.t.Helper()
	resp, err := identitypb.NewUserServiceClient(p.conn).CreateUser(p.ctx(), req)
	mustNot(p.t, err)
	id := resp.GetUser().GetId()
	if role != "" {
		_, err := p.access().SetUserRole(p.ctx(), &pb.SetUserRoleRequest{UserId: id, RoleId: role})
		mustNot(p.t, err)
	}
	return id
}

// hire makes a member with a role and signs him in.
func (p *person) hire(name, role string) *person {
	p.t.Helper()
	n := &person{suite: p.suite, email: name + "@example.com", password: "password of " + name + " for now"}
	n.id = p.join(&identitypb.CreateUserRequest{Email: n.email, DisplayName: name, InitialPassword: n.password}, role)
	return n.signIn(p.organization, identitypb.Surface_SURFACE_WEB)
}

// elsewhere makes another organization of the brand, with the person as its owner.
func (p *person) elsewhere() *person {
	p.t.Helper()
	resp, err := identitypb.NewOrganizationServiceClient(p.conn).CreateOrganization(p.ctx(), &identitypb.CreateOrganizationRequest{
		Name: "Hill Homes", TimeZone: "Europe/Berlin", CurrencyCode: "EUR",
	})
	mustNot(p.t, err)
	return p.signIn(resp.GetOrganization().GetId(), identitypb.Surface_SURFACE_WEB)
}

// ctx carries the person's session.
func (p *person) ctx() context.Context {
	return metadata.NewOutgoingContext(p.t.Context(), metadata.Pairs("authorization", "Bearer "+p.token))
}

// inside is a context of a call between services, for an organization.
func (s *suite) inside(organization string) context.Context {
	return store.WithOrigin(s.t.Context(), store.Origin{Tenant: organization})
}

func (s *suite) catalog() pb.CatalogServiceClient { return pb.NewCatalogServiceClient(s.conn) }
func (s *suite) roles() pb.RoleServiceClient      { return pb.NewRoleServiceClient(s.conn) }
func (s *suite) groups() pb.GroupServiceClient    { return pb.NewGroupServiceClient(s.conn) }
func (s *suite) plans() pb.PlanServiceClient      { return pb.NewPlanServiceClient(s.conn) }
func (s *suite) access() pb.AccessServiceClient   { return pb.NewAccessServiceClient(s.conn) }
func (s *suite) grants() pb.GrantServiceClient {
	return pb.NewGrantServiceClient(s.Conn("identity", "permissions"))
}

// holds asks whether the caller holds a grant.
func (p *person) holds(grant string) *pb.CheckResponse {
	p.t.Helper()
	resp, err := p.access().Check(p.ctx(), &pb.CheckRequest{Grant: grant})
	mustNot(p.t, err)
	return resp
}

// stored returns what is stored of a user.
func (p *person) stored(user string) *pb.UserAccess {
	p.t.Helper()
	resp, err := p.access().GetUserAccess(p.ctx(), &pb.GetUserAccessRequest{UserId: user})
	mustNot(p.t, err)
	return resp.GetUserAccess()
}

// override grants or denies a user a key.
func (p *person) override(user, key string, effect pb.Effect) error {
	_, err := p.access().SetOverride(p.ctx(), &pb.SetOverrideRequest{UserId: user, Key: key, Effect: effect})
	return err
}

// check compares an error with a code, the reason of its ErrorInfo and its metadata.
func check(t testing.TB, what string, err error, code codes.Code, reason string, metadata ...string) {
	t.Helper()
	st := status.Convert(err)
	info := &errdetails.ErrorInfo{}
	for _, d := range st.Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			info = i
		}
	}
	if st.Code() != code || info.GetReason() != reason {
		t.Errorf("%s: got %v %s (%s), want %v %s", what, st.Code(), info.GetReason(), st.Message(), code, reason)
	}
	for i := 0; i < len(metadata); i += 2 {
		if got := info.GetMetadata()[metadata[i]]; got != metadata[i+1] {
			t.Errorf("%s: got %s %q, want %q", what, metadata[i], got, metadata[i+1])
		}
	}
}

func same(t testing.TB, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func mustNot(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
