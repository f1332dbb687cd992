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
// after an error.
func (db *DB) Journal(ctx context.Context, tenant string, afterRevision int64) iter.Seq2[*storepb.JournalEntry, error] {
	return func(yield func(*storepb.JournalEntry, error) bool) {
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

// VerifyJournal returns an error that names the first revision of the tenant's
// journal that is missing, or differs from what was committed. An erased value is
// no difference.
func (db *DB) VerifyJournal(ctx context.Context, tenant string) error {
	last := &storepb.Head{}
	for e, err := range db.Journal(ctx, tenant, 0) {
		if err != nil {
			return err
		}
		if wrong := verifyEntry(e, last); wrong != "" {
			return fmt.Errorf("journal of %s is damaged at revision %d: %s", tenant, last.GetRevision()+1, wrong)
		}
		last = &storepb.Head{Revision: e.GetRevision(), Hash: e.GetHash()}
	}
	return db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		if wrong := tx.verifyHead(last); wrong != "" {
			return fmt.Errorf("journal of %s is damaged at revision %d: %s", tenant, last.GetRevision()+1, wrong)
		}
		return nil
	})
}

// verifyHead says what is wrong with the journal's head if last is the last entry that
// was found before. More may have come since.
func (tx *Tx) verifyHead(last *storepb.Head) string {
	head := tx.journalHead()
	switch {
	case head.GetRevision() < last.GetRevision():
		return "head is behind"
	case head.GetRevision() > last.GetRevision():
		if tx.get(tx.row(spaceJournal, last.GetRevision()+1)) == nil {
			return "entry is missing"
		}
	case !bytes.Equal(head.GetHash(), last.GetHash()):
		return "head has another hash"
	}
	return ""
}

// verifyEntry says what is wrong with the entry that follows last, if anything.
func verifyEntry(e *storepb.JournalEntry, last *storepb.Head) string {
	switch {
	case e.GetRevision() != last.GetRevision()+1:
		return "entry is missing"
	case !bytes.Equal(e.GetPreviousHash(), last.GetHash()):
		return "entry does not follow the one before"
	case !bytes.Equal(e.GetHash(), entryHash(e)):
		return "entry has another hash"
	}
	for _, c := range e.GetChanges() {
		if c.OldValue != nil && !bytes.Equal(sum(c.GetOldValue()), c.GetOldHash()) ||
			c.NewValue != nil && !bytes.Equal(sum(c.GetNewValue()), c.GetNewHash()) {
			return "value of " + c.GetCollection() + " " + c.GetId() + " has another hash"
		}
	}
	for _, ev := range e.GetEvents() {
		if ev.Payload != nil && !bytes.Equal(sum(ev.GetPayload()), ev.GetHash()) {
			return "event " + ev.GetType() + " has another hash"
		}
	}
	return ""
}

// History yields the journal's entries that changed the record, the newest first,
// each with this change alone and without events.
func (tx *Tx) History(collection, id string) iter.Seq[*storepb.JournalEntry] {
	return func(yield func(*storepb.JournalEntry) bool) {
		lo, hi := tx.rows(spaceHistory, collection, id)
		for p := range tx.scan(lo, hi, true) {
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
