package permissions

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/store"
)

// ListAccessChanges lists the changes of a user's access, the newest first.
func (s *service) ListAccessChanges(ctx context.Context, req *pb.ListAccessChangesRequest) (*pb.ListAccessChangesResponse, error) {
	user, err := s.subject(ctx, req.UserId)
	if err != nil {
		return nil, err
	}
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListAccessChangesResponse, error) {
		return listChanges(tx, user, req)
	})
}

// maxSteps bounds the changes that one page looks at.
const maxSteps = 500

func listChanges(tx *store.Tx, user string, req *pb.ListAccessChangesRequest) (*pb.ListAccessChangesResponse, error) {
	size, err := store.PageSize(req)
	if err != nil {
		return nil, err
	}
	place, err := tx.OpenCursor(req)
	if err != nil {
		return nil, err
	}
	upTo := tx.Revision()
	if place != "" {
		if upTo, err = strconv.ParseInt(place, 10, 64); err != nil {
			return nil, err
		}
	}
	resp := &pb.ListAccessChangesResponse{}
	for range maxSteps {
		if upTo = lastChange(tx, user, upTo); upTo == 0 || tx.Failed() != nil {
			return resp, nil
		}
		if c := changeOf(tx, user, upTo); c != nil {
			resp.Changes = append(resp.Changes, c)
		}
		if upTo--; upTo == 0 {
			return resp, nil
		}
		if len(resp.GetChanges()) == size {
			break
		}
	}
	resp.NextPageToken, err = tx.SealCursor(req, strconv.FormatInt(upTo, 10))
	return resp, err
}

// sourceRecord is a record that decides about a user's access.
type sourceRecord struct {
	layer      pb.Layer
	collection string
	id         string
}

// sourcesOf returns the records that decide about a user, as they are linked.
func (l *loader) sourcesOf(user string) []sourceRecord {
	u := l.user(user)
	found := []sourceRecord{{pb.Layer_LAYER_OVERRIDE, accesses.Name(), user}}
	role := u.GetRoleId()
	if g, ok := find(l, groups, u.GetGroupId()); ok && u.GetGroupId() != "" {
		found = append(found, sourceRecord{pb.Layer_LAYER_GROUP, groups.Name(), g.GetId()})
		if g.GetDeleteTime() == nil {
			role = g.GetRoleId()
		}
	}
	if _, fixed := builtIn[role]; !fixed && role != "" {
		found = append(found, sourceRecord{pb.Layer_LAYER_ROLE, roles.Name(), role})
	}
	return append(found, sourceRecord{pb.Layer_LAYER_PLAN, plans.Name(), l.tx.Tenant()})
}

// lastChange returns the last revision, up to one, that changed a record that decided about
// the user after it, or 0. Between it and the one given nothing was linked otherwise.
func lastChange(tx *store.Tx, user string, upTo int64) (last int64) {
	for _, s := range loaderAt(tx, upTo, tx.Now()).sourcesOf(user) {
		for r := range tx.Revisions(s.collection, s.id, upTo) {
			last = max(last, r)
			break
		}
	}
	return last
}

// changeOf returns what a revision changed of a user's access, or nil.
func changeOf(tx *store.Tx, user string, revision int64) *pb.AccessChange {
	e := tx.Entry(revision)
	at := e.GetCommitTime().AsTime()
	before, after := loaderAt(tx, revision-1, at), loaderAt(tx, revision, at)
	_, was := find(before, accesses, user)
	_, is := find(after, accesses, user)
	if !was && !is {
		return nil // of whom nothing is stored, nothing changes
	}
	return accessChange(e, before, after, user)
}

func accessChange(e *storepb.JournalEntry, before, after *loader, user string) *pb.AccessChange {
	at := after.now
	c := &pb.AccessChange{Provenance: provenanceOf(e)}
	c.Layers, c.Provenance.Reason = changedLayers(before, after, user)
	if len(c.GetLayers()) == 0 {
		return nil
	}
	if reason := c.GetProvenance().GetReason(); reason != "" {
		c.Reasons = append(c.Reasons, reason)
	}
	was, is := before.user(user), after.user(user)
	had, _ := before.access(was).grants(at)
	has, _ := after.access(is).grants(at)
	c.Gained = keyNames(has.Without(had).Without(allFeatures))
	c.Lost = keyNames(had.Without(has).Without(allFeatures))
	for _, o := range is.GetOverrides() {
		same := func(p *pb.Override) bool { return proto.Equal(o, p) }
		if o.GetReason() != "" && !slices.ContainsFunc(was.GetOverrides(), same) && !slices.Contains(c.GetReasons(), o.GetReason()) {
			c.Reasons = append(c.Reasons, o.GetReason())
		}
	}
	return c
}

// changedLayers returns the records that decide about the user after a change and that
// it changed, but for what says nothing about access, and why in the words of whoever did.
func changedLayers(before, after *loader, user string) (changed []*pb.ChangedLayer, reason string) {
	for _, s := range after.sourcesOf(user) {
		var differs bool
		var why string
		switch s.layer {
		case pb.Layer_LAYER_OVERRIDE:
			why, differs = differ(before, after, accesses, s.id)
			s.id = ""
		case pb.Layer_LAYER_GROUP:
			why, differs = differ(before, after, groups, s.id)
		case pb.Layer_LAYER_ROLE:
			why, differs = differ(before, after, roles, s.id)
		case pb.Layer_LAYER_PLAN:
			why, differs = differ(before, after, plans, s.id)
			s.id = ""
		}
		if differs {
			changed = append(changed, &pb.ChangedLayer{Layer: s.layer, Source: s.id})
			reason = cmp.Or(reason, why)
		}
	}
	return changed, reason
}

// reasoned is a record that keeps why it was last changed.
type reasoned interface {
	proto.Message
	GetChangeReason() string
}

// differ tells whether two loaders see a record otherwise, but for its bookkeeping, and why
// it changed.
func differ[T reasoned](before, after *loader, c *store.Collection[T], id string) (reason string, differs bool) {
	was, had := find(before, c, id)
	is, has := find(after, c, id)
	if had != has {
		return is.GetChangeReason(), true
	}
	return is.GetChangeReason(), has && !proto.Equal(essence(was), essence(is))
}

// bookkeeping is the fields of records that say nothing about access.
var bookkeeping = []protoreflect.Name{
	"etag", "create_time", "update_time", "purge_time", "leave_time", "name", "description", "first_owner_id", "change_reason",
}

func essence(m proto.Message) proto.Message {
	m = proto.Clone(m)
	for _, name := range bookkeeping {
		if fd := m.ProtoReflect().Descriptor().Fields().ByName(name); fd != nil {
			m.ProtoReflect().Clear(fd)
		}
	}
	return m
}
