package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var journalTests = map[string]func(*test){
	"entries":               entries,
	"dense under load":      denseUnderLoad,
	"chain finds damage":    chainFindsDamage,
	"history":               history,
	"erased history":        erasedHistory,
	"erased with the purge": erasedWithPurge,
	"long journal":          longJournal,
	"revision from memory":  revisionFromMemory,
}

func (t *test) journal(tenant string, after int64) (all []*storepb.JournalEntry) {
	t.Helper()
	for e, err := range t.db.Journal(t.ctx, tenant, after) {
		if err != nil {
			t.Fatalf("read journal: %v", err)
		}
		all = append(all, e)
	}
	return all
}

// revisionFromMemory compares the revision that a store has in memory with what was seen
// and made before it was asked for, while others write.
func revisionFromMemory(t *test) {
	t.close()
	e := t.open()
	_, shared := e.(store.Shared)
	t.openOver(e, schema)
	if got, ok := t.db.Revision(t.ctx); ok {
		t.Errorf("got revision %d before anybody looked", got)
	}
	atLeast := func(want int64) {
		if got, ok := t.db.Revision(t.ctx); ok == shared || ok && got < want {
			t.Errorf("got revision %d, %t, want %d or later, %t", got, ok, want, !shared)
		}
	}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 25 {
				var made, seen int64
				err := t.db.Update(t.ctx, func(tx *store.Tx) error {
					made = tx.Revision()
					return samples.Put(tx, sample(fmt.Sprint("w", w), i))
				})
				if err != nil {
					t.Error(err)
					return
				}
				atLeast(made)
				if err := t.db.View(t.ctx, func(tx *store.Tx) error { seen = tx.Revision(); return nil }); err != nil {
					t.Error(err)
				}
				atLeast(seen)
			}
		})
	}
	writers.Wait()
	if got, ok := t.db.Revision(t.ctx); ok && got != 100 {
		t.Errorf("got revision %d after 100 changes", got)
	}
	if got, ok := t.db.Revision(as("other", "ann")); ok {
		t.Errorf("got revision %d of a tenant of whom nothing was read", got)
	}
}

