package query_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/query"
)

// invoice has something of each kind that a filter can name, and lacks terms,
// due_date and balance.
var invoice = &invoicingpb.Invoice{
	Number:     "INV-000007",
	BillTo:     new("Zoë \"Z\" \\ Ångström"),
	State:      invoicingpb.InvoiceState_INVOICE_STATE_OPEN,
	Overdue:    true,
	Total:      &typepb.Money{MinorUnits: 1250, CurrencyCode: "EUR"},
	Subtotal:   &typepb.Money{MinorUnits: -3},
	CreateTime: timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)),
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		filter string
		want   bool
	}{
		{``, true},
		{" \t\n", true},
		{`number = "INV-000007"`, true},
		{`number = INV-000007`, true},
		{`number="INV-000007"`, true},
		{`number = "inv-000007"`, false},
		{`number != "x"`, true},
		{`number != "INV-000007"`, false},
		{`number : "v-0000"`, true},
		{`number : "v-0001"`, false},
		{`number : ""`, true},
		{`number > "INV-000006"`, true},
		{`number >= "INV-000007" AND number <= "INV-000007"`, true},
		{`number < "INV-000007"`, false},
		{`bill_to = "Zoë \"Z\" \\ Ångström"`, true},
		{`bill_to : "ÅNG"`, true},
		{`bill_to : "AND"`, false},
		{`terms = ""`, false},
		{`terms != ""`, true},
		{`terms : ""`, false},
		{`rejection_note = ""`, true},
		{`state = OPEN`, true},
		{`state = INVOICE_STATE_OPEN`, true},
		{`state = "OPEN"`, true},
		{`state != OPEN`, false},
		{`state = VOID`, false},
		{`state = UNSPECIFIED`, false},
		{`overdue = true`, true},
		{`overdue = false`, false},
		{`overdue != false`, true},
		{`total.minor_units = 1250`, true},
		{`total.minor_units >= 1250`, true},
		{`total.minor_units > 1250`, false},
		{`total.minor_units < 1251 AND total.minor_units > 1249`, true},
		{`subtotal.minor_units = -3`, true},
		{`subtotal.minor_units < -2`, true},
		{`total.currency_code = "EUR"`, true},
		{`balance.minor_units = 0`, false},
		{`balance.minor_units != 0`, true},
		{`balance.minor_units < 1`, false},
		{`due_date.year < 3000`, false},
		{`due_date = "2026-03-31"`, false},
		{`due_date != "2026-03-31"`, true},
		{`create_time = "2026-03-01T12:00:00Z"`, true},
		{`create_time = "2026-03-01T13:00:00+01:00"`, true},
		{`create_time > "2026-03-01T11:59:59.999999999Z"`, true},
		{`create_time > "2026-03-01T12:00:00Z"`, false},
		{`delete_time > "0001-01-01T00:00:00Z"`, false},
		{`delete_time != "2026-03-01T12:00:00Z"`, true},
		{`state = OPEN AND overdue = true AND number : inv`, true},
		{`state = OPEN AND overdue = false`, false},
	} {
		f, err := query.Parse(c.filter, (*invoicingpb.Invoice)(nil))
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
			continue
		}
		if got := f.Match(invoice); got != c.want {
			t.Errorf("%s: got %t, want %t", c.filter, got, c.want)
		}
	}
}

// A day is compared as one, not as a text and not by its parts.
func TestMatchDay(t *testing.T) {
	r := &servicerequestpb.ServiceRequest{TargetDate: &typepb.Date{Year: 2026, Month: 10, Day: 9}}
	for filter, want := range map[string]bool{
		`target_date = "2026-10-09"`:  true,
		`target_date != "2026-10-09"`: false,
		`target_date > "2026-09-30"`:  true,
		`target_date < "2026-10-10"`:  true,
		`target_date >= "2027-01-01"`: false,
		`target_date <= "2025-12-31"`: false,
	} {
		f, err := query.Parse(filter, r)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if got := f.Match(r); got != want {
			t.Errorf("%s: got %t, want %t", filter, got, want)
		}
	}
}

