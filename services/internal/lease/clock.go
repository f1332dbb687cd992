package lease

import "time"

// Clock tells the time since some fixed moment. It never goes back and is not
// moved when somebody sets the time of day.
type Clock func() time.Duration

// newClock returns a clock that starts now.
func newClock() Clock {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}
