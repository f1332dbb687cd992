package authz

import (
	"runtime"
	"slices"
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
	last      atomic.Pointer[Meter] // of the last call
}

// tally counts what a session uses of the services of one log. It costs no more than an
// addition where the session goes on, and is let go when it pauses.
type tally struct {
	uses   *Uses
	meter  *Meter
	listed atomic.Bool
	groups [8]atomic.Pointer[group]

	mu    sync.Mutex
	cells []counted
}

// group is the cells of the grants that a call uses.
type group struct {
	grants catalog.Set
	cells  []*Cell
}

// counted is a cell, with what was taken of it.
type counted struct {
	*Cell
	grant          catalog.Bit
	reads, changes uint64
}

// Cell is what uses of a grant are counted in. The counts only grow.
type Cell struct {
	Reads, Changes atomic.Uint64
	// Consulted grows after the use that it tells of can be taken.
	Consulted atomic.Uint64
}

// Meter counts the calls that one log must tell of.
type Meter struct {
	// NewCell returns a cell for the uses of a grant by a user, and what is called once
	// nobody counts in it any more and all was taken. A call for which there is none
	// fails. By default cells are in memory.
	NewCell func(organization, user string, grant catalog.Bit) (c *Cell, release func(), err error)

	index int
	full  atomic.Pointer[error]

	taking sync.Mutex // held by who takes

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
// What it fails for is not counted.
func (m *Meter) count(u *Uses, grants catalog.Set, changes bool) error {
	if err := m.full.Load(); err != nil {
		return *err
	}
	t := u.tally(m)
	g, err := t.group(grants)
	if err != nil {
		return err
	}
	for _, c := range g.cells {
		if changes {
			c.Changes.Add(1)
		} else {
			c.Reads.Add(1)
		}
	}
	if u.last.Load() != m {
		u.last.Store(m)
	}
	t.list()
	return nil
}

// tally returns where a session's uses are counted now. Whoever has counted there must
// list it.
func (u *Uses) tally(m *Meter) *tally {
	for {
		if t := u.tallies[m.index].Load(); t != nil {
			return t
		}
		u.tallies[m.index].CompareAndSwap(nil, &tally{uses: u, meter: m})
	}
}

// group returns the cells of some grants. They are given back only when nobody has the
// tally any more, so whoever counts must hold it until he has.
func (t *tally) group(grants catalog.Set) (*group, error) {
	at := &t.groups[0]
	for i := range t.groups {
		at = &t.groups[i]
		g := at.Load()
		if g == nil {
			break
		}
		if g.grants == grants {
			return g, nil
		}
	}
	g := &group{grants: grants}
	bits := slices.Collect(grants.All())
	if bits == nil {
		bits = []catalog.Bit{NoGrant}
	}
	for _, bit := range bits {
		c, err := t.cell(bit)
		if err != nil {
			return nil, err
		}
		g.cells = append(g.cells, c)
	}
	at.Store(g)
	return g, nil
}

// cell returns what the uses of a grant are counted in.
func (t *tally) cell(grant catalog.Bit) (*Cell, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.cells {
		if t.cells[i].grant == grant {
			return t.cells[i].Cell, nil
		}
	}
	c := &Cell{}
	if t.meter.NewCell != nil {
		made, release, err := t.meter.NewCell(t.uses.Organization, t.uses.User, grant)
		if err != nil {
			return nil, err
		}
		c = made
		runtime.AddCleanup(t, func(release func()) { release() }, release)
	}
	t.cells = append(t.cells, counted{Cell: c, grant: grant})
	return c, nil
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
		var one catalog.Set
		one.Add(bit)
		u.consultAll(one)
	}
}

// consultAll notes that all of some grants decided what the caller saw.
func (u *Uses) consultAll(grants catalog.Set) {
	for i, b := range grants {
		if b&^u.consulted[i].Load() != 0 {
			u.consultMore(grants)
			return
		}
	}
}

func (u *Uses) consultMore(grants catalog.Set) {
	for i, b := range grants {
		grants[i] = b &^ u.consulted[i].Or(b)
	}
	m := u.last.Load()
	if m == nil {
		return // told with what is counted next
	}
	t := u.tally(m)
	for bit := range grants.All() {
		// Where there is no cell it is told of all the same, unless the process is killed.
		if c, err := t.cell(bit); err == nil {
			c.Consulted.Add(1)
		}
	}
	t.list()
}

// Used is how often a user used a grant since it was last asked.
type Used struct {
	Organization, User string
	Grant              catalog.Bit
	Reads, Changes     uint64
	Consulted          bool
	Cell               *Cell // that it was counted in; nil if in none
}

// Take gives everything that was counted since the last Take to f, in pieces.
func (m *Meter) Take(f func(Used)) {
	m.taking.Lock()
	defer m.taking.Unlock()
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
	var consulted catalog.Set
	for i := range t.uses.consulted {
		if t.uses.consulted[i].Load() != 0 {
			consulted[i] = t.uses.consulted[i].Swap(0)
		}
	}
	tell := func(u Used) {
		any = true
		u.Organization, u.User = t.uses.Organization, t.uses.User
		f(u)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.cells {
		c := &t.cells[i]
		reads, changes := c.Reads.Load(), c.Changes.Load()
		u := Used{Grant: c.grant, Reads: reads - c.reads, Changes: changes - c.changes, Cell: c.Cell}
		c.reads, c.changes = reads, changes
		if c.grant != NoGrant && consulted.Has(c.grant) {
			consulted.Remove(c.grant)
			u.Consulted = true
		}
		if u.Consulted || u.Reads+u.Changes > 0 {
			tell(u)
		}
	}
	for bit := range consulted.All() {
		tell(Used{Grant: bit, Consulted: true})
	}
	return any
}
