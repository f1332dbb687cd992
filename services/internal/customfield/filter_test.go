package customfield_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/customfield"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/query"
)

// filtered are the fields that filters are tried on, one of each type.
var filtered = []*identitypb.CustomField{
	{Id: "t", Type: customfield.Text}, {Id: "n", Type: customfield.Number}, {Id: "y", Type: customfield.YesNo},
	{Id: "d", Type: customfield.Date},
	{Id: "c", Type: customfield.Choice, Choices: []*identitypb.CustomFieldChoice{{Id: "a"}, {Id: "b"}, {Id: "old", Retired: true}}},
	{Id: "cs", Type: customfield.Choices, Choices: []*identitypb.CustomFieldChoice{{Id: "a"}, {Id: "b"}, {Id: "x-1"}}},
}

func yes(id string, y bool) *typepb.CustomValue {
	return &typepb.CustomValue{CustomFieldId: id, Value: &typepb.CustomValue_Yes{Yes: y}}
}

// record has a value in each field; bare has none in any.
var (
	record = &servicerequestpb.ServiceRequest{Id: "a", Title: proto.String("Tap drips"), CustomValues: []*typepb.CustomValue{
		text("t", "Ärger & Söhne"), number("n", 9), yes("y", true), date("d", 2026, 10, 9), choice("c", "old"), choices("cs", "b", "x-1"),
	}}
	bare = &servicerequestpb.ServiceRequest{Id: "b"}
)

func TestFilter(t *testing.T) {
	long := strings.Repeat("Ü", 150)
	for _, c := range []struct {
		filter string
		want   bool
		spans  string
	}{
		{``, true, ""},
		{`title : "tap"`, true, ""},
		{`custom_values.n = 9`, true, "n=9"},
		{`custom_values.n = 009`, true, "n=9"},
		{`custom_values.n != 9`, false, ""},
		{`custom_values.n < 10`, true, "n..10)"}, // as texts they would be the other way round
		{`custom_values.n > 10`, false, "n(10"},
		{`custom_values.n >= 9 AND custom_values.n <= 9`, true, "n[9..9]"},
		{`custom_values.n >= 9 AND custom_values.n > 9`, false, "n(9"},
		{`custom_values.n > 3 AND custom_values.n >= -5 AND custom_values.n > 8 AND custom_values.n < 12 AND custom_values.n <= 30`, true, "n(8..12)"},
		{`custom_values.n > -1 AND custom_values.y = true`, true, "n(-1 y=true"},
		{`custom_values.n : *`, true, "n"},
		{`custom_values.n : * AND custom_values.n >= 9`, true, "n[9"},
		{`custom_values.y = true`, true, "y=true"},
		{`custom_values.y = false`, false, "y=false"},
		{`custom_values.y != false`, true, ""},
		{`custom_values.d = "2026-10-09"`, true, "d=20261009"},
		{`custom_values.d > "2026-09-30"`, true, "d(20260930"},
		{`custom_values.d <= "2026-10-08"`, false, "d..20261008]"},
		{`custom_values.d != "2026-10-09"`, false, ""},
		{`custom_values.c = old`, true, "c=old"},
		{`custom_values.c = "a"`, false, "c=a"},
		{`custom_values.c != a`, true, ""},
		{`custom_values.cs : b`, true, "cs=b"},
		{`custom_values.cs : "x-1" AND custom_values.cs : b`, true, "cs=x-1"},
		{`custom_values.cs : a`, false, "cs=a"},
		{`custom_values.cs != a`, true, ""},
		{`custom_values.cs != b`, false, ""},
		{`custom_values.cs : *`, true, "cs"},
		{`custom_values.t = "Ärger & Söhne"`, true, "t=arger & sohne"},
		{`custom_values.t = "ärger & söhne"`, false, "t=arger & sohne"},
		{`custom_values.t : "SÖHNE"`, true, "t"},
		{`custom_values.t : "*"`, false, "t"},
		{`custom_values.t : *`, true, "t"},
		{`custom_values.t > "Z"`, false, "t(z"}, // as bytes it would be the other way round
		{`custom_values.t >= "ARGER & sohne"`, true, "t[arger & sohne"},
		{`custom_values.t > "argén"`, true, "t(argen"},
		{`custom_values.t < "` + long + `"`, true, "t.." + strings.Repeat("u", 100) + "]"},
		{`title : "tap" AND custom_values.n != 3 AND custom_values.t : "er" AND custom_values.cs : b`, true, "t cs=b"},
	} {
		f, err := customfield.Parse(c.filter, bare, filtered)
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
			continue
		}
		if got := f.Match(record); got != c.want {
			t.Errorf("%s: got %t, want %t", c.filter, got, c.want)
		}
		if got := strings.Join(f.Spans(), " "); got != c.spans {
			t.Errorf("%s: got the spans %q, want %q", c.filter, got, c.spans)
		}
		if only := !strings.Contains(c.filter, "!=") && c.filter != ""; only && f.Match(bare) {
			t.Errorf("%s: holds of a record without values", c.filter)
		}
	}
	f, err := customfield.Parse(`custom_values.n != 9 AND custom_values.cs != a`, bare, filtered)
	if err != nil || !f.Match(bare) {
		t.Errorf("what is absent is not unequal: %v", err)
	}
}

