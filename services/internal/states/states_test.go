package states_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/states"
)

const (
	unapproved = invoicingpb.InvoiceState_INVOICE_STATE_UNAPPROVED
	open       = invoicingpb.InvoiceState_INVOICE_STATE_OPEN
	void       = invoicingpb.InvoiceState_INVOICE_STATE_VOID

	approve = invoicingpb.InvoiceService_ApproveInvoice_FullMethodName
	revise  = invoicingpb.InvoiceService_UpdateInvoice_FullMethodName
	annul   = invoicingpb.InvoiceService_VoidInvoice_FullMethodName
	restore = invoicingpb.InvoiceService_UndeleteInvoice_FullMethodName
	send    = invoicingpb.InvoiceService_SendInvoice_FullMethodName
)

type (
	invoice = *invoicingpb.Invoice
	from    = []invoicingpb.InvoiceState
	action  = states.Action[invoice, invoicingpb.InvoiceState]
)

// errSecret is what no caller may read.
var errSecret = errors.New("open /var/lib/secret")

// table is a made-up one over the methods of invoices.
var table = states.New("invoice", invoice.GetId, invoice.GetState, func(v invoice, s invoicingpb.InvoiceState) { v.State = s },
	action{Method: approve, From: from{unapproved}, To: open},
	action{Method: revise, From: from{unapproved, open}},
	action{Method: annul, From: from{unapproved, open}, To: void, Check: func(c *authz.Principal, v invoice) error {
		if c.ID != v.GetOwnerId() {
			return fault.Relation("the owner")
		}
		return nil
	}},
	action{Method: restore},
	action{Method: send, Check: func(_ *authz.Principal, v invoice) error {
		switch v.GetTerms() {
		case "broken":
			return errSecret
		case "wrapped":
			return fmt.Errorf("secret: %w", fault.Refused("do something else first"))
		}
		return nil
	}},
)

// calls serves InvoiceService and keeps the context of the last call.
type calls struct {
	invoicingpb.UnimplementedInvoiceServiceServer
	mu  sync.Mutex
	ctx context.Context
}

func (c *calls) GetInvoice(ctx context.Context, _ *invoicingpb.GetInvoiceRequest) (*invoicingpb.GetInvoiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx = ctx
	return &invoicingpb.GetInvoiceResponse{}, nil
}

func start(t testing.TB) (*servertest.Server, *calls) {
	t.Helper()
	c := &calls{}
	s := servertest.Start(t, server.Part{Name: "invoicing", Start: func(env *server.Env) error {
		invoicingpb.RegisterInvoiceServiceServer(env.Registrar, c)
		return nil
	}})
	return s, c
}

// in returns the context of a call of the connection's caller.
func (c *calls) in(t testing.TB, conn grpc.ClientConnInterface) context.Context {
	t.Helper()
	_, err := invoicingpb.NewInvoiceServiceClient(conn).GetInvoice(t.Context(), &invoicingpb.GetInvoiceRequest{Id: servertest.UUID(1)})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ctx
}

func TestApply(t *testing.T) {
	s, calls := start(t)
	user := s.As("Invoices")
	ctx := calls.in(t, user)
	for _, c := range []struct {
		method string
		before invoicingpb.InvoiceState
		owner  string
		after  invoicingpb.InvoiceState
		reason string // empty if it is allowed
	}{
		{approve, unapproved, "", open, ""},
		{approve, open, "", open, "STATE_FORBIDS"},
		{approve, void, "", void, "STATE_FORBIDS"},
		{approve, 77, "", 77, "STATE_FORBIDS"},
		{revise, unapproved, "", unapproved, ""},
		{revise, open, "", open, ""},
		{revise, void, "", void, "STATE_FORBIDS"},
		{annul, open, user.ID, void, ""},
		{annul, open, "somebody", open, "RELATION_MISSING"},
		{annul, void, "somebody", void, "STATE_FORBIDS"}, // the state is said first
		{restore, void, "", void, ""},
		{restore, 77, "", 77, ""},
	} {
		v := &invoicingpb.Invoice{Id: "1", State: c.before, OwnerId: c.owner}
		err := table.Apply(ctx, c.method, v)
		got := ""
		if f, ok := errors.AsType[*fault.Error](err); ok {
			got = f.ReasonName()
		}
		if got != c.reason || (err == nil) != (c.reason == "") || v.GetState() != c.after {
			t.Errorf("%s of an invoice that is %v: got %v, %v; want %s, %v", c.method, c.before, v.GetState(), err, c.reason, c.after)
		}
	}
}

