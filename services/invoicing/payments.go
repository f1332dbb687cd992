package invoicing

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// clockSkew is how far a caller's clock may be ahead.
const clockSkew = 5 * time.Minute

// earliestPayment is when money can have been received at the earliest.
var earliestPayment = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// RecordPayment adds a payment to the ledger of an open invoice.
func (s *service) RecordPayment(ctx context.Context, req *pb.RecordPaymentRequest) (*pb.RecordPaymentResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.RecordPaymentResponse, error) {
		v, err := changeInvoice(ctx, tx, req, pb.InvoiceService_RecordPayment_FullMethodName)
		if err != nil {
			return nil, err
		}
		received, err := receiveTime(req.GetReceiveTime(), tx.Now())
		if err != nil {
			return nil, err
		}
		if err := pay(v, req.GetAmount()); err != nil {
			return nil, err
		}
		p := &pb.Payment{
			Id: s.newID(), InvoiceId: v.GetId(), Amount: proto.CloneOf(req.GetAmount()), Method: req.GetMethod(),
			ReceiveTime: received, Reference: req.GetReference(), RecordedBy: authz.Caller(ctx).ID,
		}
		if err := payments.Put(tx, p); err != nil {
			return nil, err
		}
		return &pb.RecordPaymentResponse{Invoice: v, Payment: p}, saveInvoice(ctx, tx, v)
	})
}

func receiveTime(t *timestamppb.Timestamp, now time.Time) (*timestamppb.Timestamp, error) {
	switch {
	case t == nil:
		return timestamppb.New(now), nil
	case t.CheckValid() != nil || t.AsTime().Before(earliestPayment):
		return nil, fault.Invalid("receive_time", "must be in the year 2000 or later")
	case t.AsTime().After(now.Add(clockSkew)):
		return nil, fault.Invalid("receive_time", "must not be in the future")
	}
	return proto.CloneOf(t), nil
}

// ListPayments returns a page of the payments of an invoice.
func (s *service) ListPayments(ctx context.Context, req *pb.ListPaymentsRequest) (*pb.ListPaymentsResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListPaymentsResponse, error) {
		if _, err := scopeOf(ctx).find(tx, req.GetInvoiceId()); err != nil {
			return nil, err
		}
		page, next, err := store.Page(tx, req, nil, paymentInvoice.Range(req.GetInvoiceId()))
		return &pb.ListPaymentsResponse{Payments: page, NextPageToken: next}, err
	})
}
