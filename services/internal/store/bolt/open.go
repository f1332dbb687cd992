package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

var bucket = []byte("records")

const (
	// lockWait lets the process before this one finish its last commit.
	lockWait = time.Second

	// mapped is the address space, not the memory, taken at first. Growing it later
	// waits for all reads to end.
	mapped = 1 << 30
)

// Options are for tests and for small disks; the zero value is right otherwise.
type Options struct {
	NoSync   bool // an Update returns before it is on disk
	MaxBytes int  // size at which the file counts as a full disk; 0 is none

	openFile func(string, int, os.FileMode) (*os.File, error)
}

// Open opens the file, and creates it and its folder if they do not exist. Its errors
// are for a person: one line that names the file and what is wrong.
func Open(path string, o Options) (*Engine, error) {
	db, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return start(db), nil
}

func open(path string, o Options) (*bbolt.DB, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(path); err != nil {
			return nil, fmt.Errorf("create: %w", err)
		}
	case err != nil:
		return nil, err
	case info.Size() == 0:
		return nil, errors.New("file is damaged: it is empty")
	}
	db, err := openFile(path, o)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, errors.New("another process has it open")
	case errors.Is(err, fs.ErrPermission):
		return nil, err
	case err != nil:
		if damage := check(path); damage != nil {
			err = damage
		}
		return nil, fmt.Errorf("file is damaged: %w", err)
	}
	if err := check(path); err != nil {
		return nil, errors.Join(fmt.Errorf("file is damaged: %w", err), db.Close())
	}
	return db, nil
}

// openFile opens a bbolt file. bbolt panics over some damaged files, and touching a
// page that a truncated file lacks is a fault; both become errors here.
func openFile(path string, o Options) (db *bbolt.DB, err error) {
	var file *os.File
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, errors.Join(fmt.Errorf("%v", p), file.Close()) // and with it the lock
		}
	}()
	openFile := o.openFile
	if openFile == nil {
		openFile = os.OpenFile
	}
	return bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         lockWait,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mapped,
		MaxSize:         o.MaxBytes,
		NoSync:          o.NoSync,
		NoStatistics:    true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := openFile(name, flag, mode)
			file = f
			return f, err
		},
	})
}

// create makes a file with an empty bucket under another name and renames it while it
// holds its lock. Of several processes that create the same file one succeeds,
// and the others find its file.
func create(path string) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	fresh := path + ".new"
	db, err := openFile(fresh, Options{})
	if errors.Is(err, berrors.ErrInvalid) || errors.Is(err, berrors.ErrChecksum) {
		// Left behind by a process that died while it made it.
		return errors.Join(os.Remove(fresh), create(path))
	}
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if _, statErr := os.Stat(path); err == nil && errors.Is(statErr, fs.ErrNotExist) {
		err = os.Rename(fresh, path)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	return syncFolder(folder)
}

func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// meta is what bbolt keeps in the first two pages, after a page's header. The one with
// the greater txid counts, if its checksum is right.
type meta struct {
	Magic, Version, PageSize, Flags              uint32
	Root, Sequence, Freelist, Pages, Txid, Check uint64
}

const (
	headerSize = 16
	metaSize   = 64
	magic      = 0xED0CDAED

	branchFlag   = 0x01
	leafFlag     = 0x02
	freelistFlag = 0x10
)

// check reads the file's meta pages, its size, and the headers of the two pages that
// all else hangs on. It costs a few reads, whatever the size.
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
	m, ok := readMeta(f, 0)
	for size := int64(1 << 10); size <= 1<<24; size <<= 1 {
		if other, found := readMeta(f, size); found && (!ok || other.Txid > m.Txid) {
			m, ok = other, true
		}
	}
	if !ok {
		return errors.New("neither of its meta pages is valid")
	}
	if want := int64(m.Pages) * int64(m.PageSize); info.Size() < want {
		return fmt.Errorf("it has %d bytes and should have at least %d", info.Size(), want)
	}
	if err := checkPage(f, m, m.Freelist, freelistFlag); err != nil {
		return err
	}
	return checkPage(f, m, m.Root, branchFlag|leafFlag)
}

func readMeta(f *os.File, offset int64) (m meta, ok bool) {
	var b [headerSize + metaSize]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		return m, false
	}
	if _, err := binary.Decode(b[headerSize:], binary.NativeEndian, &m); err != nil {
		return m, false
	}
	h := fnv.New64a()
	h.Write(b[headerSize : headerSize+metaSize-8])
	return m, m.Magic == magic && m.Check == h.Sum64()
}

func checkPage(f *os.File, m meta, id uint64, flags uint16) error {
	var b [headerSize]byte
	if _, err := f.ReadAt(b[:], int64(id)*int64(m.PageSize)); err != nil {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	if binary.NativeEndian.Uint64(b[:]) != id || binary.NativeEndian.Uint16(b[8:])&flags == 0 {
		return fmt.Errorf("page %d is not what it should be", id)
	}
	return nil
}
