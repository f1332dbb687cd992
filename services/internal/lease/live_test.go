package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// The tests here run over real connections and in real time, with short leases.

func shortLease(c *HubConfig) {
	c.Duration, c.Margin = 200*time.Millisecond, 70*time.Millisecond
}

// site is one subscriber of a source, behind a proxy.
type site struct {
	*proxy
	cache *Cache[int]
}

func newSite(t testing.TB, s *source, f *facts, edit func(*Cache[int])) *site {
	t.Helper()
	p := newProxy(t, s.addr)
	c := NewCache(CacheConfig[int]{
		Source: "permissions", Subscriber: p.addr(), Dial: dialTo(t, p.addr()), Load: f.load, Log: quiet(),
	})
	if edit != nil {
		edit(c)
	}
	runCache(t, c)
	held(t, c)
	return &site{p, c}
}

// readers ask the cache of a site until ctx ends, while it holds its lease as fast
// as they can.
func (s *site) readers(ctx context.Context, h *history, running *sync.WaitGroup) {
	for range 2 {
		running.Go(func() {
			kept := make([]*Entry[int], len(h.floors))
			for i := 0; ctx.Err() == nil; i++ {
				key := i % len(h.floors)
				h.recheck(key, kept[key])
				if kept[key] = h.read(ctx, s.cache, key); kept[key] == nil {
					_ = s.cache.WaitHeld(ctx)
				}
				runtime.Gosched() // the network needs the processor too
			}
		})
	}
}

func writeFact(ctx context.Context, s *source, f *facts, h *history, key int) error {
	version := f.change(keyName(key))
	if err := s.hub.Wait(ctx, s.hub.Publish(tagOf(keyName(key)))); err != nil {
		return err
	}
	h.returned(key, version)
	return nil
}

// hazards are what happens to one of the sites while writes go on.
var hazards = []struct {
	name  string
	begin func(*site)
	end   func(*site)
}{
	{"nothing", func(*site) {}, func(*site) {}},
	{"frozen", func(s *site) { s.freeze() }, func(s *site) { s.thaw() }},
	{"cut", func(s *site) { s.cut() }, func(*site) {}},
	{"frozen and cut", func(s *site) { s.freeze(); s.cut() }, func(s *site) { s.thaw() }},
}

