package decision

import (
	"hash/crc32"
	"sync/atomic"

	"latchkey.dev/services/internal/authz"
)

// cell is a cell as it is in a file: what it counts, for whom, and how much of it is in
// the store.
type cell struct {
	authz.Cell
	named atomic.Uint64 // the checksum of the name and a bit that is set; 0 while the cell is free
	marks [2]mark
	name  [160]byte // organization, user and grant, each after a byte with its length
}

const cellBytes = 256

// mark says how much of a cell is in the store once the transaction of a generation is.
type mark struct {
	generation                atomic.Uint64 // 0 while it says nothing
	reads, changes, consulted uint64
}

// identity is what a cell counts.
type identity struct{ organization, user, grant string }

// open begins a cell anew. It is there with its last step.
func (c *cell) open(id identity) {
	c.Reads.Store(0)
	c.Changes.Store(0)
	c.Consulted.Store(0)
	for i := range c.marks {
		c.marks[i].generation.Store(0)
	}
	b := c.name[:0]
	for _, part := range []string{id.organization, id.user, id.grant} {
		b = append(append(b, byte(len(part))), part...)
	}
	c.named.Store(1<<32 | uint64(crc32.ChecksumIEEE(b)))
}

// fits tells whether there is room for what a cell is to count.
func (id identity) fits() bool {
	return len(id.organization)+len(id.user)+len(id.grant)+3 <= len(cell{}.name)
}

// identity reads what the cell counts; ok is false if that is garbled.
func (c *cell) identity() (id identity, ok bool) {
	n := 0
	for _, part := range []*string{&id.organization, &id.user, &id.grant} {
		if n == len(c.name) || n+1+int(c.name[n]) > len(c.name) {
			return id, false
		}
		end := n + 1 + int(c.name[n])
		*part, n = string(c.name[n+1:end]), end
	}
	return id, c.named.Load() == 1<<32|uint64(crc32.ChecksumIEEE(c.name[:n])) && id.organization != ""
}

// newest returns the mark of the last generation, and the other.
func (c *cell) newest() (last, other *mark) {
	if a, b := &c.marks[0], &c.marks[1]; a.generation.Load() < b.generation.Load() {
		return b, a
	} else {
		return a, b
	}
}

// written returns how much of the cell is in the store.
func (c *cell) written() (reads, changes, consulted uint64) {
	if m, _ := c.newest(); m.generation.Load() > 0 {
		return m.reads, m.changes, m.consulted
	}
	return 0, 0, 0
}

// mark notes that all of what is owed of the cell, and of what was consulted so much, is in the
// store once the transaction of a generation is. Until then the mark before counts.
func (c *cell) mark(generation uint64, o *owed) {
	reads, changes, consulted := c.written()
	for _, u := range o.uses {
		reads, changes = reads+uint64(u.Reads), changes+uint64(u.Changes)
	}
	_, m := c.newest()
	m.generation.Store(0)
	m.reads, m.changes, m.consulted = reads, changes, max(consulted, o.consulted)
	m.generation.Store(generation)
}

// unmark takes back what was noted for the transactions after a generation.
func (c *cell) unmark(after uint64) {
	for i := range c.marks {
		if m := &c.marks[i]; m.generation.Load() > after {
			m.generation.Store(0)
		}
	}
}
