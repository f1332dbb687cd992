package postgres

import (
	"bytes"
	"context"
	"iter"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"latchkey.dev/services/internal/store"
)

// reader is a SQL transaction as those see it who read in it: a snapshot, and over it
// what the members of the transaction have written so far, which goes to the database
// with the commit. The transaction begins with the first read.
type reader struct {
	e     *Engine
	ctx   context.Context // of the call, of which only the values count once it reads
	slots slots
	begin string

	conn  *pgxpool.Conn // nil until the transaction begins
	known map[string][]byte
	err   error // the first; the transaction cannot go on after it

	updating  bool
	tenant    []byte
	takesTurn bool          // before it reads, and not with the commit
	turn      int64         // once it was taken
	own       []store.Write // in the order of their keys, each once
	size      int           // of own, in bytes
}

// Get implements store.Snapshot.
func (r *reader) Get(key []byte) ([]byte, error) {
	if value, ok := r.recall(key); ok || r.err != nil {
		return value, r.err
	}
	pairs, err := r.query(r.e.sql.get, key)
	if err != nil {
		return nil, err
	}
	r.learn([][]byte{key}, pairs)
	return r.known[string(key)], nil
}

// Known implements store.Remote.
func (r *reader) Known(key []byte) bool {
	_, ok := r.recall(key)
	return ok
}

// Fetch implements store.Remote.
func (r *reader) Fetch(keys [][]byte) error {
	missing := make([][]byte, 0, len(keys))
	for _, key := range keys {
		if !r.Known(key) {
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 || r.err != nil {
		return r.err
	}
	pairs, err := r.query(r.e.sql.getAll, missing)
	if err == nil {
		r.learn(missing, pairs)
	}
	return err
}

// recall returns what the transaction knows without asking.
func (r *reader) recall(key []byte) (value []byte, ok bool) {
	if i, found := r.find(key); found {
		return r.own[i].Value, true
	}
	value, ok = r.known[string(key)]
	return value, ok
}

// learn keeps the pairs that the keys were found to have.
func (r *reader) learn(keys [][]byte, pairs []store.Pair) {
	if r.known == nil {
		r.known = map[string][]byte{}
	}
	for _, key := range keys {
		r.known[string(key)] = nil
	}
	for _, p := range pairs {
		r.known[string(p.Key)] = p.Value
	}
}

func (r *reader) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(r.own, key, func(w store.Write, key []byte) int { return bytes.Compare(w.Key, key) })
}

// write adds what a member has written; of the writes to one key the last counts.
func (r *reader) write(writes []store.Write) {
	writes = slices.Clone(writes)
	slices.SortStableFunc(writes, func(a, b store.Write) int { return bytes.Compare(a.Key, b.Key) })
	merged := make([]store.Write, 0, len(r.own)+len(writes))
	old := r.own
	for i, w := range writes {
		if i+1 < len(writes) && bytes.Equal(w.Key, writes[i+1].Key) {
			continue
		}
		for len(old) > 0 && bytes.Compare(old[0].Key, w.Key) < 0 {
			merged, old = append(merged, old[0]), old[1:]
		}
		if len(old) > 0 && bytes.Equal(old[0].Key, w.Key) {
			old = old[1:]
		}
		merged = append(merged, w)
		r.size += len(w.Key) + len(w.Value)
	}
	r.own = append(merged, old...)
}

// A scan fetches this many pairs at first, and then more.
const (
	firstPage = 64
	lastPage  = 1024
	pageBytes = 1 << 20 // a page is no longer than what has this size, judged by the last one
)

// Scan implements store.Snapshot.
func (r *reader) Scan(lo, hi []byte, reverse bool) iter.Seq2[store.Pair, error] {
	return func(yield func(store.Pair, error) bool) {
		from, _ := r.find(lo)
		to, _ := r.find(hi)
		own := r.own[min(from, to):to]
		if reverse {
			own = slices.Clone(own)
			slices.Reverse(own)
		}
		for p, err := range r.stored(lo, hi, reverse) {
			if err != nil {
				yield(store.Pair{}, err)
				return
			}
			for len(own) > 0 && (bytes.Compare(own[0].Key, p.Key) < 0) != reverse && !bytes.Equal(own[0].Key, p.Key) {
				if own[0].Value != nil && !yield(store.Pair(own[0]), nil) {
					return
				}
				own = own[1:]
			}
			if len(own) > 0 && bytes.Equal(own[0].Key, p.Key) {
				p.Value, own = own[0].Value, own[1:]
			}
			if p.Value != nil && !yield(p, nil) {
				return
			}
		}
		for _, w := range own {
			if w.Value != nil && !yield(store.Pair(w), nil) {
				return
			}
		}
	}
}

// stored scans what the database has, page by page.
func (r *reader) stored(lo, hi []byte, reverse bool) iter.Seq2[store.Pair, error] {
	return func(yield func(store.Pair, error) bool) {
		statement := r.e.sql.scan
		if reverse {
			statement = r.e.sql.scanBack
		}
		for page := firstPage; bytes.Compare(lo, hi) < 0; {
			pairs, err := r.query(statement, lo, hi, page)
			if err != nil {
				yield(store.Pair{}, err)
				return
			}
			if r.updating {
				r.learn(nil, pairs)
			}
			size := 0
			for _, p := range pairs {
				if size += len(p.Key) + len(p.Value); !yield(p, nil) {
					return
				}
			}
			if len(pairs) < page {
				return
			}
			if last := pairs[page-1].Key; reverse {
				hi = last
			} else {
				lo = append(bytes.Clone(last), 0)
			}
			page = max(1, min(4*page, lastPage, pageBytes*page/(size+1)))
		}
	}
}

// query asks for pairs, and begins the transaction if need be.
func (r *reader) query(statement string, args ...any) (pairs []store.Pair, err error) {
	switch {
	case r.err != nil:
		return nil, r.err
	case r.conn == nil:
		pairs, err = r.start(statement, args)
	default:
		ctx, cancel := patient(r.ctx)
		defer cancel()
		rows, _ := r.conn.Query(ctx, statement, args...) // rows has the error too
		pairs, err = collect(rows)
	}
	if err != nil && !r.updating {
		err = tell(err)
	}
	r.err = err
	return pairs, err
}

func collect(rows pgx.Rows) ([]store.Pair, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p store.Pair, err error) {
		err = row.Scan(&p.Key, &p.Value)
		return p, err
	})
}

