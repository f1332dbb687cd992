package bolt

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// room is how much of the address space must be left for a commit that is logged, beside what its
// writes may take: while pages are pinned the file cannot be mapped anew.
const (
	room     = 256 << 20
	perWrite = 16 << 10 // the leaf that it is in, in two halves, and a part of those above
)

// needs is how much a commit may make the file longer.
func (g *group) needs(room int) int64 {
	writes := 0
	for _, u := range g.waiting {
		writes += len(u.writes)
	}
	return int64(room) + 2*int64(g.bytes) + perWrite*int64(writes)
}

// pinned is a state of the file whose pages are not written to until it is released.
type pinned struct {
	tx   *bbolt.Tx
	meta meta
	seq  uint64 // of the last record before it

	synced chan struct{} // closed when it is on the disk, or
	err    error         // will never be
}

// logged is a file whose commits are not synced one by one, since a log has them. It is
// used by the committer alone.
type logged struct {
	wal
	base   *pinned // what the file is put back to; nil while it needs no log
	next   *pinned // what takes its place as soon as it is on the disk
	listed bool    // the newest state has a list of its free pages
}

// pin keeps the newest state of the file.
func (e *Engine) pin() (*pinned, error) {
	tx, err := e.file.Load().Begin(false)
	if err != nil {
		return nil, err
	}
	m, err := readState(e.path, uint64(tx.ID()))
	if err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return &pinned{tx: tx, meta: m, seq: e.log.seq, synced: make(chan struct{})}, nil
}

// readState reads the meta page of a transaction, which may not be synced.
func readState(path string, id uint64) (meta, error) {
	f, err := os.Open(path)
	if err != nil {
		return meta{}, err
	}
	defer f.Close()
	for at := range metaPlaces {
		if m, ok := readMeta(f, at); ok && m.Txid == id {
			return m, nil
		}
	}
	return meta{}, fmt.Errorf("the meta page of transaction %d is not there", id)
}

func (p *pinned) release() error {
	if p == nil {
		return nil
	}
	return p.tx.Rollback()
}

// logs reports whether a group's writes, of which r is the record, become durable in the log.
func (e *Engine) logs(tx *bbolt.Tx, g *group, r []byte) bool {
	return len(r) <= maxRecord && tx.Size()+g.needs(e.options.room) <= e.mapped
}

// needsState reports whether the newest state of the file must be pinned before a record can be
// logged.
func (l *logged) needsState(bytes int) bool {
	return l.base == nil || !l.fits(l.active(), bytes)
}

// list has the newest state of the file be one with a list of its free pages, without which it is
// not opened at once. A commit that is logged leaves that out: while pages are pinned it is long,
// and it would be written anew each time. Nobody has the file's write lock.
func (e *Engine) list() error {
	l := &e.log
	if l.listed {
		return nil
	}
	if l.next != nil { // so that of these commits, of which the log knows nothing, there is one at most
		if err := e.advance(false); err != nil {
			return err
		}
	}
	db := e.file.Load()
	db.NoSync, db.NoFreelistSync = e.options.NoSync || l.base != nil, false
	tx, err := db.Begin(true)
	if err != nil {
		return e.fail(err)
	}
	id := tx.ID()
	if err := tx.Commit(); err != nil && (!isFull(err) || e.visible(id)) {
		return e.fail(err)
	} else if err != nil {
		return err
	}
	l.listed = true
	return nil
}

// prepare has a record in the log, if that is how a group becomes durable, and says whether it
// may be there. Then the commit itself is not synced.
func (e *Engine) prepare(record []byte, logged bool) (inLog bool, err error) {
	db, l := e.file.Load(), &e.log
	if !logged {
		db.NoSync, db.NoFreelistSync = e.options.NoSync, false
		return false, e.settle()
	}
	if err := e.makeRoom(len(record)); err != nil {
		return false, err
	}
	db.NoSync, db.NoFreelistSync = true, true
	return true, l.append(l.active(), record)
}

// active is the half that is being written: that of the base, unless it was full.
func (l *logged) active() int {
	if l.next != nil {
		return 1 - l.half
	}
	return l.half
}

// makeRoom has a half of the log in use in which there is room for a record.
func (e *Engine) makeRoom(bytes int) error {
	l := &e.log
	if l.base == nil {
		if err := e.begin(); err != nil {
			return err
		}
	}
	if l.next != nil {
		if err := e.advance(l.fits(l.active(), bytes)); err != nil {
			return err
		}
	}
	if l.fits(l.active(), bytes) {
		return nil
	}
	next, err := e.pin()
	if err != nil {
		return err
	}
	l.next = next
	l.to(l.active())
	db := e.file.Load()
	go func() {
		defer close(next.synced)
		if !e.options.NoSync {
			next.err = db.Sync()
		}
	}()
	return nil
}

// begin begins to use the log, with the file as it is, which is on the disk.
func (e *Engine) begin() error {
	l := &e.log
	if err := l.open(); err != nil {
		return err
	}
	for n := range 2 { // so that heads always have room
		if err := l.extend(n, half(n)+walHead); err != nil {
			return err
		}
	}
	base, err := e.pin()
	if err != nil {
		return err
	}
	if err := e.head(head{Sequence: l.seq, Needed: 1, Base: base.meta}); err != nil {
		return errors.Join(err, base.release())
	}
	l.base = base
	l.to(l.half)
	return nil
}

// advance has the next state take the place of the base: if it is on the disk, or, if it may not be
// put off, as soon as it is.
func (e *Engine) advance(later bool) error {
	l := &e.log
	select {
	case <-l.next.synced:
	default:
		if later {
			return nil
		}
		<-l.next.synced
	}
	if l.next.err != nil {
		return e.fail(fmt.Errorf("sync: %w", l.next.err))
	}
	if err := e.head(head{Sequence: l.next.seq, Needed: 1, Base: l.next.meta}); err != nil {
		return err
	}
	old := l.base
	l.base, l.next = l.next, nil
	return old.release()
}

// head writes a head. If it fails otherwise than for want of room, it may be either that counts.
func (e *Engine) head(h head) error {
	wrote, err := e.log.put(h)
	if err != nil && (wrote || !isFull(err)) {
		return e.fail(err)
	}
	return err
}

// settle has all that was committed on the disk and in the file, so that it needs no log. For want of
// room the file may lack the list of its free pages afterwards, which bbolt then makes when it opens it.
func (e *Engine) settle() error {
	l := &e.log
	if l.base == nil {
		return nil
	}
	err := e.list()
	if err != nil && (e.broken.Load() != nil || !isFull(err)) {
		return e.fail(err)
	}
	if err = nil; l.next != nil {
		<-l.next.synced
		err = l.next.err
	}
	if err == nil && !e.options.NoSync {
		err = e.file.Load().Sync()
	}
	if err != nil {
		return e.fail(fmt.Errorf("sync: %w", err))
	}
	if err := e.head(head{Sequence: l.seq}); err != nil {
		return err
	}
	return e.unpin()
}

func (e *Engine) unpin() error {
	l := &e.log
	err := errors.Join(l.next.release(), l.base.release())
	l.base, l.next = nil, nil
	return err
}

// endLog ends the use of the log when nothing is committed any more.
func (e *Engine) endLog() error {
	l := &e.log
	if e.broken.Load() != nil {
		if l.next != nil {
			<-l.next.synced
		}
		return errors.Join(e.unpin(), l.close())
	}
	if err := e.settle(); err != nil {
		return errors.Join(err, e.unpin(), l.close())
	}
	return errors.Join(l.close(), l.remove())
}
