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

func tear(t *testing.T, tr *trial.Trial, env []string, times int) {
	path := filepath.Join(t.TempDir(), "test.db")
	effects := record(t, tr, path, append(env, limitEnv+"=12"))
	d := &medium{pages: map[int64][]byte{}}
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
			for _, name := range []string{left, left + ".new"} {
				_ = os.Remove(name) // one of them may not be there
			}
		}
	}
	for _, e := range effects {
		switch e.kind {
		case acknowledgement:
			acknowledged = append(acknowledged, e.id)
		case synced:
			leave()
			d.settle()
			syncs++
		default:
			d.waiting = append(d.waiting, e)
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

// medium is what surely is in a file on a disk, and what waits to get there.
type medium struct {
	pages   map[int64][]byte // by number; never changed
	size    int64
	name    int
	waiting []effect
}

const (
	pageSize   = 4096
	sectorSize = 512
)

// settle is the end of a sync.
func (d *medium) settle() {
	for _, e := range d.waiting {
		d.apply(e, func() bool { return true }, pageSize)
	}
	d.waiting = nil
	d.name = max(d.name, newName)
}

// torn returns what a disk may have that stops now.
func (d *medium) torn() *medium {
	left := &medium{pages: maps.Clone(d.pages), size: d.size, name: d.name}
	chance := []float64{0.1, 0.5, 0.9}[rand.IntN(3)]
	grain := []int{sectorSize, pageSize, 1 << 30}[rand.IntN(3)] // the last is a whole write
	waiting := d.waiting
	if rand.IntN(2) == 0 { // it stops before all was written
		waiting = waiting[:rand.IntN(len(waiting)+1)]
	}
	for _, i := range rand.Perm(len(waiting)) {
		left.apply(waiting[i], func() bool { return rand.Float64() < chance }, grain)
	}
	if left.name == noName && len(left.pages) > 0 {
		left.name = rand.IntN(2)
	}
	return left
}

// apply makes those grains of an effect happen that are chosen.
func (d *medium) apply(e effect, chosen func() bool, grain int) {
	switch e.kind {
	case resize:
		if chosen() {
			d.size = max(d.size, e.at) // a bbolt file never shrinks
		}
	case rename:
		if chosen() {
			d.name = rightName
		}
	case overwrite:
		for from := 0; from < len(e.data); from += grain {
			if to := min(from+grain, len(e.data)); chosen() {
				d.put(e.at+int64(from), e.data[from:to])
			}
		}
	}
}

func (d *medium) put(at int64, data []byte) {
	d.size = max(d.size, at+int64(len(data)))
	for len(data) > 0 {
		number, within := at/pageSize, at%pageSize
		n := min(int64(len(data)), pageSize-within)
		page := bytes.Clone(d.pages[number])
		if page == nil {
			page = make([]byte, pageSize)
		}
		copy(page[within:], data[:n])
		d.pages[number] = page
		at, data = at+n, data[n:]
	}
}

// write makes a file of it, under the name that it has.
func (d *medium) write(path string) error {
	switch d.name {
	case noName:
		return nil
	case newName:
		path += ".new"
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for number, page := range d.pages {
		if _, err := f.WriteAt(page, number*pageSize); err != nil {
			return err
		}
	}
	return f.Truncate(d.size)
}
