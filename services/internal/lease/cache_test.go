package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// pair returns a hub, a wire and a cache that holds its lease.
func pair(t *testing.T, f *facts, edit func(*CacheConfig[int])) (*Hub, *wire, *Cache[int]) {
	t.Helper()
	h := newTestHub(t, nil)
	w := newWire(t, h)
	c, _ := newTestCache(t, w.dial, f, edit)
	held(t, c)
	return h, w, c
}

// revoke changes the fact of a key as a source does: it commits, publishes, waits.
func revoke(t *testing.T, h *Hub, f *facts, key string) (version int) {
	t.Helper()
	version = f.change(key)
	if err := h.Wait(background(), h.Publish(tagOf(key))); err != nil {
		t.Fatal(err)
	}
	return version
}

func TestGetLoadsOnceAndAgainAfterARevoke(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, _, c := pair(t, f, nil)
		want(t, c, "a", 0)
		e := want(t, c, "a", 0)
		if f.loaded() != 1 {
			t.Fatalf("loaded %d times, want 1", f.loaded())
		}
		stale := e.Stale()
		if closed(stale) || !e.Valid() || c.Check(e) != nil {
			t.Fatal("the entry is stale before anything changed")
		}
		before := h.config.Clock()
		version := revoke(t, h, f, "a")
		if h.config.Clock() != before {
			t.Fatal("Wait waited though the subscriber is alive")
		}
		if !closed(stale) || !closed(e.Stale()) || e.Valid() {
			t.Fatal("the entry is not stale after the revoke")
		}
		wantCode(t, c.Check(e), codes.Unavailable)
		want(t, c, "a", version)
	})
}

func TestNoAnswerBeforeTheLeaseIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		w := newWire(t, newTestHub(t, nil))
		w.freeze()
		c, stop := newTestCache(t, w.dial, f, nil)
		synctest.Wait()
		wantLost(t, c, "a")
		if c.Held() || closed(c.Ready()) || !closed(c.Lost()) || f.loaded() != 0 {
			t.Fatal("the cache acts as if it held the lease")
		}
		ctx, cancel := context.WithCancel(background())
		cancel()
		if err := c.WaitHeld(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("WaitHeld returned %v", err)
		}
		w.thaw()
		held(t, c)
		want(t, c, "a", 0)
		if !c.Held() || !closed(c.Ready()) || closed(c.Lost()) {
			t.Fatal("the cache acts as if it did not hold the lease")
		}
		stop()
		wantLost(t, c, "a")
	})
}

// A fact is used up to the last nanosecond of the lease, and not at its end.
func TestLeaseEndsExactlyAtTheSubscriber(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, w, c := pair(t, newFacts(), nil)
		e := want(t, c, "a", 0)
		w.freeze()
		until := time.Duration(c.hold.until.Load())
		time.Sleep(until - c.config.Clock() - 1)
		want(t, c, "a", 0)
		if !c.Held() || !e.Valid() {
			t.Fatal("not held a nanosecond before the end")
		}
		time.Sleep(time.Nanosecond)
		if c.Held() || e.Valid() {
			t.Fatal("held at the end")
		}
		wantLost(t, c, "a")
		if ends := h.only(t).until; ends != until+h.config.Margin {
			t.Fatalf("the hub counts until %v, want the margin of %v after %v", ends, h.config.Margin, until)
		}
		synctest.Wait()
		if !closed(e.Stale()) || c.Len() != 0 || !closed(c.Lost()) {
			t.Fatal("not everything was dropped at the end")
		}
	})
}

// The clock alone decides, and no timer: a process that was frozen wakes up with
// its timers yet to run.
func TestJumpOfTheClockEndsTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var slept time.Duration
		clock := plainClock()
		h := newTestHub(t, nil)
		w := newWire(t, h)
		c, _ := newTestCache(t, w.dial, newFacts(), func(c *CacheConfig[int]) {
			c.Clock = func() time.Duration { return clock() + slept }
		})
		held(t, c)
		e := want(t, c, "a", 0)
		synctest.Wait()
		slept = time.Hour
		if c.Held() || e.Valid() {
			t.Fatal("held after the clock had jumped")
		}
		wantLost(t, c, "a")
	})
}

// The pong to a ping comes after the lease has run out: it revives nothing.
func TestLatePongNeverRevives(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var slept time.Duration
		clock := plainClock()
		h := newTestHub(t, nil)
		w := newWire(t, h)
		c, _ := newTestCache(t, w.dial, newFacts(), func(c *CacheConfig[int]) {
			c.Clock = func() time.Duration { return clock() + slept }
		})
		held(t, c)
		e := want(t, c, "a", 0)
		w.freeze()
		time.Sleep(DefaultDuration / pingsPerLease) // the second ping is on its way
		synctest.Wait()
		// The first ping's lease is over, the second's would not be; and no timer has
		// noticed.
		slept = time.Duration(c.hold.until.Load()) - clock()
		w.thaw()
		synctest.Wait()
		if e.Valid() || !closed(e.Stale()) {
			t.Fatal("the late pong revived the lease")
		}
		held(t, c)
		want(t, c, "a", 0)
	})
}

func TestFirstPongThatComesTooLateGrantsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(t, newTestHub(t, nil))
		w.delay = func() time.Duration { return DefaultDuration / 2 }
		c, _ := newTestCache(t, w.dial, newFacts(), nil)
		ready := c.Ready()
		time.Sleep(time.Minute)
		if closed(ready) {
			t.Fatal("the lease was granted, and had run out by then")
		}
		w.mu.Lock()
		w.delay = func() time.Duration { return DefaultDuration/2 - 1 }
		w.mu.Unlock()
		held(t, c)
	})
}

func TestLostStreamDropsEverything(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		_, w, c := pair(t, f, nil)
		e, g := want(t, c, "a", 0), want(t, c, "b", 0)
		stale := e.Stale()
		w.cut()
		synctest.Wait()
		if !closed(stale) || e.Valid() || g.Valid() || c.Len() != 0 {
			t.Fatal("something outlived the stream")
		}
		held(t, c)
		want(t, c, "a", 0)
		if e.Valid() {
			t.Fatal("an entry of the former lease is valid again")
		}
		if f.loaded() != 3 {
			t.Fatalf("loaded %d times, want 3", f.loaded())
		}
	})
}

// After a break the write waits for nobody: the subscriber has said that it dropped
// everything.
func TestReconnectedSubscriberIsNotWaitedForTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, w, c := pair(t, f, nil)
		w.cut()
		synctest.Wait()
		held(t, c)
		before := h.config.Clock()
		revoke(t, h, f, "a")
		if h.config.Clock() != before {
			t.Fatal("the write waited for the lease of the broken stream")
		}
	})
}

func TestRunReleasesTheLeaseAtItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		w := newWire(t, h)
		c, stop := newTestCache(t, w.dial, newFacts(), nil)
		held(t, c)
		e := want(t, c, "a", 0)
		stop()
		if len(h.Subscribers()) != 0 {
			t.Fatal("the lease was not released")
		}
		if e.Valid() || c.Held() {
			t.Fatal("something is still valid")
		}
		runCache(t, c) // and it can run again
		held(t, c)
		want(t, c, "a", 0)
	})
}

// The pong to the first ping comes after the lease was released.
func TestPongAfterTheReleaseGrantsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		w := newWire(t, h)
		w.freeze()
		c, stop := newTestCache(t, w.dial, newFacts(), nil)
		ready := c.Ready()
		synctest.Wait()
		go stop()
		synctest.Wait()
		w.thaw()
		stop()
		if closed(ready) || c.Held() || len(h.Subscribers()) != 0 {
			t.Fatal("a lease was granted that had been released")
		}
	})
}

func TestRunEndsThoughTheNetworkIsFrozen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(t, newTestHub(t, nil))
		c, stop := newTestCache(t, w.dial, newFacts(), nil)
		held(t, c)
		w.freeze()
		stop()
	})
}

func TestSecondRunIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, _, c := pair(t, newFacts(), nil)
		if err := c.Run(background()); err == nil {
			t.Fatal("two Runs at a time")
		}
	})
}

func TestReconnectsAfterTheSourceWasAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		w := newWire(t, nil)
		var attempts []int
		c, _ := newTestCache(t, w.dial, newFacts(), func(c *CacheConfig[int]) {
			c.Backoff = func(attempt int) time.Duration {
				attempts = append(attempts, attempt)
				if attempt == 3 {
					w.connect(h)
				}
				return time.Second
			}
		})
		held(t, c)
		w.cut()
		synctest.Wait()
		if got := fmt.Sprint(attempts); got != "[0 1 2 3 0]" {
			t.Fatalf("attempts were %v, want a count from 0 after each lease", got)
		}
	})
}

func TestBackoffIsBounded(t *testing.T) {
	for attempt := range 100 {
		if got := backoff(attempt); got <= 0 || got > time.Second {
			t.Fatalf("backoff(%d) = %v", attempt, got)
		}
	}
}

func TestNoConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := newTestCache(t, func() grpc.ClientConnInterface { return nil }, newFacts(), nil)
		time.Sleep(time.Minute)
		wantLost(t, c, "a")
	})
}

