package storetest

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var schemaTests = map[string]func(*test){
	"a new index is built":               newIndexBuilt,
	"an index no longer declared":        indexDropped,
	"an index of another version":        indexVersion,
	"an index that becomes unique":       indexBecomesUnique,
	"a build that was interrupted":       interruptedBuild,
	"a newer format is refused":          newerFormat,
	"many records are indexed in pieces": manyIndexed,
}

// declaration is the samples' collection as another version of a program declares it.
type declaration struct {
	samples *store.Collection[*storepb.Sample]
	schema  *store.Schema
}

func declare() *declaration {
	c := store.NewCollection("sample", (*storepb.Sample).GetId)
	return &declaration{c, store.NewSchema(c)}
}

func (t *test) openAs(d *declaration) {
	t.Helper()
	t.close()
	t.openOver(t.open(), d.schema)
}

func (t *test) wantIndex(ix *store.Index[*storepb.Sample], want ...string) {
	t.Helper()
	t.view(t.ctx, func(tx *store.Tx) { t.wantIDs(ids(ix.Scan(tx, ix.Range())), want...) })
}

func newIndexBuilt(t *test) {
	t.openAs(declare())
	bare := declare()
	t.openAs(bare)
	for _, tenant := range []string{"acme", "beta"} {
		t.update(as(tenant, ""), func(tx *store.Tx) error {
			for _, i := range []int{3, 1, 2} {
				if err := bare.samples.Put(tx, &storepb.Sample{Id: string(rune('a' + i)), Rank: int64(-i), Number: "n"}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	d := declare()
	byRank := d.samples.Index("by_rank", func(v *storepb.Sample) store.Key { return store.Key{v.GetRank()} })
	for range 2 {
		t.openAs(d)
		t.wantIndex(byRank, "d", "c", "b")
	}
	t.ctx = as("beta", "")
	t.wantIndex(byRank, "d", "c", "b")
}

func indexDropped(t *test) {
	t.put(t.ctx, sample("g", 1), sample("g", 2))
	rows := t.rows()
	bare := declare()
	t.openAs(bare)
	t.close()
	if got := t.bareRows(); got != rows-2*3 {
		t.Errorf("got %d rows after the indexes were dropped, want %d", got, rows-2*3)
	}
	// What the older program does meanwhile is found by the newer one.
	t.openAs(bare)
	t.update(t.ctx, func(tx *store.Tx) error {
		bare.samples.Delete(tx, "g-001")
		return bare.samples.Put(tx, sample("g", 3))
	})
	t.reopen()
	t.wantIndex(byGroup, "g-002", "g-003")
}

// bareRows counts what is in the engine while the store is closed.
func (t *test) bareRows() (n int) {
	t.Helper()
	e := t.open()
	defer e.Close()
	_ = e.View(t.ctx, func(s store.Snapshot) error {
		for range s.Scan([]byte{0}, []byte{0xff}, false) {
			n++
		}
		return nil
	})
	return n
}

func indexVersion(t *test) {
	old := declare()
	oldIndex := old.samples.Index("x", func(v *storepb.Sample) store.Key { return store.Key{v.GetRank()} })
	t.openAs(old)
	t.update(t.ctx, func(tx *store.Tx) error {
		for i := range 3 {
			if err := old.samples.Put(tx, sample("g", i)); err != nil {
				return err
			}
		}
		return nil
	})
	t.wantIndex(oldIndex, "g-000", "g-001", "g-002")
	changed := declare()
	newIndex := changed.samples.Index("x", func(v *storepb.Sample) store.Key { return store.Key{-v.GetRank()} }, store.Version(1))
	t.openAs(changed)
	t.wantIndex(newIndex, "g-002", "g-001", "g-000")
}

func indexBecomesUnique(t *test) {
	t.openAs(declare())
	d := declare()
	t.openAs(d)
	t.update(t.ctx, func(tx *store.Tx) error {
		for _, v := range []*storepb.Sample{{Id: "a", Note: "same"}, {Id: "b", Note: "same"}} {
			if err := d.samples.Put(tx, v); err != nil {
				return err
			}
		}
		return nil
	})
	t.close()
	unique := declare()
	unique.samples.Unique("note", func(v *storepb.Sample) store.Key { return store.Key{v.GetNote()} })
	_, err := store.Open(t.ctx, t.open(), unique.schema, t.config())
	for _, part := range []string{"sample/note", `"a"`, `"b"`, "acme"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got error %v, want one that names %s", err, part)
		}
	}
	t.openAs(d) // the older program still runs
}

// interruptedBuild fails the build after each number of reads; the next start builds it.
func interruptedBuild(t *test) {
	bare := declare()
	t.openAs(bare)
	t.update(t.ctx, func(tx *store.Tx) error {
		for i := range 3 {
			if err := bare.samples.Put(tx, sample("g", i)); err != nil {
				return err
			}
		}
		return nil
	})
	for n := 0; ; n++ {
		t.close()
		d := declare()
		ix := d.samples.Unique("number", numberKey, store.Version(n))
		e := NewFailing(t.open())
		e.FailAfter(n)
		db, err := store.Open(t.ctx, e, d.schema, t.config())
		if err == nil {
			t.db = db
			e.FailAfter(1 << 62)
			t.wantIndex(ix, "g-000", "g-001", "g-002")
			t.Logf("is built with %d reads", n)
			return
		}
		t.openAs(d) // and the same program once more
		t.wantIndex(ix, "g-000", "g-001", "g-002")
	}
}

func newerFormat(t *test) {
	t.close()
	e := t.open()
	row, err := proto.Marshal(&storepb.Schema{Format: 2})
	if err != nil {
		t.Fatal(err)
	}
	var old []byte
	if err := e.View(context.Background(), func(s store.Snapshot) error {
		b, err := s.Get([]byte{1, 's'})
		old = append(old, b...)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	write(t, e, store.Write{Key: []byte{1, 's'}, Value: row})
	if _, err := store.Open(t.ctx, e, schema, t.config()); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("got error %v, want one that names format 2", err)
	}
	e = t.open()
	write(t, e, store.Write{Key: []byte{1, 's'}, Value: old})
	t.openOver(e, schema)
}

func manyIndexed(t *test) {
	bare := declare()
	t.openAs(bare)
	const n = 2100
	t.update(t.ctx, func(tx *store.Tx) error {
		for i := range n {
			if err := bare.samples.Put(tx, sample("g", i)); err != nil {
				return err
			}
		}
		return nil
	})
	t.reopen()
	t.view(t.ctx, func(tx *store.Tx) {
		for _, ix := range []*store.Index[*storepb.Sample]{byGroup, byNumber, byRank} {
			if got := ix.Count(tx, ix.Range()); got != n {
				t.Errorf("got %d entries, want %d", got, n)
			}
		}
	})
	t.openAs(declare())
	t.reopen()
	t.view(t.ctx, func(tx *store.Tx) {
		if got := byGroup.Count(tx, byGroup.Range("g")); got != n {
			t.Errorf("got %d entries after they were dropped and built again, want %d", got, n)
		}
	})
}
