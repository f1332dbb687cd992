package invoicing_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
)

const (
	unapproved = pb.InvoiceState_INVOICE_STATE_UNAPPROVED
	open       = pb.InvoiceState_INVOICE_STATE_OPEN
	void       = pb.InvoiceState_INVOICE_STATE_VOID
	deleted    = pb.InvoiceState_INVOICE_STATE_DELETED

	unpaid        = pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_UNPAID
	partiallyPaid = pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_PARTIALLY_PAID
	allPaid       = pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_PAID
)

func TestInvoiceIsCreatedOpen(t *testing.T) {
	s := start(t)
	u := s.office()
	p := u.createPart(t, &pb.CreatePartRequest{Name: "Valve", Price: eur(1250), TaxBasisPoints: proto.Int32(1900)})
	req := &pb.CreateInvoiceRequest{
		RequestId: servertest.UUID(1), BillTo: "Oak Court", Terms: "30 days net", DueDate: &typepb.Date{Year: 2099, Month: 2, Day: 28},
		Lines: []*pb.InvoiceLine{
			{Description: "Labour", QuantityThousandths: 1500, UnitPrice: eur(8001), TaxBasisPoints: proto.Int32(700)},
			{PartId: p.GetId(), QuantityThousandths: 3000},
			{PartId: p.GetId(), QuantityThousandths: 1000, Description: "On the house", UnitPrice: eur(0), TaxBasisPoints: proto.Int32(0)},
		},
	}
	v := must(u.invoices.CreateInvoice(t.Context(), req))(t).GetInvoice()
	want := &pb.Invoice{
		Id: v.GetId(), Etag: v.GetEtag(), CreateTime: v.GetCreateTime(), UpdateTime: v.GetUpdateTime(),
		OwnerId: u.ID, AuthorId: u.ID, AvailableActions: v.GetAvailableActions(),
		State: open, PaymentState: unpaid, DeliveryState: pb.InvoiceDeliveryState_INVOICE_DELIVERY_STATE_NOT_SENT,
		Number: "INV-000001", OpenTime: v.GetOpenTime(),
		BillTo: proto.String("Oak Court"), Terms: proto.String("30 days net"), DueDate: &typepb.Date{Year: 2099, Month: 2, Day: 28},
		Lines: []*pb.InvoiceLine{
			// 8001 * 1.5 = 12001.5, away from zero 12002; 7 % of it 840.14.
			{Description: "Labour", QuantityThousandths: 1500, UnitPrice: eur(8001), TaxBasisPoints: proto.Int32(700), Amount: eur(12002), Tax: eur(840)},
			// 19 % of 3750 = 712.5, away from zero 713.
			{PartId: p.GetId(), Description: "Valve", QuantityThousandths: 3000, UnitPrice: eur(1250), TaxBasisPoints: proto.Int32(1900), Amount: eur(3750), Tax: eur(713)},
			{PartId: p.GetId(), Description: "On the house", QuantityThousandths: 1000, UnitPrice: eur(0), TaxBasisPoints: proto.Int32(0), Amount: eur(0), Tax: eur(0)},
		},
		Subtotal: eur(15752), Tax: eur(1553), Total: eur(17305), AmountPaid: eur(0), Balance: eur(17305),
	}
	equal(t, "create", v, want)
	equal(t, "get", u.get(t, v.GetId()), want)
	equal(t, "repeat", must(u.invoices.CreateInvoice(t.Context(), req))(t).GetInvoice(), want)

	must(u.updatePart(t, &pb.Part{Id: p.GetId(), Price: eur(9999)}, "price"))(t)
	equal(t, "get after a change of the price book", u.get(t, v.GetId()), want)
	if got := u.create(t, 1).GetNumber(); got != "INV-000002" {
		t.Errorf("next number: got %s, want INV-000002", got)
	}
	_, err := clients(s.InOrganization(servertest.UUID(9)).As(officeKeys...)).invoices.GetInvoice(t.Context(), &pb.GetInvoiceRequest{Id: v.GetId()})
	fails(t, "invoice of another organization", err, codes.NotFound, "RECORD_NOT_FOUND", "")
	other := clients(s.InOrganization(servertest.UUID(9)).As(officeKeys...)).create(t, 1)
	if got := other.GetNumber(); got != "INV-000001" {
		t.Errorf("first number of another organization: got %s, want INV-000001", got)
	}
}

