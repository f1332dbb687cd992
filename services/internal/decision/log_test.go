package decision_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/invoicing"
)

// Each denial leaves one decision, by whatever it was denied.
func TestDenials(t *testing.T) {
	w := start(t)
	for i, c := range []struct {
		name   string
		user   *servertest.User
		call   func(*servertest.User, string) (*metadata.MD, error)
		method string
		code   codes.Code
		want   *decisionpb.Decision
	}{
		{"the rule", w.As(mayPick), w.create(&invoicingpb.CreatePartRequest{Name: "x"}), create, codes.PermissionDenied,
			&decisionpb.Decision{Grants: []string{mayMake}, Reason: "GRANT_MISSING", MissingGrant: mayMake}},
		{"the content", w.As(mayMake), w.create(&invoicingpb.CreatePartRequest{Name: "x", Price: &typepb.Money{MinorUnits: 4711, CurrencyCode: "EUR"}}), create, codes.PermissionDenied,
			&decisionpb.Decision{Grants: []string{mayMake, "setting:see_pricing"}, Reason: "GRANT_MISSING", MissingGrant: "setting:see_pricing", Field: "price"}},
		{"an invalid request", w.As(mayPick), w.create(&invoicingpb.CreatePartRequest{}), create, codes.PermissionDenied,
			&decisionpb.Decision{Grants: []string{mayMake}, Reason: "GRANT_MISSING", MissingGrant: mayMake}},
		{"the surface", w.AsUser(servertest.UUID(77), authz.SurfaceWeb, mayMake), w.create(&invoicingpb.CreatePartRequest{Name: "x"}), create, codes.PermissionDenied,
			&decisionpb.Decision{Grants: []string{mayMake}, Reason: "SURFACE_CLOSED", MissingGrant: "Web"}},
		{"a reading method", w.As(mayMake), func(u *servertest.User, id string) (*metadata.MD, error) {
			ctx, option, trailer := w.called(id)
			_, err := parts(u).ListParts(ctx, &invoicingpb.ListPartsRequest{View: invoicingpb.PartView_PART_VIEW_PICKER}, option)
			return trailer, err
		}, list, codes.PermissionDenied, &decisionpb.Decision{Grants: []string{mayPick}, Reason: "GRANT_MISSING", MissingGrant: mayPick, Field: "view"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{w.Server, t, w.reader}
			id := fmt.Sprint("denial-", i)
			trailer, err := c.call(c.user, id)
			wantReason(t, "call", err, c.code, c.want.GetReason())
			c.want.Outcome, c.want.OrganizationId, c.want.UserId = decisionpb.Outcome_OUTCOME_DENIED, w.Organization, c.user.ID
			c.want.Method, c.want.RequestId, c.want.Code, c.want.Surface = c.method, id, c.code.String(), "WEB"
			w.wantOne(c.name, &decisionpb.ListDecisionsRequest{UserId: c.user.ID}, trailer, c.want)
		})
	}
	for _, d := range w.decisions(&decisionpb.ListDecisionsRequest{}) {
		if strings.Contains(d.String(), "4711") {
			t.Errorf("a decision holds an amount: %v", d)
		}
	}
}

func (w *world) create(req *invoicingpb.CreatePartRequest) func(*servertest.User, string) (*metadata.MD, error) {
	return func(u *servertest.User, id string) (*metadata.MD, error) {
		ctx, option, trailer := w.called(id)
		_, err := parts(u).CreatePart(ctx, req, option)
		return trailer, err
	}
}

// Nobody is unknown to the log: who did not sign in leaves none, and what he is told
// carries no id.
func TestNobodyLeavesNone(t *testing.T) {
	w := start(t)
	_, option, trailer := w.called("nobody")
	_, err := parts(w.Anonymous()).CreatePart(t.Context(), &invoicingpb.CreatePartRequest{Name: "x"}, option)
	wantReason(t, "nobody", err, codes.Unauthenticated, "CREDENTIALS_MISSING")
	if len(trailer.Get(authz.DecisionHeader)) > 0 || len(w.decisions(&decisionpb.ListDecisionsRequest{})) > 0 {
		t.Errorf("the call of nobody left a decision: %v", trailer)
	}
}

