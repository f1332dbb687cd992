package mask_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"pgregory.net/rapid"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/mask"
)

// mutable are fields of an invoice that a test lets change.
var mutable = []string{"bill_to", "terms", "due_date", "lines", "total"}

func old() *invoicingpb.Invoice {
	return &invoicingpb.Invoice{
		Id: "1", Etag: "7", BillTo: new("old"), Terms: new("old"),
		DueDate: &typepb.Date{Year: 2026, Month: 1, Day: 2},
		Lines:   []*invoicingpb.InvoiceLine{{Description: "old"}},
	}
}

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name  string
		src   *invoicingpb.Invoice
		paths []string // nil: no mask
		want  *invoicingpb.Invoice
	}{
		{"no mask: what the source has, of what may change", &invoicingpb.Invoice{Id: "2", Etag: "8", BillTo: new("new")}, nil,
			edit(func(v *invoicingpb.Invoice) { v.BillTo = new("new") })},
		{"no mask: empty is something, absent is not", &invoicingpb.Invoice{BillTo: new("")}, nil,
			edit(func(v *invoicingpb.Invoice) { v.BillTo = new("") })},
		{"no mask, a message: as a whole", &invoicingpb.Invoice{DueDate: &typepb.Date{Year: 2027}}, nil,
			edit(func(v *invoicingpb.Invoice) { v.DueDate = &typepb.Date{Year: 2027} })},
		{"an empty mask changes nothing", &invoicingpb.Invoice{BillTo: new("new")}, []string{}, old()},
		{"only what is masked", &invoicingpb.Invoice{BillTo: new("new"), Terms: new("new")}, []string{"terms"},
			edit(func(v *invoicingpb.Invoice) { v.Terms = new("new") })},
		{"masked and absent: cleared", &invoicingpb.Invoice{}, []string{"terms", "lines", "due_date"},
			edit(func(v *invoicingpb.Invoice) { v.Terms, v.Lines, v.DueDate = nil, nil, nil })},
		{"a list: replaced and not added to", &invoicingpb.Invoice{Lines: []*invoicingpb.InvoiceLine{{Description: "new"}}}, []string{"lines"},
			edit(func(v *invoicingpb.Invoice) { v.Lines = []*invoicingpb.InvoiceLine{{Description: "new"}} })},
		{"the same twice", &invoicingpb.Invoice{Terms: new("new")}, []string{"terms", "terms"},
			edit(func(v *invoicingpb.Invoice) { v.Terms = new("new") })},
		{"all that may change", &invoicingpb.Invoice{Id: "2", Terms: new("new")}, []string{"*"},
			&invoicingpb.Invoice{Id: "1", Etag: "7", Terms: new("new")}},
		{"all, and one by name", &invoicingpb.Invoice{Terms: new("new")}, []string{"terms", "*"},
			&invoicingpb.Invoice{Id: "1", Etag: "7", Terms: new("new")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := old()
			var m *fieldmaskpb.FieldMask
			if c.paths != nil {
				m = &fieldmaskpb.FieldMask{Paths: c.paths}
			}
			if err := mask.Apply(got, c.src, m, mutable...); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, c.want) {
				t.Errorf("mask %q of %v:\n got %v\nwant %v", c.paths, c.src, got, c.want)
			}
		})
	}
}

func edit(change func(*invoicingpb.Invoice)) *invoicingpb.Invoice {
	v := old()
	change(v)
	return v
}

