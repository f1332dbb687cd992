package bolt

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// A group takes no more when it has this many members or bytes.
const (
	maxMembers = 512
	maxBytes   = 8 << 20
)

// group is the Updates that share a commit.
type group struct {
	seen    *snapshot // what the next member sees
	waiting []*update // have run, and share the outcome
	bytes   int
	dirty   bool // something was written
}

// commit runs the first Update, and those that come meanwhile, in one transaction.
func (e *Engine) commit(first *update) {
	g := &group{}
	err := e.attempt(g, first)
	if !first.taken {
		first.turn <- nil
		g.waiting = append(g.waiting, first)
	}
	for _, u := range g.waiting {
		u.outcome <- err
	}
}

func (e *Engine) attempt(g *group, first *update) (err error) {
	if err := e.broken.Load(); err != nil {
		return *err
	}
	defer func() {
		if p := recover(); p != nil { // bbolt's; functions run in their own goroutines
			e.stuck = true
			err = e.fail(fmt.Errorf("panic: %v", p))
		}
	}()
	tx, err := e.file.Load().Begin(true)
	if err != nil {
		return e.fail(err)
	}
	g.seen = newSnapshot(tx)
	for u := first; u != nil; u = e.next(g) {
		if err := g.run(u); err != nil {
			return e.fail(errors.Join(err, tx.Rollback()))
		}
	}
	if !g.dirty {
		return tx.Rollback()
	}
	r := record(g.waiting, g.bytes+8*len(g.waiting))
	id, logged := tx.ID(), e.logs(tx, g, r)
	if !e.log.listed && (!logged || e.log.needsState(len(r))) {
		if err := errors.Join(tx.Rollback(), e.list()); err != nil {
			return e.judge(id, false, err)
		}
		if tx, err = e.again(g); err != nil {
			return e.fail(err)
		}
		id = tx.ID()
	}
	inLog, err := e.prepare(r, logged)
	if err == nil {
		err = tx.Commit()
	} else {
		err = errors.Join(err, tx.Rollback())
	}
	if err != nil {
		return e.judge(id, inLog, err)
	}
	e.log.listed = !inLog
	if m := e.missed.Load(); m != nil {
		for _, u := range g.waiting {
			m.note(u.writes)
		}
	}
	return nil
}

// run gives the Update its turn and applies what it wrote. One that fails, or
// writes nothing, waits all the same if it saw what is not yet on disk.
func (g *group) run(u *update) error {
	u.taken = true
	u.turn <- g.seen
	<-u.ran
	if len(u.writes) == 0 && !g.dirty {
		u.outcome <- nil
		return nil
	}
	g.waiting = append(g.waiting, u)
	for _, w := range u.writes {
		g.dirty = true
		g.bytes += len(w.Key) + len(w.Value)
	}
	return u.apply(g.seen.bucket)
}

// again begins a transaction with what the group wrote, which is that of one that was rolled back.
func (e *Engine) again(g *group) (*bbolt.Tx, error) {
	tx, err := e.file.Load().Begin(true)
	if err != nil {
		return nil, err
	}
	for _, u := range g.waiting {
		if err := u.apply(tx.Bucket(bucket)); err != nil {
			return nil, errors.Join(err, tx.Rollback())
		}
	}
	return tx, nil
}

func (u *update) apply(b *bbolt.Bucket) error {
	for _, w := range u.writes {
		if err := apply(b, w); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

func apply(b *bbolt.Bucket, w store.Write) error {
	if w.Value == nil {
		return b.Delete(w.Key)
	}
	return b.Put(w.Key, w.Value)
}

// next returns the next Update in the line if one is there, or is about to be: those
// whom the last commit woke need a moment on a busy processor to come back.
func (e *Engine) next(g *group) *update {
	if len(g.waiting) >= maxMembers || g.bytes >= maxBytes {
		return nil
	}
	for range 2 {
		select {
		case u := <-e.line:
			return u
		default:
			runtime.Gosched()
		}
	}
	return nil
}

// judge says what the failure of the commit with the id means, which may be in the log.
func (e *Engine) judge(id int, inLog bool, err error) error {
	if broken := e.broken.Load(); broken != nil {
		return *broken
	}
	if !isFull(err) || e.visible(id) {
		return e.fail(err)
	}
	if inLog {
		if err := e.log.erase(); err != nil {
			return e.fail(err)
		}
	}
	// What is pinned may be the room that the next one needs.
	if err := e.settle(); err != nil {
		return e.fail(err)
	}
	return fault.New(codes.ResourceExhausted, faultpb.Reason_REASON_DISK_FULL,
		"the disk is full: nothing was changed", nil)
}

// isFull reports whether err says that there is no room. bbolt drops the type of some.
func isFull(err error) bool {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, berrors.ErrMaxSizeReached} {
		if errors.Is(err, full) || strings.HasSuffix(err.Error(), full.Error()) {
			return true
		}
	}
	return false
}

// visible reports whether the commit's meta page was written. If not, the commit did
// not happen: whatever else it wrote lies in free pages.
func (e *Engine) visible(id int) bool {
	tx, err := e.file.Load().Begin(false)
	if err != nil {
		return true
	}
	defer tx.Rollback()
	return tx.ID() >= id
}

// fail makes the engine refuse everything from now on.
func (e *Engine) fail(err error) error {
	err = fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
	e.broken.CompareAndSwap(nil, &err)
	return err
}
