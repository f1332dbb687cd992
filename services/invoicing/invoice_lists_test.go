package invoicing_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
)

// list returns the ids of all pages of a list.
func (u *user) list(t testing.TB, req *pb.ListInvoicesRequest) (ids []string) {
	t.Helper()
	for {
		page := must(u.invoices.ListInvoices(t.Context(), req))(t)
		for _, v := range page.GetInvoices() {
			ids = append(ids, v.GetId())
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			return ids
		}
	}
}

func TestInvoiceViews(t *testing.T) {
	s := start(t)
	u := s.office()
	waiting, voided, half, whole, fresh, free := u.createUnapproved(t, 10), u.create(t, 10), u.create(t, 10), u.create(t, 10), u.create(t, 10), u.create(t, 0)
	must(u.invoices.VoidInvoice(t.Context(), &pb.VoidInvoiceRequest{Id: voided.GetId(), Reason: "x"}))(t)
	for v, amount := range map[*pb.Invoice]int64{half: 5, whole: 10} {
		must(u.invoices.RecordPayment(t.Context(), &pb.RecordPaymentRequest{Id: v.GetId(), Amount: eur(amount), Method: pb.PaymentMethod_PAYMENT_METHOD_CASH}))(t)
	}
	for _, c := range []struct {
		view pb.InvoiceView
		key  string
		want []*pb.Invoice // the latest first
	}{
		{pb.InvoiceView_INVOICE_VIEW_ALL, "Invoices:Grid:All", []*pb.Invoice{free, fresh, whole, half, voided, waiting}},
		{pb.InvoiceView_INVOICE_VIEW_OPEN, "Invoices:Grid:Open", []*pb.Invoice{fresh, half}},
		{pb.InvoiceView_INVOICE_VIEW_PAID, "Invoices:Grid:Paid", []*pb.Invoice{free, whole}},
		{pb.InvoiceView_INVOICE_VIEW_UNAPPROVED, "Invoices:Grid:Unapproved", []*pb.Invoice{waiting}},
	} {
		var want []string
		for _, v := range c.want {
			want = append(want, v.GetId())
		}
		only := s.as(append(scopeKeys, "Invoices", c.key)...)
		if got := only.list(t, &pb.ListInvoicesRequest{View: c.view, PageSize: 2}); !slices.Equal(got, want) {
			t.Errorf("%v: got %v, want %v", c.view, got, want)
		}
		_, err := s.as(without(officeKeys, c.key)...).invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: c.view})
		fails(t, c.view.String()+" without its key", err, codes.PermissionDenied, "GRANT_MISSING", "view")
	}
	_, err := u.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{})
	if reason, _ := reasonOf(err); reason != "FIELD_INVALID" && reason != "GRANT_MISSING" {
		t.Errorf("no view: got %v, want a refusal", err)
	}
}