// A process that lacks one of the source's replicas would not hear what is written
// there.
func TestLeaseOfEveryReplicaIsNeeded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, g := newTestHub(t, nil), newTestHub(t, nil)
		v, w := newWire(t, h), newWire(t, g)
		w.freeze()
		c, _ := newTestCache(t, v.dial, f, func(c *CacheConfig[int]) {
			c.Replicas = []func() grpc.ClientConnInterface{w.dial}
		})
		synctest.Wait()
		wantLost(t, c, "a")
		w.thaw()
		held(t, c)
		for _, source := range []*Hub{h, g} {
			e := want(t, c, "a", f.versions["a"])
			version := revoke(t, source, f, "a")
			if e.Valid() {
				t.Fatal("a replica was not heard")
			}
			want(t, c, "a", version)
		}
		for _, lost := range []*wire{v, w} {
			e := want(t, c, "a", 2)
			lost.cut()
			synctest.Wait()
			if e.Valid() || c.Held() {
				t.Fatal("held without one of the replicas")
			}
			held(t, c)
		}
		w.freeze()
		ends := g.only(t).until
		e := want(t, c, "a", 2)
		time.Sleep(ends - g.config.Margin - g.config.Clock())
		if e.Valid() {
			t.Fatal("held after the lease of one replica had run out")
		}
	})
}

func TestEverythingIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, _, c := pair(t, f, nil)
		e := want(t, c, "a", 0)
		f.change("a")
		if err := h.Wait(background(), h.PublishEverything()); err != nil {
			t.Fatal(err)
		}
		if e.Valid() || !c.Held() {
			t.Fatal("an entry outlived everything, or the lease did not")
		}
		want(t, c, "a", 1)
	})
}

func TestDrop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		_, _, c := pair(t, f, nil)
		e := want(t, c, "a", 0)
		c.Drop(e)
		if e.Valid() || !closed(e.Stale()) || c.Len() != 0 {
			t.Fatal("the entry is still there")
		}
		g := want(t, c, "a", 0)
		c.Drop(e)
		if !g.Valid() {
			t.Fatal("another entry was dropped")
		}
	})
}

func TestLoadTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		f.during = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		_, _, c := pair(t, f, nil)
		before := c.config.Clock()
		_, err := c.Get(background(), "a")
		if got := c.config.Clock() - before; got != DefaultLoadTimeout {
			t.Fatalf("gave up after %v, want %v", got, DefaultLoadTimeout)
		}
		if err == nil || !strings.Contains(err.Error(), "cannot be reached") {
			t.Fatalf("Get returned %v, want UNAVAILABLE", err)
		}
		f.during = nil
		want(t, c, "a", 0)
	})
}

func TestLoadWithoutTagsIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, _, c := pair(t, newFacts(), func(c *CacheConfig[int]) {
			c.Load = func(context.Context, string) (int, []string, error) { return 1, nil, nil }
		})
		if _, err := c.Get(background(), "a"); err == nil || c.Len() != 0 {
			t.Fatal("a fact without tags was cached, whose changes nobody would notice")
		}
	})
}

func TestPanicInLoadIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		f.during = func(context.Context, string) error { panic("broken") }
		_, _, c := pair(t, f, nil)
		if _, err := c.Get(background(), "a"); err == nil || !strings.Contains(err.Error(), "broken") {
			t.Fatalf("Get returned %v", err)
		}
		f.during = nil
		want(t, c, "a", 0)
	})
}

func TestLoadsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		gate := make(chan struct{})
		f.during = func(context.Context, string) error { <-gate; return nil }
		_, _, c := pair(t, f, func(c *CacheConfig[int]) { c.MaxLoads = 2 })
		done := make(chan error, 5)
		for i := range 5 {
			go func() {
				_, err := c.Get(background(), fmt.Sprint(i))
				done <- err
			}()
		}
		synctest.Wait()
		if f.loaded() != 2 {
			t.Fatalf("%d loads at a time, want 2", f.loaded())
		}
		ctx, cancel := context.WithTimeout(background(), time.Second)
		defer cancel()
		if _, err := c.Get(ctx, "late"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Get returned %v, want the end of its context", err)
		}
		close(gate)
		for range 5 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if len(c.places) != 0 || len(c.flights) != 0 {
			t.Fatal("a load that ended still has its place")
		}
	})
}

func TestLoadsUnderWayEndWithTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		f.during = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		_, w, c := pair(t, f, nil)
		done := make(chan error, 1)
		go func() {
			_, err := c.Get(background(), "a")
			done <- err
		}()
		synctest.Wait()
		w.connect(nil)
		w.cut()
		if err := <-done; !errors.Is(err, c.lost) {
			t.Fatalf("Get returned %v, want LEASE_LOST", err)
		}
	})
}
