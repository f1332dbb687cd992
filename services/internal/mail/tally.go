package mail

import (
	"maps"
	"sync"
)

// Tally counts by kind. It can be used by several goroutines at once.
type Tally struct {
	mu     sync.Mutex
	counts map[string]int64
}

// Add counts so many more of a kind. With none, the kind is known from now on.
func (t *Tally) Add(kind string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int64{}
	}
	t.counts[kind] += n
}

// Counts returns how many there are of each kind that is known.
func (t *Tally) Counts() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}
