package bolt_test

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"latchkey.dev/services/internal/store/bolt"
	"latchkey.dev/services/internal/trial"
)

// TestTornWrites records what a process does to its file, and stops it at every sync in
// thought: of what it wrote since the last sync that had ended, any part may be on the
// disk, in any order. Whatever was left opens, is whole, and holds what was acknowledged
// until the sync ended.
func TestTornWrites(t *testing.T) {
	tr := trial.New(t, "torn writes", "bolt")
	tear(t, tr, nil, trial.Times(4, 100))
}

// TestTornWritesWithoutSync is its control.
func TestTornWritesWithoutSync(t *testing.T) {
	tr := trial.Control(t, "torn writes without sync", "bolt")
	tear(t, tr, []string{noSyncEnv + "=1"}, 4)
}

// TestTornWritesOfLog does it while the log changes its halves, and the file takes over what it has,
// again and again.
func TestTornWritesOfLog(t *testing.T) {
	tr := trial.New(t, "torn writes of the log and what it is of", "bolt")
	tear(t, tr, []string{recordsEnv + "=3"}, trial.Times(2, 100))
}

func tear(t *testing.T, tr *trial.Trial, env []string, times int) {
	path := filepath.Join(t.TempDir(), "test.db")
	effects := record(t, tr, path, append(env, limitEnv+"=12"))
	d := newMedium()
	var acknowledged []string
	syncs := 0
	leave := func() {
		for range times {
			tr.Tried()
			left := filepath.Join(t.TempDir(), "test.db")
			if err := d.torn().write(left); err != nil {
				t.Fatal(err)
			}
			verify(tr, left, acknowledged, bolt.Options{NoSync: true})
			for _, name := range []string{left, left + ".new", left + ".wal"} {
				_ = os.Remove(name) // one of them may not be there
			}
		}
	}
	for _, e := range effects {
		switch e.kind {
		case acknowledgement:
			acknowledged = append(acknowledged, e.id)
		case syncing:
			d.begin(e)
		case synced:
			leave()
			d.settle(e)
			syncs++
		default:
			d.waiting[e.of] = append(d.waiting[e.of], e)
		}
	}
	leave()
	if len(acknowledged) != 12*writers {
		t.Errorf("%d acknowledgements were recorded", len(acknowledged))
	}
	tr.Remark("%d at each of %d syncs", times, syncs)
}

// Names that a file has while it is made.
const (
	noName = iota
	newName
	rightName
)

// medium is what surely is on a disk in the file, its log and their folder, and what waits to get there.
type medium struct {
	files   [2]contents
	name    int            // of the file
	named   bool           // the log is
	waiting [3][]effect    // by place
	settled [3]int         // how many do not wait any more
	begun   map[string]int // by thread that syncs: how many there were when it began
}

// contents are those of a file.
type contents struct {
	pages map[int64][]byte // by number; never changed
	size  int64
}

const (
	pageSize   = 4096
	sectorSize = 512
)

func newMedium() *medium {
	return &medium{files: [2]contents{{pages: map[int64][]byte{}}, {pages: map[int64][]byte{}}}, begun: map[string]int{}}
}

// begin is the begin of a sync.
func (d *medium) begin(e effect) { d.begun[e.thread] = d.settled[e.of] + len(d.waiting[e.of]) }

// settle is its end.
func (d *medium) settle(e effect) {
	n := max(d.begun[e.thread]-d.settled[e.of], 0) // another sync may have ended meanwhile
	for _, w := range d.waiting[e.of][:n] {
		d.apply(w, func() bool { return true }, pageSize)
	}
	d.waiting[e.of] = d.waiting[e.of][n:]
	d.settled[e.of] += n
	switch e.of {
	case theFile:
		d.name = max(d.name, newName)
	case theFolder:
		d.named = true
	}
}

// torn returns what a disk may have that stops now.
func (d *medium) torn() *medium {
	left := &medium{name: d.name, named: d.named}
	for i, c := range d.files {
		left.files[i] = contents{pages: maps.Clone(c.pages), size: c.size}
	}
	chance := []float64{0.1, 0.5, 0.9}[rand.IntN(3)]
	grain := []int{sectorSize, pageSize, 1 << 30}[rand.IntN(3)] // the last is a whole write
	for _, waiting := range d.waiting {
		if rand.IntN(2) == 0 { // it stops before all was written
			waiting = waiting[:rand.IntN(len(waiting)+1)]
		}
		for _, i := range rand.Perm(len(waiting)) {
			left.apply(waiting[i], func() bool { return rand.Float64() < chance }, grain)
		}
	}
	if left.name == noName && len(left.files[theFile].pages) > 0 {
		left.name = rand.IntN(2)
	}
	left.named = left.named || rand.IntN(2) == 0
	return left
}

// apply makes those grains of an effect happen that are chosen.
func (d *medium) apply(e effect, chosen func() bool, grain int) {
	switch e.kind {
	case resize:
		if c := &d.files[e.of]; chosen() {
			c.size = max(c.size, e.at) // neither file ever shrinks
		}
	case rename:
		if chosen() {
			d.name = rightName
		}
	case overwrite:
		for from := 0; from < len(e.data); from += grain {
			if to := min(from+grain, len(e.data)); chosen() {
				d.files[e.of].put(e.at+int64(from), e.data[from:to])
			}
		}
	}
}

func (c *contents) put(at int64, data []byte) {
	c.size = max(c.size, at+int64(len(data)))
	for len(data) > 0 {
		number, within := at/pageSize, at%pageSize
		n := min(int64(len(data)), pageSize-within)
		page := bytes.Clone(c.pages[number])
		if page == nil {
			page = make([]byte, pageSize)
		}
		copy(page[within:], data[:n])
		c.pages[number] = page
		at, data = at+n, data[n:]
	}
}

// write makes files of it, under the names that they have.
func (d *medium) write(path string) error {
	if d.named && d.files[theLog].size > 0 {
		if err := d.files[theLog].write(path + ".wal"); err != nil {
			return err
		}
	}
	switch d.name {
	case noName:
		return nil
	case newName:
		path += ".new"
	}
	return d.files[theFile].write(path)
}

func (c contents) write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for number, page := range c.pages {
		if _, err := f.WriteAt(page, number*pageSize); err != nil {
			return err
		}
	}
	return f.Truncate(c.size)
}
