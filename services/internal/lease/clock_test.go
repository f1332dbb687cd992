package lease

import (
	"testing"
	"time"
)

func TestClockNeverGoesBack(t *testing.T) {
	clock := newClock()
	last := clock()
	for range 100_000 {
		now := clock()
		if now < last {
			t.Fatalf("the clock went from %v back to %v", last, now)
		}
		last = now
	}
}

func TestClockCountsSuspension(t *testing.T) {
	awake, slept := time.Duration(0), 5*time.Hour // before the start
	c := &sleepless{
		awake: func() time.Duration { return awake },
		boot:  func() time.Duration { return awake + slept },
	}
	c.base, _ = c.ahead()
	at := func(want time.Duration) {
		t.Helper()
		if got := c.now(); got != want {
			t.Fatalf("the clock shows %v, want %v", got, want)
		}
	}
	at(0)
	awake += time.Second
	at(time.Second)
	slept += time.Hour
	awake += lookEvery // which a machine takes at least to wake up
	at(time.Hour + time.Second + lookEvery)
	slept += nap - 1 // how exactly the clocks are compared
	awake += time.Second
	at(time.Hour + 2*time.Second + lookEvery)
	slept += time.Hour
	awake += time.Second
	at(2*time.Hour + 3*time.Second + lookEvery + nap - 1)
}

// Something comes between the two readings: they are not compared.
func TestClockIsNotMovedByAPauseBetweenReadings(t *testing.T) {
	awake := time.Duration(0)
	pauses := []time.Duration{0, time.Hour, time.Minute, 0}
	c := &sleepless{
		awake: func() time.Duration { return awake },
		boot: func() time.Duration {
			now := awake
			awake += pauses[0]
			pauses = pauses[1:]
			return now
		},
	}
	c.base, _ = c.ahead()
	if got := c.now(); got != 0 || c.slept.Load() != 0 {
		t.Fatalf("the clock shows %v and has slept %v", got, c.slept.Load())
	}
}
