package authz

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/query"
)

// content is how the requests of one method are checked.
type content struct {
	*shape
	list *list // nil if the method filters and orders nothing that is guarded
}

// list is how a request's filter and order_by are checked, against the messages
// that the response lists.
type list struct {
	texts []protoreflect.FieldDescriptor // filter, order_by
	items []*shape
}

// asked is what checking a request finds.
type asked struct {
	have  catalog.Set // the caller's
	needs catalog.Set // all that the request asks for
	// acts tells that the request sets something or chooses: what may merely be
	// seen lets nobody do anything.
	acts    bool
	missing bool
	bit     catalog.Bit // the first that is missing
	field   string      // where it was asked for
}

func (a *asked) ask(bit catalog.Bit, d protoreflect.FieldDescriptor) {
	a.needs.Add(bit)
	if !a.have.Has(bit) && !a.missing {
		a.missing, a.bit, a.field = true, bit, string(d.Name())
	}
}

// askGuard asks for what it takes to send the field itself.
func (a *asked) askGuard(f *field) {
	if f.write != nil {
		a.acts = true
		a.ask(*f.write, f.desc)
	}
	if f.read != nil {
		a.ask(*f.read, f.desc)
	}
}

// askWhole asks for the guards of the field and of everything below it: to replace it
// is to replace what the caller may not see.
func (a *asked) askWhole(f *field) {
	a.acts = a.acts || !f.writes.Empty()
	a.askGuard(f) // first, so that a denial names what is nearest
	for bit := range f.guards.All() {
		a.ask(bit, f.desc)
	}
}

// check collects what the request asks for.
func (c *content) check(m protoreflect.Message, a *asked) {
	c.shape.check(m, a)
	if c.list != nil {
		c.list.check(m, a)
	}
}

func (s *shape) check(m protoreflect.Message, a *asked) {
	for _, f := range s.asking {
		if !m.Has(f.desc) {
			continue
		}
		a.askGuard(f)
		if s.update == nil || f != s.update.record {
			f.check(m.Get(f.desc), a)
		}
	}
	if s.update != nil {
		s.update.check(m, a)
	}
}

// check collects what a value of the field asks for.
func (f *field) check(v protoreflect.Value, a *asked) {
	switch {
	case f.desc.IsMap():
		f.checkMap(v.Map(), a)
	case f.desc.IsList():
		for i := range v.List().Len() {
			f.checkOne(v.List().Get(i), a)
		}
	default:
		f.checkOne(v, a)
	}
}

// checkMap works on a copy, so that what the closure holds is not moved to the heap for
// every request, but only for one with a map.
func (f *field) checkMap(m protoreflect.Map, a *asked) {
	b := *a
	m.Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
		f.checkOne(v, &b)
		return true
	})
	*a = b
}

func (f *field) checkOne(v protoreflect.Value, a *asked) {
	if f.inner != nil {
		f.inner.check(v.Message(), a)
	}
	if f.choose != nil {
		if bit, ok := f.choose[v.Enum()]; ok {
			a.acts = true
			a.ask(bit, f.desc)
		}
	}
}

func (u *update) check(m protoreflect.Message, a *asked) {
	record := m.Get(u.record.desc).Message()
	if !m.Has(u.mask) {
		for _, f := range u.record.inner.asking {
			if record.Has(f.desc) {
				a.askWhole(f)
				f.check(record.Get(f.desc), a)
			}
		}
		return
	}
	mask := m.Get(u.mask).Message()
	paths := mask.Get(mask.Descriptor().Fields().ByName("paths")).List()
	for i := range paths.Len() {
		u.record.inner.checkPath(paths.Get(i).String(), record, a)
	}
}

// checkPath asks for the grants of the field at the end of path, of those on the
// way, and of those below it, and for what the value there chooses. A path that leads
// nowhere asks for nothing; the handler refuses it later.
func (s *shape) checkPath(path string, m protoreflect.Message, a *asked) {
	name, rest, deeper := strings.Cut(path, ".")
	for _, f := range s.asking {
		if name != "*" && !f.named(name) {
			continue
		}
		if deeper && f.inner != nil && !f.desc.IsList() && !f.desc.IsMap() {
			a.askGuard(f)
			f.inner.checkPath(rest, m.Get(f.desc).Message(), a)
			continue
		}
		a.askWhole(f)
		if m.Has(f.desc) {
			f.check(m.Get(f.desc), a)
		}
	}
}

// check asks for the read grants of the fields that a filter or an order names.
// Text that cannot be parsed asks for nothing; the handler refuses it.
func (l *list) check(m protoreflect.Message, a *asked) {
	for _, d := range l.texts {
		if !m.Has(d) {
			continue
		}
		for _, path := range query.Paths(m.Get(d).String()) {
			for _, item := range l.items {
				for bit := range item.readsOfPath(path).All() {
					a.ask(bit, d)
				}
			}
		}
	}
}

// contentOf returns how the requests of a method are checked; nil if none can ask for
// anything. The plan is settled.
func (p *plan) contentOf(d protoreflect.MethodDescriptor) (*content, error) {
	c := &content{shape: p.shapes[d.Input().FullName()]}
	var err error
	if c.list, err = p.listOf(d); err != nil {
		return nil, err
	}
	if !c.asks() && c.list == nil {
		return nil, nil
	}
	return c, nil
}

func (p *plan) listOf(d protoreflect.MethodDescriptor) (*list, error) {
	l := &list{}
	for _, name := range []protoreflect.Name{"filter", "order_by"} {
		if fd := d.Input().Fields().ByName(name); fd != nil && fd.Kind() == protoreflect.StringKind {
			l.texts = append(l.texts, fd)
		}
	}
	if len(l.texts) == 0 {
		return nil, nil
	}
	found := false
	for i := range d.Output().Fields().Len() {
		fd := d.Output().Fields().Get(i)
		if !fd.IsList() || fd.Message() == nil {
			continue
		}
		found = true
		if item := p.shapes[fd.Message().FullName()]; !item.reads.Empty() {
			l.items = append(l.items, item)
		}
	}
	switch {
	case !found:
		return nil, errors.New("its request has a filter or order_by, but its response lists no messages")
	case len(l.items) == 0:
		return nil, nil
	}
	return l, nil
}

// actions returns every grant by which a request can ask to do something.
func (s *shape) actions() catalog.Set { return s.writes.Union(s.choices) }

// names lists the fields of a request by one of which it must ask for something.
func (c *content) names() string {
	if c.update != nil {
		return string(c.update.mask.Name())
	}
	var names []string
	for _, f := range c.asking {
		if !f.writes.Empty() || f.choose != nil || f.inner != nil && !f.inner.actions().Empty() {
			names = append(names, string(f.desc.Name()))
		}
	}
	return strings.Join(names, " or ")
}
