package servicerequest

import (
	"fmt"

	storepb "latchkey.dev/gen/go/latchkey/servicerequest/store/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/store"
)

// What doc.go says that is always true, as far as one can see it in the records: verify asks for it.
var (
	_ = units.Refers("property_id", (*pb.Unit).GetPropertyId, properties)
	_ = members.Refers("property_id", (*pb.PropertyTeamMember).GetPropertyId, properties)
	_ = properties.Always("team", hasTeam)

	_ = requests.Refers("property_id", (*pb.ServiceRequest).GetPropertyId, properties)
	_ = requests.Always("unit_id", unitIsThere)
	_ = requests.Always("cycle timer", timerRuns)
	_ = requests.Always("state", requestFitsState)
	_ = requests.Always("purge_time", store.PurgesDeleted[*pb.ServiceRequest])
	_ = requests.Always("purchase_order_time", func(_ *store.Tx, r *pb.ServiceRequest) string {
		if has := r.GetPurchaseOrderTime() != nil; has != (r.GetPurchaseOrderNumber() != "") {
			return fmt.Sprintf("purchase_order_number is %q, and whether it has a purchase_order_time %t", r.GetPurchaseOrderNumber(), has)
		}
		return ""
	})

	_ = comments.Refers("service_request_id", (*pb.Comment).GetServiceRequestId, requests)
	_ = attachments.Refers("service_request_id", (*pb.Attachment).GetServiceRequestId, requests)
	_ = attachments.Always("purge_time", store.PurgesDeleted[*pb.Attachment])
	_ = orphans.Always("attachment", func(tx *store.Tx, o *storepb.Orphan) string {
		if attachments.Has(tx, o.GetId()) {
			return "its file is to be deleted, and there is an attachment that has it"
		}
		return ""
	})
)

// hasTeam holds if somebody is on the team of a property.
func hasTeam(tx *store.Tx, p *pb.Property) string {
	if _, ok := memberProperty.First(tx, p.GetId()); ok {
		return ""
	}
	return "nobody is on its team"
}

// unitIsThere holds if a request names no unit, or one of its property.
func unitIsThere(tx *store.Tx, r *pb.ServiceRequest) string {
	if checkUnit(tx, r.GetPropertyId(), r.GetUnitId()) != nil {
		return fmt.Sprintf("property %q has no unit %q", r.GetPropertyId(), r.GetUnitId())
	}
	return ""
}

// timerRuns holds if the cycle timer of a request runs exactly while it should.
func timerRuns(_ *store.Tx, r *pb.ServiceRequest) string {
	if runs := r.GetCycleTimer().GetRunningSince() != nil; runs != busy(r) {
		return fmt.Sprintf("state is %s, whether it has a delete_time %t, and whether its cycle timer runs %t", r.GetState(), r.GetDeleteTime() != nil, runs)
	}
	return ""
}

// requestFitsState holds if what was done with a request to bring it into its state, or that before
// its hold, is written in it.
func requestFitsState(_ *store.Tx, r *pb.ServiceRequest) string {
	if (r.GetHold() != nil) != (r.GetState() == onHold) {
		return fmt.Sprintf("state is %s, and whether it has a hold %t", r.GetState(), r.GetHold() != nil)
	}
	state := r.GetState()
	if state == onHold {
		if state = r.GetHold().GetPreviousState(); state != requested && state != accepted && state != completed {
			return fmt.Sprintf("before its hold it was %s", state)
		}
	}
	var asked, taken, done, over bool
	switch state {
	case drafted, documented, recommended, pended, denied:
	case requested, declined:
		asked = true
	case accepted:
		asked, taken = true, true
	case completed:
		asked, taken, done = true, true, true
	case archived:
		over = true
	default:
		return fmt.Sprintf("it is, or was before its hold, %s", state)
	}
	for _, must := range []struct {
		what        string
		has, should bool
	}{
		{"request_time", r.GetRequestTime() != nil, asked}, {"assignee_id", r.GetAssigneeId() != "", taken}, {"accept_time", r.GetAcceptTime() != nil, taken},
		{"complete_time", r.GetCompleteTime() != nil, done}, {"archive_reason", r.GetArchiveReason() != 0, over},
	} {
		if must.should && !must.has {
			return fmt.Sprintf("it is, or was before its hold, %s, and has no %s", state, must.what)
		}
	}
	return ""
}
