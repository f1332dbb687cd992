package storetest

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var alwaysTests = map[string]func(*test){
	"what breaks an invariant is named":        brokenNamed,
	"an invariant is asked in one snapshot":    askedInOneSnapshot,
	"numbers are counted while they change":    countedMeanwhile,
	"nothing is expected of what is erased":    erasedUnexpected,
	"a check that was cut off is made again":   cutOffAgain,
	"an invariant belongs to an opened schema": declaredInTime,
}

// promising is a schema in which a sample refers to the sample or the group that its note names, and
// a group, which has rank 0, has the number of its samples.
type promising struct {
	groups, samples *store.Collection[*storepb.Sample]
	schema          *store.Schema
}

func promise() *promising {
	p := &promising{
		groups:  store.NewCollection("group", (*storepb.Sample).GetId),
		samples: store.NewCollection("sample", (*storepb.Sample).GetId),
	}
	p.schema = store.NewSchema(p.groups, p.samples)
	p.samples.Refers("note", (*storepb.Sample).GetNote, p.samples, p.groups)
	p.samples.Always("tags", func(_ *store.Tx, v *storepb.Sample) string {
		if slices.IsSorted(v.GetTags()) {
			return ""
		}
		return fmt.Sprintf("they are %q, and should be in order", v.GetTags())
	})
	store.Counts(p.groups, "rank", (*storepb.Sample).GetRank, p.samples, (*storepb.Sample).GetGroup)
	return p
}