func TestInvoiceOrders(t *testing.T) {
	s := start(t)
	u := s.office()
	type row struct {
		id         string
		n          int
		total, due int64
	}
	var rows []row
	for n, c := range []struct{ total, due int64 }{{30, 20}, {10, 0}, {20, 10}, {30, 5}, {0, 30}} {
		req := &pb.CreateInvoiceRequest{Lines: []*pb.InvoiceLine{line(c.total)}}
		if c.due != 0 {
			req.DueDate = &typepb.Date{Year: 2027, Month: 1, Day: int32(c.due)}
		} else {
			c.due = 99
		}
		rows = append(rows, row{must(u.invoices.CreateInvoice(t.Context(), req))(t).GetInvoice().GetId(), n, c.total, c.due})
	}
	ids := func(less func(a, b row) int) (ids []string) {
		sorted := slices.Clone(rows)
		slices.SortStableFunc(sorted, less)
		for _, r := range sorted {
			ids = append(ids, r.id)
		}
		return ids
	}
	byTime := func(a, b row) int { return cmp.Compare(a.n, b.n) }
	byTotal := func(a, b row) int { return cmp.Or(cmp.Compare(a.total, b.total), byTime(a, b)) }
	byDue := func(a, b row) int { return cmp.Or(cmp.Compare(a.due, b.due), byTime(a, b)) }
	for order, less := range map[string]func(a, b row) int{"create_time": byTime, "total": byTotal, "due_date": byDue} {
		for _, scope := range [][]string{scopeKeys, {"View:OwnedBy:Me"}, {"View:OwnedBy:Me", "View:OwnedBy:Nobody"}} {
			viewer := s.again(u.ID, append(scope, officeKeys[:len(officeKeys)-len(scopeKeys)]...)...)
			req := &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, PageSize: 2, OrderBy: order}
			if got, want := viewer.list(t, req), ids(less); !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", order, got, want)
			}
			req = &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, PageSize: 2, OrderBy: order + " desc"}
			if got, want := viewer.list(t, req), ids(func(a, b row) int { return less(b, a) }); !slices.Equal(got, want) {
				t.Errorf("%s desc: got %v, want %v", order, got, want)
			}
		}
		u.Grant(append(officeKeys, "Web")...)
	}
	want := ids(byTotal)[2:3]
	if got := u.list(t, &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, Filter: "total.minor_units = 20 AND state = OPEN"}); !slices.Equal(got, want) {
		t.Errorf("filter: got %v, want %v", got, want)
	}
	blind := s.as(without(officeKeys, pricing)...)
	for _, order := range []string{"total", "total desc"} {
		_, err := blind.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, OrderBy: order})
		fails(t, "order by "+order+" without pricing", err, codes.PermissionDenied, "GRANT_MISSING", "order_by")
	}
	_, err := blind.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, Filter: "balance.minor_units > 0"})
	fails(t, "filter by a hidden amount", err, codes.PermissionDenied, "GRANT_MISSING", "filter")
	_, err = u.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, OrderBy: "terms"})
	fails(t, "order that is not offered", err, codes.InvalidArgument, "FIELD_INVALID", "order_by")
	first := must(u.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, PageSize: 1}))(t)
	_, err = u.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, PageSize: 1, OrderBy: "total", PageToken: first.GetNextPageToken()})
	fails(t, "token of another order", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID", "")
	_, err = blind.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, PageSize: 1, PageToken: first.GetNextPageToken()})
	fails(t, "token of another caller", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID", "")
}

// TestOwnershipDecidesWhatExists: for each of the eight scopes, get, change, payments
// and list agree on which invoices there are.
func TestOwnershipDecidesWhatExists(t *testing.T) {
	s := start(t)
	u, other := s.office(), s.office()
	mine, others := u.create(t, 10), other.create(t, 10)
	s.emit(&schedulingpb.AppointmentFinished{AppointmentId: servertest.UUID(50)})
	var nobodys *pb.Invoice
	eventually(t, "draft without an agent", func() bool {
		page := must(other.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_UNAPPROVED}))(t)
		if len(page.GetInvoices()) == 1 {
			nobodys = page.GetInvoices()[0]
		}
		return nobodys != nil
	})
	base := without(officeKeys, scopeKeys...)
	for bits := range 8 {
		grants := slices.Clone(base)
		for i, key := range scopeKeys {
			if bits>>i&1 != 0 {
				grants = append(grants, key)
			}
		}
		viewer := s.again(u.ID, grants...)
		var want []string
		for i, v := range []*pb.Invoice{mine, others, nobodys} {
			sees := bits>>i&1 != 0
			if sees {
				want = append(want, v.GetId())
			}
			_, get := viewer.invoices.GetInvoice(t.Context(), &pb.GetInvoiceRequest{Id: v.GetId()})
			_, ledger := viewer.invoices.ListPayments(t.Context(), &pb.ListPaymentsRequest{InvoiceId: v.GetId()})
			_, change := viewer.invoices.UpdateInvoice(t.Context(), &pb.UpdateInvoiceRequest{ValidateOnly: true, Invoice: &pb.Invoice{Id: v.GetId()}})
			for method, err := range map[string]error{"get": get, "payments": ledger, "update": change} {
				if sees && err != nil {
					t.Errorf("%s of invoice %d with %v: got %v", method, i, grants[len(base):], err)
				}
				if !sees {
					fails(t, fmt.Sprintf("%s of invoice %d with %v", method, i, grants[len(base):]), err, codes.NotFound, "RECORD_NOT_FOUND", "")
				}
			}
		}
		for _, size := range []int32{1, 50} {
			got := viewer.list(t, &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, PageSize: size, OrderBy: "create_time"})
			if !slices.Equal(got, want) {
				t.Errorf("list with %v: got %v, want %v", grants[len(base):], got, want)
			}
		}
	}
}