func TestApplyRefuses(t *testing.T) {
	const these = `; these can: bill_to, terms, due_date, lines, total`
	for _, c := range []struct {
		paths []string
		want  string
	}{
		{[]string{"id"}, `"id" cannot be changed here` + these},
		{[]string{"bogus"}, `"bogus" cannot be changed here` + these},
		{[]string{""}, `"" cannot be changed here` + these},
		{[]string{"terms", "etag"}, `"etag" cannot be changed here` + these},
		{[]string{"*", "etag"}, `"etag" cannot be changed here` + these},
		{[]string{"dueDate"}, `"dueDate" cannot be changed here` + these},
		{[]string{"terms."}, `"terms." leads through terms, which has no fields to name`},
		{[]string{"terms.x"}, `"terms.x" leads through terms, which has no fields to name`},
		{[]string{"due_date.year"}, `"due_date.year" leads into due_date, which changes only as a whole`},
		{[]string{"total.*"}, `"total.*" leads into total, which changes only as a whole`},
		{[]string{"lines.description"}, `"lines.description" leads through lines, which has no fields to name`},
		{[]string{strings.Repeat("x", 1000)}, `"` + strings.Repeat("x", 200) + `..." cannot be changed here` + these},
	} {
		got := old()
		err := mask.Apply(got, &invoicingpb.Invoice{Terms: new("new")}, &fieldmaskpb.FieldMask{Paths: c.paths}, mutable...)
		if err == nil || err.Error() != "update_mask: "+c.want {
			t.Errorf("%q:\n got %v\nwant update_mask: %s", c.paths, err, c.want)
		}
		if f, ok := errors.AsType[*fault.Error](err); !ok || len(f.Violations) != 1 || f.Violations[0].Field != "update_mask" {
			t.Errorf("%q: got %#v, want a fault of update_mask", c.paths, err)
		}
		if !proto.Equal(got, old()) {
			t.Errorf("%q: refused, and yet changed to %v", c.paths, got)
		}
	}
}

func TestApplyWithin(t *testing.T) {
	record := func(before, after int32) *permissionspb.UserSettings {
		return &permissionspb.UserSettings{LoginRestrictions: &permissionspb.LoginRestrictions{BeforeMinutes: before, AfterMinutes: after}}
	}
	for _, c := range []struct {
		name           string
		dst, src, want *permissionspb.UserSettings
		paths          []string
	}{
		{"one field of two", record(1, 2), record(3, 4), record(3, 2), []string{"login_restrictions.before_minutes"}},
		{"that the source lacks", record(1, 2), &permissionspb.UserSettings{}, record(0, 2), []string{"login_restrictions.before_minutes"}},
		{"that the record lacks", &permissionspb.UserSettings{}, record(3, 4), record(3, 0), []string{"login_restrictions.before_minutes"}},
		{"that both lack", &permissionspb.UserSettings{}, &permissionspb.UserSettings{}, &permissionspb.UserSettings{}, []string{"login_restrictions.before_minutes"}},
		{"and the whole", record(1, 2), record(3, 4), record(3, 4), []string{"login_restrictions.before_minutes", "login_restrictions", "login_restrictions.after_minutes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := mask.Apply(c.dst, c.src, &fieldmaskpb.FieldMask{Paths: c.paths}, "login_restrictions"); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(c.dst, c.want) {
				t.Errorf("mask %q of %v: got %v, want %v", c.paths, c.src, c.dst, c.want)
			}
		})
	}
	for _, path := range []string{"login_restrictions.*", "login_restrictions.", "login_restrictions.beforeMinutes", "login_restrictions..before_minutes"} {
		err := mask.Apply(record(1, 2), record(3, 4), &fieldmaskpb.FieldMask{Paths: []string{path}}, "login_restrictions")
		if want := fmt.Sprintf("update_mask: %q names no field of LoginRestrictions", path); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// The record must not share memory with the request, which the answer kept for a
// repeat and the caller's own message may still use.
func TestApplyCopies(t *testing.T) {
	src := &invoicingpb.Invoice{DueDate: &typepb.Date{Year: 2027}, Lines: []*invoicingpb.InvoiceLine{{Description: "new"}}}
	want := proto.CloneOf(src)
	got := old()
	if err := mask.Apply(got, src, nil, mutable...); err != nil {
		t.Fatal(err)
	}
	got.DueDate.Year = 1
	got.Lines[0].Description = "changed"
	if !proto.Equal(src, want) {
		t.Errorf("a change of the record changed the request to %v", src)
	}
}

func TestApplyWithoutSource(t *testing.T) {
	got := old()
	if err := mask.Apply(got, (*invoicingpb.Invoice)(nil), nil, mutable...); err != nil || !proto.Equal(got, old()) {
		t.Errorf("no mask: got %v, %v, want no change", got, err)
	}
	if err := mask.Apply(got, (*invoicingpb.Invoice)(nil), &fieldmaskpb.FieldMask{Paths: []string{"*"}}, mutable...); err != nil || got.Terms != nil {
		t.Errorf("mask *: got %v, %v, want all cleared", got, err)
	}
}

func TestMutableMustBeFields(t *testing.T) {
	defer func() {
		if p := recover(); p != "mask: latchkey.invoicing.v1.Invoice has no field bogus" {
			t.Errorf("got panic %v, want one that names the field", p)
		}
	}()
	mask.Apply(old(), old(), &fieldmaskpb.FieldMask{Paths: []string{"terms"}}, "terms", "bogus")
	t.Error("no panic")
}

// Whatever the mask: a field changes only if it may and the mask names it, and what
// it becomes is what the source has.
func TestApplyProperties(t *testing.T) {
	names := []string{"id", "bill_to", "terms", "due_date", "lines", "total", "due_date.year", "*", "bogus"}
	rapid.Check(t, func(r *rapid.T) {
		dst, src := drawInvoice(r, "dst"), drawInvoice(r, "src")
		m := &fieldmaskpb.FieldMask{Paths: rapid.SliceOf(rapid.SampledFrom(names)).Draw(r, "paths")}
		before, source := proto.CloneOf(dst), proto.CloneOf(src)
		err := mask.Apply(dst, src, m, mutable...)
		if !proto.Equal(src, source) {
			r.Fatalf("%q changed its source to %v", m.GetPaths(), src)
		}
		if err != nil {
			if !proto.Equal(dst, before) {
				r.Fatalf("%q was refused (%v), and changed the record to %v", m.GetPaths(), err, dst)
			}
			return
		}
		fields := dst.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			checkField(r, fields.Get(i), m.GetPaths(), dst, before, src)
		}
		again := proto.CloneOf(dst)
		if err := mask.Apply(again, src, m, mutable...); err != nil || !proto.Equal(again, dst) {
			r.Fatalf("%q applied twice: got %v, %v, want %v", m.GetPaths(), again, err, dst)
		}
	})
}

