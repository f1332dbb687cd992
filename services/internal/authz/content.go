package authz

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	authzpb "latchkey.dev/gen/go/latchkey/authz/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/query"
)

// content is what a message can ask grants for, compiled from its descriptor: only
// the fields that have a guard or a choice, or that lead to one.
type content struct {
	desc   protoreflect.MessageDescriptor
	fields []*contentField
	// within holds the grant of every guarded field of the message, at any depth.
	within catalog.Set
	// asks tells whether the message, at any depth, could ask for any grant.
	asks   bool
	update *update
	list   *list
}

type contentField struct {
	desc   protoreflect.FieldDescriptor
	guard  []catalog.Bit // needed to send the field
	choose map[protoreflect.EnumNumber]catalog.Bit
	inner  *content // of the message inside, looking through lists and maps
	within catalog.Set
}

// update is how a request with an update mask is checked: the masked fields of the
// record count, and not the set ones.
type update struct {
	mask, record protoreflect.FieldDescriptor
	inner        *content
}

// list is how a request's filter and order_by are checked, against the messages
// that the response lists.
type list struct {
	texts []protoreflect.FieldDescriptor // filter, order_by
	inner *redaction
}

// need is one grant that a request asks for, and where.
type need struct {
	bit   catalog.Bit
	field string
}

// asked is what checking a request found.
type asked struct {
	set     catalog.Set
	any     bool // the request carries something guarded or chosen
	missing bool
	first   need // the first that is missing
}

func (a *asked) ask(bit catalog.Bit, field protoreflect.FieldDescriptor) {
	a.any = true
	if !a.set.Has(bit) && !a.missing {
		a.missing = true
		a.first = need{bit, string(field.Name())}
	}
}

func (a *asked) askAll(bits []catalog.Bit, field protoreflect.FieldDescriptor) {
	for _, bit := range bits {
		a.ask(bit, field)
	}
}

// askWithin asks for every grant of a whole subtree: to replace it is to replace
// what the caller may not see.
func (a *asked) askWithin(set catalog.Set, field protoreflect.FieldDescriptor) {
	for bit := range set.All() {
		a.ask(bit, field)
	}
}

// check collects what m asks for.
func (c *content) check(m protoreflect.Message, a *asked) {
	for _, f := range c.fields {
		if c.update != nil && f.desc == c.update.record {
			continue
		}
		if !m.Has(f.desc) {
			continue
		}
		a.askAll(f.guard, f.desc)
		f.checkValue(m.Get(f.desc), a)
	}
	if c.update != nil {
		c.update.check(m, a)
	}
	if c.list != nil {
		c.list.check(m, a)
	}
}

func (f *contentField) checkValue(v protoreflect.Value, a *asked) {
	switch {
	case f.desc.IsMap():
		v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			f.checkOne(v, a)
			return true
		})
	case f.desc.IsList():
		for i := range v.List().Len() {
			f.checkOne(v.List().Get(i), a)
		}
	default:
		f.checkOne(v, a)
	}
}

func (f *contentField) checkOne(v protoreflect.Value, a *asked) {
	if f.inner != nil {
		f.inner.check(v.Message(), a)
	}
	if f.choose != nil {
		if bit, ok := f.choose[v.Enum()]; ok {
			a.ask(bit, f.desc)
		}
	}
}

func (u *update) check(m protoreflect.Message, a *asked) {
	if m.Has(u.mask) {
		paths := m.Get(u.mask).Message()
		list := paths.Get(paths.Descriptor().Fields().ByName("paths")).List()
		for i := range list.Len() {
			u.inner.checkPath(list.Get(i).String(), a)
		}
		return
	}
	if !m.Has(u.record) {
		return
	}
	record := m.Get(u.record).Message()
	for _, f := range u.inner.fields {
		if record.Has(f.desc) {
			a.askWithin(f.within, f.desc)
			f.checkValue(record.Get(f.desc), a)
		}
	}
}

// checkPath asks for the grants of the field at the end of path, of those on the
// way, and of those below it. A path that leads nowhere asks for nothing; validation
// refuses it later.
func (c *content) checkPath(path string, a *asked) {
	name, rest, deeper := strings.Cut(path, ".")
	for _, f := range c.fields {
		switch {
		case path == "*":
			a.askWithin(f.within, f.desc)
		case string(f.desc.Name()) != name && f.desc.JSONName() != name:
		case deeper && f.inner != nil:
			a.askAll(f.guard, f.desc)
			f.inner.checkPath(rest, a)
		default:
			a.askWithin(f.within, f.desc)
		}
	}
}

// plans builds contents and redactions, one per message type.
type plans struct {
	contents   map[protoreflect.FullName]*content
	redactions map[protoreflect.FullName]*redaction
}

func newPlans() *plans {
	return &plans{map[protoreflect.FullName]*content{}, map[protoreflect.FullName]*redaction{}}
}

// contentOf compiles the request of a method; nil if it can ask for nothing.
func (p *plans) contentOf(d protoreflect.MethodDescriptor) (*content, error) {
	c, err := p.content(d.Input())
	if err != nil {
		return nil, err
	}
	if err := p.addUpdate(c); err != nil {
		return nil, err
	}
	if err := p.addList(c, d.Output()); err != nil {
		return nil, err
	}
	p.settle()
	if c.update != nil && !c.update.inner.asks {
		c.update = nil
	}
	if !c.asks && c.update == nil && c.list == nil {
		return nil, nil
	}
	return c, nil
}

