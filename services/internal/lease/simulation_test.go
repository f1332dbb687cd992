package lease

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// simulation is a source, its subscribers and a network that does everything wrong
// which a network can, in a time that costs nothing: messages late beyond a lease,
// links that freeze and break, clocks that drift, a source that restarts with
// writes under way, loads that answer long after they have read.
type simulation struct {
	*history
	keys        int
	drift       float64 // of each clock, either way
	margin      time.Duration
	forgetful   bool // the source starts each life as if it were the first
	neverLapse  bool // the subscribers do not look at their lease
	subscribers int

	facts *facts
	wires []*wire
	seed  uint64
	dealt uint64 // generators of random numbers

	mu  sync.Mutex
	hub *Hub
	// broken counts writes that did not learn whether they are carried out.
	broken int
}

const (
	simulatedTime     = 20 * time.Second
	simulatedDuration = time.Second
)

func (s *simulation) run(t *testing.T, seed uint64) {
	s.history = newHistory(s.keys)
	s.facts = newFacts()
	s.seed = seed
	ctx, cancel := context.WithTimeout(background(), simulatedTime)
	defer cancel()
	s.found = cancel
	var parts sync.WaitGroup
	s.start(t, s.clock(s.random()))
	for range s.subscribers {
		c, w := s.subscribe(t)
		for range 3 {
			reader := s.random()
			parts.Go(func() { s.reader(ctx, c, reader) })
		}
		weather := s.random()
		parts.Go(func() { s.weather(ctx, w, weather) })
	}
	for range 4 {
		writer := s.random()
		parts.Go(func() { s.writer(ctx, writer) })
	}
	restarts := s.random()
	parts.Go(func() { s.restarts(ctx, t, restarts) })
	parts.Wait()
}

// random returns the next generator of the seed. Each has one user.
func (s *simulation) random() *rand.Rand {
	s.dealt++
	return rand.New(rand.NewPCG(s.seed, s.dealt))
}

// clock returns one that drifts.
func (s *simulation) clock(random *rand.Rand) Clock {
	start := time.Now()
	rate := 1 + s.drift*(2*random.Float64()-1)
	return func() time.Duration { return time.Duration(float64(time.Since(start)) * rate) }
}

// pause waits for a random time of at most most.
func pause(ctx context.Context, random *rand.Rand, most time.Duration) {
	select {
	case <-time.After(time.Duration(random.Int64N(int64(most)))):
	case <-ctx.Done():
	}
}

func (s *simulation) start(t *testing.T, clock Clock) {
	h := newTestHub(t, func(c *HubConfig) {
		c.FirstStart = s.hub == nil || s.forgetful
		c.Duration, c.Margin, c.Clock = simulatedDuration, s.margin, clock
	})
	s.mu.Lock()
	s.hub = h
	s.mu.Unlock()
	for _, w := range s.wires {
		w.connect(h)
	}
}

func (s *simulation) current() *Hub {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hub
}

func (s *simulation) subscribe(t *testing.T) (*Cache[int], *wire) {
	w := newWire(t, s.hub)
	s.wires = append(s.wires, w)
	w.delay = s.delay(s.random())
	load := s.load()
	c := NewCache(CacheConfig[int]{
		Source: "permissions", Subscriber: fmt.Sprint(len(s.wires)), Dial: w.dial, Load: load,
		MaxEntries: max(1, s.keys-1), Clock: s.clock(s.random()), Log: quiet(),
		Backoff: func(int) time.Duration { return 10 * time.Millisecond },
	})
	c.neverLapse = s.neverLapse
	runCache(t, c)
	return c, w
}

// load returns what a subscriber asks the source with.
func (s *simulation) load() func(context.Context, string) (int, []string, error) {
	random := s.random()
	var mu sync.Mutex // guards random
	return func(ctx context.Context, key string) (int, []string, error) {
		version, tags, _ := s.facts.load(ctx, key)
		mu.Lock()
		late := time.Duration(random.Int64N(int64(50 * time.Millisecond)))
		if random.IntN(20) == 0 {
			late *= 30
		}
		mu.Unlock()
		time.Sleep(late) // whatever becomes of ctx: it has read already
		return version, tags, nil
	}
}

