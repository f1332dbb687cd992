package store

import (
	"bytes"
	"context"
	"fmt"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// VerifyRecords returns an error that names a record of the tenant which is not what
// the journal says of it, or not in its indexes as its keys are, or an entry of an
// index that stands for no such record. Others may write meanwhile.
func (db *DB) VerifyRecords(ctx context.Context, tenant string) error {
	return db.verifyRows(ctx, tenant, &verifier{}, func(wrong error) error { return wrong }, func() {})
}

// verify checks a record against its key, its index entries and the journal, and if that is asked
// for, what its service promises of it.
func (c *Collection[T]) verify(j *verifier, tx *Tx, record Pair) error {
	v, ok := c.decode(tx, record.Value)
	if !ok {
		return tx.err
	}
	id := c.id(v)
	if !bytes.Equal(record.Key, tx.under(c.prefix, id)) {
		return fmt.Errorf("%s %q is kept under another id", c.name, id)
	}
	for _, ix := range c.indexes {
		for _, key := range ix.entries(tx, v, id) {
			if found := tx.get(key); found == nil || !bytes.Equal(found, ix.value(id)) {
				return fmt.Errorf("%s %q has no entry %x in index %s", c.name, id, key, ix.short)
			}
		}
	}
	said, err := j.newest(tx, c.name, id)
	if err != nil {
		return err
	}
	if !bytes.Equal(said, sum(record.Value)) {
		return fmt.Errorf("%s %q is not what the journal says of it", c.name, id)
	}
	if !j.invariants {
		return nil
	}
	return c.broken(tx, v, id)
}

// counted returns what the collection has declared of its numbers.
func (c *Collection[T]) counted() []tally { return c.tallies }

// verifyGone checks that a record which the journal knows is there, if that does not say
// that it was deleted.
func (c *Collection[T]) verifyGone(j *verifier, tx *Tx, history Pair) error {
	lo, _ := tx.rows(spaceHistory, c.name)
	id, _, ok := cutString(history.Key[len(lo):])
	if !ok {
		return fmt.Errorf("row %x is malformed", history.Key)
	}
	if tx.get(tx.under(c.prefix, id)) != nil {
		return nil
	}
	said, err := j.newest(tx, c.name, id)
	if err == nil && said != nil {
		err = fmt.Errorf("%s %q is missing", c.name, id)
	}
	return err
}

// verifier remembers what entries of the journal say that were read: one entry may have
// changed many records, and those are not beside each other.
type verifier struct {
	invariants bool // whether they are asked for

	said  map[int64]map[[2]string][]byte // hashes by revision, and by collection and id
	count int                            // of the hashes

	seen   int64 // the last revision that was looked at for whether the tenant is being erased
	erased bool
}

// see looks at an entry of the journal for whether the tenant is being erased.
func (j *verifier) see(e *storepb.JournalEntry) {
	j.seen, j.erased = e.GetRevision(), j.erased || e.GetMethod() == EraseMethod
}

// mostSaid bounds the hashes that a verifier remembers.
const mostSaid = 200_000

// newest returns the hash that the journal has of a record last, nil if that was deleted.
func (j *verifier) newest(tx *Tx, collection, id string) ([]byte, error) {
	lo, hi := tx.rows(spaceHistory, collection, id)
	for p := range tx.scan(lo, hi, true) {
		if tx.entryIsGone(p) {
			return bytes.Clone(p.Value), nil
		}
		if hash, ok := j.entry(tx, p.Key[len(lo):])[[2]string{collection, id}]; ok {
			return hash, nil
		}
		break
	}
	return nil, fmt.Errorf("%s %q is not in the journal", collection, id)
}

// entry returns the hashes of the entry that the rest of a history row's key names.
func (j *verifier) entry(tx *Tx, key []byte) map[[2]string][]byte {
	revision, _, _ := cutInt(key)
	if hashes, ok := j.said[revision]; ok {
		return hashes
	}
	changes := tx.historyEntry(key).GetChanges()
	hashes := make(map[[2]string][]byte, len(changes))
	for _, c := range changes {
		hashes[[2]string{c.GetCollection(), c.GetId()}] = c.GetNewHash()
	}
	if len(changes) < 2 {
		return hashes // nobody else asks for it
	}
	if j.said == nil || j.count+len(changes) > mostSaid {
		j.said, j.count = map[int64]map[[2]string][]byte{}, 0
	}
	j.said[revision] = hashes
	j.count += len(changes)
	return hashes
}

// verify checks that an entry stands for a record that has it.
func (b indexBuilder[T]) verify(_ *verifier, tx *Tx, entry Pair) error {
	id, ok := b.idOf(tx, entry)
	if !ok {
		return fmt.Errorf("entry %x of %s is malformed", entry.Key, b.name)
	}
	v, ok := b.c.Get(tx, id)
	if ok && contains(b.entries(tx, v, id), entry.Key) {
		return nil
	}
	return fmt.Errorf("entry %x of %s stands for %q, which has none such", entry.Key, b.name, id)
}