func TestFilterRefuses(t *testing.T) {
	const unknown = `expected custom_values. and the id of a field of such records that is not deleted (CustomFieldService.ListCustomFields lists them), found "custom_values.`
	for filter, want := range map[string]string{
		`custom_values.gone = 3`:                      `at character 1: ` + unknown + `gone"`,
		`title = x AND custom_values. = 3`:            `at character 15: ` + unknown + `"`,
		`custom_values.n.number = 3`:                  `at character 1: ` + unknown + `n.number"`,
		`custom_values = 3`:                           `at character 1: expected the name of a single field of ServiceRequest, found "custom_values"`,
		`customValues.n = 3`:                          `at character 1: expected the name of a single field of ServiceRequest, found "customValues.n"`,
		`"custom_values.n" = 3`:                       `at character 1: expected the name of a field, found "custom_values.n"`,
		`custom_values.n`:                             `at character 16: expected one of = != < <= > >= :, found the end`,
		`custom_values.n =`:                           `at character 18: expected a value, found the end`,
		`custom_values.n = "9"`:                       `at character 19: expected a value that fits custom_values.n =, found "9"`,
		`custom_values.n = 9.5`:                       `at character 19: expected a value that fits custom_values.n =, found "9.5"`,
		`custom_values.n : 9`:                         `at character 19: expected a value that fits custom_values.n :, found "9"`,
		`custom_values.n = *`:                         `at character 19: expected a value that fits custom_values.n =, found "*"`,
		`custom_values.y > false`:                     `at character 19: expected a value that fits custom_values.y >, found "false"`,
		`custom_values.y = 1`:                         `at character 19: expected a value that fits custom_values.y =, found "1"`,
		`custom_values.d = 2026-10-09`:                `at character 19: expected a value that fits custom_values.d =, found "2026-10-09"`,
		`custom_values.d = "2026-02-29"`:              `at character 19: expected a value that fits custom_values.d =, found "2026-02-29"`,
		`custom_values.c = z`:                         `at character 19: expected a value that fits custom_values.c =, found "z"`,
		`custom_values.c < b`:                         `at character 19: expected a value that fits custom_values.c <, found "b"`,
		`custom_values.cs = b`:                        `at character 20: expected a value that fits custom_values.cs =, found "b"`,
		strings.Repeat("custom_values.n=9 AND ", 21):  `must have at most 20 conditions`,
		`custom_values.n = 9 OR custom_values.n = 10`: `at character 21: expected AND, found "OR"`,
	} {
		_, err := customfield.Parse(filter, bare, filtered)
		if err == nil || err.Error() != "filter: "+want {
			t.Errorf("%s:\n got %v\nwant filter: %s", filter, err, want)
		}
	}
}

// So many choices that a record could be found by them only at a great cost are refused.
func TestChoicesAreBounded(t *testing.T) {
	var fields []*identitypb.CustomField
	var values []*typepb.CustomValue
	for i := range 6 {
		f := &identitypb.CustomField{Id: fmt.Sprint(i), Type: customfield.Choices}
		var ids []string
		for c := range 100 {
			ids = append(ids, fmt.Sprint(c))
			f.Choices = append(f.Choices, &identitypb.CustomFieldChoice{Id: fmt.Sprint(c)})
		}
		fields, values = append(fields, f), append(values, choices(f.Id, ids...))
	}
	if err := customfield.Check("values", fields, nil, values[:5]); err != nil {
		t.Errorf("500 choices: %v", err)
	}
	if err := customfield.Check("values", fields, nil, values); err == nil || !strings.Contains(err.Error(), "500 choices") {
		t.Errorf("600 choices: got %v", err)
	}
}

// FuzzFilter holds of any text: a wrong one is refused by name; of a good one, each field that
// it looks at is among its paths, and a record that it matches is found where a list looks.
func FuzzFilter(f *testing.F) {
	for _, text := range []string{
		`custom_values.n >= -3 AND custom_values.t : "a\"b"`, `custom_values.d < "2026-10-10" AND title=x`, `custom_values.cs:*`,
		`custom_values.c=old AND custom_values.y!=true`, `custom_values.=3`, `custom_values.n.x=3`, `"custom_values.n"=3`,
		`custom_values.t >= "ÄRG" AND custom_values.t < "b"`,
	} {
		f.Add(text)
	}
	db := openFile(f)
	put(f, db, record, bare)
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := customfield.Parse(text, bare, filtered)
		if err != nil {
			if _, ok := errors.AsType[*fault.Error](err); !ok {
				t.Fatalf("%q: got %v, want a fault", text, err)
			}
			return
		}
		for _, span := range filter.Spans() {
			id := span[:len(span)-len(strings.TrimLeft(span, "abcdefghijklmnopqrstuvwxyz"))]
			if !slices.ContainsFunc(query.Paths(text), func(p []string) bool { return slices.Equal(p, []string{"custom_values", id}) }) {
				t.Errorf("%q goes by %s, but Paths finds only %q", text, id, query.Paths(text))
			}
			if !customfield.Named(text) {
				t.Errorf("%q names a custom field, and Named does not see it", text)
			}
		}
		var want []string
		for _, r := range []*servicerequestpb.ServiceRequest{record, bare} {
			if filter.Match(r) {
				want = append(want, r.GetId())
			}
		}
		got, _ := page(t, db, &servicerequestpb.ListServiceRequestsRequest{Filter: text}, filtered)
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%q lists %q, want %q", text, got, want)
		}
	})
}
