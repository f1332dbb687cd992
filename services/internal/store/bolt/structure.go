package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// What a page has of each of its elements, after its header: of a branch page where its key is, how long that
// is, and the page; of a leaf page flags, where its key is, and how long key and value are.
const (
	elementSize = 16
	bucketFlag  = 0x01 // of a leaf's element: the value is a bucket, which begins with its root page
	bucketSize  = 16   // the number of the root page, and a sequence
	deepest     = 64   // more levels than a file has
)

// Check implements store.Checker. It walks over all pages as a transaction sees them: each is what
// it says, holds its keys in order and between those of the page above, and belongs to one
// place, which for those that are free is the list of them.
func (e *Engine) Check(ctx context.Context, found func(problem string)) (pages int64, err error) {
	if err := e.refusal(ctx); err != nil {
		return 0, err
	}
	var s state
	err = e.inCommitter(ctx, func() error { return s.hold(e) })
	defer s.release()
	if err != nil {
		return 0, fmt.Errorf("check %s: %w", e.path, err)
	}
	return newWalk(ctx, s.meta, s.file, found).all()
}

// state is one that a file is in, as long as it is held: nobody writes to its pages.
type state struct {
	meta meta
	file *os.File
	used *file
	tx   *bbolt.Tx
}

// hold holds the newest state, with a list of its free pages if there is room for it, and needing no log: that
// knows of no commits but those that are in it, and of one that lists. It is called between two commits.
func (s *state) hold(e *Engine) (err error) {
	if err := e.settle(); err != nil {
		return err
	}
	if s.file, err = os.Open(e.path); err != nil {
		return err
	}
	if s.used, err = e.use(); err != nil {
		return err
	}
	if s.tx, err = s.used.Begin(false); err != nil {
		return err
	}
	var ok bool
	if s.meta, ok = newest(s.file); !ok || s.meta.Txid != uint64(s.tx.ID()) {
		return errors.New("its meta pages are not those of its last commit")
	}
	return nil
}

// release lets go of what was held, of which there may be little.
func (s *state) release() {
	if s.tx != nil {
		s.tx.Rollback() // its only error is that it was done
	}
	if s.used != nil {
		s.used.release()
	}
	if s.file != nil {
		s.file.Close() // it was only read
	}
}

// walk is a walk over the pages of a file.
type walk struct {
	meta
	ctx   context.Context
	file  *os.File
	found func(string)

	taken  []uint64 // a bit for each page that belongs somewhere
	pages  int64
	wrongs int
	err    error // that ends the walk
}

func newWalk(ctx context.Context, m meta, f *os.File, found func(string)) *walk {
	w := &walk{ctx: ctx, file: f, meta: m, found: found, taken: make([]uint64, m.Pages/64+1)}
	w.take(0, 0) // the meta pages
	w.take(1, 0)
	return w
}

func (w *walk) wrong(format string, args ...any) {
	w.wrongs++
	w.found(fmt.Sprintf(format, args...))
}

// all walks, and returns how many pages there are.
func (w *walk) all() (int64, error) {
	listed := w.Freelist != noFreelist
	if listed {
		w.free()
	}
	w.tree(w.Root, nil, nil, 0)
	if w.err != nil {
		return 0, w.err
	}
	if listed && w.wrongs == 0 && uint64(w.pages) != w.Pages { // a page that cannot be read has others below it
		w.wrong("%d pages belong nowhere", w.Pages-uint64(w.pages))
	}
	return int64(w.Pages), nil
}

// has reports whether a page belongs somewhere.
func (w *walk) has(id uint64) bool { return w.taken[id/64]&(1<<(id%64)) != 0 }

// take notes that a page and those that follow it belong somewhere, and reports whether they
// exist, and belonged nowhere else.
func (w *walk) take(id uint64, overflow uint32) bool {
	if id >= w.Pages || uint64(overflow) >= w.Pages-id {
		w.wrong("page %d is beyond the end of the file", id+uint64(overflow))
		return false
	}
	for n := id; n <= id+uint64(overflow); n++ {
		if w.has(n) {
			w.wrong("page %d belongs to two places", n)
			return false
		}
		w.taken[n/64] |= 1 << (n % 64)
		w.pages++
	}
	return true
}

