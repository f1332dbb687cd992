package e2e

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/authz"
)

// TestDecisionsSurviveAKill kills the process that decided right after it answered: what
// was decided is there when it is back, once each.
func TestDecisionsSurviveAKill(t *testing.T) {
	s := five(t)
	company := s.fill()
	owner, technician := company.As(t.Context(), "OW"), company.As(t.Context(), "SA")
	want := map[string]codes.Code{}
	note := func(trailer metadata.MD, err error) {
		t.Helper()
		ids := trailer.Get(authz.DecisionHeader)
		if len(ids) != 1 {
			t.Fatalf("the answer %v carries the decisions %q, want one", err, ids)
		}
		want[ids[0]] = status.Code(err)
	}
	for round := range 3 {
		for _, who := range []context.Context{technician, owner} {
			var trailer metadata.MD
			_, err := invoicingpb.NewPartServiceClient(s).CreatePart(who, &invoicingpb.CreatePartRequest{Name: fmt.Sprint("Hose ", round)}, grpc.Trailer(&trailer))
			note(trailer, err)
			p := s.processes["invoicing"]
			p.kill()
			s.start(p)
			s.readyOne("invoicing")
		}
	}
	got := map[string]string{}
	reader := decisionpb.NewDecisionServiceClient(s.conn("invoicing"))
	for req := (&decisionpb.ListDecisionsRequest{Source: "invoicing", PageSize: 5}); ; {
		resp, err := reader.ListDecisions(owner, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range resp.GetDecisions() {
			if _, twice := got[d.GetId()]; twice {
				t.Errorf("decision %s is there twice", d.GetId())
			}
			got[d.GetId()] = d.GetCode()
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	for id, code := range want {
		if got[id] != code.String() {
			t.Errorf("decision %s: got %q, want %v", id, got[id], code)
		}
	}
	// Each service tells of its own.
	_, err := reader.ListDecisions(owner, &decisionpb.ListDecisionsRequest{Source: "permissions"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("permissions' log at invoicing: got %v, want NotFound", err)
	}
}

// TestDecisionsOfEveryService looks for the decisions on one mutation of each service,
// also of identity, whose records are nobody's organization.
func TestDecisionsOfEveryService(t *testing.T) {
	s := one(t)
	company := s.fill()
	owner := company.As(t.Context(), "OW")
	if _, err := permissionspb.NewAccessServiceClient(s).UpdateUserSettings(owner, &permissionspb.UpdateUserSettingsRequest{
		UserId: company.Person("SA").ID, Settings: &permissionspb.UserSettings{SeePricing: new(false)},
	}); err != nil {
		t.Fatal(err)
	}
	reader := decisionpb.NewDecisionServiceClient(s)
	for _, name := range names {
		resp, err := reader.ListDecisions(owner, &decisionpb.ListDecisionsRequest{Source: name, Outcome: decisionpb.Outcome_OUTCOME_ALLOWED})
		if err != nil || len(resp.GetDecisions()) == 0 {
			t.Errorf("%s: got %d decisions, %v, want those of filling it", name, len(resp.GetDecisions()), err)
		}
		for _, d := range resp.GetDecisions() {
			if d.GetOrganizationId() != company.Organization || serviceOf("/"+d.GetMethod()) != name {
				t.Errorf("%s tells of %v", name, d)
			}
		}
	}
}
