package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"latchkey.dev/services/internal/store"
)

// compactSuffix is that of the file which a compaction makes.
const compactSuffix = ".compact"

const (
	// copyBytes and copyPairs bound what is read of the file in one transaction, and
	// written to the new one.
	copyBytes = 4 << 20
	copyPairs = 20_000

	// fullPages is how full the pages of the new file are. More would have the next writes
	// split each page that they touch.
	fullPages = 0.9

	// rounds is how often what was committed meanwhile is written to the new file before
	// commits wait for the rest.
	rounds = 8

	// mostMissed bounds what is committed between two rounds.
	mostMissed = 256 << 20
)

// compaction is the making of a new file out of one that is in use.
type compaction struct {
	e    *Engine
	to   *bbolt.DB // nil once it has taken the place of the old one
	done store.Compacted
	tell func(store.Compacted)
}

// Compact implements store.Compacter. The new file gets all pairs, page by page, and after
// each page what was committed meanwhile: of each key the last write counts, so that in the
// end it has what the old one has. While the committer waits, it is synced and takes
// the name of the old one, which those who still read it keep.
func (e *Engine) Compact(ctx context.Context, tell func(store.Compacted)) (store.Compacted, error) {
	if !e.compacting.TryLock() {
		return store.Compacted{}, errors.New("the file is being compacted already")
	}
	defer e.compacting.Unlock()
	if err := e.refusal(ctx); err != nil {
		return store.Compacted{}, err
	}
	c := &compaction{e: e, tell: tell}
	if err := c.run(ctx); err != nil {
		return c.done, fmt.Errorf("compact %s: %w", e.path, err)
	}
	return c.done, nil
}

func (c *compaction) run(ctx context.Context) (err error) {
	name := c.e.path + compactSuffix
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.done.Before, err = fileSize(c.e.path); err != nil {
		return err
	}
	o := c.e.options
	o.NoSync = true // until it is whole
	if c.to, err = openFile(name, o.toWrite()); err != nil {
		return explain(err)
	}
	err = c.to.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(bucket)
		return err
	})
	if err == nil {
		err = c.fill(ctx)
	}
	if err == nil {
		err = c.e.inCommitter(ctx, c.swap)
	}
	c.e.missed.Store(nil)
	if c.to != nil { // it did not take the place of the old one
		err = errors.Join(err, c.to.Close(), os.Remove(name))
	}
	return err
}

// fill copies all pairs, and then what is committed meanwhile until that is little.
func (c *compaction) fill(ctx context.Context) error {
	err := c.e.inCommitter(ctx, func() error {
		c.e.missed.Store(&missed{last: map[string][]byte{}})
		return nil
	})
	if err != nil {
		return err
	}
	for at, more := []byte(nil), true; more; {
		var page []store.Write
		err := c.e.View(ctx, func(s store.Snapshot) (err error) {
			page, at, more, err = readPage(s, at)
			return err
		})
		if err == nil {
			err = c.put(page)
		}
		if err == nil {
			_, err = c.catchUp(ctx)
		}
		if err != nil {
			return err
		}
		c.done.Pairs += int64(len(page))
		if c.tell != nil {
			c.tell(c.done)
		}
	}
	for range rounds {
		n, err := c.catchUp(ctx)
		if err == nil {
			err = c.to.Sync()
		}
		if err != nil || n < copyPairs/100 {
			return err
		}
	}
	return nil
}

// readPage reads the next pairs from a key on, and returns the key to go on from.
func readPage(s store.Snapshot, from []byte) (page []store.Write, next []byte, more bool, err error) {
	size := 0
	for p, err := range s.Scan(from, []byte{0xff, 0xff}, false) {
		if err != nil {
			return nil, nil, false, err
		}
		if size >= copyBytes || len(page) == copyPairs {
			return page, bytes.Clone(p.Key), true, nil
		}
		size += len(p.Key) + len(p.Value)
		page = append(page, store.Write{Key: bytes.Clone(p.Key), Value: append([]byte{}, p.Value...)})
	}
	return page, nil, false, nil
}

// put writes to the new file, in the order of the keys.
func (c *compaction) put(writes []store.Write) error {
	return guarded(func() error {
		return c.to.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucket)
			b.FillPercent = fullPages
			for _, w := range writes {
				if err := apply(b, w); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// catchUp writes what was committed meanwhile, and returns how much that was.
func (c *compaction) catchUp(ctx context.Context) (int, error) {
	select {
	case <-c.e.closing:
		return 0, store.ErrClosed
	default:
	}
	if err := c.e.refusal(ctx); err != nil {
		return 0, err
	}
	writes, err := c.e.missed.Load().take()
	if err == nil && len(writes) > 0 {
		err = c.put(writes)
	}
	return len(writes), err
}

// swap puts the new file in the place of the old one. It runs in the committer, so that
// nothing is committed meanwhile.
func (c *compaction) swap() error {
	if err := c.e.broken.Load(); err != nil {
		return *err
	}
	writes, err := c.e.missed.Load().take()
	if err == nil && len(writes) > 0 {
		err = c.put(writes)
	}
	if err == nil {
		err = c.to.Sync()
	}
	if err != nil {
		return err
	}
	if err := c.e.settle(); err != nil { // the log is of the old one
		return err
	}
	if err := os.Rename(c.to.Path(), c.e.path); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(c.e.path)); err != nil {
		return c.e.fail(err) // after a crash it may be either
	}
	c.e.file.Swap(newFile(c.to)).release()
	c.e.log.listed = true
	c.to = nil
	c.done.After, err = fileSize(c.e.path)
	return err
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// inCommitter runs f between two commits.
func (e *Engine) inCommitter(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case e.between <- func() { done <- f() }:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	case <-e.closing:
		return store.ErrClosed
	}
}

// missed are the writes that were committed since a compaction took the last of them.
type missed struct {
	mu    sync.Mutex
	last  map[string][]byte // of each key; nil if they were too many
	bytes int
}

// note notes what was committed.
func (m *missed) note(writes []store.Write) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range writes {
		if m.bytes += len(w.Key) + len(w.Value); m.bytes > mostMissed {
			m.last = nil
		}
		if m.last != nil {
			m.last[string(w.Key)] = bytes.Clone(w.Value)
		}
	}
}

// take returns what was noted, in the order of the keys.
func (m *missed) take() ([]store.Write, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		return nil, errors.New("more is written than it can take along: try again when less is")
	}
	writes := make([]store.Write, 0, len(m.last))
	for _, key := range slices.Sorted(maps.Keys(m.last)) {
		writes = append(writes, store.Write{Key: []byte(key), Value: m.last[key]})
	}
	m.last, m.bytes = map[string][]byte{}, 0
	return writes, nil
}
