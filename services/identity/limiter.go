package identity

import (
	"sync"
	"time"

	"latchkey.dev/services/internal/fault"
)

// limiter bounds how often something may fail in a window of time, key by key.
type limiter struct {
	what   string
	most   int
	window time.Duration
	now    func() time.Time

	mu     sync.Mutex
	start  time.Time // of the window
	counts map[string]int
}

// maxLimited bounds the keys that a limiter remembers. Beyond it everybody waits for
// the next window.
const maxLimited = 100_000

func newLimiter(what string, most int, window time.Duration, now func() time.Time) *limiter {
	return &limiter{what: what, most: most, window: window, now: now, counts: map[string]int{}}
}

// try counts one attempt before it is made, so that many at once cannot be more than
// allowed. Call the returned function if it did not fail. Its error is a fault.Limit.
func (l *limiter) try(key string) (succeeded func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if since := now.Sub(l.start); since < 0 || since >= l.window {
		l.start = now
		clear(l.counts)
	}
	if l.counts[key] >= l.most || len(l.counts) >= maxLimited {
		return nil, fault.Limit(l.what, l.window-now.Sub(l.start))
	}
	l.counts[key]++
	begun := l.start
	return func() { l.forgive(key, begun) }, nil
}

func (l *limiter) forgive(key string, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.start.Equal(begun) {
		return
	}
	if l.counts[key]--; l.counts[key] <= 0 {
		delete(l.counts, key)
	}
}