// content compiles a message type, without the special fields of a request. It
// enters the type before its fields, so that a type may hold itself.
func (p *plans) content(d protoreflect.MessageDescriptor) (*content, error) {
	if c, ok := p.contents[d.FullName()]; ok {
		return c, nil
	}
	c := &content{desc: d}
	p.contents[d.FullName()] = c
	for i := range d.Fields().Len() {
		f, err := p.contentField(d.Fields().Get(i))
		if err != nil {
			return nil, err
		}
		if f != nil {
			c.fields = append(c.fields, f)
		}
	}
	return c, nil
}

func (p *plans) contentField(d protoreflect.FieldDescriptor) (*contentField, error) {
	f := &contentField{desc: d}
	g := guardOf(d)
	for _, name := range []string{g.GetWrite(), g.GetRead()} {
		if name == "" {
			continue
		}
		bit, err := grant(name)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", d.FullName(), err)
		}
		f.guard = append(f.guard, bit)
	}
	if len(f.guard) > 0 && !d.HasPresence() && !d.IsList() && !d.IsMap() {
		return nil, fmt.Errorf("field %s is guarded and must have presence: make it optional", d.FullName())
	}
	var err error
	if f.choose, err = choices(d); err != nil {
		return nil, err
	}
	if inner := messageOf(d); inner != nil {
		if f.inner, err = p.content(inner); err != nil {
			return nil, err
		}
	}
	if len(f.guard) == 0 && f.choose == nil && f.inner == nil {
		return nil, nil
	}
	return f, nil
}

// settle computes what lies within each message and field: the least solution,
// since messages may hold each other. Then it drops the fields that lead nowhere, so
// that check visits none in vain.
func (p *plans) settle() {
	for changed := true; changed; {
		changed = false
		for _, c := range p.contents {
			within, asks := c.settleFields()
			changed = changed || within != c.within || asks != c.asks
			c.within, c.asks = within, asks
		}
	}
	for _, c := range p.contents {
		c.fields = slices.DeleteFunc(c.fields, func(f *contentField) bool { return !f.asks() })
	}
}

func (c *content) settleFields() (within catalog.Set, asks bool) {
	for _, f := range c.fields {
		f.within = f.own()
		if f.inner != nil {
			f.within = f.within.Union(f.inner.within)
		}
		within = within.Union(f.within)
		asks = asks || f.asks()
	}
	return within, asks
}

func (f *contentField) asks() bool {
	return len(f.guard) > 0 || f.choose != nil || f.inner != nil && f.inner.asks
}

func (f *contentField) own() catalog.Set {
	var set catalog.Set
	for _, bit := range f.guard {
		set.Add(bit)
	}
	return set
}

func (p *plans) addUpdate(c *content) error {
	mask := c.desc.Fields().ByName("update_mask")
	if mask == nil || c.update != nil {
		return nil
	}
	record, err := recordOf(c.desc)
	if err != nil {
		return err
	}
	inner, err := p.content(record.Message())
	c.update = &update{mask: mask, record: record, inner: inner}
	return err
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
	return nil, fmt.Errorf("message %s has an update_mask, and must have exactly one record that it can be about", d.FullName())
}

func (p *plans) addList(c *content, response protoreflect.MessageDescriptor) error {
	var texts []protoreflect.FieldDescriptor
	for _, name := range []protoreflect.Name{"filter", "order_by"} {
		if d := c.desc.Fields().ByName(name); d != nil && d.Kind() == protoreflect.StringKind {
			texts = append(texts, d)
		}
	}
	if len(texts) == 0 || c.list != nil {
		return nil
	}
	for i := range response.Fields().Len() {
		d := response.Fields().Get(i)
		if d.IsList() && d.Message() != nil {
			inner, err := p.redactionOf(d.Message())
			if inner != nil {
				c.list = &list{texts: texts, inner: inner}
			}
			return err
		}
	}
	return fmt.Errorf("message %s has a filter or order_by, but the response lists no messages", c.desc.FullName())
}

func guardOf(d protoreflect.FieldDescriptor) *authzpb.Guard {
	g, _ := proto.GetExtension(d.Options(), authzpb.E_Guard).(*authzpb.Guard)
	return g
}

// choices returns the grants of an enum field's values; nil if none has one.
func choices(d protoreflect.FieldDescriptor) (map[protoreflect.EnumNumber]catalog.Bit, error) {
	if d.IsMap() {
		d = d.MapValue()
	}
	if d.Enum() == nil {
		return nil, nil
	}
	var found map[protoreflect.EnumNumber]catalog.Bit
	for i := range d.Enum().Values().Len() {
		v := d.Enum().Values().Get(i)
		name, _ := proto.GetExtension(v.Options(), authzpb.E_Choose).(string)
		if name == "" {
			continue
		}
		bit, err := grant(name)
		if err != nil {
			return nil, fmt.Errorf("value %s: %w", v.FullName(), err)
		}
		if v.Number() == 0 {
			return nil, fmt.Errorf("value %s is 0, which is not sent, and cannot have a choose option", v.FullName())
		}
		if found == nil {
			found = map[protoreflect.EnumNumber]catalog.Bit{}
		}
		found[v.Number()] = bit
	}
	return found, nil
}

// messageOf returns the message type inside a field, looking through maps, or nil.
func messageOf(d protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if d.IsMap() {
		return d.MapValue().Message()
	}
	return d.Message()
}

// check asks for the read grants of the fields that a filter or an order names.
// Text that cannot be parsed asks for nothing; the handler refuses it.
func (l *list) check(m protoreflect.Message, a *asked) {
	for _, d := range l.texts {
		if !m.Has(d) {
			continue
		}
		for _, path := range query.Paths(m.Get(d).String()) {
			for bit := range l.inner.grantsOfPath(path).All() {
				a.ask(bit, d)
			}
		}
	}
}
