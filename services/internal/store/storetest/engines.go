package storetest

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"latchkey.dev/services/internal/store"
)

// Twice returns an engine that calls the function of each Update once more than
// needed and takes only what the last call returned. A function with an effect
// outside its transaction shows it twice.
func Twice(e store.Engine) store.Engine { return twice{e} }

type twice struct{ store.Engine }

func (e twice) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	return e.Engine.Update(ctx, func(s store.Snapshot) ([]store.Write, error) {
		if _, err := f(s); err != nil {
			return nil, err
		}
		return f(s)
	})
}

// ErrInjected is the error of a [Failing] engine.
var ErrInjected = errors.New("injected failure")

// Failing is an engine whose reads fail when a countdown ends.
type Failing struct {
	store.Engine
	left atomic.Int64
}

// NewFailing returns an engine that does not fail yet.
func NewFailing(e store.Engine) *Failing {
	f := &Failing{Engine: e}
	f.FailAfter(1 << 62)
	return f
}

// FailAfter lets n more reads succeed, a step of a scan being one, and all later fail.
func (e *Failing) FailAfter(n int) { e.left.Store(int64(n)) }

// View implements store.Engine.
func (e *Failing) View(ctx context.Context, f func(store.Snapshot) error) error {
	return e.Engine.View(ctx, func(s store.Snapshot) error { return f(failingSnapshot{s, e}) })
}

// Update implements store.Engine.
func (e *Failing) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	return e.Engine.Update(ctx, func(s store.Snapshot) ([]store.Write, error) { return f(failingSnapshot{s, e}) })
}

type failingSnapshot struct {
	store.Snapshot
	e *Failing
}

func (s failingSnapshot) Get(key []byte) ([]byte, error) {
	if s.e.left.Add(-1) < 0 {
		return nil, ErrInjected
	}
	return s.Snapshot.Get(key)
}

func (s failingSnapshot) Scan(lo, hi []byte, reverse bool) iter.Seq2[store.Pair, error] {
	return func(yield func(store.Pair, error) bool) {
		for p, err := range s.Snapshot.Scan(lo, hi, reverse) {
			if s.e.left.Add(-1) < 0 {
				yield(store.Pair{}, ErrInjected)
				return
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// recorder keeps what the last Update wrote.
type recorder struct {
	store.Engine
	mu   sync.Mutex
	last []store.Write
	n    int // Updates that wrote
}

func (e *recorder) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	var writes []store.Write
	err := e.Engine.Update(ctx, func(s store.Snapshot) (w []store.Write, err error) {
		w, err = f(s)
		writes = w
		return w, err
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last = nil; err == nil && len(writes) > 0 {
		e.last = writes
		e.n++
	}
	return err
}

// Memory is an engine that keeps everything in memory. Its Updates run at the same
// time, and all but one of those that overlap are run again.
type Memory struct{ state atomic.Pointer[memoryState] }

// memoryState is one committed state, never changed.
type memoryState struct {
	pairs  []store.Pair // in the order of their keys
	closed bool
}

// NewMemory returns an empty engine.
func NewMemory() *Memory {
	m := &Memory{}
	m.state.Store(&memoryState{})
	return m
}

// Reopen makes a closed engine usable again.
func (m *Memory) Reopen() { m.state.Store(&memoryState{pairs: m.state.Load().pairs}) }

// Close implements store.Engine.
func (m *Memory) Close() error {
	m.state.Store(&memoryState{pairs: m.state.Load().pairs, closed: true})
	return nil
}

// View implements store.Engine.
func (m *Memory) View(ctx context.Context, f func(store.Snapshot) error) error {
	s := m.state.Load()
	if s.closed {
		return store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return f(s)
}

// Update implements store.Engine.
func (m *Memory) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	for {
		s := m.state.Load()
		if s.closed {
			return store.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		writes, err := f(s)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(writes, func(w store.Write) bool { return len(w.Key) == 0 }) {
			return errors.New("empty key")
		}
		if m.state.CompareAndSwap(s, s.with(writes)) {
			return nil
		}
	}
}

// with returns the state after the writes.
func (s *memoryState) with(writes []store.Write) *memoryState {
	if len(writes) == 0 {
		return s
	}
	writes = slices.Clone(writes)
	slices.SortStableFunc(writes, func(a, b store.Write) int { return bytes.Compare(a.Key, b.Key) })
	pairs := make([]store.Pair, 0, len(s.pairs)+len(writes))
	old := s.pairs
	for i, w := range writes {
		at, found := find(old, w.Key)
		pairs = append(pairs, old[:at]...)
		if old = old[at:]; found {
			old = old[1:]
		}
		overwritten := i+1 < len(writes) && bytes.Equal(w.Key, writes[i+1].Key)
		if w.Value != nil && !overwritten {
			pairs = append(pairs, store.Pair{Key: bytes.Clone(w.Key), Value: bytes.Clone(w.Value)})
		}
	}
	return &memoryState{pairs: append(pairs, old...)}
}

func find(pairs []store.Pair, key []byte) (int, bool) {
	return slices.BinarySearchFunc(pairs, key, func(p store.Pair, key []byte) int { return bytes.Compare(p.Key, key) })
}

// Get implements store.Snapshot.
func (s *memoryState) Get(key []byte) ([]byte, error) {
	if i, ok := find(s.pairs, key); ok {
		return s.pairs[i].Value, nil
	}
	return nil, nil
}

// Scan implements store.Snapshot.
func (s *memoryState) Scan(lo, hi []byte, reverse bool) iter.Seq2[store.Pair, error] {
	return func(yield func(store.Pair, error) bool) {
		from, _ := find(s.pairs, lo)
		to, _ := find(s.pairs, hi)
		for i := range to - from {
			at := from + i
			if reverse {
				at = to - 1 - i
			}
			if !yield(s.pairs[at], nil) {
				return
			}
		}
	}
}
