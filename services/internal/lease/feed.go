package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
)

const (
	// openTimeout bounds the time from opening a stream to the first pong.
	openTimeout = 5 * time.Second
	// farewellTimeout bounds the wait for the hub to hear that the lease is released.
	farewellTimeout = time.Second
	// pingsPerLease is how many pings a lease lasts: all but one may be late.
	pingsPerLease = 4
)

// feed is what a cache knows of one replica of its source. The cache's mu guards it.
type feed struct {
	dial  func() grpc.ClientConnInterface
	term  uint64        // of the last stream; everything from it is dropped when the next is opened
	until time.Duration // end of this replica's lease; 0 while there is none
}

// backoff returns a random pause of at most a second, growing with the attempts.
func backoff(attempt int) time.Duration {
	ceiling := min(time.Second, 20*time.Millisecond<<min(attempt, 10))
	return ceiling/4 + rand.N(ceiling*3/4)
}

// Run obtains the lease and keeps it until ctx ends; it then releases the lease,
// waits for the loads under way, and returns nil. One Run at a time.
func (c *Cache[V]) Run(ctx context.Context) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	var feeds sync.WaitGroup
	for _, f := range c.feeds {
		feeds.Go(func() { c.follow(ctx, f) })
	}
	feeds.Wait()
	c.loads.Wait() // no more begin without a lease
	c.shut()
	return nil
}

// open begins the first epoch of a Run.
func (c *Cache[V]) open(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life != nil {
		return errors.New("lease: the cache is running already")
	}
	// Loads end with their epoch and not with ctx, so that each is told why.
	c.life = context.WithoutCancel(ctx)
	c.epoch, c.endEpoch = context.WithCancel(c.life)
	return nil
}

// shut ends the last epoch of a Run.
func (c *Cache[V]) shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endEpoch()
	c.life = nil
}

// follow keeps a stream to one replica until ctx ends.
func (c *Cache[V]) follow(ctx context.Context, f *feed) {
	for attempt := 0; ; attempt++ {
		granted, err := c.watch(ctx, f)
		if ctx.Err() != nil {
			return
		}
		if granted {
			attempt = 0
			c.config.Log.Warn("lease lost", "cause", err)
		} else {
			c.config.Log.Debug("lease not obtained", "attempt", attempt, "cause", err)
		}
		select {
		case <-time.After(c.config.Backoff(attempt)):
		case <-ctx.Done():
			return
		}
	}
}

// renew notes that the lease of some replica changed: the cache's own lasts as long
// as the shortest of them. c.mu is held.
func (c *Cache[V]) renew() {
	until := c.feeds[0].until
	for _, f := range c.feeds[1:] {
		until = min(until, f.until)
	}
	before := c.hold.until.Swap(int64(until))
	switch {
	case before == 0 && until != 0:
		close(c.gained)
		c.missed = make(chan struct{})
	case before != 0 && until == 0:
		close(c.missed)
		c.gained = make(chan struct{})
	}
}
