package bolt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"latchkey.dev/services/internal/store"
)

// Engine is a [store.Engine] over one bbolt file.
type Engine struct {
	path    string
	options Options
	file    atomic.Pointer[file]
	line    chan *update // unbuffered: who leaves before being taken was never in it
	between chan func()  // unbuffered: what the committer does between two commits
	closing chan struct{}
	stopped chan struct{} // closed when the committer has ended
	broken  atomic.Pointer[error]
	log     logged
	mapped  int64 // address space that the file surely has
	stuck   bool  // bbolt's write lock cannot be released
	close   sync.Once

	compacting sync.Mutex
	missed     atomic.Pointer[missed] // of a compaction that is running; set between two commits
}

// file is a bbolt file in use: by the engine, as long as it is the engine's, and by reads.
type file struct {
	*bbolt.DB
	users  atomic.Int64
	closed chan struct{} // when nobody uses it any more
	err    error         // of closing it
}

func newFile(db *bbolt.DB) *file {
	f := &file{DB: db, closed: make(chan struct{})}
	f.users.Store(1)
	return f
}

// use reports whether the file may be used, until release.
func (f *file) use() bool {
	for {
		n := f.users.Load()
		if n == 0 {
			return false
		}
		if f.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (f *file) release() {
	if f.users.Add(-1) == 0 {
		f.err = f.Close()
		close(f.closed)
	}
}

// update is one call of Update, on its way from its caller to the committer and back.
type update struct {
	turn    chan *snapshot // gets one when the function may run, nil if it never may
	ran     chan struct{}  // closed when it has
	outcome chan error     // gets the outcome

	taken  bool          // by the committer: turn has got a snapshot
	writes []store.Write // set before ran is closed, if the function was content
}

func start(path string, db *bbolt.DB, log wal, o Options) *Engine {
	log.noSync, log.most = o.NoSync, o.records
	e := &Engine{
		log: logged{wal: log, listed: true}, mapped: int64(o.mapped),
		path: path, options: o, line: make(chan *update), between: make(chan func()),
		closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	e.file.Store(newFile(db))
	go e.commitAll()
	return e
}

// Close waits for the running commit and the running reads, and ends a compaction.
func (e *Engine) Close() (err error) {
	e.close.Do(func() {
		close(e.closing)
		<-e.stopped
		e.compacting.Lock() // for good
		if f := e.file.Load(); !e.stuck {
			err = e.endLog()
			f.release()
			<-f.closed
			err = errors.Join(err, f.err)
		}
	})
	return err
}

// View implements store.Engine.
func (e *Engine) View(ctx context.Context, f func(store.Snapshot) error) error {
	if err := e.refusal(ctx); err != nil {
		return err
	}
	from, err := e.use()
	if err != nil {
		return err
	}
	defer from.release()
	tx, err := from.Begin(false)
	if err != nil {
		return fmt.Errorf("begin read: %w", err)
	}
	defer tx.Rollback() // its only error is that it was done
	return f(newSnapshot(tx))
}

// use returns the file, which the caller must release.
func (e *Engine) use() (*file, error) {
	for {
		select {
		case <-e.closing:
			return nil, store.ErrClosed
		default:
		}
		if f := e.file.Load(); f.use() {
			return f, nil
		}
	}
}

// Update implements store.Engine.
func (e *Engine) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	if err := e.refusal(ctx); err != nil {
		return err
	}
	u := &update{turn: make(chan *snapshot, 1), ran: make(chan struct{}), outcome: make(chan error, 1)}
	select {
	case e.line <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.closing:
		return store.ErrClosed
	}
	s := <-u.turn
	if s == nil {
		return <-u.outcome
	}
	err := u.run(s, f)
	if outcome := <-u.outcome; outcome != nil {
		return outcome
	}
	return err
}

// run calls f and tells the committer when it is done, even if f panics or ends
// the goroutine.
func (u *update) run(s *snapshot, f func(store.Snapshot) ([]store.Write, error)) error {
	defer close(u.ran)
	writes, err := f(s)
	if err == nil {
		err = valid(writes)
	}
	if err == nil {
		u.writes = writes
	}
	return err
}

// valid keeps bbolt from refusing a write when others of the same Update are done.
func valid(writes []store.Write) error {
	for _, w := range writes {
		switch {
		case len(w.Key) == 0 || len(w.Key) > bbolt.MaxKeySize:
			return fmt.Errorf("key of %d bytes cannot be stored", len(w.Key))
		case len(w.Value) > bbolt.MaxValueSize:
			return fmt.Errorf("value of %d bytes cannot be stored", len(w.Value))
		}
	}
	return nil
}

func (e *Engine) refusal(ctx context.Context) error {
	if err := e.broken.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// commitAll is the committer: it takes Updates out of the line until Close.
func (e *Engine) commitAll() {
	defer close(e.stopped)
	for {
		select {
		case u := <-e.line:
			e.commit(u)
		case f := <-e.between:
			f()
		case <-e.closing:
			return
		}
	}
}
