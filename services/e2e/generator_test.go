package e2e

import (
	"bytes"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/catalog"
)

// generator makes requests: as a rule nearly right, of what it has learned from answers,
// and otherwise at or beyond the bounds, and nonsense.
type generator struct {
	random   *rand.Rand
	harmless bool                // every request is to be validated only
	careful  bool                // this request is to be right, as far as a generator knows
	ids      map[string][]string // by kind, as "service_request"
	never    map[string]bool     // ids not to use
	etags    []string
	pages    []string // page tokens
	requests []string // ids of requests before
	leads    []lead
	target   string // id of the record that this request is to be for, if any
	later    bool   // this message is not the first of its stream
}

// lead is what an answer said that its reader can do.
type lead struct {
	caller, method, id string
}

// few is how much of each kind a generator remembers.
const few = 40

func newGenerator(random *rand.Rand) *generator {
	return &generator{random: random, ids: map[string][]string{}, never: map[string]bool{}}
}

// one in n.
func (g *generator) one(n int) bool { return g.random.IntN(n) == 0 }

// slip is one in n, and much rarer in a careful request.
func (g *generator) slip(n int) bool {
	if g.careful {
		n *= 20
	}
	return g.one(n)
}

func (g *generator) remember(in []string, what string) []string {
	if slices.Contains(in, what) {
		return in
	}
	if len(in) < few {
		return append(in, what)
	}
	in[g.random.IntN(few)] = what
	return in
}

// learn takes from an answer what requests can name, and what its caller can do next.
func (g *generator) learn(caller string, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	if fields.ByName("id") != nil && isRecord(m.Descriptor()) {
		kind, id := snake(string(m.Descriptor().Name())), m.Get(fields.ByName("id")).String()
		if !g.never[id] && kind != "session" {
			g.ids[kind] = g.remember(g.ids[kind], id)
			g.follow(caller, id, m)
		}
		g.etags = g.remember(g.etags, m.Get(fields.ByName("etag")).String())
	}
	if fd := fields.ByName("next_page_token"); fd != nil {
		g.pages = g.remember(g.pages, m.Get(fd).String())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil || fd.IsMap():
		case fd.IsList():
			for i := range v.List().Len() {
				g.learn(caller, v.List().Get(i).Message())
			}
		default:
			g.learn(caller, v.Message())
		}
		return true
	})
}

// follow remembers what can be done with a record.
func (g *generator) follow(caller, id string, record protoreflect.Message) {
	actions := record.Descriptor().Fields().ByName("available_actions")
	if actions == nil {
		return
	}
	for i := range record.Get(actions).List().Len() {
		a, ok := record.Get(actions).List().Get(i).Message().Interface().(*typepb.AvailableAction)
		if !ok || !a.GetAllowed() {
			continue
		}
		g.leads = append(g.leads, lead{caller, a.GetMethod(), id})
	}
	g.leads = g.leads[max(0, len(g.leads)-few):]
}

// lead returns something that can be done, if the generator knows of any.
func (g *generator) lead() (l lead, ok bool) {
	if len(g.leads) == 0 {
		return l, false
	}
	i := len(g.leads) - 1 - g.random.IntN(min(len(g.leads), 10)) // what was heard last is still so
	l = g.leads[i]
	g.leads = slices.Delete(g.leads, i, i+1)
	return l, true
}

// snake returns "service_request" for "ServiceRequest".
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// wire makes a request of a method as it goes over the wire: now and then damaged.
func (g *generator) wire(m method) []byte {
	g.careful = !g.one(3)
	req := newMessage(m.Input())
	g.fill(req.ProtoReflect(), kindOf(m), 0)
	b, err := proto.Marshal(req)
	if err != nil {
		panic(err) // the generator makes only what can be encoded
	}
	b = bytes.ReplaceAll(b, []byte(stain), []byte("\xff\xfe\xc0\x80 \xed\xa0\x80"))
	if !g.slip(8) {
		return b
	}
	switch g.random.IntN(4) {
	case 0:
		return b[:g.random.IntN(len(b)+1)]
	case 1:
		for range min(len(b), 3) {
			b[g.random.IntN(len(b))] = byte(g.random.Uint32())
		}
		return b
	case 2:
		return append(b, "\xfa\xff\xff\xff\x0f\x03abc"...) // an unknown field
	}
	noise := make([]byte, g.random.IntN(200))
	for i := range noise {
		noise[i] = byte(g.random.Uint32())
	}
	return noise
}

