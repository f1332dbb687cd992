package store

import (
	"bytes"
	"context"
	"fmt"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// eraseBatch is how many rows one transaction of EraseTenant removes.
const eraseBatch = 200

// EraseMethod is the method of the entries by which EraseTenant removes records, as long as the
// journal has them.
const EraseMethod = "latchkey erase"

// EraseTenant removes some of what there is of a tenant, and reports whether there may be
// more: first the records, which the journal is told of as of any change, then the entries
// of the journal with their events, then the answers, notes and uses of its calls, and the claim of its import. Others
// may write meanwhile, and what they write goes too.
//
// What stays is that the tenant was there: the revision and the hash with which its
// journal ends, so that it still verifies and none who has read up to there takes an
// entry of a later life for one of this, and how far it has come with the events of others.
func (db *DB) EraseTenant(ctx context.Context, tenant string) (more bool, err error) {
	for _, erase := range []func(context.Context, string) (bool, error){db.eraseRecords, db.eraseJournal, db.eraseCalls} {
		if more, err = erase(ctx, tenant); err != nil {
			return false, fmt.Errorf("erase %s: %w", tenant, err)
		}
		if more {
			return true, nil
		}
	}
	return false, nil
}

func (db *DB) eraseRecords(ctx context.Context, tenant string) (more bool, err error) {
	err = db.update(ctx, Origin{Tenant: tenant, Method: EraseMethod}, func(tx *Tx) error {
		n := 0
		for _, c := range db.schema.collections {
			n += c.deleteSome(tx, eraseBatch-n)
		}
		more = n > 0
		return nil
	})
	return more, err
}

// deleteSome deletes the first records, as many as are wanted at most, and returns how
// many there were.
func (c *Collection[T]) deleteSome(tx *Tx, most int) (n int) {
	for v := range c.All(tx) {
		if n == most {
			break
		}
		c.Delete(tx, c.id(v))
		n++
	}
	return n
}

// eraseJournal removes the entries that there are when it begins, some of them.
func (db *DB) eraseJournal(ctx context.Context, tenant string) (more bool, err error) {
	last := int64(-1)
	done, err := db.compact(ctx, tenant, func(tx *Tx, base *storepb.Base) (remove, erase int64) {
		head := tx.journalHead().GetRevision()
		if last < 0 {
			last = min(head, base.GetRevision()+10*compactBatch)
		}
		more = last < head
		return last, 0
	})
	return more && done.Removed > 0, err
}

// eraseCalls removes what is kept of the tenant's calls, some of it.
func (db *DB) eraseCalls(ctx context.Context, tenant string) (more bool, err error) {
	err = db.update(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		n := 0
		for _, space := range []byte{spaceAnswer, spaceNote, spaceUse, spaceArrival} {
			lo, hi := tx.rows(space)
			for p := range tx.scan(lo, hi, false) {
				if n == eraseBatch {
					break
				}
				tx.del(bytes.Clone(p.Key))
				n++
			}
		}
		more = n > 0
		return nil
	})
	return more, err
}