// Each mutation that was let in leaves one decision, whatever came of it.
func TestMutations(t *testing.T) {
	w := start(t)
	for _, c := range []struct {
		name string
		req  *invoicingpb.CreatePartRequest
		code codes.Code
	}{
		{"done", &invoicingpb.CreatePartRequest{RequestId: servertest.UUID(1), Name: "Valve", Sku: "V"}, codes.OK},
		{"repeated", &invoicingpb.CreatePartRequest{RequestId: servertest.UUID(1), Name: "Valve", Sku: "V"}, codes.OK},
		{"validated", &invoicingpb.CreatePartRequest{ValidateOnly: true, Name: "Hose"}, codes.OK},
		{"refused", &invoicingpb.CreatePartRequest{Name: "Another", Sku: "V"}, codes.AlreadyExists},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{w.Server, t, w.reader}
			u := w.AsUser(servertest.UUID(5), authz.SurfaceWeb, "Web", mayMake)
			before := len(w.decisions(&decisionpb.ListDecisionsRequest{}))
			trailer, err := w.create(c.req)(u, c.name)
			if got := status.Code(err); got != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			after := w.decisions(&decisionpb.ListDecisionsRequest{})
			if len(after) != before+1 {
				t.Fatalf("got %d decisions more, want 1", len(after)-before)
			}
			got := after[0]
			if ids := trailer.Get(authz.DecisionHeader); len(ids) != 1 || ids[0] != got.GetId() {
				t.Errorf("the trailer says %q, the log %q", ids, got.GetId())
			}
			want := &decisionpb.Decision{
				Id: got.GetId(), DecideTime: got.GetDecideTime(), SessionId: got.GetSessionId(),
				Outcome: decisionpb.Outcome_OUTCOME_ALLOWED, OrganizationId: w.Organization, UserId: u.ID,
				Method: create, Grants: []string{mayMake}, RequestId: c.name, Code: c.code.String(), Surface: "WEB",
			}
			if !proto.Equal(got, want) || got.GetSessionId() == "" {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
	_, err := parts(w.As(mayMake)).CreatePart(t.Context(), &invoicingpb.CreatePartRequest{})
	wantReason(t, "an invalid request", err, codes.InvalidArgument, "FIELD_INVALID")
	if got := len(w.decisions(&decisionpb.ListDecisionsRequest{})); got != 4 {
		t.Errorf("got %d decisions with an invalid request, want the 4 before", got)
	}
}

// A store that takes nothing more lets no mutation and no denial pass unlogged.
func TestFullDiskFailsCalls(t *testing.T) {
	w := over(t, servertest.StartWith(t, server.Options{MaxBytes: 1 << 18}, invoicing.Part))
	maker, picker := w.As(mayMake, "setting:see_pricing"), w.As(mayPick)
	var last string
	made := 0
	for range 10_000 {
		resp, err := parts(maker).CreatePart(t.Context(), &invoicingpb.CreatePartRequest{Name: strings.Repeat("x", 200)})
		if err != nil {
			wantReason(t, "a mutation on a full disk", err, codes.ResourceExhausted, "DISK_FULL")
			break
		}
		last = resp.GetPart().GetId()
		made++
	}
	full := 0
	for range 500 {
		_, err := parts(picker).CreatePart(t.Context(), &invoicingpb.CreatePartRequest{Name: "x"})
		if status.Code(err) == codes.ResourceExhausted {
			full++
			continue
		}
		wantReason(t, "a denial while there is room", err, codes.PermissionDenied, "GRANT_MISSING")
	}
	if full == 0 {
		t.Error("denials go on though nothing can be written")
	}
	if _, err := parts(picker).GetPart(t.Context(), &invoicingpb.GetPartRequest{Id: last}); err != nil {
		t.Errorf("reading on a full disk: %v", err)
	}
	got := map[string]int{}
	for _, d := range w.decisions(&decisionpb.ListDecisionsRequest{}) {
		got[d.GetCode()]++
	}
	// That of the mutation which found no room may have found some for itself.
	if got["OK"] != made || got["PermissionDenied"] != 500-full || got["ResourceExhausted"] > 1 {
		t.Errorf("got the decisions %v of %d mutations and %d denials", got, made, 500-full)
	}
}

// Other organizations have their own log.
func TestTenants(t *testing.T) {
	w := start(t)
	other := over(t, w.InOrganization(servertest.UUID(900)))
	if _, err := parts(other.As(mayMake)).CreatePart(t.Context(), &invoicingpb.CreatePartRequest{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if got := w.decisions(&decisionpb.ListDecisionsRequest{}); len(got) != 0 {
		t.Errorf("got the decisions %v of another organization", got)
	}
	if got := other.decisions(&decisionpb.ListDecisionsRequest{}); len(got) != 1 {
		t.Errorf("got %d decisions of its own, want 1", len(got))
	}
	resp, err := other.reader.ListDecisions(t.Context(), &decisionpb.ListDecisionsRequest{Source: "nowhere"})
	wantReason(t, "no such source", err, codes.NotFound, "RECORD_NOT_FOUND")
	if resp != nil {
		t.Errorf("got %v with an error", resp)
	}
}
