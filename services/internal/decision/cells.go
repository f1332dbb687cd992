package decision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	// unit is what a file of counts grows by at least; no page of memory is larger.
	unit = 64 << 10
	// mostGrown is what it grows by at most, and mostBytes how long it becomes: a million
	// cells.
	mostGrown = 4 << 20
	mostBytes = 256 << 20
)

// head is the beginning of a file of counts.
type head struct {
	text       [512]byte     // what the file is, in four lines; see title
	generation atomic.Uint64 // the last transaction that is known to be in the store
	day        atomic.Int64  // on which was counted what is not in the store
}

// title is the first line of a file of counts. It changes with the layout.
const title = "latchkey counts 1"

// cells are those that a log gives its meter: in a file that is mapped into memory, so that
// what is counted in them outlives the process.
type cells struct {
	path string
	id   string // of the file, which no other has
	file *os.File
	head *head
	log  *slog.Logger
	maps *mappings // hold what is mapped until nobody knows a cell any more

	mu     sync.Mutex
	size   int64
	free   []*cell
	given  map[*authz.Cell]*cell // that are not free
	back   []*cell               // given back, and free once all of them is in the store
	full   error                 // why there were no more when it was last tried
	closed bool
}

// mappings are the parts of a file that are mapped.
type mappings struct{ parts [][]byte }

func (m *mappings) unmap() {
	for _, b := range m.parts {
		_ = unmap(b)
	}
}

// newCell is Meter.NewCell.
func (c *cells) newCell(organization, user string, grant catalog.Bit) (*authz.Cell, func(), error) {
	id := identity{organization, user, nameOf(grant)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !id.fits() {
		return &authz.Cell{}, func() {}, nil
	}
	if len(c.free) == 0 {
		if err := c.grow(); err != nil {
			return nil, nil, err
		}
	}
	x := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	x.open(id)
	c.given[&x.Cell] = x
	return &x.Cell, func() { c.takeBack(x) }, nil
}

func (c *cells) takeBack(x *cell) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.back = append(c.back, x)
}

// of returns the cell in the file, nil if it is not in there.
func (c *cells) of(in *authz.Cell) *cell {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.given[in]
}

// mark notes in the cells of a transaction what will be in the store with it, and returns its
// generation; 0 if there is no file.
func (c *cells) mark(of map[*authz.Cell]*owed, some []*authz.Cell) (generation uint64) {
	if c == nil {
		return 0
	}
	generation = c.head.generation.Load() + 1
	for _, in := range some {
		if x := c.of(in); x != nil {
			x.mark(generation, of[in])
		}
	}
	return generation
}

// settle notes whether the transaction of a generation is in the store.
func (c *cells) settle(some []*authz.Cell, generation uint64, done bool) {
	if c == nil {
		return
	}
	if done {
		c.head.generation.Store(generation)
		return
	}
	for _, in := range some {
		if x := c.of(in); x != nil {
			x.unmark(generation - 1)
		}
	}
}

// sweep frees what was given back, if nothing of it is owed, and lets growing be tried again.
func (c *cells) sweep(owes func(*cell) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := c.back[:0]
	for _, x := range c.back {
		if owes(x) {
			left = append(left, x)
			continue
		}
		x.named.Store(0)
		clear(x.name[:])
		delete(c.given, &x.Cell)
		c.free = append(c.free, x)
	}
	clear(c.back[len(left):])
	c.back, c.full = left, nil
}

// grow makes room for more cells. It really writes what it adds, because memory for which
// the disk has no room ends the process.
func (c *cells) grow() error {
	if c.full != nil {
		return c.full
	}
	n := max(unit, min(c.size-unit, mostGrown))
	err := errors.New("the file is as long as it becomes")
	if c.size+n <= mostBytes {
		err = c.add(n)
	}
	if err != nil {
		c.log.Error("calls fail, because there is no room to count what they use", "file", c.path, "error", err)
		c.full = fault.New(codes.Unavailable, faultpb.Reason_REASON_DECISION_UNWRITTEN,
			"what is used can no longer be counted: there is no room for it", nil)
	}
	return c.full
}

