package storetest

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var compactTests = map[string]func(*test){
	"compacted":           compacted,
	"values erased":       valuesErased,
	"compacted events":    compactedEvents,
	"compacted parties":   compactedParties,
	"retention":           retention,
	"watch never skips":   func(t *test) { NeverSkips(t.T, samples, t.db) },
	"entries are pages":   entryPages,
	"compact is resumed":  compactResumed,
	"signer is kept once": signerKept,
}

// age makes ten changes an hour apart: of a record that stays as it was made, of one that
// changes on and on, and of one that is deleted.
func (t *test) age() {
	t.put(t.ctx, noted("old", "0"))
	t.put(t.ctx, noted("gone", "0"))
	for i := range 7 {
		t.clock.advance(time.Hour)
		t.put(t.ctx, noted("new", fmt.Sprint(i)))
	}
	t.update(t.ctx, func(tx *store.Tx) error {
		samples.Delete(tx, "gone")
		return nil
	})
}

func (t *test) compact(keep store.Retention, removed, erased, base int64) {
	t.Helper()
	done, err := t.db.Compact(t.ctx, "acme", keep)
	if want := (store.Compaction{Removed: removed, Erased: erased, Base: base}); err != nil || done != want {
		t.Errorf("compact: got %+v, %v, want %+v", done, err, want)
	}
	if err := t.db.VerifyJournal(t.ctx, "acme"); err != nil {
		t.Errorf("after compaction: %v", err)
	}
	if err := t.db.VerifyRecords(t.ctx, "acme"); err != nil {
		t.Errorf("after compaction: %v", err)
	}
}

// at returns the note of a record after a revision, and the error of asking for it.
func (t *test) at(id string, revision int64) (note string, err error) {
	err = t.db.View(t.ctx, func(tx *store.Tx) error {
		note = "none"
		if v, ok := samples.At(tx, id, revision); ok {
			note = v.GetNote()
		}
		return nil
	})
	return note, err
}

func compacted(t *test) {
	t.age()
	t.compact(store.Retention{}, 0, 0, 0)
	t.compact(store.Retention{Entries: 3*time.Hour + time.Minute}, 5, 0, 5)
	t.wantIDs(t.history("new"), "9:6", "8:5", "7:4", "6:3")
	t.wantIDs(t.history("old"))
	t.wantIDs(t.history("gone"), "10:none")
	for id, want := range map[string][]string{
		"new": {"2", "3", "4", "5", "6", "6"}, "old": {"0", "0", "0", "0", "0", "0"}, "gone": {"0", "0", "0", "0", "0", "none"},
	} {
		for i, note := range want {
			if got, err := t.at(id, int64(5+i)); err != nil || got != note {
				t.Errorf("%s after revision %d: got %q, %v, want %q", id, 5+i, got, err, note)
			}
		}
	}
	_, err := t.at("new", 4)
	t.wantFault(err, "JOURNAL_COMPACTED")
	_, _, err = t.db.EntriesAfter(t.ctx, "acme", "", 4)
	t.wantFault(err, "JOURNAL_COMPACTED")
	if got := t.journal("acme", 0); len(got) != 5 || got[0].GetRevision() != 6 {
		t.Errorf("the journal from its beginning: got %d entries", len(got))
	}
	if entries, upTo, err := t.db.EntriesAfter(t.ctx, "acme", "", 5); err != nil || upTo != 10 || len(entries) != 5 {
		t.Errorf("after the base: got %d entries up to %d, %v", len(entries), upTo, err)
	}
	t.put(t.ctx, noted("old", "1"))
	t.clock.advance(24 * time.Hour)
	t.compact(store.Retention{Entries: time.Hour}, 6, 0, 11)
	t.reopen()
	t.put(t.ctx, noted("old", "2"))
	t.compact(store.Retention{}, 0, 0, 11)
}

// wantFault is wantReason for an error that may be wrapped.
func (t *test) wantFault(err error, reason string) {
	t.Helper()
	for e := err; e != nil; {
		if f, ok := e.(interface{ ReasonName() string }); ok && f.ReasonName() == reason {
			return
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			break
		}
		e = u.Unwrap()
	}
	t.Errorf("got error %v, want a fault with reason %s", err, reason)
}

func valuesErased(t *test) {
	t.age()
	t.compact(store.Retention{Values: 3*time.Hour + time.Minute}, 0, 5, 0)
	for _, e := range t.journal("acme", 0) {
		for _, c := range e.GetChanges() {
			if erased := c.OldValue == nil && c.NewValue == nil; erased != (e.GetRevision() <= 5) {
				t.Errorf("revision %d: erased is %v", e.GetRevision(), erased)
			}
		}
	}
	// What the next change or the record itself tells is still known.
	for id, revision := range map[string]int64{"new": 5, "old": 3, "gone": 7} {
		if got, err := t.at(id, revision); err != nil || got == "none" {
			t.Errorf("%s after revision %d: got %q, %v", id, revision, got, err)
		}
	}
	_, err := t.at("new", 4)
	t.wantFault(err, "JOURNAL_COMPACTED")
	t.compact(store.Retention{Values: 3*time.Hour + time.Minute}, 0, 0, 0)
	t.compact(store.Retention{Values: time.Minute, Entries: 5*time.Hour + time.Minute}, 3, 3, 3)
}

