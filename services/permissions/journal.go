package permissions

import (
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/journal"
)

// showJournal says what the journal shows: to each caller what he may get.
func showJournal(j *journal.Source) {
	journal.Show(j, accesses, pb.AccessService_GetUserAccess_FullMethodName, journal.Everyone)
	journal.Show(j, roles, pb.RoleService_GetRole_FullMethodName, journal.Everyone)
	journal.Show(j, groups, pb.GroupService_GetGroup_FullMethodName, journal.Everyone)
	journal.Show(j, plans, pb.PlanService_GetPlan_FullMethodName, journal.Everyone)
}
