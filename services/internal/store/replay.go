package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// Replay puts the rows of a backup into an engine that is empty. Until Finish the data
// carries a mark, with which no DB opens it.
type Replay struct {
	engine Engine
	tenant string // of batch
	batch  []Write
	size   int
	unseen bool // the tenant gets on no list, and nobody hears of what is written

	// Lost are the records that the data should have and whose values were erased, with
	// the hash of what each was.
	Lost map[Record][]byte
}

// Record names a record of a tenant.
type Record struct{ Tenant, Collection, ID string }

// replayPairs and replayBytes bound what one Update writes.
const (
	replayPairs = 10_000
	replayBytes = 8 << 20
)

var errNotEmpty = errors.New("there is data already: it is never overwritten")

// NewReplay begins. It refuses an engine with data in it, unless that is what a Replay
// that was interrupted has left, which it removes.
func NewReplay(ctx context.Context, e Engine) (*Replay, error) {
	r := &Replay{engine: e, Lost: map[Record][]byte{}}
	pages := PagesOf(e)
	lo, hi := Everything()
	some, err := pages.Page(ctx, lo, hi)
	if err != nil {
		return nil, err
	}
	if len(some) > 0 {
		mark, err := getRow(ctx, pages, unfinishedKey)
		if err != nil {
			return nil, err
		}
		if mark == nil {
			return nil, errNotEmpty
		}
		if err := r.remove(ctx, lo, hi, unfinishedKey); err != nil {
			return nil, err
		}
	}
	return r, r.write(ctx, "", Write{unfinishedKey, present})
}

// Discard removes everything of a tenant.
func (r *Replay) Discard(ctx context.Context, tenant string) error {
	if err := r.Flush(ctx); err != nil {
		return err
	}
	lo, hi := OfTenant(tenant)
	return r.remove(ctx, lo, hi, nil)
}

