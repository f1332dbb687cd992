package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// RevisionAt returns the last revision that was committed at an instant or before it, 0
// if there is none. Where the clock was set back meanwhile, it is one of those between
// which the instant lies.
func (tx *Tx) RevisionAt(at time.Time) int64 {
	last := tx.journalHead().GetRevision()
	return int64(sort.Search(int(last), func(i int) bool {
		return tx.Entry(int64(i) + 1).GetCommitTime().AsTime().After(at)
	}))
}

// Entry returns the entry of a revision in the tenant's journal, without the payloads of
// its events. Asking for one that is not there fails the transaction. Nobody may change it.
func (tx *Tx) Entry(revision int64) *storepb.JournalEntry {
	// One that changed very many records is asked for again for each of them.
	if tx.entry.GetRevision() == revision && tx.entry != nil {
		return tx.entry
	}
	e := &storepb.JournalEntry{}
	if !tx.load(tx.row(spaceJournal, revision), e) {
		tx.fail("read journal", fmt.Errorf("revision %d is missing", revision))
		return nil
	}
	tx.entry = e
	return e
}

// changeOf returns what an entry did to a record; an entry that did nothing to it, nil.
// The changes of an entry are in the order of their keys.
func changeOf(e *storepb.JournalEntry, collection, id string) *storepb.Change {
	i, found := slices.BinarySearchFunc(e.GetChanges(), id, func(c *storepb.Change, id string) int {
		return cmp.Or(strings.Compare(c.GetCollection(), collection), strings.Compare(c.GetId(), id))
	})
	if !found {
		return nil
	}
	return e.GetChanges()[i]
}

// Revisions yields the revisions that changed a record, up to one of them, the newest
// first.
func (tx *Tx) Revisions(collection, id string, upTo int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		lo, _ := tx.rows(spaceHistory, collection, id)
		hi := bytes.Clone(tx.row(spaceHistory, collection, id, upTo+1))
		for p := range tx.scan(lo, hi, true) {
			revision, _, ok := cutInt(p.Key[len(lo):])
			if !ok {
				tx.fail("read history", errors.New("a row of it is damaged"))
				return
			}
			if !yield(revision) {
				return
			}
		}
	}
}

// At returns the record with the id as it was after a revision, or false if there was
// none. It fails the transaction if that value was erased.
func (c *Collection[T]) At(tx *Tx, id string, revision int64) (v T, ok bool) {
	if v, ok := c.Get(tx, id); ok && c.unchangedSince(v, revision) {
		return v, true
	}
	for r := range tx.Revisions(c.name, id, revision) {
		change := changeOf(tx.Entry(r), c.name, id)
		switch {
		case len(change.GetNewHash()) == 0:
			return v, false
		case change.NewValue == nil:
			tx.fail("read history", fmt.Errorf("%s %q of revision %d was erased", c.name, id, r))
			return v, false
		}
		return c.decode(tx, change.GetNewValue())
	}
	return v, false
}

// unchangedSince reports whether the record's etag says that it is what it was after a
// revision. Without an etag nothing is known.
func (c *Collection[T]) unchangedSince(v T, revision int64) bool {
	if c.fields.etag == nil {
		return false
	}
	changed, err := strconv.ParseInt(v.ProtoReflect().Get(c.fields.etag).String(), 10, 64)
	return err == nil && changed <= revision
}

// Decode decodes a value of the collection from the journal.
func (c *Collection[T]) Decode(value []byte) (T, error) {
	v := c.typ.New().Interface().(T)
	err := proto.Unmarshal(value, v)
	return v, err
}

// IDs yields the ids of all records that there are or were, in their order, after one.
func (c *Collection[T]) IDs(tx *Tx, after string) iter.Seq[string] {
	return func(yield func(string) bool) {
		lo, hi := tx.rows(spaceHistory, c.name)
		start := len(lo)
		if after != "" {
			_, lo = tx.rows(spaceHistory, c.name, after)
		}
		for {
			id, ok := tx.firstID(lo, hi, start)
			if !ok || !yield(id) {
				return
			}
			_, lo = tx.rows(spaceHistory, c.name, id)
		}
	}
}

// firstID returns the id in the first history row of a range.
func (tx *Tx) firstID(lo, hi []byte, start int) (id string, ok bool) {
	for p := range tx.scan(lo, hi, false) {
		if id, _, ok = cutString(p.Key[start:]); !ok {
			tx.fail("read history", errors.New("a row of it is damaged"))
		}
		break
	}
	return id, ok
}

// OpenCursor returns where a list goes on that is not of a collection: what SealCursor was
// given for the page before, or "" for the first page.
func (tx *Tx) OpenCursor(req PageRequest) (place string, err error) {
	if req.GetPageToken() == "" {
		return "", nil
	}
	b, err := tx.openToken(req.GetPageToken(), req)
	return string(b), err
}

// SealCursor returns the token of a next page. It is good for the same request by the
// same caller, as those of Page are.
func (tx *Tx) SealCursor(req PageRequest, place string) (string, error) {
	return tx.sealToken([]byte(place), req)
}

// PageSize returns how many items a page of a list may have.
func PageSize(req PageRequest) (int, error) { return pageSize(req) }