func TestCreateInvoiceRefusesWhatCannotBeCharged(t *testing.T) {
	s := start(t)
	u := s.office()
	priceless := u.createPart(t, &pb.CreatePartRequest{Name: "Priceless"})
	retired := u.createPart(t, &pb.CreatePartRequest{Name: "Retired", Price: eur(1)})
	must(u.updatePart(t, &pb.Part{Id: retired.GetId(), Active: proto.Bool(false)}, "active"))(t)
	usd := line(1)
	usd.UnitPrice.CurrencyCode = "USD"
	lines := func(l ...*pb.InvoiceLine) *pb.CreateInvoiceRequest { return &pb.CreateInvoiceRequest{Lines: l} }
	const most = 1_000_000_000_000_000
	for _, c := range []struct {
		name  string
		req   *pb.CreateInvoiceRequest
		field string
	}{
		{"no lines", lines(), "lines"},
		{"quantity of zero", lines(&pb.InvoiceLine{Description: "x", UnitPrice: eur(1)}), "lines[0].quantity_thousandths"},
		{"negative quantity", lines(&pb.InvoiceLine{Description: "x", UnitPrice: eur(1), QuantityThousandths: -1}), "lines[0].quantity_thousandths"},
		{"negative price", lines(line(1), line(-1)), "lines[1].unit_price"},
		{"price out of bounds", lines(line(1), line(most+1)), "lines[1].unit_price.minor_units"},
		{"amount out of bounds", lines(line(1), line(1), line(1), &pb.InvoiceLine{Description: "x", QuantityThousandths: 1_000_000_000, UnitPrice: eur(most)}), "lines[3].unit_price"},
		{"total out of bounds", lines(line(most), line(1)), "lines[1].unit_price"},
		{"total with tax out of bounds", lines(&pb.InvoiceLine{Description: "x", QuantityThousandths: 1000, UnitPrice: eur(most), TaxBasisPoints: proto.Int32(1)}), "lines[0].unit_price"},
		{"tax of more than the whole", lines(&pb.InvoiceLine{Description: "x", QuantityThousandths: 1000, UnitPrice: eur(1), TaxBasisPoints: proto.Int32(10_001)}), "lines[0].tax_basis_points"},
		{"two currencies", lines(line(1), usd), "lines[1].unit_price.currency_code"},
		{"no price", lines(&pb.InvoiceLine{Description: "x", QuantityThousandths: 1}), "lines[0].unit_price"},
		{"part without a price", lines(&pb.InvoiceLine{PartId: priceless.GetId(), QuantityThousandths: 1}), "lines[0].unit_price"},
		{"inactive part", lines(&pb.InvoiceLine{PartId: retired.GetId(), QuantityThousandths: 1}), "lines[0].part_id"},
		{"unknown part", lines(line(1), &pb.InvoiceLine{PartId: servertest.UUID(4), QuantityThousandths: 1}), "lines[1].part_id"},
		{"nothing described", lines(&pb.InvoiceLine{QuantityThousandths: 1, UnitPrice: eur(1)}), "lines[0].description"},
		{"no such day", &pb.CreateInvoiceRequest{Lines: []*pb.InvoiceLine{line(1)}, DueDate: &typepb.Date{Year: 2027, Month: 2, Day: 29}}, "due_date"},
		{"too many lines", lines(slices.Repeat([]*pb.InvoiceLine{line(1)}, 201)...), "lines"},
	} {
		_, err := u.invoices.CreateInvoice(t.Context(), c.req)
		fails(t, c.name, err, codes.InvalidArgument, "FIELD_INVALID", c.field)
	}
	if got := u.create(t, 1).GetNumber(); got != "INV-000001" {
		t.Errorf("number after refusals: got %s, want INV-000001", got)
	}
	blind := s.as("Invoices", "View:OwnedBy:Me")
	_, err := blind.invoices.CreateInvoice(t.Context(), lines(line(1)))
	fails(t, "price by somebody without pricing", err, codes.PermissionDenied, "GRANT_MISSING", "unit_price")
	part := u.createPart(t, &pb.CreatePartRequest{Name: "Valve", Price: eur(7)})
	got := must(blind.invoices.CreateInvoice(t.Context(), lines(&pb.InvoiceLine{PartId: part.GetId(), QuantityThousandths: 2000})))(t)
	if total := u.get(t, got.GetInvoice().GetId()).GetTotal(); !proto.Equal(total, eur(14)) {
		t.Errorf("parts charged by somebody without pricing: got %v, want 14 EUR", total)
	}
}

