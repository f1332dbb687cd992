package invoicing

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/mask"
	"latchkey.dev/services/internal/query"
	"latchkey.dev/services/internal/store"
)

// CreateVendorInvoice creates a draft for a service request of the caller.
func (s *service) CreateVendorInvoice(ctx context.Context, req *pb.CreateVendorInvoiceRequest) (*pb.CreateVendorInvoiceResponse, error) {
	if err := checkPrice("total", req.GetTotal()); err != nil {
		return nil, err
	}
	work, refused := s.lookupWork(ctx, req.GetServiceRequestId())
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreateVendorInvoiceResponse, error) {
		if refused != nil {
			return nil, refused
		}
		v := &pb.VendorInvoice{
			Id: s.newID(), OwnerId: authz.Caller(ctx).ID, State: vendorDraft,
			ServiceRequestId: work.GetId(), PropertyId: work.GetPropertyId(), UnitId: work.GetUnitId(),
			PurchaseOrderNumber: work.GetPurchaseOrderNumber(),
			Reference:           unlessEmpty(req.GetReference()), Description: unlessEmpty(req.GetDescription()),
			Total: proto.CloneOf(req.GetTotal()),
		}
		return &pb.CreateVendorInvoiceResponse{VendorInvoice: v}, saveVendorInvoice(ctx, tx, v)
	})
}

// saveVendorInvoice stores the vendor invoice and makes it what the caller sees of it.
func saveVendorInvoice(ctx context.Context, tx *store.Tx, v *pb.VendorInvoice) error {
	err := vendorInvoices.Put(tx, v)
	v.AvailableActions = vendorStates.Actions(ctx, v)
	return err
}

// GetVendorInvoice returns a vendor invoice.
func (s *service) GetVendorInvoice(ctx context.Context, req *pb.GetVendorInvoiceRequest) (*pb.GetVendorInvoiceResponse, error) {
	scope := s.vendorScope(ctx)
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.GetVendorInvoiceResponse, error) {
		v, err := scope.find(tx, req.GetId())
		if err != nil {
			return nil, err
		}
		v.AvailableActions = vendorStates.Actions(ctx, v)
		return &pb.GetVendorInvoiceResponse{VendorInvoice: v}, nil
	})
}

// ListVendorInvoices returns a page of the vendor invoices of a view.
func (s *service) ListVendorInvoices(ctx context.Context, req *pb.ListVendorInvoicesRequest) (*pb.ListVendorInvoicesResponse, error) {
	filter, err := query.Parse(req.GetFilter(), &pb.VendorInvoice{})
	if err != nil {
		return nil, err
	}
	scope := s.vendorScope(ctx)
	if scope.err != nil {
		return nil, scope.err
	}
	keep := func(v *pb.VendorInvoice) bool { return scope.sees(v) && filter.Match(v) }
	done := req.GetView() == pb.VendorInvoiceView_VENDOR_INVOICE_VIEW_CLOSED
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListVendorInvoicesResponse, error) {
		page, next, err := store.Page(tx, req, keep, scope.ranges(done)...)
		for _, v := range page {
			v.AvailableActions = vendorStates.Actions(ctx, v)
		}
		return &pb.ListVendorInvoicesResponse{VendorInvoices: page, NextPageToken: next}, err
	})
}

// UpdateVendorInvoice changes the masked fields of a vendor invoice.
func (s *service) UpdateVendorInvoice(ctx context.Context, req *pb.UpdateVendorInvoiceRequest) (*pb.UpdateVendorInvoiceResponse, error) {
	scope := s.vendorScope(ctx)
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UpdateVendorInvoiceResponse, error) {
		v, err := scope.change(ctx, tx, req.GetVendorInvoice(), pb.VendorInvoiceService_UpdateVendorInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		if err := mask.Apply(v, req.GetVendorInvoice(), req.GetUpdateMask(), "reference", "description", "total"); err != nil {
			return nil, err
		}
		if err := checkPrice("vendor_invoice.total", v.GetTotal()); err != nil {
			return nil, err
		}
		return &pb.UpdateVendorInvoiceResponse{VendorInvoice: v}, saveVendorInvoice(ctx, tx, v)
	})
}

