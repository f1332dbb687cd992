package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// commit sends all writes and the commit at once, and returns when the outcome is known.
// Any error but store.ErrUnknownOutcome means that nothing was committed.
func (r *reader) commit() error {
	id := r.e.nextAttempt()
	calls, err := r.calls(id)
	if err != nil {
		return err
	}
	r.e.committing(string(r.tenant))
	_, failed, err := r.exchange(calls...)
	r.e.committed(string(r.tenant), r.turn, id, err)
	if err == nil || undone(err, failed == len(calls)-1) {
		return err
	}
	return r.e.outcome(id, err)
}

// nextAttempt returns an id that no other commit has, of this process or another.
func (e *Engine) nextAttempt() []byte {
	return binary.BigEndian.AppendUint64(slices.Clone(e.process), e.attempts.Add(1))
}

// calls returns the last statements of the transaction, or all if nothing was read.
func (r *reader) calls(id []byte) (calls []call, err error) {
	if r.conn == nil {
		if err := r.connect(); err != nil {
			return nil, err
		}
		calls = append(calls, call{r.begin, nil})
	}
	if r.turn == 0 {
		calls = append(calls, call{turnSQL, [][]byte{r.tenant}})
	}
	for _, key := range r.fences {
		calls = append(calls, call{fenceSQL, [][]byte{key}})
	}
	calls = append(calls, call{attemptSQL, [][]byte{id}})
	var keys, values, dropped [][]byte
	for _, w := range r.own {
		if w.Value == nil {
			dropped = append(dropped, w.Key)
		} else {
			keys, values = append(keys, w.Key), append(values, w.Value)
		}
	}
	if dropped != nil {
		calls = append(calls, call{dropSQL, [][]byte{arrayOf(dropped)}})
	}
	if keys != nil {
		calls = append(calls, call{putSQL, [][]byte{arrayOf(keys), arrayOf(values)}})
	}
	return append(calls, call{commitSQL, nil}), nil
}

// outcome learns what became of a commit whose connection was lost over it: it returns
// nil if it happened, errLost if it did not and never will, and
// store.ErrUnknownOutcome if the database does not tell in time.
//
// The attempt's row is written again, by another name. That waits until the
// transaction is over, if it is still running. If it has committed, its row is there;
// and as this write is acknowledged, so is, wherever the database keeps
// its log, the commit before it. If it has not, this row keeps it from committing later.
func (e *Engine) outcome(id []byte, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), e.resolveLimit)
	defer cancel()
	for n := 0; ; n++ {
		done, err := e.resolve(ctx, id)
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			return fmt.Errorf("%w: %w", errLost, cause)
		case !lost(err) && !conflict(err):
			return e.fail(errors.Join(cause, err))
		}
		if pause(ctx, n) != nil {
			return e.fail(errors.Join(cause, err))
		}
	}
}

// resolve writes the attempt's row and reports whether it was there from its commit.
func (e *Engine) resolve(ctx context.Context, id []byte) (done bool, err error) {
	conn, err := e.acquire(ctx)
	if err != nil {
		return false, err
	}
	limit, cancel := context.WithTimeout(ctx, e.patience)
	defer cancel()
	err = conn.QueryRow(limit, e.sql.resolve, id).Scan(&done)
	if lost(err) {
		discard(conn)
	} else {
		conn.Release()
	}
	return done, err
}