// problems verifies and returns what is wrong.
func (t *test) problems() (found []string) {
	t.Helper()
	v, err := t.db.Verify(t.ctx, func(p string) { found = append(found, p) }, func(store.Verified) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if v.Problems != int64(len(found)) || v.Broken != v.Problems {
		t.Errorf("verify counts %+v, and tells of %q", v, found)
	}
	return found
}

func (t *test) openPromising() *promising {
	t.Helper()
	p := promise()
	t.close()
	t.openOver(t.open(), p.schema)
	return p
}

func brokenNamed(t *test) {
	p := t.openPromising()
	put := func(c *store.Collection[*storepb.Sample], v *storepb.Sample) {
		t.Helper()
		t.update(t.ctx, func(tx *store.Tx) error { return c.Put(tx, v) })
	}
	put(p.groups, &storepb.Sample{Id: "g", Rank: 1})
	put(p.samples, &storepb.Sample{Id: "a", Group: "g", Note: "g"})
	put(p.samples, &storepb.Sample{Id: "b", Note: "a"})
	put(p.samples, &storepb.Sample{Id: "c"})
	if found := t.problems(); len(found) > 0 {
		t.Errorf("of sound records it says %q", found)
	}
	put(p.samples, &storepb.Sample{Id: "b", Note: "gone", Tags: []string{"b", "a"}})
	put(p.samples, &storepb.Sample{Id: "c", Group: "g"})
	t.wantIDs(t.problems(),
		`records of acme: group "g" breaks "rank": it tells of 1, and there are 2 sample that name it`,
		`records of acme: sample "b" breaks "note": there is no sample or group "gone"`,
		`records of acme: sample "b" breaks "tags": they are ["b" "a"], and should be in order`,
	)
	t.wantVerified(true, "records that are whole")
	t.wantIDs(p.schema.Invariants(), "group/rank", "sample/note", "sample/tags")
}

// meanwhile verifies again and again while f writes, as often as it says that it goes on.
func (t *test) meanwhile(f func(i int) error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		for i := range 200 {
			if err := f(i); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		if found := t.problems(); len(found) > 0 {
			t.Fatalf("while some write it says %q", found)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// askedInOneSnapshot moves what is in one record to another while it is verified that all of it is there.
func askedInOneSnapshot(t *test) {
	const records, whole = 20, 1000
	c := store.NewCollection("sample", (*storepb.Sample).GetId)
	var asked atomic.Int64
	c.Always("whole", func(tx *store.Tx, _ *storepb.Sample) string {
		asked.Add(1)
		sum := int64(0)
		for v := range c.All(tx) {
			sum += v.GetRank()
		}
		if sum != whole {
			return fmt.Sprintf("all come to %d", sum)
		}
		return ""
	})
	t.close()
	t.openOver(t.open(), store.NewSchema(c))
	t.update(t.ctx, func(tx *store.Tx) error {
		for i := range records - 1 {
			if err := c.Put(tx, &storepb.Sample{Id: fmt.Sprint("s", i)}); err != nil {
				return err
			}
		}
		return c.Put(tx, &storepb.Sample{Id: "all", Rank: whole})
	})
	t.meanwhile(func(i int) error {
		return t.db.Update(t.ctx, func(tx *store.Tx) error {
			from, _ := c.Get(tx, "all")
			to, _ := c.Get(tx, fmt.Sprint("s", i%(records-1)))
			from.Rank--
			to.Rank++
			if err := c.Put(tx, from); err != nil {
				return err
			}
			return c.Put(tx, to)
		})
	})
	if asked.Load() < records {
		t.Errorf("it asked of %d records", asked.Load())
	}
}

func countedMeanwhile(t *test) {
	p := t.openPromising()
	t.update(t.ctx, func(tx *store.Tx) error { return p.groups.Put(tx, &storepb.Sample{Id: "g"}) })
	t.meanwhile(func(i int) error {
		return t.db.Update(t.ctx, func(tx *store.Tx) error {
			g, _ := p.groups.Get(tx, "g")
			g.Rank++
			if err := p.groups.Put(tx, g); err != nil {
				return err
			}
			return p.samples.Put(tx, &storepb.Sample{Id: fmt.Sprint(i), Group: "g"})
		})
	})
}

// erasedUnexpected erases records that refer to others, step by step, of which the others go first.
func erasedUnexpected(t *test) {
	p := t.openPromising()
	t.update(t.ctx, func(tx *store.Tx) error {
		for i := range 450 {
			id := fmt.Sprintf("%03d", i)
			if err := p.groups.Put(tx, &storepb.Sample{Id: id, Rank: 1}); err != nil {
				return err
			}
			if err := p.samples.Put(tx, &storepb.Sample{Id: id, Note: id, Group: id}); err != nil {
				return err
			}
		}
		return nil
	})
	for t.eraseStep() {
		t.reopenAs(p.schema)
	}
	// Whoever lives here again keeps to it.
	t.update(t.ctx, func(tx *store.Tx) error { return p.samples.Put(tx, &storepb.Sample{Id: "x", Note: "gone"}) })
	if found := t.problems(); len(found) != 1 {
		t.Errorf("after the tenant was erased it says %q", found)
	}
}

func (t *test) reopenAs(s *store.Schema) {
	t.Helper()
	t.close()
	t.openOver(t.open(), s)
}

// cutOffAgain has a check read for so long that its transaction ends: what it makes of that does not count.
func cutOffAgain(t *test) {
	c := store.NewCollection("sample", (*storepb.Sample).GetId)
	cut := false
	c.Always("all", func(tx *store.Tx, _ *storepb.Sample) string {
		for !cut && tx.Failed() == nil {
			c.Has(tx, "a")
		}
		if cut = true; !c.Has(tx, "b") {
			return "it does not find the other"
		}
		return ""
	})
	t.close()
	db, err := store.Open(t.ctx, t.open(), store.NewSchema(c), store.Config{Now: t.clock.Now, MaxRead: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.db = db
	t.update(t.ctx, func(tx *store.Tx) error {
		if err := c.Put(tx, &storepb.Sample{Id: "a"}); err != nil {
			return err
		}
		return c.Put(tx, &storepb.Sample{Id: "b"})
	})
	if found := t.problems(); len(found) > 0 || !cut {
		t.Errorf("got %q, and that it was cut off is %t", found, cut)
	}
}

func declaredInTime(t *test) {
	none := func(*store.Tx, *storepb.Sample) string { return "" }
	fresh := store.NewCollection("fresh", (*storepb.Sample).GetId)
	for want, declare := range map[string]func(){
		"after its schema was opened": func() { samples.Always("late", none) },
		"declared twice":              func() { fresh.Always("x", none); fresh.Refers("x", (*storepb.Sample).GetNote, fresh) },
	} {
		if p := fmt.Sprint(panics(declare)); !strings.Contains(p, want) {
			t.Errorf("got panic %q, want one that tells %q", p, want)
		}
	}
}
