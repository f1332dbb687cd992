package store

import (
	"bytes"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"latchkey.dev/services/internal/fault"
)

// Collection is a set of records of one message type, each under its own id.
type Collection[T proto.Message] struct {
	name    string
	id      func(T) string
	party   func(T) string // nil if the tenant is the organization
	belongs belonging[T]   // where the tenant is shared
	typ     protoreflect.MessageType
	fields  fields
	prefix  []byte // of the records' keys, after the tenant
	indexes []*Index[T]
	always  []invariant[T]
	tallies []tally
	schema  *Schema
}

// NewCollection declares a collection. The name is part of every key on disk and
// must never change. By convention the store sets a record's create_time,
// update_time and etag, and never stores its available_actions.
func NewCollection[T proto.Message](name string, id func(T) string) *Collection[T] {
	var zero T
	typ := zero.ProtoReflect().Type()
	return &Collection[T]{
		name: name, id: id, typ: typ, fields: fieldsOf(typ.Descriptor()),
		prefix: appendString([]byte{spaceRecord}, name),
	}
}

// Name returns the name that the collection was declared with.
func (c *Collection[T]) Name() string { return c.name }

// Get returns the record with the id, or false.
func (c *Collection[T]) Get(tx *Tx, id string) (v T, ok bool) {
	c.check(tx)
	return c.decodeAny(tx, tx.get(tx.under(c.prefix, id)))
}

// Has reports whether there is a record with the id, and does not decode it.
func (c *Collection[T]) Has(tx *Tx, id string) bool {
	c.check(tx)
	return tx.get(tx.under(c.prefix, id)) != nil
}

// All yields every record in the order of the ids.
func (c *Collection[T]) All(tx *Tx) iter.Seq[T] { return c.Range().scan(tx) }

// Scan yields the records of the range, one of c.Range's, as they were when the
// scan began.
func (c *Collection[T]) Scan(tx *Tx, r Range[T]) iter.Seq[T] { return r.of(c, nil).scan(tx) }

// Count returns how many records the range has, without decoding them.
func (c *Collection[T]) Count(tx *Tx, r Range[T]) int { return r.of(c, nil).count(tx) }

// Match returns nil if etag is empty or that of v, and fault.Stale if v has
// changed since the caller read it.
func (c *Collection[T]) Match(v T, etag string) error {
	if etag == "" {
		return nil
	}
	if c.fields.etag == nil {
		panic("store: " + c.name + " has no etag to match")
	}
	if now := v.ProtoReflect().Get(c.fields.etag).String(); now != etag {
		return fault.Stale(c.name, c.id(v), now)
	}
	return nil
}

// Put writes the record and its index entries. It sets create_time if it is unset,
// update_time and etag, in v too. Putting what is there already changes nothing.
// It returns fault.Exists if another record has the key in a unique index; then
// nothing was written.
func (c *Collection[T]) Put(tx *Tx, v T) error {
	c.check(tx)
	tx.mustWrite()
	id := c.id(v)
	if id == "" {
		panic("store: put " + c.name + " without an id")
	}
	if tx.remote != nil {
		c.fetchForPut(tx, id, v)
	}
	m := v.ProtoReflect()
	stored := tx.get(tx.under(c.prefix, id))
	old, exists := c.decodeAny(tx, stored)
	if exists {
		c.fields.adopt(m, old.ProtoReflect())
		if b, err := c.fields.bytes(m); err == nil && bytes.Equal(b, stored) {
			return tx.err
		}
	}
	c.fields.stamp(m, tx)
	b, err := c.fields.bytes(m)
	if err != nil {
		return fmt.Errorf("encode %s %q: %w", c.name, id, err)
	}
	if err := c.reindex(tx, id, c.entries(tx, old, exists, id), c.entries(tx, v, true, id)); err != nil {
		return err
	}
	tx.put(tx.under(c.prefix, id), b)
	c.involve(tx, v)
	return tx.err
}

// Delete removes the record with the id and its index entries, if there is one.
func (c *Collection[T]) Delete(tx *Tx, id string) {
	c.check(tx)
	tx.mustWrite()
	old, exists := c.decodeAny(tx, tx.get(tx.under(c.prefix, id)))
	if !exists {
		return
	}
	// An error is the transaction's own: no key is added that could be taken.
	if c.reindex(tx, id, c.entries(tx, old, true, id), c.entries(tx, old, false, id)) == nil {
		tx.del(tx.under(c.prefix, id))
		c.involve(tx, old)
	}
}

// decodeAny decodes what get returned, which is nil if there is nothing.
func (c *Collection[T]) decodeAny(tx *Tx, b []byte) (v T, ok bool) {
	if b == nil {
		return v, false
	}
	return c.decode(tx, b)
}

func (c *Collection[T]) decode(tx *Tx, b []byte) (v T, ok bool) {
	v = c.typ.New().Interface().(T)
	if err := proto.Unmarshal(b, v); err != nil {
		tx.fail("decode "+c.name, err)
		var none T
		return none, false
	}
	return v, true
}

// reindex writes what differs between the entries that were and those that are to be,
// in the order of c.indexes. If a key is taken it writes nothing.
func (c *Collection[T]) reindex(tx *Tx, id string, was, is [][][]byte) error {
	for i, ix := range c.indexes {
		for _, key := range is[i] {
			if ix.unique && !contains(was[i], key) && tx.get(key) != nil {
				return fault.Exists(c.name, ix.short)
			}
		}
	}
	for i, ix := range c.indexes {
		for _, key := range is[i] {
			if !contains(was[i], key) {
				tx.set(key, ix.value(id))
			}
		}
		for _, key := range was[i] {
			if !contains(is[i], key) {
				tx.set(key, nil)
			}
		}
	}
	return tx.err
}

// entries returns the keys of the entries of a record in each index, or none if there
// is no record.
func (c *Collection[T]) entries(tx *Tx, v T, exists bool, id string) [][][]byte {
	all := make([][][]byte, len(c.indexes))
	if exists {
		for i, ix := range c.indexes {
			all[i] = ix.entries(tx, v, id)
		}
	}
	return all
}

func contains(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}

// check panics if the collection is used with a DB of another schema.
func (c *Collection[T]) check(tx *Tx) {
	if c.schema != tx.db.schema {
		panic("store: collection " + c.name + " is not in the schema of the store")
	}
}
