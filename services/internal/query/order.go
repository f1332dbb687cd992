package query

import (
	"slices"
	"strings"

	"latchkey.dev/services/internal/fault"
)

// Order reads an order_by text and returns which of the orders that a list offers it
// names: a field, or a field and "desc", in one space. Empty text is the first.
func Order(text string, offered ...string) (string, error) { return OrderMore(text, nil, offered...) }

// OrderMore is Order for records that have more than the fields of their message: each name of
// More that it Has is offered too, as it stands and with "desc".
//
// SECURITY: only words count. A quoted one would be understood here and not be seen by
// Paths, so that a caller could sort by a field that he may not see.
func OrderMore(text string, more *More, offered ...string) (string, error) {
	var words []string
	for _, t := range scan(text) {
		switch t.kind {
		case end:
		case word:
			words = append(words, t.text)
		default:
			return "", unordered(more, offered)
		}
	}
	want := strings.TrimSuffix(strings.Join(words, " "), " asc")
	if want == "" {
		return offered[0], nil
	}
	if under, ok := more.nameOf(strings.TrimSuffix(want, " desc")); ok && more.Has(under) || slices.Contains(offered, want) {
		return want, nil
	}
	return "", unordered(more, offered)
}

func unordered(more *More, offered []string) error {
	if more != nil {
		offered = append(slices.Clone(offered), more.What)
	}
	return fault.Invalid("order_by", "must be one of: %s", strings.Join(offered, ", "))
}
