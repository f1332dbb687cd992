package query

import (
	"slices"
	"strings"

	"latchkey.dev/services/internal/fault"
)

// Order reads an order_by text and returns which of the orders that a list offers it
// names: a field, or a field and "desc", in one space. Empty text is the first.
//
// SECURITY: only words count. A quoted one would be understood here and not be seen by
// Paths, so that a caller could sort by a field that he may not see.
func Order(text string, offered ...string) (string, error) {
	var words []string
	for _, t := range scan(text) {
		switch t.kind {
		case end:
		case word:
			words = append(words, t.text)
		default:
			return "", unordered(offered)
		}
	}
	want := strings.TrimSuffix(strings.Join(words, " "), " asc")
	if want == "" {
		return offered[0], nil
	}
	if !slices.Contains(offered, want) {
		return "", unordered(offered)
	}
	return want, nil
}

func unordered(offered []string) error {
	return fault.Invalid("order_by", "must be one of: %s", strings.Join(offered, ", "))
}
