package journal

import (
	"context"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Source is the journal of one service.
type Source struct {
	Name  string
	Store *store.DB
	// Tenant is the one in which the service keeps the records of all organizations;
	// empty if each has its own.
	Tenant string

	collections map[string]*collection
	events      map[string]*event
}

// NewSource returns the journal of a service, of which nothing is shown yet.
func NewSource(name string, db *store.DB) *Source {
	return &Source{Name: name, Store: db, collections: map[string]*collection{}, events: map[string]*event{}}
}

// Sight tells whether a record exists for a caller.
type Sight[T proto.Message] func(tx *store.Tx, v T) bool

// sight is a Sight of any type.
type sight struct {
	sees func(tx *store.Tx, v proto.Message) bool
	// exists tells whether the caller sees what is stored now under an id or, if that is
	// gone, what a change says it was last. The change may be nil.
	exists func(tx *store.Tx, id string, last *storepb.Change) (bool, error)
}

// collection is what is shown of one collection.
type collection struct {
	name   string
	get    string // the method that such a record is got by
	secret bool
	decode func([]byte) (proto.Message, error)
	at     func(tx *store.Tx, id string, revision int64) (proto.Message, bool)
	sight  func(context.Context) (sight, error)
}

// Show shows the changes of a collection to those whom the rule of the method get lets in,
// as far as the records exist for them. What sight returns is asked in transactions, and
// sight itself before them, for one look at the caller.
func Show[T proto.Message](s *Source, c *store.Collection[T], get string, of func(context.Context) (Sight[T], error)) {
	s.collections[c.Name()] = &collection{
		name: c.Name(), get: get,
		decode: func(b []byte) (proto.Message, error) { return c.Decode(b) },
		at:     func(tx *store.Tx, id string, revision int64) (proto.Message, bool) { return c.At(tx, id, revision) },
		sight: func(ctx context.Context) (sight, error) {
			sees, err := of(ctx)
			return sight{
				sees: func(tx *store.Tx, v proto.Message) bool { return sees(tx, v.(T)) },
				exists: func(tx *store.Tx, id string, last *storepb.Change) (bool, error) {
					v, ok, err := lastKnown(tx, c, id, last)
					return ok && err == nil && sees(tx, v), err
				},
			}, err
		},
	}
}

// ShowSecret is Show for records of which nobody is told what they hold.
func ShowSecret[T proto.Message](s *Source, c *store.Collection[T], get string, of func(context.Context) (Sight[T], error)) {
	Show(s, c, get, of)
	s.collections[c.Name()].secret = true
}

// lastKnown returns a record as it is now, or as it was last.
func lastKnown[T proto.Message](tx *store.Tx, c *store.Collection[T], id string, last *storepb.Change) (v T, ok bool, err error) {
	if v, ok = c.Get(tx, id); ok {
		return v, true, nil
	}
	value := last.GetNewValue()
	if value == nil {
		value = last.GetOldValue()
	}
	if value == nil {
		return v, false, nil
	}
	v, err = c.Decode(value)
	return v, err == nil, err
}

// event is what is shown of one type of event.
type event struct {
	get  string
	sees func(ctx context.Context, payload []byte) (proto.Message, bool, error)
}

// ShowEvent shows the events of a type to those whom the rule of the method get lets in, as
// far as sees says so.
func ShowEvent[T proto.Message](s *Source, get string, sees func(context.Context, T) bool) {
	var none T
	typ := none.ProtoReflect()
	s.events[string(typ.Descriptor().FullName())] = &event{
		get: get,
		sees: func(ctx context.Context, payload []byte) (proto.Message, bool, error) {
			v := typ.New().Interface().(T)
			if err := proto.Unmarshal(payload, v); err != nil {
				return nil, false, err
			}
			return v, sees(ctx, v), nil
		},
	}
}

// Everyone is the sight of records that exist for whoever may get them at all.
func Everyone[T proto.Message](context.Context) (Sight[T], error) {
	return func(*store.Tx, T) bool { return true }, nil
}

// Collections returns the names of the collections that are shown, each with the method
// that gets its records.
func (s *Source) Collections() map[string]string {
	all := map[string]string{}
	for name, c := range s.collections {
		all[name] = c.get
	}
	return all
}

func (s *Source) collection(name string) (*collection, error) {
	c, ok := s.collections[name]
	if !ok {
		return nil, fault.Invalid("collection", "must be one that the journal of %s shows, and %q is none", s.Name, name)
	}
	return c, nil
}

// inside returns a context for transactions over the journal, in which the caller's
// organization is known where the tenant is another.
func (s *Source) inside(ctx context.Context) context.Context {
	if s.Tenant == "" {
		return ctx
	}
	o := store.OriginOf(ctx)
	o.Tenant, o.Party = s.Tenant, o.Tenant
	return store.WithOrigin(ctx, o)
}

// tenant returns whose journal the caller reads, and which organization's entries of it if
// not all.
func (s *Source) tenant(ctx context.Context) (tenant, party string) {
	organization := authz.Caller(ctx).Organization
	if s.Tenant == "" {
		return organization, ""
	}
	return s.Tenant, organization
}
