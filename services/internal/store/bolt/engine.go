package bolt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"latchkey.dev/services/internal/store"
)

// Engine is a [store.Engine] over one bbolt file.
type Engine struct {
	db      *bbolt.DB
	line    chan *update // unbuffered: who leaves before being taken was never in it
	closing chan struct{}
	stopped chan struct{} // closed when the committer has ended
	broken  atomic.Pointer[error]
	stuck   bool // bbolt's write lock cannot be released
	close   sync.Once
}

// update is one call of Update, on its way from its caller to the committer and back.
type update struct {
	turn    chan *snapshot // gets one when the function may run, nil if it never may
	ran     chan struct{}  // closed when it has
	outcome chan error     // gets the outcome

	taken  bool          // by the committer: turn has got a snapshot
	writes []store.Write // set before ran is closed, if the function was content
}

func start(db *bbolt.DB) *Engine {
	e := &Engine{
		db: db, line: make(chan *update),
		closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	go e.commitAll()
	return e
}

// Close waits for the running commit and the running reads.
func (e *Engine) Close() (err error) {
	e.close.Do(func() {
		close(e.closing)
		<-e.stopped
		if !e.stuck {
			err = e.db.Close()
		}
	})
	return err
}

// View implements store.Engine.
func (e *Engine) View(ctx context.Context, f func(store.Snapshot) error) error {
	if err := e.refusal(ctx); err != nil {
		return err
	}
	tx, err := e.db.Begin(false)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return store.ErrClosed
	}
	if err != nil {
		return fmt.Errorf("begin read: %w", err)
	}
	defer tx.Rollback() // its only error is that it was done
	return f(newSnapshot(tx))
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
		case <-e.closing:
			return
		}
	}
}