func TestInvoiceRoutedForApproval(t *testing.T) {
	s := start(t)
	author, approver, other := s.office(), s.office(), s.office()
	author.Set("invoice_approver", approver.ID)
	for _, by := range []*user{approver, other} {
		v := author.create(t, 100)
		if v.GetState() != unapproved || v.GetNumber() != "" || v.GetApproverId() != approver.ID {
			t.Fatalf("routed: got %v, want it UNAPPROVED without a number, with approver %s", v, approver.ID)
		}
		_, err := author.invoices.ApproveInvoice(t.Context(), &pb.ApproveInvoiceRequest{Id: v.GetId()})
		fails(t, "approval by the author", err, codes.PermissionDenied, "RELATION_MISSING", "")
		_, err = author.invoices.RejectInvoice(t.Context(), &pb.RejectInvoiceRequest{Id: v.GetId(), Note: "no"})
		fails(t, "rejection by the author", err, codes.PermissionDenied, "RELATION_MISSING", "")
		_, err = author.invoices.SendInvoice(t.Context(), &pb.SendInvoiceRequest{Id: v.GetId()})
		fails(t, "sending", err, codes.FailedPrecondition, "STATE_FORBIDS", "")

		rejected := must(by.invoices.RejectInvoice(t.Context(), &pb.RejectInvoiceRequest{Id: v.GetId(), Note: "Hours?"}))(t).GetInvoice()
		if rejected.GetState() != unapproved || rejected.GetRejectionNote() != "Hours?" || rejected.GetRejectTime() == nil {
			t.Errorf("rejected: got %v, want it UNAPPROVED with the note", rejected)
		}
		v = must(author.invoices.UpdateInvoice(t.Context(), &pb.UpdateInvoiceRequest{Invoice: &pb.Invoice{
			Id: v.GetId(), Lines: []*pb.InvoiceLine{line(200)},
		}}))(t).GetInvoice()
		if v.GetRejectionNote() != "" || v.GetRejectTime() != nil || v.GetTotal().GetMinorUnits() != 200 {
			t.Errorf("changed after rejection: got %v, want no rejection and 200", v)
		}
		v = must(by.invoices.ApproveInvoice(t.Context(), &pb.ApproveInvoiceRequest{Id: v.GetId(), Etag: v.GetEtag()}))(t).GetInvoice()
		if v.GetState() != open || v.GetNumber() == "" || v.GetApprovedBy() != by.ID || v.GetApproveTime() == nil {
			t.Errorf("approved: got %v, want it OPEN with a number, approved by %s", v, by.ID)
		}
		must(author.invoices.SendInvoice(t.Context(), &pb.SendInvoiceRequest{Id: v.GetId()}))(t)
	}
}

