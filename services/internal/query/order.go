package query

import (
	"strings"

	"latchkey.dev/services/internal/fault"
)

// Order reads an order_by text and returns which of the orders that a list offers it
// names: a field, or a field and "desc", in one space. Empty text is the first.
func Order(text string, offered ...string) (string, error) {
	var words []string
	for _, t := range scan(text) {
		if t.kind != end {
			words = append(words, t.text)
		}
	}
	want := strings.TrimSuffix(strings.Join(words, " "), " asc")
	if want == "" {
		return offered[0], nil
	}
	for _, o := range offered {
		if o == want {
			return o, nil
		}
	}
	return "", fault.Invalid("order_by", "must be one of: %s", strings.Join(offered, ", "))
}
