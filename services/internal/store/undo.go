package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// Undo takes back every entry of a tenant's journal after a revision, and reports whether
// there were any. With 0 nothing of the tenant is left. It fails if the journal was
// compacted beyond the revision.
func (r *Replay) Undo(ctx context.Context, tenant string, to int64) (undone bool, err error) {
	if err := r.Flush(ctx); err != nil {
		return false, err
	}
	if to == 0 {
		return true, r.forget(ctx, tenant)
	}
	last, err := ReadHead(ctx, PagesOf(r.engine), tenant)
	if err != nil {
		return false, err
	}
	base, err := readBase(ctx, PagesOf(r.engine), tenant)
	if err != nil {
		return false, err
	}
	if to < base.GetRevision() {
		return false, fmt.Errorf("take %s back to revision %d: %w", tenant, to, compacted(to, base.GetRevision()))
	}
	for revision := last; revision > to; revision-- {
		if err := r.undoOne(ctx, tenant, revision, base.GetRevision()); err != nil {
			return false, fmt.Errorf("take back revision %d of %s: %w", revision, tenant, err)
		}
	}
	if last > to {
		return true, r.setBack(ctx, tenant)
	}
	return false, r.Flush(ctx)
}

// forget removes a tenant of which nothing had happened yet.
func (r *Replay) forget(ctx context.Context, tenant string) error {
	if err := r.Discard(ctx, tenant); err != nil {
		return err
	}
	for record := range r.Lost {
		if record.Tenant == tenant {
			delete(r.Lost, record)
		}
	}
	return r.write(ctx, "", Write{registryKey(tenant), nil})
}

// undoOne takes back the last entry of a journal that begins after base.
func (r *Replay) undoOne(ctx context.Context, tenant string, revision, base int64) error {
	key := tenantRow(tenant, spaceJournal, revision)
	row, err := getRow(ctx, PagesOf(r.engine), key)
	if err != nil {
		return err
	}
	if row == nil {
		return errors.New("the journal does not go back so far")
	}
	e := &storepb.JournalEntry{}
	if err := proto.Unmarshal(row, e); err != nil {
		return err
	}
	head, err := encode(&storepb.Head{Revision: revision - 1, Hash: e.GetPreviousHash()})
	if err != nil {
		return err
	}
	writes := []Write{{key, nil}, {tenantRow(tenant, spaceHead), head}}
	for _, c := range slices.Backward(e.GetChanges()) {
		writes = append(writes,
			Write{tenantRow(tenant, spaceHistory, c.GetCollection(), c.GetId(), revision), nil},
			r.become(tenant, c, c.GetOldHash(), c.OldValue, nil))
		known, err := r.knownBefore(ctx, tenant, c, revision, base)
		if err != nil {
			return err
		}
		if !known {
			writes = append(writes, Write{tenantRow(tenant, spaceHistory, c.GetCollection(), c.GetId(), base), c.GetOldHash()})
		}
	}
	for _, party := range e.GetParties() {
		writes = append(writes, Write{partyRow(tenant, party, revision), nil})
	}
	for i := range e.GetEvents() {
		writes = append(writes, Write{tenantRow(tenant, spaceEvent, revision, i), nil})
	}
	if e.GetRequestId() != "" {
		writes = append(writes, Write{answerRow(tenant, dayOf(e), e), nil})
	}
	return r.write(ctx, tenant, writes...)
}

// knownBefore reports whether the history of a record tells what it was before a change.
// It does not where the change that made it so was removed when this one was known.
func (r *Replay) knownBefore(ctx context.Context, tenant string, c *storepb.Change, revision, base int64) (bool, error) {
	if base == 0 || len(c.GetOldHash()) == 0 {
		return true, nil
	}
	history := func(revision int64) []byte {
		return tenantRow(tenant, spaceHistory, c.GetCollection(), c.GetId(), revision)
	}
	before, err := PagesOf(r.engine).Page(ctx, history(0), history(revision))
	return len(before) > 0, err
}

