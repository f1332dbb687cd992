package invoicing

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	invoicingstorepb "latchkey.dev/gen/go/latchkey/invoicing/store/v1"
	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/query"
	"latchkey.dev/services/internal/store"
)

// CreateInvoice creates an invoice, open or waiting for the caller's approver.
func (s *service) CreateInvoice(ctx context.Context, req *pb.CreateInvoiceRequest) (*pb.CreateInvoiceResponse, error) {
	if err := checkDate("due_date", req.GetDueDate()); err != nil {
		return nil, err
	}
	caller := authz.Caller(ctx)
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreateInvoiceResponse, error) {
		v := &pb.Invoice{
			Id: s.newID(), OwnerId: caller.ID, AuthorId: caller.ID, ApproverId: caller.Values["invoice_approver"],
			State: unapproved, DeliveryState: pb.InvoiceDeliveryState_INVOICE_DELIVERY_STATE_NOT_SENT,
			BillTo: unlessEmpty(req.GetBillTo()), Terms: unlessEmpty(req.GetTerms()),
			DueDate: proto.CloneOf(req.GetDueDate()), Lines: cloneLines(req.GetLines()),
		}
		if err := fillLines(tx, v.GetLines(), nil, "lines"); err != nil {
			return nil, err
		}
		if err := checkPriced(v.GetLines(), "lines"); err != nil {
			return nil, err
		}
		if err := reckon(v, "lines"); err != nil {
			return nil, err
		}
		if v.GetApproverId() == "" {
			if err := issue(tx, v); err != nil {
				return nil, err
			}
		}
		return &pb.CreateInvoiceResponse{Invoice: v}, saveInvoice(ctx, tx, v)
	})
}

// issue opens the invoice and gives it the next number.
func issue(tx *store.Tx, v *pb.Invoice) error {
	counter, ok := counters.Get(tx, invoices.Name())
	if !ok {
		counter = &invoicingstorepb.Counter{Id: invoices.Name()}
	}
	counter.Last++
	v.State, v.Number, v.OpenTime = open, numberOf(counter.GetLast()), timestamppb.New(tx.Now())
	return counters.Put(tx, counter)
}

const numberPrefix = "INV-"

func numberOf(n int64) string { return fmt.Sprintf("%s%06d", numberPrefix, n) }

// putInvoice stores the invoice with what follows from it.
func putInvoice(tx *store.Tx, v *pb.Invoice) error {
	settle(v)
	v.Overdue = false
	return invoices.Put(tx, v)
}

// saveInvoice stores the invoice and makes it what the caller sees of it.
func saveInvoice(ctx context.Context, tx *store.Tx, v *pb.Invoice) error {
	err := putInvoice(tx, v)
	showInvoice(ctx, tx, v)
	return err
}

// showInvoice sets what is computed when an invoice is read.
func showInvoice(ctx context.Context, tx *store.Tx, v *pb.Invoice) {
	v.Overdue = overdue(v, tx.Now())
	v.AvailableActions = invoiceStates.Actions(ctx, v)
}

// GetInvoice returns an invoice.
func (s *service) GetInvoice(ctx context.Context, req *pb.GetInvoiceRequest) (*pb.GetInvoiceResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetInvoiceResponse, error) {
		v, err := scopeOf(ctx).find(tx, req.GetId())
		if err != nil {
			return nil, err
		}
		showInvoice(ctx, tx, v)
		return &pb.GetInvoiceResponse{Invoice: v}, nil
	})
}

// ListInvoices returns a page of the invoices of a view.
func (s *service) ListInvoices(ctx context.Context, req *pb.ListInvoicesRequest) (*pb.ListInvoicesResponse, error) {
	filter, err := query.Parse(req.GetFilter(), &pb.Invoice{})
	if err != nil {
		return nil, err
	}
	scope := scopeOf(ctx)
	ranges, err := invoiceRanges(req, scope)
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListInvoicesResponse, error) {
		keep := func(v *pb.Invoice) bool {
			v.Overdue = overdue(v, tx.Now())
			return scope.sees(v, tx.Now()) && filter.Match(v)
		}
		page, next, err := store.Page(tx, req, keep, ranges...)
		for _, v := range page {
			v.AvailableActions = invoiceStates.Actions(ctx, v)
		}
		return &pb.ListInvoicesResponse{Invoices: page, NextPageToken: next}, err
	})
}

