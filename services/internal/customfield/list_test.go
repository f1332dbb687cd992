package customfield_test

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/customfield"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	defer postgrestest.Stop()
	m.Run()
}

type request = servicerequestpb.ServiceRequest

// The collection that the tests list, as a service would declare it: of two properties, which
// a list merges.
var (
	requests = store.NewCollection("request", (*request).GetId)
	byTime   = requests.Index("time", func(r *request) store.Key { return store.Key{r.GetPropertyId(), r.GetCreateTime().AsTime()} })
	byField  = requests.MultiIndex("custom", func(r *request) (keys []store.Key) {
		for _, f := range customfield.Fields(r.GetCustomValues()) {
			keys = append(keys, store.Key{r.GetPropertyId(), f, r.GetCreateTime().AsTime()})
		}
		return keys
	})
	byValue = requests.MultiIndex("custom_value", func(r *request) (keys []store.Key) {
		for _, v := range r.GetCustomValues() {
			for _, part := range customfield.Parts(v) {
				keys = append(keys, store.Key{r.GetPropertyId(), v.GetCustomFieldId(), part, r.GetCreateTime().AsTime()})
			}
		}
		return keys
	})
	schema = store.NewSchema(requests)
)

var indexes = customfield.Indexes[*request]{
	All: func() []store.Range[*request] { return []store.Range[*request]{byTime.Range("p"), byTime.Range("q")} },
	Having: func(f string) []store.Range[*request] {
		return []store.Range[*request]{byField.Range("p", f), byField.Range("q", f)}
	},
	Valued: func(f string, part ...any) []store.Range[*request] {
		return []store.Range[*request]{byValue.Range(append([]any{"p", f}, part...)...), byValue.Range(append([]any{"q", f}, part...)...)}
	},
}

