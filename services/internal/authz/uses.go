package authz

import (
	"sync"
	"sync/atomic"

	"latchkey.dev/services/internal/catalog"
)

// maxLogs is how many logs a process has at most: one for each service of the suite.
const maxLogs = 8

// NoGrant is what calls that need no grant are counted under.
const NoGrant = catalog.Bit(1<<16 - 2)

// Uses is what one session uses of its user's grants, until a log takes it.
type Uses struct {
	Organization string
	User         string

	consulted [len(catalog.Set{})]atomic.Uint64
	tallies   [maxLogs]atomic.Pointer[tally]
	last      atomic.Pointer[tally] // of the last call
}

// tally counts what a session uses of the services of one log. It costs no more than an
// addition where the session goes on, and is let go when it pauses.
type tally struct {
	uses   *Uses
	meter  *Meter
	listed atomic.Bool
	slots  [8]slot
	next   atomic.Pointer[tally] // more slots
}

type slot struct {
	name           atomic.Uint32 // the grant's bit and 1; 0 while the slot is free
	reads, changes atomic.Uint32
}

// Meter counts the calls that one log must tell of.
type Meter struct {
	index int
	full  atomic.Pointer[error]

	mu     sync.Mutex
	active []*tally
}

// Refuse makes every call that is to be counted fail with err; nil ends that.
func (m *Meter) Refuse(err error) {
	if err == nil {
		m.full.Store(nil)
		return
	}
	m.full.Store(&err)
}

// count notes that a caller uses grants. It allocates nothing where the session is busy.
func (m *Meter) count(u *Uses, grants catalog.Set, changes bool) error {
	if err := m.full.Load(); err != nil {
		return *err
	}
	t := u.tallies[m.index].Load()
	for t == nil {
		t = &tally{uses: u, meter: m}
		if !u.tallies[m.index].CompareAndSwap(nil, t) {
			t = u.tallies[m.index].Load()
		}
	}
	if grants.Empty() {
		t.add(NoGrant, changes)
	}
	for bit := range grants.All() {
		t.add(bit, changes)
	}
	if u.last.Load() != t {
		u.last.Store(t)
	}
	t.list()
	return nil
}

func (t *tally) add(bit catalog.Bit, changes bool) {
	s := t.slot(uint32(bit) + 1)
	if changes {
		s.changes.Add(1)
	} else {
		s.reads.Add(1)
	}
}

func (t *tally) slot(name uint32) *slot {
	for {
		for i := range uint32(len(t.slots)) {
			s := &t.slots[(name+i)%uint32(len(t.slots))]
			if s.name.Load() == 0 {
				s.name.CompareAndSwap(0, name)
			}
			if s.name.Load() == name {
				return s
			}
		}
		if t.next.Load() == nil {
			t.next.CompareAndSwap(nil, &tally{})
		}
		t = t.next.Load()
	}
}

// list puts the tally among those that are taken next. What was added before is taken,
// also by whoever takes it off the list just now: he looks once more after that.
func (t *tally) list() {
	if t.listed.Load() || !t.listed.CompareAndSwap(false, true) {
		return
	}
	t.meter.mu.Lock()
	defer t.meter.mu.Unlock()
	t.meter.active = append(t.meter.active, t)
}

// consult notes that a handler asked for a grant and found it held.
func (u *Uses) consult(bit catalog.Bit) {
	if word, b := &u.consulted[bit/64], uint64(1)<<(bit%64); word.Load()&b == 0 {
		word.Or(b)
		u.relist()
	}
}

// consultAll notes that all of some grants decided what the caller saw.
func (u *Uses) consultAll(grants catalog.Set) {
	for i, b := range grants {
		if b&^u.consulted[i].Load() != 0 {
			u.consulted[i].Or(b)
			u.relist()
		}
	}
}

func (u *Uses) relist() {
	if t := u.last.Load(); t != nil {
		t.list()
	}
}

// Used is how often a user used a grant since it was last asked.
type Used struct {
	Organization, User string
	Grant              catalog.Bit
	Reads, Changes     uint32
	Consulted          bool
}

// Take gives everything that was counted since the last Take to f, in pieces.
func (m *Meter) Take(f func(Used)) {
	m.mu.Lock()
	active := m.active
	m.active = nil
	m.mu.Unlock()
	var busy []*tally
	for _, t := range active {
		if t.take(f) {
			busy = append(busy, t)
			continue
		}
		t.listed.Store(false)
		t.uses.tallies[m.index].CompareAndSwap(t, nil)
		t.take(f)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active = append(m.active, busy...)
}

// take gives what was counted to f, and reports whether there was anything.
func (t *tally) take(f func(Used)) (any bool) {
	u := t.uses
	for more := t; more != nil; more = more.next.Load() {
		for i := range more.slots {
			s := &more.slots[i]
			reads, changes := s.reads.Swap(0), s.changes.Swap(0)
			if reads+changes > 0 {
				any = true
				f(Used{u.Organization, u.User, catalog.Bit(s.name.Load() - 1), reads, changes, false})
			}
		}
	}
	var consulted catalog.Set
	for i := range u.consulted {
		if u.consulted[i].Load() != 0 {
			consulted[i] = u.consulted[i].Swap(0)
		}
	}
	for bit := range consulted.All() {
		any = true
		f(Used{u.Organization, u.User, bit, 0, 0, true})
	}
	return any
}
