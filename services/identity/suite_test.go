package identity_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/authenticator"
	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/permissions"
)

const code = "a code that the operator chose"

// suite is a process with identity and permissions, whose callers sign in for real.
type suite struct {
	*server.Process
	t      testing.TB
	config server.Config
	conn   *grpc.ClientConn
	sender *http.Client // of what send sends; nil for web
	parts  []server.Part
	fakes  map[string]*foreign // at providers, by organization
}

func start(t testing.TB, config server.Config, now func() time.Time, parts ...server.Part) *suite {
	t.Helper()
	identity.Tampered.Store(false)
	stores, known := servertest.StoresOf(t, parts...)
	p, err := server.Start(t.Context(), config, known, server.Options{Now: now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	t.Cleanup(func() {
		if !identity.Tampered.Load() {
			stores.Verify()
		}
	})
	conn, err := grpc.NewClient(p.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &suite{p, t, config, conn, nil, parts, map[string]*foreign{}}
}

func config(t testing.TB) server.Config {
	c := servertest.Config(t)
	c.BootstrapCode = code
	c.Lease = 200 * time.Millisecond
	if testing.Short() { // as where races are looked for, which makes everything slow
		c.Lease = 2 * time.Second
	}
	c.HTTPListen, c.Issuer = "127.0.0.1:0", issuer
	c.PasskeyDomain, c.PasskeyOrigins = "latchkey.example", []string{origin, "https://latchkey.example", issuer}
	return c
}

// newSuite starts a suite that nobody has claimed.
func newSuite(t testing.TB, now func() time.Time) *suite {
	t.Helper()
	s := start(t, config(t), now, identity.Cheap, permissions.Part)
	s.ready()
	return s
}

func (s *suite) ready() {
	s.t.Helper()
	select {
	case <-s.Serving():
	case <-s.Done():
		s.t.Fatal(s.Err())
	}
}

// again stops the process and starts it on the same data.
func (s *suite) again() *suite {
	s.t.Helper()
	s.Stop()
	tampered := identity.Tampered.Load()
	next := start(s.t, s.config, time.Now, s.parts...)
	identity.Tampered.Store(tampered)
	next.ready()
	return next
}

// caller is somebody who is signed in.
type caller struct {
	*suite
	user           *pb.User
	email          string
	password       string
	session        *pb.Session
	token          string
	surface        pb.Surface // of sign-ins that ask for none; the web if it is unspecified
	key            string     // token of an API key
	keyID          string
	brandKey       string   // token of an API key of the brand
	outsideAccount *foreign // that signs the caller in
	begun          *begun   // on pages, by that
	invitee        string   // somebody without a password
	acting         string   // token of a session that somebody else has in this name
	// actorSession is what that was opened from, beneath somebody to act for.
	actorSession, beneath string
	brand                 string // the caller may close
	brandKeyID            string
	machine               *registered // OAuth client that acts by itself
	machineCall           string      // its access token
	personCall            string      // access token with which it acts for the caller
	personSession         string      // the session of that
	refresh               string      // token that goes on with the session
	device                string      // token of the device
	calendar              string      // token of the calendar's feed
	resetCode             string      // for the password
	// account is a service account, with a key and a client.
	account *caller
	// strong is somebody else, who has a second factor.
	strong *caller
	app    *app
	codes  []string // that recover
	// challenge and stepUp are to be answered, and setup to be confirmed.
	challenge, stepUp, setup string
	// passkeys keeps the person's, and alone is to be answered with one of them.
	passkeys *authenticator.Device
	alone    *pb.Challenge
}

// ctx carries the caller's session.
func (c *caller) ctx() context.Context { return withToken(c.t.Context(), c.token) }

func withToken(ctx context.Context, token string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer "+token))
}

func (s *suite) users() pb.UserServiceClient       { return pb.NewUserServiceClient(s.conn) }
func (s *suite) sessions() pb.SessionServiceClient { return pb.NewSessionServiceClient(s.conn) }
func (s *suite) profiles() pb.ProfileServiceClient { return pb.NewProfileServiceClient(s.conn) }
func (s *suite) apiKeys() pb.ApiKeyServiceClient   { return pb.NewApiKeyServiceClient(s.conn) }
func (s *suite) brandKeys() pb.BrandApiKeyServiceClient {
	return pb.NewBrandApiKeyServiceClient(s.conn)
}
func (s *suite) accounts() pb.ServiceAccountServiceClient {
	return pb.NewServiceAccountServiceClient(s.conn)
}
func (s *suite) factors() pb.FactorServiceClient     { return pb.NewFactorServiceClient(s.conn) }
func (s *suite) calendars() pb.CalendarServiceClient { return pb.NewCalendarServiceClient(s.conn) }
func (s *suite) userFactors() pb.UserFactorServiceClient {
	return pb.NewUserFactorServiceClient(s.conn)
}
func (s *suite) brands() pb.BrandServiceClient        { return pb.NewBrandServiceClient(s.conn) }
func (s *suite) bootstrap() pb.BootstrapServiceClient { return pb.NewBootstrapServiceClient(s.conn) }
func (s *suite) access() permissionspb.AccessServiceClient {
	return permissionspb.NewAccessServiceClient(s.conn)
}
func (s *suite) impersonations() pb.ImpersonationServiceClient {
	return pb.NewImpersonationServiceClient(s.conn)
}
func (s *suite) organizations() pb.OrganizationServiceClient {
	return pb.NewOrganizationServiceClient(s.conn)
}

func claimRequest() *pb.ClaimOwnershipRequest {
	return &pb.ClaimOwnershipRequest{
		Code: code, BrandName: "Harbour Group", OrganizationName: "Harbour Homes", TimeZone: "Europe/Berlin",
		CurrencyCode: "EUR", OwnerEmail: "Owner@Example.com", OwnerDisplayName: "Olga Owner", OwnerPassword: "password of the owner",
	}
}

// owned starts a suite and signs its owner in.
func owned(t testing.TB) *caller {
	t.Helper()
	return newSuite(t, time.Now).claim()
}

func (s *suite) claim() *caller {
	s.t.Helper()
	resp, err := s.bootstrap().ClaimOwnership(s.t.Context(), claimRequest())
	if err != nil {
		s.t.Fatal(err)
	}
	c := &caller{suite: s, user: resp.GetUser(), email: "owner@example.com", password: "password of the owner"}
	return c.signIn("")
}

// signIn opens a session of the web, in the named organization or the only one.
func (c *caller) signIn(organization string) *caller {
	c.t.Helper()
	return c.signInWith(&pb.CreateSessionRequest{OrganizationId: organization})
}

// signInWith opens a session, of the web if nothing else is asked for.
func (c *caller) signInWith(req *pb.CreateSessionRequest) *caller {
	c.t.Helper()
	req.Email, req.Password = c.email, c.password
	if req.GetSurface() == pb.Surface_SURFACE_UNSPECIFIED {
		req.Surface = c.on()
	}
	resp, err := c.sessions().CreateSession(c.t.Context(), req)
	if err != nil {
		c.t.Fatalf("sign in as %s: %v", c.email, err)
	}
	next := *c
	next.session, next.token, next.refresh, next.device = resp.GetSession(), resp.GetToken(), resp.GetRefreshToken(), resp.GetDeviceToken()
	return &next
}

// on is the surface that the caller signs in on.
func (c *caller) on() pb.Surface {
	if c.surface == pb.Surface_SURFACE_UNSPECIFIED {
		return pb.Surface_SURFACE_WEB
	}
	return c.surface
}

// hire makes a user with a role and signs the user in.
func (c *caller) hire(name, role string) *caller {
	c.t.Helper()
	u := c.add(name, role)
	return u.signIn(c.session.GetOrganizationId())
}

// add makes a user with a role, "" for none.
func (c *caller) add(name, role string) *caller {
	c.t.Helper()
	u := &caller{suite: c.suite, email: name + "@example.com", password: "password of " + name + " for now"}
	resp, err := c.users().CreateUser(c.ctx(), &pb.CreateUserRequest{Email: u.email, DisplayName: name, InitialPassword: u.password})
	if err != nil {
		c.t.Fatalf("add %s: %v", name, err)
	}
	u.user = resp.GetUser()
	if role != "" {
		c.giveRole(u.user.GetId(), role)
	}
	return u
}

func (c *caller) giveRole(user, role string) {
	c.t.Helper()
	_, err := c.access().SetUserRole(c.ctx(), &permissionspb.SetUserRoleRequest{UserId: user, RoleId: role})
	if err != nil {
		c.t.Fatalf("give %s the role %s: %v", user, role, err)
	}
}

// check compares an error with a code and the reason of its ErrorInfo.
func check(t testing.TB, what string, err error, code codes.Code, reason string) {
	t.Helper()
	st := status.Convert(err)
	var got string
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			got = info.GetReason()
		}
	}
	if st.Code() != code || got != reason {
		t.Errorf("%s: got %v %s (%s), want %v %s", what, st.Code(), got, st.Message(), code, reason)
	}
}

// checkField is check for a FIELD_INVALID of one field.
func checkField(t testing.TB, what string, err error, field string) {
	t.Helper()
	check(t, what, err, codes.InvalidArgument, "FIELD_INVALID")
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 0 {
			if got := bad.GetFieldViolations()[0].GetField(); got != field {
				t.Errorf("%s: got the field %q, want %q", what, got, field)
			}
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

// signedIn tells whether a token is accepted.
func (s *suite) signedIn(token string) bool {
	s.t.Helper()
	return s.accepted(withToken(s.t.Context(), token))
}

// signedInTo is signedIn for a call that names an organization.
func (s *suite) signedInTo(token, organization string) bool {
	s.t.Helper()
	return s.accepted(naming(withToken(s.t.Context(), token), organization))
}

// naming names the organization of a call.
func naming(ctx context.Context, organization string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, authz.OrganizationHeader, organization)
}

func (s *suite) accepted(ctx context.Context) bool {
	s.t.Helper()
	_, err := s.profiles().GetProfile(ctx, &pb.GetProfileRequest{})
	if err != nil && status.Code(err) != codes.Unauthenticated {
		s.t.Fatal(err)
	}
	return err == nil
}

func hasText(err error, text string) bool {
	return strings.Contains(status.Convert(err).Message(), text)
}
