package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// journalBase returns where the journal begins.
func (tx *Tx) journalBase() *storepb.Base {
	base := &storepb.Base{}
	tx.load(tx.row(spaceBase), base)
	return base
}

// base returns where the tenant's journal begins.
func (db *DB) base(ctx context.Context, tenant string) (base *storepb.Base, err error) {
	err = db.view(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
		base = tx.journalBase()
		return nil
	})
	return base, err
}

// BaseRevision returns the revision after which the tenant's journal begins: 0, unless
// it was compacted.
func (tx *Tx) BaseRevision() int64 { return tx.journalBase().GetRevision() }

// Base returns when the last entry was committed that was removed from the tenant's journal,
// and its revision; without one the zero time and 0.
func (tx *Tx) Base() (at time.Time, revision int64) {
	base := tx.journalBase()
	if base.CommitTime != nil {
		at = base.GetCommitTime().AsTime()
	}
	return at, base.GetRevision()
}

// Retention returns how long the tenant's journal is kept.
func (tx *Tx) Retention() Retention {
	base := tx.journalBase()
	return Retention{Values: time.Duration(base.GetKeepValuesDays()) * day, Entries: time.Duration(base.GetKeepEntriesDays()) * day}
}

// SetRetention says how long the tenant's journal is kept, in whole days. It takes no
// revision by itself.
func (tx *Tx) SetRetention(keep Retention) {
	tx.mustWrite()
	base := tx.journalBase()
	base.KeepValuesDays, base.KeepEntriesDays = int32(keep.Values/day), int32(keep.Entries/day)
	tx.save(tx.row(spaceBase), base)
}

// checkKept returns an error if entries after the revision were removed.
func (tx *Tx) checkKept(revision int64) error {
	if base := tx.journalBase().GetRevision(); revision < base {
		return compacted(revision, base)
	}
	return nil
}

// compacted says that a revision is no longer kept.
func compacted(revision, base int64) error {
	return fault.New(codes.OutOfRange, faultpb.Reason_REASON_JOURNAL_COMPACTED,
		fmt.Sprintf("the journal no longer tells of revision %d: it begins after %d", revision, base),
		map[string]string{"revision": strconv.FormatInt(revision, 10), "base_revision": strconv.FormatInt(base, 10)})
}

// entryIsGone tells of a history row whether its entry was removed. Then it has the
// hash that the record had after it.
func (tx *Tx) entryIsGone(row Pair) bool { return len(row.Value) > 0 }
