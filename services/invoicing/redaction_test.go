package invoicing_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/servertest"
)

// recorder is a connection that keeps, as JSON, every answer and every error.
type recorder struct {
	grpc.ClientConnInterface
	mu   sync.Mutex
	seen []string
}

func (r *recorder) Invoke(ctx context.Context, method string, req, resp any, opts ...grpc.CallOption) error {
	err := r.ClientConnInterface.Invoke(ctx, method, req, resp, opts...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, fmt.Sprintf("%s %s %s", short(method), protojson.Format(resp.(proto.Message)), protojson.Format(status.Convert(err).Proto())))
	return err
}

// record makes what a user is answered be kept.
func record(u *user) (*user, *recorder) {
	r := &recorder{ClientConnInterface: u.ClientConnInterface}
	u.ClientConnInterface = r
	return clients(u.User), r
}

// amounts are the digits of every amount and rate in the JSON of answers.
func amounts(t *testing.T, seen []string) []string {
	t.Helper()
	var found []string
	for _, m := range regexp.MustCompile(`"(?:minorUnits|taxBasisPoints)":\s*"?(\d+)`).FindAllStringSubmatch(strings.Join(seen, " "), -1) {
		found = append(found, m[1])
	}
	return found
}

// TestNoAmountWithoutPricing: two users do the same; what the one is answered with
// pricing holds each amount, what the other is answered without holds none of their
// digits.
func TestNoAmountWithoutPricing(t *testing.T) {
	s := start(t)
	keys := append(append([]string{}, officeKeys...), bothKeys...)
	seeing, answers := record(s.manager(keys...))
	blind, hidden := record(s.manager(without(keys, pricing)...))
	agent := s.as(officeKeys...)

	const price, cost, labour, bill = 736_914_582, 518_273_649, 293_847_561, 864_197_523
	part := seeing.createPart(t, &pb.CreatePartRequest{Name: "Valve", Sku: "V", Price: eur(price), Cost: eur(cost), TaxBasisPoints: proto.Int32(9_713)})
	s.emit(&schedulingpb.AppointmentFinished{
		AppointmentId: servertest.UUID(50), AgentUserId: agent.ID,
		Parts: []*schedulingpb.UsedPart{{PartId: part.GetId(), QuantityThousandths: 1730}},
	})
	var drafted string
	eventually(t, "draft", func() bool {
		for _, v := range agent.drafts(t) {
			drafted = v.GetId()
		}
		return drafted != ""
	})
	s.assign(seeing)
	vendor := must(seeing.vendors.CreateVendorInvoice(t.Context(), &pb.CreateVendorInvoiceRequest{ServiceRequestId: servertest.UUID(request), Total: eur(bill)}))(t).GetVendorInvoice().GetId()
	must(seeing.vendors.SubmitVendorInvoice(t.Context(), &pb.SubmitVendorInvoiceRequest{Id: vendor}))(t)

	for _, u := range []*user{blind, seeing} {
		mine := must(agent.invoices.CreateInvoice(t.Context(), &pb.CreateInvoiceRequest{Lines: []*pb.InvoiceLine{line(labour), {PartId: part.GetId(), QuantityThousandths: 2000}}}))(t).GetInvoice().GetId()
		half := &pb.RecordPaymentRequest{Id: mine, Amount: eur(labour / 2), Method: pb.PaymentMethod_PAYMENT_METHOD_CASH}
		must(agent.invoices.RecordPayment(t.Context(), half))(t)
		waiting := agent.createUnapproved(t, labour)
		walkParts(t, u, part)
		walkInvoices(t, u, mine, waiting.GetId(), part.GetId())
		walkVendors(t, u, vendor)
		_ = call(t, u, pb.InvoiceService_GetInvoice_FullMethodName, &pb.GetInvoiceRequest{Id: drafted}, &pb.GetInvoiceResponse{})
	}
	found := amounts(t, answers.seen)
	if len(found) < 100 {
		t.Fatalf("amounts seen with pricing: got %d, want many: %s", len(found), answers.seen)
	}
	if got := amounts(t, hidden.seen); len(got) != 0 {
		t.Errorf("amounts seen without pricing: got %v, want none", got)
	}
	for _, amount := range append(found, fmt.Sprint(price), fmt.Sprint(cost), fmt.Sprint(labour), fmt.Sprint(labour/2), fmt.Sprint(bill)) {
		if len(amount) < 8 {
			continue // too short to tell from ids and times; the names of their fields were looked for above
		}
		for _, answer := range hidden.seen {
			if strings.Contains(answer, amount) {
				t.Errorf("without pricing: %s stands in %s", amount, answer)
			}
		}
	}
}