func checkField(r *rapid.T, fd protoreflect.FieldDescriptor, paths []string, dst, before, src *invoicingpb.Invoice) {
	name := string(fd.Name())
	masked := slices.Contains(paths, name) || slices.Contains(paths, "*") && slices.Contains(mutable, name)
	switch {
	case masked && !sameField(fd, dst, src):
		r.Fatalf("%q: %s is not what the source has, but %v", paths, fd.Name(), dst)
	case !masked && !sameField(fd, dst, before):
		r.Fatalf("%q: %s changed, to %v", paths, fd.Name(), dst)
	}
}

func sameField(fd protoreflect.FieldDescriptor, a, b *invoicingpb.Invoice) bool {
	x, y := a.ProtoReflect(), b.ProtoReflect()
	return x.Has(fd) == y.Has(fd) && x.Get(fd).Equal(y.Get(fd))
}

func drawInvoice(r *rapid.T, label string) *invoicingpb.Invoice {
	v := &invoicingpb.Invoice{Id: label}
	text := func(name string) *string {
		return rapid.Ptr(rapid.SampledFrom([]string{"", "a", "b"}), true).Draw(r, label+"."+name)
	}
	v.BillTo, v.Terms = text("bill_to"), text("terms")
	if rapid.Bool().Draw(r, label+".due_date") {
		v.DueDate = &typepb.Date{Year: rapid.Int32Range(0, 2).Draw(r, "year"), Month: rapid.Int32Range(0, 2).Draw(r, "month")}
	}
	if rapid.Bool().Draw(r, label+".total") {
		v.Total = &typepb.Money{MinorUnits: rapid.Int64Range(0, 2).Draw(r, "minor_units"), CurrencyCode: "EUR"}
	}
	for range rapid.IntRange(0, 2).Draw(r, label+".lines") {
		v.Lines = append(v.Lines, &invoicingpb.InvoiceLine{Description: label})
	}
	return v
}