func TestNoFilterMatchesAll(t *testing.T) {
	if !(*query.Filter)(nil).Match(invoice) || !(&query.Filter{}).Match(invoice) {
		t.Error("a filter without conditions must match")
	}
}

func TestParseRefuses(t *testing.T) {
	many := strings.Repeat("overdue = true AND ", 20) + "overdue = true"
	for _, c := range []struct{ filter, want string }{
		{`number`, `at character 7: expected one of = != < <= > >= :, found the end`},
		{`number =`, `at character 9: expected a value, found the end`},
		{`= 3`, `at character 1: expected the name of a field, found "="`},
		{`"number" = 3`, `at character 1: expected the name of a field, found "number"`},
		{`numbr = 3`, `at character 1: expected the name of a single field of Invoice, found "numbr"`},
		{`createTime > "2026-03-01T12:00:00Z"`, `at character 1: expected the name of a single field of Invoice, found "createTime"`},
		{`lines = 3`, `at character 1: expected the name of a single field of Invoice, found "lines"`},
		{`lines.amount = 3`, `at character 1: expected the name of a single field of Invoice, found "lines.amount"`},
		{`number.x = 3`, `at character 1: expected the name of a field with a plain value, found "number.x"`},
		{`total. = 3`, `at character 1: expected the name of a single field of Money, found "total."`},
		{`total = 3`, `at character 9: expected a value that fits total =, found "3"`},
		{`total.minor_units = 1.5`, `at character 21: expected a value that fits total.minor_units =, found "1.5"`},
		{`total.minor_units = "3"`, `at character 21: expected a value that fits total.minor_units =, found "3"`},
		{`total.minor_units : 3`, `at character 21: expected a value that fits total.minor_units :, found "3"`},
		{`total.minor_units = 9223372036854775808`, `at character 21: expected a value that fits total.minor_units =, found "9223372036854775808"`},
		{`state = OPENED`, `at character 9: expected a value that fits state =, found "OPENED"`},
		{`state < OPEN`, `at character 9: expected a value that fits state <, found "OPEN"`},
		{`overdue = 1`, `at character 11: expected a value that fits overdue =, found "1"`},
		{`overdue = T`, `at character 11: expected a value that fits overdue =, found "T"`},
		{`overdue = "true"`, `at character 11: expected a value that fits overdue =, found "true"`},
		{`overdue > false`, `at character 11: expected a value that fits overdue >, found "false"`},
		{`create_time > 2026`, `at character 15: expected a value that fits create_time >, found "2026"`},
		{`create_time > "yesterday"`, `at character 15: expected a value that fits create_time >, found "yesterday"`},
		{`due_date = "2026-02-30"`, `at character 12: expected a value that fits due_date =, found "2026-02-30"`},
		{`due_date = 2026-02-28`, `at character 12: expected a value that fits due_date =, found "2026-02-28"`},
		{`number = a number = b`, `at character 12: expected AND, found "number"`},
		{`number = a and number = b`, `at character 12: expected AND, found "and"`},
		{`number = a OR number = b`, `at character 12: expected AND, found "OR"`},
		{`number = a "AND" number = b`, `at character 12: expected AND, found "AND"`},
		{`number = a AND`, `at character 15: expected the name of a field, found the end`},
		{`AND number = a`, `at character 1: expected the name of a single field of Invoice, found "AND"`},
		{`NOT number = a`, `at character 1: expected the name of a single field of Invoice, found "NOT"`},
		{`(number = a)`, `at character 1: expected the name of a field, found "("`},
		{`number = a;`, `at character 11: expected AND, found ";"`},
		{`number = ä`, `at character 10: expected a value, found "ä"`},
		{`bill_to = "ää" ;`, `at character 16: expected AND, found ";"`},
		{`number = "` + strings.Repeat("a", 500), `at character 10: expected a value, found "\"` + strings.Repeat("a", 59) + `..."`},
		{strings.Repeat(" ", 10_001), `at character 1: expected the name of a field, found "` + strings.Repeat(" ", 60) + `..."`},
		{many, `must have at most 20 conditions`},
	} {
		_, err := query.Parse(c.filter, (*invoicingpb.Invoice)(nil))
		if err == nil || err.Error() != "filter: "+c.want {
			t.Errorf("%s:\n got %v\nwant filter: %s", c.filter, err, c.want)
		}
		if f, ok := errors.AsType[*fault.Error](err); !ok || len(f.Violations) != 1 || f.Violations[0].Field != "filter" {
			t.Errorf("%s: got %#v, want a fault of the field filter", c.filter, err)
		}
	}
}