func TestUpdateInvoice(t *testing.T) {
	s := start(t)
	u := s.office()
	v := u.create(t, 1000)
	update := func(v *pb.Invoice, paths ...string) (*pb.Invoice, error) {
		resp, err := u.invoices.UpdateInvoice(t.Context(), &pb.UpdateInvoiceRequest{Invoice: v, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
		return resp.GetInvoice(), err
	}
	id := v.GetId()
	must(u.invoices.RecordPayment(t.Context(), &pb.RecordPaymentRequest{Id: id, Amount: eur(600), Method: pb.PaymentMethod_PAYMENT_METHOD_CASH}))(t)
	before := u.get(t, id)

	usd := line(1000)
	usd.UnitPrice.CurrencyCode = "USD"
	_, err := update(&pb.Invoice{Id: id, Lines: []*pb.InvoiceLine{line(599)}}, "lines")
	fails(t, "less than is paid", err, codes.FailedPrecondition, "PRECONDITION_FAILED", "")
	_, err = update(&pb.Invoice{Id: id, Lines: []*pb.InvoiceLine{usd}}, "lines")
	fails(t, "another currency than was paid", err, codes.InvalidArgument, "FIELD_INVALID", "invoice.lines")
	_, err = update(&pb.Invoice{Id: id}, "lines")
	fails(t, "open without lines", err, codes.FailedPrecondition, "PRECONDITION_FAILED", "")
	_, err = update(&pb.Invoice{Id: id, Lines: []*pb.InvoiceLine{{Description: "x", QuantityThousandths: 1}}}, "lines")
	fails(t, "open without a price", err, codes.InvalidArgument, "FIELD_INVALID", "invoice.lines[0].unit_price")
	_, err = update(&pb.Invoice{Id: id, Terms: proto.String("x")}, "terms", "number")
	fails(t, "change of the number", err, codes.InvalidArgument, "FIELD_INVALID", "update_mask")
	_, err = update(&pb.Invoice{Id: id, Etag: v.GetEtag(), Terms: proto.String("x")}, "terms")
	fails(t, "stale etag", err, codes.Aborted, "ETAG_STALE", "")
	_, err = update(&pb.Invoice{Id: id, DueDate: &typepb.Date{Year: 2027, Month: 4, Day: 31}}, "due_date")
	fails(t, "no such day", err, codes.InvalidArgument, "FIELD_INVALID", "invoice.due_date")
	equal(t, "invoice after refusals", u.get(t, id), before)

	blind := s.as(without(officeKeys, pricing)...)
	_, err = blind.invoices.UpdateInvoice(t.Context(), &pb.UpdateInvoiceRequest{Invoice: &pb.Invoice{Id: id}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"lines"}}})
	fails(t, "change of lines whose prices are hidden", err, codes.PermissionDenied, "GRANT_MISSING", "lines")

	got := must(update(&pb.Invoice{Id: id, Lines: []*pb.InvoiceLine{line(600)}, Terms: proto.String("Cash")}, "lines", "terms"))(t)
	if got.GetPaymentState() != allPaid || got.GetBalance().GetMinorUnits() != 0 || got.GetTerms() != "Cash" || got.GetEtag() == before.GetEtag() {
		t.Errorf("lowered to what is paid: got %v, want it PAID, with terms, with another etag", got)
	}
	got = must(update(&pb.Invoice{Id: id, Lines: []*pb.InvoiceLine{line(600), line(1)}}, "lines"))(t)
	if got.GetPaymentState() != partiallyPaid || !proto.Equal(got.GetBalance(), eur(1)) {
		t.Errorf("raised above what is paid: got %v, want it PARTIALLY_PAID with 1 EUR left", got)
	}
	got = must(u.invoices.UpdateInvoice(t.Context(), &pb.UpdateInvoiceRequest{ValidateOnly: true, Invoice: &pb.Invoice{Id: id, Terms: proto.String("Later")}}))(t).GetInvoice()
	if got.GetTerms() != "Later" || u.get(t, id).GetTerms() != "Cash" {
		t.Errorf("validate_only: got %v, stored %v, want the answer changed and the record not", got, u.get(t, id))
	}
}

func TestOverdue(t *testing.T) {
	var now atomic.Pointer[time.Time]
	set := func(text string) {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		now.Store(&at)
	}
	set("2027-03-31T10:00:00Z")
	s := startAt(t, func() time.Time { return *now.Load() })
	u := s.office()
	due := &typepb.Date{Year: 2027, Month: 3, Day: 31}
	v := must(u.invoices.CreateInvoice(t.Context(), &pb.CreateInvoiceRequest{Lines: []*pb.InvoiceLine{line(5)}, DueDate: due}))(t).GetInvoice()
	u.create(t, 5)
	late := func() int {
		resp := must(u.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, Filter: "overdue = true"}))(t)
		if got := u.get(t, v.GetId()).GetOverdue(); got != (len(resp.GetInvoices()) == 1) {
			t.Errorf("at %v: got overdue %v in get, and %d listed", now.Load(), got, len(resp.GetInvoices()))
		}
		return len(resp.GetInvoices())
	}
	for _, c := range []struct {
		at   string
		want int
	}{{"2027-04-01T11:59:59Z", 0}, {"2027-04-01T12:00:00Z", 1}, {"2027-05-01T00:00:00Z", 1}} {
		set(c.at)
		if got := late(); got != c.want {
			t.Errorf("overdue at %s: got %d, want %d", c.at, got, c.want)
		}
	}
	must(u.invoices.RecordPayment(t.Context(), &pb.RecordPaymentRequest{Id: v.GetId(), Amount: eur(5), Method: pb.PaymentMethod_PAYMENT_METHOD_CHECK}))(t)
	if got := late(); got != 0 {
		t.Errorf("overdue once paid: got %d, want 0", got)
	}
}

