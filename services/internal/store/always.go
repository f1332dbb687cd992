package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// invariant is something that a service promises of each record of a collection.
type invariant[T proto.Message] struct {
	name  string
	check func(*Tx, T) (problem string)
}

// Broken says that a record is not what its service promises. The record itself is whole.
type Broken struct {
	Collection, ID string
	Invariant      string // its name
	Problem        string // what was found, and what was expected
}

// Error names the record and the invariant.
func (b *Broken) Error() string {
	return fmt.Sprintf("%s %q breaks %q: %s", b.Collection, b.ID, b.Invariant, b.Problem)
}

// Always declares what is true of every record of the collection whenever a transaction has
// committed, by itself or together with what the tenant has beside it. The check says what was
// found and what was expected, or nothing if all is well; [DB.Verify] asks it about each record,
// all that it reads being of one revision. So it must hold also while something goes on that
// takes several transactions, except that nothing is expected of a tenant that is being erased,
// or in which something is being imported.
//
// The check changes nothing, its record neither, and reads little: what an index has of the
// record, not all that there is. Like an index, an invariant is declared before the schema is
// opened. It returns the collection.
func (c *Collection[T]) Always(name string, check func(tx *Tx, v T) (problem string)) *Collection[T] {
	c.checkInvariant(name)
	c.always = append(c.always, invariant[T]{name, check})
	return c
}

// Refers declares that a field of every record is empty, or the id of a record of one of the
// collections.
func (c *Collection[T]) Refers(field string, id func(T) string, to ...declared) *Collection[T] {
	names := make([]string, len(to))
	for i, of := range to {
		names[i] = of.Name()
	}
	return c.Always(field, func(tx *Tx, v T) string {
		named := id(v)
		if named == "" {
			return ""
		}
		for _, of := range to {
			if of.Has(tx, named) {
				return ""
			}
		}
		return fmt.Sprintf("there is no %s %q", strings.Join(names, " or "), named)
	})
}

func (c *Collection[T]) checkInvariant(name string) {
	if c.schema != nil && c.schema.opened.Load() {
		panic("store: invariant " + name + " of " + c.name + " is declared after its schema was opened")
	}
	if slices.Contains(c.invariants(), name) {
		panic("store: invariant " + name + " of " + c.name + " is declared twice")
	}
}

// invariants returns the names of what the collection has declared.
func (c *Collection[T]) invariants() (names []string) {
	for _, i := range c.always {
		names = append(names, i.name)
	}
	for _, t := range c.tallies {
		names = append(names, t.name)
	}
	return names
}

// Invariants returns what the collections have declared with Always, Refers and Counts, each as
// the collection's name, a slash and its own.
func (s *Schema) Invariants() (names []string) {
	for _, c := range s.collections {
		for _, name := range c.invariants() {
			names = append(names, c.Name()+"/"+name)
		}
	}
	return names
}

// PurgesDeleted is for Always: a record has the time when it is purged if it is deleted, and only
// then.
func PurgesDeleted[T interface {
	proto.Message
	GetDeleteTime() *timestamppb.Timestamp
	GetPurgeTime() *timestamppb.Timestamp
}](_ *Tx, v T) string {
	switch deleted, purged := v.GetDeleteTime() != nil, v.GetPurgeTime() != nil; {
	case deleted && !purged:
		return "it has a delete_time, and no purge_time"
	case purged && !deleted:
		return "it has a purge_time, and no delete_time"
	}
	return ""
}

// broken returns which invariants a record breaks, joined.
func (c *Collection[T]) broken(tx *Tx, v T, id string) error {
	var all []error
	for _, i := range c.always {
		problem := i.check(tx, v)
		if tx.err != nil { // it may have seen half of what there is
			return tx.err
		}
		if problem != "" {
			all = append(all, &Broken{c.name, id, i.name, problem})
		}
	}
	if len(all) > 0 && tx.arriving() {
		return nil
	}
	return errors.Join(all...)
}

// arriving reports whether something is being imported into the tenant: it comes in several
// transactions.
func (tx *Tx) arriving() bool {
	lo, hi := tx.rows(spaceArrival)
	for p := range tx.scan(lo, hi, false) {
		noted := &storepb.Arrival{}
		if err := proto.Unmarshal(p.Value, noted); err != nil {
			tx.fail("decode arrival", err)
			return false
		}
		if len(noted.GetChecksum()) > 0 && !noted.GetComplete() {
			return true
		}
	}
	return false
}

// several returns the errors that are joined in one.
func several(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// tally is a number in records that tells how many records of another collection name them.
type tally struct {
	name    string
	of      string // the other collection
	add     func(counts map[string]int64, value []byte) error
	compare func(tx *Tx, counts map[string]int64) []error
}

// mostCounted bounds the numbers that are counted at a time. Of more nothing is said.
const mostCounted = 200_000

// Counts declares that every record of c has the number of those records of another collection
// which name it. [DB.Verify] counts them in many short reads, and again if one of them changes
// meanwhile; if they always do, it says nothing.
func Counts[T, U proto.Message](c *Collection[T], name string, count func(T) int64, of *Collection[U], by func(U) string) *Collection[T] {
	c.checkInvariant(name)
	c.tallies = append(c.tallies, tally{
		name: name, of: of.name,
		add: func(counts map[string]int64, value []byte) error {
			v, err := of.Decode(value)
			if id := by(v); err == nil && id != "" {
				counts[id]++
			}
			return err
		},
		compare: func(tx *Tx, counts map[string]int64) (all []error) {
			for v := range c.All(tx) {
				if id := c.id(v); count(v) != counts[id] {
					problem := fmt.Sprintf("it tells of %d, and there are %d %s that name it", count(v), counts[id], of.name)
					all = append(all, &Broken{c.name, id, name, problem})
				}
			}
			return all
		},
	})
	return c
}

// verifyTally reports the records of a collection whose number is not what was counted.
func (db *DB) verifyTally(ctx context.Context, tenant string, j *verifier, collection string, t tally, report func(error) error) error {
	if !j.invariants {
		return nil
	}
	for range maxSelections {
		from, err := db.revision(ctx, tenant)
		if err != nil {
			return err
		}
		counts := map[string]int64{}
		err = db.each(ctx, tenant, spaceRecord, t.of, func(_ *Tx, p Pair) error {
			if len(counts) > mostCounted {
				return nil
			}
			return t.add(counts, p.Value)
		}, func(error) error { return nil }) // that it cannot be decoded was told already
		if err != nil || len(counts) > mostCounted {
			return err
		}
		var all []error
		var to int64
		err = db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
			if all, to = t.compare(tx, counts), tx.Revision(); tx.arriving() {
				all = nil
			}
			return nil
		})
		if err != nil || len(all) == 0 {
			return err
		}
		if !db.changedBetween(ctx, tenant, from, to, collection, t.of) {
			return report(errors.Join(all...))
		}
	}
	return nil
}

func (db *DB) revision(ctx context.Context, tenant string) (revision int64, err error) {
	err = db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		revision = tx.Revision()
		return nil
	})
	return revision, err
}

// changedBetween reports whether entries after one revision, up to another, have changed records of
// some collections, as far as is known.
func (db *DB) changedBetween(ctx context.Context, tenant string, from, to int64, collections ...string) bool {
	if from == to {
		return false
	}
	for e, err := range db.Journal(ctx, tenant, from) {
		if err != nil {
			return true
		}
		if e.GetRevision() > to {
			return false
		}
		for _, c := range e.GetChanges() {
			if slices.Contains(collections, c.GetCollection()) {
				return true
			}
		}
	}
	return false
}
