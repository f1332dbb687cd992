package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// noFreelist is the page of the list of free pages of a file that has none.
const noFreelist = 1<<64 - 1

// What a page has of each of its elements, after its header: of a branch page where its key is, how long that
// is, and the page; of a leaf page flags, where its key is, and how long key and value are.
const (
	elementSize = 16
	bucketFlag  = 0x01 // of a leaf's element: the value is a bucket, which begins with its root page
)

// listFree gives a file that has no list of its free pages one, behind its last page. bbolt can make
// one itself, but ends the process if the file is damaged. It can be done again and again.
func listFree(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	m, ok := newest(f)
	if !ok || m.Freelist != noFreelist {
		return nil
	}
	w := walk{meta: m, file: f, used: map[uint64]bool{0: true, 1: true}}
	if err := w.page(m.Root); err != nil {
		return err
	}
	m.Freelist = m.Pages
	list, err := w.list()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(list, int64(m.Freelist)*int64(m.PageSize)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	m.Pages += uint64(len(list)) / uint64(m.PageSize)
	m.Txid++
	if err := m.write(f); err != nil {
		return err
	}
	return f.Sync()
}

// walk goes through all pages of a file that are in use.
type walk struct {
	meta
	file *os.File
	used map[uint64]bool
}

// page notes a page and all beneath it.
func (w *walk) page(id uint64) error {
	h, err := w.meta.page(w.file, id, branchFlag|leafFlag)
	if err != nil {
		return err
	}
	for n := range uint64(h.Overflow) + 1 {
		if w.used[id+n] {
			return fmt.Errorf("page %d is used twice", id+n)
		}
		w.used[id+n] = true
	}
	b := make([]byte, (uint64(h.Overflow)+1)*uint64(w.PageSize))
	if _, err := w.file.ReadAt(b, int64(id)*int64(w.PageSize)); err != nil {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	if headerSize+elementSize*int(h.Count) > len(b) {
		return fmt.Errorf("page %d has more elements than room", id)
	}
	for i := range int(h.Count) {
		element := b[headerSize+elementSize*i:]
		root := binary.NativeEndian.Uint64(element[8:])
		if h.Flags&leafFlag != 0 {
			if root, err = bucketRoot(element); err != nil {
				return fmt.Errorf("page %d: %w", id, err)
			}
		}
		if root == 0 && h.Flags&leafFlag != 0 {
			continue
		}
		if err := w.page(root); err != nil {
			return err
		}
	}
	return nil
}

// bucketRoot returns the root page of the bucket that a leaf's element is, whose page goes on from there; 0
// if it is none, or one that is within its value.
func bucketRoot(element []byte) (uint64, error) {
	word := func(i int) uint64 { return uint64(binary.NativeEndian.Uint32(element[4*i:])) }
	flags, at, key, value := word(0), word(1), word(2), word(3)
	if flags&bucketFlag == 0 {
		return 0, nil
	}
	if value < 8 || at+key+value > uint64(len(element)) {
		return 0, errors.New("a bucket is not in it")
	}
	return binary.NativeEndian.Uint64(element[at+key:]), nil
}

// list returns the pages that are a list of the free ones, for the place that the meta page has.
func (w *walk) list() ([]byte, error) {
	var free []uint64
	for id := range w.Pages {
		if !w.used[id] {
			free = append(free, id)
		}
	}
	h := header{ID: w.Pages, Flags: freelistFlag, Count: uint16(min(len(free), 0xffff))}
	if h.Count == 0xffff {
		free = append([]uint64{uint64(len(free))}, free...)
	}
	size := headerSize + 8*len(free)
	pages := (size + int(w.PageSize) - 1) / int(w.PageSize)
	h.Overflow = uint32(pages - 1)
	b, err := binary.Append(make([]byte, 0, pages*int(w.PageSize)), binary.NativeEndian, h)
	if err == nil {
		b, err = binary.Append(b, binary.NativeEndian, free)
	}
	return b[:cap(b)], err
}