// stain stands for bytes that are not UTF-8, which cannot be encoded but in raw form.
const stain = "NOT-UTF8"

// kindOf returns which kind of record the id of a method's request is of.
func kindOf(m method) string {
	for i := range m.Output().Fields().Len() {
		if d := m.Output().Fields().Get(i).Message(); isRecord(d) {
			return snake(string(d.Name()))
		}
	}
	return ""
}

// fill sets fields of a request, or of a message in it.
func (g *generator) fill(m protoreflect.Message, kind string, depth int) {
	switch m.Descriptor().FullName() {
	case "google.protobuf.Timestamp", "google.protobuf.Duration":
		g.fillTime(m)
		return
	case "google.protobuf.FieldMask":
		return // set with the record that it is for
	}
	fields := m.Descriptor().Fields()
	mask := fields.ByName("update_mask")
	for i := range fields.Len() {
		switch fd := fields.Get(i); {
		case fd.Name() == "validate_only":
			m.Set(fd, protoreflect.ValueOfBool(g.harmless || g.one(5)))
		case fields.ByName("metadata") != nil && g.careful && (fd.Name() == "metadata") == g.later:
			// A stream has its metadata first and only there.
		case mask != nil && g.careful && isRecord(fd.Message()):
			g.fillUpdate(m, fd, mask, kind)
		case g.wants(fd) && depth < 6:
			g.set(m, fd, kind, depth)
		}
	}
	if mask != nil && !g.careful && !g.one(4) {
		g.fillMask(m, mask)
	}
}

func isRecord(d protoreflect.MessageDescriptor) bool {
	return d != nil && d.Fields().ByName("etag") != nil
}

// fillUpdate sets one field of the record of an update, its id, and the mask.
func (g *generator) fillUpdate(m protoreflect.Message, fd, mask protoreflect.FieldDescriptor, kind string) {
	record := m.Mutable(fd).Message()
	fields := record.Descriptor().Fields()
	if id := fields.ByName("id"); id != nil {
		g.set(record, id, kind, 1)
	}
	one := fields.Get(g.random.IntN(fields.Len()))
	g.set(record, one, kind, 1)
	if !g.one(4) {
		paths := m.Mutable(mask).Message()
		paths.Mutable(paths.Descriptor().Fields().ByName("paths")).List().Append(protoreflect.ValueOfString(string(one.Name())))
	}
}

// wants tells whether to set a field.
func (g *generator) wants(fd protoreflect.FieldDescriptor) bool {
	switch name := string(fd.Name()); {
	case name == "etag":
		return g.slip(6)
	case name == "page_token" || name == "filter" || name == "order_by" || name == "request_id":
		return g.one(6)
	case name == "id" || strings.HasSuffix(name, "_id"):
		return !g.slip(12)
	case len(guards([]protoreflect.FieldDescriptor{fd})) > 0:
		return g.one(2) || g.careful && g.one(2)
	}
	if g.careful {
		return !g.one(30)
	}
	return !g.one(4)
}

func (g *generator) set(m protoreflect.Message, fd protoreflect.FieldDescriptor, kind string, depth int) {
	switch {
	case fd.IsMap():
		// No request has one that a caller may send.
	case fd.IsList():
		list := m.Mutable(fd).List()
		n := g.random.IntN(3)
		if g.careful {
			n = 1 + g.random.IntN(2)
		}
		if g.slip(25) {
			n = 600
		}
		for range n {
			if fd.Message() != nil {
				g.fill(list.AppendMutable().Message(), kind, depth+1)
			} else {
				list.Append(g.scalar(fd, kind))
			}
		}
	case fd.Message() != nil:
		g.fill(m.Mutable(fd).Message(), kind, depth+1)
	default:
		m.Set(fd, g.scalar(fd, kind))
	}
}

