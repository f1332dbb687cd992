package store

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"latchkey.dev/services/internal/fault"
)

// Config is what a DB needs from its process.
type Config struct {
	// Now is the clock.
	Now func() time.Time

	// Log gets what nobody waits for: indexes built, answers not pruned.
	Log *slog.Logger

	// Fatal is called once if the outcome of a commit is unknown. The process
	// should exit; until it does, everything is refused.
	Fatal func(error)

	// MaxRead is how long a View may read; 0 means a second.
	MaxRead time.Duration
}

// DB runs transactions over an engine.
type DB struct {
	engine  Engine
	schema  *Schema
	cfg     Config
	sealer  *sealer
	changes changes
	heads   heads
	timers  sync.Pool // of *time.Timer, stopped
	seed    maphash.Seed
	fatal   sync.Once
	fence   atomic.Pointer[string] // the replica that Updates are fenced with
	stop    context.CancelFunc

	background sync.WaitGroup
}

// Open returns a DB over the engine, which it owns from then on. It builds the
// indexes that the schema declares and the engine lacks, and drops those no
// longer declared. It fails if the data was written by a newer version.
func Open(ctx context.Context, engine Engine, schema *Schema, cfg Config) (*DB, error) {
	if cfg.Now == nil {
		panic("store: Config.Now is nil")
	}
	db := &DB{engine: engine, schema: schema, cfg: cfg, seed: maphash.MakeSeed()}
	if db.cfg.MaxRead == 0 {
		db.cfg.MaxRead = time.Second
	}
	if db.cfg.Log == nil {
		db.cfg.Log = slog.New(slog.DiscardHandler)
	}
	if db.cfg.Fatal == nil {
		db.cfg.Fatal = func(error) {}
	}
	if err := db.prepare(ctx); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	db.stop = stop
	db.background.Go(func() { db.pruneForever(background) })
	if shared, ok := engine.(Shared); ok {
		db.heads.off.Store(true)
		db.background.Go(func() { db.hearOthers(background, shared) })
	}
	return db, nil
}

// Close waits for the transactions that are running and closes the engine.
func (db *DB) Close() error {
	db.stop()
	db.background.Wait()
	db.changes.close()
	return db.engine.Close()
}

// View runs f in a transaction that only reads, for the tenant of ctx's Origin.
func (db *DB) View(ctx context.Context, f func(*Tx) error) error {
	o, err := origin(ctx)
	if err != nil {
		return err
	}
	return db.view(ctx, o, f)
}

// Update runs f in a transaction for the tenant of ctx's Origin and commits it if
// f returns nil. f may run more than once, so nothing outside may happen in it. An
// Update that changes nothing commits nothing.
//
// f runs while other Updates wait, so it must be short, and must not call Update.
func (db *DB) Update(ctx context.Context, f func(*Tx) error) error {
	o, err := origin(ctx)
	if err != nil {
		return err
	}
	return db.update(ctx, o, f)
}

// Read is View for a function with a result, the usual form of a reading handler.
func Read[R any](ctx context.Context, db *DB, f func(*Tx) (R, error)) (R, error) {
	var result R
	err := db.View(ctx, func(tx *Tx) (err error) {
		result, err = f(tx)
		return err
	})
	if err != nil {
		var none R
		return none, err
	}
	return result, nil
}

// CompactFile makes the engine's file as small as what is in it, while others read and
// write. A database looks after its files itself.
func (db *DB) CompactFile(ctx context.Context, tell func(Compacted)) (Compacted, error) {
	if c, ok := db.engine.(Compacter); ok {
		return c.Compact(ctx, tell)
	}
	return Compacted{}, fault.Refused("the store is in a database, which looks after its files itself")
}

func origin(ctx context.Context) (Origin, error) {
	o := OriginOf(ctx)
	if o.Tenant == "" {
		return o, errors.New("the context names no tenant: it lacks store.WithOrigin")
	}
	return o, nil
}

func (db *DB) view(ctx context.Context, o Origin, f func(*Tx) error) error {
	const writable = false
	return db.read(ctx, o, writable, f)
}

// read runs f over a snapshot. If writable, f may write, and nothing comes of it.
func (db *DB) read(ctx context.Context, o Origin, writable bool, f func(*Tx) error) error {
	timer := db.startTimer()
	defer db.stopTimer(timer)
	return db.engine.View(ctx, func(s Snapshot) error {
		tx := db.begin(ctx, s, o)
		tx.writable, tx.timer, tx.expiry, tx.slices = writable, timer, timer.C, readSlices
		return tx.run(f)
	})
}

func (db *DB) update(ctx context.Context, o Origin, f func(*Tx) error) error {
	var entered, carried bool
	var revision int64
	if OriginOf(ctx).Tenant != o.Tenant {
		ctx = WithOrigin(ctx, o)
	}
	err := db.engine.Update(ctx, func(s Snapshot) ([]Write, error) {
		tx := db.begin(ctx, s, o)
		tx.writable = true
		var writes []Write
		err := tx.run(func(tx *Tx) error {
			if err := f(tx); err != nil {
				return err
			}
			writes = tx.commit()
			return nil
		})
		entered, carried, revision = tx.entered, tx.carried, tx.head.GetRevision()+1
		return writes, err
	})
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		db.heads.off.Store(true)
		db.fatal.Do(func() { db.cfg.Fatal(err) })
	case err == nil && entered:
		db.heads.raise(o.Tenant, revision)
		db.changes.add(o.Tenant)
	}
	if err == nil && carried {
		o.Note.written.Store(true)
	}
	return takenOff(err)
}

func (db *DB) begin(ctx context.Context, s Snapshot, o Origin) *Tx {
	tx := &Tx{db: db, ctx: ctx, done: ctx.Done(), snap: s, origin: o, now: db.cfg.Now().UTC()}
	tx.remote, _ = s.(Remote)
	tx.overlay.seed = db.seed
	tx.prefix = appendString(tx.room[:0:64], o.Tenant)
	tx.scratch = tx.room[64:64]
	return tx
}

// run calls f and lets the engine's error win over f's.
func (tx *Tx) run(f func(*Tx) error) error {
	defer func() { tx.ended = true }()
	err := f(tx)
	if tx.err != nil {
		return tx.err
	}
	return err
}

// readSlices is how many slices the time of a read is divided into.
const readSlices = 4

func (db *DB) slice() time.Duration { return db.cfg.MaxRead / readSlices }

func (db *DB) startTimer() *time.Timer {
	if t, ok := db.timers.Get().(*time.Timer); ok {
		t.Reset(db.slice())
		return t
	}
	return time.NewTimer(db.slice())
}

func (db *DB) stopTimer(t *time.Timer) {
	t.Stop()
	db.timers.Put(t)
}
