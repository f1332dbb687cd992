package authz

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"latchkey.dev/services/internal/catalog"
)

// redact clears, at any depth of m, each field whose read grant is not in set.
func (s *shape) redact(m protoreflect.Message, set *catalog.Set) {
	if set.Contains(s.reads) {
		return
	}
	if len(m.GetUnknown()) > 0 {
		m.SetUnknown(nil) // written by a later version, which may guard it
	}
	for _, f := range s.hiding {
		switch {
		case !m.Has(f.desc):
		case f.read != nil && !set.Has(*f.read):
			m.Clear(f.desc)
		case f.inner != nil && !set.Contains(f.inner.reads):
			f.redact(m.Get(f.desc), set)
		}
	}
}

// redact clears what the caller may not see of a value of the field.
func (f *field) redact(v protoreflect.Value, set *catalog.Set) {
	switch {
	case f.desc.IsMap():
		v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			f.inner.redact(v.Message(), set)
			return true
		})
	case f.desc.IsList():
		list := v.List()
		for i := range list.Len() {
			f.inner.redact(list.Get(i).Message(), set)
		}
	default:
		f.inner.redact(v.Message(), set)
	}
}

// readsOfPath returns the read grants of the fields along a path and of everything
// below its end.
func (s *shape) readsOfPath(path []string) catalog.Set {
	var set catalog.Set
	for _, f := range s.hiding {
		if !f.named(path[0]) {
			continue
		}
		if f.read != nil {
			set.Add(*f.read)
		}
		switch {
		case f.inner == nil:
		case len(path) > 1 && f.holds(path[1]):
			set = set.Union(f.inner.readsOfPath(path[1:]))
		default:
			set = set.Union(f.inner.reads)
		}
	}
	return set
}

// holds tells whether the messages in the field have a field of the name. What else a path
// names in them, such as a custom field, may be anything in them.
func (f *field) holds(name string) bool {
	fields := messageOf(f.desc).Fields()
	return fields.ByName(protoreflect.Name(name)) != nil || fields.ByJSONName(name) != nil
}
