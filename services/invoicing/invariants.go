package invoicing

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/store"
)

// What doc.go says that is always true, as far as one can see it in the records: verify asks for it.
var (
	_ = payments.Refers("invoice_id", (*pb.Payment).GetInvoiceId, invoices)

	_ = invoices.Always("payments", ledgerAddsUp)
	_ = invoices.Always("amounts", amountsFollow)
	_ = invoices.Always("number", numberWasGiven)
	_ = invoices.Always("state", invoiceFitsState)
	_ = invoices.Always("purge_time", store.PurgesDeleted[*pb.Invoice])
	_ = invoices.Always("approved_by", func(_ *store.Tx, v *pb.Invoice) string {
		return byAnother("approved_by", v.GetApprovedBy(), "author_id", v.GetAuthorId())
	})

	_ = vendorInvoices.Always("state", vendorInvoiceFitsState)
	_ = vendorInvoices.Always("decided_by", func(_ *store.Tx, v *pb.VendorInvoice) string {
		if v.GetState() == vendorDeclined { // as anybody may his own
			return ""
		}
		return byAnother("decided_by", v.GetDecidedBy(), "owner_id", v.GetOwnerId())
	})
)

// ledgerAddsUp holds if the payments of an invoice come to what is paid, in its currency.
func ledgerAddsUp(tx *store.Tx, v *pb.Invoice) string {
	var sum int64
	for p := range paymentInvoice.Scan(tx, paymentInvoice.Range(v.GetId())) {
		if got, want := p.GetAmount().GetCurrencyCode(), v.GetAmountPaid().GetCurrencyCode(); got != want {
			return fmt.Sprintf("payment %q is in %q, and amount_paid in %q", p.GetId(), got, want)
		}
		sum += p.GetAmount().GetMinorUnits()
	}
	if paid := v.GetAmountPaid().GetMinorUnits(); paid != sum {
		return fmt.Sprintf("amount_paid is %d, and its payments come to %d", paid, sum)
	}
	return ""
}

// amountsFollow holds if an invoice's amounts are what its lines come to.
func amountsFollow(_ *store.Tx, v *pb.Invoice) string {
	want := proto.CloneOf(v)
	if err := reckon(want, "lines"); err != nil {
		return err.Error()
	}
	for i, l := range v.GetLines() {
		if w := want.GetLines()[i]; !proto.Equal(l, w) {
			return differs(linePath("lines", i)+".amount", l.GetAmount(), w.GetAmount()) + ", " + differs("tax", l.GetTax(), w.GetTax())
		}
	}
	for _, amount := range []struct {
		name      string
		got, want *typepb.Money
	}{
		{"subtotal", v.GetSubtotal(), want.GetSubtotal()}, {"tax", v.GetTax(), want.GetTax()}, {"total", v.GetTotal(), want.GetTotal()},
		{"amount_paid", v.GetAmountPaid(), want.GetAmountPaid()}, {"balance", v.GetBalance(), want.GetBalance()},
	} {
		if !proto.Equal(amount.got, amount.want) {
			return differs(amount.name, amount.got, amount.want)
		}
	}
	if v.GetPaymentState() != want.GetPaymentState() {
		return fmt.Sprintf("payment_state is %s, and should be %s", v.GetPaymentState(), want.GetPaymentState())
	}
	return ""
}

func differs(name string, got, want *typepb.Money) string {
	text := func(m *typepb.Money) string {
		if m == nil {
			return "absent"
		}
		return fmt.Sprintf("%d %s", m.GetMinorUnits(), m.GetCurrencyCode())
	}
	return fmt.Sprintf("%s is %s, and should be %s", name, text(got), text(want))
}

// numberWasGiven holds if the counter has come as far as the number of an invoice.
func numberWasGiven(tx *store.Tx, v *pb.Invoice) string {
	if v.GetNumber() == "" {
		return ""
	}
	digits, _ := strings.CutPrefix(v.GetNumber(), numberPrefix)
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || v.GetNumber() != numberOf(n) {
		return fmt.Sprintf("number is %q, and should be as %q", v.GetNumber(), numberOf(1))
	}
	if c, _ := counters.Get(tx, invoices.Name()); n < 1 || n > c.GetLast() {
		return fmt.Sprintf("number is %q, and the last that was given %d", v.GetNumber(), c.GetLast())
	}
	return ""
}

// invoiceFitsState holds if an invoice has what its state, or that before its deletion, asks for.
func invoiceFitsState(_ *store.Tx, v *pb.Invoice) string {
	if is := v.GetDeleteTime() != nil; is != (v.GetState() == deleted) || is != (v.GetPreviousState() != 0) {
		return fmt.Sprintf("state is %s, previous_state %s, and whether it has a delete_time %t", v.GetState(), v.GetPreviousState(), is)
	}
	state := v.GetState()
	if state == deleted {
		state = v.GetPreviousState()
	}
	opened := v.GetOpenTime() != nil
	switch {
	case opened != (v.GetNumber() != ""):
		return fmt.Sprintf("number is %q, and whether it has an open_time %t", v.GetNumber(), opened)
	case state != unapproved && state != open && state != void:
		return fmt.Sprintf("it is, or was before its deletion, %s", state)
	case state == unapproved && opened, state == open && !opened:
		return fmt.Sprintf("it is, or was before its deletion, %s, and its number %q", state, v.GetNumber())
	case v.GetState() != open && v.GetAmountPaid().GetMinorUnits() != 0:
		return fmt.Sprintf("state is %s, and amount_paid %d", v.GetState(), v.GetAmountPaid().GetMinorUnits())
	}
	if v.GetState() == open {
		if err := complete(v); err != nil {
			return fmt.Sprintf("state is %s, and %s", v.GetState(), err)
		}
	}
	return ""
}

// vendorInvoiceFitsState holds if what was done with a vendor invoice to bring it into its state is
// written in it, and no more.
func vendorInvoiceFitsState(_ *store.Tx, v *pb.VendorInvoice) string {
	var submitted, priced, decided, paid bool
	switch v.GetState() {
	case vendorDraft:
	case vendorHold:
		submitted = true
	case vendorSubmitted, vendorInReview:
		submitted, priced = true, true
	case vendorDeclined:
		submitted, decided = true, true
	case vendorApproved:
		submitted, priced, decided = true, true, true
	case vendorPaid:
		submitted, priced, decided, paid = true, true, true, true
	default:
		return fmt.Sprintf("state is %s", v.GetState())
	}
	for _, must := range []struct {
		what      string
		got, want bool
	}{
		{"submit_time", v.GetSubmitTime() != nil, submitted},
		{"decide_time", v.GetDecideTime() != nil, decided}, {"decided_by", v.GetDecidedBy() != "", decided},
		{"pay_time", v.GetPayTime() != nil, paid}, {"paid_by", v.GetPaidBy() != "", paid},
		{"total above zero", v.GetTotal().GetMinorUnits() > 0, priced || v.GetTotal().GetMinorUnits() > 0},
	} {
		if must.got != must.want {
			return fmt.Sprintf("state is %s, and whether it has a %s %t", v.GetState(), must.what, must.got)
		}
	}
	return ""
}

// byAnother holds if nobody, or somebody else than its own, has approved something.
func byAnother(name, who, ownName, own string) string {
	if who == "" || who != own {
		return ""
	}
	return fmt.Sprintf("%s is %q, who is its %s too", name, who, ownName)
}
