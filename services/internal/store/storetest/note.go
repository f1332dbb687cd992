package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var noteTests = map[string]func(*test){
	"a note goes with the first change": noteGoesAlong,
	"a note without a change":           noteAlone,
	"a note of another tenant":          noteOfAnother,
	"notes in pages":                    notesInPages,
	"uses add up":                       usesAddUp,
	"uses in pages":                     usesInPages,
	"last uses":                         lastUses,
	"last uses of many":                 lastUsesOfMany,
	"how far a file of counts has come": countedGoesAlong,
	"the id of a store":                 storeID,
	"notes and uses are pruned":         notesPruned,
}

// noting returns the context of a call with a note.
func (t *test) noting(ctx context.Context, tenant, id string) (context.Context, *store.Note) {
	t.Helper()
	n, err := store.NewNote(tenant, t.clock.Now(), id, &storepb.Sample{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	o := store.OriginOf(ctx)
	o.Note = n
	return store.WithOrigin(ctx, o), n
}

// notes returns the ids of the notes of a tenant, page by page.
func (t *test) notes(tenant string, size int32, from, to time.Time, keep func(string) bool) (pages [][]string) {
	t.Helper()
	for token := ""; ; {
		var page []string
		t.view(as(tenant, "ann"), func(tx *store.Tx) {
			req := &storepb.ListSamplesRequest{PageSize: size, PageToken: token}
			var err error
			token, err = store.PageNotes(tx, req, from, to, func(value []byte) (bool, error) {
				v := &storepb.Sample{}
				if err := proto.Unmarshal(value, v); err != nil || !keep(v.GetId()) {
					return false, err
				}
				page = append(page, v.GetId())
				return true, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
		pages = append(pages, page)
		if token == "" {
			return pages
		}
	}
}

func all(string) bool { return true }

func (t *test) wantNotes(tenant string, want ...string) {
	t.Helper()
	t.wantIDs(slices.Concat(t.notes(tenant, 0, time.Time{}, time.Time{}, all)...), want...)
}

func noteGoesAlong(t *test) {
	t.close()
	r := &recorder{Engine: t.open()}
	t.openOver(r, schema)
	before := r.n
	ctx, n := t.noting(t.ctx, "acme", "n1")
	no := errors.New("no")
	if err := t.db.Update(ctx, func(tx *store.Tx) error { return errors.Join(samples.Put(tx, noted("x", "half")), no) }); !errors.Is(err, no) {
		t.Fatal(err)
	}
	if err := t.db.Update(ctx, func(*store.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if n.Written() || r.n != before {
		t.Fatalf("written %t with %d commits, though nothing was changed", n.Written(), r.n-before)
	}
	t.put(ctx, sample("a", 1))
	if !n.Written() || r.n != before+1 {
		t.Errorf("written %t with %d commits, want one of both", n.Written(), r.n-before)
	}
	if !slices.IsSortedFunc(r.last, func(a, b store.Write) int { return slices.Compare(a.Key, b.Key) }) {
		t.Errorf("the writes are not in the order of their keys: %q", r.last)
	}
	writes := len(r.last)
	t.put(ctx, sample("b", 2))
	if len(r.last) >= writes {
		t.Errorf("the second change wrote %d rows, the first with the note %d", len(r.last), writes)
	}
	t.wantNotes("acme", "n1")
	if got := len(t.journal("acme", 0)); got != 2 {
		t.Errorf("got %d entries of the journal, want those of two changes", got)
	}
}

func noteAlone(t *test) {
	_, n := t.noting(t.ctx, "acme", "n1")
	if err := t.db.WriteNote(context.Background(), n); err != nil || !n.Written() {
		t.Fatalf("got %v, written %t", err, n.Written())
	}
	t.reopen()
	t.wantNotes("acme", "n1")
	_, again := t.noting(t.ctx, "acme", "n1")
	if err := t.db.WriteNote(context.Background(), again); err != nil {
		t.Fatal(err)
	}
	t.wantNotes("acme", "n1")
	if got := len(t.journal("acme", 0)); got != 0 {
		t.Errorf("a note alone made %d entries of the journal", got)
	}
}

func noteOfAnother(t *test) {
	ctx, n := t.noting(t.ctx, "beta", "n1")
	t.put(ctx, sample("a", 1))
	if !n.Written() {
		t.Error("the note was not written")
	}
	t.wantNotes("beta", "n1")
	t.wantNotes("acme")
	tenants, err := t.db.Tenants(t.ctx)
	if err != nil || !slices.Equal(tenants, []string{"acme", "beta"}) {
		t.Errorf("got tenants %v, %v", tenants, err)
	}
}

func notesInPages(t *test) {
	start := t.clock.Now()
	for i := range 7 {
		_, n := t.noting(t.ctx, "acme", fmt.Sprint("n", i))
		if err := t.db.WriteNote(t.ctx, n); err != nil {
			t.Fatal(err)
		}
		t.clock.advance(time.Minute)
	}
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	even := func(id string) bool { return id[1]%2 == 0 }
	for _, c := range []struct {
		from, to time.Time
		keep     func(string) bool
		want     string
	}{
		{time.Time{}, time.Time{}, all, "[[n6 n5] [n4 n3] [n2 n1] [n0]]"},
		{at(2), at(5), all, "[[n4 n3] [n2]]"},
		{at(7), time.Time{}, all, "[[]]"},
		{time.Time{}, at(0), all, "[[]]"},
		{time.Time{}, time.Time{}, even, "[[n6 n4] [n2 n0]]"},
	} {
		if got := fmt.Sprint(t.notes("acme", 2, c.from, c.to, c.keep)); got != c.want {
			t.Errorf("from %v to %v: got %s, want %s", c.from, c.to, got, c.want)
		}
	}
	t.wantNotes("beta")
}

func (t *test) uses(user string, from, to int64) (got []store.Use) {
	t.Helper()
	t.view(t.ctx, func(tx *store.Tx) {
		for u := range tx.Uses(user, from, to) {
			got = append(got, u)
		}
	})
	return got
}

func (t *test) addUses(uses ...store.Use) {
	t.Helper()
	t.update(t.ctx, func(tx *store.Tx) error {
		tx.AddUses(uses...)
		return nil
	})
}

func usesAddUp(t *test) {
	today := store.DayOf(t.clock.Now())
	t.addUses(store.Use{Day: today, User: "ann", Grant: "g", Reads: 2}, store.Use{Day: today, User: "ann", Grant: "", Reads: 1})
	t.addUses(store.Use{Day: today, User: "ann", Grant: "g", Changes: 3, Consulted: true}, store.Use{Day: today, User: "bob", Grant: "g", Reads: 9})
	t.addUses(store.Use{Day: today - 1, User: "ann", Grant: "g", Reads: 4})
	want := []store.Use{
		{Day: today - 1, User: "ann", Grant: "g", Reads: 4},
		{Day: today, User: "ann", Grant: "", Reads: 1}, {Day: today, User: "ann", Grant: "g", Reads: 2, Changes: 3, Consulted: true},
	}
	if got := t.uses("ann", 0, today); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := t.uses("ann", today, today+5); !slices.Equal(got, want[1:]) {
		t.Errorf("of today: got %v, want %v", got, want[1:])
	}
	if got := len(t.uses("", 0, today)); got != 4 {
		t.Errorf("got %d uses of all, want 4", got)
	}
	t.ctx = as("beta", "ann")
	if got := t.uses("", 0, today); len(got) != 0 {
		t.Errorf("another tenant sees %v", got)
	}
}

// countedGoesAlong commits how far a file has come with what was counted in it, or neither.
func countedGoesAlong(t *test) {
	today := store.DayOf(t.clock.Now())
	count := func(file string, generation uint64, fail error) {
		t.Helper()
		err := t.db.Update(t.ctx, func(tx *store.Tx) error {
			tx.AddUses(store.Use{Day: today, User: "ann", Grant: "g", Reads: 1})
			tx.SetCounted(file, generation)
			return fail
		})
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
	}
	want := func(file string, generation uint64) {
		t.Helper()
		if got, err := t.db.Counted(t.ctx, file); got != generation || err != nil {
			t.Errorf("%s has come to %d, %v, want %d", file, got, err, generation)
		}
	}
	want("one", 0)
	count("one", 1, nil)
	count("one", 2, errors.New("no"))
	want("one", 1)
	count("one", 2, nil)
	count("other", 1, nil)
	t.reopen()
	want("one", 2)
	want("other", 1)
	if got := t.uses("ann", 0, today); len(got) != 1 || got[0].Reads != 3 {
		t.Errorf("got the uses %v, want 3 reads", got)
	}
	if got := len(t.journal("acme", 0)); got != 0 {
		t.Errorf("counts made %d entries of the journal", got)
	}
	for range 2 {
		err := t.db.DropCounted(t.ctx, func(file string, day int64) bool { return file == "one" && day == today })
		if err != nil {
			t.Fatal(err)
		}
	}
	want("one", 0)
	want("other", 1)
}

// storeID is made once, and is no part of what is copied.
func storeID(t *test) {
	id, err := t.db.ID(t.ctx)
	if err != nil || len(id) != 32 {
		t.Fatalf("got the id %q, %v", id, err)
	}
	t.put(t.ctx, sample("a", 1))
	t.update(t.ctx, func(tx *store.Tx) error {
		tx.AddUses(store.Use{Day: 1, User: "ann", Grant: "g", Reads: 1})
		tx.SetCounted("file", 1)
		return nil
	})
	t.reopen()
	if again, err := t.db.ID(t.ctx); again != id || err != nil {
		t.Errorf("after opening it again the id is %q, %v, want %q", again, err, id)
	}
}

func usesInPages(t *test) {
	today := store.DayOf(t.clock.Now())
	for d := range int64(3) {
		for _, user := range []string{"ann", "bob"} {
			for _, grant := range []string{"g", "h"} {
				t.addUses(store.Use{Day: today - d, User: user, Grant: grant, Reads: 1})
			}
		}
	}
	for _, user := range []string{"", "bob"} {
		var got []store.Use
		for token, pages := "", 0; pages == 0 || token != ""; pages++ {
			t.view(t.ctx, func(tx *store.Tx) {
				var err error
				token, err = store.PageUses(tx, &storepb.ListSamplesRequest{PageSize: 5, PageToken: token}, user, 0, today, func(u store.Use) bool {
					got = append(got, u)
					return true
				})
				if err != nil {
					t.Fatal(err)
				}
			})
		}
		if want := t.uses(user, 0, today); !slices.Equal(got, want) || len(want) != 12 && user == "" || len(want) != 6 && user != "" {
			t.Errorf("of %q: got %v, want %v", user, got, want)
		}
	}
}

// lastUses asks about users drawn among uses that are drawn, of which days have none to many.
func lastUses(t *test) {
	today := store.DayOf(t.clock.Now())
	seed := uint32(3)
	under := func(n int) int { // some number of 0 to n-1, the same in each run
		seed = seed*1664525 + 1013904223
		return int(seed>>8) % n
	}
	var all []store.Use
	for d := range int64(12) {
		for range []int{0, 3, 30, 300}[under(4)] {
			all = append(all, store.Use{Day: today - 8*d, User: fmt.Sprintf("u%03d", under(400)), Grant: fmt.Sprint("g", under(1+int(d))), Reads: 1})
		}
	}
	t.addUses(all...)
	for range 40 {
		asked, from := map[string]bool{}, today-int64(under(100))
		for range []int{0, 1, 2, 40, 400}[under(5)] {
			asked[fmt.Sprintf("u%03d", under(420))] = true
		}
		want := map[string]int64{}
		for _, u := range all {
			if asked[u.User] && u.Day >= max(from, today-store.KeepDays) {
				want[u.Grant] = max(want[u.Grant], u.Day)
			}
		}
		if got := t.lastUses(slices.Sorted(maps.Keys(asked)), from); !maps.Equal(got, want) {
			t.Errorf("of %d users since day %d: got %v, want %v", len(asked), from-today, got, want)
		}
	}
}

// lastUsesOfMany has more uses than one transaction looks at, of some users who are looked
// for one by one and of others who are not.
func lastUsesOfMany(t *test) {
	today := store.DayOf(t.clock.Now())
	user := func(i int) string { return fmt.Sprintf("u%05d", i) }
	const many = 20_500
	for from := 0; from < many; from += 500 {
		var some []store.Use
		for i := range 500 {
			some = append(some, store.Use{Day: today, User: user(from + i), Grant: fmt.Sprint("g", (from+i)/4500), Reads: 1})
		}
		t.addUses(some...)
	}
	t.addUses(store.Use{Day: today - 1, User: user(many - 1), Grant: "h", Reads: 1}, store.Use{Day: today - 1, User: user(0), Grant: "i", Reads: 1})
	everybody, few := make([]string, many), []string{user(0), user(12_000), user(many - 1)}
	for i := range everybody {
		everybody[i] = user(i)
	}
	for _, q := range []struct {
		users []string
		want  map[string]int64
	}{
		{everybody, map[string]int64{"g0": today, "g1": today, "g2": today, "g3": today, "g4": today, "h": today - 1, "i": today - 1}},
		{few, map[string]int64{"g0": today, "g2": today, "g4": today, "h": today - 1, "i": today - 1}},
		{few[1:2], map[string]int64{"g2": today}},
		{nil, map[string]int64{}},
	} {
		if got := t.lastUses(q.users, today-3); !maps.Equal(got, q.want) {
			t.Errorf("of %d users: got %v, want %v", len(q.users), got, q.want)
		}
	}
}

func (t *test) lastUses(users []string, from int64) map[string]int64 {
	t.Helper()
	got := map[string]int64{}
	if err := t.db.LastUses(t.ctx, users, from, got); err != nil {
		t.Fatal(err)
	}
	return got
}

// notesPruned prunes more than one transaction does, and leaves what is young.
func notesPruned(t *test) {
	const many = 520
	today := store.DayOf(t.clock.Now())
	for i := range many {
		t.addUses(store.Use{Day: today, User: fmt.Sprint("u", i), Grant: "g", Reads: 1})
	}
	_, old := t.noting(t.ctx, "acme", "old")
	if err := t.db.WriteNote(t.ctx, old); err != nil {
		t.Fatal(err)
	}
	t.clock.advance(store.KeepDays * 24 * time.Hour)
	if err := t.db.Prune(t.ctx); err != nil {
		t.Fatal(err)
	}
	t.wantNotes("acme", "old")
	if got := len(t.uses("", 0, today+store.KeepDays)); got != many {
		t.Errorf("got %d uses on the last day, want %d", got, many)
	}
	_, young := t.noting(t.ctx, "acme", "young")
	if err := t.db.WriteNote(t.ctx, young); err != nil {
		t.Fatal(err)
	}
	t.addUses(store.Use{Day: today + store.KeepDays, User: "ann", Grant: "g", Reads: 1})
	rows := t.rows()
	t.clock.advance(24 * time.Hour)
	if err := t.db.Prune(t.ctx); err != nil {
		t.Fatal(err)
	}
	if got := rows - t.rows(); got != many+1 {
		t.Errorf("pruning removed %d rows, want %d", got, many+1)
	}
	t.wantNotes("acme", "young")
}
