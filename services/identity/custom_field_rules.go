package identity

import (
	"fmt"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/customfield"
	"latchkey.dev/services/internal/fault"
)

// maxText is how many characters a value of type TEXT can have at most.
const maxText = 2000

// checkField says what of a custom field will not do.
func checkField(f *pb.CustomField) error {
	switch {
	case f.GetNoun() == 0:
		return fault.Invalid("custom_field.noun", "must be a noun")
	case f.GetType() == 0:
		return fault.Invalid("custom_field.type", "must be a type")
	}
	if err := checkName("custom_field.name", f.GetName()); err != nil {
		return err
	}
	if err := checkChoices(f); err != nil {
		return err
	}
	return checkBounds(f)
}

func checkChoices(f *pb.CustomField) error {
	takes := f.GetType() == customfield.Choice || f.GetType() == customfield.Choices
	if takes != (len(f.GetChoices()) > 0) {
		return fault.Invalid("custom_field.choices", "must be there for the types CHOICE and CHOICES, and for no other")
	}
	seen := map[string]bool{}
	for i, c := range f.GetChoices() {
		if seen[c.GetId()] {
			return fault.Invalid(fmt.Sprintf("custom_field.choices[%d].id", i), "must be unique in the field")
		}
		seen[c.GetId()] = true
	}
	return nil
}

func checkBounds(f *pb.CustomField) error {
	low, high := int64(0), int64(0)
	switch f.GetType() {
	case customfield.Number:
	case customfield.Text:
		high = maxText
	case customfield.Choices:
		high = int64(len(f.GetChoices()))
	default:
		if f.Minimum != nil || f.Maximum != nil {
			return fault.Invalid("custom_field.minimum", "must, as maximum, be left out: only TEXT, NUMBER and CHOICES have bounds")
		}
		return nil
	}
	if f.Minimum != nil && f.Maximum != nil && f.GetMinimum() > f.GetMaximum() {
		return fault.Invalid("custom_field.minimum", "must not be more than maximum")
	}
	if f.GetType() == customfield.Number {
		return nil
	}
	for _, b := range []struct {
		name  string
		bound *int64
	}{{"minimum", f.Minimum}, {"maximum", f.Maximum}} {
		if b.bound != nil && (*b.bound < low || *b.bound > high) {
			return fault.Invalid("custom_field."+b.name, "must be between %d and %d", low, high)
		}
	}
	return nil
}

// keepsChoices says that a choice is gone that records may have.
func keepsChoices(was, is *pb.CustomField) error {
	there := map[string]bool{}
	for _, c := range is.GetChoices() {
		there[c.GetId()] = true
	}
	for _, c := range was.GetChoices() {
		if !there[c.GetId()] {
			return fault.Invalid("custom_field.choices", "must still have %q, which records may have: retire it instead", c.GetId())
		}
	}
	return nil
}
