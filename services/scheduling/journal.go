package scheduling

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/journal"
	"latchkey.dev/services/internal/store"
)

// showJournal says what the journal shows: to each caller what he may get.
func showJournal(j *journal.Source) {
	journal.Show(j, appointments, pb.AppointmentService_GetAppointment_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.Appointment], error) {
		return func(tx *store.Tx, a *pb.Appointment) bool { return newViewer(ctx, tx).sees(a) }, nil
	})
	journal.Show(j, agents, pb.ServiceAgentService_GetServiceAgent_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.ServiceAgent], error) {
		caller := authz.Caller(ctx)
		return func(_ *store.Tx, a *pb.ServiceAgent) bool { return seesAgent(caller, a) }, nil
	})
}