func TestOrder(t *testing.T) {
	offered := []string{"create_time desc", "create_time", "total desc", "total"}
	for _, c := range []struct{ text, want string }{
		{"", "create_time desc"},
		{"  ", "create_time desc"},
		{"total", "total"},
		{" total\t desc ", "total desc"},
		{"total asc", "total"},
		{"create_time desc", "create_time desc"},
	} {
		if got, err := query.Order(c.text, offered...); err != nil || got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{
		"asc", "desc", "number", "total desc desc", "total asc asc", "total DESC", "total,create_time", "total, desc",
		"total desc;", "-total", "total.minor_units", "TOTAL",
		// Quoted words are no names: package authz looks at names alone.
		`"total"`, `"total" desc`, `"total desc"`, `total "desc"`, strings.Repeat(" ", 10_001) + "total",
	} {
		got, err := query.Order(text, offered...)
		if err == nil || err.Error() != "order_by: must be one of: create_time desc, create_time, total desc, total" {
			t.Errorf("%q: got %q, %v, want a refusal that lists the orders", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`state = OPEN AND total.minor_units >= 1000`, `number : "a\"b"`, `create_time > "2026-03-01T12:00:00Z"`,
		`bill_to != "\`, `total.currency_code<EUR`, `"number"=3`, `due_date.year=2026 AND`, `number=ä`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := query.Parse(text, (*invoicingpb.Invoice)(nil))
		paths := query.Paths(text)
		if err != nil {
			if _, ok := errors.AsType[*fault.Error](err); !ok {
				t.Fatalf("%q: got %v, want a fault", text, err)
			}
			return
		}
		named := map[string]bool{}
		for _, p := range paths {
			named[strings.Join(p, ".")] = true
		}
		for _, field := range query.Fields(filter) {
			if !named[field] {
				t.Errorf("%q asks for %s, but Paths finds only %q", text, field, paths)
			}
		}
		filter.Match(invoice)
		filter.Match(&invoicingpb.Invoice{})
	})
}

// Whoever may not see a field must not sort by it: what Order understands, Paths names.
func FuzzOrder(f *testing.F) {
	for _, text := range []string{"total", `"total" desc`, "total,desc", "create_time desc"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		order, err := query.Order(text, "create_time desc", "total", "total desc")
		if err != nil || order == "create_time desc" {
			return
		}
		if !slices.ContainsFunc(query.Paths(text), func(p []string) bool { return slices.Equal(p, []string{"total"}) }) {
			t.Errorf("%q is understood as %q, but Paths finds only %q", text, order, query.Paths(text))
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	filter, err := query.Parse(`state = OPEN AND total.minor_units >= 1000 AND number : "inv"`, (*invoicingpb.Invoice)(nil))
	if err != nil {
		b.Fatal(err)
	}
	m := proto.CloneOf(invoice)
	b.ReportAllocs()
	for b.Loop() {
		if !filter.Match(m) {
			b.Fatal("no match")
		}
	}
}