// setBack gives the tenant's positions the values that they had with the entries that are
// left. Events of which none tells are handled again: they had changed nothing.
func (r *Replay) setBack(ctx context.Context, tenant string) error {
	if err := r.Flush(ctx); err != nil {
		return err
	}
	pages := PagesOf(r.engine)
	unknown := map[string]bool{}
	positions := tenantRow(tenant, spacePosition)
	err := EachPage(ctx, pages, positions, after(positions), func(page []Pair) error {
		for _, row := range page {
			source, _, ok := cutString(row.Key[len(positions):])
			if !ok {
				return fmt.Errorf("row %x is malformed", row.Key)
			}
			unknown[source] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	left, err := ReadHead(ctx, pages, tenant)
	for revision := left; err == nil && revision > 0 && len(unknown) > 0; revision-- {
		row, err := getRow(ctx, pages, tenantRow(tenant, spaceJournal, revision))
		if err != nil {
			return err
		}
		if row == nil {
			break // compacted
		}
		e := &storepb.JournalEntry{}
		if err := proto.Unmarshal(row, e); err != nil {
			return err
		}
		for source, position := range e.GetPositions() {
			if !unknown[source] {
				continue
			}
			delete(unknown, source)
			if err := r.advance(ctx, tenant, map[string]int64{source: position}); err != nil {
				return err
			}
		}
	}
	for source := range unknown {
		if err := r.write(ctx, tenant, Write{tenantRow(tenant, spacePosition, source), nil}); err != nil {
			return err
		}
	}
	return r.Flush(ctx)
}

// ClampPositions sets the positions of a source's events back to where the source's
// journals end, which heads tells, and returns how many were beyond it: what the source
// will do anew would else be taken for handled.
func (r *Replay) ClampPositions(ctx context.Context, source string, heads map[string]int64) (clamped int, err error) {
	if err := r.Flush(ctx); err != nil {
		return 0, err
	}
	pages := PagesOf(r.engine)
	tenants, err := ReadTenants(ctx, pages)
	if err != nil {
		return 0, err
	}
	for _, tenant := range tenants {
		row, err := getRow(ctx, pages, tenantRow(tenant, spacePosition, source))
		if err != nil {
			return 0, err
		}
		p := &storepb.Position{}
		if err := proto.Unmarshal(row, p); err != nil {
			return 0, err
		}
		if p.GetRevision() > heads[tenant] {
			clamped++
			if err := r.advance(ctx, tenant, map[string]int64{source: heads[tenant]}); err != nil {
				return 0, err
			}
		}
	}
	return clamped, r.Flush(ctx)
}

// RestoreMethod is the method of the entry that a restore adds for lost records.
const RestoreMethod = "latchkey restore"

// GiveUp writes for each tenant that has lost records an entry that says so, as if they
// were deleted just now: else the journal would tell of records that are not there.
func (r *Replay) GiveUp(ctx context.Context, now time.Time) error {
	if err := r.Flush(ctx); err != nil {
		return err
	}
	changes := map[string][]*storepb.Change{}
	for record, hash := range r.Lost {
		changes[record.Tenant] = append(changes[record.Tenant], &storepb.Change{Collection: record.Collection, Id: record.ID, OldHash: hash})
	}
	for tenant, lost := range changes {
		slices.SortFunc(lost, func(a, b *storepb.Change) int {
			return bytes.Compare(tenantRow("", spaceRecord, a.GetCollection(), a.GetId()), tenantRow("", spaceRecord, b.GetCollection(), b.GetId()))
		})
		head := &storepb.Head{}
		row, err := getRow(ctx, PagesOf(r.engine), tenantRow(tenant, spaceHead))
		if err != nil {
			return err
		}
		if err := proto.Unmarshal(row, head); err != nil {
			return err
		}
		e := &storepb.JournalEntry{
			Revision: head.GetRevision() + 1, CommitTime: timestamppb.New(now.UTC()), Method: RestoreMethod,
			Changes: lost, PreviousHash: head.GetHash(),
		}
		e.Hash = entryHash(e)
		journal, err := encode(e)
		if err != nil {
			return err
		}
		entry := &storepb.BackupEntry{Journal: &storepb.Pair{Key: tenantRow(tenant, spaceJournal, e.GetRevision()), Value: journal}}
		if err := r.Redo(ctx, tenant, entry); err != nil {
			return err
		}
	}
	return r.Flush(ctx)
}
