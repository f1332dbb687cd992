package customfield

import "fmt"

// Spans says where a list by the filter would look: for each field the one part of a key, or
// the bounds in the manner of intervals.
func (f *Filter) Spans() (spans []string) {
	for _, s := range f.spans {
		text := s.field
		if s.only != nil {
			text += fmt.Sprint("=", s.only)
		}
		if b := s.from; b != nil {
			text += map[bool]string{true: "[", false: "("}[b.closed] + fmt.Sprint(b.part)
		}
		if b := s.to; b != nil {
			text += ".." + fmt.Sprint(b.part) + map[bool]string{true: "]", false: ")"}[b.closed]
		}
		spans = append(spans, text)
	}
	return spans
}