func (g *generator) scalar(fd protoreflect.FieldDescriptor, kind string) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(g.one(4))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(g.enum(fd.Enum()))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(g.text(string(fd.Name()), kind))
	case protoreflect.BytesKind:
		if g.careful && fd.Name() == "chunk" {
			return protoreflect.ValueOfBytes(photo())
		}
		if g.careful {
			return protoreflect.ValueOfBytes(nil)
		}
		return protoreflect.ValueOfBytes(pick(g.random, [][]byte{nil, photo(), make([]byte, 32), make([]byte, 40), make([]byte, 1<<20+1)}))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(g.number(string(fd.Name()), math.MinInt32, math.MaxInt32)))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(g.number(string(fd.Name()), math.MinInt64, math.MaxInt64))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(g.random.Uint32())
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(g.random.Uint64())
	}
	return fd.Default()
}

func (g *generator) enum(d protoreflect.EnumDescriptor) protoreflect.EnumNumber {
	if g.slip(8) {
		return pick(g.random, []protoreflect.EnumNumber{0, 99, -1, math.MaxInt32, math.MinInt32})
	}
	return d.Values().Get(1 + g.random.IntN(d.Values().Len()-1)).Number()
}

func (g *generator) number(name string, least, most int64) int64 {
	if g.slip(4) {
		return pick(g.random, []int64{0, -1, least, least + 1, most, most - 1, 1 << 31, -1 << 31, 1 << 53})
	}
	switch name {
	case "year":
		return int64(time.Now().Year() + 1)
	case "month", "day":
		return int64(1 + g.random.IntN(12))
	case "minor_units", "quantity_thousandths":
		return int64(g.random.IntN(100_000))
	}
	return int64(g.random.IntN(1000))
}

// hostile are texts that have broken something somewhere.
var hostile = []string{
	"", " ", "\x00", "a\x00b", stain, "x" + stain, strings.Repeat("x", 70_000), strings.Repeat("é", 101), "\u202etfel ot thgir",
	"'; DROP TABLE invoices; --", "%s%n%d", "../../../etc/passwd", "\r\nSet-Cookie: x", "<script>", "\U0001F469\u200D\U0001F680", "\ufeff", "{\"a\":", "NaN", "-0", "1e999",
}

// texts are what fields of a name hold as a rule.
var texts = map[string][]string{
	"filter": {
		`state = "INVOICE_STATE_OPEN"`, `title : "radiator"`, `NOT name = "x" AND (id = "y" OR id = "z")`, `create_time > "2020-01-01T00:00:00Z"`,
		`total.minor_units > 100`, `total.minor_units > 99999999999999999999`, `price.minor_units = -1`, `active = true`, `a.b.c.d = 1`, `state`, `"`, `state = `,
		strings.Repeat("(", 3000), strings.Repeat("NOT ", 1000) + "active", strings.Repeat("active = true AND ", 400) + "active = true",
	},
	"order_by":      {"create_time desc", "name", "title, create_time desc", "total.minor_units", "price desc", "name name name", ",", "etag asc", strings.Repeat("name,", 500)},
	"email":         {"us@harbour-lane.example", "pm@harbour-lane.example", "us@harbour-lane.example", "@", "a@b@c", "grüße@exämple.com"},
	"time_zone":     {"Europe/Berlin", "UTC", "Mars/Phobos", "../UTC", "Local"},
	"currency_code": {"EUR", "EUR", "EUR", "USD", "XXX", "eur"},
	"region_code":   {"DE", "ZZ"},
	"content_type":  {"image/png", "video/mp4", "text/html", ";"},
	"password":      {"correct horse battery staple", "and another password", "short", strings.Repeat("p", 300)},
	"role_id":       {"PM", "SP", "US", "OW", "BA", "XX"},
	"method":        {"latchkey.invoicing.v1.InvoiceService/VoidInvoice", "/x", "x"},
	"source":        {"invoicing", "identity", "nobody"},
	"from_day":      {"2026-01-01", "2025-12-31", "2026-13-01"},
	"to_day":        {"2026-12-31", "2027-01-01", "yesterday"},
}

// aliases are the kinds of records whose ids fields hold under another name.
var aliases = map[string]string{
	"assignee": "user", "owner": "user", "owner_user": "user", "author": "user", "user_access": "user", "profile": "user", "property_team_member": "user",
	"service_account": "user", "maker": "user", "brand_api_key": "api_key", "provider": "outside_provider",
}