// invoiceRanges returns what a list reads: the view, in the order asked for.
func invoiceRanges(req *pb.ListInvoicesRequest, scope scope) ([]store.Range[*pb.Invoice], error) {
	order, err := query.Order(req.GetOrderBy(), "create_time desc", "create_time", "total desc", "total", "due_date desc", "due_date")
	if err != nil {
		return nil, err
	}
	index, reverse := invoiceCreate, order == "create_time desc"
	switch order {
	case "total", "total desc":
		index, reverse = invoiceTotal, order == "total desc"
	case "due_date", "due_date desc":
		index, reverse = invoiceDue, order == "due_date desc"
	}
	ranges := scope.ranges(index, req.GetView())
	if req.GetShowDeleted() {
		if req.GetView() != pb.InvoiceView_INVOICE_VIEW_ALL {
			return nil, fault.Invalid("show_deleted", "must be left out but for the view ALL")
		}
		ranges = append(ranges, scope.ranges(index, deletedView)...)
	}
	if reverse {
		for i := range ranges {
			ranges[i] = ranges[i].Reverse()
		}
	}
	return ranges, nil
}

// UpdateInvoice changes the masked fields of an invoice.
func (s *service) UpdateInvoice(ctx context.Context, req *pb.UpdateInvoiceRequest) (*pb.UpdateInvoiceResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UpdateInvoiceResponse, error) {
		v, err := changeInvoice(ctx, tx, req.GetInvoice(), pb.InvoiceService_UpdateInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		kept := partsOf(v)
		if err := mask.Apply(v, req.GetInvoice(), req.GetUpdateMask(), "bill_to", "lines", "terms", "due_date"); err != nil {
			return nil, err
		}
		if err := checkDate("invoice.due_date", v.GetDueDate()); err != nil {
			return nil, err
		}
		if masks(req.GetUpdateMask(), "lines", len(req.GetInvoice().GetLines()) > 0) {
			if err := reviseLines(tx, v, kept); err != nil {
				return nil, err
			}
		}
		v.RejectionNote, v.RejectTime = "", nil
		return &pb.UpdateInvoiceResponse{Invoice: v}, saveInvoice(ctx, tx, v)
	})
}

// masks tells whether an update touches a field; set, whether the record has it.
func masks(m *fieldmaskpb.FieldMask, field string, set bool) bool {
	if m == nil {
		return set
	}
	return slices.Contains(m.GetPaths(), field) || slices.Contains(m.GetPaths(), "*")
}

// reviseLines prices the new lines of an invoice. One that is open cannot lack any.
func reviseLines(tx *store.Tx, v *pb.Invoice, kept map[string]bool) error {
	const path = "invoice.lines"
	if err := fillLines(tx, v.GetLines(), kept, path); err != nil {
		return err
	}
	if v.GetState() == open {
		if len(v.GetLines()) == 0 {
			return complete(v)
		}
		if err := checkPriced(v.GetLines(), path); err != nil {
			return err
		}
	}
	return reckon(v, path)
}

// changeRequest is a request to change a record, or the record in it.
type changeRequest interface {
	GetId() string
	GetEtag() string
}

// changeInvoice finds the invoice of a request for the caller and moves it by the row
// of the method.
func changeInvoice(ctx context.Context, tx *store.Tx, req changeRequest, method string) (*pb.Invoice, error) {
	v, err := scopeOf(ctx).find(tx, req.GetId())
	if err != nil {
		return nil, err
	}
	if err := invoices.Match(v, req.GetEtag()); err != nil {
		return nil, err
	}
	return v, invoiceStates.Apply(ctx, method, v)
}
