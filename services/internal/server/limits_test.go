package server_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/trial"
)

// A connection's bounds: too much is refused with a status, and harms nobody else.
func TestLimits(t *testing.T) {
	s := newSuite()
	c := config(t)
	c.MaxMessage, c.CallTimeout = 64<<10, time.Hour
	deadline := make(chan time.Duration, 1)
	s.getPart = func(ctx context.Context, _ *invoicingpb.GetPartRequest) (*invoicingpb.GetPartResponse, error) {
		at, _ := ctx.Deadline()
		deadline <- time.Until(at)
		return &invoicingpb.GetPartResponse{}, nil
	}
	p := start(t, c, s.parts()...)
	conn, ctx := dial(t, p.Addr()), s.signIn(t.Context())
	_, err := invoicingpb.NewPartServiceClient(conn).GetPart(ctx, &invoicingpb.GetPartRequest{Id: strings.Repeat("x", 64<<10)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a long message: got %v, want ResourceExhausted", err)
	}
	// gRPC's client knows the bound and does not even send such a header.
	if err := getPart(metadata.AppendToOutgoingContext(ctx, "x-long", strings.Repeat("x", 20<<10)), conn); status.Code(err) == codes.OK {
		t.Error("a long header was accepted")
	}
	if err := getPart(ctx, conn); err != nil {
		t.Errorf("after them: got %v, want the connection to go on", err)
	}
	if got := <-deadline; got > time.Hour || got < 50*time.Minute {
		t.Errorf("the handler has %v, want the bound of an hour", got)
	}
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := getPart(soon, conn); err != nil {
		t.Error(err)
	}
	if got := <-deadline; got > time.Minute {
		t.Errorf("the handler has %v, want the caller's own deadline", got)
	}
}

// A connection grows old and its callers go on to the next: no call fails, and the streams
// over it, and with them the leases, go on.
func TestOldConnections(t *testing.T) {
	s, from, to := newSuite(), config(t), config(t)
	from.AgeConnections(100 * time.Millisecond)
	to.AgeConnections(100 * time.Millisecond)
	_, p, heard, told := startApart(t, s, from, to)
	var n connections
	conn := dial(t, p.Addr(), grpc.WithStatsHandler(&n))
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	waitHealth(t, watch, healthpb.HealthCheckResponse_SERVING)
	ended := make(chan error, 1)
	go func() {
		_, err := watch.Recv()
		ended <- err
	}()
	for n.begun.Load() < 20 {
		if err := getPart(s.signIn(t.Context()), conn); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			t.Fatalf("the stream ended after %d connections: %v", n.begun.Load(), err)
		default:
		}
	}
	for _, words := range []string{"call broken", "lease lost"} {
		if lines := append(heard.lines(words), told.lines(words)...); len(lines) > 0 {
			t.Errorf("the logs have %q", lines)
		}
	}
}

// connections counts those that a client makes.
type connections struct {
	begun atomic.Int64
}

func (n *connections) HandleConn(_ context.Context, event stats.ConnStats) {
	if _, is := event.(*stats.ConnBegin); is {
		n.begun.Add(1)
	}
}

func (n *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (n *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (n *connections) HandleRPC(context.Context, stats.RPCStats)                         {}

// A call between services may carry as long a message as any.
func TestLongMessageBetweenServices(t *testing.T) {
	s := newSuite()
	ids := make([]string, 150_000)
	for i := range ids {
		ids[i] = part
	}
	s.lookupParts = func(context.Context, *invoicingpb.LookupPartsRequest) (*invoicingpb.LookupPartsResponse, error) {
		return &invoicingpb.LookupPartsResponse{Ids: ids}, nil
	}
	c := config(t)
	c.MaxMessage = 16 << 20
	p := start(t, c, s.parts()...)
	resp, err := invoicingpb.NewPartServiceClient(p.Conn("identity", "invoicing")).LookupParts(t.Context(), &invoicingpb.LookupPartsRequest{})
	if err != nil || len(resp.GetIds()) != len(ids) {
		t.Errorf("got %d ids, %v, want %d", len(resp.GetIds()), err, len(ids))
	}
}

// A stream over which nothing goes stays, within a process and between two: whoever listens is
// not pinged more often than he allows. Short of the fourth ping nothing shows, so the test is
// one of -long.
func TestQuietStream(t *testing.T) {
	if !*trial.Long {
		t.Skip("it is quiet for a minute and a half; -long waits for it")
	}
	p, q, _, _ := startApart(t, newSuite(), config(t), config(t))
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for name, conn := range map[string]grpc.ClientConnInterface{
		"within a process": p.Conn("scheduling", "permissions"), "between processes": q.Conn("scheduling", "permissions"),
	} {
		watch, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		waitHealth(t, watch, healthpb.HealthCheckResponse_SERVING)
		all.Go(func() {
			if _, err := watch.Recv(); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("a stream %s ends with %v, want that it lasts until the end of the test", name, err)
			}
		})
	}
	all.Wait()
}

func TestNowhere(t *testing.T) {
	p := start(t, config(t), newSuite().parts()...)
	err := getPart(t.Context(), p.Conn("invoicing", "scheduling"))
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.ReasonName() != "SERVICE_UNREACHABLE" {
		t.Errorf("got %v, want SERVICE_UNREACHABLE", err)
	}
}
