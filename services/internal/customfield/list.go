package customfield

import (
	"slices"
	"strings"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/query"
	"latchkey.dev/services/internal/store"
)

// Order is how a list is ordered: as it is by itself, or by the values in a field.
type Order struct {
	field    *identitypb.CustomField // nil for none
	reversed bool                    // whether from the last to the first
	last     bool                    // the same of those that have no value in the field
}

// ParseOrder reads an order_by over records with the fields. Own is the list's own order, a
// name, or one and "desc", which is also offered turned round. Every field but those of CHOICES
// is offered beside it, as custom_values.id.
func ParseOrder(text, own string, fields []*identitypb.CustomField) (Order, error) {
	orderable := func(id string) *identitypb.CustomField {
		i := slices.IndexFunc(fields, func(f *identitypb.CustomField) bool { return f.GetId() == id && f.GetType() != Choices })
		if i < 0 {
			return nil
		}
		return fields[i]
	}
	name, last := strings.CutSuffix(own, " desc")
	turned := name + " desc"
	if last {
		turned = name
	}
	order, err := query.OrderMore(text, &query.More{
		Field: holder,
		What: "custom_values. and the id of a field of such records that is neither of CHOICES nor deleted " +
			"(CustomFieldService.ListCustomFields lists them), each also with desc",
		Has: func(id string) bool { return orderable(id) != nil },
	}, own, turned)
	if err != nil {
		return Order{}, err
	}
	name, reversed := strings.CutSuffix(order, " desc")
	id, _ := strings.CutPrefix(name, holder+".")
	return Order{field: orderable(id), reversed: reversed, last: last}, nil
}

// ByField tells whether the order is by the values in a field.
func (o Order) ByField() bool { return o.field != nil }

// Directed returns the ranges as they are to be read for the list's own order, if it goes so.
func Directed[T Record](o Order, ranges []store.Range[T]) []store.Range[T] {
	return directed(o.reversed, ranges)
}

func directed[T Record](reversed bool, ranges []store.Range[T]) []store.Range[T] {
	if !reversed {
		return ranges
	}
	var turned []store.Range[T]
	for _, r := range ranges {
		turned = append(turned, r.Reverse())
	}
	return turned
}

// Indexes are the ranges by which a list finds what its caller sees. Their keys go on with
// what the list is ordered by, forward. Several are of records that the caller sees for
// several reasons.
type Indexes[T Record] struct {
	// All are of all records of the list.
	All func() []store.Range[T]
	// Having are of those with a value in a field, one of [Fields].
	Having func(field string) []store.Range[T]
	// Valued are of those too, with the [Parts] of the value next in the key. With one
	// of them, they are of those with it alone.
	Valued func(field string, part ...any) []store.Range[T]
}

// maxGathered bounds how many entries are put in order for one page.
const maxGathered = 2000

// Sections are what a list reads: every record that keep and the filter may hold, in the order,
// and beside them as few as an index can tell.
//
// By the values in a field the records come first that have one, those of CHOICE in the order
// of the field's choices, the others as the list has them; then, whichever the direction, those
// that have none, in the list's own order.
func Sections[T Record](tx *store.Tx, f *Filter, o Order, keep func(T) bool, in Indexes[T]) []store.Section[T] {
	if o.field == nil {
		return []store.Section[T]{unordered(tx, f, o, keep, in)}
	}
	id := o.field.GetId()
	span := f.find(id)
	sections := valued(o, span, keep, in)
	if span != nil {
		return sections
	}
	return append(sections, store.Section[T]{
		Name: "without", Ranges: directed(o.last, in.All()),
		Keep: func(r T) bool { return valueIn(r, id) == nil && keep(r) },
	})
}

// valued are the sections of the records with a value in the field of the order.
func valued[T Record](o Order, span *span, keep func(T) bool, in Indexes[T]) (sections []store.Section[T]) {
	id := o.field.GetId()
	if o.field.GetType() != Choice {
		ranges := in.Valued(id)
		for i, r := range ranges {
			ranges[i] = cut(r, span)
		}
		return []store.Section[T]{{Name: "with", Keep: keep, Ranges: directed(o.reversed, ranges)}}
	}
	for _, c := range o.field.GetChoices() {
		if span == nil || span.only == nil || span.only == c.GetId() {
			sections = append(sections, store.Section[T]{
				Name: "choice " + c.GetId(), Keep: keep, Ranges: directed(o.reversed, in.Valued(id, c.GetId())),
			})
		}
	}
	if o.reversed {
		slices.Reverse(sections)
	}
	return sections
}

// unordered is the section of a list in its own order. What the first condition finds that asks
// for one value stands so in an index; of conditions that ask for a range, the first is taken
// whose range is small enough to be put in order; and the rest is looked for among those that
// have a value.
func unordered[T Record](tx *store.Tx, f *Filter, o Order, keep func(T) bool, in Indexes[T]) store.Section[T] {
	for _, s := range f.spans {
		if s.only != nil {
			return store.Section[T]{Keep: keep, Ranges: directed(o.reversed, in.Valued(s.field, s.only))}
		}
	}
	for _, s := range f.spans {
		if s.from == nil && s.to == nil {
			continue
		}
		ranges := in.Valued(s.field)
		for i, r := range ranges {
			ranges[i] = cut(r, s)
		}
		if g, ok := store.Gather(tx, maxGathered, directed(o.reversed, ranges)...); ok {
			return store.Section[T]{Keep: keep, Gathered: g}
		}
	}
	ranges := in.All
	if len(f.spans) > 0 {
		ranges = func() []store.Range[T] { return in.Having(f.spans[0].field) }
	}
	return store.Section[T]{Keep: keep, Ranges: directed(o.reversed, ranges())}
}
