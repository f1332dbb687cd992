package lease

import (
	"sync/atomic"
	"time"
)

// Clock tells the time since some fixed moment. It never goes back, is not moved
// when somebody sets the time of day, and does not stop while a process uses what it
// leased.
type Clock func() time.Duration

const (
	// lookEvery is how long the clock is trusted not to have stopped. A machine that is
	// suspended stops its processes first and the clock last, and wakes them in the
	// opposite order, with all its devices in between; so by the time a process runs
	// again the clock has moved by far more than this.
	lookEvery = time.Millisecond
	// blink is how exactly the two clocks are compared.
	blink = time.Millisecond
	// nap is the shortest suspension that is noticed; a Margin covers shorter ones.
	nap = 10 * time.Millisecond
)

// newClock returns a clock that starts now. Where the system can tell, it counts the
// time that the machine was suspended, in which Go's own clock stands still: the
// other side of the lease goes on counting.
func newClock() Clock {
	start := time.Now()
	awake := func() time.Duration { return time.Since(start) }
	if _, ok := sinceBoot(); !ok {
		return awake
	}
	boot := func() time.Duration { t, _ := sinceBoot(); return t }
	c := &sleepless{awake: awake, boot: boot}
	c.base, _ = c.ahead()
	return c.now
}

// sleepless adds to a fast clock what a slower one, which counts suspension, is ahead.
type sleepless struct {
	awake func() time.Duration // tens of nanoseconds to read
	boot  func() time.Duration // a system call
	base  time.Duration        // how far boot was ahead at first
	slept atomic.Int64
	look  atomic.Int64 // when, on awake, to compare the two again
}

func (c *sleepless) now() time.Duration {
	awake := c.awake()
	if int64(awake) >= c.look.Load() {
		c.compare()
	}
	return awake + time.Duration(c.slept.Load())
}

// compare notes how long the machine has slept. What it notes only grows.
func (c *sleepless) compare() {
	ahead, at := c.ahead()
	for {
		known := c.slept.Load()
		slept := int64(ahead - c.base)
		if slept-known < int64(nap) || c.slept.CompareAndSwap(known, slept) {
			break
		}
	}
	c.look.Store(int64(at + lookEvery))
}

// ahead returns how far boot is ahead of awake, and when that was on awake. It reads
// again until nothing came between the two readings.
func (c *sleepless) ahead() (ahead, at time.Duration) {
	for {
		before := c.awake()
		boot := c.boot()
		if at = c.awake(); at-before < blink {
			return boot - at, at
		}
	}
}
