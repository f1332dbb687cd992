package query

import (
	"strings"

	"google.golang.org/protobuf/proto"
)

// More is what records have under names that are no fields of their message, as those of
// custom fields. A filter writes them as field.name.
type More struct {
	// Field is the field of the message that holds all of it.
	Field string
	// What says what the names are, for who has named another.
	What string
	// Has tells whether there is such a name.
	Has func(name string) bool
	// Test returns how what a record has under the name compares with the value: its order,
	// and whether there is something that can be compared. It is nil if the operator or the
	// value does not fit.
	Test func(name, op string, v Value) func(proto.Message) (order int, ok bool)
}

// Value is a value as a filter writes it.
type Value struct {
	Text   string
	Quoted bool // whether it stands in double quotes
}

// nameOf returns the name in what a condition is on, if that is More.
func (m *More) nameOf(text string) (string, bool) {
	if m == nil {
		return "", false
	}
	return strings.CutPrefix(text, m.Field+".")
}

func (p *parser) conditionOnMore(name token, under string) (condition, error) {
	if !p.more.Has(under) {
		return condition{}, p.expected(name, p.more.What)
	}
	op, value, err := p.comparison()
	if err != nil {
		return condition{}, err
	}
	c := condition{op: op.text, more: p.more.Test(under, op.text, Value{value.text, value.kind == quoted})}
	if c.more == nil {
		return condition{}, p.misfit(name, op, value)
	}
	return c, nil
}
