package query

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/fault"
)

// Filter tells which records a list holds. The zero Filter and nil hold all.
type Filter struct{ conditions []condition }

type condition struct {
	path []protoreflect.FieldDescriptor
	op   string
	test func(protoreflect.Value) (order int, ok bool) // how the field compares with the value
	more func(proto.Message) (order int, ok bool)      // how what the record has beside its fields does
}

// maxConditions bounds the work that one filter can ask for.
const maxConditions = 20

// Parse reads a filter over messages of the type of sample. Its error is a
// fault.Invalid of the field "filter" that says where the text is wrong.
func Parse(text string, sample proto.Message) (*Filter, error) {
	return ParseMore(text, sample, nil)
}

// ParseMore is Parse for records that have more than the fields of their message.
func ParseMore(text string, sample proto.Message, more *More) (*Filter, error) {
	p := &parser{text: text, tokens: scan(text), more: more}
	f := &Filter{}
	for p.peek().kind != end {
		if len(f.conditions) == maxConditions {
			return nil, fault.Invalid("filter", "must have at most %d conditions", maxConditions)
		}
		if len(f.conditions) > 0 {
			if t := p.take(); t.kind != word || t.text != "AND" {
				return nil, p.expected(t, "AND")
			}
		}
		c, err := p.condition(sample.ProtoReflect().Descriptor())
		if err != nil {
			return nil, err
		}
		f.conditions = append(f.conditions, c)
	}
	return f, nil
}

// Match tells whether the record is in the list.
func (f *Filter) Match(m proto.Message) bool {
	if f == nil {
		return true
	}
	r := m.ProtoReflect()
	return !slices.ContainsFunc(f.conditions, func(c condition) bool { return !c.match(r) })
}

func (c condition) match(m protoreflect.Message) bool {
	if c.more != nil {
		return c.holds(c.more(m.Interface()))
	}
	last := len(c.path) - 1
	for _, fd := range c.path[:last] {
		if !m.Has(fd) {
			return c.op == "!="
		}
		m = m.Get(fd).Message()
	}
	if fd := c.path[last]; fd.HasPresence() && !m.Has(fd) {
		return c.op == "!="
	}
	return c.holds(c.test(m.Get(c.path[last])))
}

// holds tells whether the condition is fulfilled by what has the order to the value, or, if
// not ok, cannot be compared with it.
func (c condition) holds(order int, ok bool) bool {
	switch c.op {
	case "=", ":":
		return ok && order == 0
	case "!=":
		return !ok || order != 0
	case "<":
		return ok && order < 0
	case "<=":
		return ok && order <= 0
	case ">":
		return ok && order > 0
	default:
		return ok && order >= 0
	}
}

type parser struct {
	text   string
	tokens []token
	i      int
	more   *More
}

func (p *parser) peek() token { return p.tokens[p.i] }

func (p *parser) take() token {
	t := p.tokens[p.i]
	if p.i < len(p.tokens)-1 {
		p.i++
	}
	return t
}

// maxQuoted is how many characters of a wrong text are said back.
const maxQuoted = 60

func (p *parser) expected(t token, what string) error {
	found := strconv.Quote(t.text)
	switch r := []rune(t.text); {
	case t.kind == end:
		found = "the end"
	case len(r) > maxQuoted:
		found = strconv.Quote(string(r[:maxQuoted]) + "...")
	}
	at := utf8.RuneCountInString(p.text[:t.at]) + 1
	return fault.Invalid("filter", "at character %d: expected %s, found %s", at, what, found)
}

func (p *parser) condition(d protoreflect.MessageDescriptor) (condition, error) {
	name := p.take()
	if name.kind != word {
		return condition{}, p.expected(name, "the name of a field")
	}
	if under, ok := p.more.nameOf(name.text); ok {
		return p.conditionOnMore(name, under)
	}
	c := condition{}
	for part := range strings.SplitSeq(name.text, ".") {
		if d == nil {
			return condition{}, p.expected(name, "the name of a field with a plain value")
		}
		fd := d.Fields().ByName(protoreflect.Name(part))
		if fd == nil || fd.IsList() || fd.IsMap() {
			return condition{}, p.expected(name, "the name of a single field of "+string(d.Name()))
		}
		c.path = append(c.path, fd)
		d = fd.Message()
	}
	op, value, err := p.comparison()
	if err != nil {
		return condition{}, err
	}
	var ok bool
	c.op = op.text
	if c.test, ok = testOf(c.path[len(c.path)-1], op.text, value); !ok {
		return condition{}, p.misfit(name, op, value)
	}
	return c, nil
}

