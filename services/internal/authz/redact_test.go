package authz_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
)

// full is an answer with something guarded at every place. MONEY and NOTE stand for
// what a caller without the grant must not see.
const full = `
	item { id: "1" name: "a" title: "t" MONEY NOTE box { colour: "red" COST inner { inner { colour: "blue" COST } } } stamp { text: "s" } }
	items { parts { id: "2" parts { MONEY NOTE } } }
	items { by_name { key: "k" value { name: "b" MONEY NOTE } } }
	by_name { key: "k" value { parts { name: "c" MONEY } NOTE } }
	caller: "x"`

func answer(t testing.TB, money, note bool) *dynamicpb.Message {
	fill := func(on bool, text string) string {
		if on {
			return text
		}
		return ""
	}
	return message(t, "Answer", replace(full,
		"MONEY", fill(money, `unit_price { minor_units: 7 }`), "COST", fill(money, `cost { minor_units: 7 }`), "NOTE", fill(note, `notes: "n" notes: "m"`)))
}

func TestRedact(t *testing.T) {
	rules := shopRules(t)
	for _, c := range []struct {
		holds       string
		money, note bool
	}{
		{"", false, false},
		{"pricing general edit", false, false}, // who may write need not see
		{"see", true, false},
		{"void", false, true},
		{"see void", true, true},
	} {
		t.Run(c.holds, func(t *testing.T) {
			got, want := answer(t, true, true), answer(t, c.money, c.note)
			rules.Redact(method("Void"), grantsOf(t, c.holds), got)
			if !proto.Equal(got, want) {
				t.Errorf("got  %s\nwant %s", textOf(got), textOf(want))
			}
		})
	}
}

func TestRedactWhereNothingIsGuarded(t *testing.T) {
	rules := shopRules(t)
	for _, text := range []string{``, `item {}`, `item { id: "1" box {} stamp { text: "s" } }`, `items {} by_name { key: "k" value {} }`} {
		got, want := message(t, "Answer", text), message(t, "Answer", text)
		rules.Redact(method("Void"), catalog.Set{}, got)
		if !proto.Equal(got, want) {
			t.Errorf("got  %s\nwant %s", textOf(got), textOf(want))
		}
	}
}

// A field that this version does not know was written by a later one, which may
// guard it.
func TestRedactDropsUnknownFields(t *testing.T) {
	rules := shopRules(t)
	unknown := protoreflect.RawFields{0xd2, 0x0f, 0x01, 'x'} // field 250
	build := func(raw protoreflect.RawFields) *dynamicpb.Message {
		m := message(t, "Answer", `item { id: "1" box { colour: "red" } }`)
		fields := m.Descriptor().Fields()
		item := m.Mutable(fields.ByName("item")).Message()
		m.SetUnknown(raw)
		item.SetUnknown(raw)
		item.Mutable(item.Descriptor().Fields().ByName("box")).Message().SetUnknown(raw)
		return m
	}
	got, want := build(unknown), build(nil)
	rules.Redact(method("Void"), grantsOf(t, "void"), got)
	if !proto.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", textOf(got), textOf(want))
	}
	got, want = build(unknown), build(unknown)
	rules.Redact(method("Void"), grantsOf(t, "void see"), got)
	if !proto.Equal(got, want) {
		t.Errorf("who sees everything: got  %s\nwant %s", textOf(got), textOf(want))
	}
}

// Services of the suite see everything: what they pass on is redacted where it leaves.
func TestRedactNothingForServices(t *testing.T) {
	rules := shopRules(t)
	got := answer(t, true, true)
	rules.RedactFor(method("Lookup"), &authz.Principal{Service: "scheduling"}, got)
	if want := answer(t, true, true); !proto.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", textOf(got), textOf(want))
	}
}

// Whatever a message holds, redaction leaves no guarded field that the caller may not
// see, takes nothing else, and does nothing the second time.
func TestRedactProperties(t *testing.T) {
	rules := shopRules(t)
	see, void := catalog.MustGrant("setting:see_pricing"), catalog.MustGrant("Invoices:Void")
	rapid.Check(t, func(r *rapid.T) {
		m := dynamicpb.NewMessage(shop().Messages().ByName("Answer"))
		fill(r, m, 4)
		var set catalog.Set
		if rapid.Bool().Draw(r, "see") {
			set.Add(see)
		}
		if rapid.Bool().Draw(r, "void") {
			set.Add(void)
		}
		want := proto.Clone(m)
		strip(want.ProtoReflect(), set.Has(see), set.Has(void))
		rules.Redact(method("Void"), set, m)
		if !proto.Equal(m, want) {
			r.Fatalf("got  %s\nwant %s", textOf(m), textOf(want))
		}
		rules.Redact(method("Void"), set, m)
		if !proto.Equal(m, want) {
			r.Fatalf("twice: got  %s\nwant %s", textOf(m), textOf(want))
		}
	})
}