func compactedEvents(t *test) {
	for i := range 3 {
		t.update(t.ctx, func(tx *store.Tx) error {
			tx.Emit(noted(fmt.Sprint("event ", i), ""))
			return nil
		})
		t.clock.advance(time.Hour)
	}
	t.compact(store.Retention{Entries: time.Hour + time.Minute}, 2, 0, 2)
	if events, err := t.db.Events(t.ctx, "acme", 0, 10); err != nil || len(events) != 1 || events[0].Revision != 3 {
		t.Errorf("got events %v, %v", events, err)
	}
	for _, c := range []struct {
		types       []string
		after, lost int64
	}{
		{nil, 0, 2}, {nil, 1, 2}, {nil, 2, 0},
		{[]string{"latchkey.store.v1.Sample"}, 1, 2}, {[]string{"latchkey.store.v1.Other"}, 0, 0},
	} {
		if lost, err := t.db.Lost(t.ctx, "acme", c.types, c.after); err != nil || lost != c.lost {
			t.Errorf("of %v after %d: got %d lost, %v, want %d", c.types, c.after, lost, err, c.lost)
		}
	}
}

// compactedParties compacts a journal that is of two organizations.
func compactedParties(t *test) {
	for i := range 6 {
		t.update(t.ctx, func(tx *store.Tx) error {
			tx.Involve([]string{"one", "two", ""}[i%3])
			return samples.Put(tx, noted("a", fmt.Sprint(i)))
		})
		t.clock.advance(time.Hour)
	}
	t.compact(store.Retention{Entries: 4*time.Hour + time.Minute}, 2, 0, 2)
	for party, want := range map[string][]int64{"one": {4}, "two": {5}, "three": nil} {
		entries, upTo, err := t.db.EntriesAfter(t.ctx, "acme", party, 2)
		var got []int64
		for _, e := range entries {
			got = append(got, e.GetRevision())
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || upTo != 6 {
			t.Errorf("entries of %s: got %v up to %d, %v, want %v", party, got, upTo, err, want)
		}
	}
	_, _, err := t.db.EntriesAfter(t.ctx, "acme", "one", 1)
	t.wantFault(err, "JOURNAL_COMPACTED")
}

func retention(t *test) {
	keep := store.Retention{Values: 30 * 24 * time.Hour, Entries: 60 * 24 * time.Hour}
	t.update(t.ctx, func(tx *store.Tx) error {
		tx.SetRetention(keep)
		return nil
	})
	t.age()
	t.clock.advance(40 * 24 * time.Hour)
	t.compact(keep, 0, 10, 0)
	t.view(t.ctx, func(tx *store.Tx) {
		if got := tx.Retention(); got != keep {
			t.Errorf("got %v, want %v", got, keep)
		}
	})
}

// entryPages pages over the entries of a time.
func entryPages(t *test) {
	start := t.clock.Now()
	for i := range 10 {
		t.clock.advance(time.Hour)
		t.put(t.ctx, noted("a", fmt.Sprint(i)))
	}
	for name, c := range map[string]struct {
		which store.Selection
		want  string
	}{
		"all":       {store.Selection{}, "[10 9 8 7 6 5 4 3 2 1]"},
		"from":      {store.Selection{From: start.Add(8 * time.Hour)}, "[10 9 8]"},
		"to":        {store.Selection{To: start.Add(3 * time.Hour)}, "[2 1]"},
		"record":    {store.Selection{Collection: "sample", ID: "a", From: start.Add(9 * time.Hour)}, "[10 9]"},
		"no record": {store.Selection{Collection: "sample", ID: "b"}, "[]"},
	} {
		got := []int64{}
		req := &storepb.ListSamplesRequest{PageSize: 3, Group: name}
		for {
			t.view(t.ctx, func(tx *store.Tx) {
				next, err := store.PageEntries(tx, req, c.which, func(e *storepb.JournalEntry) (bool, error) {
					got = append(got, e.GetRevision())
					return true, nil
				})
				if err != nil {
					t.Fatal(err)
				}
				req = proto.CloneOf(req)
				req.PageToken = next
			})
			if req.GetPageToken() == "" {
				break
			}
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
}

// compactResumed compacts a journal of several batches, and stops after the first.
func compactResumed(t *test) {
	for i := range 250 {
		t.put(t.ctx, noted(fmt.Sprint("r", i%7), fmt.Sprint(i)))
	}
	t.clock.advance(time.Hour)
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	if _, err := t.db.Compact(ctx, "acme", store.Retention{Entries: time.Minute}); err == nil {
		t.Error("a compaction whose caller is gone went on")
	}
	t.compact(store.Retention{Entries: time.Minute}, 250, 0, 250)
}

func signerKept(t *test) {
	first, err := t.db.Signer(t.ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.reopen()
	if again, err := t.db.Signer(t.ctx); err != nil || !again.Equal(first) {
		t.Errorf("another key after a restart, %v", err)
	}
}
