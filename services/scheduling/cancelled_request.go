package scheduling

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	storepb "latchkey.dev/gen/go/latchkey/scheduling/store/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/store"
)

// onRequestCancelled cancels what was still to come for a cancelled service request,
// and sees to it that no more comes. Handling the event again changes nothing.
func onRequestCancelled(ctx context.Context, tx *store.Tx, e *eventpb.WatchEventsResponse) error {
	event := &servicerequestpb.ServiceRequestCancelled{}
	if err := proto.Unmarshal(e.GetPayload(), event); err != nil {
		return fmt.Errorf("decode %s: %w", e.GetType(), err)
	}
	if err := cancelledRequests.Put(tx, &storepb.CancelledRequest{Id: event.GetServiceRequestId()}); err != nil {
		return err
	}
	for a := range openByRequest.Scan(tx, openByRequest.Range(event.GetServiceRequestId())) {
		if err := table.Apply(ctx, pb.AppointmentService_CancelAppointment_FullMethodName, a); err != nil {
			return err
		}
		a.CancelReason = "The service request was cancelled."
		if err := appointments.Put(tx, a); err != nil {
			return err
		}
	}
	return nil
}