func open(t testing.TB, e store.Engine) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), e, schema, store.Config{Now: time.Now, MaxRead: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func openFile(t testing.TB) *store.DB {
	t.Helper()
	e, err := bolt.Open(filepath.Join(t.TempDir(), "test.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return open(t, e)
}

func openDatabase(t testing.TB) *store.DB {
	t.Helper()
	e, _, err := postgres.Open(t.Context(), postgrestest.Database(t), "test", store.MakeMissing)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, e)
}

func origin(ctx context.Context) context.Context {
	return store.WithOrigin(ctx, store.Origin{Tenant: "acme", Caller: "ann", Method: "test"})
}

// put writes the requests, those that have only an id not any more.
func put(t testing.TB, db *store.DB, all ...*request) {
	t.Helper()
	for some := range slices.Chunk(all, 500) {
		err := db.Update(origin(t.Context()), func(tx *store.Tx) error {
			for _, r := range some {
				if r.GetPropertyId() == "" {
					r.PropertyId, r.CreateTime = "p", timestamppb.New(noon)
				}
				if err := requests.Put(tx, r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// page returns the ids of a page, as a list would.
func page(t testing.TB, db *store.DB, req *servicerequestpb.ListServiceRequestsRequest, fields []*identitypb.CustomField) (ids []string, next string) {
	t.Helper()
	filter, err := customfield.Parse(req.GetFilter(), bare, fields)
	if err != nil {
		t.Fatal(err)
	}
	order, err := customfield.ParseOrder(req.GetOrderBy(), "create_time desc", fields)
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(origin(t.Context()), func(tx *store.Tx) error {
		keep := func(r *request) bool { return filter.Match(r) }
		page, token, err := store.PageInSections(tx, req, customfield.Sections(tx, filter, order, keep, indexes)...)
		ids, next = nil, token
		for _, r := range page {
			ids = append(ids, r.GetId())
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v: %v", req, err)
	}
	return ids, next
}

// pages returns the ids of all pages.
func pages(t testing.TB, db *store.DB, req *servicerequestpb.ListServiceRequestsRequest) (all []string) {
	t.Helper()
	req = proto.CloneOf(req)
	for {
		ids, next := page(t, db, req, filtered)
		if all = append(all, ids...); next == "" {
			return all
		}
		req.PageToken = next
	}
}

// texts stand in their order, those that are equal in it in one line. How they are less and
// greater in a filter their second number says.
var texts = []struct {
	text         string
	order, exact int
}{
	{"1 tap", 0, 0}, {"10 taps", 1, 1}, {"9 taps", 2, 2},
	{"apple", 3, 3}, {"Ápple", 3, 3}, {"APPLE", 3, 3},
	{"Apple pie", 4, 4},
	{"arger", 5, 5}, {"Ärger", 5, 5}, {"ÄRGER", 5, 5},
	{"strasse", 6, 6}, {"Straße", 6, 6},
	{strings.Repeat("x", 100), 7, 7}, {strings.Repeat("X", 100) + "a", 7, 8}, {strings.Repeat("x", 100) + "B", 7, 9},
	{"zebra", 8, 10}, {"Ωmega", 9, 11}, {"ώmega", 9, 11},
}

// held is what a request holds in each field, as a plain sort sees it; 0 stands first and -1
// for no value.
type held struct {
	*request
	text, date, choice int
	yes                int
	number             *int64
}

var numbers = []int64{math.MinInt64, -1_000_000_007, -256, -10, -9, -1, 0, 1, 9, 10, 11, 255, 256, 1_000_000_007, math.MaxInt64}

func draw(random *rand.Rand, n int) held {
	h := held{request: &request{
		Id: fmt.Sprintf("r%03d", n), PropertyId: []string{"p", "q"}[random.IntN(2)],
		CreateTime: timestamppb.New(noon.Add(time.Duration(random.IntN(40)) * time.Second)),
	}, text: -1, date: -1, choice: -1, yes: -1}
	add := func(v *typepb.CustomValue) { h.CustomValues = append(h.CustomValues, v) }
	if random.IntN(4) > 0 {
		h.text = random.IntN(len(texts))
		add(text("t", texts[h.text].text))
	}
	if random.IntN(4) > 0 {
		h.number = &numbers[random.IntN(len(numbers))]
		add(number("n", *h.number))
	}
	if random.IntN(4) > 0 {
		h.yes = random.IntN(2)
		add(yes("y", h.yes == 1))
	}
	if random.IntN(4) > 0 {
		day := noon.AddDate(0, 0, random.IntN(2000)-1000)
		h.date = int(day.Unix() / 86400)
		add(date("d", int32(day.Year()), int32(day.Month()), int32(day.Day())))
	}
	if random.IntN(4) > 0 {
		h.choice = random.IntN(3)
		add(choice("c", inOrder[h.choice]))
	}
	if random.IntN(4) > 0 {
		add(choices("cs", []string{"a", "b", "x-1"}[random.IntN(3):]...))
	}
	return h
}

// inOrder are the choices of the field c, as it has them.
var inOrder = []string{"a", "b", "old"}

// rank is what a plain sort by a field goes by, and whether there is something.
func (h held) rank(field string) (rank int64, ok bool) {
	switch field {
	case "t":
		if h.text < 0 {
			return 0, false
		}
		return int64(texts[h.text].order), true
	case "n":
		if h.number == nil {
			return 0, false
		}
		return *h.number, true
	case "y":
		return int64(h.yes), h.yes >= 0
	case "d":
		return int64(h.date), h.date >= 0
	}
	return int64(h.choice), h.choice >= 0
}

func byAge(a, b held) int {
	return cmp.Or(a.GetCreateTime().AsTime().Compare(b.GetCreateTime().AsTime()), strings.Compare(a.GetId(), b.GetId()))
}

// sorted is a plain sort by an order_by.
func sorted(all []held, order string) (ids []string) {
	name, desc := strings.CutSuffix(order, " desc")
	field, custom := strings.CutPrefix(name, "custom_values.")
	turn := func(c int) int {
		if desc {
			return -c
		}
		return c
	}
	slices.SortFunc(all, func(a, b held) int {
		if !custom {
			return turn(byAge(a, b))
		}
		ra, oka := a.rank(field)
		rb, okb := b.rank(field)
		switch {
		case oka && okb:
			return turn(cmp.Or(cmp.Compare(ra, rb), byAge(a, b)))
		case oka:
			return -1
		case okb:
			return 1
		}
		return byAge(b, a)
	})
	for _, h := range all {
		ids = append(ids, h.GetId())
	}
	return ids
}

// condition draws one, as a filter writes it and as plain code has it.
func condition(random *rand.Rand) (string, func(held) bool) {
	op := []string{"=", "!=", "<", "<=", ">", ">="}[random.IntN(6)]
	holds := func(c int, ok bool) bool {
		switch op {
		case "=":
			return ok && c == 0
		case "!=":
			return !ok || c != 0
		case "<":
			return ok && c < 0
		case "<=":
			return ok && c <= 0
		case ">":
			return ok && c > 0
		}
		return ok && c >= 0
	}
	switch random.IntN(5) {
	case 0:
		i := random.IntN(len(texts))
		return fmt.Sprintf("custom_values.t %s %q", op, texts[i].text), func(h held) bool {
			if h.text < 0 || op == "=" || op == "!=" {
				return holds(cmp.Compare(h.text, i), h.text >= 0)
			}
			return holds(cmp.Compare(texts[h.text].exact, texts[i].exact), true)
		}
	case 1:
		n := numbers[random.IntN(len(numbers))]
		return fmt.Sprintf("custom_values.n %s %d", op, n), func(h held) bool {
			if h.number == nil {
				return holds(0, false)
			}
			return holds(cmp.Compare(*h.number, n), true)
		}
	case 2:
		day := noon.AddDate(0, 0, random.IntN(2000)-1000)
		return fmt.Sprintf("custom_values.d %s %q", op, day.Format(time.DateOnly)), func(h held) bool {
			return holds(cmp.Compare(int64(h.date), day.Unix()/86400), h.date >= 0)
		}
	case 3:
		return "custom_values.c != a", func(h held) bool { return h.choice != 0 }
	default:
		return "custom_values.y = true", func(h held) bool { return h.yes == 1 }
	}
}

var orders = []string{"", "create_time", "create_time desc", "custom_values.t", "custom_values.n", "custom_values.y", "custom_values.d", "custom_values.c"}

// A list by ranges of values and in the order of values is what a look at every request and a
// plain sort find, page by page, in files and in a database.
func TestSections(t *testing.T) {
	for _, c := range []struct {
		name  string
		open  func(testing.TB) *store.DB
		lists int
	}{{"file", openFile, 150}, {"database", openDatabase, 40}} {
		t.Run(c.name, func(t *testing.T) {
			db := c.open(t)
			random := rand.New(rand.NewPCG(3, 5))
			if testing.Short() {
				c.lists /= 4
			}
			var all []held
			var records []*request
			for n := range 300 {
				all = append(all, draw(random, n))
				records = append(records, all[n].request)
			}
			put(t, db, records...)
			for range c.lists {
				req := &servicerequestpb.ListServiceRequestsRequest{PageSize: int32(1 + random.IntN(120)), OrderBy: orders[random.IntN(len(orders))]}
				if strings.HasPrefix(req.GetOrderBy(), "custom") && random.IntN(2) == 0 {
					req.OrderBy += " desc"
				}
				left, conditions := slices.Clone(all), []string{}
				for range random.IntN(4) {
					text, holds := condition(random)
					conditions = append(conditions, text)
					left = slices.DeleteFunc(left, func(h held) bool { return !holds(h) })
				}
				req.Filter = strings.Join(conditions, " AND ")
				got, want := pages(t, db, req), sorted(left, cmp.Or(req.GetOrderBy(), "create_time desc"))
				if !slices.Equal(got, want) {
					t.Fatalf("%v:\n got %v\nwant %v", req, got, want)
				}
			}
		})
	}
}

// What stays as it is comes once and in its place, whatever becomes of others, and of the
// choices of the field, between two pages.
func TestSectionsWhileDataChanges(t *testing.T) {
	for _, order := range orders[3:] {
		db := openFile(t)
		random := rand.New(rand.NewPCG(8, 1))
		var stay, move []held
		for n := range 60 {
			h := draw(random, n)
			if put(t, db, h.request); n%2 == 0 {
				stay = append(stay, h)
			} else {
				move = append(move, h)
			}
		}
		fields := slices.Clone(filtered)
		req := &servicerequestpb.ListServiceRequestsRequest{PageSize: 4, OrderBy: order + " desc"}
		var got []string
		for n := 0; ; n++ {
			ids, next := page(t, db, req, fields)
			for _, id := range ids {
				if slices.ContainsFunc(stay, func(h held) bool { return h.GetId() == id }) {
					got = append(got, id)
				}
			}
			if req.PageToken = next; next == "" {
				break
			}
			moved := move[random.IntN(len(move))]
			other := draw(random, 1000+n)
			other.Id = moved.GetId()
			put(t, db, other.request, draw(random, 2000+n).request)
			fields[4] = proto.CloneOf(fields[4])
			fields[4].Choices = append(fields[4].Choices, &identitypb.CustomFieldChoice{Id: fmt.Sprint("new", n)})
		}
		if want := sorted(stay, order+" desc"); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", order, got, want)
		}
	}
}

// counting counts the pairs that are read in scans.
type counting struct {
	store.Engine
	n int
}

func (c *counting) View(ctx context.Context, f func(store.Snapshot) error) error {
	return c.Engine.View(ctx, func(s store.Snapshot) error { return f(counted{s, c}) })
}

type counted struct {
	store.Snapshot
	c *counting
}

func (c counted) Scan(lo, hi []byte, reverse bool) iter.Seq2[store.Pair, error] {
	return func(yield func(store.Pair, error) bool) {
		for p, err := range c.Snapshot.Scan(lo, hi, reverse) {
			if c.c.n++; !yield(p, err) {
				return
			}
		}
	}
}

// Of many records a range reads its own, in its order and in the list's; a page in the order
// of values reads no more than a page.
func TestSectionsReadTheirRange(t *testing.T) {
	file, err := bolt.Open(filepath.Join(t.TempDir(), "test.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := &counting{Engine: file}
	db := open(t, e)
	var all []*request
	for n := range 6000 {
		all = append(all, &request{
			Id: fmt.Sprintf("r%04d", n), PropertyId: "p", CreateTime: timestamppb.New(noon.Add(time.Duration(n*7919%6000) * time.Second)),
			CustomValues: []*typepb.CustomValue{number("n", int64(n-3000)), text("t", fmt.Sprint("t", n%2))},
		})
	}
	put(t, db, all...)
	for _, c := range []struct {
		filter, order string
		want, most    int
	}{
		{"custom_values.n >= -5 AND custom_values.n < 5", "", 10, 12},
		{"custom_values.n >= -5 AND custom_values.n < 5", "custom_values.n desc", 10, 12},
		{"custom_values.n > 2990", "create_time", 9, 12},
		{"custom_values.n = 12", "", 1, 3},
		{"custom_values.n < 2500", "custom_values.n", 50, 55},
		{"", "custom_values.n desc", 50, 55},
		{"", "custom_values.t", 50, 55},
		{`custom_values.t >= "T0" AND custom_values.n < -2990`, "", 10, 2000 + 15}, // the first range is too big
	} {
		e.n = 0
		got, _ := page(t, db, &servicerequestpb.ListServiceRequestsRequest{Filter: c.filter, OrderBy: c.order}, filtered)
		if len(got) != c.want || e.n > c.most {
			t.Errorf("%s by %q: got %d requests of %d rows, want %d of at most %d", c.filter, c.order, len(got), e.n, c.want, c.most)
		}
	}
}

func TestParseOrderRefuses(t *testing.T) {
	const want = "order_by: must be one of: create_time desc, create_time, custom_values. and the id of a field of such records that is neither of CHOICES " +
		"nor deleted (CustomFieldService.ListCustomFields lists them), each also with desc"
	for _, text := range []string{
		"custom_values.cs", "custom_values.gone desc", "custom_values.", "custom_values", "custom_values.n desc desc", "custom_values.n, create_time",
		`"custom_values.n"`, "custom_values.n.number", "title", "n", "customValues.n", "custom_values.n DESC",
	} {
		if _, err := customfield.ParseOrder(text, "create_time desc", filtered); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
	for text, byField := range map[string]bool{"": false, "create_time asc": false, "custom_values.n asc": true, "  custom_values.t\tdesc ": true} {
		if o, err := customfield.ParseOrder(text, "create_time desc", filtered); err != nil || o.ByField() != byField {
			t.Errorf("%q: got %t, %v", text, o.ByField(), err)
		}
	}
}
