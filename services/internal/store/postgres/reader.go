package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"

	"latchkey.dev/services/internal/store"
)

// reader is a SQL transaction as those see it who read in it: a snapshot, and over it
// what the members of the transaction have written so far, which goes to the database
// with the commit. The transaction begins with the first read.
type reader struct {
	e     *Engine
	ctx   context.Context // of the call; what is asked is answered though it ends
	slots slots
	begin statement

	conn  *pgxpool.Conn // nil until the transaction begins
	known map[string][]byte
	err   error // the first; the transaction cannot go on after it

	updating  bool
	tenant    []byte
	takesTurn bool          // before it reads, and not with the commit
	turn      int64         // once it was taken
	own       []store.Write // in the order of their keys, each once
	size      int           // of own, in bytes
	fences    [][]byte      // keys that must have a value when the transaction commits
}

// Fence implements store.Fencer.
func (r *reader) Fence(key []byte) {
	if !slices.ContainsFunc(r.fences, func(k []byte) bool { return bytes.Equal(k, key) }) {
		r.fences = append(r.fences, key)
	}
}

// Get implements store.Snapshot.
func (r *reader) Get(key []byte) ([]byte, error) {
	if value, ok := r.recall(key); ok || r.err != nil {
		return value, r.err
	}
	pairs, err := r.query(getSQL, key)
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
	pairs, err := r.query(getAllSQL, arrayOf(missing))
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
		r.known = make(map[string][]byte, len(keys)+len(pairs))
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
		statement := scanSQL
		if reverse {
			statement = scanBackSQL
		}
		for page := firstPage; bytes.Compare(lo, hi) < 0; {
			pairs, err := r.query(statement, lo, hi, bigint(page))
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
func (r *reader) query(s statement, parameters ...[]byte) (pairs []store.Pair, err error) {
	c := call{s, parameters}
	switch {
	case r.err != nil:
		return nil, r.err
	case r.conn == nil:
		pairs, err = r.start(c)
	default:
		pairs, _, err = r.exchange(c)
	}
	if err != nil && !r.updating {
		err = tell(err)
	}
	r.err = err
	return pairs, err
}

// start begins the transaction and reads, at once. Connections that have died in the pool
// are replaced.
func (r *reader) start(c call) (pairs []store.Pair, err error) {
	calls := []call{{r.begin, nil}}
	if r.takesTurn {
		calls = append(calls, call{turnSQL, [][]byte{r.tenant}})
	}
	calls = append(calls, c)
	for range r.e.conns + 1 {
		if err := r.connect(); err != nil {
			return nil, err
		}
		if pairs, _, err = r.exchange(calls...); !lost(err) {
			return pairs, err
		}
		r.disconnect()
	}
	return nil, err
}

// exchange returns the pairs in the answers, and keeps the turn. failed is that of the
// function of the same name.
func (r *reader) exchange(calls ...call) (pairs []store.Pair, failed int, err error) {
	var found rows
	failed, err = exchange(r.conn.Conn().PgConn(), r.e.patience, calls, func(i int, values [][]byte) {
		switch calls[i].statement {
		case turnSQL:
			r.turn = int64(binary.BigEndian.Uint64(values[0]))
		case fenceSQL:
		default:
			found.add(values)
		}
	})
	return found.pairs, failed, err
}

// connect gets a connection, for which it first waits for a slot.
func (r *reader) connect() error {
	if err := r.slots.take(r.ctx, r.e.patience); err != nil {
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
		_, _ = exchange(conn.Conn().PgConn(), r.e.patience, []call{{rollbackSQL, nil}}, nil)
	})
}
