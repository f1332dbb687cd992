package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
)

// noFreelist is the page of the list of free pages of a file that has none.
const noFreelist = 1<<64 - 1

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
	problem := ""
	w := newWalk(context.Background(), m, f, func(found string) { problem = found })
	if w.tree(m.Root, nil, nil, 0); problem != "" {
		return errors.New(problem)
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

// list returns the pages that are a list of the free ones, for the place that the meta page has.
func (w *walk) list() ([]byte, error) {
	var free []uint64
	for id := range w.Pages {
		if !w.has(id) {
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
