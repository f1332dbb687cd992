package invoicing

import (
	"math"
	"strings"

	invoicingstorepb "latchkey.dev/gen/go/latchkey/invoicing/store/v1"
	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/store"
)

var (
	parts    = store.NewCollection("part", (*pb.Part).GetId)
	_        = parts.Unique("sku", func(p *pb.Part) store.Key { return keyUnlessEmpty(p.GetSku()) })
	partName = parts.MultiIndex("name", partNameKeys)

	invoices = store.NewCollection("invoice", (*pb.Invoice).GetId)
	_        = invoices.Unique("number", func(v *pb.Invoice) store.Key { return keyUnlessEmpty(v.GetNumber()) })

	invoiceAppointment = invoices.Unique("appointment", func(v *pb.Invoice) store.Key { return keyUnlessEmpty(v.GetAppointmentId()) })
	invoicePurge       = invoices.Index("purge", invoicePurgeKey)
	invoiceCreate      = invoices.MultiIndex("create", inViews(func(v *pb.Invoice) any { return v.GetCreateTime().AsTime() }))
	invoiceTotal       = invoices.MultiIndex("total", inViews(func(v *pb.Invoice) any { return v.GetTotal().GetMinorUnits() }))
	invoiceDue         = invoices.MultiIndex("due", inViews(func(v *pb.Invoice) any { return dueKey(v) }))

	payments       = store.NewCollection("payment", (*pb.Payment).GetId)
	paymentInvoice = payments.Index("invoice", func(p *pb.Payment) store.Key {
		return store.Key{p.GetInvoiceId(), p.GetReceiveTime().AsTime()}
	})

	vendorInvoices        = store.NewCollection("vendor_invoice", (*pb.VendorInvoice).GetId)
	vendorInvoiceOwner    = vendorInvoices.Index("owner", vendorOwnerKey)
	vendorInvoiceProperty = vendorInvoices.Index("property", vendorPropertyKey)

	counters = store.NewCollection("counter", (*invoicingstorepb.Counter).GetId)

	schema = store.NewSchema(parts, invoices, payments, vendorInvoices, counters).PerOrganization()
)

func keyUnlessEmpty(s string) store.Key {
	if s == "" {
		return nil
	}
	return store.Key{s}
}

func partNameKeys(p *pb.Part) []store.Key {
	name := strings.ToLower(p.GetName())
	keys := []store.Key{{pb.PartView_PART_VIEW_CONTROL_PANEL, name}}
	if p.GetActive() {
		keys = append(keys, store.Key{pb.PartView_PART_VIEW_PICKER, name})
	}
	return keys
}

func invoicePurgeKey(v *pb.Invoice) store.Key {
	if v.GetPurgeTime() == nil {
		return nil
	}
	return store.Key{v.GetPurgeTime().AsTime()}
}

// everyone stands in an index for the owners of all invoices; no user has this id.
const everyone = "*"

// deletedView stands in an index for the view of deleted invoices.
const deletedView = pb.InvoiceView(-1)

// inViews returns the keys of an index of invoices: by owner and by everyone, then by
// view, then by a value. So a list reads the range of its scope and view and nothing
// beside it.
func inViews(value func(*pb.Invoice) any) func(*pb.Invoice) []store.Key {
	return func(v *pb.Invoice) []store.Key {
		var keys []store.Key
		for _, view := range viewsOf(v) {
			keys = append(keys, store.Key{everyone, view, value(v)}, store.Key{v.GetOwnerId(), view, value(v)})
		}
		return keys
	}
}

// viewsOf returns the views that hold the invoice.
func viewsOf(v *pb.Invoice) []pb.InvoiceView {
	const all = pb.InvoiceView_INVOICE_VIEW_ALL
	switch v.GetState() {
	case deleted:
		return []pb.InvoiceView{deletedView}
	case unapproved:
		return []pb.InvoiceView{all, pb.InvoiceView_INVOICE_VIEW_UNAPPROVED}
	case open:
		if v.GetPaymentState() == pb.InvoicePaymentState_INVOICE_PAYMENT_STATE_PAID {
			return []pb.InvoiceView{all, pb.InvoiceView_INVOICE_VIEW_PAID}
		}
		return []pb.InvoiceView{all, pb.InvoiceView_INVOICE_VIEW_OPEN}
	}
	return []pb.InvoiceView{all}
}

// dueKey orders by due date; invoices without one come last.
func dueKey(v *pb.Invoice) int32 {
	if d := v.GetDueDate(); d != nil {
		return d.GetYear()*10_000 + d.GetMonth()*100 + d.GetDay()
	}
	return math.MaxInt32
}

func vendorOwnerKey(v *pb.VendorInvoice) store.Key {
	return store.Key{v.GetOwnerId(), closed(v), v.GetCreateTime().AsTime()}
}

// vendorPropertyKey keeps drafts out: only their vendor sees them.
func vendorPropertyKey(v *pb.VendorInvoice) store.Key {
	if v.GetState() == vendorDraft {
		return nil
	}
	return store.Key{v.GetPropertyId(), closed(v), v.GetCreateTime().AsTime()}
}

// closed tells which of the two views holds the vendor invoice.
func closed(v *pb.VendorInvoice) bool {
	return v.GetState() == vendorPaid || v.GetState() == vendorDeclined
}
