package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

var bucket = []byte("records")

const (
	// lockWait lets the process before this one finish its last commit.
	lockWait = time.Second

	// mapped is the address space, not the memory, that is taken at least. A file that comes
	// near its end syncs each commit by itself.
	mapped = 1 << 30 << (5 * (^uint(0) >> 63)) // 32 GiB where there are 64 bits
)

// Options are for tests and for small disks; the zero value is right otherwise.
type Options struct {
	NoSync   bool // an Update returns before it is on disk
	MaxBytes int  // size at which the file counts as a full disk; 0 is none

	openFile func(string, int, os.FileMode) (*os.File, error)
	mapped   int // at least so much address space
	room     int // of it that is left for a commit
	records  int // of a half of the log, at most
}

// withDefaults returns options for a file of some size.
func (o Options) withDefaults(size int64) Options {
	if o.mapped == 0 {
		o.mapped = max(mapped, 4*int(size))
	}
	if o.room == 0 {
		o.room = room
	}
	if o.records == 0 {
		o.records = mostRecords
	}
	return o
}

// Open opens the file, and creates it and its folder if they do not exist. Its errors
// are for a person: one line that names the file and what is wrong.
func Open(path string, o Options) (*Engine, error) {
	size, err := fileSize(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	o = o.withDefaults(size)
	db, log, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return start(path, db, *log, o), nil
}

// toWrite are bbolt's options for a file that is written to.
func (o Options) toWrite() bbolt.Options {
	return bbolt.Options{InitialMmapSize: o.mapped, MaxSize: o.MaxBytes, NoSync: o.NoSync, OpenFile: o.openFile}
}

func open(path string, o Options) (*bbolt.DB, *wal, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(path); err != nil {
			return nil, nil, fmt.Errorf("create: %w", err)
		}
	case err != nil:
		return nil, nil, err
	case info.Size() == 0:
		return nil, nil, errors.New("file is damaged: it is empty")
	}
	// Opened to read, bbolt takes the lock and touches nothing but the meta pages.
	db, err := openFile(path, bbolt.Options{ReadOnly: true})
	if err != nil {
		return nil, nil, explain(err)
	}
	l, err := readLog(path + walSuffix)
	if err == nil {
		err = l.putBack(path)
	}
	if err == nil {
		err = explain(listFree(path))
	}
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	if err := errors.Join(check(path), db.Close()); err != nil {
		return nil, nil, fmt.Errorf("file is damaged: %w", err)
	}
	db, same, err := openSame(path, o.toWrite())
	if err != nil {
		return nil, nil, explain(err)
	}
	if !same {
		return nil, nil, errors.Join(ErrInUse, db.Close())
	}
	if err := l.stillSo(); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	if err := guarded(func() error { return db.View(hasBucket) }); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	if err := l.redo(db, o); err != nil {
		return nil, nil, errors.Join(err, l.wal.close(), db.Close())
	}
	if err := os.Remove(path + compactSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a process that died over it
		return nil, nil, errors.Join(err, l.wal.close(), db.Close())
	}
	return db, &l.wal, nil
}

// openSame opens a file, and reports whether that still has its name: the process that
// had the lock may have put another in its place, and have that open.
func openSame(path string, o bbolt.Options) (db *bbolt.DB, same bool, err error) {
	var opened os.FileInfo
	open := o.OpenFile
	if open == nil {
		open = os.OpenFile
	}
	o.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := open(name, flag, mode)
		if err == nil {
			opened, err = f.Stat()
		}
		return f, err
	}
	if db, err = openFile(path, o); err != nil {
		return nil, false, err
	}
	named, err := os.Stat(path)
	if err != nil {
		return nil, false, errors.Join(err, db.Close())
	}
	return db, os.SameFile(opened, named), nil
}

// ErrInUse reports that another process has the file open.
var ErrInUse = errors.New("another process has it open")

// damaged reports whether a failure to open is the file's own fault.
func damaged(err error) bool {
	_, system := errors.AsType[*fs.PathError](err)
	_, call := errors.AsType[syscall.Errno](err) // a sync that fails names no file
	return !system && !call && !errors.Is(err, berrors.ErrTimeout)
}

func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrTimeout):
		return ErrInUse
	case damaged(err):
		return fmt.Errorf("file is damaged: %w", err)
	default:
		return err
	}
}

func hasBucket(tx *bbolt.Tx) error {
	if tx.Bucket(bucket) == nil {
		return errors.New("file is of another program")
	}
	return nil
}

// guarded calls what may touch a damaged file. What bbolt does not expect in a file makes
// it panic, and what a truncated file lacks is a fault when it is touched; both become errors.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return f()
}

// openFile opens a bbolt file.
func openFile(path string, o bbolt.Options) (db *bbolt.DB, err error) {
	o.Timeout = lockWait
	o.FreelistType = bbolt.FreelistMapType
	o.NoStatistics = true
	err = guarded(func() error {
		db, err = bbolt.Open(path, 0o600, &o)
		return err
	})
	if err != nil {
		db = nil
	}
	return db, err
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
	db, err := begin(fresh)
	if err != nil && damaged(err) { // left by a process that died over it
		if err := os.Remove(fresh); err != nil {
			return err
		}
		db, err = begin(fresh)
	}
	if err != nil {
		return explain(err)
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

// begin opens a file that may just be being made, or was left by who began to. What bbolt
// does not look at when it opens a file is looked at too: it may be missing.
func begin(path string) (*bbolt.DB, error) {
	db, err := openFile(path, bbolt.Options{})
	if err != nil {
		return nil, err
	}
	if err := check(path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