func TestNumbersHaveNoGaps(t *testing.T) {
	s := start(t)
	author, approver := s.office(), s.office()
	author.Set("invoice_approver", approver.ID)
	const each = 20
	drafts := make([]*pb.Invoice, each)
	for i := range drafts {
		drafts[i] = author.create(t, 10)
	}
	author.Set("invoice_approver", "")
	var wg sync.WaitGroup
	for i := range each {
		// Half of the calls are rolled back: only validated, refused, or stale.
		wg.Go(func() {
			_, _ = author.invoices.CreateInvoice(t.Context(), &pb.CreateInvoiceRequest{Lines: []*pb.InvoiceLine{line(1)}})
		})
		wg.Go(func() {
			_, _ = author.invoices.CreateInvoice(t.Context(), &pb.CreateInvoiceRequest{ValidateOnly: true, Lines: []*pb.InvoiceLine{line(1)}})
		})
		wg.Go(func() {
			_, _ = approver.invoices.ApproveInvoice(t.Context(), &pb.ApproveInvoiceRequest{Id: drafts[i].GetId()})
		})
		wg.Go(func() {
			_, _ = approver.invoices.ApproveInvoice(t.Context(), &pb.ApproveInvoiceRequest{Id: drafts[i].GetId()})
		})
		wg.Go(func() {
			_, _ = author.invoices.ApproveInvoice(t.Context(), &pb.ApproveInvoiceRequest{Id: drafts[i].GetId()})
		})
	}
	wg.Wait()
	all := must(author.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_OPEN, PageSize: 500}))(t).GetInvoices()
	var got, want []string
	for i, v := range all {
		got = append(got, v.GetNumber())
		want = append(want, fmt.Sprintf("INV-%06d", i+1))
	}
	slices.Sort(got)
	if len(got) != 2*each || !slices.Equal(got, want) {
		t.Errorf("numbers: got %v, want %d of them, from INV-000001 without a gap", got, 2*each)
	}
}

