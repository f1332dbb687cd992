package store

import (
	"bytes"
	"context"
	"iter"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// Selection says which entries of a journal are wanted. What is empty or zero is no bound.
type Selection struct {
	Collection, ID string // only those that changed this record; both or none
	Party          string // only those of this organization: see Collection.Party
	From, To       time.Time
}

// PageEntries gives take the entries of the tenant's journal that are selected, the newest
// first and with their events' payloads, until it took a page of them; it returns the
// token of the next page, "" after the last. Pages can be short as those of Page can; they
// also are where entries are long.
func PageEntries(tx *Tx, req PageRequest, which Selection, take func(*storepb.JournalEntry) (bool, error)) (next string, err error) {
	size, err := pageSize(req)
	if err != nil {
		return "", err
	}
	first, last, err := tx.span(req, which)
	if err != nil {
		return "", err
	}
	budget, taken, bytes := 20*size+1000, 0, 0
	for e, length := range tx.entriesDown(which, first, last) {
		budget--
		tx.fillPayloads(e)
		ok, err := take(e)
		if err != nil {
			return "", err
		}
		if ok {
			taken++
			bytes += length
		}
		if taken == size || budget == 0 || bytes > entryPageBytes || tx.slices < readSlices {
			if e.GetRevision() == first {
				break
			}
			return tx.SealCursor(req, strconv.FormatInt(e.GetRevision()-1, 10))
		}
	}
	return "", tx.err
}

// entryPageBytes is how many bytes of entries a page takes before it ends.
const entryPageBytes = 1 << 20

// span returns the first and the last revision that a page looks at.
func (tx *Tx) span(req PageRequest, which Selection) (first, last int64, err error) {
	base := tx.journalBase().GetRevision()
	first, last = base+1, tx.journalHead().GetRevision()
	if !which.From.IsZero() {
		first = tx.revisionAt(which.From.Add(-1), base) + 1
	}
	if !which.To.IsZero() {
		last = tx.revisionAt(which.To.Add(-1), base)
	}
	place, err := tx.OpenCursor(req)
	if err == nil && place != "" {
		last, err = strconv.ParseInt(place, 10, 64)
	}
	return first, last, err
}

// entriesDown yields the selected entries from the last to the first, with their lengths.
func (tx *Tx) entriesDown(which Selection, first, last int64) iter.Seq2[*storepb.JournalEntry, int] {
	if which.ID == "" && which.Party == "" {
		return tx.entriesOf(first, last)
	}
	collection, id := partyRows, which.Party
	if which.ID != "" {
		collection, id = which.Collection, which.ID
	}
	return func(yield func(*storepb.JournalEntry, int) bool) {
		key := func(r int64) []byte { return bytes.Clone(tx.row(spaceJournal, r)) }
		for r := range ahead(tx, firstAhead, tx.Revisions(collection, id, last), key) {
			if r < first {
				return
			}
			e := tx.loadEntry(r)
			if e == nil || !yield(e, proto.Size(e)) {
				return
			}
		}
	}
}

// entriesOf yields all entries from the last to the first.
func (tx *Tx) entriesOf(first, last int64) iter.Seq2[*storepb.JournalEntry, int] {
	return func(yield func(*storepb.JournalEntry, int) bool) {
		lo, hi := bytes.Clone(tx.row(spaceJournal, first)), bytes.Clone(tx.row(spaceJournal, last+1))
		for p := range tx.scan(lo, hi, true) {
			e := &storepb.JournalEntry{}
			if err := proto.Unmarshal(p.Value, e); err != nil {
				tx.fail("decode row", err)
				return
			}
			if !yield(e, len(p.Value)) {
				return
			}
		}
	}
}

// EntryWithPayloads is Entry with the payloads of its events.
func (tx *Tx) EntryWithPayloads(revision int64) *storepb.JournalEntry {
	e := tx.loadEntry(revision)
	tx.fillPayloads(e)
	return e
}

// Of tells whether an entry belongs to an organization, by the collections that name one.
func (tx *Tx) Of(e *storepb.JournalEntry, party string) bool {
	return tx.get(tx.row(spaceHistory, partyRows, party, e.GetRevision())) != nil
}

// EntriesAfter returns the next entries of the tenant's journal after a revision in order,
// with their events' payloads, and the revision up to which there are no others. Of a
// party only its own. None at all are returned only at the end. It returns a fault with
// the reason JOURNAL_COMPACTED where entries after the revision are no longer kept.
func (db *DB) EntriesAfter(ctx context.Context, tenant, party string, revision int64) (entries []*storepb.JournalEntry, upTo int64, err error) {
	if party == "" {
		if entries, err = db.entries(ctx, tenant, revision); len(entries) > 0 {
			revision = entries[len(entries)-1].GetRevision()
		}
		return entries, revision, err
	}
	err = db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		entries = nil
		if err := tx.checkKept(revision); err != nil {
			return err
		}
		upTo = max(revision, tx.journalHead().GetRevision())
		size := 0
		for e := range tx.partyEntries(party, revision) {
			entries = append(entries, e)
			if size += proto.Size(e); len(entries) == chunk || size > chunkBytes {
				upTo = e.GetRevision()
				break
			}
		}
		return nil
	})
	return entries, upTo, err
}

// partyEntries yields an organization's entries after a revision.
func (tx *Tx) partyEntries(party string, revision int64) iter.Seq[*storepb.JournalEntry] {
	return func(yield func(*storepb.JournalEntry) bool) {
		start, hi := tx.rows(spaceHistory, partyRows, party)
		lo := bytes.Clone(tx.row(spaceHistory, partyRows, party, revision+1))
		key := func(p Pair) []byte {
			r, _, _ := cutInt(p.Key[len(start):])
			return bytes.Clone(tx.row(spaceJournal, r))
		}
		for p := range ahead(tx, firstAhead, tx.scan(lo, hi, false), key) {
			e := tx.historyEntry(p.Key[len(start):])
			if e == nil {
				return
			}
			tx.fillPayloads(e)
			if !yield(e) {
				return
			}
		}
	}
}
