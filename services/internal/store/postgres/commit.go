package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// commit sends all writes and the commit at once, and returns when the outcome is known.
// Any error but store.ErrUnknownOutcome means that nothing was committed.
func (r *reader) commit() error {
	id := r.e.nextAttempt()
	batch, takesTurn, err := r.batch(id)
	if err != nil {
		return err
	}
	r.e.committing(string(r.tenant))
	failed, err := r.send(batch, takesTurn)
	r.e.committed(string(r.tenant), r.turn, id, err)
	if err == nil || undone(err, failed == batch.Len()-1) {
		return err
	}
	return r.e.outcome(id, err)
}

// nextAttempt returns an id that no other commit has, of this process or another.
func (e *Engine) nextAttempt() []byte {
	return binary.BigEndian.AppendUint64(e.process[:8:8], e.attempts.Add(1))
}

// batch returns the last statements of the transaction, or all of them if nothing was
// read, and which of them takes the tenant's turn, -1 if it was taken before.
func (r *reader) batch(id []byte) (batch *pgx.Batch, takesTurn int, err error) {
	batch, takesTurn = &pgx.Batch{}, -1
	if r.conn == nil {
		if err := r.connect(); err != nil {
			return nil, 0, err
		}
		batch.Queue(r.begin)
	}
	if r.turn == 0 {
		takesTurn = batch.Len()
		batch.Queue(r.e.sql.turn, r.tenant)
	}
	batch.Queue(r.e.sql.attempt, id)
	var keys, values, dropped [][]byte
	for _, w := range r.own {
		if w.Value == nil {
			dropped = append(dropped, w.Key)
		} else {
			keys, values = append(keys, w.Key), append(values, w.Value)
		}
	}
	if dropped != nil {
		batch.Queue(r.e.sql.drop, dropped)
	}
	if keys != nil {
		batch.Queue(r.e.sql.put, keys, values)
	}
	batch.Queue(r.e.sql.commit)
	return batch, takesTurn, nil
}

// send returns the number of the statement that failed, if one did.
func (r *reader) send(batch *pgx.Batch, takesTurn int) (failed int, err error) {
	ctx, cancel := patient(r.ctx)
	defer cancel()
	results := r.conn.SendBatch(ctx, batch)
	defer results.Close() // its error is one of those below
	for i := range batch.Len() - 1 {
		if i == takesTurn {
			err = results.QueryRow().Scan(&r.turn)
		} else {
			_, err = results.Exec()
		}
		if err != nil {
			return i, err
		}
	}
	last := batch.Len() - 1
	tag, err := results.Exec()
	if err == nil {
		err = results.Close()
	}
	if err == nil && tag.String() != r.e.sql.commit {
		err = fmt.Errorf("the database answered %q to the commit", tag)
	}
	return last, err
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
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = conn.QueryRow(limit, e.sql.resolve, id).Scan(&done)
	if lost(err) {
		discard(conn)
	} else {
		conn.Release()
	}
	return done, err
}
