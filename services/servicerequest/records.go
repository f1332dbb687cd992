package servicerequest

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storepb "latchkey.dev/gen/go/latchkey/servicerequest/store/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/store"
)

var (
	properties = store.NewCollection("property", (*pb.Property).GetId)

	units    = store.NewCollection("unit", (*pb.Unit).GetId)
	unitName = units.Unique("name", func(u *pb.Unit) store.Key { return store.Key{u.GetPropertyId(), u.GetName()} })

	members        = store.NewCollection("property_team_member", (*pb.PropertyTeamMember).GetId)
	memberUser     = members.Unique("user", func(m *pb.PropertyTeamMember) store.Key { return store.Key{m.GetPropertyId(), m.GetUserId()} })
	memberProperty = members.Index("property", func(m *pb.PropertyTeamMember) store.Key {
		return store.Key{m.GetPropertyId(), m.GetCreateTime().AsTime()}
	})
	memberTeams = members.Index("teams", func(m *pb.PropertyTeamMember) store.Key {
		return store.Key{m.GetUserId(), m.GetCreateTime().AsTime()}
	})

	requests      = store.NewCollection("service_request", (*pb.ServiceRequest).GetId)
	requestSight  = requests.MultiIndex("sight", sightKeys)
	requestLabel  = requests.MultiIndex("label", labelKeys)
	requestCustom = requests.MultiIndex("custom", customKeys, store.Version(1))
	requestValue  = requests.MultiIndex("custom_value", valueKeys)
	requestExpiry = requests.Index("hold_expiry", holdExpiryKey)
	requestPurge  = requests.Index("purge", func(r *pb.ServiceRequest) store.Key { return timeKey(r.GetPurgeTime()) })

	comments       = store.NewCollection("comment", (*pb.Comment).GetId)
	commentRequest = comments.Index("request", func(c *pb.Comment) store.Key {
		return store.Key{c.GetServiceRequestId(), c.GetPrivate(), c.GetCreateTime().AsTime()}
	})

	attachments       = store.NewCollection("attachment", (*pb.Attachment).GetId)
	attachmentRequest = attachments.Index("request", func(a *pb.Attachment) store.Key {
		return store.Key{a.GetServiceRequestId(), a.GetDeleteTime() != nil, a.GetCreateTime().AsTime()}
	})
	attachmentPurge = attachments.Index("purge", func(a *pb.Attachment) store.Key { return timeKey(a.GetPurgeTime()) })

	orphans     = store.NewCollection("orphan", (*storepb.Orphan).GetId)
	orphanSweep = orphans.Index("sweep", func(o *storepb.Orphan) store.Key { return timeKey(o.GetSweepTime()) })

	schema = store.NewSchema(properties, units, members, requests, comments, attachments, orphans).PerOrganization()
)

// retention is how long what was deleted can be restored.
const retention = 28 * 24 * time.Hour

// timeKey is nil, and the record not in the index, if there is no time.
func timeKey(t *timestamppb.Timestamp) store.Key {
	if t == nil {
		return nil
	}
	return store.Key{t.AsTime()}
}

// holdExpiryKey leaves deleted requests out: they stay as they are.
func holdExpiryKey(r *pb.ServiceRequest) store.Key {
	if r.GetDeleteTime() != nil {
		return nil
	}
	return timeKey(r.GetHold().GetExpireTime())
}
