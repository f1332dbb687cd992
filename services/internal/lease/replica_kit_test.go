package lease

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// register is the list of replicas in the source's database.
type register struct {
	mu      sync.Mutex
	list    List
	ids     int
	unaware bool // of who is on the list: whoever writes may
}

func (r *register) copy() List {
	return List{Number: r.list.Number, Replicas: slices.Clone(r.list.Replicas)}
}

func (r *register) read() List {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.copy()
}

// newID returns one that nobody had.
func (r *register) newID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids++
	return fmt.Sprint("life ", r.ids)
}

// enter puts a replica on the list, in the place of its former life.
func (r *register) enter(id, address string) List {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list.Replicas = slices.DeleteFunc(r.list.Replicas, func(x Replica) bool { return x.Address == address })
	r.list.Replicas = append(r.list.Replicas, Replica{id, address})
	r.list.Number++
	return r.copy()
}

func (r *register) remove(id string) List {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list.has(id) {
		r.list.Replicas = slices.DeleteFunc(r.list.Replicas, func(x Replica) bool { return x.ID == id })
		r.list.Number++
	}
	return r.copy()
}

// commit runs f, if the replica is on the list, while nobody changes it.
func (r *register) commit(id string, f func()) (ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.unaware && !r.list.has(id) {
		return false
	}
	f()
	return true
}

// group is a source of several replicas, and the network to them.
type group struct {
	t        *testing.T
	register *register
	mu       sync.Mutex      // is held to change hubs, and to read it beside the test
	hubs     map[string]*Hub // by address
	wires    map[string]*wire
	clock    Clock
}

func newGroup(t *testing.T) *group {
	return &group{t: t, register: &register{}, hubs: map[string]*Hub{}, wires: map[string]*wire{}, clock: plainClock()}
}

// start begins a life of a replica, which is on the list when it returns.
func (g *group) start(address string) *Hub {
	g.t.Helper()
	h := newTestHub(g.t, func(c *HubConfig) { c.Replicated, c.Clock = true, g.clock })
	g.mu.Lock()
	g.hubs[address] = h
	g.mu.Unlock()
	if w := g.wires[address]; w != nil {
		w.connect(h)
	} else {
		g.wires[address] = newWire(g.t, h)
	}
	g.join(address)
	return h
}

func (g *group) join(address string) {
	g.t.Helper()
	id := g.register.newID()
	err := g.hubs[address].Join(id, func() (List, error) { return g.register.enter(id, address), nil })
	if err != nil {
		g.t.Fatal(err)
	}
}

// tell has each of the replicas read the list now.
func (g *group) tell(addresses ...string) {
	for _, address := range addresses {
		g.mu.Lock()
		h := g.hubs[address]
		g.mu.Unlock()
		read := h.Now()
		h.Learn(g.register.read(), read)
	}
}

// poll has the replicas read the list again and again, until the test ends.
func (g *group) poll(addresses ...string) {
	ended := g.t.Context().Done()
	go func() {
		for {
			g.tell(addresses...)
			select {
			case <-time.After(DefaultDuration / 6):
			case <-ended:
				return
			}
		}
	}()
}

// cache is a subscriber that is told of one address.
func (g *group) cache(f *facts, seed string) *Cache[int] {
	c, _ := newTestCache(g.t, g.wires[seed].dial, f, func(c *CacheConfig[int]) {
		c.DialReplica = func(address string) grpc.ClientConnInterface { return g.wires[address].dial() }
	})
	return c
}
