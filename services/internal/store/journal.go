package store

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// chunk is how many rows, and chunkBytes how many bytes, a reader of many rows
// takes out of one snapshot.
const (
	chunk      = 500
	chunkBytes = 4 << 20
)

// Journal yields the entries of the tenant's journal after a revision, with values
// and payloads as far as they were not erased. It ends with the last entry or
// after an error. After 0 is from where the journal begins; after another revision that
// is no longer kept is an error, a fault with the reason JOURNAL_COMPACTED.
func (db *DB) Journal(ctx context.Context, tenant string, afterRevision int64) iter.Seq2[*storepb.JournalEntry, error] {
	return func(yield func(*storepb.JournalEntry, error) bool) {
		if afterRevision == 0 {
			base, err := db.base(ctx, tenant)
			if err != nil {
				yield(nil, fmt.Errorf("read journal of %s: %w", tenant, err))
				return
			}
			afterRevision = base.GetRevision()
		}
		for {
			entries, err := db.entries(ctx, tenant, afterRevision)
			if err != nil {
				yield(nil, fmt.Errorf("read journal of %s after revision %d: %w", tenant, afterRevision, err))
				return
			}
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
				afterRevision = e.GetRevision()
			}
			if len(entries) == 0 {
				return
			}
		}
	}
}

// entries returns some entries after a revision, none only at the end.
func (db *DB) entries(ctx context.Context, tenant string, afterRevision int64) ([]*storepb.JournalEntry, error) {
	var entries []*storepb.JournalEntry
	err := db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		if err := tx.checkKept(afterRevision); err != nil {
			return err
		}
		lo := bytes.Clone(tx.row(spaceJournal, afterRevision+1))
		_, hi := tx.rows(spaceJournal)
		size := 0
		for p := range tx.scan(lo, hi, false) {
			e := &storepb.JournalEntry{}
			if err := proto.Unmarshal(p.Value, e); err != nil {
				return err
			}
			tx.fillPayloads(e)
			entries = append(entries, e)
			if size += len(p.Value); len(entries) == chunk || size > chunkBytes {
				break
			}
		}
		return nil
	})
	return entries, err
}

// fillPayloads sets the payloads of the entry's events from their own rows.
func (tx *Tx) fillPayloads(e *storepb.JournalEntry) {
	for i, ev := range e.GetEvents() {
		row := &storepb.EventRow{}
		if tx.load(tx.row(spaceEvent, e.GetRevision(), i), row) {
			ev.Payload = row.GetPayload()
			if ev.Payload == nil {
				ev.Payload = present
			}
		}
	}
}

// History yields the journal's entries that changed the record, the newest first,
// each with this change alone and without events, as far as they are kept.
func (tx *Tx) History(collection, id string) iter.Seq[*storepb.JournalEntry] {
	return func(yield func(*storepb.JournalEntry) bool) {
		lo, hi := tx.rows(spaceHistory, collection, id)
		for p := range tx.scan(lo, hi, true) {
			if tx.entryIsGone(p) {
				return
			}
			e := tx.historyEntry(p.Key[len(lo):])
			if e == nil {
				return
			}
			for _, c := range e.GetChanges() {
				if c.GetCollection() == collection && c.GetId() == id {
					e.Changes, e.Events = []*storepb.Change{c}, nil
					break
				}
			}
			if !yield(e) {
				return
			}
		}
	}
}

// EraseHistory removes the record's values from the journal, also those that this
// transaction will add, and leaves their hashes, so that the journal still verifies.
// The record itself, answers younger than a day and events stay.
func (tx *Tx) EraseHistory(collection, id string) {
	tx.mustWrite()
	lo, hi := tx.rows(spaceHistory, collection, id)
	for p := range tx.scan(lo, hi, false) {
		if tx.entryIsGone(p) {
			continue
		}
		e := tx.historyEntry(p.Key[len(lo):])
		if e == nil {
			return
		}
		for _, c := range e.GetChanges() {
			if c.GetCollection() == collection && c.GetId() == id {
				c.OldValue, c.NewValue = nil, nil
			}
		}
		tx.save(tx.row(spaceJournal, e.GetRevision()), e)
	}
	if tx.erased == nil {
		tx.erased = map[string]bool{}
	}
	tx.erased[string(tx.row(spaceRecord, collection, id))] = true
}

// historyEntry loads the entry that the rest of a history row's key names.
func (tx *Tx) historyEntry(key []byte) *storepb.JournalEntry {
	revision, _, ok := cutInt(key)
	e := &storepb.JournalEntry{}
	if !ok || !tx.load(tx.row(spaceJournal, revision), e) {
		tx.fail("read history", fmt.Errorf("revision %d is missing", revision))
		return nil
	}
	return e
}
