package lease

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// replicated is a simulation of a source of several replicas over one database. They come,
// leave, crash, freeze, lose the database and are taken off the list, some though they
// are alive; each subscriber has a link to each, which does all that a link can.
type replicated struct {
	simulation
	slots int // processes that can be replicas

	// What is left out, to show that it is needed.
	hasty    bool // a replica that comes does not wait for leases of the lists before
	unfenced bool // a replica that was taken off the list writes on

	register *register
	hosts    []*host
	links    []map[string]*wire // by subscriber, by address
}

// host is one process that can be a replica.
type host struct {
	address string
	clock   Clock

	mu     sync.Mutex
	hub    *Hub
	id     string
	frozen chan struct{} // closed while the process runs
	cutOff chan struct{} // closed while it reaches the database
}

func (h *host) now() (*Hub, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hub, h.id
}

// stall stops something for a while that waits for what at returns.
func (h *host) stall(ctx context.Context, random *rand.Rand, at func() *chan struct{}) {
	gate := make(chan struct{})
	h.mu.Lock()
	*at() = gate
	h.mu.Unlock()
	pause(ctx, random, 4*simulatedDuration)
	close(gate)
}

// await waits until the process runs and reaches the database.
func (h *host) await() {
	h.mu.Lock()
	gates := []chan struct{}{h.frozen, h.cutOff}
	h.mu.Unlock()
	for _, gate := range gates {
		<-gate
	}
}

func (s *replicated) run(t *testing.T, seed uint64) {
	s.history, s.facts, s.seed = newHistory(s.keys), newFacts(), seed
	s.register = &register{unaware: s.unfenced}
	ctx, cancel := context.WithTimeout(background(), simulatedTime)
	defer cancel()
	s.found = cancel
	s.links = make([]map[string]*wire, s.subscribers)
	for i := range s.links {
		s.links[i] = map[string]*wire{}
	}
	running := make(chan struct{})
	close(running)
	var parts sync.WaitGroup
	for i := range s.slots {
		h := &host{address: fmt.Sprint("host ", i), clock: s.clock(s.random()), frozen: running, cutOff: running}
		s.hosts = append(s.hosts, h)
		for _, links := range s.links {
			w := newWire(t, nil)
			w.delay = s.delay(s.random())
			links[h.address] = w
			weather := s.random()
			parts.Go(func() {
				for ctx.Err() == nil {
					pause(ctx, weather, 8*simulatedDuration)
					limit, end := context.WithTimeout(ctx, simulatedDuration)
					s.weather(limit, w, weather)
					end()
				}
			})
		}
		life := s.random()
		parts.Go(func() { s.live(ctx, t, h, life) })
		trouble := s.random()
		parts.Go(func() { s.trouble(ctx, h, trouble) })
	}
	for i := range s.subscribers {
		c := s.subscribe(t, i)
		for range 2 {
			reader := s.random()
			parts.Go(func() { s.reader(ctx, c, reader) })
		}
	}
	for range 4 {
		writer := s.random()
		parts.Go(func() { s.writer(ctx, writer) })
	}
	parts.Wait()
}

func (s *replicated) subscribe(t *testing.T, i int) *Cache[int] {
	random, load := s.random(), s.load()
	c := NewCache(CacheConfig[int]{
		Source: "permissions", Subscriber: fmt.Sprint(i), Load: load,
		Dial: func() grpc.ClientConnInterface {
			return s.links[i][s.hosts[random.IntN(len(s.hosts))].address]
		},
		DialReplica: func(address string) grpc.ClientConnInterface { return s.links[i][address] },
		MaxEntries:  max(1, s.keys-1), Clock: s.clock(s.random()), Log: quiet(),
		Backoff: func(int) time.Duration { return 10 * time.Millisecond },
	})
	runCache(t, c)
	return c
}

