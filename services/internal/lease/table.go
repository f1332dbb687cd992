package lease

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// table finds an entry by its key. Readers take no lock and write nothing, so that
// they never meet; there is one writer at a time, which the cache's mu sees to. It is
// made for its full size at once, because what may fill it will.
//
// Entries with the same bucket are linked by their next. A reader that stands on an
// entry while it is removed goes on to those behind it. It may miss one that is added
// meanwhile, which costs a look under mu.
type table[V any] struct {
	seed    maphash.Seed
	buckets []atomic.Pointer[Entry[V]] // a power of two
}

func newTable[V any](max int) table[V] {
	return table[V]{
		seed:    maphash.MakeSeed(),
		buckets: make([]atomic.Pointer[Entry[V]], 1<<bits.Len(uint(max-1))),
	}
}

func (t *table[V]) bucket(key string) *atomic.Pointer[Entry[V]] {
	return &t.buckets[maphash.String(t.seed, key)&uint64(len(t.buckets)-1)]
}

// get returns the entry of the key, or nil.
func (t *table[V]) get(key string) *Entry[V] {
	e := t.bucket(key).Load()
	for e != nil && e.key != key {
		e = e.next.Load()
	}
	return e
}

// add adds an entry whose key the table does not have.
func (t *table[V]) add(e *Entry[V]) {
	bucket := t.bucket(e.key)
	e.next.Store(bucket.Load())
	bucket.Store(e)
}

// remove removes an entry of the table. Its own next stays, for those who stand on it.
func (t *table[V]) remove(e *Entry[V]) {
	at := t.bucket(e.key)
	for at.Load() != e {
		at = &at.Load().next
	}
	at.Store(e.next.Load())
}

func (t *table[V]) clear() {
	for i := range t.buckets {
		t.buckets[i].Store(nil)
	}
}
