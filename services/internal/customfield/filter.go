package customfield

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/query"
)

// holder is the field in which records have their custom values.
const holder = "custom_values"

// Record is a record that has custom values.
type Record interface {
	proto.Message
	GetCustomValues() []*typepb.CustomValue
}

// Filter tells which records a list holds, by their own fields and by their custom values.
type Filter struct {
	*query.Filter
	// spans are those of the fields in which a record of the list must have a value, in the
	// order of the conditions.
	spans []*span
}

// Named tells whether a filter or an order may name custom values, so that [Parse] or
// [ParseOrder] needs the fields.
func Named(text string) bool {
	return slices.ContainsFunc(query.Paths(text), func(path []string) bool { return path[0] == holder })
}

// Parse reads a filter over records like the sample, in which the fields, which are those of
// the noun that are not deleted, are named custom_values.id:
//
//	custom_values.0198a5d2-6c1e-7f43-9d0a-3b1f6f0f9a20 >= 3
//
// A TEXT takes all operators; a NUMBER, and a DATE as "2026-03-31", all but the colon; YES_NO
// and CHOICE = and !=. CHOICES take a colon for having a choice and != for not having it.
// Whatever the type, ":*" is for having a value. A choice is named by its id, retired or not.
// A TEXT is less or greater without regard to case and accents, and equal only as it stands.
func Parse(text string, sample Record, fields []*identitypb.CustomField) (*Filter, error) {
	byID := map[string]*identitypb.CustomField{}
	for _, f := range fields {
		byID[f.GetId()] = f
	}
	f := &Filter{}
	var err error
	f.Filter, err = query.ParseMore(text, sample, &query.More{
		Field: holder,
		What:  "custom_values. and the id of a field of such records that is not deleted (CustomFieldService.ListCustomFields lists them)",
		Has:   func(id string) bool { return byID[id] != nil },
		Test: func(id, op string, v query.Value) func(proto.Message) (int, bool) {
			return f.test(byID[id], op, v)
		},
	})
	return f, err
}

// test returns how the value of a record in a field compares with one as written, nil if a
// field of its type cannot be compared so. It notes what an index can go by.
func (f *Filter) test(field *identitypb.CustomField, op string, v query.Value) func(proto.Message) (int, bool) {
	compare, want := hasAny, (*typepb.CustomValue)(nil)
	if op != ":" || v != (query.Value{Text: "*"}) {
		want = written(field, v)
		if want == nil || !slices.Contains(operators[field.GetType()], op) {
			return nil
		}
		compare = comparison(op, want)
	}
	if op != "!=" {
		f.spanOf(field.GetId()).narrow(op, want)
	}
	return func(m proto.Message) (int, bool) {
		r, ok := m.(Record)
		if !ok {
			return 0, false
		}
		has := valueIn(r, field.GetId())
		if has == nil {
			return 0, false
		}
		return compare(has)
	}
}

// operators are those that fields of a type take.
var operators = map[identitypb.CustomFieldType][]string{
	Text:    {"=", "!=", "<", "<=", ">", ">=", ":"},
	Number:  {"=", "!=", "<", "<=", ">", ">="},
	Date:    {"=", "!=", "<", "<=", ">", ">="},
	YesNo:   {"=", "!="},
	Choice:  {"=", "!="},
	Choices: {":", "!="},
}

// written reads a value of a field as a filter writes it; nil if the field takes no such value.
func written(f *identitypb.CustomField, v query.Value) *typepb.CustomValue {
	value := &typepb.CustomValue{CustomFieldId: f.GetId()}
	switch f.GetType() {
	case Text:
		value.Value = &typepb.CustomValue_Text{Text: v.Text}
	case Number:
		n, err := strconv.ParseInt(v.Text, 10, 64)
		if err != nil || v.Quoted {
			return nil
		}
		value.Value = &typepb.CustomValue_Number{Number: n}
	case YesNo:
		if v.Quoted || v.Text != "true" && v.Text != "false" {
			return nil
		}
		value.Value = &typepb.CustomValue_Yes{Yes: v.Text == "true"}
	case Date:
		d, ok := query.Day(v.Text)
		if !ok || !v.Quoted {
			return nil
		}
		value.Value = &typepb.CustomValue_Date{Date: d}
	case Choice, Choices:
		if !slices.ContainsFunc(f.GetChoices(), func(c *identitypb.CustomFieldChoice) bool { return c.GetId() == v.Text }) {
			return nil
		}
		value.Value = &typepb.CustomValue_Choice{Choice: v.Text}
	}
	return value
}

func hasAny(*typepb.CustomValue) (int, bool) { return 0, true }

// comparison returns how values compare with the one that is wanted.
func comparison(op string, want *typepb.CustomValue) func(*typepb.CustomValue) (int, bool) {
	part, ordered := strings.ToLower(want.GetText()), letters(want.GetText())
	return func(has *typepb.CustomValue) (int, bool) {
		switch value := has.GetValue().(type) {
		case *typepb.CustomValue_Text:
			switch op {
			case ":":
				return 0, strings.Contains(strings.ToLower(value.Text), part)
			case "=", "!=":
				return strings.Compare(value.Text, want.GetText()), true
			}
			return strings.Compare(letters(value.Text), ordered), true
		case *typepb.CustomValue_Number:
			return cmp.Compare(value.Number, want.GetNumber()), true
		case *typepb.CustomValue_Yes:
			return 0, value.Yes == want.GetYes()
		case *typepb.CustomValue_Date:
			return query.CompareDays(value.Date, want.GetDate()), true
		case *typepb.CustomValue_Choice:
			return 0, value.Choice == want.GetChoice()
		case *typepb.CustomValue_Choices:
			return 0, slices.Contains(value.Choices.GetIds(), want.GetChoice())
		}
		return 0, false
	}
}
