package decision_test

import (
	"context"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/invoicing"
)

const (
	source  = "invoicing"
	create  = "latchkey.invoicing.v1.PartService/CreatePart"
	get     = "latchkey.invoicing.v1.PartService/GetPart"
	list    = "latchkey.invoicing.v1.PartService/ListParts"
	mayMake = "ControlPanel:Parts:Create"
	mayPick = "Organization:Parts"
	mayRead = "Organization: Users"
)

// world is the service invoicing, and somebody who may read its log.
type world struct {
	*servertest.Server
	t      *testing.T
	reader decisionpb.DecisionServiceClient
}

func start(t *testing.T) *world {
	t.Helper()
	return over(t, servertest.Start(t, invoicing.Part))
}

func over(t *testing.T, s *servertest.Server) *world {
	t.Helper()
	return &world{s, t, decisionpb.NewDecisionServiceClient(s.As(mayRead))}
}

func parts(c grpc.ClientConnInterface) invoicingpb.PartServiceClient {
	return invoicingpb.NewPartServiceClient(c)
}

// decisions returns all that a request lists, page by page.
func (w *world) decisions(req *decisionpb.ListDecisionsRequest) (found []*decisionpb.Decision) {
	w.t.Helper()
	req = proto.CloneOf(req)
	req.Source = source
	for {
		resp, err := w.reader.ListDecisions(w.t.Context(), req)
		if err != nil {
			w.t.Fatal(err)
		}
		found = append(found, resp.GetDecisions()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return found
		}
	}
}

func (w *world) usage(req *decisionpb.ListUsageRequest) (found []*decisionpb.Usage) {
	w.t.Helper()
	req = proto.CloneOf(req)
	req.Source = source
	for {
		resp, err := w.reader.ListUsage(w.t.Context(), req)
		if err != nil {
			w.t.Fatal(err)
		}
		found = append(found, resp.GetUsage()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return found
		}
	}
}

// wantOne compares the only decision that a request lists, but for its id and time.
func (w *world) wantOne(what string, req *decisionpb.ListDecisionsRequest, trailer *metadata.MD, want *decisionpb.Decision) {
	w.t.Helper()
	found := w.decisions(req)
	if len(found) != 1 {
		w.t.Errorf("%s: got %d decisions, want 1: %v", what, len(found), found)
		return
	}
	got := found[0]
	if ids := trailer.Get(authz.DecisionHeader); len(ids) != 1 || ids[0] != got.GetId() {
		w.t.Errorf("%s: the trailer says %q, the log %q", what, ids, got.GetId())
	}
	if got.GetDecideTime() == nil || len(got.GetId()) != 36 || got.GetId()[14] != '7' {
		w.t.Errorf("%s: got the id %q of %v, want a UUID of version 7 and a time", what, got.GetId(), got.GetDecideTime())
	}
	got.Id, got.DecideTime, got.SessionId = "", nil, ""
	if !proto.Equal(got, want) {
		w.t.Errorf("%s:\ngot  %v\nwant %v", what, got, want)
	}
}

// called returns a context and an option that keep what a call's trailer says.
func (w *world) called(requestID string) (context.Context, grpc.CallOption, *metadata.MD) {
	trailer := &metadata.MD{}
	return servertest.WithRequestID(w.t.Context(), requestID), grpc.Trailer(trailer), trailer
}

func wantReason(t *testing.T, what string, err error, code codes.Code, reason string) {
	t.Helper()
	got := ""
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			got = info.GetReason()
		}
	}
	if status.Code(err) != code || got != reason {
		t.Errorf("%s: got %v %s (%v), want %v %s", what, status.Code(err), got, err, code, reason)
	}
}