// remove deletes all rows of a range but one.
func (r *Replay) remove(ctx context.Context, lo, hi, except []byte) error {
	err := EachPage(ctx, PagesOf(r.engine), lo, hi, func(page []Pair) error {
		for _, row := range page {
			if bytes.Equal(row.Key, except) {
				continue
			}
			if err := r.write(ctx, tenantOf(row.Key), Write{row.Key, nil}); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, r.Flush(ctx))
}

// tenantOf returns whose row a key is of, "" if of none.
func tenantOf(key []byte) string {
	tenant, _, _ := cutString(key)
	return tenant
}

// write adds to the batch.
func (r *Replay) write(ctx context.Context, tenant string, writes ...Write) error {
	if tenant != r.tenant {
		if err := r.Flush(ctx); err != nil {
			return err
		}
		r.tenant = tenant
	}
	for _, w := range writes {
		r.batch = append(r.batch, w)
		r.size += len(w.Key) + len(w.Value)
	}
	if len(r.batch) >= replayPairs || r.size >= replayBytes {
		return r.Flush(ctx)
	}
	return nil
}

// Flush commits what was put so far. Of several writes of a key the last counts.
func (r *Replay) Flush(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	o := Origin{Tenant: r.tenant}
	if r.unseen {
		o.Tenant = ""
	}
	ctx = WithOrigin(ctx, o)
	batch := lastOfEach(r.batch)
	r.batch, r.size = nil, 0
	return r.engine.Update(ctx, func(Snapshot) ([]Write, error) { return batch, nil })
}

// lastOfEach returns the last write of each key, in the order of the keys.
func lastOfEach(batch []Write) []Write {
	slices.SortStableFunc(batch, func(a, b Write) int { return bytes.Compare(a.Key, b.Key) })
	last := batch[:0]
	for i, w := range batch {
		if i+1 == len(batch) || !bytes.Equal(w.Key, batch[i+1].Key) {
			last = append(last, w)
		}
	}
	return last
}

// Put puts rows of a tenant, or of none.
func (r *Replay) Put(ctx context.Context, tenant string, rows []*storepb.Pair) error {
	if tenant != "" && len(rows) > 0 && !r.unseen { // it may have come after the rows of none were read
		if err := r.write(ctx, tenant, Write{registryKey(tenant), present}); err != nil {
			return err
		}
	}
	for _, row := range rows {
		if tenantOf(row.GetKey()) != tenant {
			return fmt.Errorf("row %x is not of tenant %q", row.GetKey(), tenant)
		}
		value := row.GetValue()
		if ofProcesses(row.GetKey()) {
			continue
		}
		if bytes.Equal(row.GetKey(), schemaKey) {
			var err error
			if value, err = withoutIndexes(value); err != nil {
				return err
			}
		}
		if err := r.write(ctx, tenant, Write{row.GetKey(), given(value)}); err != nil {
			return err
		}
	}
	return nil
}

// ofProcesses reports whether a row tells of the processes that have a store, or which one
// it is. Those of another store are no concern of a copy.
func ofProcesses(key []byte) bool {
	if bytes.HasPrefix(key, countedRows) || bytes.Equal(key, idKey) {
		return true
	}
	return bytes.HasPrefix(key, beatPrefix) || bytes.HasPrefix(key, claimPrefix) || bytes.HasPrefix(key, fencePrefix) || bytes.Equal(key, listKey)
}

// given returns a value that is there, since none would delete.
func given(value []byte) []byte {
	if value == nil {
		return present
	}
	return value
}

// withoutIndexes returns a schema's row that says that no index is on disk.
func withoutIndexes(row []byte) ([]byte, error) {
	s := &storepb.Schema{}
	if err := proto.Unmarshal(row, s); err != nil {
		return nil, fmt.Errorf("decode schema: %w", err)
	}
	if s.GetFormat() > format {
		return nil, newer(s)
	}
	s.Indexes = nil
	return encode(s)
}

// Entry decodes the journal's entry of a revision.
func Entry(e *storepb.BackupEntry) (*storepb.JournalEntry, error) {
	entry := &storepb.JournalEntry{}
	if err := proto.Unmarshal(e.GetJournal().GetValue(), entry); err != nil {
		return nil, fmt.Errorf("decode entry: %w", err)
	}
	return entry, nil
}

// Redo does again what an entry of the tenant's journal says was done.
func (r *Replay) Redo(ctx context.Context, tenant string, e *storepb.BackupEntry) error {
	entry, err := Entry(e)
	if err != nil {
		return err
	}
	for _, row := range append(slices.Clone(e.GetRows()), e.GetJournal()) {
		if tenantOf(row.GetKey()) != tenant {
			return fmt.Errorf("row %x is not of tenant %q", row.GetKey(), tenant)
		}
	}
	head, err := encode(&storepb.Head{Revision: entry.GetRevision(), Hash: entry.GetHash()})
	if err != nil {
		return err
	}
	writes := []Write{
		{e.GetJournal().GetKey(), given(e.GetJournal().GetValue())},
		{tenantRow(tenant, spaceHead), head},
	}
	if !r.unseen {
		writes = append(writes, Write{registryKey(tenant), present})
	}
	for _, row := range e.GetRows() {
		writes = append(writes, Write{row.GetKey(), given(row.GetValue())})
	}
	for _, c := range entry.GetChanges() {
		writes = append(writes,
			Write{tenantRow(tenant, spaceHistory, c.GetCollection(), c.GetId(), entry.GetRevision()), present},
			r.become(tenant, c, c.GetNewHash(), c.NewValue, e.GetRows()))
	}
	for _, party := range entry.GetParties() {
		writes = append(writes, Write{partyRow(tenant, party, entry.GetRevision()), present})
	}
	if err := r.write(ctx, tenant, writes...); err != nil {
		return err
	}
	if err := r.advance(ctx, tenant, entry.GetPositions()); err != nil {
		return err
	}
	return r.eraseAgain(ctx, tenant, entry)
}

// become returns the write that gives a record the value that it has before or after a
// change. If it was erased it may be among the rows beside the entry; else the record
// is lost.
func (r *Replay) become(tenant string, c *storepb.Change, hash, value []byte, rows []*storepb.Pair) Write {
	key := tenantRow(tenant, spaceRecord, c.GetCollection(), c.GetId())
	if len(hash) > 0 && value == nil {
		for _, row := range rows {
			if bytes.Equal(row.GetKey(), key) {
				value = given(row.GetValue())
			}
		}
	}
	record := Record{tenant, c.GetCollection(), c.GetId()}
	delete(r.Lost, record)
	if len(hash) > 0 && value == nil {
		r.Lost[record] = hash
	}
	return Write{key, value}
}

// advance sets positions that an entry tells of.
func (r *Replay) advance(ctx context.Context, tenant string, positions map[string]int64) error {
	for source, revision := range positions {
		row, err := encode(&storepb.Position{Revision: revision})
		if err != nil {
			return err
		}
		if err := r.write(ctx, tenant, Write{tenantRow(tenant, spacePosition, source), row}); err != nil {
			return err
		}
	}
	return nil
}

// eraseAgain erases the values of records before an entry that has lost its own: they were
// erased together.
func (r *Replay) eraseAgain(ctx context.Context, tenant string, entry *storepb.JournalEntry) error {
	for _, c := range entry.GetChanges() {
		erased := len(c.GetOldHash()) > 0 && c.OldValue == nil || len(c.GetNewHash()) > 0 && c.NewValue == nil
		if !erased {
			continue
		}
		if err := r.Flush(ctx); err != nil {
			return err
		}
		history := tenantRow(tenant, spaceHistory, c.GetCollection(), c.GetId())
		err := EachPage(ctx, PagesOf(r.engine), history, after(history), func(page []Pair) error {
			for _, row := range page {
				revision, _, ok := cutInt(row.Key[len(history):])
				if ok && revision < entry.GetRevision() {
					if err := r.eraseIn(ctx, tenant, revision, c); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eraseIn erases the values of a record from one entry.
func (r *Replay) eraseIn(ctx context.Context, tenant string, revision int64, erased *storepb.Change) error {
	key := tenantRow(tenant, spaceJournal, revision)
	row, err := getRow(ctx, PagesOf(r.engine), key)
	if err != nil || row == nil {
		return err
	}
	e := &storepb.JournalEntry{}
	if err := proto.Unmarshal(row, e); err != nil {
		return err
	}
	for _, c := range e.GetChanges() {
		if c.GetCollection() == erased.GetCollection() && c.GetId() == erased.GetId() {
			c.OldValue, c.NewValue = nil, nil
		}
	}
	if row, err = encode(e); err != nil {
		return err
	}
	if err := r.write(ctx, tenant, Write{key, row}); err != nil {
		return err
	}
	return r.Flush(ctx)
}

// Finish takes the mark away: from now on the data can be opened.
func (r *Replay) Finish(ctx context.Context) error {
	if err := r.write(ctx, "", Write{unfinishedKey, nil}); err != nil {
		return err
	}
	return r.Flush(ctx)
}
