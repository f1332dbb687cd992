package scheduling

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

// TestCancelledRequestEndsWhatIsToCome handles the event twice. How it gets here is
// tested with the real peer, in peers_test.go.
func TestCancelledRequestEndsWhatIsToCome(t *testing.T) {
	s := newSuite(t)
	office := s.office()
	_, agent := s.technician()
	request := servertest.UUID(8)
	before := map[pb.AppointmentState]*pb.Appointment{}
	for i, state := range allStates {
		a := office.inState(t, agent, noon.Add(time.Duration(i)*time.Hour), state)
		a = s.stored(a.GetId())
		a.ServiceRequestId = request
		s.update(func(tx *store.Tx) error { return appointments.Put(tx, a) })
		before[state] = a
	}
	unrelated := office.queued(t)
	payload, err := proto.Marshal(&servicerequestpb.ServiceRequestCancelled{ServiceRequestId: request})
	if err != nil {
		t.Fatal(err)
	}
	var revision int64
	for range 2 {
		s.update(func(tx *store.Tx) error {
			return onRequestCancelled(s.tenant(), tx, &eventpb.WatchEventsResponse{Tenant: s.Organization, Payload: payload})
		})
		s.update(func(tx *store.Tx) error {
			if revision != 0 && tx.Revision() != revision {
				t.Errorf("the repeat changed something: got revision %d, want %d", tx.Revision(), revision)
			}
			revision = tx.Revision()
			return nil
		})
	}
	for state, a := range before {
		got := s.stored(a.GetId())
		if state == queued || state == scheduled {
			a.Etag, a.State, a.CancelReason = got.GetEtag(), cancelled, "The service request was cancelled."
		}
		wantEqual(t, state.String(), got, a)
	}
	wantEqual(t, "of no request", s.stored(unrelated.GetId()), withoutActions(unrelated))
	office.scheduled(t, agent, noon.Add(time.Hour)) // the time is free again
}