// start begins the transaction and reads, at once. Connections that have died in the pool
// are replaced.
func (r *reader) start(statement string, args []any) (pairs []store.Pair, err error) {
	for range r.e.pool.Config().MaxConns + 1 {
		if err := r.connect(); err != nil {
			return nil, err
		}
		if pairs, err = r.open(statement, args); !lost(err) {
			return pairs, err
		}
		r.disconnect()
	}
	return nil, err
}

func (r *reader) open(statement string, args []any) (pairs []store.Pair, err error) {
	batch := &pgx.Batch{}
	batch.Queue(r.begin)
	if r.takesTurn {
		batch.Queue(r.e.sql.turn, r.tenant)
	}
	batch.Queue(statement, args...)
	ctx, cancel := patient(r.ctx)
	defer cancel()
	results := r.conn.SendBatch(ctx, batch)
	defer results.Close() // its error is one of those below
	if _, err := results.Exec(); err != nil {
		return nil, err
	}
	if r.takesTurn {
		if err := results.QueryRow().Scan(&r.turn); err != nil {
			return nil, err
		}
	}
	rows, _ := results.Query() // rows has the error too
	if pairs, err = collect(rows); err != nil {
		return nil, err
	}
	return pairs, results.Close()
}

// connect gets a connection, for which it first waits for a slot.
func (r *reader) connect() error {
	if err := r.slots.take(r.ctx); err != nil {
		return err
	}
	conn, err := r.e.acquire(r.ctx)
	if err != nil {
		r.slots.give()
		return err
	}
	r.conn = conn
	return nil
}

// disconnect gives back a connection that is not to be used again.
func (r *reader) disconnect() {
	discard(r.conn)
	r.conn = nil
	r.slots.give()
}

// end ends the transaction, without waiting for the database to say so.
func (r *reader) end() {
	if r.conn == nil {
		return
	}
	conn := r.conn
	if conn.Conn().IsClosed() || conn.Conn().PgConn().TxStatus() == 'I' {
		conn.Release()
		r.slots.give()
		return
	}
	r.e.work.Go(func() {
		defer r.slots.give()
		defer conn.Release() // closes the connection if it is still in the transaction
		ctx, cancel := patient(r.ctx)
		defer cancel()
		_, _ = conn.Exec(ctx, r.e.sql.rollback)
	})
}
