package servertest

import (
	"context"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStartServesAndEnforces(t *testing.T) {
	s := Start(t)
	resp, err := healthpb.NewHealthClient(s.Anonymous()).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("health: got %v, %v, want SERVING", resp, err)
	}
	watch := func(c eventpb.EventServiceClient) codes.Code {
		stream, err := c.WatchEvents(t.Context(), &eventpb.WatchEventsRequest{Source: "nobody"})
		if err == nil {
			_, err = stream.Recv()
		}
		return status.Code(err)
	}
	if got := watch(eventpb.NewEventServiceClient(s.Anonymous())); got != codes.Unauthenticated {
		t.Errorf("anonymous: got %v, want Unauthenticated", got)
	}
	if got := watch(eventpb.NewEventServiceClient(s.As())); got != codes.PermissionDenied {
		t.Errorf("user: got %v, want PermissionDenied", got)
	}
	if got := watch(eventpb.NewEventServiceClient(s.Service("scheduling"))); got != codes.NotFound {
		t.Errorf("service: got %v, want NotFound", got)
	}
}

// parts serves PartService with one method, which says who calls.
type parts struct {
	invoicingpb.UnimplementedPartServiceServer
}

func (parts) GetPart(ctx context.Context, _ *invoicingpb.GetPartRequest) (*invoicingpb.GetPartResponse, error) {
	p := authz.Caller(ctx)
	return &invoicingpb.GetPartResponse{Part: &invoicingpb.Part{
		Id: p.ID, Etag: p.Organization, Name: new(p.Surface.String()), Sku: new(p.Values["search_scope"]),
		Price: &typepb.Money{MinorUnits: int64(p.Grants.Len())},
	}}, nil
}

func (parts) LookupParts(ctx context.Context, _ *invoicingpb.LookupPartsRequest) (*invoicingpb.LookupPartsResponse, error) {
	o := store.OriginOf(ctx)
	return &invoicingpb.LookupPartsResponse{Ids: []string{o.Tenant, authz.Caller(ctx).Service}}, nil
}

var part = server.Part{Name: "invoicing", Start: func(env *server.Env) error {
	invoicingpb.RegisterPartServiceServer(env.Registrar, parts{})
	return nil
}}

// get returns what GetPart says of the caller.
func get(t *testing.T, conn grpc.ClientConnInterface) (*invoicingpb.Part, error) {
	t.Helper()
	resp, err := invoicingpb.NewPartServiceClient(conn).GetPart(t.Context(), &invoicingpb.GetPartRequest{Id: UUID(1)})
	return resp.GetPart(), err
}

func TestUsers(t *testing.T) {
	s := Start(t, part)
	there := s.InOrganization(UUID(2))
	for name, c := range map[string]struct {
		user *User
		want *invoicingpb.Part
	}{
		"As": {s.As("Organization:Parts", "setting:see_pricing"),
			&invoicingpb.Part{Etag: s.Organization, Name: new("WEB"), Price: &typepb.Money{MinorUnits: 3}}},
		"elsewhere": {there.As("Organization:Parts"), &invoicingpb.Part{Etag: UUID(2), Name: new("WEB")}},
		"a role of the web": {s.AsRole("OA"), &invoicingpb.Part{Etag: s.Organization, Name: new("WEB"),
			Price: &typepb.Money{MinorUnits: int64(len(role(t, "OA").Keys)) + 1}}},
		"a role of the app": {s.AsRole("SA"), &invoicingpb.Part{Etag: s.Organization, Name: new("APP"),
			Price: &typepb.Money{MinorUnits: int64(len(role(t, "SA").Keys)) + 1}}},
		"a user of the test's choice": {s.AsUser(UUID(3), authz.SurfaceAPI, "Organization:Parts", "App"),
			&invoicingpb.Part{Etag: s.Organization, Name: new("API")}},
	} {
		c.want.Id, c.want.Sku = c.user.ID, new("")
		got, err := get(t, c.user)
		if err != nil || !proto.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, c.want)
		}
	}
}

func role(t *testing.T, code string) catalog.Role {
	t.Helper()
	r, ok := catalog.LookupRole(code)
	if !ok {
		t.Fatalf("no role %s", code)
	}
	return r
}

// What a test changes of a user holds when the change has returned.
func TestChangesHoldAtOnce(t *testing.T) {
	s := Start(t, part)
	user := s.As("Organization:Parts")
	for range 20 {
		if _, err := get(t, user); err != nil {
			t.Fatal(err)
		}
		user.Grant("Web")
		if _, err := get(t, user); status.Code(err) != codes.PermissionDenied {
			t.Fatalf("after a revoke: got %v, want PermissionDenied", err)
		}
		user.Grant("Web", "Organization:Parts")
	}
	user.Set("search_scope", "SEARCH_SCOPE_OWN")
	user.Set("future_visibility", "14")
	if got, err := get(t, user); err != nil || got.GetSku() != "SEARCH_SCOPE_OWN" {
		t.Errorf("after two settings: got %v, %v, want the first too", got, err)
	}
	user.End()
	if _, err := get(t, user); status.Code(err) != codes.Unauthenticated {
		t.Errorf("after the end: got %v, want Unauthenticated", err)
	}
}

func TestService(t *testing.T) {
	s := Start(t, part)
	lookup := func(ctx context.Context, conn grpc.ClientConnInterface) []string {
		resp, err := invoicingpb.NewPartServiceClient(conn).LookupParts(ctx, &invoicingpb.LookupPartsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetIds()
	}
	if got, want := lookup(t.Context(), s.Service("scheduling")), []string{s.Organization, "scheduling"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	other := store.WithOrigin(t.Context(), store.Origin{Tenant: UUID(9)})
	if got, want := lookup(other, s.Service("scheduling")), []string{UUID(9), "scheduling"}; !slices.Equal(got, want) {
		t.Errorf("for another tenant: got %q, want %q", got, want)
	}
}

// Sessions last by the clock of the test.
func TestStartAt(t *testing.T) {
	for _, year := range []int{1990, 2090} {
		s := StartAt(t, func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }, part)
		if _, err := get(t, s.As("Organization:Parts")); err != nil {
			t.Errorf("in %d: %v", year, err)
		}
	}
}