func (c *cells) add(n int64) error {
	if _, err := c.file.WriteAt(make([]byte, n), c.size); err != nil {
		return errors.Join(err, c.file.Truncate(c.size))
	}
	found, err := c.mapCells(n)
	c.free = append(c.free, found...)
	return err
}

// mapCells maps the next part of the file.
func (c *cells) mapCells(n int64) (found []*cell, err error) {
	b, err := mapped(c.file, c.size, n)
	if err != nil {
		return nil, err
	}
	c.maps.parts = append(c.maps.parts, b)
	c.size += n
	for ; len(b) > 0; b = b[cellBytes:] {
		found = append(found, (*cell)(unsafe.Pointer(&b[0])))
	}
	return found, nil
}

// openCells opens the file, and returns what a process that was killed has counted in it and
// not written. It returns nil where no file can be kept.
func openCells(ctx context.Context, l *Log) (*cells, []left, error) {
	boot, err := bootID()
	if err != nil {
		l.Log.InfoContext(ctx, "what is used is counted in memory: this system does not tell when it was started", "error", err)
		return nil, nil, nil
	}
	in, err := l.Store.ID(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read which store it is: %w", err)
	}
	c := &cells{path: l.Counts, log: l.Log, maps: &mappings{}, given: map[*authz.Cell]*cell{}}
	runtime.AddCleanup(c, (*mappings).unmap, c.maps)
	if c.file, err = openLocked(c.path); err != nil {
		return nil, nil, err
	}
	owed, why, err := c.adopt(ctx, l.Store, boot, in)
	if err == nil && why != "" {
		l.Log.WarnContext(ctx, "what was counted and not yet written is thrown away", "file", c.path, "because", why)
	}
	if err == nil && c.head == nil {
		err = c.begin(l.NewID(), boot, in, store.DayOf(l.Now()))
	}
	if err == nil {
		err = l.Store.DropCounted(ctx, func(file string, day int64) bool {
			return file != c.id && (!l.Store.Shared() || day < store.DayOf(l.Now())-store.KeepDays)
		})
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the file of counts: %w", err), c.file.Close())
	}
	return c, owed, nil
}

// openLocked opens a file that no other process has.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		mine, err := lock(f)
		if err == nil && !mine {
			err = fmt.Errorf("another process counts in %s: each needs a folder of its own", path)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		// Whoever had it may have removed it in between.
		here, err := f.Stat()
		there, gone := os.Stat(path)
		if err == nil && gone == nil && os.SameFile(here, there) {
			return f, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// begin makes the file anew. It is one with its last step.
func (c *cells) begin(id, boot, in string, today int64) error {
	if err := c.file.Truncate(0); err != nil {
		return err
	}
	if _, err := c.file.WriteAt(make([]byte, unit), 0); err != nil {
		return err
	}
	if _, err := c.file.WriteAt([]byte(strings.Join([]string{title, id, boot, in, ""}, "\n")), 0); err != nil {
		return err
	}
	if err := c.mapHead(id); err != nil {
		return err
	}
	c.head.day.Store(today)
	return nil
}

func (c *cells) mapHead(id string) error {
	b, err := mapped(c.file, 0, unit)
	if err != nil {
		return err
	}
	c.maps.parts = append(c.maps.parts, b)
	c.id, c.size, c.head = id, unit, (*head)(unsafe.Pointer(&b[0]))
	return nil
}

// close removes the file if nothing in it is owed.
func (c *cells) close(ctx context.Context, db *store.DB, owed bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var err error
	if !owed {
		if err = os.Remove(c.path); errors.Is(err, os.ErrNotExist) {
			err = nil // somebody did so
		}
		err = errors.Join(err, db.DropCounted(ctx, func(file string, _ int64) bool { return file == c.id }))
	}
	return errors.Join(err, unlock(c.file), c.file.Close())
}
