package store

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// errTooLong ends a read that holds its snapshot for too long: the engine can
// reuse no space that a snapshot still sees. A caller hears that there is too much to do,
// which is so if the read is one that is quick on a machine with less.
var errTooLong = fmt.Errorf("%w (read transaction lives too long: read in pages)", fault.Limit("time of a read", time.Second))

// Tx is a transaction over the records of one tenant. It is valid only inside the
// function that it was given to, and used by one goroutine at a time.
type Tx struct {
	db       *DB
	ctx      context.Context // of the call that the transaction lives in
	done     <-chan struct{} // the ctx's
	snap     Snapshot
	remote   Remote // the snapshot, if it is far away
	prefix   []byte // the tenant's
	origin   Origin
	now      time.Time
	expiry   <-chan time.Time // nil in an Update
	timer    *time.Timer      // the expiry's
	slices   int              // left
	writable bool
	ended    bool
	entered  bool // the journal got an entry
	carried  bool // the origin's note goes along

	headAsked bool  // the journal's head was fetched
	err       error // the first error of the engine

	overlay   overlay
	beside    []Write // rows of no tenant that go along
	events    []*storepb.Event
	head      *storepb.Head         // once it was read
	entry     *storepb.JournalEntry // the last that was read
	erased    map[string]bool
	positions map[string]int64 // that were set, by source
	parties   map[string]bool  // beside the tenant
	requestID string
	scratch   []byte    // the last key made
	room      [256]byte // for prefix and scratch
}

// Now returns the time of the transaction, the same at each call, in UTC.
func (tx *Tx) Now() time.Time { return tx.now }

// Tenant returns whose records the transaction sees.
func (tx *Tx) Tenant() string { return tx.origin.Tenant }

// Revision returns the revision that the transaction will have if it changes
// something; in a View, that of the last change it sees.
func (tx *Tx) Revision() int64 {
	last := tx.journalHead().GetRevision()
	if tx.writable {
		return last + 1
	}
	return last
}

// Failed returns the first error of the engine, after which reads find nothing and
// writes do nothing. It wins over whatever the transaction's function returns, so
// only a function that acts on finding nothing for long needs to ask.
func (tx *Tx) Failed() error { return tx.err }

func (tx *Tx) fail(doing string, err error) {
	if tx.err == nil && err != nil {
		tx.err = fmt.Errorf("%s: %w", doing, err)
	}
}

// alive reports whether the transaction may go on.
func (tx *Tx) alive() bool {
	if tx.ended {
		panic("store: transaction used after its function returned")
	}
	if tx.err != nil {
		return false
	}
	select {
	case <-tx.done:
		tx.fail("use transaction", tx.ctx.Err())
	case <-tx.expiry:
		return tx.spend()
	default:
		return true
	}
	return false
}

// spend ends one of the slices that the time of a read is divided into. A process
// that was not running for a while has lost one of them; a read that has lost
// all of them was at work, or waited for something it should not.
func (tx *Tx) spend() bool {
	if tx.slices--; tx.slices == 0 {
		tx.fail("use transaction", errTooLong)
		return false
	}
	tx.timer.Reset(tx.db.slice())
	return true
}

// get returns the value of the key as the transaction sees it, or nil.
func (tx *Tx) get(key []byte) []byte { return tx.getIn(tx.overlay.root, key) }

// getIn is get as of an earlier state of the transaction's own writes.
func (tx *Tx) getIn(writes *node, key []byte) []byte {
	if !tx.alive() {
		return nil
	}
	if v, ok := writes.find(key); ok {
		return v
	}
	if tx.remote != nil && tx.writable && !tx.headAsked {
		tx.fetch(bytes.Clone(key))
	}
	v, err := tx.snap.Get(key)
	tx.fail("read", err)
	return v
}

// put keeps the value and copies the key, which may be scratch.
func (tx *Tx) put(key, value []byte) { tx.set(bytes.Clone(key), value) }

func (tx *Tx) del(key []byte) { tx.put(key, nil) }

// set keeps both.
func (tx *Tx) set(key, value []byte) {
	tx.mustWrite()
	if tx.alive() {
		tx.overlay.set(key, value)
	}
}

func (tx *Tx) mustWrite() {
	if !tx.writable {
		panic("store: write in a View")
	}
}

// scan yields the pairs with lo <= key < hi as they are when it begins.
func (tx *Tx) scan(lo, hi []byte, reverse bool) iter.Seq[Pair] {
	return func(yield func(Pair) bool) {
		tx.scanIn(tx.overlay.freeze(), lo, hi, reverse)(yield)
	}
}

// scanIn merges the engine's pairs with the transaction's own writes.
func (tx *Tx) scanIn(writes *node, lo, hi []byte, reverse bool) iter.Seq[Pair] {
	return func(yield func(Pair) bool) {
		if !tx.alive() || bytes.Compare(lo, hi) >= 0 {
			return
		}
		own := writes.walk(lo, hi, reverse)
		w := own.next()
		for p, err := range tx.snap.Scan(lo, hi, reverse) {
			if tx.fail("scan", err); !tx.alive() {
				return
			}
			for w != nil && comesFirst(w.key, p.Key, reverse) {
				if w.value != nil && !yield(Pair{w.key, w.value}) {
					return
				}
				w = own.next()
			}
			if w != nil && bytes.Equal(w.key, p.Key) {
				p.Value = w.value
				w = own.next()
			}
			if p.Value != nil && !yield(p) {
				return
			}
		}
		for ; w != nil && tx.alive(); w = own.next() {
			if w.value != nil && !yield(Pair{w.key, w.value}) {
				return
			}
		}
	}
}

func comesFirst(a, b []byte, reverse bool) bool {
	c := bytes.Compare(a, b)
	return c < 0 && !reverse || c > 0 && reverse
}

// load decodes the row into m and reports whether there is one.
func (tx *Tx) load(key []byte, m proto.Message) bool {
	b := tx.get(key)
	if b == nil {
		return false
	}
	tx.fail("decode row", proto.Unmarshal(b, m))
	return tx.err == nil
}

// save writes m as a row.
func (tx *Tx) save(key []byte, m proto.Message) {
	b, err := encode(m)
	tx.fail("encode row", err)
	tx.put(key, b)
}

// encode never returns nil without an error, because nil would delete.
func encode(m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if b == nil && err == nil {
		return present, nil
	}
	return b, err
}

// journalHead returns the end of the journal, which is read once.
func (tx *Tx) journalHead() *storepb.Head {
	if tx.head == nil {
		tx.head = &storepb.Head{}
		tx.load(tx.row(spaceHead), tx.head)
		if !tx.writable && tx.err == nil {
			tx.db.heads.raise(tx.Tenant(), tx.head.GetRevision())
		}
	}
	return tx.head
}

// etag returns what the records changed by this transaction carry.
func (tx *Tx) etag() string { return strconv.FormatInt(tx.Revision(), 10) }
