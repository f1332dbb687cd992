package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"latchkey.dev/services/internal/store"
)

var _ store.Shared = (*Engine)(nil)

// committing notes that from now on the database may have a turn of this process's own
// that was not noted yet.
func (e *Engine) committing(tenant string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines[tenant].committing = true
}

// committed notes what became of it.
func (e *Engine) committed(tenant string, turn int64, attempt []byte, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines[tenant].committing = false
	if err != nil {
		return
	}
	if e.turns[tenant] == turn-1 {
		e.turns[tenant] = turn // otherwise there is another's turn that was not told yet
	}
	e.over = append(e.over, attempt)
}

// Others implements store.Shared: it returns the tenants that have had more turns than
// this process knows of.
func (e *Engine) Others(ctx context.Context) (tenants []string, err error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer e.work.Done()
	limit, cancel := e.patient(ctx)
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
		l := e.lines[tenant]
		switch ahead := c.Turn - e.turns[tenant]; {
		case ahead <= 0:
		case ahead == 1 && l != nil && l.committing:
			// It is this process's own turn, or will be more than one ahead.
		default:
			e.turns[tenant] = c.Turn
			tenants = append(tenants, tenant)
		}
	}
	return tenants, nil
}

// sweepPause is how long rows of attempts stay that nobody will ask for.
const sweepPause = time.Second

// sweepForever deletes such rows until ctx ends, and then what is left. Soon after
// the start it deletes those that processes left which were killed.
func (e *Engine) sweepForever(ctx context.Context) {
	tick := time.NewTicker(sweepPause)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
			if n == 0 {
				_ = e.delete(e.sql.sweep) // the next start tries again
			}
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
	ctx, cancel := e.patient(context.Background())
	defer cancel()
	_, err := e.pool.Exec(ctx, statement, args...)
	return err
}
