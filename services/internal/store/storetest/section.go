package storetest

import (
	"fmt"
	"slices"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var sectionTests = map[string]func(*test){
	"sections":                    sections,
	"sections while data changes": changingSections,
	"sections that are gone":      goneSections,
	"gathered entries":            gathered,
	"too many to gather":          tooManyToGather,
}

type sampleSection = store.Section[*storepb.Sample]

func (t *test) sectionPage(req *storepb.ListSamplesRequest, sections func(*store.Tx) []sampleSection) (got []string, next string, err error) {
	t.view(t.ctx, func(tx *store.Tx) {
		var items []*storepb.Sample
		items, next, err = store.PageInSections(tx, req, sections(tx)...)
		got = ids(slices.Values(items))
	})
	return got, next, err
}

func (t *test) allSections(size int32, sections func(*store.Tx) []sampleSection) (all []string) {
	t.Helper()
	req := &storepb.ListSamplesRequest{PageSize: size}
	for {
		got, next, err := t.sectionPage(req, sections)
		if err != nil || len(got) > int(size) {
			t.Fatalf("got %v, %v in a page of %d", got, err, size)
		}
		if all = append(all, got...); next == "" {
			return all
		}
		req.PageToken = next
	}
}

// sections lists what begins in the middle of a group, then another group backward, then
// nothing, and then what is kept of the first.
func sections(t *test) {
	g, h := t.putMany("g", 9), t.putMany("h", 4)
	down := slices.Clone(h)
	slices.Reverse(down)
	early := func(v *storepb.Sample) bool { return v.GetRank() < 3 }
	want := slices.Concat(g[3:], down, g[:3])
	for _, size := range []int32{1, 2, 6, 10, 13, 50} {
		t.wantIDs(t.allSections(size, func(*store.Tx) []sampleSection {
			return []sampleSection{
				{Name: "late", Ranges: []sampleRange{byGroup.Range("g").From(3)}},
				{Name: "down", Ranges: []sampleRange{byGroup.Range("h").Reverse()}},
				{Name: "none", Ranges: []sampleRange{byGroup.Range("x")}},
				{Name: "early", Ranges: []sampleRange{byGroup.Range("g")}, Keep: early},
			}
		}), want...)
	}
}

func changingSections(t *test) {
	t.putMany("g", 2)
	t.putMany("h", 2)
	both := func(*store.Tx) []sampleSection {
		return []sampleSection{{Name: "g", Ranges: []sampleRange{byGroup.Range("g")}}, {Name: "h", Ranges: []sampleRange{byGroup.Range("h")}}}
	}
	req := &storepb.ListSamplesRequest{PageSize: 3}
	got, next, err := t.sectionPage(req, both)
	t.wantIDs(got, "g-000", "g-001", "h-000")
	t.put(t.ctx, sample("g", 7)) // in a section that is over
	t.update(t.ctx, func(tx *store.Tx) error { samples.Delete(tx, "h-000"); return nil })
	req.PageToken = next
	again, _, err2 := t.sectionPage(req, func(tx *store.Tx) []sampleSection {
		return append([]sampleSection{{Name: "new", Ranges: []sampleRange{byGroup.Range("g")}}}, both(tx)...)
	})
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	t.wantIDs(again, "h-001")
}

func goneSections(t *test) {
	t.putMany("g", 3)
	named := func(name string) func(*store.Tx) []sampleSection {
		return func(*store.Tx) []sampleSection {
			return []sampleSection{{Name: name, Ranges: []sampleRange{byGroup.Range("g")}}}
		}
	}
	_, next, err := t.sectionPage(&storepb.ListSamplesRequest{PageSize: 1}, named("a"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = t.sectionPage(&storepb.ListSamplesRequest{PageSize: 1, PageToken: next}, named("b"))
	t.wantReason(err, "PAGE_TOKEN_INVALID")
}

// gathered reads a range of groups in the order of the ranks.
func gathered(t *test) {
	var want []string
	for i := range 12 {
		v := sample(fmt.Sprintf("g%d", i%3), i)
		t.put(t.ctx, v)
		if i%3 > 0 {
			want = append(want, v.GetId())
		}
	}
	down := slices.Clone(want)
	slices.Reverse(down)
	for _, size := range []int32{1, 3, 7, 8, 50} {
		for _, c := range []struct {
			r    sampleRange
			want []string
		}{{byGroup.Range().From("g1"), want}, {byGroup.Range().From("g1").Reverse(), down}} {
			t.wantIDs(t.allSections(size, func(tx *store.Tx) []sampleSection {
				// What is in two ranges comes once.
				g, ok := store.Gather(tx, 20, c.r, c.r.From("g2"))
				if !ok {
					t.Fatal("12 entries are more than 20")
				}
				return []sampleSection{{Gathered: g}}
			}), c.want...)
		}
	}
	t.update(t.ctx, func(tx *store.Tx) error {
		samples.Delete(tx, want[0])
		g, ok := store.Gather(tx, 20, byGroup.Range().From("g1"))
		items, _, err := store.PageInSections(tx, &storepb.ListSamplesRequest{}, sampleSection{Gathered: g})
		if t.wantIDs(ids(slices.Values(items)), want[1:]...); !ok {
			t.Error("7 entries are more than 20")
		}
		return err
	})
}

func tooManyToGather(t *test) {
	t.putMany("g", 5)
	t.view(t.ctx, func(tx *store.Tx) {
		for most, want := range map[int]bool{0: false, 4: false, 5: true} {
			if _, ok := store.Gather(tx, most, byGroup.Range().To("g"), byGroup.Range().From("g")); ok != want {
				t.Errorf("gathered 5 of at most %d: %t, want %t", most, ok, want)
			}
		}
	})
}
