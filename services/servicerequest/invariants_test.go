package servicerequest

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storepb "latchkey.dev/gen/go/latchkey/servicerequest/store/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

// soundProperty is a property with two requests, of which one is accepted, and one on hold and deleted.
func soundProperty(tx *store.Tx) error {
	now := timestamppb.New(tx.Now())
	work := &pb.ServiceRequest{
		Id: "work", PropertyId: "house", UnitId: proto.String("flat"), State: accepted, AssigneeId: "vic", RequestTime: now, AcceptTime: now,
		CycleTimer: &pb.CycleTimer{RunningSince: now}, PurchaseOrderNumber: "7", PurchaseOrderTime: now,
	}
	held := &pb.ServiceRequest{
		Id: "held", PropertyId: "house", State: onHold, Hold: &pb.Hold{PreviousState: requested}, RequestTime: now, DeleteTime: now, PurgeTime: now,
	}
	return errors.Join(
		properties.Put(tx, &pb.Property{Id: "house"}),
		properties.Put(tx, &pb.Property{Id: "barn"}),
		members.Put(tx, &pb.PropertyTeamMember{Id: "m1", PropertyId: "house", UserId: "ann"}),
		members.Put(tx, &pb.PropertyTeamMember{Id: "m2", PropertyId: "barn", UserId: "ann"}),
		units.Put(tx, &pb.Unit{Id: "flat", PropertyId: "house", Name: proto.String("1")}),
		requests.Put(tx, work), requests.Put(tx, held),
		comments.Put(tx, &pb.Comment{Id: "c", ServiceRequestId: "work"}),
		attachments.Put(tx, &pb.Attachment{Id: "a", ServiceRequestId: "work"}),
		orphans.Put(tx, &storepb.Orphan{Id: "o", SweepTime: now}),
	)
}

// TestInvariants damages one record for each of them.
func TestInvariants(t *testing.T) {
	change := func(id string, change func(*pb.ServiceRequest)) servertest.Damage {
		return servertest.Changed(requests, id, change)
	}
	gone := servertest.Removed(properties, "house")
	servertest.FindsDamage(t, schema, soundProperty, map[string][]servertest.Damage{
		"unit/property_id":                 {gone, servertest.Changed(units, "flat", func(u *pb.Unit) { u.PropertyId = "nowhere" })},
		"property_team_member/property_id": {gone},
		"property/team":                    {servertest.Removed(members, "m2")},
		"service_request/property_id":      {gone, change("held", func(r *pb.ServiceRequest) { r.PropertyId = "nowhere" })},
		"service_request/unit_id": {
			servertest.Removed(units, "flat"),
			change("work", func(r *pb.ServiceRequest) { r.PropertyId = "barn" }),
		},
		"service_request/cycle timer": {
			change("work", func(r *pb.ServiceRequest) { r.CycleTimer = nil }),
			change("held", func(r *pb.ServiceRequest) { r.CycleTimer = &pb.CycleTimer{RunningSince: timestamppb.Now()} }),
		},
		"service_request/state": {
			change("work", func(r *pb.ServiceRequest) { r.AcceptTime = nil }),
			change("work", func(r *pb.ServiceRequest) { r.State = completed }),
			change("work", func(r *pb.ServiceRequest) { r.State = archived }),
			change("work", func(r *pb.ServiceRequest) { r.State = onHold }),
			change("held", func(r *pb.ServiceRequest) { r.Hold.PreviousState = archived }),
			change("held", func(r *pb.ServiceRequest) { r.Hold = nil }),
			change("held", func(r *pb.ServiceRequest) { r.State, r.Hold = 0, nil }),
		},
		"service_request/purge_time":          {change("held", func(r *pb.ServiceRequest) { r.DeleteTime = nil })},
		"service_request/purchase_order_time": {change("work", func(r *pb.ServiceRequest) { r.PurchaseOrderNumber = "" })},
		"comment/service_request_id":          {servertest.Removed(requests, "work")},
		"attachment/service_request_id":       {servertest.Changed(attachments, "a", func(a *pb.Attachment) { a.ServiceRequestId = "none" })},
		"attachment/purge_time":               {servertest.Changed(attachments, "a", func(a *pb.Attachment) { a.PurgeTime = timestamppb.Now() })},
		"orphan/attachment":                   {servertest.Put(attachments, &pb.Attachment{Id: "o", ServiceRequestId: "work"})},
	})
}