// free takes the pages of the list of free pages, and those that are in it.
func (w *walk) free() {
	h, err := w.page(w.file, w.Freelist, freelistFlag)
	if err != nil {
		w.wrong("the list of free pages: %v", err)
		return
	}
	if !w.take(w.Freelist, h.Overflow) {
		return
	}
	ids, err := w.freePages(w.file, h)
	if err != nil {
		w.wrong("%v", err)
	}
	for _, id := range ids {
		w.take(id, 0)
	}
}

// tree walks over a page and those below it, whose keys are from lo on and before hi; nil is
// no bound.
func (w *walk) tree(id uint64, lo, hi []byte, depth int) {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return
	}
	if depth > deepest {
		w.wrong("page %d is %d levels deep", id, depth)
		return
	}
	h, err := w.page(w.file, id, branchFlag|leafFlag)
	if err != nil {
		w.wrong("%v", err)
		return
	}
	if !w.take(id, h.Overflow) {
		return
	}
	b := make([]byte, (int64(h.Overflow)+1)*int64(w.PageSize))
	if _, err := w.file.ReadAt(b, int64(id)*int64(w.PageSize)); err != nil {
		w.wrong("page %d cannot be read: %v", id, err)
		return
	}
	if problem := w.inside(h, b, lo, hi, depth); problem != "" {
		w.wrong("page %d: %s", id, problem)
	}
}

// inside walks over what a page has, which begins with its header, and then over what is below it.
func (w *walk) inside(h header, b, lo, hi []byte, depth int) (problem string) {
	if h.Flags != branchFlag && h.Flags != leafFlag {
		return fmt.Sprintf("it is of the kind %#x", h.Flags)
	}
	n := int(h.Count)
	if n > (len(b)-headerSize)/elementSize || n == 0 && h.Flags == branchFlag {
		return fmt.Sprintf("it says that it has %d elements", n)
	}
	elements := make([]element, n)
	for i := range elements {
		var ok bool
		if elements[i], ok = elementAt(b, i, h.Flags == branchFlag); !ok {
			return fmt.Sprintf("element %d is outside of it", i)
		}
		key := elements[i].key
		if i > 0 && bytes.Compare(elements[i-1].key, key) >= 0 || lo != nil && bytes.Compare(key, lo) < 0 || hi != nil && bytes.Compare(key, hi) >= 0 {
			return fmt.Sprintf("key %d is not in order", i)
		}
	}
	for i, e := range elements {
		switch {
		case h.Flags == branchFlag:
			before := hi
			if i+1 < n {
				before = elements[i+1].key
			}
			w.tree(e.page, e.key, before, depth+1)
		case e.flags&bucketFlag != 0:
			if problem := w.bucket(e.value, depth); problem != "" {
				return fmt.Sprintf("bucket %d: %s", i, problem)
			}
		}
	}
	return ""
}

// bucket walks over a bucket, whose only page may be in the value itself.
func (w *walk) bucket(value []byte, depth int) (problem string) {
	if len(value) < bucketSize {
		return "it is too short"
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		w.tree(root, nil, nil, depth+1)
		return ""
	}
	var h header
	if _, err := binary.Decode(value[bucketSize:], binary.NativeEndian, &h); err != nil {
		return "it is too short"
	}
	return w.inside(h, value[bucketSize:], nil, nil, depth+1)
}

// element is one of a page: of a branch a page below, of a leaf a key and its value.
type element struct {
	key, value []byte
	page       uint64
	flags      uint32
}

// elementAt reads element i, and reports whether it is within the page.
func elementAt(b []byte, i int, branch bool) (e element, ok bool) {
	at := headerSize + i*elementSize
	word := func(n int) uint32 { return binary.NativeEndian.Uint32(b[at+4*n:]) }
	var pos, keySize, valueSize uint32
	if branch {
		pos, keySize, e.page = word(0), word(1), binary.NativeEndian.Uint64(b[at+8:])
	} else {
		e.flags, pos, keySize, valueSize = word(0), word(1), word(2), word(3)
	}
	start := uint64(at) + uint64(pos)
	end := start + uint64(keySize) + uint64(valueSize)
	if end > uint64(len(b)) {
		return e, false
	}
	e.key, e.value = b[start:start+uint64(keySize)], b[start+uint64(keySize):end]
	return e, true
}
