package store

import (
	"bytes"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"
)

// Index is another order of a collection's records.
type Index[T proto.Message] struct {
	c       *Collection[T]
	short   string // name within the collection
	name    string // "collection/index"
	prefix  []byte // of the entries' keys, after the tenant
	keys    func(T) []Key
	unique  bool
	version int
}

// Option changes the declaration of an index.
type Option func(version *int)

// Version says which version of its key function an index has, at first 0. An
// index of another version on disk is built anew when the store is opened.
func Version(n int) Option { return func(version *int) { *version = n } }

// Index declares an index. The name is part of every key on disk and must never
// change. A record whose key is nil is not in the index.
func (c *Collection[T]) Index(name string, key func(T) Key, options ...Option) *Index[T] {
	return c.declare(name, single(key), false, options)
}

// Unique declares an index in which each key belongs to one record.
func (c *Collection[T]) Unique(name string, key func(T) Key, options ...Option) *Index[T] {
	return c.declare(name, single(key), true, options)
}

// MultiIndex declares an index in which a record may have any number of keys.
func (c *Collection[T]) MultiIndex(name string, keys func(T) []Key, options ...Option) *Index[T] {
	return c.declare(name, keys, false, options)
}

func single[T any](key func(T) Key) func(T) []Key {
	return func(v T) []Key {
		if k := key(v); k != nil {
			return []Key{k}
		}
		return nil
	}
}

func (c *Collection[T]) declare(name string, keys func(T) []Key, unique bool, options []Option) *Index[T] {
	ix := &Index[T]{c: c, short: name, name: c.name + "/" + name, keys: keys, unique: unique}
	ix.prefix = appendString([]byte{spaceIndex}, ix.name)
	for _, o := range options {
		o(&ix.version)
	}
	if c.schema != nil && c.schema.opened.Load() {
		panic("store: index " + ix.name + " is declared after its schema was opened")
	}
	for _, other := range c.indexes {
		if other.name == ix.name {
			panic("store: index " + ix.name + " is declared twice")
		}
	}
	c.indexes = append(c.indexes, ix)
	return ix
}

// First returns the first record whose key starts with the parts, or false.
func (ix *Index[T]) First(tx *Tx, parts ...any) (v T, ok bool) {
	ix.c.check(tx)
	if ix.unique { // as a rule the parts are the whole key
		key := Key(parts).appendTo(append(append(tx.scratch[:0], tx.prefix...), ix.prefix...))
		tx.scratch = key
		if id := tx.get(key); id != nil {
			return ix.c.Get(tx, string(id))
		}
	}
	for v := range ix.Scan(tx, ix.Range(parts...)) {
		return v, true
	}
	return v, false
}

// Scan yields the records of the range, one of ix.Range's, as they were when the scan
// began.
func (ix *Index[T]) Scan(tx *Tx, r Range[T]) iter.Seq[T] { return r.of(ix.c, ix).scan(tx) }

// Count returns how many entries the range has, without decoding the records.
func (ix *Index[T]) Count(tx *Tx, r Range[T]) int { return r.of(ix.c, ix).count(tx) }

// Range selects the entries whose key starts with the parts.
func (ix *Index[T]) Range(parts ...any) Range[T] {
	return Range[T]{c: ix.c, index: ix, prefix: Key(parts).appendTo(bytes.Clone(ix.prefix))}
}

// Range selects all records, in the order of the ids.
func (c *Collection[T]) Range() Range[T] { return Range[T]{c: c, prefix: c.prefix} }

// Range is a part of an index, or of a collection in the order of the ids. Its
// methods return a changed copy.
type Range[T proto.Message] struct {
	c        *Collection[T]
	index    *Index[T] // nil for the records themselves
	prefix   []byte    // after the tenant
	from, to []byte    // after the prefix; nil if unbounded
	reverse  bool
}

// From leaves out the entries whose key, after the range's parts, is less.
func (r Range[T]) From(parts ...any) Range[T] {
	r.from = Key(parts).appendTo(nil)
	return r
}

