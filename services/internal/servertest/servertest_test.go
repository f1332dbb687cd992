package servertest

import (
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
)

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
