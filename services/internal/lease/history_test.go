package lease

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// history checks the promise: once a write has returned, nobody is answered with
// what was true before it. For each key it holds the lowest version that may still
// be seen, which a write raises when it returns, and a reader notes before it asks.
type history struct {
	floors []atomic.Int64

	reads      atomic.Int64 // answers that were checked
	refusals   atomic.Int64 // answers that were errors
	mu         sync.Mutex
	violations []string
	found      func() // called at each violation, unless nil
}

func newHistory(keys int) *history { return &history{floors: make([]atomic.Int64, keys)} }

func keyName(i int) string { return fmt.Sprintf("key-%d", i) }

// returned notes that the write of the version has returned.
func (h *history) returned(key, version int) {
	for {
		floor := h.floors[key].Load()
		if int64(version) <= floor || h.floors[key].CompareAndSwap(floor, int64(version)) {
			return
		}
	}
}

// read asks the cache once and checks the answer.
func (h *history) read(ctx context.Context, c *Cache[int], key int) *Entry[int] {
	floor := h.floors[key].Load()
	e, err := c.Get(ctx, keyName(key))
	if err != nil {
		h.refusals.Add(1)
		return nil
	}
	h.check("Get", key, floor, e)
	return e
}

// recheck asks whether an entry that was read before may still be used.
func (h *history) recheck(key int, e *Entry[int]) {
	floor := h.floors[key].Load()
	if e != nil && e.Valid() {
		h.check("Valid", key, floor, e)
	}
}

func (h *history) check(method string, key int, floor int64, e *Entry[int]) {
	h.reads.Add(1)
	if int64(e.Value) < floor {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.violations = append(h.violations,
			fmt.Sprintf("%s of %s told version %d after the write of %d had returned", method, keyName(key), e.Value, floor))
		if h.found != nil {
			h.found()
		}
	}
}

func (h *history) violated() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.violations
}
