package invoicing

import (
	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/states"
)

const (
	unapproved = pb.InvoiceState_INVOICE_STATE_UNAPPROVED
	open       = pb.InvoiceState_INVOICE_STATE_OPEN
	void       = pb.InvoiceState_INVOICE_STATE_VOID
	deleted    = pb.InvoiceState_INVOICE_STATE_DELETED

	vendorDraft     = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_DRAFT
	vendorSubmitted = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_SUBMITTED
	vendorInReview  = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_IN_REVIEW
	vendorHold      = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_HOLD
	vendorApproved  = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_APPROVED
	vendorDeclined  = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_DECLINED
	vendorPaid      = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_PAID
)

type (
	invoiceFrom = []pb.InvoiceState
	vendorFrom  = []pb.VendorInvoiceState

	invoiceAction = states.Action[*pb.Invoice, pb.InvoiceState]
	vendorAction  = states.Action[*pb.VendorInvoice, pb.VendorInvoiceState]
)

// invoiceStates is what can be done with an invoice. UndeleteInvoice leads to the
// state before.
var invoiceStates = states.New("invoice", (*pb.Invoice).GetId, (*pb.Invoice).GetState, setInvoiceState,
	invoiceAction{Method: pb.InvoiceService_UpdateInvoice_FullMethodName, From: invoiceFrom{unapproved, open}},
	invoiceAction{Method: pb.InvoiceService_ApproveInvoice_FullMethodName, From: invoiceFrom{unapproved}, To: open, Check: approvable},
	invoiceAction{Method: pb.InvoiceService_RejectInvoice_FullMethodName, From: invoiceFrom{unapproved}, Check: notAuthor},
	invoiceAction{Method: pb.InvoiceService_SendInvoice_FullMethodName, From: invoiceFrom{open}},
	invoiceAction{Method: pb.InvoiceService_RecordPayment_FullMethodName, From: invoiceFrom{open}, Check: payable},
	invoiceAction{Method: pb.InvoiceService_VoidInvoice_FullMethodName, From: invoiceFrom{unapproved, open}, To: void, Check: nothingPaid},
	invoiceAction{Method: pb.InvoiceService_DeleteInvoice_FullMethodName, From: invoiceFrom{unapproved, open, void}, To: deleted, Check: nothingPaid},
	invoiceAction{Method: pb.InvoiceService_UndeleteInvoice_FullMethodName, From: invoiceFrom{deleted}},
)

// setInvoiceState remembers what a deletion is from.
func setInvoiceState(v *pb.Invoice, state pb.InvoiceState) {
	if state == deleted {
		v.PreviousState = v.GetState()
	}
	v.State = state
}

func notAuthor(c *authz.Principal, v *pb.Invoice) error {
	if c.ID == v.GetAuthorId() {
		return fault.Relation("somebody else than the author of the invoice")
	}
	return nil
}

// approvable says what an invoice lacks before it can be approved by the caller.
func approvable(c *authz.Principal, v *pb.Invoice) error {
	if err := notAuthor(c, v); err != nil {
		return err
	}
	return complete(v)
}

// complete says what an invoice lacks before it can open.
func complete(v *pb.Invoice) error {
	if len(v.GetLines()) == 0 {
		return fault.Refused("the invoice needs at least one line")
	}
	for i, l := range v.GetLines() {
		if l.GetUnpriced() {
			return fault.Refused("lines[%d] of the invoice needs a price", i)
		}
	}
	return nil
}

func payable(_ *authz.Principal, v *pb.Invoice) error {
	if v.GetBalance().GetMinorUnits() == 0 {
		return fault.Refused("there must be something left to pay on the invoice")
	}
	return nil
}

func nothingPaid(_ *authz.Principal, v *pb.Invoice) error {
	if v.GetAmountPaid().GetMinorUnits() != 0 {
		return fault.Refused("what was paid on the invoice must be given back first")
	}
	return nil
}

// vendorStates is what can be done with a vendor invoice.
var vendorStates = states.New("vendor_invoice", (*pb.VendorInvoice).GetId, (*pb.VendorInvoice).GetState,
	func(v *pb.VendorInvoice, state pb.VendorInvoiceState) { v.State = state },
	vendorAction{Method: pb.VendorInvoiceService_UpdateVendorInvoice_FullMethodName, From: vendorFrom{vendorDraft, vendorHold}, Check: isVendor},
	vendorAction{Method: pb.VendorInvoiceService_SubmitVendorInvoice_FullMethodName, From: vendorFrom{vendorDraft, vendorHold}, To: vendorSubmitted, Check: submittable},
	vendorAction{Method: pb.VendorInvoiceService_StartVendorInvoiceReview_FullMethodName, From: vendorFrom{vendorSubmitted}, To: vendorInReview},
	vendorAction{Method: pb.VendorInvoiceService_HoldVendorInvoice_FullMethodName, From: vendorFrom{vendorSubmitted, vendorInReview}, To: vendorHold},
	vendorAction{Method: pb.VendorInvoiceService_ApproveVendorInvoice_FullMethodName, From: vendorFrom{vendorSubmitted, vendorInReview}, To: vendorApproved, Check: isNotVendor},
	vendorAction{Method: pb.VendorInvoiceService_DeclineVendorInvoice_FullMethodName, From: vendorFrom{vendorSubmitted, vendorInReview, vendorHold}, To: vendorDeclined},
	vendorAction{Method: pb.VendorInvoiceService_MarkVendorInvoicePaid_FullMethodName, From: vendorFrom{vendorApproved}, To: vendorPaid},
)

func isVendor(c *authz.Principal, v *pb.VendorInvoice) error {
	if c.ID != v.GetOwnerId() {
		return fault.Relation("the vendor who made the vendor invoice")
	}
	return nil
}

func isNotVendor(c *authz.Principal, v *pb.VendorInvoice) error {
	if c.ID == v.GetOwnerId() {
		return fault.Relation("somebody else than the vendor")
	}
	return nil
}

func submittable(c *authz.Principal, v *pb.VendorInvoice) error {
	if err := isVendor(c, v); err != nil {
		return err
	}
	if v.GetTotal().GetMinorUnits() == 0 {
		return fault.Refused("the vendor invoice needs a total above zero")
	}
	return nil
}
