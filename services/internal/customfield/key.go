package customfield

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	typepb "latchkey.dev/gen/go/latchkey/type/v1"
)

// Fields are those in which a record with the values has one.
func Fields(values []*typepb.CustomValue) []string {
	var ids []string
	for _, v := range values {
		ids = append(ids, v.GetCustomFieldId())
	}
	return ids
}

// Parts are what stands for a value in the keys of an index, in the order of the values of its
// field: one part, of CHOICES one for each. What they are is on disk: another Version of the
// indexes goes with another form.
//
// A NUMBER is ordered as one, a DATE by the calendar, YES_NO with no before yes, and a CHOICE by
// its id. A TEXT is ordered by its first 100 letters, without regard to case and accents, as
// their code points are; so its part is short.
func Parts(v *typepb.CustomValue) []any {
	switch value := v.GetValue().(type) {
	case *typepb.CustomValue_Text:
		part, _ := opening(letters(value.Text))
		return []any{part}
	case *typepb.CustomValue_Number:
		return []any{value.Number}
	case *typepb.CustomValue_Yes:
		return []any{value.Yes}
	case *typepb.CustomValue_Date:
		d := value.Date
		return []any{(int64(d.GetYear())*100+int64(d.GetMonth()))*100 + int64(d.GetDay())}
	case *typepb.CustomValue_Choice:
		return []any{value.Choice}
	case *typepb.CustomValue_Choices:
		var parts []any
		for _, id := range value.Choices.GetIds() {
			parts = append(parts, id)
		}
		return parts
	}
	return nil
}

// letters is what texts are ordered by: without regard to case and accents.
func letters(text string) string {
	bare := strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, norm.NFD.String(text))
	return cases.Fold().String(bare)
}

// maxLetters are how many letters of a text are in a key.
const maxLetters = 100

// opening returns the first letters, and whether that is all of them.
func opening(letters string) (first string, all bool) {
	n := 0
	for at := range letters {
		if n == maxLetters {
			return letters[:at], false
		}
		n++
	}
	return letters, true
}

// valueIn returns what a record has in a field; nil for nothing.
func valueIn(r Record, field string) *typepb.CustomValue {
	i := slices.IndexFunc(r.GetCustomValues(), func(v *typepb.CustomValue) bool { return v.GetCustomFieldId() == field })
	if i < 0 {
		return nil
	}
	return r.GetCustomValues()[i]
}