// No subscriber, cut off or not, is ever answered with the old value once the write
// has returned, however many ask at the same time.
func TestNothingOldIsReadOnceAWriteHasReturned(t *testing.T) {
	const keys, sites = 3, 3
	f, h := newFacts(), newHistory(keys)
	s := newSource(t, shortLease)
	ctx, cancel := context.WithTimeout(background(), 2*patience)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var all []*site
	for range sites {
		all = append(all, newSite(t, s, f, nil))
	}
	for _, site := range all {
		site.readers(ctx, h, &running)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 8 {
		hazard, victim := hazards[round%len(hazards)], all[random.IntN(sites)]
		hazard.begin(victim)
		for range 3 {
			if err := writeFact(ctx, s, f, h, random.IntN(keys)); err != nil {
				t.Fatalf("while the victim was %s: %v", hazard.name, err)
			}
		}
		hazard.end(victim)
		// It comes back, with what is true now.
		for h.read(ctx, victim.cache, 0) == nil {
			if err := victim.cache.WaitHeld(ctx); err != nil {
				t.Fatalf("the victim, once %s, did not come back: %v", hazard.name, err)
			}
			runtime.Gosched()
		}
	}
	cancel()
	running.Wait()
	for _, violation := range h.violated() {
		t.Error(violation)
	}
	t.Logf("%d answers were checked; %d were refused", h.reads.Load(), h.refusals.Load())
}

// TestHistoryFindsASubscriberThatIgnoresItsLease is the proof that the test above can
// fail.
func TestHistoryFindsASubscriberThatIgnoresItsLease(t *testing.T) {
	f, h := newFacts(), newHistory(1)
	s := newSource(t, shortLease)
	victim := newSite(t, s, f, func(c *Cache[int]) { c.neverLapse = true })
	kept := h.read(background(), victim.cache, 0)
	victim.freeze()
	defer victim.thaw()
	if err := writeFact(background(), s, f, h, 0); err != nil {
		t.Fatal(err)
	}
	h.read(background(), victim.cache, 0)
	h.recheck(0, kept)
	if got := len(h.violated()); got != 2 {
		t.Fatalf("the checker found %d violations, want 2: %v", got, h.violated())
	}
}

// The source restarts on its port while one subscriber is cut off.
func TestLiveRestartOfTheSource(t *testing.T) {
	f, h := newFacts(), newHistory(1)
	first := newSource(t, shortLease)
	away, near := newSite(t, first, f, nil), newSite(t, first, f, nil)
	away.freeze()
	first.server.Stop()
	first.hub.Close()
	second := newSourceAt(t, first.addr, func(c *HubConfig) { shortLease(c); c.FirstStart = false })
	ctx, cancel := context.WithCancel(background())
	var running sync.WaitGroup
	for _, site := range []*site{away, near} {
		site.readers(ctx, h, &running)
	}
	for range 3 {
		if err := writeFact(ctx, second, f, h, 0); err != nil {
			t.Fatal(err)
		}
	}
	away.thaw()
	for _, site := range []*site{away, near} {
		for h.read(ctx, site.cache, 0) == nil {
			held(t, site.cache)
		}
	}
	cancel()
	running.Wait()
	for _, violation := range h.violated() {
		t.Error(violation)
	}
}

func TestLiveReconnect(t *testing.T) {
	f := newFacts()
	s := newSource(t, shortLease)
	site := newSite(t, s, f, nil)
	for range 5 {
		lost := site.cache.Lost()
		site.cut()
		<-lost
		held(t, site.cache)
	}
	want(t, site.cache, "a", 0)
}

func TestLiveSourceThatStartsLate(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	failed := make(chan struct{})
	c := NewCache(CacheConfig[int]{
		Source: "permissions", Dial: dialTo(t, addr), Load: newFacts().load, Log: quiet(),
		Backoff: func(attempt int) time.Duration {
			if attempt == 2 {
				close(failed)
			}
			return time.Millisecond
		},
	})
	runCache(t, c)
	<-failed
	newSourceAt(t, addr, nil)
	held(t, c)
}

func TestServerKnowsItsHubs(t *testing.T) {
	a := newTestHub(t, nil)
	b := newTestHub(t, func(c *HubConfig) { c.Source = "identity" })
	s := NewServer(a)
	s.Add(b)
	if got := s.Hubs(); len(got) != 2 || got["permissions"] != a || got["identity"] != b {
		t.Fatalf("the server knows %v", got)
	}
}

// Many subscribers, writers and readers at once, that the race detector has work.
func TestManyAtOnce(t *testing.T) {
	const keys = 8
	f, h := newFacts(), newHistory(keys)
	s := newSource(t, nil)
	ctx, cancel := context.WithCancel(background())
	var running sync.WaitGroup
	for range 5 {
		newSite(t, s, f, nil).readers(ctx, h, &running)
	}
	var writers sync.WaitGroup
	failures := make(chan error, keys)
	for key := range keys {
		writers.Go(func() {
			for range 5 {
				if err := writeFact(ctx, s, f, h, key); err != nil {
					failures <- fmt.Errorf("key %d: %w", key, err)
					return
				}
			}
		})
	}
	writers.Wait()
	cancel()
	running.Wait()
	close(failures)
	if err := errors.Join(drain(failures)...); err != nil {
		t.Fatal(err)
	}
	for _, violation := range h.violated() {
		t.Error(violation)
	}
}

func drain(ch <-chan error) (all []error) {
	for err := range ch {
		all = append(all, err)
	}
	return all
}
