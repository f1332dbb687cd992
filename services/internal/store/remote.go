package store

import (
	"bytes"
	"context"
	"iter"
	"time"
)

// fetch makes the keys known, if the snapshot is far away. What the transaction has written
// itself is known.
func (tx *Tx) fetch(keys ...[]byte) {
	if tx.remote == nil || !tx.alive() {
		return
	}
	missing := make([][]byte, 0, len(keys))
	for _, key := range keys {
		if !tx.known(key) {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		tx.fail("read", tx.remote.Fetch(tx.withHead(missing)))
	}
}

// known reports whether a get of the key costs nothing.
func (tx *Tx) known(key []byte) bool {
	if tx.remote == nil {
		return true
	}
	_, ok := tx.overlay.root.find(key)
	return ok || tx.remote.Known(key)
}

// withHead adds to the keys of an Update's first read the key of the journal's head, which
// its commit needs.
func (tx *Tx) withHead(keys [][]byte) [][]byte {
	if !tx.writable || tx.headAsked {
		return keys
	}
	tx.headAsked = true
	return append(keys, append(bytes.Clone(tx.prefix), spaceHead))
}

// fetchWritten makes known what was there before of the records and of what is deleted.
func (tx *Tx) fetchWritten() {
	if tx.remote == nil {
		return
	}
	var keys [][]byte
	records, _ := tx.rows(spaceRecord)
	own := tx.overlay.root.walk(tx.prefix, after(tx.prefix), false)
	for w := own.next(); w != nil; w = own.next() {
		if (w.value == nil || bytes.HasPrefix(w.key, records)) && !tx.remote.Known(w.key) {
			keys = append(keys, w.key)
		}
	}
	if len(keys) > 0 {
		tx.fail("read", tx.remote.Fetch(tx.withHead(keys)))
	}
}

// fetchForPut makes known at once what Put will read of a record that is probably new: the
// record, and who has its keys in the unique indexes.
func (c *Collection[T]) fetchForPut(tx *Tx, id string, v T) {
	record := bytes.Clone(tx.under(c.prefix, id))
	if tx.known(record) {
		return
	}
	keys := [][]byte{record}
	for _, ix := range c.indexes {
		if ix.unique {
			keys = append(keys, ix.entries(tx, v, id)...)
		}
	}
	tx.fetch(keys...)
}

// A scan of an index fetches this many records at first, and then more.
const (
	firstAhead = 8
	mostAhead  = 256
)

// ahead yields the sequence. If the snapshot is far away it reads ahead in it, n at first,
// and fetches the keys of what it finds.
func ahead[P any](tx *Tx, n int, seq iter.Seq[P], key func(P) []byte) iter.Seq[P] {
	if tx.remote == nil {
		return seq
	}
	return func(yield func(P) bool) {
		var found []P
		var keys [][]byte
		flush := func() bool {
			tx.fetch(keys...)
			for _, p := range found {
				if !yield(p) {
					return false
				}
			}
			found, keys = found[:0], keys[:0]
			n = min(8*n, mostAhead)
			return true
		}
		for p := range seq {
			found = append(found, p)
			if k := key(p); k != nil {
				keys = append(keys, k)
			}
			if len(found) >= n && !flush() {
				return
			}
		}
		flush()
	}
}

// recordKey returns the key of the record that an entry of the range stands for, or nil if
// it is the record itself.
func (r Range[T]) recordKey(tx *Tx, p Pair) []byte {
	if r.index == nil {
		return nil
	}
	id, _ := r.index.idOf(tx, p)
	return bytes.Clone(tx.under(r.c.prefix, id))
}

// othersPause is between two questions after the commits of other processes.
const othersPause = 200 * time.Millisecond

// hearOthers tells the listeners of what other processes have committed, until ctx ends.
func (db *DB) hearOthers(ctx context.Context, engine Shared) {
	failed := false
	for tick := time.NewTimer(othersPause); ; tick.Reset(othersPause) {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if !db.changes.heard() {
			continue
		}
		tenants, err := engine.Others(ctx)
		for _, t := range tenants {
			if t != "" { // which is what replicas say to each other
				db.changes.add(t)
			}
		}
		if err != nil && !failed && ctx.Err() == nil {
			db.cfg.Log.WarnContext(ctx, "commits of other processes cannot be seen", "error", err)
		}
		failed = err != nil
	}
}

// heard reports whether anybody listens.
func (cs *changes) heard() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.listeners) > 0
}
