package invoicing_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
)

// drafts returns the invoices that wait for approval, the oldest first.
func (u *user) drafts(t testing.TB) []*pb.Invoice {
	t.Helper()
	return must(u.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_UNAPPROVED, OrderBy: "create_time"}))(t).GetInvoices()
}

func TestAppointmentIsDraftedOnce(t *testing.T) {
	s := start(t)
	u := s.office()
	agent := s.office()
	valve := u.createPart(t, &pb.CreatePartRequest{Name: "Valve", Price: eur(1250), TaxBasisPoints: proto.Int32(1900)})
	gone := servertest.UUID(60)
	usd := u.createPart(t, &pb.CreatePartRequest{Name: "Imported", Price: &typepb.Money{MinorUnits: 5, CurrencyCode: "USD"}})
	dear := u.createPart(t, &pb.CreatePartRequest{Name: "Dear", Price: eur(1_000_000_000_000_000)})
	priceless := u.createPart(t, &pb.CreatePartRequest{Name: "Priceless"})
	done := &schedulingpb.AppointmentFinished{
		AppointmentId: servertest.UUID(50), ServiceRequestId: servertest.UUID(51), PropertyId: servertest.UUID(52), UnitId: servertest.UUID(53),
		AgentUserId: agent.ID,
	}
	for _, id := range []string{valve.GetId(), gone, usd.GetId(), dear.GetId(), priceless.GetId()} {
		done.Parts = append(done.Parts, &schedulingpb.UsedPart{PartId: id, QuantityThousandths: 1500})
	}
	s.emit(done)
	s.emit(done)
	other := &schedulingpb.AppointmentFinished{AppointmentId: servertest.UUID(54), AgentUserId: agent.ID}
	s.emit(other)
	var drafts []*pb.Invoice
	eventually(t, "second draft", func() bool { drafts = u.drafts(t); return len(drafts) == 2 })
	v := drafts[0]
	without := func(part, description string) *pb.InvoiceLine {
		return &pb.InvoiceLine{PartId: part, Description: description, QuantityThousandths: 1500, Unpriced: true}
	}
	want := &pb.Invoice{
		Id: v.GetId(), Etag: v.GetEtag(), CreateTime: v.GetCreateTime(), UpdateTime: v.GetUpdateTime(), AvailableActions: v.GetAvailableActions(),
		OwnerId: agent.ID, AuthorId: agent.ID, State: unapproved, PaymentState: unpaid,
		DeliveryState: pb.InvoiceDeliveryState_INVOICE_DELIVERY_STATE_NOT_SENT,
		AppointmentId: done.GetAppointmentId(), ServiceRequestId: done.GetServiceRequestId(), PropertyId: done.GetPropertyId(), UnitId: done.GetUnitId(),
		Lines: []*pb.InvoiceLine{
			{PartId: valve.GetId(), Description: "Valve", QuantityThousandths: 1500, UnitPrice: eur(1250), TaxBasisPoints: proto.Int32(1900), Amount: eur(1875), Tax: eur(356)},
			without(gone, "A part that is not in the price book"), without(usd.GetId(), "Imported"), without(dear.GetId(), "Dear"), without(priceless.GetId(), "Priceless"),
		},
		Subtotal: eur(1875), Tax: eur(356), Total: eur(2231), AmountPaid: eur(0), Balance: eur(2231),
	}
	equal(t, "draft", v, want)

	empty := drafts[1]
	if len(empty.GetLines()) != 0 || empty.GetTotal() != nil {
		t.Errorf("draft without parts: got %v, want no lines and no total", empty)
	}
	_, err := u.invoices.ApproveInvoice(t.Context(), &pb.ApproveInvoiceRequest{Id: empty.GetId()})
	fails(t, "approval without lines", err, codes.FailedPrecondition, "PRECONDITION_FAILED", "")
	v = completeAndApprove(t, u, agent, v, valve)

	// An event that comes when its invoice is approved already changes nothing.
	s.emit(done)
	s.emit(&schedulingpb.AppointmentFinished{AppointmentId: servertest.UUID(55), AgentUserId: agent.ID})
	eventually(t, "third draft", func() bool { drafts = u.drafts(t); return len(drafts) == 2 })
	equal(t, "approved invoice", u.get(t, v.GetId()), v)
	if drafts[1].GetAppointmentId() != servertest.UUID(55) {
		t.Errorf("third draft: got %v, want one for the third appointment", drafts[1])
	}
	if got := clients(s.InOrganization(servertest.UUID(9)).As(officeKeys...)).drafts(t); len(got) != 0 {
		t.Errorf("drafts of another organization: got %v, want none", got)
	}
}

// completeAndApprove shows that a draft without all prices cannot be approved before
// somebody has completed it, and never by the agent.
func completeAndApprove(t *testing.T, u, agent *user, v *pb.Invoice, valve *pb.Part) *pb.Invoice {
	t.Helper()
	_, err := u.invoices.ApproveInvoice(t.Context(), &pb.ApproveInvoiceRequest{Id: v.GetId()})
	fails(t, "approval without prices", err, codes.FailedPrecondition, "PRECONDITION_FAILED", "")
	must(u.updatePart(t, &pb.Part{Id: valve.GetId(), Price: eur(1)}, "price"))(t)
	for i, l := range v.GetLines() {
		if l.GetUnpriced() {
			v.Lines[i] = &pb.InvoiceLine{Description: l.GetDescription(), QuantityThousandths: 1000, UnitPrice: eur(10)}
		}
	}
	v = must(u.invoices.UpdateInvoice(t.Context(), &pb.UpdateInvoiceRequest{Invoice: &pb.Invoice{Id: v.GetId(), Lines: v.GetLines()}}))(t).GetInvoice()
	if got := v.GetTotal(); !proto.Equal(got, eur(2231+40)) {
		t.Errorf("total once completed: got %v, want 2271 EUR: the price of the moment is kept", got)
	}
	_, err = agent.invoices.ApproveInvoice(t.Context(), &pb.ApproveInvoiceRequest{Id: v.GetId()})
	fails(t, "approval by the agent", err, codes.PermissionDenied, "RELATION_MISSING", "")
	v = must(u.invoices.ApproveInvoice(t.Context(), &pb.ApproveInvoiceRequest{Id: v.GetId()}))(t).GetInvoice()
	if v.GetState() != open || v.GetNumber() != "INV-000001" {
		t.Errorf("approved: got %v, want it OPEN as INV-000001", v)
	}
	return v
}
