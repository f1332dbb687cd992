package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// tailEntries and tailBytes bound what ReadTail returns at a time.
const (
	tailEntries = 1000
	tailBytes   = 4 << 20
)

// ReadTail returns the next entries of a tenant's journal after a revision, each with the
// rows that were committed with it: as many as one answer should hold, and none only if
// there are none that are wanted. It ends before the first entry that is not. It returns a
// fault with the reason JOURNAL_COMPACTED if an entry after the revision was removed, or its
// values were.
func ReadTail(ctx context.Context, p Pages, tenant string, afterRevision int64, wanted func(*storepb.JournalEntry) bool) ([]*storepb.BackupEntry, error) {
	var tail []*storepb.BackupEntry
	size, next := 0, afterRevision+1
	lo, hi := tenantRow(tenant, spaceJournal, next), after(tenantRow(tenant, spaceJournal))
	errEnough, errGap := errors.New("enough"), errors.New("an entry is missing")
	err := EachPage(ctx, p, lo, hi, func(page []Pair) error {
		for _, row := range page {
			e := &storepb.JournalEntry{}
			if err := proto.Unmarshal(row.Value, e); err != nil {
				return fmt.Errorf("decode entry: %w", err)
			}
			if e.GetRevision() != next {
				return errGap
			}
			if !wanted(e) {
				return errEnough
			}
			entry, err := withRows(ctx, p, tenant, row, e)
			if err != nil {
				return err
			}
			tail, next = append(tail, entry), next+1
			if size += len(row.Value); size >= tailBytes || len(tail) == tailEntries {
				return errEnough
			}
		}
		return nil
	})
	if err != nil && err != errEnough && err != errGap {
		return nil, err
	}
	// What was read of an entry that was being removed may lack rows.
	base, baseErr := readBase(ctx, p, tenant)
	if baseErr != nil {
		return nil, baseErr
	}
	if less := max(base.GetRevision(), base.GetErasedRevision()); less > afterRevision {
		return nil, compacted(afterRevision+1, less)
	}
	if err == errGap {
		return nil, fmt.Errorf("the journal of %s has no entry %d", tenant, next)
	}
	return tail, nil
}

// withRows returns the entry with the rows of its events, of the answer that was committed
// with it, and of records whose values were erased from it and which are still the same.
func withRows(ctx context.Context, p Pages, tenant string, row Pair, e *storepb.JournalEntry) (*storepb.BackupEntry, error) {
	entry := &storepb.BackupEntry{Journal: PairOf(row)}
	take := func(page []Pair) error {
		for _, r := range page {
			entry.Rows = append(entry.Rows, PairOf(r))
		}
		return nil
	}
	if len(e.GetEvents()) > 0 {
		events := tenantRow(tenant, spaceEvent, e.GetRevision())
		if err := EachPage(ctx, p, events, after(events), take); err != nil {
			return nil, err
		}
	}
	if e.GetRequestId() != "" {
		key := answerRow(tenant, dayOf(e), e)
		if err := EachPage(ctx, p, key, append(bytes.Clone(key), 0), take); err != nil {
			return nil, err
		}
	}
	for _, c := range e.GetChanges() {
		if len(c.GetNewHash()) == 0 || c.NewValue != nil {
			continue
		}
		key := tenantRow(tenant, spaceRecord, c.GetCollection(), c.GetId())
		record, err := getRow(ctx, p, key)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(sum(record), c.GetNewHash()) {
			entry.Rows = append(entry.Rows, &storepb.Pair{Key: key, Value: record})
		}
	}
	return entry, nil
}

// answerRow returns the key of the answer of a day that was committed with an entry.
func answerRow(tenant string, day int64, e *storepb.JournalEntry) []byte {
	key := Key{day, e.GetCaller(), e.GetMethod(), e.GetRequestId()}
	if party := e.GetRequestParty(); party != "" {
		key = append(key, party)
	}
	return tenantRow(tenant, spaceAnswer, key...)
}

// dayOf numbers the day of an entry.
func dayOf(e *storepb.JournalEntry) int64 {
	return e.GetCommitTime().GetSeconds() / int64(day/time.Second)
}

// ReadLoose gives take the rows of a tenant that belong to no entry: notes from an instant
// on, and uses from its day on.
func ReadLoose(ctx context.Context, p Pages, tenant string, from time.Time, take func([]Pair) error) error {
	since := from.UTC()
	for _, r := range [][2][]byte{
		{tenantRow(tenant, spaceNote, since), after(tenantRow(tenant, spaceNote))},
		{tenantRow(tenant, spaceUse, since.Unix()/int64(day/time.Second)), after(tenantRow(tenant, spaceUse))},
	} {
		if err := EachPage(ctx, p, r[0], r[1], take); err != nil {
			return err
		}
	}
	return nil
}

// PairOf returns a row as it is in a backup.
func PairOf(p Pair) *storepb.Pair { return &storepb.Pair{Key: p.Key, Value: p.Value} }