func TestStateForbids(t *testing.T) {
	err := table.Apply(t.Context(), revise, &invoicingpb.Invoice{Id: "1", State: void})
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		t.Fatalf("got %v, want a fault", err)
	}
	want := map[string]string{"kind": "invoice", "id": "1", "state": "VOID", "method": revise[1:], "allowed": "UNAPPROVED,OPEN"}
	if f.Code != codes.FailedPrecondition || !maps.Equal(f.Metadata, want) {
		t.Errorf("got %v %v, want FAILED_PRECONDITION %v", f.Code, f.Metadata, want)
	}
	if want := "UpdateInvoice needs the invoice in state UNAPPROVED or OPEN; it is VOID"; f.Message != want {
		t.Errorf("got %q, want %q", f.Message, want)
	}
}

// The suite itself stands in no relation to a record, and needs none.
func TestApplyOfTheSuiteItself(t *testing.T) {
	v := &invoicingpb.Invoice{State: open, OwnerId: "somebody"}
	if err := table.Apply(t.Context(), annul, v); err != nil || v.GetState() != void {
		t.Errorf("got %v, %v, want VOID", v.GetState(), err)
	}
	if err := table.Apply(t.Context(), annul, v); err == nil {
		t.Error("the state does not bind the suite")
	}
}

func TestApplyWithoutARow(t *testing.T) {
	defer func() {
		if want := "states: invoice has no row for /a.B/C"; recover() != want {
			t.Errorf("want panic %q", want)
		}
	}()
	table.Apply(t.Context(), "/a.B/C", &invoicingpb.Invoice{})
}

func TestActions(t *testing.T) {
	s, calls := start(t)
	lacks := func(grant string) string { return "GRANT_MISSING: needs the permission " + grant }
	owner, some, all := s.As("Invoices", "Invoices:Void"), s.As("Invoices"), s.As("Invoices", "Invoices:Approve", "Invoices:Edit", "Invoices:Void", "Invoices:Delete")
	for _, c := range []struct {
		name string
		ctx  context.Context
		v    invoice
		want []string // per row: empty if allowed, or why not
	}{
		{"the owner", calls.in(t, owner), &invoicingpb.Invoice{State: open, OwnerId: owner.ID}, []string{
			lacks("Invoices:Approve"), lacks("Invoices:Edit"), "", lacks("Invoices:Delete"), ""}},
		{"without keys", calls.in(t, some), &invoicingpb.Invoice{State: void}, []string{
			lacks("Invoices:Approve"), lacks("Invoices:Edit"), lacks("Invoices:Void"), lacks("Invoices:Delete"), ""}},
		{"with all keys", calls.in(t, all), &invoicingpb.Invoice{State: open}, []string{
			"STATE_FORBIDS: only in state UNAPPROVED", "", "RELATION_MISSING: only the owner may do this", "", ""}},
		{"with all keys, void", calls.in(t, all), &invoicingpb.Invoice{State: void, OwnerId: all.ID}, []string{
			"STATE_FORBIDS: only in state UNAPPROVED",
			"STATE_FORBIDS: only in state UNAPPROVED or OPEN",
			"STATE_FORBIDS: only in state UNAPPROVED or OPEN", "", ""}},
		{"in a state of a later version", calls.in(t, all), &invoicingpb.Invoice{State: 77, Terms: new("wrapped")}, []string{
			"STATE_FORBIDS: only in state UNAPPROVED",
			"STATE_FORBIDS: only in state UNAPPROVED or OPEN",
			"STATE_FORBIDS: only in state UNAPPROVED or OPEN", "",
			"PRECONDITION_FAILED: do something else first"}},
		{"broken", calls.in(t, all), &invoicingpb.Invoice{State: open, OwnerId: all.ID, Terms: new("broken")}, []string{
			"STATE_FORBIDS: only in state UNAPPROVED", "", "", "", "INTERNAL: the suite is at fault"}},
		{"the suite itself", t.Context(), &invoicingpb.Invoice{State: open, OwnerId: "somebody", Terms: new("broken")}, []string{
			"STATE_FORBIDS: only in state UNAPPROVED", "", "", "", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // what is remembered must be the same
				for i, got := range table.Actions(c.ctx, c.v) {
					want := &typepb.AvailableAction{Method: table.Rows()[i].Method[1:], Allowed: c.want[i] == ""}
					want.Reason, want.Explanation, _ = strings.Cut(c.want[i], ": ")
					if !proto.Equal(got, want) {
						t.Errorf("got  %v\nwant %v", got, want)
					}
				}
			}
		})
	}
}

