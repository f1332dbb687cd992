package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
)

func firstPing() *leasepb.WatchRequest {
	return &leasepb.WatchRequest{Source: "permissions", Subscriber: "peer", Ping: 1}
}

func TestWaitWithoutSubscribersReturnsAtOnce(t *testing.T) {
	h := newTestHub(t, nil)
	if err := h.Wait(background(), h.Publish("a")); err != nil {
		t.Fatal(err)
	}
}

func TestWaitReturnsWhenAllHaveAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		p, q := newPeer(t, newWire(t, h), firstPing()), newPeer(t, newWire(t, h), firstPing())
		p.recv()
		q.recv()
		sequence := h.Publish("a")
		done := make(chan error, 1)
		go func() { done <- h.Wait(background(), sequence) }()
		if got := p.recv(); got.GetSequence() != sequence || len(got.GetTags()) != 1 || got.GetTags()[0] != "a" {
			t.Fatalf("got %v, want tag a at %d", got, sequence)
		}
		p.send(&leasepb.WatchRequest{Acknowledged: sequence})
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("Wait returned before the second subscriber had acknowledged")
		}
		q.send(&leasepb.WatchRequest{Acknowledged: sequence})
		synctest.Wait()
		if len(done) != 1 {
			t.Fatal("Wait did not return though both acknowledged")
		}
	})
}

// A subscriber that says nothing is waited for until its lease ends, not a
// nanosecond less, and not more.
func TestWaitEndsExactlyWithTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		newPeer(t, newWire(t, h), firstPing()).recv()
		until := h.only(t).until
		if want := h.config.Clock() + DefaultDuration + h.config.Margin; until != want {
			t.Fatalf("the hub counts the lease until %v, want %v", until, want)
		}
		time.Sleep(time.Second)
		if err := h.Wait(background(), h.Publish("a")); err != nil {
			t.Fatal(err)
		}
		if now := h.config.Clock(); now != until {
			t.Fatalf("Wait returned at %v, want at the end of the lease, %v", now, until)
		}
	})
}

func TestPingAtTheLastMomentRenewsAndAfterItNever(t *testing.T) {
	for _, test := range []struct {
		name  string
		early time.Duration
		code  codes.Code
	}{
		{"last moment", 1, codes.OK},
		{"at the end", 0, codes.Aborted},
		{"after the end", -1, codes.Aborted},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				// The hub's clock is moved and its timers are not, so that nothing but the
				// ping itself can find the lease at its end.
				var skew time.Duration
				clock := plainClock()
				h := newTestHub(t, func(c *HubConfig) { c.Clock = func() time.Duration { return clock() + skew } })
				p := newPeer(t, newWire(t, h), firstPing())
				p.recv()
				synctest.Wait()
				skew = h.only(t).until - clock() - test.early
				p.send(&leasepb.WatchRequest{Ping: 2, Acknowledged: 1})
				if test.code != codes.OK {
					_, err := p.stream.Recv() // at once, and without a pong
					wantCode(t, err, test.code)
					if len(h.Subscribers()) != 0 {
						t.Fatal("a lapsed subscriber is still counted")
					}
					return
				}
				if got := p.recv(); got.GetPong() != 2 {
					t.Fatalf("got %v, want pong 2", got)
				}
			})
		})
	}
}

func TestLapsedSubscriberIsToldSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		p := newPeer(t, newWire(t, h), firstPing())
		p.recv()
		wantCode(t, p.end(), codes.Aborted)
	})
}

// A subscriber that pings but does not carry out what it is told is not renewed.
func TestOrderOfPingsAndAcknowledgements(t *testing.T) {
	for _, test := range []struct {
		name string
		send *leasepb.WatchRequest
		code codes.Code
	}{
		{"ping that acknowledges the pong before", &leasepb.WatchRequest{Ping: 2, Acknowledged: 2}, codes.OK},
		{"ping that does not", &leasepb.WatchRequest{Ping: 2, Acknowledged: 1}, codes.InvalidArgument},
		{"the same ping again", &leasepb.WatchRequest{Ping: 1, Acknowledged: 2}, codes.InvalidArgument},
		{"acknowledgement of what was not sent", &leasepb.WatchRequest{Acknowledged: 3}, codes.InvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := newTestHub(t, nil)
				h.Publish("before")
				p := newPeer(t, newWire(t, h), firstPing())
				p.recv()
				p.send(test.send)
				if test.code == codes.OK {
					p.recv()
					return
				}
				wantCode(t, p.end(), test.code)
				if len(h.Subscribers()) != 1 {
					t.Fatal("it may hold its lease still, and is not counted")
				}
			})
		})
	}
}

func TestPingBeforeThePongIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		m, l, err := h.join(firstPing())
		if err != nil {
			t.Fatal(err)
		}
		h.streams.Add(-2) // no stream is served
		over, err := h.hear(m, l, &leasepb.WatchRequest{Ping: 2, Acknowledged: 1})
		wantCode(t, err, codes.InvalidArgument)
		if !over {
			t.Fatal("the stream goes on")
		}
	})
}