// comparison reads what follows the name in a condition.
func (p *parser) comparison() (op, value token, err error) {
	if op = p.take(); op.kind != operator {
		return op, value, p.expected(op, "one of = != < <= > >= :")
	}
	if value = p.take(); value.kind != word && value.kind != quoted {
		return op, value, p.expected(value, "a value")
	}
	return op, value, nil
}

func (p *parser) misfit(name, op, value token) error {
	return p.expected(value, "a value that fits "+name.text+" "+op.text)
}

type test = func(protoreflect.Value) (int, bool)

// testOf returns how to compare a field of the descriptor with a value as written.
func testOf(fd protoreflect.FieldDescriptor, op string, t token) (test, bool) {
	if op == ":" && fd.Kind() != protoreflect.StringKind {
		return nil, false
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return textTest(op, t)
	case protoreflect.BoolKind:
		return boolTest(op, t)
	case protoreflect.EnumKind:
		return enumTest(fd, op, t)
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		want, err := strconv.ParseInt(t.text, 10, 64)
		return func(v protoreflect.Value) (int, bool) { return cmp.Compare(v.Int(), want), true }, err == nil && t.kind == word
	case protoreflect.MessageKind:
		return timeTest(fd, t)
	}
	return nil, false
}

func boolTest(op string, t token) (test, bool) {
	want := t.text == "true"
	ok := t.kind == word && (want || t.text == "false") && (op == "=" || op == "!=")
	return func(v protoreflect.Value) (int, bool) {
		if v.Bool() == want {
			return 0, true
		}
		return 1, true
	}, ok
}

func textTest(op string, t token) (test, bool) {
	if op == ":" {
		want := strings.ToLower(t.text)
		return func(v protoreflect.Value) (int, bool) {
			return 0, strings.Contains(strings.ToLower(v.String()), want)
		}, true
	}
	return func(v protoreflect.Value) (int, bool) { return strings.Compare(v.String(), t.text), true }, true
}

func enumTest(fd protoreflect.FieldDescriptor, op string, t token) (test, bool) {
	value := enumValue(fd.Enum(), t.text)
	if value == nil || op != "=" && op != "!=" {
		return nil, false
	}
	return func(v protoreflect.Value) (int, bool) { return cmp.Compare(v.Enum(), value.Number()), true }, true
}

// enumValue finds a value by its full name, INVOICE_STATE_OPEN, or without the
// prefix that all values share, OPEN.
func enumValue(d protoreflect.EnumDescriptor, name string) protoreflect.EnumValueDescriptor {
	if v := d.Values().ByName(protoreflect.Name(name)); v != nil {
		return v
	}
	prefix, ok := strings.CutSuffix(string(d.Values().Get(0).Name()), "UNSPECIFIED")
	if !ok {
		return nil
	}
	return d.Values().ByName(protoreflect.Name(prefix + name))
}

var (
	timestamp = (&timestamppb.Timestamp{}).ProtoReflect().Descriptor().FullName()
	date      = (&typepb.Date{}).ProtoReflect().Descriptor().FullName()
)

func timeTest(fd protoreflect.FieldDescriptor, t token) (test, bool) {
	if t.kind != quoted {
		return nil, false
	}
	switch fd.Message().FullName() {
	case timestamp:
		want, err := time.Parse(time.RFC3339, t.text)
		return func(v protoreflect.Value) (int, bool) {
			got, ok := v.Message().Interface().(*timestamppb.Timestamp)
			return got.AsTime().Compare(want), ok
		}, err == nil
	case date:
		want, ok := Day(t.text)
		return func(v protoreflect.Value) (int, bool) {
			got, ok := v.Message().Interface().(*typepb.Date)
			return CompareDays(got, want), ok
		}, ok
	}
	return nil, false
}

// Day reads a day of the calendar as a filter writes it, 2026-03-31.
func Day(text string) (*typepb.Date, bool) {
	t, err := time.Parse(time.DateOnly, text)
	return &typepb.Date{Year: int32(t.Year()), Month: int32(t.Month()), Day: int32(t.Day())}, err == nil
}

// CompareDays returns how one day of the calendar is to another, as cmp.Compare does.
func CompareDays(a, b *typepb.Date) int {
	return cmp.Or(cmp.Compare(a.GetYear(), b.GetYear()), cmp.Compare(a.GetMonth(), b.GetMonth()), cmp.Compare(a.GetDay(), b.GetDay()))
}