// Actions says of each row what Apply would do.
func TestActionsAgreeWithApply(t *testing.T) {
	s, calls := start(t)
	user := s.As("Invoices", "Invoices:Approve", "Invoices:Edit", "Invoices:Void", "Invoices:Delete")
	ctx := calls.in(t, user)
	for _, owner := range []string{user.ID, "somebody"} {
		for state := range invoicingpb.InvoiceState_name {
			v := &invoicingpb.Invoice{State: invoicingpb.InvoiceState(state), OwnerId: owner}
			for _, a := range table.Actions(ctx, v) {
				err := table.Apply(ctx, "/"+a.GetMethod(), proto.CloneOf(v))
				if (err == nil) != a.GetAllowed() || err != nil && inBrief(err) != a.GetExplanation() {
					t.Errorf("%v of %s: Apply says %v, Actions %v", v.GetState(), owner, err, a)
				}
			}
		}
	}
}

// Records of many callers are filled in at once.
func TestActionsConcurrently(t *testing.T) {
	s, calls := start(t)
	some, all := calls.in(t, s.As("Invoices")), calls.in(t, s.As("Invoices", "Invoices:Approve"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				ctx := []context.Context{some, all}[(i+j)%2]
				v := &invoicingpb.Invoice{State: unapproved, Id: fmt.Sprint(j)}
				v.AvailableActions = table.Actions(ctx, v)
				if got, want := v.AvailableActions[0].GetAllowed(), ctx == all; got != want {
					t.Errorf("approve: got %t, want %t", got, want)
				}
				if _, err := proto.Marshal(v); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkActions is one record of a page: fifteen rows, of which a third is allowed,
// a third is refused by the rule and a third by the state.
func BenchmarkActions(b *testing.B) {
	s, calls := start(b)
	ctx := calls.in(b, s.As("Invoices", "Invoices:Approve"))
	var rows []action
	for range 5 {
		rows = append(rows, action{Method: approve, From: from{unapproved}}, action{Method: revise, From: from{unapproved}}, action{Method: send, From: from{open}})
	}
	wide := states.New("invoice", invoice.GetId, invoice.GetState, func(v invoice, s invoicingpb.InvoiceState) { v.State = s }, rows...)
	v := &invoicingpb.Invoice{Id: servertest.UUID(1), State: unapproved}
	b.ReportAllocs()
	for b.Loop() {
		wide.Actions(ctx, v)
	}
}

// inBrief is what an available action says of a fault.
func inBrief(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.InBrief()
	}
	return "the suite is at fault"
}