// delay returns the delays of a link: usually short, at times longer than a lease.
// The wire's mu guards it.
func (s *simulation) delay(random *rand.Rand) func() time.Duration {
	return func() time.Duration {
		switch random.IntN(100) {
		case 0:
			return time.Duration(random.Int64N(int64(2 * simulatedDuration)))
		case 1, 2, 3, 4:
			return time.Duration(random.Int64N(int64(simulatedDuration / 4)))
		default:
			return time.Duration(random.Int64N(int64(5 * time.Millisecond)))
		}
	}
}

func (s *simulation) reader(ctx context.Context, c *Cache[int], random *rand.Rand) {
	var kept *Entry[int]
	var of int
	for ctx.Err() == nil {
		key := random.IntN(s.keys)
		limit, cancel := context.WithTimeout(ctx, time.Duration(random.Int64N(int64(2*simulatedDuration))))
		e := s.read(limit, c, key)
		cancel()
		s.recheck(of, kept)
		if e != nil && random.IntN(10) == 0 {
			kept, of = e, key
		}
		pause(ctx, random, 20*time.Millisecond)
	}
}

// writer writes as a handler does, and repeats what it was not told the end of.
func (s *simulation) writer(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		key := random.IntN(s.keys)
		h := s.current()
		end := h.Begin()
		version := s.facts.change(keyName(key))
		pause(ctx, random, 5*time.Millisecond)
		var err error
		if h == s.current() { // else the process has died between commit and publication
			err = h.Wait(ctx, h.Publish(tagOf(keyName(key))))
		} else {
			err = context.Canceled
		}
		end()
		for err != nil && ctx.Err() == nil {
			s.mu.Lock()
			s.broken++
			s.mu.Unlock()
			pause(ctx, random, 100*time.Millisecond)
			err = s.current().Barrier(ctx)
		}
		if err == nil {
			s.returned(key, version)
		}
		pause(ctx, random, 300*time.Millisecond)
	}
}

// weather is what happens to a link.
func (s *simulation) weather(ctx context.Context, w *wire, random *rand.Rand) {
	for ctx.Err() == nil {
		pause(ctx, random, 4*simulatedDuration)
		switch random.IntN(3) {
		case 0:
			w.cut()
		default:
			w.freeze()
			pause(ctx, random, 3*simulatedDuration)
			if random.IntN(3) == 0 {
				w.cut()
			}
			w.thaw()
		}
	}
	w.thaw()
}

// restarts ends lives of the source, with or without the subscribers hearing of it.
func (s *simulation) restarts(ctx context.Context, t *testing.T, random *rand.Rand) {
	for ctx.Err() == nil {
		pause(ctx, random, 20*simulatedDuration)
		former := s.current()
		s.start(t, s.clock(random))
		former.Close()
	}
}

const simulatedMargin = simulatedDuration/10 + 50*time.Millisecond

func TestSimulation(t *testing.T) {
	var reads, refusals int64
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := simulation{keys: 4, subscribers: 3, drift: 0.04, margin: simulatedMargin}
			bubble(t, func(t *testing.T) { s.run(t, seed) })
			for _, violation := range s.violated() {
				t.Error(violation)
			}
			if s.reads.Load() == 0 || s.floors[0].Load() == 0 {
				t.Error("nothing was read or written")
			}
			reads += s.reads.Load()
			refusals += s.refusals.Load()
		})
	}
	t.Logf("%d answers were checked; %d were refused", reads, refusals)
}

// TestSimulationFindsViolations is the proof that TestSimulation can fail: without any
// one of the mitigations it finds the anomaly that the mitigation is for.
func TestSimulationFindsViolations(t *testing.T) {
	for name, s := range map[string]func() *simulation{
		"lease not looked at": func() *simulation {
			return &simulation{keys: 4, subscribers: 3, margin: simulatedMargin, neverLapse: true}
		},
		"no margin for drift": func() *simulation {
			return &simulation{keys: 4, subscribers: 3, drift: 0.3, margin: 1}
		},
		"no quarantine after a restart": func() *simulation {
			return &simulation{keys: 4, subscribers: 3, margin: simulatedMargin, forgetful: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				s := s()
				bubble(t, func(t *testing.T) { s.run(t, seed) })
				if found := s.violated(); len(found) > 0 {
					t.Logf("seed %d: %s", seed, found[0])
					return
				}
			}
			t.Error("no violation was found")
		})
	}
}
