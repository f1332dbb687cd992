package invoicing

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/store"
)

// draft makes an invoice for an appointment that was finished, once however often the
// event comes. It waits for the approval of anyone but the agent whose work it was.
func (s *service) draft(_ context.Context, tx *store.Tx, e *eventpb.WatchEventsResponse) error {
	done := &schedulingpb.AppointmentFinished{}
	if err := proto.Unmarshal(e.GetPayload(), done); err != nil {
		return fmt.Errorf("decode %s: %w", e.GetType(), err)
	}
	if _, ok := invoiceAppointment.First(tx, done.GetAppointmentId()); ok {
		return nil
	}
	v := &pb.Invoice{
		Id: s.newID(), OwnerId: done.GetAgentUserId(), AuthorId: done.GetAgentUserId(),
		State: unapproved, DeliveryState: pb.InvoiceDeliveryState_INVOICE_DELIVERY_STATE_NOT_SENT,
		AppointmentId: done.GetAppointmentId(), ServiceRequestId: done.GetServiceRequestId(),
		PropertyId: done.GetPropertyId(), UnitId: done.GetUnitId(),
	}
	if err := draftLines(tx, v, done.GetParts()); err != nil {
		return err
	}
	return putInvoice(tx, v)
}

// draftLines charges the parts at the prices of the book now. A part that has none, or
// one that cannot be added to the others, makes a line without a price.
func draftLines(tx *store.Tx, v *pb.Invoice, used []*schedulingpb.UsedPart) error {
	var t totals
	for _, u := range used {
		l := &pb.InvoiceLine{PartId: u.GetPartId(), QuantityThousandths: u.GetQuantityThousandths()}
		if p, ok := parts.Get(tx, u.GetPartId()); ok {
			fillLine(l, p)
		} else {
			l.Description = "A part that is not in the price book"
		}
		if t.add(l, "") != nil {
			l.UnitPrice = nil
			_ = t.add(l, "") // nothing can be wrong with no price
		}
		v.Lines = append(v.Lines, l)
	}
	return t.set(v, "")
}
