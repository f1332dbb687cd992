// Package customfield checks what records have in the fields that their organization has
// added. Identity keeps the fields, and the services that keep the records ask it for them.
package customfield

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/fault"
)

// Types of fields.
const (
	Text    = identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_TEXT
	Number  = identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_NUMBER
	YesNo   = identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_YES_NO
	Date    = identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_DATE
	Choice  = identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_CHOICE
	Choices = identitypb.CustomFieldType_CUSTOM_FIELD_TYPE_CHOICES
)

// maxChoices bounds how many choices a record has in all its fields, since it is found by each.
const maxChoices = 500

// Check says which of the values of a record will not do: each must be of one of the
// fields, which are those of the noun that are not deleted, and as that takes it; no field
// has two; there are at most 500 choices in all; and each required field has a value. A value that the record had before stays good,
// whatever has become of its field. Path is where the values stand in the request.
func Check(path string, fields []*identitypb.CustomField, before, values []*typepb.CustomValue) error {
	byID := map[string]*identitypb.CustomField{}
	for _, f := range fields {
		byID[f.GetId()] = f
	}
	has := map[string]bool{}
	choices := 0
	for i, v := range values {
		at := fmt.Sprintf("%s[%d]", path, i)
		if has[v.GetCustomFieldId()] {
			return fault.Invalid(at+".custom_field_id", "must not name a field a second time")
		}
		has[v.GetCustomFieldId()] = true
		if choices += len(v.GetChoices().GetIds()); choices > maxChoices {
			return fault.Invalid(at, "must not bring the record beyond %d choices in all its fields", maxChoices)
		}
		if wasThere(before, v) {
			continue
		}
		f := byID[v.GetCustomFieldId()]
		if f == nil {
			return fault.Invalid(at+".custom_field_id", "must be a field of such records: CustomFieldService.ListCustomFields lists them")
		}
		if wrong := mismatch(f, v); wrong != "" {
			return fault.Invalid(at, "%s: %s", f.GetName(), wrong)
		}
	}
	for _, f := range fields {
		if f.GetRequired() && !has[f.GetId()] {
			return fault.Invalid(path, "must have a value in the field %s, %q", f.GetId(), f.GetName())
		}
	}
	return nil
}

func wasThere(before []*typepb.CustomValue, v *typepb.CustomValue) bool {
	for _, b := range before {
		if proto.Equal(b, v) {
			return true
		}
	}
	return false
}

// mismatch says why a field does not take a value; "" if it does.
func mismatch(f *identitypb.CustomField, v *typepb.CustomValue) string {
	switch value := v.GetValue().(type) {
	case *typepb.CustomValue_Text:
		if f.GetType() == Text {
			return text(f, value.Text)
		}
	case *typepb.CustomValue_Number:
		if f.GetType() == Number {
			return outside(f, value.Number, "be")
		}
	case *typepb.CustomValue_Yes:
		if f.GetType() == YesNo {
			return ""
		}
	case *typepb.CustomValue_Date:
		if f.GetType() == Date {
			return day(value.Date)
		}
	case *typepb.CustomValue_Choice:
		if f.GetType() == Choice {
			return chosen(f, value.Choice)
		}
	case *typepb.CustomValue_Choices:
		if f.GetType() == Choices {
			return several(f, value.Choices.GetIds())
		}
	}
	return "must be a " + strings.ToLower(strings.TrimPrefix(f.GetType().String(), "CUSTOM_FIELD_TYPE_"))
}

func text(f *identitypb.CustomField, t string) string {
	if strings.TrimSpace(t) == "" {
		return "must not be blank: leave the value out to have none"
	}
	return outside(f, int64(utf8.RuneCountInString(t)), "have so many characters: be")
}

// outside says that a number is beyond the bounds of a field; doing what the value must.
func outside(f *identitypb.CustomField, n int64, doing string) string {
	switch {
	case f.Minimum != nil && n < f.GetMinimum():
		return fmt.Sprintf("must %s at least %d", doing, f.GetMinimum())
	case f.Maximum != nil && n > f.GetMaximum():
		return fmt.Sprintf("must %s at most %d", doing, f.GetMaximum())
	}
	return ""
}

// lengths of the months, of February in a leap year.
var lengths = [...]int32{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

func day(d *typepb.Date) string {
	y, m := d.GetYear(), d.GetMonth()
	leap := y%4 == 0 && (y%100 != 0 || y%400 == 0)
	if m < 1 || m > 12 || d.GetDay() < 1 || d.GetDay() > lengths[m-1] || m == 2 && d.GetDay() == 29 && !leap {
		return "must be a day that there is"
	}
	return ""
}

func chosen(f *identitypb.CustomField, id string) string {
	for _, c := range f.GetChoices() {
		if c.GetId() == id && !c.GetRetired() {
			return ""
		}
	}
	return fmt.Sprintf("must be the id of a choice of the field, and %q is none, or is retired", id)
}

func several(f *identitypb.CustomField, ids []string) string {
	for _, id := range ids {
		if wrong := chosen(f, id); wrong != "" {
			return wrong
		}
	}
	return outside(f, int64(len(ids)), "be")
}
