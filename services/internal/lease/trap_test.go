package lease

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
)

// Each test here is a way in which caches of permissions have given wrong answers.

// gated has the n-th load and those before it wait, after they have read.
func gated(f *facts, n int32) (reached, gate chan struct{}) {
	reached, gate = make(chan struct{}, n), make(chan struct{})
	var count atomic.Int32
	f.during = func(ctx context.Context, _ string) error {
		if count.Add(1) > n {
			return nil
		}
		reached <- struct{}{}
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return reached, gate
}

type answer struct {
	entry *Entry[int]
	err   error
}

func ask(ctx context.Context, c *Cache[int], key string) <-chan answer {
	ch := make(chan answer, 1)
	go func() {
		e, err := c.Get(ctx, key)
		ch <- answer{e, err}
	}()
	return ch
}

// The value is read before the write, and comes back after the write has returned.
func TestStaleEntryRacingAWrite(t *testing.T) {
	for name, publish := range map[string]func(*Hub) uint64{
		"its tag":    func(h *Hub) uint64 { return h.Publish(tagOf("a")) },
		"everything": func(h *Hub) uint64 { return h.PublishEverything() },
		"so many that the cache does not remember them": func(h *Hub) uint64 {
			h.Publish(tagOf("a"))
			for range 2 * logSize / 100 {
				tags := make([]string, 100)
				for i := range tags {
					tags[i] = fmt.Sprint(i)
				}
				// One by one, that the hub can tell them all.
				if err := h.Wait(background(), h.Publish(tags...)); err != nil {
					panic(err)
				}
			}
			return h.Publish()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFacts()
				reached, gate := gated(f, 1)
				h, _, c := pair(t, f, nil)
				got := ask(background(), c, "a")
				<-reached
				version := f.change("a")
				if err := h.Wait(background(), publish(h)); err != nil {
					t.Fatal(err)
				}
				late := ask(background(), c, "a") // joins the load that has read already
				synctest.Wait()
				close(gate)
				for _, ch := range []<-chan answer{got, late} {
					a := <-ch
					if a.err != nil {
						t.Fatal(a.err)
					}
					if a.entry.Value != version {
						t.Fatalf("got version %d after the write of %d had returned", a.entry.Value, version)
					}
				}
				want(t, c, "a", version)
			})
		})
	}
}

// Everything is dropped between the end of the load and the keeping of its answer.
func TestAnswerThatCameBeforeEverythingWasDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, _, c := pair(t, newFacts(), nil)
		s, err := c.begin()
		if err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.dropAll()
		c.mu.Unlock()
		if e := c.keep(s, "a", 0, []string{"a"}); e != nil {
			t.Fatal("the answer was kept")
		}
	})
}

// The answer is kept, and invalidated before those who wait for it have seen it.
func TestAnswerThatIsInvalidatedBeforeItIsSeen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, _, c := pair(t, f, nil)
		old := want(t, c, "a", 0)
		version := revoke(t, h, f, "a")
		landed := &flight[int]{done: make(chan struct{}), entry: old}
		c.mu.Lock()
		c.flights["a"] = landed
		c.mu.Unlock()
		got := ask(background(), c, "a")
		synctest.Wait()
		c.mu.Lock()
		delete(c.flights, "a")
		c.mu.Unlock()
		close(landed.done)
		if a := <-got; a.err != nil || a.entry.Value != version {
			t.Fatalf("got %v, want version %d", a, version)
		}
	})
}

// The lease ends between the two looks that Get takes at it.
func TestNoLoadBeginsWithoutTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		w := newWire(t, nil)
		c, _ := newTestCache(t, w.dial, f, nil)
		if e, flight, err := c.seek(background(), "a"); !errors.Is(err, c.lost) {
			t.Fatalf("got %v, %v, %v, want LEASE_LOST", e, flight, err)
		}
	})
}

// An invalidation of something else does not make the load repeat itself.
func TestLoadRacingAnotherWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		reached, gate := gated(f, 1)
		h, _, c := pair(t, f, nil)
		got := ask(background(), c, "a")
		<-reached
		revoke(t, h, f, "b")
		close(gate)
		if a := <-got; a.err != nil || f.loaded() != 1 {
			t.Fatalf("got %v after %d loads, want 1", a.err, f.loaded())
		}
	})
}

// A fact that changes faster than it can be read is no answer, and not a hang.
func TestLoadThatIsAlwaysOvertaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, _, c := pair(t, f, nil)
		f.during = func(ctx context.Context, key string) error {
			f.change(key)
			return h.Wait(ctx, h.Publish(tagOf(key)))
		}
		_, err := c.Get(background(), "a")
		if !errors.Is(err, c.lost) || f.loaded() != maxAttempts {
			t.Fatalf("Get returned %v after %d loads, want LEASE_LOST after %d", err, f.loaded(), maxAttempts)
		}
	})
}

