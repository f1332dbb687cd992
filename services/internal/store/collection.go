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
	typ     protoreflect.MessageType
	fields  fields
	prefix  []byte // of the records' keys, after the tenant
	indexes []*Index[T]
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
	b := tx.get(tx.under(c.prefix, id))
	if b == nil {
		return v, false
	}
	return c.decode(tx, b)
}

// Has reports whether there is a record with the id, and does not decode it.
func (c *Collection[T]) Has(tx *Tx, id string) bool {
	c.check(tx)
	return tx.get(tx.under(c.prefix, id)) != nil
}

// All yields every record in the order of the ids.
func (c *Collection[T]) All(tx *Tx) iter.Seq[T] { return c.Range().scan(tx) }

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
	m := v.ProtoReflect()
	stored := tx.get(tx.under(c.prefix, id))
	old, exists := c.decodeOld(tx, stored)
	if exists {
		c.fields.adopt(m, old.ProtoReflect())
		b, err := c.fields.bytes(m)
		if err == nil && bytes.Equal(b, stored) {
			return tx.err
		}
	}
	c.fields.stamp(m, tx)
	b, err := c.fields.bytes(m)
	if err != nil {
		return fmt.Errorf("encode %s %q: %w", c.name, id, err)
	}
	if err := c.reindex(tx, id, old, exists, v, true); err != nil {
		return err
	}
	tx.put(tx.under(c.prefix, id), b)
	return tx.err
}

// Delete removes the record with the id and its index entries, if there is one.
func (c *Collection[T]) Delete(tx *Tx, id string) {
	c.check(tx)
	tx.mustWrite()
	var none T
	if old, ok := c.decodeOld(tx, tx.get(tx.under(c.prefix, id))); ok {
		// Without a new record no key can be taken, so there is no error.
		_ = c.reindex(tx, id, old, true, none, false)
		tx.del(tx.under(c.prefix, id))
	}
}

func (c *Collection[T]) decodeOld(tx *Tx, b []byte) (v T, ok bool) {
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

// reindex writes the entries that differ between old and v.
func (c *Collection[T]) reindex(tx *Tx, id string, old T, hadOld bool, v T, hasNew bool) error {
	type edit struct{ key, value []byte }
	var edits []edit
	for _, ix := range c.indexes {
		var was, is [][]byte
		if hadOld {
			was = ix.entries(tx, old, id)
		}
		if hasNew {
			is = ix.entries(tx, v, id)
		}
		for _, key := range is {
			if contains(was, key) {
				continue
			}
			if ix.unique && tx.get(key) != nil {
				return fault.Exists(c.name, ix.short)
			}
			edits = append(edits, edit{key, ix.value(id)})
		}
		for _, key := range was {
			if !contains(is, key) {
				edits = append(edits, edit{key, nil})
			}
		}
	}
	for _, e := range edits {
		tx.put(e.key, e.value)
	}
	return nil
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
