package customfield

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/store"
)

// span is where in the order of a field's values those are that a filter holds: between two
// bounds, each of which may be missing, or all with one part of a key. It may have more than
// the filter holds, never less.
type span struct {
	field    string
	only     any
	from, to *bound
}

// bound is the least or the greatest part of a key, and whether values with it are within.
type bound struct {
	part   any
	closed bool
}

// spanOf returns the span of a field, a new one if there was none.
func (f *Filter) spanOf(field string) *span {
	if s := f.find(field); s != nil {
		return s
	}
	s := &span{field: field}
	f.spans = append(f.spans, s)
	return s
}

// find returns the span of a field; nil if records without a value in it are in the list.
func (f *Filter) find(field string) *span {
	i := slices.IndexFunc(f.spans, func(s *span) bool { return s.field == field })
	if i < 0 {
		return nil
	}
	return f.spans[i]
}

// narrow leaves out what does not compare so with the value that is wanted; nil is any.
func (s *span) narrow(op string, want *typepb.CustomValue) {
	if want == nil {
		return
	}
	part, closed := Parts(want)[0], false
	if want.GetText() != "" {
		_, all := opening(letters(want.GetText()))
		closed = !all // a text that goes on may be on either side
	}
	_, choice := want.GetValue().(*typepb.CustomValue_Choice)
	switch {
	case op == "=", op == ":" && choice:
		if s.only == nil {
			s.only = part
		}
	case op == ">", op == ">=":
		if b := (&bound{part, closed || op == ">="}); s.from == nil || b.within(s.from, 1) {
			s.from = b
		}
	case op == "<", op == "<=":
		if b := (&bound{part, closed || op == "<="}); s.to == nil || b.within(s.to, -1) {
			s.to = b
		}
	}
}

// within tells whether a bound leaves out all that another does, on the side of the sign.
func (b *bound) within(other *bound, sign int) bool {
	c := sign * compareParts(b.part, other.part)
	return c > 0 || c == 0 && !b.closed
}

// compareParts compares parts of the keys of one field that has bounds.
func compareParts(a, b any) int {
	if n, ok := a.(int64); ok {
		m, _ := b.(int64)
		return cmp.Compare(n, m)
	}
	s, _ := a.(string)
	t, _ := b.(string)
	return cmp.Compare(s, t)
}

// cut returns the part of the range of all values of the field that has those of the span.
func cut[T proto.Message](r store.Range[T], s *span) store.Range[T] {
	if s == nil {
		return r
	}
	from, to := s.from, s.to
	if s.only != nil {
		from, to = &bound{s.only, true}, &bound{s.only, true}
	}
	switch {
	case from != nil && from.closed:
		r = r.From(from.part)
	case from != nil:
		r = r.After(from.part)
	}
	switch {
	case to != nil && to.closed:
		r = r.Through(to.part)
	case to != nil:
		r = r.To(to.part)
	}
	return r
}
