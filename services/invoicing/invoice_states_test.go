package invoicing_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
)

// invoiceIn makes an invoice in a state, by u.
func invoiceIn(t *testing.T, u *user, state pb.InvoiceState) *pb.Invoice {
	t.Helper()
	switch state {
	case unapproved:
		return u.createUnapproved(t, 100)
	case void:
		return must(u.invoices.VoidInvoice(t.Context(), &pb.VoidInvoiceRequest{Id: u.create(t, 100).GetId(), Reason: "x"}))(t).GetInvoice()
	case deleted:
		return must(u.invoices.DeleteInvoice(t.Context(), &pb.DeleteInvoiceRequest{Id: u.create(t, 100).GetId()}))(t).GetInvoice()
	}
	return u.create(t, 100)
}

// move is one call of the table, with what it needs beside the record.
type move struct {
	method string
	req    func(id, etag string) proto.Message
	resp   func() proto.Message
	from   []pb.InvoiceState
	to     pb.InvoiceState // 0: it stays
}

var invoiceMoves = []move{
	{pb.InvoiceService_UpdateInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.UpdateInvoiceRequest{Invoice: &pb.Invoice{Id: id, Etag: etag, Terms: proto.String("New")}}
	}, func() proto.Message { return &pb.UpdateInvoiceResponse{} }, []pb.InvoiceState{unapproved, open}, 0},
	{pb.InvoiceService_ApproveInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.ApproveInvoiceRequest{Id: id, Etag: etag}
	}, func() proto.Message { return &pb.ApproveInvoiceResponse{} }, []pb.InvoiceState{unapproved}, open},
	{pb.InvoiceService_RejectInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.RejectInvoiceRequest{Id: id, Etag: etag, Note: "no"}
	}, func() proto.Message { return &pb.RejectInvoiceResponse{} }, []pb.InvoiceState{unapproved}, 0},
	{pb.InvoiceService_SendInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.SendInvoiceRequest{Id: id, Etag: etag}
	}, func() proto.Message { return &pb.SendInvoiceResponse{} }, []pb.InvoiceState{open}, 0},
	{pb.InvoiceService_RecordPayment_FullMethodName, func(id, etag string) proto.Message {
		return &pb.RecordPaymentRequest{Id: id, Etag: etag, Amount: eur(1), Method: pb.PaymentMethod_PAYMENT_METHOD_CASH}
	}, func() proto.Message { return &pb.RecordPaymentResponse{} }, []pb.InvoiceState{open}, 0},
	{pb.InvoiceService_VoidInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.VoidInvoiceRequest{Id: id, Etag: etag, Reason: "x"}
	}, func() proto.Message { return &pb.VoidInvoiceResponse{} }, []pb.InvoiceState{unapproved, open}, void},
	{pb.InvoiceService_DeleteInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.DeleteInvoiceRequest{Id: id, Etag: etag}
	}, func() proto.Message { return &pb.DeleteInvoiceResponse{} }, []pb.InvoiceState{unapproved, open, void}, deleted},
	{pb.InvoiceService_UndeleteInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.UndeleteInvoiceRequest{Id: id, Etag: etag}
	}, func() proto.Message { return &pb.UndeleteInvoiceResponse{} }, []pb.InvoiceState{deleted}, open},
}

// actionOf returns what is said of a method.
func actionOf(t *testing.T, actions []*typepb.AvailableAction, method string) *typepb.AvailableAction {
	t.Helper()
	for _, a := range actions {
		if "/"+a.GetMethod() == method {
			return a
		}
	}
	t.Fatalf("no action %s in %v", method, actions)
	return nil
}

// TestInvoiceTable tries every call in every state, and compares what happens with what
// available_actions said before.
func TestInvoiceTable(t *testing.T) {
	s := start(t)
	author, u := s.office(), s.office()
	for _, state := range []pb.InvoiceState{unapproved, open, void, deleted} {
		for _, m := range invoiceMoves {
			v := invoiceIn(t, author, state)
			doing := short(m.method) + " in " + state.String()
			if v.GetState() != state {
				t.Fatalf("%s: got %v to begin with", doing, v)
			}
			action := actionOf(t, u.get(t, v.GetId()).GetAvailableActions(), m.method)
			err := call(t, u, m.method, m.req(v.GetId(), "1000000"), m.resp())
			fails(t, doing+" with a stale etag", err, codes.Aborted, "ETAG_STALE", "")
			err = call(t, u, m.method, m.req(v.GetId(), v.GetEtag()), m.resp())
			got := u.get(t, v.GetId())
			if !slices.Contains(m.from, state) {
				fails(t, doing, err, codes.FailedPrecondition, "STATE_FORBIDS", "")
				if action.GetAllowed() || action.GetReason() != "STATE_FORBIDS" || action.GetExplanation() == "" {
					t.Errorf("%s: got action %v, want it refused with STATE_FORBIDS", doing, action)
				}
				if got.GetEtag() != v.GetEtag() {
					t.Errorf("%s: got %v, want nothing changed", doing, got)
				}
				continue
			}
			want := m.to
			if want == 0 {
				want = state
			}
			if err != nil || got.GetState() != want || got.GetEtag() == v.GetEtag() {
				t.Errorf("%s: got %v, %v, want state %v", doing, got, err, want)
			}
			if !action.GetAllowed() {
				t.Errorf("%s: got action %v, want it allowed", doing, action)
			}
		}
	}
	for _, m := range invoiceMoves {
		for who, c := range map[string]*user{
			"unknown id":           u,
			"another organization": clients(s.InOrganization(servertest.UUID(9)).As(officeKeys...)),
		} {
			id := servertest.UUID(3)
			if c != u {
				id = author.create(t, 1).GetId()
			}
			err := call(t, c, m.method, m.req(id, ""), m.resp())
			fails(t, short(m.method)+" with "+who, err, codes.NotFound, "RECORD_NOT_FOUND", "")
		}
	}
}

