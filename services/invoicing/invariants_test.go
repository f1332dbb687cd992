package invoicing

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	invoicingstorepb "latchkey.dev/gen/go/latchkey/invoicing/store/v1"
	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

// soundBooks are three invoices, one of them paid in part, and a vendor's.
func soundBooks(tx *store.Tx) error {
	now := timestamppb.New(tx.Now())
	line := func() []*pb.InvoiceLine {
		return []*pb.InvoiceLine{{Description: "Tap", UnitPrice: money(1999, "EUR"), QuantityThousandths: 2500}}
	}
	paid := &pb.Invoice{
		Id: "paid", Lines: line(), State: open, OpenTime: now, Number: numberOf(1), AuthorId: "ann", ApprovedBy: "bob", AmountPaid: money(1000, "EUR"),
	}
	gone := &pb.Invoice{Id: "gone", Lines: line(), State: deleted, PreviousState: void, DeleteTime: now, PurgeTime: now}
	draft := &pb.Invoice{Id: "draft", State: unapproved}
	for _, v := range []*pb.Invoice{paid, gone, draft} {
		if err := errors.Join(reckon(v, "lines"), putInvoice(tx, v)); err != nil {
			return err
		}
	}
	return errors.Join(
		counters.Put(tx, &invoicingstorepb.Counter{Id: invoices.Name(), Last: 1}),
		payments.Put(tx, &pb.Payment{Id: "p1", InvoiceId: "paid", Amount: money(600, "EUR")}),
		payments.Put(tx, &pb.Payment{Id: "p2", InvoiceId: "paid", Amount: money(400, "EUR")}),
		vendorInvoices.Put(tx, &pb.VendorInvoice{
			Id: "vendor", OwnerId: "vic", State: vendorPaid, Total: money(5, "EUR"),
			SubmitTime: now, DecideTime: now, DecidedBy: "bob", PayTime: now, PaidBy: "bob",
		}),
	)
}

// TestInvariants damages one record for each of them.
func TestInvariants(t *testing.T) {
	invoice := func(id string, change func(*pb.Invoice)) servertest.Damage {
		return servertest.Changed(invoices, id, change)
	}
	vendor := func(change func(*pb.VendorInvoice)) servertest.Damage {
		return servertest.Changed(vendorInvoices, "vendor", change)
	}
	payment := func(change func(*pb.Payment)) servertest.Damage { return servertest.Changed(payments, "p1", change) }
	servertest.FindsDamage(t, schema, soundBooks, map[string][]servertest.Damage{
		"payment/invoice_id": {
			payment(func(p *pb.Payment) { p.InvoiceId = "another" }),
			servertest.Removed(invoices, "paid"),
		},
		"invoice/payments": {
			payment(func(p *pb.Payment) { p.Amount = money(601, "EUR") }),
			payment(func(p *pb.Payment) { p.Amount = money(600, "USD") }),
			servertest.Removed(payments, "p2"),
			invoice("paid", func(v *pb.Invoice) { v.AmountPaid = money(1001, "EUR") }),
		},
		"invoice/amounts": {
			invoice("paid", func(v *pb.Invoice) { v.Total = money(1, "EUR") }),
			invoice("paid", func(v *pb.Invoice) { v.Balance = nil }),
			invoice("paid", func(v *pb.Invoice) { v.Lines[0].QuantityThousandths++ }),
			invoice("paid", func(v *pb.Invoice) { v.Lines = append(v.Lines, v.Lines[0]) }),
			invoice("paid", func(v *pb.Invoice) { v.PaymentState = pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_PAID }),
		},
		"invoice/number": {
			invoice("paid", func(v *pb.Invoice) { v.Number = numberOf(2) }),
			invoice("paid", func(v *pb.Invoice) { v.Number = "INV-1" }),
			servertest.Removed(counters, invoices.Name()),
		},
		"invoice/state": {
			invoice("paid", func(v *pb.Invoice) { v.State = void }),
			invoice("paid", func(v *pb.Invoice) { v.Number = "" }),
			invoice("draft", func(v *pb.Invoice) { v.State = open }),
			invoice("draft", func(v *pb.Invoice) { v.State = 0 }),
			invoice("gone", func(v *pb.Invoice) { v.PreviousState = 0 }),
		},
		"invoice/purge_time":  {invoice("gone", func(v *pb.Invoice) { v.PurgeTime = nil })},
		"invoice/approved_by": {invoice("paid", func(v *pb.Invoice) { v.ApprovedBy = "ann" })},
		"vendor_invoice/state": {
			vendor(func(v *pb.VendorInvoice) { v.State = vendorApproved }),
			vendor(func(v *pb.VendorInvoice) { v.SubmitTime = nil }),
			vendor(func(v *pb.VendorInvoice) { v.Total = nil }),
			vendor(func(v *pb.VendorInvoice) { v.State = 0 }),
		},
		"vendor_invoice/decided_by": {vendor(func(v *pb.VendorInvoice) { v.DecidedBy = "vic" })},
	})
}