// live has a process be a replica, in one life after the other.
func (s *replicated) live(ctx context.Context, t *testing.T, h *host, random *rand.Rand) {
	for ctx.Err() == nil {
		hub := newTestHub(t, func(c *HubConfig) {
			c.Replicated, c.FirstStart = true, h.address == "host 0"
			c.Duration, c.Margin, c.Clock = simulatedDuration, s.margin, h.clock
			if s.hasty {
				c.Quarantine = 1
			}
		})
		h.mu.Lock()
		h.hub = hub
		h.mu.Unlock()
		s.connect(h, hub)
		s.join(h, hub)
		ends := time.Now().Add(time.Duration(random.Int64N(int64(16 * simulatedDuration))))
		for ctx.Err() == nil && time.Now().Before(ends) {
			s.poll(h, hub, random)
			pause(ctx, random, simulatedDuration/3)
		}
		if random.IntN(2) == 0 { // it leaves in order
			_, id := h.now()
			hub.Learn(s.register.remove(id), hub.Now())
			select {
			case <-hub.Empty():
			case <-time.After(simulatedDuration):
			}
		}
		hub.Close()
		s.connect(h, nil)
		pause(ctx, random, simulatedDuration)
	}
}

func (s *replicated) connect(h *host, hub *Hub) {
	for _, links := range s.links {
		links[h.address].connect(hub)
	}
}

func (s *replicated) join(h *host, hub *Hub) {
	id := s.register.newID()
	_ = hub.Join(id, func() (List, error) { return s.register.enter(id, h.address), nil })
	h.mu.Lock()
	h.id = id
	h.mu.Unlock()
}

// poll reads the list, and joins anew if the process is not on it. At times it takes
// somebody off, dead or not.
func (s *replicated) poll(h *host, hub *Hub, random *rand.Rand) {
	read := hub.Now()
	list := s.register.read()
	time.Sleep(time.Duration(random.Int64N(int64(20 * time.Millisecond)))) // the answer is on its way
	h.await()
	hub.Learn(list, read)
	if _, id := h.now(); !list.has(id) {
		s.join(h, hub)
	}
	if len(list.Replicas) > 1 && random.IntN(60) == 0 {
		s.register.remove(list.Replicas[random.IntN(len(list.Replicas))].ID)
	}
}

// trouble is what happens to a process: it freezes, or loses the database only.
func (s *replicated) trouble(ctx context.Context, h *host, random *rand.Rand) {
	for ctx.Err() == nil {
		pause(ctx, random, 16*simulatedDuration)
		if random.IntN(2) == 0 {
			h.stall(ctx, random, func() *chan struct{} { return &h.cutOff })
			continue
		}
		for _, links := range s.links {
			links[h.address].freeze()
		}
		h.stall(ctx, random, func() *chan struct{} { return &h.frozen })
		for _, links := range s.links {
			links[h.address].thaw()
		}
	}
}

// writer writes by one replica, and repeats by another what it was not told the end of.
func (s *replicated) writer(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		key, version := random.IntN(s.keys), 0
		for done := false; !done && ctx.Err() == nil; {
			pause(ctx, random, 100*time.Millisecond)
			h := s.hosts[random.IntN(len(s.hosts))]
			limit, cancel := context.WithTimeout(ctx, time.Duration(random.Int64N(int64(3*simulatedDuration))))
			done = s.write(limit, h, key, &version, random)
			cancel()
		}
		if ctx.Err() == nil {
			s.returned(key, version)
		}
		pause(ctx, random, 300*time.Millisecond)
	}
}

// write writes by one replica, or repeats what was written already: then it changes nothing.
func (s *replicated) write(ctx context.Context, h *host, key int, version *int, random *rand.Rand) (done bool) {
	h.await()
	hub, id := h.now()
	if hub == nil {
		return false
	}
	repeat := *version != 0
	ok := s.register.commit(id, func() {
		if !repeat {
			*version = s.facts.change(keyName(key))
		}
	})
	if !ok {
		return false
	}
	pause(ctx, random, 5*time.Millisecond)
	h.await() // it may have frozen before it publishes
	err := hub.Wait(ctx, hub.Publish(tagOf(keyName(key))))
	return err == nil
}

func TestReplicatedSimulation(t *testing.T) {
	var reads, refusals int64
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := replicated{simulation: simulation{keys: 4, subscribers: 3, drift: 0.04, margin: simulatedMargin}, slots: 3}
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

// TestReplicatedSimulationFindsViolations leaves out one rule at a time, and finds what the
// rule is for. Rules whose lack shows too seldom have a test of their own.
func TestReplicatedSimulationFindsViolations(t *testing.T) {
	for name, leave := range map[string]func(*replicated){
		"who comes does not wait":     func(s *replicated) { s.hasty = true },
		"who was taken off writes on": func(s *replicated) { s.unfenced = true },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				s := replicated{simulation: simulation{keys: 4, subscribers: 3, margin: simulatedMargin}, slots: 3}
				leave(&s)
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