func (g *generator) text(name, kind string) string {
	if g.slip(10) {
		return pick(g.random, hostile)
	}
	switch {
	case name == "request_id":
		if len(g.requests) > 0 && g.one(3) {
			return pick(g.random, g.requests)
		}
		g.requests = g.remember(g.requests, uuid.NewString())
		return g.requests[len(g.requests)-1]
	case name == "etag" && len(g.etags) > 0:
		return pick(g.random, g.etags)
	case name == "page_token" && len(g.pages) > 0:
		return pick(g.random, g.pages)
	case name == "key" || name == "keys" || name == "grants" || name == "denies" || name == "grant" || name == "scopes":
		return pick(g.random, catalog.Keys()).Name
	case texts[name] != nil && g.careful:
		return pick(g.random, texts[name][:2])
	case texts[name] != nil:
		return pick(g.random, texts[name])
	case strings.HasSuffix(name, "password"):
		return pick(g.random, texts["password"])
	case name == "invoice_approver":
		return g.id("user")
	case name == "id" && g.target != "":
		return g.target
	case name == "id":
		return g.id(kind)
	case strings.HasSuffix(name, "_id") || strings.HasSuffix(name, "_ids"):
		return g.id(strings.TrimSuffix(strings.TrimSuffix(name, "s"), "_id"))
	}
	return pick(g.random, []string{"Sink trap", "As agreed on the phone.", "x"}) + " " + uuid.NewString()[:4]
}

// id returns an id of the kind, or of another, or nobody's.
func (g *generator) id(kind string) string {
	if alias, ok := aliases[kind]; ok {
		kind = alias
	}
	if ids := g.ids[kind]; len(ids) > 0 && !g.slip(8) {
		return pick(g.random, ids)
	}
	if g.slip(4) || len(g.ids) == 0 {
		return pick(g.random, []string{nobodys, strings.ToUpper(uuid.NewString()), "{" + uuid.NewString() + "}"})
	}
	return pick(g.random, g.ids[pick(g.random, slices.Sorted(maps.Keys(g.ids)))])
}

// fillTime sets a time or a duration, at its bounds and beyond them.
func (g *generator) fillTime(m protoreflect.Message) {
	if g.careful && !g.one(30) {
		in := time.Duration(1+g.random.IntN(8)) * time.Hour
		if m.Descriptor().Name() == "Timestamp" {
			in += time.Duration(time.Now().Unix())*time.Second + time.Duration(g.random.IntN(60))*24*time.Hour
		}
		m.Set(m.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(int64(in/time.Second)))
		return
	}
	seconds := pick(g.random, []int64{1893456000, 1893456000 + int64(g.random.IntN(1e6)), 1767225600, 3600, 0, -1, -62135596800, -62135596801, 253402300799, 253402300800, math.MaxInt64, math.MinInt64})
	nanos := pick(g.random, []int32{0, 0, 0, 1, 999_999_999, 1_000_000_000, -1, math.MinInt32})
	m.Set(m.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(seconds))
	m.Set(m.Descriptor().Fields().ByName("nanos"), protoreflect.ValueOfInt32(nanos))
}

// fillMask sets the mask of an update: of fields of the record, or of something else.
func (g *generator) fillMask(m protoreflect.Message, mask protoreflect.FieldDescriptor) {
	paths := m.Mutable(mask).Message()
	list := paths.Mutable(paths.Descriptor().Fields().ByName("paths")).List()
	for i := range m.Descriptor().Fields().Len() {
		record := m.Descriptor().Fields().Get(i).Message()
		if !isRecord(record) {
			continue
		}
		for range g.random.IntN(3) {
			fd := record.Fields().Get(g.random.IntN(record.Fields().Len()))
			path := string(fd.Name())
			if fd.Message() != nil && fd.Message().Fields().Len() > 0 && g.one(3) {
				path += "." + string(fd.Message().Fields().Get(0).Name())
			}
			list.Append(protoreflect.ValueOfString(path))
		}
	}
	if g.one(8) {
		list.Append(protoreflect.ValueOfString(pick(g.random, []string{"*", "", ".", "a..b", "id", stain, strings.Repeat("a.", 5000)})))
	}
}
