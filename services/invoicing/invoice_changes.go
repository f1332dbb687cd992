package invoicing

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/store"
)

// restorable is how long a deleted invoice can be restored.
const restorable = 28 * 24 * time.Hour

// ApproveInvoice opens an invoice that waits for approval.
func (s *service) ApproveInvoice(ctx context.Context, req *pb.ApproveInvoiceRequest) (*pb.ApproveInvoiceResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.ApproveInvoiceResponse, error) {
		v, err := changeInvoice(ctx, tx, req, pb.InvoiceService_ApproveInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.ApprovedBy, v.ApproveTime = authz.Caller(ctx).ID, timestamppb.New(tx.Now())
		v.RejectionNote, v.RejectTime = "", nil
		if err := issue(tx, v); err != nil {
			return nil, err
		}
		return &pb.ApproveInvoiceResponse{Invoice: v}, saveInvoice(ctx, tx, v)
	})
}

// RejectInvoice tells the author of an invoice why it is not approved.
func (s *service) RejectInvoice(ctx context.Context, req *pb.RejectInvoiceRequest) (*pb.RejectInvoiceResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.RejectInvoiceResponse, error) {
		v, err := changeInvoice(ctx, tx, req, pb.InvoiceService_RejectInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.RejectionNote, v.RejectTime = req.GetNote(), timestamppb.New(tx.Now())
		return &pb.RejectInvoiceResponse{Invoice: v}, saveInvoice(ctx, tx, v)
	})
}

// SendInvoice sends an open invoice to its customer.
func (s *service) SendInvoice(ctx context.Context, req *pb.SendInvoiceRequest) (*pb.SendInvoiceResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.SendInvoiceResponse, error) {
		v, err := changeInvoice(ctx, tx, req, pb.InvoiceService_SendInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.DeliveryState, v.SendTime = pb.InvoiceDeliveryState_INVOICE_DELIVERY_STATE_SENT, timestamppb.New(tx.Now())
		return &pb.SendInvoiceResponse{Invoice: v}, saveInvoice(ctx, tx, v)
	})
}

// VoidInvoice makes an invoice on which nothing is paid worth nothing.
func (s *service) VoidInvoice(ctx context.Context, req *pb.VoidInvoiceRequest) (*pb.VoidInvoiceResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.VoidInvoiceResponse, error) {
		v, err := changeInvoice(ctx, tx, req, pb.InvoiceService_VoidInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.VoidReason, v.VoidTime = req.GetReason(), timestamppb.New(tx.Now())
		return &pb.VoidInvoiceResponse{Invoice: v}, saveInvoice(ctx, tx, v)
	})
}

// DeleteInvoice deletes an invoice on which nothing is paid, for now.
func (s *service) DeleteInvoice(ctx context.Context, req *pb.DeleteInvoiceRequest) (*pb.DeleteInvoiceResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.DeleteInvoiceResponse, error) {
		v, err := changeInvoice(ctx, tx, req, pb.InvoiceService_DeleteInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.DeleteTime, v.PurgeTime = timestamppb.New(tx.Now()), timestamppb.New(tx.Now().Add(restorable))
		return &pb.DeleteInvoiceResponse{Invoice: v}, saveInvoice(ctx, tx, v)
	})
}

// UndeleteInvoice restores a deleted invoice to the state that it had.
func (s *service) UndeleteInvoice(ctx context.Context, req *pb.UndeleteInvoiceRequest) (*pb.UndeleteInvoiceResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UndeleteInvoiceResponse, error) {
		v, err := changeInvoice(ctx, tx, req, pb.InvoiceService_UndeleteInvoice_FullMethodName)
		if err != nil {
			return nil, err
		}
		v.State, v.PreviousState = v.GetPreviousState(), 0
		v.DeleteTime, v.PurgeTime = nil, nil
		return &pb.UndeleteInvoiceResponse{Invoice: v}, saveInvoice(ctx, tx, v)
	})
}
