package authz

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	authzpb "latchkey.dev/gen/go/latchkey/authz/v1"

	"latchkey.dev/services/internal/catalog"
)

// shape is a message type as access sees it, compiled from its descriptor: the
// fields that have a guard or a choice, or that lead to one.
type shape struct {
	desc   protoreflect.MessageDescriptor
	asking []*field // those by which a request can ask for a grant
	hiding []*field // those of which something can be absent from a response
	update *update  // nil if the message has no update_mask

	// What there is at any depth. The guards are all grants of guarded fields, and
	// reads and writes those of them that are needed to see and to set.
	guards, reads, writes, choices catalog.Set

	all []*field // every field that could lead anywhere; only while compiling
}

// field is one field of a shape.
type field struct {
	desc        protoreflect.FieldDescriptor
	read, write *catalog.Bit // of its guard
	choose      map[protoreflect.EnumNumber]catalog.Bit
	inner       *shape // of the message inside, looking through lists and maps
	// What there is of the field and below it.
	guards, writes catalog.Set
}

// update is how a message with an update mask is checked: the masked fields of the
// record count, and not the set ones.
type update struct {
	mask   protoreflect.FieldDescriptor
	record *field
}

// plan holds the shapes of all message types that the methods of a server reach.
type plan struct {
	shapes map[protoreflect.FullName]*shape
	order  []*shape
}

func newPlan() *plan { return &plan{shapes: map[protoreflect.FullName]*shape{}} }

// shape compiles a message type, and returns what is wrong with it and those inside
// it, unless it did so before. It enters the type before its fields, so that a type
// may hold itself. The shape is whole after settle.
func (p *plan) shape(d protoreflect.MessageDescriptor) (*shape, error) {
	if s, ok := p.shapes[d.FullName()]; ok {
		return s, nil
	}
	s := &shape{desc: d}
	p.shapes[d.FullName()] = s
	p.order = append(p.order, s)
	var errs []error
	for i := range d.Fields().Len() {
		f, err := p.field(d.Fields().Get(i))
		errs = append(errs, err)
		if f != nil {
			s.all = append(s.all, f)
		}
	}
	errs = append(errs, s.addUpdate())
	return s, errors.Join(errs...)
}

func (p *plan) field(d protoreflect.FieldDescriptor) (*field, error) {
	f := &field{desc: d}
	errs := []error{f.addGuard(), f.addChoices()}
	if inner := messageOf(d); inner != nil {
		var err error
		f.inner, err = p.shape(inner)
		errs = append(errs, err)
	}
	if f.read == nil && f.write == nil && f.choose == nil && f.inner == nil {
		f = nil
	}
	return f, errors.Join(errs...)
}

func (f *field) addGuard() (err error) {
	g, _ := proto.GetExtension(f.desc.Options(), authzpb.E_Guard).(*authzpb.Guard)
	if g == nil {
		return nil
	}
	if f.read, err = guardGrant(g.GetRead()); err == nil {
		f.write, err = guardGrant(g.GetWrite())
	}
	switch {
	case err != nil:
		return wrong(f.desc, "the guard of field %s: %w", f.desc.FullName(), err)
	case f.read == nil && f.write == nil:
		return wrong(f.desc, "the guard of field %s says neither read nor write", f.desc.FullName())
	case !f.desc.HasPresence() && !f.desc.IsList() && !f.desc.IsMap():
		return wrong(f.desc, "field %s is guarded and must have presence: make it optional", f.desc.FullName())
	}
	return nil
}

func guardGrant(name string) (*catalog.Bit, error) {
	if name == "" {
		return nil, nil
	}
	bit, err := grant(name)
	return &bit, err
}

// addChoices reads the grants of an enum field's values.
func (f *field) addChoices() error {
	d := f.desc
	if d.IsMap() {
		d = d.MapValue()
	}
	if d.Enum() == nil {
		return nil
	}
	for i := range d.Enum().Values().Len() {
		v := d.Enum().Values().Get(i)
		name, _ := proto.GetExtension(v.Options(), authzpb.E_Choose).(string)
		if name == "" {
			continue
		}
		bit, err := grant(name)
		switch {
		case err != nil:
			return wrong(v, "the choose option of value %s: %w", v.FullName(), err)
		case v.Number() == 0:
			return wrong(v, "value %s is 0, which is not sent, and cannot have a choose option", v.FullName())
		}
		if f.choose == nil {
			f.choose = map[protoreflect.EnumNumber]catalog.Bit{}
		}
		f.choose[v.Number()] = bit
	}
	return nil
}

