package query

import "strings"

// Fields returns the dotted names of the fields that a filter looks at.
func Fields(f *Filter) []string {
	var names []string
	for _, c := range f.conditions {
		var parts []string
		for _, fd := range c.path {
			parts = append(parts, string(fd.Name()))
		}
		names = append(names, strings.Join(parts, "."))
	}
	return names
}
