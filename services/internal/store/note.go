package store

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
)

// KeepDays is how many days notes and uses are kept.
const KeepDays = 90

// Note is a row about one call: the decision that let it in. In the Origin of the call
// it is committed with the first thing that the call changes, at no cost of its own.
type Note struct {
	Tenant string // may be another than the transaction's
	Time   time.Time
	ID     string
	Value  []byte // anything but nil

	written atomic.Bool
}

// NewNote returns the note of a message.
func NewNote(tenant string, at time.Time, id string, m proto.Message) (*Note, error) {
	value, err := encode(m)
	return &Note{Tenant: tenant, Time: at.UTC(), ID: id, Value: value}, err
}

// Written tells whether the note is on disk.
func (n *Note) Written() bool { return n.written.Load() }

// WriteNote commits a note alone, in place of one with the same time and id.
func (db *DB) WriteNote(ctx context.Context, n *Note) error {
	err := db.update(WithFence(ctx, ""), Origin{Tenant: n.Tenant}, func(tx *Tx) error {
		tx.put(tx.row(spaceNote, n.Time, n.ID), n.Value)
		return nil
	})
	if err == nil {
		n.written.Store(true)
	}
	return err
}

// carry adds the origin's note to the writes, which are in the order of their keys.
func (tx *Tx) carry(writes []Write) []Write {
	n := tx.origin.Note
	if n == nil || n.Written() {
		return writes
	}
	tx.carried = true
	key := Key{n.Time, n.ID}.appendTo(append(appendString(nil, n.Tenant), spaceNote))
	writes = insert(writes, Write{key, n.Value})
	if n.Tenant == tx.Tenant() {
		return writes
	}
	registered, err := tx.snap.Get(registryKey(n.Tenant))
	tx.fail("read", err)
	if registered == nil {
		writes = insert(writes, Write{registryKey(n.Tenant), present})
	}
	return writes
}

func insert(writes []Write, w Write) []Write {
	at, _ := slices.BinarySearchFunc(writes, w, func(a, b Write) int { return bytes.Compare(a.Key, b.Key) })
	return slices.Insert(writes, at, w)
}

// PageNotes gives take the values of the tenant's notes from an instant and before
// another, the newest first, until it took a page of them; it returns the token of the
// next page, "" after the last. Instants that are zero are no bounds. Pages can be short
// as those of Page can.
func PageNotes(tx *Tx, req PageRequest, from, to time.Time, take func(value []byte) (bool, error)) (next string, err error) {
	lo, hi := tx.rows(spaceNote)
	start := len(lo)
	if !from.IsZero() {
		lo = bytes.Clone(tx.row(spaceNote, from.UTC()))
	}
	if !to.IsZero() {
		hi = bytes.Clone(tx.row(spaceNote, to.UTC()))
	}
	p, err := tx.openPage(req)
	if err != nil {
		return "", err
	}
	if p.place != nil {
		hi = append(bytes.Clone(lo[:start]), p.place...)
	}
	return p.turn(tx.scan(lo, hi, true), start, take)
}
