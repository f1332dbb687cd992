package decision

import (
	"context"
	"fmt"
	"strings"

	"latchkey.dev/services/internal/store"
)

// left is what was counted in a cell of a process that was killed.
type left struct {
	*cell
	identity
	use store.Use
}

// adopt goes on with a file that a process left which was killed, and returns what of it is
// not in the store. If that cannot be told it leaves the head unmapped, and says why unless
// there is nothing.
func (c *cells) adopt(ctx context.Context, db *store.DB, boot, in string) (owed []left, why string, err error) {
	info, err := c.file.Stat()
	if err != nil || info.Size() == 0 {
		return nil, "", err
	}
	text := make([]byte, min(info.Size(), int64(len(head{}.text))))
	if _, err := c.file.ReadAt(text, 0); err != nil {
		return nil, "", err
	}
	lines := strings.Split(string(text), "\n")
	switch {
	case info.Size() < unit || len(lines) != 5 || lines[0] != title:
		return nil, "it is no file of counts of this version", nil
	case lines[2] != boot:
		return nil, "the machine was restarted meanwhile", nil
	case lines[3] != in:
		return nil, "it is that of another store", nil
	}
	written, err := db.Counted(ctx, lines[1])
	if err != nil {
		return nil, "", err
	}
	if err := c.mapHead(lines[1]); err != nil {
		return nil, "", err
	}
	if known := c.head.generation.Load(); written != known && written != known+1 {
		why = fmt.Sprintf("the store is of another time: of what was counted it has %d transactions, and had %d", written, known)
		c.head = nil
		return nil, why, nil
	}
	owed, err = c.adoptCells(ctx, info.Size(), written)
	c.head.generation.Store(written)
	return owed, "", err
}

// adoptCells takes in the cells of a file of which the store has some generation.
func (c *cells) adoptCells(ctx context.Context, size int64, written uint64) (owed []left, err error) {
	if more := size % unit; more != 0 { // it was cut
		if _, err := c.file.WriteAt(make([]byte, unit-more), size); err != nil {
			return nil, err
		}
		size += unit - more
	}
	size = min(size, mostBytes)
	if size == unit {
		return nil, nil
	}
	found, err := c.mapCells(size - unit)
	if err != nil {
		return nil, err
	}
	garbled := 0
	for _, x := range found {
		if x.named.Load() == 0 {
			c.free = append(c.free, x)
			continue
		}
		x.unmark(written)
		l, ok := x.left(c.head.day.Load())
		if !ok {
			garbled++
			x.named.Store(0)
			c.free = append(c.free, x)
			continue
		}
		c.given[&x.Cell] = x
		c.back = append(c.back, x)
		if l.use.Reads+l.use.Changes > 0 || l.use.Consulted {
			owed = append(owed, l)
		}
	}
	if garbled > 0 {
		c.log.ErrorContext(ctx, "some of what was counted and not yet written cannot be read", "file", c.path, "cells", garbled)
	}
	return owed, nil
}

// left returns what of a cell is not in the store; ok is false if the cell is garbled.
func (x *cell) left(day int64) (l left, ok bool) {
	id, ok := x.identity()
	reads, changes, consulted := x.written()
	l = left{x, id, store.Use{
		Day: day, User: id.user, Grant: id.grant, Consulted: x.Consulted.Load() > consulted,
		Reads: int64(x.Reads.Load() - reads), Changes: int64(x.Changes.Load() - changes),
	}}
	return l, ok && l.use.Reads >= 0 && l.use.Changes >= 0
}
