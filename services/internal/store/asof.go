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

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// RevisionAt returns the last revision that was committed at an instant or before it, 0
// if there is none. Where the clock was set back meanwhile, it is one of those between
// which the instant lies. Asking for a time that the journal no longer tells of fails the
// transaction, with a fault that says so.
func (tx *Tx) RevisionAt(at time.Time) int64 {
	base := tx.journalBase()
	if base.GetRevision() > 0 && at.Before(base.GetCommitTime().AsTime()) {
		tx.fail("read journal", compacted(base.GetRevision()-1, base.GetRevision()))
	}
	return tx.revisionAt(at, base.GetRevision())
}

// revisionAt is RevisionAt for what is kept: of an earlier time it returns the base.
func (tx *Tx) revisionAt(at time.Time, base int64) int64 {
	last := tx.journalHead().GetRevision()
	return base + int64(sort.Search(int(last-base), func(i int) bool {
		return tx.Entry(base + int64(i) + 1).GetCommitTime().AsTime().After(at)
	}))
}

// Entry returns the entry of a revision in the tenant's journal, without the payloads of
// its events. Asking for one that is not there fails the transaction, with a fault that
// says so if it was there once. Nobody may change it.
func (tx *Tx) Entry(revision int64) *storepb.JournalEntry {
	// One that changed very many records is asked for again for each of them.
	if tx.entry.GetRevision() == revision && tx.entry != nil {
		return tx.entry
	}
	tx.entry = tx.loadEntry(revision)
	return tx.entry
}

// loadEntry is Entry for those who change it.
func (tx *Tx) loadEntry(revision int64) *storepb.JournalEntry {
	e := &storepb.JournalEntry{}
	if !tx.load(tx.row(spaceJournal, revision), e) {
		tx.failMissing(revision)
		return nil
	}
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

func (tx *Tx) failMissing(revision int64) {
	err := tx.checkKept(revision - 1)
	if err == nil {
		err = fmt.Errorf("revision %d is missing", revision)
	}
	tx.fail("read journal", err)
}

// Revisions yields the revisions that changed a record, up to one of them, the newest
// first, as far as their entries are kept.
func (tx *Tx) Revisions(collection, id string, upTo int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		lo, _ := tx.rows(spaceHistory, collection, id)
		hi := bytes.Clone(tx.row(spaceHistory, collection, id, upTo+1))
		for p := range tx.scan(lo, hi, true) {
			if tx.entryIsGone(p) {
				return
			}
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
// none. It fails the transaction, with a fault that says so, if that is no longer kept.
func (c *Collection[T]) At(tx *Tx, id string, revision int64) (v T, ok bool) {
	now, exists := c.Get(tx, id)
	if exists && c.unchangedSince(now, revision) {
		return now, true
	}
	if err := tx.checkKept(max(revision, 0)); err != nil {
		tx.fail("read history", err)
		return v, false
	}
	was, known := tx.after(c.name, id, revision)
	if !known || was.erased() {
		// The next change tells it too.
		if before, ok := tx.beforeNext(c.name, id, revision); ok {
			was, known = before, true
		}
	}
	switch {
	case !known: // it has not been changed since
		return now, exists
	case len(was.hash) == 0:
		return v, false
	case !was.erased():
		return c.decode(tx, was.value)
	case exists && bytes.Equal(sum(tx.get(tx.under(c.prefix, id))), was.hash):
		return now, true
	}
	tx.fail("read history", erasedValue(c.name, id, revision))
	return v, false
}

// side is a record on one side of a change: without a hash it was not there.
type side struct{ hash, value []byte }

func (s side) erased() bool { return len(s.hash) > 0 && s.value == nil }

// after returns what the last change of a record up to a revision made of it, or false if
// no such change is kept.
func (tx *Tx) after(collection, id string, revision int64) (side, bool) {
	for r := range tx.Revisions(collection, id, revision) {
		c := changeOf(tx.Entry(r), collection, id)
		return side{c.GetNewHash(), c.GetNewValue()}, true
	}
	return side{}, false
}

// beforeNext returns what the first change of a record after a revision found, or false if
// there is none.
func (tx *Tx) beforeNext(collection, id string, revision int64) (side, bool) {
	start, hi := tx.rows(spaceHistory, collection, id)
	lo := bytes.Clone(tx.row(spaceHistory, collection, id, max(revision, 0)+1))
	for p := range tx.scan(lo, hi, false) {
		c := changeOf(tx.historyEntry(p.Key[len(start):]), collection, id)
		return side{c.GetOldHash(), c.GetOldValue()}, true
	}
	return side{}, false
}

// erasedValue says that what a record was is no longer kept.
func erasedValue(collection, id string, revision int64) error {
	return fault.New(codes.OutOfRange, faultpb.Reason_REASON_JOURNAL_COMPACTED,
		fmt.Sprintf("what %s %q was at revision %d is no longer kept", collection, id, revision),
		map[string]string{"revision": strconv.FormatInt(revision, 10)})
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
