package storetest

import (
	"iter"
	"slices"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var indexTests = map[string]func(*test){
	"ranges":                       ranges,
	"first":                        first,
	"several keys":                 severalKeys,
	"only changed entries written": onlyChangedEntries,
	"scans are stable":             scansAreStable,
	"empty range":                  emptyRange,
	"scan ends early":              scanEndsEarly,
}

// scanner is an index or a collection.
type scanner interface {
	Scan(*store.Tx, sampleRange) iter.Seq[*storepb.Sample]
	Count(*store.Tx, sampleRange) int
}

func ranges(t *test) {
	for i := range 6 {
		t.put(t.ctx, sample("g", i))
	}
	t.put(t.ctx, sample("f", 9), sample("ga", 9), sample("h", 9))
	all := []string{"g-000", "g-001", "g-002", "g-003", "g-004", "g-005"}
	down := slices.Clone(all)
	slices.Reverse(down)
	g := byGroup.Range("g")
	for name, c := range map[string]struct {
		by   scanner
		r    sampleRange
		want []string
	}{
		"prefix":              {byGroup, g, all},
		"reverse":             {byGroup, g.Reverse(), down},
		"reverse twice":       {byGroup, g.Reverse().Reverse(), all},
		"from":                {byGroup, g.From(4), all[4:]},
		"to":                  {byGroup, g.To(2), all[:2]},
		"from to":             {byGroup, g.From(2).To(4), all[2:4]},
		"after":               {byGroup, g.After(4), all[5:]},
		"through":             {byGroup, g.Through(2), all[:3]},
		"after through":       {byGroup, g.After(1).Through(3), all[2:4]},
		"after reverse":       {byGroup, g.Reverse().After(1).Through(3), down[2:4]},
		"through a beginning": {byGroup, byGroup.Range().After("f").Through("g"), all},
		"from to reverse":     {byGroup, g.Reverse().From(2).To(4), down[2:4]},
		"all parts":           {byGroup, byGroup.Range("g", 3), all[3:4]},
		"none":                {byGroup, g.From(4).To(2), nil},
		"from between groups": {byGroup, byGroup.Range().From("ga").To("h"), []string{"ga-009"}},
		"descending part":     {byRank, byRank.Range("g"), down},
		"descending bounds":   {byRank, byRank.Range("g").From(store.Desc(3)).To(store.Desc(1)), down[2:4]},
		"records":             {samples, samples.Range().From("g-004").To("h"), []string{"g-004", "g-005", "ga-009"}},
		"records, reverse":    {samples, samples.Range().To("g-001").Reverse(), []string{"g-000", "f-009"}},
	} {
		t.view(t.ctx, func(tx *store.Tx) {
			if got := ids(c.by.Scan(tx, c.r)); !slices.Equal(got, c.want) {
				t.Errorf("%s: got %v, want %v", name, got, c.want)
			}
			if got := c.by.Count(tx, c.r); got != len(c.want) {
				t.Errorf("%s: got count %d, want %d", name, got, len(c.want))
			}
		})
	}
}

func first(t *test) {
	t.put(t.ctx, sample("g", 2), sample("g", 1))
	t.view(t.ctx, func(tx *store.Tx) {
		if v, ok := byGroup.First(tx, "g"); !ok || v.GetId() != "g-001" {
			t.Errorf("got %v, %t, want g-001", v, ok)
		}
		if v, ok := byNumber.First(tx, "g/2"); !ok || v.GetId() != "g-002" {
			t.Errorf("got %v, %t, want g-002", v, ok)
		}
		if v, ok := byNumber.First(tx, "g/"); ok || v != nil {
			t.Errorf("got %v for the beginning of a number", v)
		}
	})
}

func severalKeys(t *test) {
	t.put(t.ctx, &storepb.Sample{Id: "a", Tags: []string{"x", "y", "x"}}, &storepb.Sample{Id: "b", Tags: []string{"y"}})
	tagged := func(tag string) (got []string) {
		t.view(t.ctx, func(tx *store.Tx) { got = ids(byTag.Scan(tx, byTag.Range(tag))) })
		return got
	}
	t.wantIDs(tagged("x"), "a")
	t.wantIDs(tagged("y"), "a", "b")
	t.put(t.ctx, &storepb.Sample{Id: "a", Tags: []string{"z"}})
	t.wantIDs(tagged("x"))
	t.wantIDs(tagged("y"), "b")
	t.wantIDs(tagged("z"), "a")
}

// onlyChangedEntries counts rows: a change of a field that is in no index writes the
// record, the journal's entry and head, and the history.
func onlyChangedEntries(t *test) {
	t.close()
	e := &recorder{Engine: t.open()}
	t.openOver(e, schema)
	t.put(t.ctx, sample("g", 1))
	v := sample("g", 1)
	v.Note = "changed"
	t.put(t.ctx, v)
	if got := len(e.last); got != 4 {
		t.Errorf("a change outside of all indexes writes %d rows, want 4: %q", got, e.last)
	}
	v.Number = "other"
	t.put(t.ctx, v)
	if got := len(e.last); got != 6 {
		t.Errorf("a change of one key writes %d rows, want 6: %q", got, e.last)
	}
}

func scansAreStable(t *test) {
	for i := range 5 {
		t.put(t.ctx, sample("g", i))
	}
	t.update(t.ctx, func(tx *store.Tx) error {
		var got []string
		for v := range byGroup.Scan(tx, byGroup.Range("g")) {
			got = append(got, v.GetId())
			v.Rank += 100 // moves behind all others
			if err := samples.Put(tx, v); err != nil {
				return err
			}
			samples.Delete(tx, "g-003")
		}
		t.wantIDs(got, "g-000", "g-001", "g-002", "g-003", "g-004")
		return nil
	})
	t.update(t.ctx, func(tx *store.Tx) error {
		samples.Delete(tx, "g-000")
		if err := samples.Put(tx, sample("g", 7)); err != nil {
			return err
		}
		var got []string
		for v := range samples.All(tx) {
			got = append(got, v.GetId())
			samples.Delete(tx, v.GetId())
			if err := samples.Put(tx, sample("z", len(got))); err != nil {
				return err
			}
		}
		t.wantIDs(got, "g-001", "g-002", "g-004", "g-007")
		return nil
	})
	t.view(t.ctx, func(tx *store.Tx) { t.wantIDs(ids(samples.All(tx)), "z-001", "z-002", "z-003", "z-004") })
}

func emptyRange(t *test) {
	t.view(t.ctx, func(tx *store.Tx) {
		t.wantIDs(ids(samples.All(tx)))
		t.wantIDs(ids(byGroup.Scan(tx, byGroup.Range("g").Reverse())))
		if _, ok := byGroup.First(tx, "g"); ok {
			t.Error("an empty store has a first record")
		}
	})
}

func scanEndsEarly(t *test) {
	for i := range 5 {
		t.put(t.ctx, sample("g", i))
	}
	t.update(t.ctx, func(tx *store.Tx) error {
		if err := samples.Put(tx, sample("g", 9)); err != nil {
			return err
		}
		for _, r := range []sampleRange{byGroup.Range("g"), byGroup.Range("g").Reverse()} {
			n := 0
			for range byGroup.Scan(tx, r) {
				if n++; n == 2 {
					break
				}
			}
			if n != 2 {
				t.Errorf("got %d records, want to stop after 2", n)
			}
		}
		return nil
	})
}