// walkParts calls every method on parts; some calls are refused.
func walkParts(t *testing.T, u *user, part *pb.Part) {
	for method, m := range map[string][2]proto.Message{
		pb.PartService_CreatePart_FullMethodName: {&pb.CreatePartRequest{Name: "Valve", Sku: "V"}, &pb.CreatePartResponse{}},
		pb.PartService_GetPart_FullMethodName:    {&pb.GetPartRequest{Id: part.GetId()}, &pb.GetPartResponse{}},
		pb.PartService_ListParts_FullMethodName:  {&pb.ListPartsRequest{View: pb.PartView_PART_VIEW_CONTROL_PANEL}, &pb.ListPartsResponse{}},
		pb.PartService_UpdatePart_FullMethodName: {&pb.UpdatePartRequest{Part: &pb.Part{Id: part.GetId(), Category: proto.String("x")}}, &pb.UpdatePartResponse{}},
	} {
		_ = call(t, u, method, m[0], m[1])
	}
}

// walkInvoices calls every method on an open invoice that is half paid and on one that
// waits for approval; some calls are refused.
func walkInvoices(t *testing.T, u *user, mine, waiting, part string) {
	made := &pb.CreateInvoiceResponse{}
	_ = call(t, u, pb.InvoiceService_CreateInvoice_FullMethodName, &pb.CreateInvoiceRequest{Lines: []*pb.InvoiceLine{{PartId: part, QuantityThousandths: 3000}}}, made)
	for _, view := range []pb.InvoiceView{pb.InvoiceView_INVOICE_VIEW_ALL, pb.InvoiceView_INVOICE_VIEW_OPEN, pb.InvoiceView_INVOICE_VIEW_PAID, pb.InvoiceView_INVOICE_VIEW_UNAPPROVED} {
		_ = call(t, u, pb.InvoiceService_ListInvoices_FullMethodName, &pb.ListInvoicesRequest{View: view}, &pb.ListInvoicesResponse{})
	}
	_ = call(t, u, pb.InvoiceService_ListPayments_FullMethodName, &pb.ListPaymentsRequest{InvoiceId: mine}, &pb.ListPaymentsResponse{})
	for _, id := range []string{mine, waiting, made.GetInvoice().GetId()} {
		_ = call(t, u, pb.InvoiceService_GetInvoice_FullMethodName, &pb.GetInvoiceRequest{Id: id}, &pb.GetInvoiceResponse{})
		for _, m := range invoiceMoves {
			_ = call(t, u, m.method, m.req(id, ""), m.resp())
		}
		// More than is left, and fewer lines than are paid.
		_ = call(t, u, pb.InvoiceService_RecordPayment_FullMethodName, &pb.RecordPaymentRequest{Id: id, Amount: eur(999_999_999_999), Method: pb.PaymentMethod_PAYMENT_METHOD_CASH}, &pb.RecordPaymentResponse{})
		_ = call(t, u, pb.InvoiceService_UpdateInvoice_FullMethodName, &pb.UpdateInvoiceRequest{Invoice: &pb.Invoice{Id: id, Lines: []*pb.InvoiceLine{{PartId: part, QuantityThousandths: 1}}}}, &pb.UpdateInvoiceResponse{})
	}
}

// walkVendors calls every method on a vendor invoice; some calls are refused.
func walkVendors(t *testing.T, u *user, id string) {
	_ = call(t, u, pb.VendorInvoiceService_GetVendorInvoice_FullMethodName, &pb.GetVendorInvoiceRequest{Id: id}, &pb.GetVendorInvoiceResponse{})
	_ = call(t, u, pb.VendorInvoiceService_ListVendorInvoices_FullMethodName, &pb.ListVendorInvoicesRequest{View: pb.VendorInvoiceView_VENDOR_INVOICE_VIEW_SUBMITTED}, &pb.ListVendorInvoicesResponse{})
	_ = call(t, u, pb.VendorInvoiceService_CreateVendorInvoice_FullMethodName, &pb.CreateVendorInvoiceRequest{ServiceRequestId: servertest.UUID(request)}, &pb.CreateVendorInvoiceResponse{})
	for _, m := range vendorMoves {
		_ = call(t, u, m.method, m.req(id, ""), m.resp())
	}
}