// SubmitVendorInvoice gives a vendor invoice to the managers of its property.
func (s *service) SubmitVendorInvoice(ctx context.Context, req *pb.SubmitVendorInvoiceRequest) (*pb.SubmitVendorInvoiceResponse, error) {
	scope := s.vendorScope(ctx)
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.SubmitVendorInvoiceResponse, error) {
		v, err := scope.change(ctx, tx, req, pb.VendorInvoiceService_SubmitVendorInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.SubmitTime, v.HoldNote = timestamppb.New(tx.Now()), ""
		return &pb.SubmitVendorInvoiceResponse{VendorInvoice: v}, saveVendorInvoice(ctx, tx, v)
	})
}

// StartVendorInvoiceReview takes a vendor invoice into review.
func (s *service) StartVendorInvoiceReview(ctx context.Context, req *pb.StartVendorInvoiceReviewRequest) (*pb.StartVendorInvoiceReviewResponse, error) {
	scope := s.vendorScope(ctx)
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.StartVendorInvoiceReviewResponse, error) {
		v, err := scope.change(ctx, tx, req, pb.VendorInvoiceService_StartVendorInvoiceReview_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.ReviewedBy = authz.Caller(ctx).ID
		return &pb.StartVendorInvoiceReviewResponse{VendorInvoice: v}, saveVendorInvoice(ctx, tx, v)
	})
}

// HoldVendorInvoice gives a vendor invoice back to its vendor, to change it.
func (s *service) HoldVendorInvoice(ctx context.Context, req *pb.HoldVendorInvoiceRequest) (*pb.HoldVendorInvoiceResponse, error) {
	scope := s.vendorScope(ctx)
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.HoldVendorInvoiceResponse, error) {
		v, err := scope.change(ctx, tx, req, pb.VendorInvoiceService_HoldVendorInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.HoldNote = req.GetNote()
		return &pb.HoldVendorInvoiceResponse{VendorInvoice: v}, saveVendorInvoice(ctx, tx, v)
	})
}

// ApproveVendorInvoice approves a vendor invoice.
func (s *service) ApproveVendorInvoice(ctx context.Context, req *pb.ApproveVendorInvoiceRequest) (*pb.ApproveVendorInvoiceResponse, error) {
	scope := s.vendorScope(ctx)
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.ApproveVendorInvoiceResponse, error) {
		v, err := scope.change(ctx, tx, req, pb.VendorInvoiceService_ApproveVendorInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.DecidedBy, v.DecideTime = authz.Caller(ctx).ID, timestamppb.New(tx.Now())
		return &pb.ApproveVendorInvoiceResponse{VendorInvoice: v}, saveVendorInvoice(ctx, tx, v)
	})
}

// DeclineVendorInvoice declines a vendor invoice for good.
func (s *service) DeclineVendorInvoice(ctx context.Context, req *pb.DeclineVendorInvoiceRequest) (*pb.DeclineVendorInvoiceResponse, error) {
	scope := s.vendorScope(ctx)
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.DeclineVendorInvoiceResponse, error) {
		v, err := scope.change(ctx, tx, req, pb.VendorInvoiceService_DeclineVendorInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.DeclineReason = req.GetReason()
		v.DecidedBy, v.DecideTime = authz.Caller(ctx).ID, timestamppb.New(tx.Now())
		return &pb.DeclineVendorInvoiceResponse{VendorInvoice: v}, saveVendorInvoice(ctx, tx, v)
	})
}

// MarkVendorInvoicePaid marks an approved vendor invoice as paid.
func (s *service) MarkVendorInvoicePaid(ctx context.Context, req *pb.MarkVendorInvoicePaidRequest) (*pb.MarkVendorInvoicePaidResponse, error) {
	scope := s.vendorScope(ctx)
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.MarkVendorInvoicePaidResponse, error) {
		v, err := scope.change(ctx, tx, req, pb.VendorInvoiceService_MarkVendorInvoicePaid_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.PaidBy, v.PayTime = authz.Caller(ctx).ID, timestamppb.New(tx.Now())
		return &pb.MarkVendorInvoicePaidResponse{VendorInvoice: v}, saveVendorInvoice(ctx, tx, v)
	})
}