func TestPaidInvoiceStays(t *testing.T) {
	s := start(t)
	u := s.office()
	v := u.create(t, 100)
	must(u.invoices.RecordPayment(t.Context(), &pb.RecordPaymentRequest{Id: v.GetId(), Amount: eur(100), Method: pb.PaymentMethod_PAYMENT_METHOD_CASH}))(t)
	v = u.get(t, v.GetId())
	for _, m := range invoiceMoves {
		switch m.method {
		case pb.InvoiceService_VoidInvoice_FullMethodName, pb.InvoiceService_DeleteInvoice_FullMethodName, pb.InvoiceService_RecordPayment_FullMethodName:
			err := call(t, u, m.method, m.req(v.GetId(), ""), m.resp())
			fails(t, short(m.method)+" of a paid invoice", err, codes.FailedPrecondition, "PRECONDITION_FAILED", "")
		}
	}
	equal(t, "invoice after refusals", u.get(t, v.GetId()), v)
}

func TestDeletedInvoiceIsHiddenAndRestored(t *testing.T) {
	var later atomic.Int64 // how far the clock is ahead
	s := startAt(t, func() time.Time { return time.Now().Add(time.Duration(later.Load())) })
	u := s.office()
	clerk := s.as(without(officeKeys, "Invoices:Delete")...)
	open1, open2 := u.create(t, 100), u.create(t, 200)
	gone := must(u.invoices.DeleteInvoice(t.Context(), &pb.DeleteInvoiceRequest{Id: open1.GetId()}))(t).GetInvoice()
	if got := gone.GetPurgeTime().AsTime().Sub(gone.GetDeleteTime().AsTime()); got.Hours() != 28*24 {
		t.Errorf("time to restore: got %v, want 28 days", got)
	}
	_, err := clerk.invoices.GetInvoice(t.Context(), &pb.GetInvoiceRequest{Id: open1.GetId()})
	fails(t, "get of a deleted invoice", err, codes.NotFound, "RECORD_NOT_FOUND", "")
	_, err = clerk.invoices.SendInvoice(t.Context(), &pb.SendInvoiceRequest{Id: open1.GetId()})
	fails(t, "sending a deleted invoice", err, codes.NotFound, "RECORD_NOT_FOUND", "")
	_, err = clerk.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, ShowDeleted: proto.Bool(true)})
	fails(t, "list of deleted invoices", err, codes.PermissionDenied, "GRANT_MISSING", "show_deleted")
	_, err = u.invoices.ListInvoices(t.Context(), &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_OPEN, ShowDeleted: proto.Bool(true)})
	fails(t, "list of deleted open invoices", err, codes.InvalidArgument, "FIELD_INVALID", "show_deleted")

	want := []string{open2.GetId()}
	if got := u.list(t, &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL}); !slices.Equal(got, want) {
		t.Errorf("list: got %v, want %v", got, want)
	}
	want = []string{open2.GetId(), open1.GetId()}
	if got := u.list(t, &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, ShowDeleted: proto.Bool(true), PageSize: 1}); !slices.Equal(got, want) {
		t.Errorf("list with the deleted: got %v, want %v", got, want)
	}
	if got := u.create(t, 1).GetNumber(); got != "INV-000003" {
		t.Errorf("number after a deletion: got %s, want INV-000003", got)
	}
	back := must(u.invoices.UndeleteInvoice(t.Context(), &pb.UndeleteInvoiceRequest{Id: open1.GetId()}))(t).GetInvoice()
	back.Etag, back.UpdateTime = open1.GetEtag(), open1.GetUpdateTime()
	equal(t, "restored", back, open1)
	must(u.invoices.DeleteInvoice(t.Context(), &pb.DeleteInvoiceRequest{Id: open1.GetId()}))(t)
	later.Store(int64(28 * 24 * time.Hour))
	_, err = u.invoices.UndeleteInvoice(t.Context(), &pb.UndeleteInvoiceRequest{Id: open1.GetId()})
	fails(t, "restoring after 28 days", err, codes.NotFound, "RECORD_NOT_FOUND", "")
	if got := u.list(t, &pb.ListInvoicesRequest{View: pb.InvoiceView_INVOICE_VIEW_ALL, ShowDeleted: proto.Bool(true), Filter: "state = DELETED"}); len(got) != 0 {
		t.Errorf("list of the deleted after 28 days: got %v, want none", got)
	}
}