// To leaves out the entries whose key, after the range's parts, is equal or greater.
func (r Range[T]) To(parts ...any) Range[T] {
	r.to = Key(parts).appendTo(nil)
	return r
}

// After leaves out the entries whose key, after the range's parts, is less or starts with
// these.
func (r Range[T]) After(parts ...any) Range[T] {
	r.from = append(Key(parts).appendTo(nil), aboveAll)
	return r
}

// Through leaves out the entries whose key, after the range's parts, is greater and does not
// start with these.
func (r Range[T]) Through(parts ...any) Range[T] {
	r.to = append(Key(parts).appendTo(nil), aboveAll)
	return r
}

// Reverse turns the order round. The bounds stay what they are.
func (r Range[T]) Reverse() Range[T] {
	r.reverse = !r.reverse
	return r
}

// of returns r, and panics if it is a range of another collection or index.
func (r Range[T]) of(c *Collection[T], ix *Index[T]) Range[T] {
	if r.c != c || r.index != ix {
		panic("store: a range of another index")
	}
	return r
}

func (r Range[T]) count(tx *Tx) int {
	n := 0
	for range tx.scan(r.bounds(tx)) {
		n++
	}
	return n
}

// bounds returns the arguments of a scan over the range.
func (r Range[T]) bounds(tx *Tx) (lo, hi []byte, reverse bool) {
	r.c.check(tx)
	base := tx.base(r.prefix)
	lo = append(base, r.from...)
	hi = append(bytes.Clone(base), aboveAll)
	if r.to != nil {
		hi = append(hi[:len(base)], r.to...)
	}
	return lo, hi, r.reverse
}

// base returns the whole of a prefix that lacks the tenant.
func (tx *Tx) base(prefix []byte) []byte {
	b := make([]byte, 0, len(tx.prefix)+len(prefix)+64)
	return append(append(b, tx.prefix...), prefix...)
}

// Scan yields the records of the range in its order, whichever index it is of.
func (r Range[T]) Scan(tx *Tx) iter.Seq[T] { return r.scan(tx) }

func (r Range[T]) scan(tx *Tx) iter.Seq[T] {
	return func(yield func(T) bool) {
		writes := tx.overlay.freeze()
		lo, hi, reverse := r.bounds(tx)
		entries := ahead(tx, firstAhead, tx.scanIn(writes, lo, hi, reverse), func(p Pair) []byte { return r.recordKey(tx, p) })
		for p := range entries {
			v, ok := r.record(tx, writes, p)
			if !ok || !yield(v) {
				return
			}
		}
	}
}

// record returns the record that the pair of a scan stands for. If there is none,
// the transaction has failed.
func (r Range[T]) record(tx *Tx, writes *node, p Pair) (v T, ok bool) {
	if r.index == nil {
		return r.c.decode(tx, p.Value)
	}
	id, ok := r.index.idOf(tx, p)
	if !ok {
		tx.fail("scan "+r.index.name, fmt.Errorf("entry %x is malformed", p.Key))
		return v, false
	}
	b := tx.getIn(writes, tx.under(r.c.prefix, id))
	if b == nil {
		tx.fail("scan "+r.index.name, fmt.Errorf("entry for %q without a record", id))
		return v, false
	}
	return r.c.decode(tx, b)
}

// idOf returns the id that an entry is for: the value of a unique index's entry,
// the last part of another's key.
func (ix *Index[T]) idOf(tx *Tx, p Pair) (id string, ok bool) {
	if ix.unique {
		return string(p.Value), true
	}
	return lastString(p.Key[len(tx.prefix)+len(ix.prefix):])
}

func (ix *Index[T]) value(id string) []byte {
	if ix.unique {
		return []byte(id)
	}
	return present
}

// entries returns the keys of the record's entries, each once.
func (ix *Index[T]) entries(tx *Tx, v T, id string) [][]byte {
	keys := ix.keys(v)
	entries := make([][]byte, 0, len(keys))
	for _, k := range keys {
		b := k.appendTo(tx.base(ix.prefix))
		if !ix.unique {
			b = appendString(b, id)
		}
		if !contains(entries, b) {
			entries = append(entries, b)
		}
	}
	return entries
}
