package journal

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/store"
)

const (
	created = journalpb.Kind_KIND_CREATED
	updated = journalpb.Kind_KIND_UPDATED
	deleted = journalpb.Kind_KIND_DELETED
)

// maxValues is how many bytes of values of one entry are shown.
const maxValues = 1 << 20

// wanted is which changes and events of entries are asked for.
type wanted struct {
	collection, id string // any if empty
	kind           journalpb.Kind
	event          string
	changes        bool // and no events
}

func (w wanted) change(c *storepb.Change) bool {
	return (w.event == "" || w.collection != "") && (w.collection == "" || w.collection == c.GetCollection()) &&
		(w.id == "" || w.id == c.GetId()) && (w.kind == 0 || w.kind == kindOf(c))
}

func (w wanted) told(e *storepb.Event) bool {
	if w.event == "" {
		return w.collection == "" && w.kind == 0 && !w.changes
	}
	return w.event == e.GetType()
}

func kindOf(c *storepb.Change) journalpb.Kind {
	switch {
	case len(c.GetOldHash()) == 0:
		return created
	case len(c.GetNewHash()) == 0:
		return deleted
	}
	return updated
}

// look is what a caller may see of a source, as he was when it was taken.
type look struct {
	ctx    context.Context
	src    *Source
	sights map[string]sight
}

// look takes a look at the caller for those collections of which need tells that it
// matters.
func (s *Source) look(ctx context.Context, need func(collection string) bool) (*look, error) {
	l := &look{ctx: ctx, src: s, sights: map[string]sight{}}
	for name, c := range s.collections {
		if !need(name) || authz.Permits(ctx, c.get) != nil {
			continue
		}
		sees, err := c.sight(ctx)
		if err != nil {
			return nil, err
		}
		l.sights[name] = sees
	}
	return l, nil
}

// entry returns what is wanted of an entry and may be seen, or nil if that is nothing.
func (l *look) entry(tx *store.Tx, e *storepb.JournalEntry, w wanted) (*journalpb.Entry, error) {
	shown := &journalpb.Entry{
		Revision: e.GetRevision(), CommitTime: e.GetCommitTime(), CallerId: e.GetCaller(), ActorId: e.GetActor(),
		Method: e.GetMethod(), RequestId: e.GetRequestId(),
	}
	room := maxValues
	for _, c := range e.GetChanges() {
		if !w.change(c) {
			continue
		}
		change, err := l.change(tx, c, &room)
		if err != nil {
			return nil, fmt.Errorf("show %s %q of revision %d: %w", c.GetCollection(), c.GetId(), e.GetRevision(), err)
		}
		if change != nil {
			shown.Changes = append(shown.Changes, change)
		}
	}
	for _, ev := range e.GetEvents() {
		if !w.told(ev) {
			continue
		}
		told, err := l.event(ev)
		if err != nil {
			return nil, fmt.Errorf("show event %s of revision %d: %w", ev.GetType(), e.GetRevision(), err)
		}
		if told != nil {
			shown.Events = append(shown.Events, told)
		}
	}
	if len(shown.GetChanges())+len(shown.GetEvents()) == 0 {
		return nil, nil
	}
	return shown, nil
}

// change shows a change, or returns nil if the caller may not see it: the record must exist
// for him now, and have existed for him after the change. Values beyond the room are left out.
func (l *look) change(tx *store.Tx, c *storepb.Change, room *int) (*journalpb.Change, error) {
	of, sight := l.src.collections[c.GetCollection()], l.sights[c.GetCollection()]
	if sight.exists == nil {
		return nil, nil
	}
	if ok, err := sight.exists(tx, c.GetId(), c); !ok {
		return nil, err
	}
	was, saw, err := of.seen(tx, sight, c.OldValue)
	if err != nil {
		return nil, err
	}
	is, sees, err := of.seen(tx, sight, c.NewValue)
	if err != nil || !sees || c.NewValue == nil && !saw {
		return nil, err
	}
	shown := &journalpb.Change{Collection: c.GetCollection(), Id: c.GetId(), Kind: kindOf(c), Values: journalpb.Values_VALUES_SHOWN}
	*room -= len(c.GetOldValue()) + len(c.GetNewValue())
	switch {
	case of.secret:
		shown.Values = journalpb.Values_VALUES_SECRET
	case c.OldValue == nil && c.NewValue == nil:
		shown.Values = journalpb.Values_VALUES_ERASED
	case *room < 0:
		shown.Values = journalpb.Values_VALUES_OMITTED
	default:
		return shown, l.values(shown, was, is)
	}
	return shown, nil
}

// seen decodes a value if there is one. One that the caller may not see it returns as nil,
// and says so.
func (c *collection) seen(tx *store.Tx, s sight, value []byte) (proto.Message, bool, error) {
	if value == nil {
		return nil, true, nil
	}
	m, err := c.decode(value)
	if err != nil || !s.sees(tx, m) {
		return nil, false, err
	}
	return m, true, nil
}

// values shows what the caller may see of a record before and after.
func (l *look) values(shown *journalpb.Change, was, is proto.Message) (err error) {
	if shown.OldValue, err = l.record(was); err != nil {
		return err
	}
	if shown.NewValue, err = l.record(is); err != nil {
		return err
	}
	if was != nil && is != nil {
		shown.ChangedFields = differing(was.ProtoReflect(), is.ProtoReflect())
	}
	return nil
}

// record shows a record that may be seen, and clears in it what may not.
func (l *look) record(m proto.Message) (*structpb.Struct, error) {
	if m == nil {
		return nil, nil
	}
	if err := authz.Redact(l.ctx, m); err != nil {
		return nil, err
	}
	return asStruct(m)
}

// event shows an event, or nil if the caller may not see it.
func (l *look) event(e *storepb.Event) (*journalpb.Event, error) {
	of, ok := l.src.events[e.GetType()]
	if !ok || e.Payload == nil || authz.Permits(l.ctx, of.get) != nil {
		return nil, nil
	}
	m, visible, err := of.sees(l.ctx, e.GetPayload())
	if err != nil || !visible {
		return nil, err
	}
	payload, err := l.record(m)
	return &journalpb.Event{Type: e.GetType(), Payload: payload}, err
}

// bookkeeping is what the store changes with each change.
var bookkeeping = map[protoreflect.Name]bool{"etag": true, "update_time": true}

// differing returns the names of the fields that differ, in the order of their numbers.
func differing(a, b protoreflect.Message) (names []string) {
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !bookkeeping[f.Name()] && (a.Has(f) != b.Has(f) || !a.Get(f).Equal(b.Get(f))) {
			names = append(names, string(f.Name()))
		}
	}
	return names
}

// asStruct returns a message as JSON with the names of its .proto file.
func asStruct(m proto.Message) (*structpb.Struct, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	s := &structpb.Struct{}
	return s, protojson.Unmarshal(text, s)
}
