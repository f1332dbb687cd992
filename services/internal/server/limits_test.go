package server_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/fault"
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

func TestNowhere(t *testing.T) {
	p := start(t, config(t), newSuite().parts()...)
	err := getPart(t.Context(), p.Conn("invoicing", "scheduling"))
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.ReasonName() != "SERVICE_UNREACHABLE" {
		t.Errorf("got %v, want SERVICE_UNREACHABLE", err)
	}
}
