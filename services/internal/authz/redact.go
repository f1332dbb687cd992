package authz

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"

	"latchkey.dev/services/internal/catalog"
)

// redaction is where a message type has guarded fields, compiled from its
// descriptor: only the fields that are guarded or that lead to a guarded one.
type redaction struct {
	desc   protoreflect.MessageDescriptor
	fields []*redactedField
	// within holds every read grant of the message, at any depth: who has them
	// all sees everything.
	within catalog.Set
}

type redactedField struct {
	desc    protoreflect.FieldDescriptor
	guarded bool
	read    catalog.Bit
	inner   *redaction
}

// redact clears, at any depth of m, each field whose read grant is not in set.
func (r *redaction) redact(m protoreflect.Message, set *catalog.Set) {
	if set.Contains(r.within) {
		return
	}
	if len(m.GetUnknown()) > 0 {
		m.SetUnknown(nil) // written by a later version, which may guard it
	}
	for _, f := range r.fields {
		switch {
		case !m.Has(f.desc):
		case f.guarded && !set.Has(f.read):
			m.Clear(f.desc)
		case f.inner != nil:
			f.redactInner(m.Get(f.desc), set)
		}
	}
}

func (f *redactedField) redactInner(v protoreflect.Value, set *catalog.Set) {
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

// redactionOf compiles a message type; nil if nothing in it is guarded.
func (p *plans) redactionOf(d protoreflect.MessageDescriptor) (*redaction, error) {
	r, err := p.redaction(d)
	if err != nil {
		return nil, err
	}
	p.settleRedactions()
	if r.within.Empty() {
		return nil, nil
	}
	return r, nil
}

func (p *plans) redaction(d protoreflect.MessageDescriptor) (*redaction, error) {
	if r, ok := p.redactions[d.FullName()]; ok {
		return r, nil
	}
	r := &redaction{desc: d}
	p.redactions[d.FullName()] = r
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		f := &redactedField{desc: fd}
		if name := guardOf(fd).GetRead(); name != "" {
			bit, err := grant(name)
			if err != nil {
				return nil, fmt.Errorf("field %s: %w", fd.FullName(), err)
			}
			f.guarded, f.read = true, bit
		}
		if inner := messageOf(fd); inner != nil {
			var err error
			if f.inner, err = p.redaction(inner); err != nil {
				return nil, err
			}
		}
		if f.guarded || f.inner != nil {
			r.fields = append(r.fields, f)
		}
	}
	return r, nil
}

// settleRedactions computes what lies within each message, then drops the fields
// that lead nowhere, so that redact visits none in vain.
func (p *plans) settleRedactions() {
	for changed := true; changed; {
		changed = false
		for _, r := range p.redactions {
			within := r.within
			for _, f := range r.fields {
				if f.guarded {
					within.Add(f.read)
				}
				if f.inner != nil {
					within = within.Union(f.inner.within)
				}
			}
			changed = changed || within != r.within
			r.within = within
		}
	}
	for _, r := range p.redactions {
		kept := r.fields[:0]
		for _, f := range r.fields {
			if f.inner != nil && f.inner.within.Empty() {
				f.inner = nil
			}
			if f.guarded || f.inner != nil {
				kept = append(kept, f)
			}
		}
		r.fields = kept
	}
}

// grantsOfPath returns the read grants of the fields along a dotted path and of
// everything below its end.
func (r *redaction) grantsOfPath(path []string) catalog.Set {
	var set catalog.Set
	for _, f := range r.fields {
		if string(f.desc.Name()) != path[0] && f.desc.JSONName() != path[0] {
			continue
		}
		if f.guarded {
			set.Add(f.read)
		}
		switch {
		case f.inner == nil:
		case len(path) > 1:
			set = set.Union(f.inner.grantsOfPath(path[1:]))
		default:
			set = set.Union(f.inner.within)
		}
	}
	return set
}