func TestFirstMessageMustBeAPing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, newWire(t, newTestHub(t, nil)), &leasepb.WatchRequest{Source: "permissions"})
		wantCode(t, p.end(), codes.InvalidArgument)
	})
}

func TestTooManySubscribers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, func(c *HubConfig) { c.MaxSubscribers = 1 })
		w := newWire(t, h)
		newPeer(t, w, firstPing()).recv()
		wantCode(t, newPeer(t, w, firstPing()).end(), codes.ResourceExhausted)
	})
}

// A broken connection says nothing of the subscriber, who may use his lease to its
// end.
func TestBrokenStreamCountsUntilItsLeaseEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		w := newWire(t, h)
		newPeer(t, w, firstPing()).recv()
		until := h.only(t).until
		w.cut()
		synctest.Wait()
		if infos := h.Subscribers(); len(infos) != 1 || infos[0].Connected {
			t.Fatalf("subscribers are %v, want one that is not connected", infos)
		}
		if err := h.Wait(background(), h.Publish("a")); err != nil {
			t.Fatal(err)
		}
		if now := h.config.Clock(); now != until {
			t.Fatalf("Wait returned at %v, want %v", now, until)
		}
	})
}

// Whose stream ends before he was sent a pong never held a lease.
func TestStreamThatEndsBeforeItsPongCountsForNothing(t *testing.T) {
	h := newTestHub(t, nil)
	m, _, err := h.join(firstPing())
	if err != nil {
		t.Fatal(err)
	}
	h.streams.Add(-2) // no stream is served
	h.leave(m)
	if infos := h.Subscribers(); len(infos) != 0 {
		t.Fatalf("subscribers are %v, want none", infos)
	}
}

func TestReleaseFreesTheWaitAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		p := newPeer(t, newWire(t, h), firstPing())
		p.recv()
		p.send(&leasepb.WatchRequest{Released: true})
		if err := p.end(); !errors.Is(err, io.EOF) {
			t.Fatalf("the stream ended with %v, want OK", err)
		}
		before := h.config.Clock()
		if err := h.Wait(background(), h.Publish("a")); err != nil {
			t.Fatal(err)
		}
		if h.config.Clock() != before {
			t.Fatal("Wait waited for a subscriber that had released its lease")
		}
	})
}

// Who comes back and says that it dropped everything is not waited for twice.
func TestNewStreamReplacesTheFormer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		w := newWire(t, h)
		term := newPeer(t, w, firstPing()).recv().GetTerm()
		w.cut()
		synctest.Wait()
		again := firstPing()
		again.FormerTerm = term
		p := newPeer(t, w, again)
		if got := p.recv().GetTerm(); got == term || got == 0 {
			t.Fatalf("the new term is %d, the former was %d", got, term)
		}
		h.only(t)
	})
}

func TestStreamThatIsReplacedWhileOpenEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		w := newWire(t, h)
		p := newPeer(t, w, firstPing())
		again := firstPing()
		again.FormerTerm = p.recv().GetTerm()
		newPeer(t, w, again).recv()
		wantCode(t, p.end(), codes.Aborted)
		h.only(t)
	})
}

// A message that crosses the end of the lease is not heard, and none is answered.
func TestRemovedSubscriberIsNeitherHeardNorAnswered(t *testing.T) {
	h := newTestHub(t, nil)
	m, l, err := h.join(firstPing())
	if err != nil {
		t.Fatal(err)
	}
	h.streams.Add(-2) // no stream is served
	h.take(m, l)
	h.mu.Lock()
	h.remove(m, h.lapsed())
	h.mu.Unlock()
	over, err := h.hear(m, l, &leasepb.WatchRequest{Ping: 2, Acknowledged: 1})
	wantCode(t, err, codes.Aborted)
	if res := h.take(m, l); !over || res != nil {
		t.Fatalf("the stream goes on with %v", res)
	}
}

func TestGuessedTermReplacesNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		w := newWire(t, h)
		term := newPeer(t, w, firstPing()).recv().GetTerm()
		for _, guess := range []uint64{0, term + 1} {
			again := firstPing()
			again.FormerTerm = guess
			newPeer(t, w, again).recv()
		}
		if got := len(h.Subscribers()); got != 3 {
			t.Fatalf("there are %d subscribers, want 3", got)
		}
	})
}

func TestQuarantineAfterARestart(t *testing.T) {
	quarantine := func(t *testing.T, want time.Duration, edit func(*HubConfig), wait func(*Hub) error) {
		t.Helper()
		bubble(t, func(t *testing.T) {
			h := newTestHub(t, func(c *HubConfig) { c.FirstStart = false; edit(c) })
			if err := wait(h); err != nil {
				t.Fatal(err)
			}
			if now := h.config.Clock(); now != want {
				t.Fatalf("returned at %v, want at the end of the quarantine, %v", now, want)
			}
		})
	}
	usual := DefaultDuration + DefaultDuration/10 + 50*time.Millisecond
	asIs := func(*HubConfig) {}
	waits := map[string]func(*Hub) error{
		"a publication":             func(h *Hub) error { return h.Wait(background(), h.Publish("a")) },
		"one of the former life":    func(h *Hub) error { return h.Wait(background(), 0) },
		"a barrier before any":      func(h *Hub) error { return h.Barrier(background()) },
		"a publication without tag": func(h *Hub) error { return h.Wait(background(), h.Publish()) },
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) { quarantine(t, usual, asIs, wait) })
	}
	t.Run("longer, as configured", func(t *testing.T) {
		quarantine(t, time.Minute, func(c *HubConfig) { c.Quarantine = time.Minute }, waits["a barrier before any"])
	})
	t.Run("none at the first start", func(t *testing.T) {
		quarantine(t, 0, func(c *HubConfig) { c.FirstStart = true }, waits["a barrier before any"])
	})
}

