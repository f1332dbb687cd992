package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"latchkey.dev/services/internal/store"
)

// resolveLimit is how long the engine tries to learn the outcome of a commit.
const resolveLimit = time.Minute

// commit sends all writes and the commit at once, and returns when the outcome is known.
// Any error but store.ErrUnknownOutcome means that nothing was committed.
func (r *reader) commit() error {
	id := r.e.nextAttempt()
	batch, takesTurn, err := r.batch(id)
	if err != nil {
		return err
	}
	failed, err := r.send(batch, takesTurn)
	if err != nil {
		if undone(err, failed == batch.Len()-1) {
			return err
		}
		return r.e.outcome(id, err)
	}
	r.e.committed(string(r.tenant), r.turn, id)
	return nil
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
		if r.conn, err = r.e.acquire(r.ctx); err != nil {
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
	ctx, cancel := context.WithTimeout(context.Background(), resolveLimit)
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

// committed notes a commit that the database has acknowledged.
func (e *Engine) committed(tenant string, turn int64, id []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.turns[tenant] == turn-1 {
		e.turns[tenant] = turn
	}
	e.over = append(e.over, id)
}

// sweepPause is how long rows of attempts stay that nobody will ask for.
const sweepPause = time.Second

// sweepForever deletes such rows until ctx ends, and then what is left. It begins
// with those that processes left which were killed.
func (e *Engine) sweepForever(ctx context.Context) {
	_ = e.delete(e.sql.sweep) // the next start tries again
	tick := time.NewTicker(sweepPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.sweep()
		case <-ctx.Done():
			e.sweep()
			return
		}
	}
}

func (e *Engine) sweep() {
	e.mu.Lock()
	over := e.over
	e.over = nil
	e.mu.Unlock()
	if len(over) > 0 {
		_ = e.delete(e.sql.forget, over) // what stays is swept by a later start
	}
}

func (e *Engine) delete(statement string, args ...any) error {
	ctx, cancel := patient(context.Background())
	defer cancel()
	_, err := e.pool.Exec(ctx, statement, args...)
	return err
}

// Others implements store.Shared.
func (e *Engine) Others(ctx context.Context) (tenants []string, err error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer e.work.Done()
	limit, cancel := patient(ctx)
	defer cancel()
	type count struct {
		Tenant []byte
		Turn   int64
	}
	rows, _ := e.pool.Query(limit, e.sql.turns) // rows has the error too
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[count])
	if err != nil {
		return nil, tell(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range counts {
		tenant := string(c.Tenant)
		switch ahead := c.Turn - e.turns[tenant]; {
		case ahead <= 0:
		case ahead == 1 && e.lines[tenant] != nil:
			// It may be a commit of this process's own, which it will note; if not, the
			// next in this line makes it two.
		default:
			e.turns[tenant] = c.Turn
			tenants = append(tenants, tenant)
		}
	}
	return tenants, nil
}

var _ store.Shared = (*Engine)(nil)
