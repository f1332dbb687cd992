package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
)

// meta is what bbolt keeps in the first two pages, after a page's header. The one with
// the greater txid counts, if its checksum is right.
type meta struct {
	Magic, Version, PageSize, Flags              uint32
	Root, Sequence, Freelist, Pages, Txid, Check uint64
}

// header is the beginning of each page.
type header struct {
	ID       uint64
	Flags    uint16
	Count    uint16 // 0xffff: the first 8 bytes of the body have the count
	Overflow uint32 // pages that belong to this one and follow it
}

const (
	headerSize = 16
	metaSize   = 64
	magic      = 0xED0CDAED

	branchFlag   = 0x01
	leafFlag     = 0x02
	metaFlag     = 0x04
	freelistFlag = 0x10
)

// check looks at a file as far as bbolt relies on it when it opens it: the meta pages,
// the size, the root page's header and the list of free pages. Its cost grows only
// with that list.
func check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, ok := newest(f)
	if !ok {
		return errors.New("neither of its meta pages is valid")
	}
	if want := int64(m.Pages) * int64(m.PageSize); info.Size() < want {
		return fmt.Errorf("it has %d bytes and should have at least %d", info.Size(), want)
	}
	if _, err := m.page(f, m.Root, branchFlag|leafFlag); err != nil {
		return err
	}
	free, err := m.page(f, m.Freelist, freelistFlag)
	if err != nil {
		return err
	}
	return m.checkFree(f, free)
}

// metaPlaces are where a meta page can be: the second is one page on, whose size is not known.
func metaPlaces(yield func(int64) bool) {
	if !yield(0) {
		return
	}
	for at := int64(1 << 10); at <= 1<<24; at <<= 1 {
		if !yield(at) {
			return
		}
	}
}

// newest returns the meta page that counts.
func newest(f *os.File) (m meta, ok bool) {
	for at := range metaPlaces {
		if other, found := readMeta(f, at); found && (!ok || other.Txid > m.Txid) {
			m, ok = other, true
		}
	}
	return m, ok
}

func readMeta(f *os.File, at int64) (m meta, ok bool) {
	var b [headerSize + metaSize]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return m, false
	}
	if _, err := binary.Decode(b[headerSize:], binary.NativeEndian, &m); err != nil {
		return m, false
	}
	return m, m.Magic == magic && m.Check == sum(b[headerSize:])
}

// sum is the checksum of a meta page, of its bytes after the header.
func sum(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	return h.Sum64()
}

// write writes it to its page.
func (m meta) write(f *os.File) error {
	at := m.Txid % 2
	b, err := binary.Append(nil, binary.NativeEndian, header{ID: at, Flags: metaFlag})
	if err == nil {
		b, err = binary.Append(b, binary.NativeEndian, m)
	}
	if err != nil {
		return err
	}
	binary.NativeEndian.PutUint64(b[headerSize+metaSize-8:], sum(b[headerSize:]))
	_, err = f.WriteAt(b, int64(at)*int64(m.PageSize))
	return err
}

// page reads the header of a page that must have one of the flags.
func (m meta) page(f *os.File, id uint64, flags uint16) (h header, err error) {
	var b [headerSize]byte
	if _, err := f.ReadAt(b[:], int64(id)*int64(m.PageSize)); err != nil {
		return h, fmt.Errorf("read page %d: %w", id, err)
	}
	if _, err := binary.Decode(b[:], binary.NativeEndian, &h); err != nil {
		return h, err
	}
	if h.ID != id || h.Flags&flags == 0 || id+uint64(h.Overflow) >= m.Pages {
		return h, fmt.Errorf("page %d is not what it should be", id)
	}
	return h, nil
}

// checkFree reads the list of free pages.
func (m meta) checkFree(f *os.File, h header) error {
	_, err := m.freePages(f, h)
	return err
}

// freePages returns the list of free pages, which are numbers of pages in order.
func (m meta) freePages(f *os.File, h header) ([]uint64, error) {
	b := make([]byte, (uint64(h.Overflow)+1)*uint64(m.PageSize)-headerSize)
	if _, err := f.ReadAt(b, int64(h.ID)*int64(m.PageSize)+headerSize); err != nil {
		return nil, fmt.Errorf("read free pages: %w", err)
	}
	n := uint64(h.Count)
	if n == 0xffff {
		n, b = binary.NativeEndian.Uint64(b), b[8:]
	}
	if n > uint64(len(b))/8 {
		return nil, errors.New("its list of free pages is too long")
	}
	ids, last := make([]uint64, n), uint64(1) // the meta pages are 0 and 1
	for i := range ids {
		ids[i] = binary.NativeEndian.Uint64(b[8*i:])
		if ids[i] <= last || ids[i] >= m.Pages {
			return nil, errors.New("its list of free pages is not in order")
		}
		last = ids[i]
	}
	return ids, nil
}
