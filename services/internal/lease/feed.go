package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// openTimeout bounds the time from opening a stream to the first pong.
	openTimeout = 5 * time.Second
	// farewellTimeout bounds the wait for the hub to hear that the lease is released.
	farewellTimeout = time.Second
	// seekPause is how long a list is tried before the seed is asked for another.
	seekPause = time.Second
	// pingsPerLease is how many pings a lease lasts: all but one may be late.
	pingsPerLease = 4
)

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
	c.following.Wait()
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
	c.running, c.next = ctx, nil
	c.feeds = map[string]*feed{}
	c.feed(Replica{})
	return nil
}

// shut ends the last epoch of a Run.
func (c *Cache[V]) shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endEpoch()
	c.life = nil
}

// follow keeps a stream to one replica until ctx ends. That of the seed ends where it leads
// to a source with a list, and is opened again only when the list leads nowhere.
func (c *Cache[V]) follow(ctx context.Context, f *feed) {
	for attempt := 0; ; attempt++ {
		granted, err := c.watch(ctx, f)
		if errors.Is(err, errListed) {
			c.awaitNeed(ctx)
			attempt = 0
		}
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

// awaitNeed waits while the lease is held or may yet come, or until ctx ends.
func (c *Cache[V]) awaitNeed(ctx context.Context) {
	for held := true; held; held = c.Held() {
		select {
		case <-time.After(seekPause):
		case <-ctx.Done():
			return
		}
	}
}
