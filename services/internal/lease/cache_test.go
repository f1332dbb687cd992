package lease

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

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

// After a break the write waits for nobody: the subscriber has said that it dropped

// everything.

// What a subscriber says it has dropped it has dropped when it says so.

// The pong to the first ping comes after the lease was released.

// A process that lacks one of the source's replicas would not hear what is written

// there.

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