// addUpdate notes the mask and the record of a request that has an update mask.
func (s *shape) addUpdate() error {
	mask := s.desc.Fields().ByName("update_mask")
	if mask == nil || mask.Message() == nil || mask.Message().FullName() != "google.protobuf.FieldMask" {
		return nil
	}
	record, err := recordOf(s.desc)
	if err != nil {
		return err
	}
	for _, f := range s.all {
		if f.desc == record {
			s.update = &update{mask, f}
		}
	}
	return nil
}

// recordOf returns the field that holds the record of an update: the one message that
// the request carries beside the mask, or of several the one with an id.
func recordOf(d protoreflect.MessageDescriptor) (protoreflect.FieldDescriptor, error) {
	var all, named []protoreflect.FieldDescriptor
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if fd.Message() == nil || fd.IsList() || fd.IsMap() || fd.Message().ParentFile().Package() == "google.protobuf" {
			continue
		}
		all = append(all, fd)
		if fd.Message().Fields().ByName("id") != nil {
			named = append(named, fd)
		}
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(all) == 1:
		return all[0], nil
	}
	return nil, wrong(d, "message %s has an update_mask, and must have exactly one record that it can be about", d.FullName())
}

// settle computes what lies within each shape: the least solution, since messages
// may hold each other. Then it sorts the fields by what they lead to, so that no check
// visits one in vain.
func (p *plan) settle() {
	for changed := true; changed; {
		changed = false
		for _, s := range p.order {
			changed = s.gather() || changed
		}
	}
	for _, s := range p.order {
		for _, f := range s.all {
			if f.asks() {
				s.asking = append(s.asking, f)
			}
			if f.read != nil || f.inner != nil && !f.inner.reads.Empty() {
				s.hiding = append(s.hiding, f)
			}
		}
		s.all = nil
		if s.update != nil && !s.update.record.asks() {
			s.update = nil
		}
	}
}

// gather adds what the fields lead to, as far as it is known, and reports whether
// that is news.
func (s *shape) gather() (news bool) {
	before := [...]catalog.Set{s.guards, s.reads, s.writes, s.choices}
	for _, f := range s.all {
		if f.read != nil {
			s.reads.Add(*f.read)
			f.guards.Add(*f.read)
		}
		if f.write != nil {
			f.writes.Add(*f.write)
			f.guards.Add(*f.write)
		}
		for _, bit := range f.choose {
			s.choices.Add(bit)
		}
		if in := f.inner; in != nil {
			f.guards, f.writes = f.guards.Union(in.guards), f.writes.Union(in.writes)
			s.reads, s.choices = s.reads.Union(in.reads), s.choices.Union(in.choices)
		}
		s.guards, s.writes = s.guards.Union(f.guards), s.writes.Union(f.writes)
	}
	return before != [...]catalog.Set{s.guards, s.reads, s.writes, s.choices}
}

func (s *shape) asks() bool { return !s.guards.Empty() || !s.choices.Empty() }

func (f *field) asks() bool {
	return !f.guards.Empty() || f.choose != nil || f.inner != nil && f.inner.asks()
}

// named tells whether a name, as it stands in .proto files or in JSON, is the field's.
func (f *field) named(name string) bool {
	return string(f.desc.Name()) == name || f.desc.JSONName() == name
}

// messageOf returns the message type inside a field, looking through maps, or nil.
func messageOf(d protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if d.IsMap() {
		d = d.MapValue()
	}
	return d.Message()
}

func grant(name string) (catalog.Bit, error) {
	bit, ok := catalog.Grant(name)
	if !ok {
		return 0, fmt.Errorf("the catalog holds no grant %q (spelling, case and blanks count)", name)
	}
	return bit, nil
}

// wrong says what is wrong with a declaration, after the file that it stands in.
func wrong(d protoreflect.Descriptor, format string, args ...any) error {
	return fmt.Errorf("%s: %w", d.ParentFile().Path(), fmt.Errorf(format, args...))
}
