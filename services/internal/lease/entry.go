package lease

import (
	"sync/atomic"
)

// hold is a subscriber's lease as its entries see it.
type hold struct {
	clock Clock
	until atomic.Int64 // end of the lease on the clock; 0 while there is none
	gone  *mark        // the mark of every entry that was dropped
}

// mark is what Stale made for those who wait.
type mark struct{ ch chan struct{} }

func newHold(clock Clock) *hold {
	gone := &mark{ch: make(chan struct{})}
	close(gone.ch)
	return &hold{clock: clock, gone: gone}
}

// held reports whether the lease holds now: up to its end, and not at it.
func (h *hold) held() bool {
	now := h.clock()
	return int64(now) < h.until.Load()
}

// Entry is a fact in the cache. It is shared: its Value must not be changed.
type Entry[V any] struct {
	Value V

	key  string
	tags []string
	hold *hold
	used atomic.Bool              // since the hand of the eviction last passed
	mark atomic.Pointer[mark]     // nil until somebody asks for Stale; hold.gone once dropped
	next atomic.Pointer[Entry[V]] // in the bucket of the table
	slot int                      // place in index.slots; the cache's mu guards it
}

// Valid reports whether the entry may be used for a decision now: the lease holds,
// and the entry was not dropped. Ask right before the use.
//
// SECURITY: the order matters. The entry was read first, the lease is looked at
// second and the mark last. A true answer so means that at the moment when the
// clock was read the lease held and the entry was not dropped, and a write that made
// it untrue had not returned.
func (e *Entry[V]) Valid() bool {
	return e.hold.held() && e.mark.Load() != e.hold.gone
}

// Stale returns a channel that is closed when the entry can no longer be relied on:
// a fact in it changed, everything was dropped, or it made room for others. Whoever
// acts on an entry for long, as an open stream does, then asks the cache again.
func (e *Entry[V]) Stale() <-chan struct{} {
	if m := e.mark.Load(); m != nil {
		return m.ch
	}
	e.mark.CompareAndSwap(nil, &mark{ch: make(chan struct{})})
	return e.mark.Load().ch
}

// drop makes the entry invalid for good.
func (e *Entry[V]) drop() {
	if m := e.mark.Swap(e.hold.gone); m != nil && m != e.hold.gone {
		close(m.ch)
	}
}

// watched reports whether somebody asked for Stale.
func (e *Entry[V]) watched() bool { return e.mark.Load() != nil }

// touch notes a use. It writes only the first time, so that a hot entry's cache line
// stays shared between the cores.
func (e *Entry[V]) touch() {
	if !e.used.Load() {
		e.used.Store(true)
	}
}