func TestPaymentsNeverOverpay(t *testing.T) {
	s := start(t)
	u := s.office()
	v := u.create(t, 1000)
	pay := func(amount int64) error {
		_, err := u.invoices.RecordPayment(t.Context(), &pb.RecordPaymentRequest{Id: v.GetId(), Amount: eur(amount), Method: pb.PaymentMethod_PAYMENT_METHOD_CASH})
		return err
	}
	var taken atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := pay(70); err == nil {
				taken.Add(1)
			} else if status.Code(err) != codes.FailedPrecondition || strings.Contains(err.Error(), "70") {
				t.Errorf("refused payment: got %v, want FAILED_PRECONDITION without an amount", err)
			}
		})
	}
	wg.Wait()
	v = u.get(t, v.GetId())
	if taken.Load() != 14 || !proto.Equal(v.GetBalance(), eur(20)) || v.GetPaymentState() != partiallyPaid {
		t.Fatalf("50 payments of 70 on 1000: got %d taken, %v, want 14 and a balance of 20", taken.Load(), v)
	}
	if err := pay(20); err != nil {
		t.Fatal(err)
	}
	v = u.get(t, v.GetId())
	if v.GetPaymentState() != allPaid || !proto.Equal(v.GetBalance(), eur(0)) {
		t.Errorf("paid: got %v, want it PAID with nothing left", v)
	}
	var ledger int64
	req := &pb.ListPaymentsRequest{InvoiceId: v.GetId(), PageSize: 4}
	for n := 0; ; n++ {
		page := must(u.invoices.ListPayments(t.Context(), req))(t)
		for _, p := range page.GetPayments() {
			ledger += p.GetAmount().GetMinorUnits()
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if ledger != v.GetAmountPaid().GetMinorUnits() || ledger != v.GetTotal().GetMinorUnits() {
		t.Errorf("sum of the ledger: got %d, want %v and %v", ledger, v.GetAmountPaid(), v.GetTotal())
	}
}

func TestRecordPayment(t *testing.T) {
	s := start(t)
	u := s.office()
	v := u.create(t, 1000)
	received := timestamppb.New(time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC))
	req := &pb.RecordPaymentRequest{
		RequestId: servertest.UUID(1), Id: v.GetId(), Etag: v.GetEtag(), Amount: eur(400),
		Method: pb.PaymentMethod_PAYMENT_METHOD_BANK_TRANSFER, ReceiveTime: received, Reference: "T-1",
	}
	got := must(u.invoices.RecordPayment(t.Context(), req))(t)
	want := &pb.Payment{
		Id: got.GetPayment().GetId(), Etag: got.GetPayment().GetEtag(), CreateTime: got.GetPayment().GetCreateTime(), UpdateTime: got.GetPayment().GetUpdateTime(),
		InvoiceId: v.GetId(), Amount: eur(400), Method: pb.PaymentMethod_PAYMENT_METHOD_BANK_TRANSFER, ReceiveTime: received, Reference: "T-1", RecordedBy: u.ID,
	}
	equal(t, "payment", got.GetPayment(), want)
	equal(t, "repeat", must(u.invoices.RecordPayment(t.Context(), req))(t), got)
	equal(t, "invoice", u.get(t, v.GetId()), got.GetInvoice())
	if got.GetInvoice().GetPaymentState() != partiallyPaid || !proto.Equal(got.GetInvoice().GetBalance(), eur(600)) {
		t.Errorf("after 400 of 1000: got %v, want PARTIALLY_PAID and 600 left", got.GetInvoice())
	}
	list := must(u.invoices.ListPayments(t.Context(), &pb.ListPaymentsRequest{InvoiceId: v.GetId()}))(t)
	equal(t, "ledger", list, &pb.ListPaymentsResponse{Payments: []*pb.Payment{want}})

	usd := &typepb.Money{MinorUnits: 1, CurrencyCode: "USD"}
	for _, c := range []struct {
		name   string
		change func(*pb.RecordPaymentRequest)
		code   codes.Code
		reason string
		field  string
	}{
		{"more than is left", func(r *pb.RecordPaymentRequest) { r.Amount = eur(601) }, codes.FailedPrecondition, "PRECONDITION_FAILED", ""},
		{"nothing", func(r *pb.RecordPaymentRequest) { r.Amount = eur(0) }, codes.InvalidArgument, "FIELD_INVALID", "amount"},
		{"less than nothing", func(r *pb.RecordPaymentRequest) { r.Amount = eur(-1) }, codes.InvalidArgument, "FIELD_INVALID", "amount"},
		{"no amount", func(r *pb.RecordPaymentRequest) { r.Amount = nil }, codes.InvalidArgument, "FIELD_INVALID", "amount"},
		{"another currency", func(r *pb.RecordPaymentRequest) { r.Amount = usd }, codes.InvalidArgument, "FIELD_INVALID", "amount.currency_code"},
		{"no method", func(r *pb.RecordPaymentRequest) { r.Method = 0 }, codes.InvalidArgument, "FIELD_INVALID", "method"},
		{"in the future", func(r *pb.RecordPaymentRequest) { r.ReceiveTime = timestamppb.New(time.Now().Add(time.Hour)) }, codes.InvalidArgument, "FIELD_INVALID", "receive_time"},
		{"long ago", func(r *pb.RecordPaymentRequest) { r.ReceiveTime = &timestamppb.Timestamp{Seconds: 1} }, codes.InvalidArgument, "FIELD_INVALID", "receive_time"},
		{"at no time", func(r *pb.RecordPaymentRequest) { r.ReceiveTime = &timestamppb.Timestamp{Seconds: 1 << 62} }, codes.InvalidArgument, "FIELD_INVALID", "receive_time"},
		{"stale etag", func(r *pb.RecordPaymentRequest) { r.Etag = v.GetEtag() }, codes.Aborted, "ETAG_STALE", ""},
		{"unknown invoice", func(r *pb.RecordPaymentRequest) { r.Id = servertest.UUID(8) }, codes.NotFound, "RECORD_NOT_FOUND", ""},
	} {
		bad := &pb.RecordPaymentRequest{Id: v.GetId(), Amount: eur(1), Method: pb.PaymentMethod_PAYMENT_METHOD_CASH}
		c.change(bad)
		_, err := u.invoices.RecordPayment(t.Context(), bad)
		fails(t, c.name, err, c.code, c.reason, c.field)
	}
	equal(t, "invoice after refusals", u.get(t, v.GetId()), got.GetInvoice())
	_, err := s.as("Invoices", "View:OwnedBy:Others").invoices.RecordPayment(t.Context(), &pb.RecordPaymentRequest{Id: v.GetId(), Amount: eur(1), Method: pb.PaymentMethod_PAYMENT_METHOD_CASH})
	fails(t, "amount by somebody without pricing", err, codes.PermissionDenied, "GRANT_MISSING", "amount")
}