func TestWaitEndsWithItsContextAndThePublicationStands(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		p := newPeer(t, newWire(t, h), firstPing())
		p.recv()
		ctx, cancel := context.WithTimeout(background(), time.Second)
		defer cancel()
		sequence := h.Publish("a")
		if err := h.Wait(ctx, sequence); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Wait returned %v, want the end of its context", err)
		}
		if len(h.waiters) != 0 {
			t.Fatal("the waiter is still kept")
		}
		if got := p.recv(); got.GetSequence() != sequence {
			t.Fatalf("got %v, want the publication", got)
		}
	})
}

func TestBarrierWaitsForAWriteThatIsNotYetPublished(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		p := newPeer(t, newWire(t, h), firstPing())
		p.recv()
		end := h.Begin()
		done := make(chan error, 1)
		go func() { done <- h.Barrier(background()) }()
		synctest.Wait()
		sequence := h.Publish("a")
		end()
		end() // deferred a second time, to no effect
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("Barrier returned before the write was carried out")
		}
		p.recv()
		p.send(&leasepb.WatchRequest{Acknowledged: sequence})
		synctest.Wait()
		if len(done) != 1 {
			t.Fatal("Barrier did not return though the write was carried out")
		}
	})
}

func TestBarrierEndsWithItsContext(t *testing.T) {
	h := newTestHub(t, nil)
	defer h.Begin()()
	ctx, cancel := context.WithCancel(background())
	cancel()
	if err := h.Barrier(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Barrier returned %v, want the end of its context", err)
	}
}

func TestWaitForWhatWasNeverPublished(t *testing.T) {
	h := newTestHub(t, nil)
	if err := h.Wait(background(), h.Publish()+1); err == nil {
		t.Fatal("Wait returned nil for a publication that there never was")
	}
}

func TestCloseEndsStreamsAndWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newTestHub(t, nil)
		w := newWire(t, h)
		p := newPeer(t, w, firstPing())
		p.recv()
		sequence := h.Publish("a")
		done := make(chan error, 1)
		go func() { done <- h.Wait(background(), sequence) }()
		synctest.Wait()
		h.Close()
		wantCode(t, <-done, codes.Unavailable)
		wantCode(t, p.end(), codes.Unavailable)
		wantCode(t, h.Wait(background(), sequence), codes.Unavailable)
		wantCode(t, newPeer(t, w, firstPing()).end(), codes.Unavailable)
	})
}

// A subscriber that does not read costs no memory: its tags are told once each, and
// when they are too many it is told to drop everything.
func TestSlowSubscriberIsToldInOneMessage(t *testing.T) {
	for _, test := range []struct {
		name       string
		publish    func(*Hub)
		tags       int
		everything bool
	}{
		{"the same tag often", func(h *Hub) {
			for range logSize {
				h.Publish("a")
			}
		}, 1, false},
		{"as many as are remembered", func(h *Hub) {
			for i := range logSize {
				h.Publish(fmt.Sprint(i))
			}
		}, logSize, false},
		{"one more", func(h *Hub) {
			for i := range logSize + 1 {
				h.Publish(fmt.Sprint(i))
			}
		}, 0, true},
		{"all in one call", func(h *Hub) { h.Publish(make([]string, logSize+1)...) }, 0, true},
		{"too long for a message", func(h *Hub) {
			h.Publish(string(make([]byte, maxTagBytes)), "a")
		}, 0, true},
		{"not text", func(h *Hub) { h.Publish("a", "\xff", "b") }, 0, true},
		{"everything", func(h *Hub) { h.PublishEverything() }, 0, true},
		{"no tag", func(h *Hub) { h.Publish() }, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newTestHub(t, nil)
			m, l, err := h.join(firstPing())
			if err != nil {
				t.Fatal(err)
			}
			h.streams.Add(-2) // no stream is served
			h.take(m, l)
			test.publish(h)
			got := h.take(m, l)
			if len(got.GetTags()) != test.tags || got.GetEverything() != test.everything || got.GetSequence() != h.sequence {
				t.Fatalf("got %d tags, everything %v, at %d, want %d, %v, %d", len(got.GetTags()),
					got.GetEverything(), got.GetSequence(), test.tags, test.everything, h.sequence)
			}
			h.Publish("after")
			if got := h.take(m, l); len(got.GetTags()) != 1 || got.GetEverything() {
				t.Fatalf("got %v, want only what came after", got)
			}
		})
	}
}
