package customfield_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/customfield"
)

func text(id, t string) *typepb.CustomValue {
	return &typepb.CustomValue{CustomFieldId: id, Value: &typepb.CustomValue_Text{Text: t}}
}

func number(id string, n int64) *typepb.CustomValue {
	return &typepb.CustomValue{CustomFieldId: id, Value: &typepb.CustomValue_Number{Number: n}}
}

func date(id string, y, m, d int32) *typepb.CustomValue {
	return &typepb.CustomValue{CustomFieldId: id, Value: &typepb.CustomValue_Date{Date: &typepb.Date{Year: y, Month: m, Day: d}}}
}

func choice(id, c string) *typepb.CustomValue {
	return &typepb.CustomValue{CustomFieldId: id, Value: &typepb.CustomValue_Choice{Choice: c}}
}

func choices(id string, c ...string) *typepb.CustomValue {
	return &typepb.CustomValue{CustomFieldId: id, Value: &typepb.CustomValue_Choices{Choices: &typepb.CustomChoices{Ids: c}}}
}

func TestCheck(t *testing.T) {
	some := []*identitypb.CustomFieldChoice{{Id: "a"}, {Id: "b"}, {Id: "old", Retired: true}}
	fields := []*identitypb.CustomField{
		{Id: "text", Type: customfield.Text, Minimum: proto.Int64(2), Maximum: proto.Int64(4)},
		{Id: "number", Type: customfield.Number, Minimum: proto.Int64(-5), Maximum: proto.Int64(5)},
		{Id: "yes", Type: customfield.YesNo},
		{Id: "date", Type: customfield.Date},
		{Id: "choice", Type: customfield.Choice, Choices: some},
		{Id: "choices", Type: customfield.Choices, Choices: some, Maximum: proto.Int64(1)},
	}
	yes := &typepb.CustomValue{CustomFieldId: "yes", Value: &typepb.CustomValue_Yes{}}
	one := func(v *typepb.CustomValue) []*typepb.CustomValue { return []*typepb.CustomValue{v} }
	tests := []struct {
		what   string
		values []*typepb.CustomValue
		want   string // part of the refusal, "" for none
	}{
		{"nothing", nil, ""},
		{"all", []*typepb.CustomValue{
			text("text", "äöü"), number("number", -5), yes, date("date", 2028, 2, 29), choice("choice", "a"), choices("choices", "b"),
		}, ""},
		{"short", one(text("text", "ä")), "at least 2"},
		{"long", one(text("text", "12345")), "at most 4"},
		{"blank", one(text("text", "  ")), "blank"},
		{"low", one(number("number", -6)), "at least -5"},
		{"high", one(number("number", 6)), "at most 5"},
		{"no such day", one(date("date", 2026, 2, 29)), "a day that there is"},
		{"no such day in April", one(date("date", 2026, 4, 31)), "a day that there is"},
		{"no such choice", one(choice("choice", "c")), `"c" is none`},
		{"retired", one(choice("choice", "old")), `"old" is none`},
		{"too many", one(choices("choices", "a", "b")), "at most 1"},
		{"another type", one(number("text", 3)), "must be a text"},
		{"no value", one(&typepb.CustomValue{CustomFieldId: "date"}), "must be a date"},
		{"no such field", one(text("other", "abc")), "must be a field"},
		{"twice", []*typepb.CustomValue{yes, yes}, "a second time"},
	}
	for _, tt := range tests {
		got := ""
		if err := customfield.Check("values", fields, nil, tt.values); err != nil {
			got = status.Convert(err).Message()
		}
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.what, got, tt.want)
		}
	}
	// What a record had stays good; what is required must be there.
	had := []*typepb.CustomValue{choice("choice", "old"), text("gone", "abc")}
	if err := customfield.Check("values", fields, had, had); err != nil {
		t.Errorf("as before: %v", err)
	}
	fields[0].Required = true
	if err := customfield.Check("values", fields, had, had); err == nil {
		t.Error("a required field is without a value, and nobody minds")
	}
}
