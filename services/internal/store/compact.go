package store

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// Retention is how long a journal is kept; 0 is for ever.
type Retention struct {
	Values  time.Duration // of records before and after a change
	Entries time.Duration // with their events
}

// Compaction is what Compact did to a journal.
type Compaction struct {
	Removed int64 // entries
	Erased  int64 // entries of which the values were erased
	Base    int64 // the revision after which the journal begins now
}

// compactBatch is how many entries one transaction of Compact works on.
const compactBatch = 100

// Compact removes the entries of the tenant's journal that are older than they are kept,
// with their events, and erases the values of those that are kept without. It takes no
// revision. The chain still verifies from where the journal then begins. Others may write
// meanwhile, and a Compact that is interrupted goes on with the next.
//
// Of each record that is there, the hash after its last change stays, so that
// VerifyRecords still knows it.
func (db *DB) Compact(ctx context.Context, tenant string, keep Retention) (Compaction, error) {
	return db.compact(ctx, tenant, func(tx *Tx, base *storepb.Base) (remove, erase int64) {
		return tx.expired(keep.Entries, base.GetRevision()), tx.expired(keep.Values, max(base.GetErasedRevision(), base.GetRevision()))
	})
}

// CompactTo is Compact for the entries up to a revision, whatever their age.
func (db *DB) CompactTo(ctx context.Context, tenant string, revision int64) (Compaction, error) {
	return db.compact(ctx, tenant, func(tx *Tx, _ *storepb.Base) (remove, erase int64) {
		return min(revision, tx.journalHead().GetRevision()), 0
	})
}

// expired returns the last revision after from that is older than the time for which it is
// kept, from if there is none.
func (tx *Tx) expired(life time.Duration, from int64) int64 {
	if life == 0 || from >= tx.journalHead().GetRevision() {
		return from
	}
	return tx.revisionAt(tx.now.Add(-life), from)
}

// compact removes and erases, batch by batch, up to the revisions that upTo returns.
func (db *DB) compact(ctx context.Context, tenant string, upTo func(*Tx, *storepb.Base) (remove, erase int64)) (done Compaction, err error) {
	for more := true; more; {
		var removed, erased int64
		err := db.update(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
			base := tx.journalBase()
			remove, erase := upTo(tx, base)
			removed = tx.removeTo(base, min(remove, base.GetRevision()+compactBatch))
			erased = tx.eraseTo(base, erase, compactBatch-removed)
			if removed+erased > 0 {
				tx.save(tx.row(spaceBase), base)
			}
			done.Base = base.GetRevision()
			return nil
		})
		if err != nil {
			return done, fmt.Errorf("compact journal of %s: %w", tenant, err)
		}
		done.Removed += removed
		done.Erased += erased
		more = removed+erased > 0
	}
	if done.Removed > 0 {
		err = db.dropParties(ctx, tenant, done.Base)
	}
	return done, err
}

// removeTo removes the entries up to a revision and returns how many.
func (tx *Tx) removeTo(base *storepb.Base, last int64) (n int64) {
	for r := base.GetRevision() + 1; r <= last; r++ {
		e := tx.loadEntry(r)
		if e == nil {
			return 0
		}
		tx.remove(e, base)
		n++
	}
	return n
}

// eraseTo erases the values of the entries up to a revision, and returns of how many.
func (tx *Tx) eraseTo(base *storepb.Base, last, most int64) (n int64) {
	base.ErasedRevision = max(base.GetErasedRevision(), base.GetRevision())
	for r := base.GetErasedRevision() + 1; r <= last && n < most; r++ {
		e := tx.loadEntry(r)
		if e == nil {
			return 0
		}
		for _, c := range e.GetChanges() {
			c.OldValue, c.NewValue = nil, nil
		}
		tx.save(tx.row(spaceJournal, r), e)
		base.ErasedRevision = r
		n++
	}
	return n
}

// remove removes the next entry, and makes it the base.
func (tx *Tx) remove(e *storepb.JournalEntry, base *storepb.Base) {
	r := e.GetRevision()
	for i, ev := range e.GetEvents() {
		tx.del(tx.row(spaceEvent, r, i))
		if base.DroppedEvents == nil {
			base.DroppedEvents = map[string]int64{}
		}
		base.DroppedEvents[ev.GetType()] = r
	}
	for _, c := range e.GetChanges() {
		tx.forgetChange(c, r)
	}
	tx.del(tx.row(spaceJournal, r))
	base.Revision, base.Hash, base.CommitTime = r, e.GetHash(), e.GetCommitTime()
}

// forgetChange removes the history row of a change and those before it. If it is the last
// of a record that is there, its row stays with the hash of the record.
func (tx *Tx) forgetChange(c *storepb.Change, revision int64) {
	lo, hi := tx.rows(spaceHistory, c.GetCollection(), c.GetId())
	own := bytes.Clone(tx.row(spaceHistory, c.GetCollection(), c.GetId(), revision))
	last := true
	for p := range tx.scan(lo, hi, true) {
		switch bytes.Compare(p.Key, own) {
		case 1:
			last = false
		case 0:
			if last && len(c.GetNewHash()) > 0 {
				tx.put(own, c.GetNewHash())
				continue
			}
			fallthrough
		default:
			tx.del(bytes.Clone(p.Key))
		}
	}
}

// dropParties removes the rows that say to which organizations removed entries belonged.
func (db *DB) dropParties(ctx context.Context, tenant string, base int64) error {
	after := ""
	for {
		more := false
		err := db.update(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
			more = tx.dropParty(&after, base)
			return nil
		})
		if err != nil || !more {
			return err
		}
	}
}

// dropParty removes some rows of the first organization after one, and reports whether
// there was one. It goes on to the next when none is left.
func (tx *Tx) dropParty(after *string, base int64) bool {
	lo, hi := tx.rows(spaceHistory, partyRows)
	start := len(lo)
	if *after != "" {
		_, lo = tx.rows(spaceHistory, partyRows, *after)
	}
	party, ok := tx.firstID(lo, hi, start)
	if !ok {
		return false
	}
	lo, _ = tx.rows(spaceHistory, partyRows, party)
	hi = bytes.Clone(tx.row(spaceHistory, partyRows, party, base+1))
	n := 0
	for p := range tx.scan(lo, hi, false) {
		tx.del(bytes.Clone(p.Key))
		if n++; n == chunk {
			return true
		}
	}
	*after = party
	return true
}

// Lost returns the last revision, of those after one, of which an event of the types was
// removed before it could be read, or 0. No types are all.
func (db *DB) Lost(ctx context.Context, tenant string, types []string, afterRevision int64) (lost int64, err error) {
	base, err := db.base(ctx, tenant)
	if len(types) == 0 {
		for typ := range maps.Keys(base.GetDroppedEvents()) {
			types = append(types, typ)
		}
	}
	for _, typ := range types {
		if r := base.GetDroppedEvents()[typ]; r > afterRevision {
			lost = max(lost, r)
		}
	}
	return lost, err
}
