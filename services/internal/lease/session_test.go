package lease

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
)

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
		time.Sleep(10 * time.Second)
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

func TestSaysNothingThatIsNotYetSo(t *testing.T) {
	says := map[string]func(*leasepb.WatchRequest) bool{
		"acknowledged": func(req *leasepb.WatchRequest) bool { return req.GetAcknowledged() > 1 },
		"released":     (*leasepb.WatchRequest).GetReleased,
		"new stream":   func(req *leasepb.WatchRequest) bool { return req.GetFormerTerm() != 0 },
	}
	for name, said := range says {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := newTestHub(t, nil)
				w := newWire(t, h)
				var e *Entry[int]
				heard := 0
				w.sending = func(req *leasepb.WatchRequest) {
					if said(req) {
						if heard++; e.Valid() {
							t.Errorf("the entry is valid at %v", req)
						}
					}
				}
				c, stop := newTestCache(t, w.dial, newFacts(), nil)
				held(t, c)
				e = want(t, c, "a", 0)
				switch name {
				case "acknowledged":
					h.Publish(tagOf("a"))
				case "released":
					stop()
				case "new stream":
					w.cut()
					synctest.Wait()
					held(t, c)
				}
				synctest.Wait()
				if heard == 0 {
					t.Fatal("nothing was said")
				}
			})
		})
	}
}

func TestPongMustAnswerTheNewestPing(t *testing.T) {
	s := &session[int]{ping: 2, answered: 1, sent: time.Second}
	for _, pong := range []uint64{1, 3} {
		if _, err := s.match(pong); err == nil {
			t.Errorf("pong %d was taken for the answer to ping 2", pong)
		}
	}
	if sent, err := s.match(2); err != nil || sent != time.Second {
		t.Errorf("got %v, %v, want the time of ping 2", sent, err)
	}
	if _, err := s.match(2); err == nil {
		t.Error("pong 2 counted twice")
	}
}

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
		time.Sleep(10 * time.Second)
		wantLost(t, c, "a")
	})
}

// A pong is taken in even when the keeper is not there to hear of it, since he may be waiting
// for what the pong's taker holds. Of several the newest counts.
func TestPongsDoNotWaitForTheKeeper(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := newTestCache(t, newWire(t, newTestHub(t, nil)).dial, newFacts(), nil)
		held(t, c)
		s := &session[int]{cache: c, feed: c.feeds[""], ponged: make(chan time.Duration, 1)}
		s.arm(time.Hour)
		defer s.lapse.Stop()
		for ping := range uint64(3) {
			time.Sleep(time.Millisecond)
			s.ping, s.sent = ping+1, c.config.Clock()-time.Duration(ping)*time.Millisecond
			err := s.grant(&leasepb.WatchResponse{Pong: s.ping, LeaseDuration: durationpb.New(DefaultDuration)})
			if err != nil {
				t.Fatal(err)
			}
		}
		if got, want := <-s.ponged, DefaultDuration/pingsPerLease-2*time.Millisecond; got != want {
			t.Errorf("the next ping is due in %v, want %v", got, want)
		}
	})
}
