package storetest

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"latchkey.dev/services/internal/store"
)

// engineRandom runs updates at the same time, which add and remove so many keys that
// whole pages come and go, and compares with a map to which they are applied in
// the order that they found themselves in.
func engineRandom(t *testing.T, open func() store.Engine) {
	e := mustOpen(t, open)
	model := map[string]string{}
	rapid.Check(t, func(rt *rapid.T) {
		var changes []change
		for range rapid.IntRange(1, 6).Draw(rt, "updates") {
			changes = append(changes, drawChange(rt))
		}
		for _, c := range runChanges(rt, e, changes) {
			c.apply(model)
		}
		var want []string
		for _, k := range slices.Sorted(maps.Keys(model)) {
			want = append(want, k+"="+model[k])
		}
		view(rt, e, func(s store.Snapshot) {
			if got := scanned(rt, s, "k", "l", false); !slices.Equal(got, want) {
				rt.Fatalf("got %d pairs, want %d", len(got), len(want))
			}
		})
	})
}

// change sets or removes the keys of the numbers from up to and without to.
type change struct {
	from, to int
	remove   bool
	value    string
}

func drawChange(rt *rapid.T) change {
	from := rapid.IntRange(0, 300).Draw(rt, "from")
	return change{
		from: from, to: from + rapid.IntRange(1, 150).Draw(rt, "n"),
		remove: rapid.Bool().Draw(rt, "remove"), value: rapid.StringN(50, 100, -1).Draw(rt, "value"),
	}
}

func (c change) key(i int) string { return fmt.Sprintf("k%04d", i) }

func (c change) apply(model map[string]string) {
	for i := c.from; i < c.to; i++ {
		if c.remove {
			delete(model, c.key(i))
		} else {
			model[c.key(i)] = c.value
		}
	}
}

func (c change) writes() []store.Write {
	var writes []store.Write
	for i := c.from; i < c.to; i++ {
		w := store.Write{Key: []byte(c.key(i))}
		if !c.remove {
			w.Value = []byte(c.value)
		}
		writes = append(writes, w)
	}
	return writes
}

// runChanges runs each change in an Update of its own, all at the same time, and
// returns them in the order in which they took effect.
func runChanges(rt *rapid.T, e store.Engine, changes []change) []change {
	var mu sync.Mutex
	order := map[uint64]change{}
	var wg sync.WaitGroup
	for _, c := range changes {
		wg.Go(func() {
			var turn uint64
			err := e.Update(context.Background(), func(s store.Snapshot) ([]store.Write, error) {
				up, down := scanned(rt, s, "k", "l", false), scanned(rt, s, "k", "l", true)
				if slices.Reverse(down); !slices.Equal(up, down) {
					rt.Errorf("a scan finds %d pairs, and %d in reverse", len(up), len(down))
				}
				turn = 0
				if b, _ := s.Get([]byte("turn")); b != nil {
					turn = binary.BigEndian.Uint64(b)
				}
				next := binary.BigEndian.AppendUint64(nil, turn+1)
				return append(c.writes(), store.Write{Key: []byte("turn"), Value: next}), nil
			})
			if err != nil {
				rt.Errorf("update: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			order[turn] = c
		})
	}
	wg.Wait()
	if len(order) != len(changes) {
		rt.Fatalf("%d updates took %d turns", len(changes), len(order))
	}
	var sorted []change
	for _, turn := range slices.Sorted(maps.Keys(order)) {
		sorted = append(sorted, order[turn])
	}
	return sorted
}