// The first who asks goes away: the others get their answer from the same load, and
// the next one too.
func TestCancelledContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		reached, gate := gated(f, 1)
		_, _, c := pair(t, f, nil)
		ctx, cancel := context.WithCancel(background())
		first := ask(ctx, c, "a")
		<-reached
		second := ask(background(), c, "a")
		synctest.Wait()
		cancel()
		if a := <-first; !errors.Is(a.err, context.Canceled) {
			t.Fatalf("the first got %v, want the end of its context", a.err)
		}
		close(gate)
		if a := <-second; a.err != nil {
			t.Fatalf("the second got %v", a.err)
		}
		want(t, c, "a", 0)
		if f.loaded() != 1 {
			t.Fatalf("loaded %d times, want 1", f.loaded())
		}
	})
}

func TestErrorIsNeverCached(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		broken := errors.New("broken")
		f.during = func(context.Context, string) error { return broken }
		_, _, c := pair(t, f, nil)
		for range 3 {
			if _, err := c.Get(background(), "a"); !errors.Is(err, broken) {
				t.Fatalf("Get returned %v, want the error of the load", err)
			}
		}
		if f.loaded() != 3 || c.Len() != 0 {
			t.Fatalf("loaded %d times, want 3, and nothing kept", f.loaded())
		}
		f.during = nil
		want(t, c, "a", 0)
	})
}

// Keys and tags that a careless hash or separator would confuse.
func TestSimilarKeys(t *testing.T) {
	keys := []string{
		"user:1", "user:10", "user:1 ", "user:01", "USER:1", "user", ":1", "user:1/a", "user:1\x00", "\x00user:1",
		"user:1,user:2", "üser:1", "u\u0308ser:1", "",
	}
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, _, c := pair(t, f, nil)
		for _, changed := range keys {
			entries := map[string]*Entry[int]{}
			for _, key := range keys {
				entries[key] = want(t, c, key, f.versions[key])
			}
			version := revoke(t, h, f, changed)
			for key, e := range entries {
				if e.Valid() != (key != changed) {
					t.Errorf("after a change of %q the entry of %q is valid: %v", changed, key, e.Valid())
				}
			}
			want(t, c, changed, version)
		}
	})
}

// A record is deleted and made again under the same key: who holds the old entry
// is told, and the new one is not taken for it.
func TestEntryRecreated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, _, c := pair(t, f, nil)
		old := want(t, c, "a", 0)
		stale := old.Stale()
		version := revoke(t, h, f, "a")
		fresh := want(t, c, "a", version)
		if old == fresh || old.Valid() || !closed(stale) || old.Value != 0 {
			t.Fatal("the old entry lives on in the new one")
		}
		if !fresh.Valid() || closed(fresh.Stale()) {
			t.Fatal("the new entry is stale")
		}
		revoke(t, h, f, "a")
		if fresh.Valid() {
			t.Fatal("the new entry was not invalidated")
		}
	})
}

// A negative answer is a value like any other, and ends with a grant.
func TestDenialIsInvalidatedToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, _, c := pair(t, f, nil)
		want(t, c, "nobody", 0)
		revoke(t, h, f, "nobody")
		want(t, c, "nobody", 1)
	})
}

// The hub restarts while a subscriber that it cannot know of is cut off and holds a
// lease of its former life.
func TestRestartOfTheSourceWhileASubscriberIsCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h, w, c := pair(t, f, nil)
		e := want(t, c, "a", 0)
		w.freeze()
		h.Close()
		again := newTestHub(t, func(c *HubConfig) { c.FirstStart = false })
		w.connect(again)
		f.change("a")
		sequence := again.Publish(tagOf("a"))
		if !e.Valid() {
			t.Fatal("the test is wrong: the lease should hold still")
		}
		if err := again.Wait(background(), sequence); err != nil {
			t.Fatal(err)
		}
		if e.Valid() {
			t.Fatal("the write returned while the old value was in use")
		}
		wantLost(t, c, "a")
		w.thaw()
		held(t, c)
		want(t, c, "a", 1)
	})
}

// An invalidation comes in the same moment as the pong to the very first ping.
func TestPublishWhileJoining(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFacts()
		h := newTestHub(t, nil)
		w := newWire(t, h)
		w.freeze()
		c, _ := newTestCache(t, w.dial, f, nil)
		synctest.Wait()
		sequence := h.Publish(tagOf("a"))
		w.thaw()
		held(t, c)
		if err := h.Wait(background(), sequence); err != nil {
			t.Fatal(err)
		}
		want(t, c, "a", 0)
		revoke(t, h, f, "a")
		want(t, c, "a", 1)
	})
}

func TestUnknownSource(t *testing.T) {
	net := newSource(t, nil)
	first := firstPing()
	first.Source = "weather"
	wantCode(t, newPeer(t, net.conn(t), first).end(), codes.NotFound)
}