func entries(t *test) {
	ctx := store.WithOrigin(t.ctx, store.Origin{Tenant: "acme", Caller: "ann", Actor: "eve", Method: "x.S/M"})
	req := &storepb.SaveSampleRequest{RequestId: "r1"}
	_, err := store.Do(ctx, t.db, req, func(tx *store.Tx) (*storepb.Sample, error) {
		tx.Emit(sample("event", 1))
		for i := range 2 {
			if err := samples.Put(tx, sample("g", i)); err != nil {
				return nil, err
			}
		}
		return sample("g", 0), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	old := t.get(ctx, "g-001")
	t.update(ctx, func(tx *store.Tx) error {
		samples.Delete(tx, "g-001")
		return nil
	})
	all := t.journal("acme", 0)
	if len(all) != 2 {
		t.Fatalf("got %d entries, want 2", len(all))
	}
	one, two := all[0], all[1]
	if one.GetRevision() != 1 || one.GetCaller() != "ann" || one.GetActor() != "eve" || one.GetMethod() != "x.S/M" ||
		one.GetRequestId() != "r1" || !one.GetCommitTime().AsTime().Equal(t.clock.Now()) || one.GetPreviousHash() != nil {
		t.Errorf("got first entry %v", one)
	}
	if c := one.GetChanges(); len(c) != 2 || c[0].GetCollection() != "sample" || c[0].GetId() != "g-000" || c[0].OldValue != nil || c[1].NewValue == nil {
		t.Errorf("got first changes %v", c)
	}
	if ev := one.GetEvents(); len(ev) != 1 || ev[0].GetType() != "latchkey.store.v1.Sample" || len(ev[0].GetPayload()) == 0 {
		t.Errorf("got events %v", ev)
	}
	before := &storepb.Sample{}
	if c := two.GetChanges(); len(c) != 1 || c[0].NewValue != nil || proto.Unmarshal(c[0].GetOldValue(), before) != nil || !proto.Equal(before, old) {
		t.Errorf("got second changes %v, want the deletion of %v", c, old)
	}
	if !bytes.Equal(two.GetPreviousHash(), one.GetHash()) || two.GetRevision() != 2 {
		t.Errorf("second entry does not follow the first: %v", two)
	}
	if got := t.journal("acme", 1); len(got) != 1 || got[0].GetRevision() != 2 {
		t.Errorf("after revision 1: got %v", got)
	}
	if got := t.journal("other", 0); got != nil {
		t.Errorf("got %v of a tenant without a journal", got)
	}
}

func denseUnderLoad(t *test) {
	const callers, each = 8, 8
	var mu sync.Mutex
	var etags []string
	var wg sync.WaitGroup
	for c := range callers {
		tenant := []string{"acme", "beta"}[c%2]
		wg.Go(func() {
			for i := range each {
				v := sample(fmt.Sprint("g", c), i)
				err := t.db.Update(as(tenant, "ann"), func(tx *store.Tx) error {
					if i%4 == 3 {
						return errBoom
					}
					return samples.Put(tx, v)
				})
				if err != nil && err != errBoom {
					t.Errorf("update: %v", err)
				}
				mu.Lock()
				if err == nil {
					etags = append(etags, tenant+v.GetEtag())
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(etags)
	if len(slices.Compact(slices.Clone(etags))) != len(etags) {
		t.Errorf("two transactions got the same revision: %v", etags)
	}
	for _, tenant := range []string{"acme", "beta"} {
		if got := len(t.journal(tenant, 0)); got != callers*each*3/4/2 {
			t.Errorf("got %d entries of %s, want %d", got, tenant, callers*each*3/4/2)
		}
		if err := t.db.VerifyJournal(t.ctx, tenant); err != nil {
			t.Error(err)
		}
	}
}

var errBoom = fmt.Errorf("boom")

// journalKey finds the key of an entry as a person with an editor would.
func journalKey(t *test, e store.Engine, revision int64) (key []byte, entry *storepb.JournalEntry) {
	t.Helper()
	err := e.View(context.Background(), func(s store.Snapshot) error {
		for p, err := range s.Scan([]byte{0}, []byte{0xff}, false) {
			if err != nil {
				return err
			}
			got := &storepb.JournalEntry{}
			if bytes.HasPrefix(p.Key, []byte("\x02acme\x00\x01j")) && proto.Unmarshal(p.Value, got) == nil && got.GetRevision() == revision {
				key, entry = bytes.Clone(p.Key), got
			}
		}
		return nil
	})
	if err != nil || key == nil {
		t.Fatalf("find entry %d: %v", revision, err)
	}
	return key, entry
}

// chainFindsDamage changes one entry behind the store's back, in every way.
func chainFindsDamage(t *test) {
	for i := range 5 {
		t.update(t.ctx, func(tx *store.Tx) error {
			tx.Emit(sample("event", i))
			return samples.Put(tx, sample("g", i))
		})
	}
	t.close()
	for name, c := range map[string]struct {
		spoil func(*storepb.JournalEntry) *storepb.JournalEntry
		want  string
	}{
		"entry removed":   {func(*storepb.JournalEntry) *storepb.JournalEntry { return nil }, "revision 3"},
		"caller changed":  {func(e *storepb.JournalEntry) *storepb.JournalEntry { e.Caller = "eve"; return e }, "revision 3"},
		"time changed":    {func(e *storepb.JournalEntry) *storepb.JournalEntry { e.CommitTime.Seconds++; return e }, "revision 3"},
		"value changed":   {func(e *storepb.JournalEntry) *storepb.JournalEntry { e.Changes[0].NewValue[3]++; return e }, "revision 3"},
		"change removed":  {func(e *storepb.JournalEntry) *storepb.JournalEntry { e.Changes = nil; return e }, "revision 3"},
		"event renamed":   {func(e *storepb.JournalEntry) *storepb.JournalEntry { e.Events[0].Type = "x"; return e }, "revision 3"},
		"hash changed":    {func(e *storepb.JournalEntry) *storepb.JournalEntry { e.Hash[0]++; return e }, "revision 3"},
		"previous forged": {func(e *storepb.JournalEntry) *storepb.JournalEntry { e.PreviousHash[0]++; return e }, "revision 3"},
	} {
		e := t.open()
		key, entry := journalKey(t, e, 3)
		good, err := proto.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		var bad []byte
		if spoiled := c.spoil(entry); spoiled != nil {
			if bad, err = proto.Marshal(spoiled); err != nil {
				t.Fatal(err)
			}
		}
		write(t, e, store.Write{Key: key, Value: bad})
		t.openOver(e, schema)
		if err := t.db.VerifyJournal(t.ctx, "acme"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one that names %s", name, err, c.want)
		}
		write(t, e, store.Write{Key: key, Value: good})
		if err := t.db.VerifyJournal(t.ctx, "acme"); err != nil {
			t.Errorf("%s, and repaired: %v", name, err)
		}
		t.close()
	}
	e := t.open()
	told := rows(t, e, 'e')[1]
	write(t, e, store.Write{Key: told.Key})
	t.openOver(e, schema)
	if err := t.db.VerifyJournal(t.ctx, "acme"); err == nil || !strings.Contains(err.Error(), "revision 2") {
		t.Errorf("event removed: got error %v", err)
	}
	write(t, e, store.Write(told))
	t.close()
	e = t.open()
	key, _ := journalKey(t, e, 5)
	write(t, e, store.Write{Key: key})
	t.openOver(e, schema)
	if err := t.db.VerifyJournal(t.ctx, "acme"); err == nil || !strings.Contains(err.Error(), "revision 5") {
		t.Errorf("last entry removed: got error %v", err)
	}
}

// write writes to the engine behind the store's back.
func write(t *test, e store.Engine, w ...store.Write) {
	t.Helper()
	err := e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) { return w, nil })
	if err != nil {
		t.Fatal(err)
	}
}

func (t *test) history(id string) (notes []string) {
	t.Helper()
	t.view(t.ctx, func(tx *store.Tx) {
		for e := range tx.History("sample", id) {
			c := e.GetChanges()
			if len(c) != 1 || c[0].GetId() != id || e.GetEvents() != nil {
				t.Errorf("got entry %v in the history of %s", e, id)
				continue
			}
			v := &storepb.Sample{}
			if err := proto.Unmarshal(c[0].GetNewValue(), v); err != nil {
				t.Error(err)
			}
			if c[0].NewValue == nil {
				v.Note = "none"
			}
			notes = append(notes, fmt.Sprintf("%d:%s", e.GetRevision(), v.GetNote()))
		}
	})
	return notes
}

func noted(id, note string) *storepb.Sample { return &storepb.Sample{Id: id, Note: note} }

func history(t *test) {
	t.put(t.ctx, noted("a", "one"))
	t.put(t.ctx, noted("ab", "other"))
	t.put(t.ctx, noted("a", "two"), noted("b", "other"))
	t.update(t.ctx, func(tx *store.Tx) error {
		samples.Delete(tx, "a")
		return nil
	})
	t.wantIDs(t.history("a"), "4:none", "3:two", "1:one")
	t.wantIDs(t.history("ab"), "2:other")
	t.wantIDs(t.history("unknown"))
}

func erasedHistory(t *test) {
	t.put(t.ctx, noted("a", "private"), noted("b", "kept"))
	t.put(t.ctx, noted("a", "private too"))
	t.put(t.ctx, noted("b", "changed"))
	t.update(t.ctx, func(tx *store.Tx) error {
		tx.EraseHistory("sample", "a")
		return nil
	})
	t.wantIDs(t.history("a"), "2:none", "1:none")
	t.wantIDs(t.history("b"), "3:changed", "1:kept")
	if v := t.get(t.ctx, "a"); v.GetNote() != "private too" {
		t.Errorf("got %v, want the record itself untouched", v)
	}
	if err := t.db.VerifyJournal(t.ctx, "acme"); err != nil {
		t.Error(err)
	}
	t.put(t.ctx, noted("a", "anew"))
	t.wantIDs(t.history("a"), "4:anew", "2:none", "1:none")
	if err := t.db.VerifyJournal(t.ctx, "acme"); err != nil {
		t.Error(err)
	}
}

// erasedWithPurge looks for the record's bytes in everything that is stored.
func erasedWithPurge(t *test) {
	t.put(t.ctx, noted("a", "private"))
	t.put(t.ctx, noted("a", "private, changed"))
	t.update(t.ctx, func(tx *store.Tx) error {
		tx.EraseHistory("sample", "a")
		samples.Delete(tx, "a")
		return nil
	})
	if err := t.db.VerifyJournal(t.ctx, "acme"); err != nil {
		t.Error(err)
	}
	t.wantIDs(t.history("a"), "3:none", "2:none", "1:none")
	t.close()
	e := t.open()
	defer func() { t.openOver(e, schema) }()
	err := e.View(t.ctx, func(s store.Snapshot) error {
		for p, err := range s.Scan([]byte{0}, []byte{0xff}, false) {
			if err != nil {
				return err
			}
			if bytes.Contains(p.Value, []byte("private")) {
				t.Errorf("row %q still tells %q", p.Key, p.Value)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// longJournal reads more entries than one snapshot yields.
func longJournal(t *test) {
	const n = 603
	var wg sync.WaitGroup
	for c := range 3 {
		wg.Go(func() {
			for i := range n / 3 {
				err := t.db.Update(t.ctx, func(tx *store.Tx) error {
					tx.Emit(noted(fmt.Sprint(c, i), ""))
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(t.journal("acme", 0)); got != n {
		t.Errorf("got %d entries, want %d", got, n)
	}
	if got := len(t.journal("acme", 80)); got != n-80 {
		t.Errorf("got %d entries after revision 80, want %d", got, n-80)
	}
	if err := t.db.VerifyJournal(t.ctx, "acme"); err != nil {
		t.Error(err)
	}
}
