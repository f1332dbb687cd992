package lease

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
)

// Replica is one life of a process that can change what a source says.
type Replica struct {
	ID      string // never used again
	Address string
}

// List is all that can, at some time. The zero List is that of a source that keeps none.
type List struct {
	Number   uint64 // grows with each change
	Replicas []Replica
}

func (l *List) has(id string) bool {
	return slices.ContainsFunc(l.Replicas, func(r Replica) bool { return r.ID == id })
}

func (l *List) message() *leasepb.Replicas {
	m := &leasepb.Replicas{Number: l.Number}
	for _, r := range l.Replicas {
		m.Replicas = append(m.Replicas, &leasepb.Replica{Id: r.ID, Address: r.Address})
	}
	return m
}

func listOf(m *leasepb.Replicas) *List {
	l := &List{Number: m.GetNumber()}
	for _, r := range m.GetReplicas() {
		l.Replicas = append(l.Replicas, Replica{ID: r.GetId(), Address: r.GetAddress()})
	}
	return l
}

// alone is the list of a source that keeps none: the process that the seed leads to.
var alone = &List{Replicas: []Replica{{}}}

// feed is what a cache knows of one replica of its source. The cache's mu guards it.
type feed struct {
	id     string // empty if the source keeps no list, and for the seed
	dial   func() grpc.ClientConnInterface
	stop   context.CancelFunc
	soon   chan struct{} // has a token if a ping is due at once
	term   uint64        // of the last stream
	until  time.Duration // end of its lease by the list that the cache goes by; 0 if none
	newest grant         // by the newest pong of the stream, whatever list that named
}

// grant is what a pong says.
type grant struct {
	number uint64 // of the list
	until  time.Duration
}

// learn notes a list that a replica tells of. Only who was asked because nothing is held
// is believed one with a lower number, as after a restore of the source's data.
func (c *Cache[V]) learn(list *List, sought bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil && (list.Number == c.next.Number || list.Number < c.next.Number && (!sought || c.hold.held())) {
		return
	}
	c.next = list
	for _, r := range list.Replicas {
		if c.feeds[r.ID] == nil {
			c.feed(r)
		}
	}
	c.weed()
	for _, f := range c.feeds {
		select {
		case f.soon <- struct{}{}:
		default: // it is so already
		}
	}
	c.advance()
}

// feed follows one more replica. c.mu is held.
func (c *Cache[V]) feed(r Replica) {
	f := &feed{id: r.ID, soon: make(chan struct{}, 1)}
	if f.dial = c.config.Dial; r.ID != "" {
		f.dial = func() grpc.ClientConnInterface { return c.config.DialReplica(r.Address) }
	}
	var ctx context.Context
	ctx, f.stop = context.WithCancel(c.running)
	c.feeds[r.ID] = f
	c.following.Go(func() { c.follow(ctx, f) })
}

// weed stops following those who are neither on the list that the cache goes by nor on the
// next. c.mu is held.
func (c *Cache[V]) weed() {
	for id, f := range c.feeds {
		if id != "" && (c.list == nil || !c.list.has(id)) && !c.next.has(id) {
			delete(c.feeds, id)
			f.stop()
		}
	}
}

// advance goes by the next list, if all on it have granted a lease by it. c.mu is held.
//
// SECURITY: everything is dropped before the new lease counts, so that nothing is used by
// it that was loaded when a replica which is no longer listened to could change it.
func (c *Cache[V]) advance() {
	if c.next == nil || c.next == c.list || len(c.next.Replicas) == 0 {
		return
	}
	now := c.config.Clock()
	for _, r := range c.next.Replicas {
		f := c.feeds[r.ID]
		if f == nil || f.newest.number != c.next.Number || now >= f.newest.until {
			return
		}
	}
	if !c.neverDrop {
		c.dropAll()
	}
	c.list = c.next
	for _, r := range c.list.Replicas {
		f := c.feeds[r.ID]
		f.until = f.newest.until
	}
	c.weed()
	c.renew()
}

// granted notes what the newest pong of a replica grants. c.mu is held.
func (c *Cache[V]) granted(f *feed, g grant) {
	f.newest = g
	if c.list == nil || c.list.Number != g.number || !c.list.has(f.id) {
		c.advance()
		return
	}
	f.until = g.until
	c.renew()
}

// renew notes that the lease of some replica changed: the cache's own lasts as long as
// the shortest of them. c.mu is held.
func (c *Cache[V]) renew() {
	var until time.Duration
	for i, r := range c.list.Replicas {
		if f := c.feeds[r.ID]; i == 0 || f.until < until {
			until = f.until
		}
	}
	if c.hold.until.Swap(int64(until)) == 0 {
		close(c.gained)
		c.missed = make(chan struct{})
	}
	if c.lapse != nil {
		c.lapse.Stop()
	}
	c.lapse = time.AfterFunc(until-c.config.Clock(), c.expire)
}

// expire drops everything if the lease has run out, else looks again when it could have.
// The timer only says when to look; the clock says what is true.
func (c *Cache[V]) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list == nil {
		return
	}
	if left := time.Duration(c.hold.until.Load()) - c.config.Clock(); left > 0 {
		c.lapse.Reset(left)
		return
	}
	c.lose()
}

// lose ends the lease and drops everything. Only going by a list anew brings it back. c.mu
// is held.
//
// SECURITY: the lease ends first, so that nothing is used while the entries go.
func (c *Cache[V]) lose() {
	if c.list == nil {
		return
	}
	c.hold.until.Store(0)
	c.lapse.Stop()
	for _, r := range c.list.Replicas {
		c.feeds[r.ID].until = 0
	}
	c.list = nil
	close(c.missed)
	c.gained = make(chan struct{})
	c.dropAll()
}