// fill sets random fields of m, at most so deep.
func fill(r *rapid.T, m protoreflect.Message, depth int) {
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		if depth == 0 && fd.Message() != nil || !rapid.Bool().Draw(r, string(fd.Name())) {
			continue
		}
		switch {
		case fd.IsMap():
			v := m.NewField(fd).Map().NewValue()
			fill(r, v.Message(), depth-1)
			m.Mutable(fd).Map().Set(protoreflect.ValueOfString("k").MapKey(), v)
		case fd.IsList() && fd.Message() != nil:
			fill(r, m.Mutable(fd).List().AppendMutable().Message(), depth-1)
		case fd.IsList():
			m.Mutable(fd).List().Append(protoreflect.ValueOfString("x"))
		case fd.Message() != nil:
			fill(r, m.Mutable(fd).Message(), depth-1)
		case fd.Enum() != nil:
			m.Set(fd, protoreflect.ValueOfEnum(3))
		case fd.Kind() == protoreflect.Int64Kind:
			m.Set(fd, protoreflect.ValueOfInt64(7))
		default:
			m.Set(fd, protoreflect.ValueOfString("x"))
		}
	}
}

// strip is redaction as somebody would do it who knows the shop.
func strip(m protoreflect.Message, see, void bool) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case (fd.Name() == "unit_price" || fd.Name() == "cost") && !see, fd.Name() == "notes" && !void:
			m.Clear(fd)
		case fd.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { strip(v.Message(), see, void); return true })
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				strip(v.List().Get(i).Message(), see, void)
			}
		case fd.Message() != nil:
			strip(v.Message(), see, void)
		}
		return true
	})
}

// twentyLines is the answer of GetInvoice for an invoice of twenty lines.
func twentyLines() *invoicingpb.GetInvoiceResponse {
	money := func(n int64) *typepb.Money { return &typepb.Money{MinorUnits: n, CurrencyCode: "EUR"} }
	v := &invoicingpb.Invoice{
		Id: "0198c0de-0000-7000-8000-000000000004", Etag: "12", Number: "INV-000007", BillTo: new("Zoe Angstrom"),
		Subtotal: money(1000), Tax: money(190), Total: money(1190), AmountPaid: money(0), Balance: money(1190),
	}
	for i := range 20 {
		v.Lines = append(v.Lines, &invoicingpb.InvoiceLine{
			Description: fmt.Sprintf("valve %d", i), UnitPrice: money(100), Amount: money(200), Tax: money(38),
		})
	}
	return &invoicingpb.GetInvoiceResponse{Invoice: v}
}

// BenchmarkRedact compares redaction of an invoice of twenty lines with what is done
// with it anyway. Redaction changes its message, so that each round needs a new one:
// of clone+redact only what is above clone counts.
func BenchmarkRedact(b *testing.B) {
	rules, err := authz.Compile(invoicing)
	if err != nil {
		b.Fatal(err)
	}
	name := invoicingpb.InvoiceService_GetInvoice_FullMethodName
	resp := twentyLines()
	b.Run("clone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			proto.Clone(resp)
		}
	})
	b.Run("marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			proto.Marshal(resp)
		}
	})
	b.Run("clone+redact", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			rules.Redact(name, catalog.Set{}, proto.Clone(resp))
		}
	})
	b.Run("redacted before", func(b *testing.B) {
		m := proto.Clone(resp)
		rules.Redact(name, catalog.Set{}, m)
		b.ReportAllocs()
		for b.Loop() {
			rules.Redact(name, catalog.Set{}, m)
		}
	})
	b.Run("sees everything", func(b *testing.B) {
		set, _ := catalog.SetOf("setting:see_pricing")
		b.ReportAllocs()
		for b.Loop() {
			rules.Redact(name, set, resp)
		}
	})
}
