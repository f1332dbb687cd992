package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"gocloud.dev/blob"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Store is a store to be backed up.
type Store struct {
	Service string
	Pages   store.Pages
	// Schema is what it keeps; only an export needs it.
	Schema *store.Schema
}

// Counts are how much was moved.
type Counts struct {
	Pairs   int64 `json:"pairs"`
	Entries int64 `json:"entries"`
	Blobs   int64 `json:"blobs"`
	Bytes   int64 `json:"bytes"`
	// Records are those of tenants that organizations share.
	Records int64 `json:"records,omitempty"`
}

// Taking is the taking of a backup.
type Taking struct {
	Stores []Store
	// Blobs are the stores of blobs to take along, by service; nil for none.
	Blobs map[string]*blob.Bucket
	// Tenant is the only one that is wanted; empty for all.
	Tenant string
	// Export takes along what the tenant, an organization, has in tenants that it shares
	// with others; nil for a backup.
	Export *Export
	// Now is the clock of the processes.
	Now func() time.Time
	// Progress is called now and then; it may be nil.
	Progress func(Counts)

	taken
	before taken // the last TakeMore
	counts Counts
	begun  time.Time
	least  map[string]map[string]int64 // revision up to which a tenant must be taken, by service
}

// taken is how far a backup and its segments go.
type taken struct {
	last map[string]map[string]int64 // revision up to which a tenant was taken, by service
	sum  []byte                      // of the last chunk
	cut  time.Time
}

// Cut returns the instant to which what was taken is complete.
func (t *Taking) Cut() time.Time { return t.cut }

// Take writes a backup of everything.
func (t *Taking) Take(ctx context.Context, to io.Writer) (Counts, error) {
	t.last, t.least, t.begun, t.counts = map[string]map[string]int64{}, map[string]map[string]int64{}, t.Now(), Counts{}
	header := &storepb.BackupHeader{
		Format: Format, CreateTime: timestamppb.New(t.begun), Blobs: t.Blobs != nil, Tenant: t.Tenant,
	}
	for _, s := range t.Stores {
		header.Services = append(header.Services, s.Service)
	}
	if t.Export != nil {
		header.Export = t.Export.header()
	}
	w, err := NewWriter(to, header)
	if err != nil {
		return t.counts, err
	}
	for _, s := range t.Stores {
		if err := t.rows(ctx, w, s); err != nil {
			return t.counts, fmt.Errorf("read the store of %s: %w", s.Service, err)
		}
	}
	if err := t.allTails(ctx, w, t.begun, t.tenants); err != nil {
		return t.counts, err
	}
	if err := t.records(ctx, w); err != nil {
		return t.counts, err
	}
	if err := t.blobs(ctx, w); err != nil {
		return t.counts, err
	}
	return t.counts, t.end(w)
}

// TakeMore writes what was committed since the last Take or TakeMore to the tenants that
// are named, by service. Its file continues the one before. If it fails, it was as if it
// had not been called.
func (t *Taking) TakeMore(ctx context.Context, to io.Writer, changed map[string][]string) (Counts, error) {
	t.before = taken{maps.Clone(t.last), t.sum, t.cut}
	for service, last := range t.last {
		t.before.last[service] = maps.Clone(last)
	}
	counts, err := t.takeMore(ctx, to, changed)
	if err != nil {
		t.Forget()
	}
	return counts, err
}

// Forget makes it as if the last TakeMore had not been called: what it wrote was not kept.
func (t *Taking) Forget() { t.taken = t.before }

func (t *Taking) takeMore(ctx context.Context, to io.Writer, changed map[string][]string) (Counts, error) {
	since := t.cut
	t.counts = Counts{}
	w, err := NewWriter(to, &storepb.BackupHeader{Format: Format, CreateTime: timestamppb.New(t.Now()), Follows: t.sum, Tenant: t.Tenant})
	if err != nil {
		return t.counts, err
	}
	err = t.allTails(ctx, w, since, func(_ context.Context, s Store) ([]string, error) { return changed[s.Service], nil })
	if err != nil {
		return t.counts, err
	}
	return t.counts, t.end(w)
}

// maxAgain bounds how often tenants are read again whose journals lose what is not yet read.
const maxAgain = 10

// allTails writes the entries of the tenants of each store up to one instant. A tenant whose
// journal was compacted so far that some are gone is read again, and then all are taken to a
// later instant.
func (t *Taking) allTails(ctx context.Context, w *Writer, since time.Time, tenants func(context.Context, Store) ([]string, error)) error {
	for n, again := 0, true; again; n++ {
		if n == maxAgain {
			return errors.New("journals are compacted faster than they are read")
		}
		t.cut, again = t.Now(), false
		for _, s := range t.Stores {
			names, err := tenants(ctx, s)
			if err != nil {
				return fmt.Errorf("read the tenants of %s: %w", s.Service, err)
			}
			for _, tenant := range names {
				err := t.tail(ctx, w, s, tenant, since)
				if f, ok := errors.AsType[*fault.Error](err); ok && f.Reason == faultpb.Reason_REASON_JOURNAL_COMPACTED {
					again, err = true, t.tenant(ctx, w, s, tenant)
				}
				if err != nil {
					return fmt.Errorf("read the journals of %s: %w", s.Service, err)
				}
			}
		}
	}
	return nil
}

func (t *Taking) end(w *Writer) error {
	end := &storepb.BackupEnd{Cut: timestamppb.New(t.cut), Pairs: t.counts.Pairs, Entries: t.counts.Entries, Blobs: t.counts.Blobs}
	if t.Export != nil {
		end.Records, end.Revisions, end.SharedRevisions = t.counts.Records, t.revisions(), t.Export.revisions
	}
	err := w.Write(&storepb.BackupChunk{Kind: &storepb.BackupChunk_End{End: end}})
	t.sum = slices.Clone(w.sum[:])
	t.progress(w)
	return err
}

func (t *Taking) progress(w *Writer) {
	t.counts.Bytes = w.written
	if t.Progress != nil {
		t.Progress(t.counts)
	}
}

func (t *Taking) tenants(ctx context.Context, s Store) ([]string, error) {
	if t.Tenant != "" {
		return []string{t.Tenant}, nil
	}
	return store.ReadTenants(ctx, s.Pages)
}

// rows writes the rows of one store.
func (t *Taking) rows(ctx context.Context, w *Writer, s Store) error {
	t.last[s.Service], t.least[s.Service] = map[string]int64{}, map[string]int64{}
	if t.Tenant == "" {
		lo, hi := store.OutsideTenants()
		if err := store.EachPage(ctx, s.Pages, lo, hi, func(rows []store.Pair) error { return t.pairs(w, s, "", rows, false) }); err != nil {
			return err
		}
	}
	tenants, err := t.tenants(ctx, s)
	for _, tenant := range tenants {
		if err := t.tenant(ctx, w, s, tenant); err != nil {
			return err
		}
	}
	return err
}

// tenant writes the rows of one tenant, in place of what was written of it before.
func (t *Taking) tenant(ctx context.Context, w *Writer, s Store, tenant string) error {
	b, err := store.ReadTenant(ctx, s.Pages, tenant, func(rows []store.Pair, restart bool) error {
		return t.pairs(w, s, tenant, rows, restart)
	})
	t.last[s.Service][tenant], t.least[s.Service][tenant] = b.After, b.Least
	return err
}

func (t *Taking) pairs(w *Writer, s Store, tenant string, rows []store.Pair, restart bool) error {
	p := &storepb.BackupPairs{Service: s.Service, Tenant: tenant, Restart: restart}
	for _, row := range rows {
		p.Pairs = append(p.Pairs, store.PairOf(row))
	}
	t.counts.Pairs += int64(len(rows))
	defer t.progress(w)
	return w.Write(&storepb.BackupChunk{Kind: &storepb.BackupChunk_Pairs{Pairs: p}})
}

// tail writes the entries of a tenant that were committed up to the cut, or are needed.
func (t *Taking) tail(ctx context.Context, w *Writer, s Store, tenant string, since time.Time) error {
	last, least := t.last[s.Service], t.least[s.Service]
	wanted := func(e *storepb.JournalEntry) bool {
		return e.GetRevision() <= least[tenant] || !e.GetCommitTime().AsTime().After(t.cut)
	}
	for {
		tail, err := store.ReadTail(ctx, s.Pages, tenant, last[tenant], wanted)
		if err != nil {
			return err
		}
		if len(tail) == 0 {
			break
		}
		end, err := store.Entry(tail[len(tail)-1])
		if err != nil {
			return err
		}
		last[tenant] = end.GetRevision()
		t.counts.Entries += int64(len(tail))
		if err := t.entries(w, &storepb.BackupEntries{Service: s.Service, Tenant: tenant, Entries: tail}); err != nil {
			return err
		}
	}
	return store.ReadLoose(ctx, s.Pages, tenant, since.Add(-time.Minute), func(page []store.Pair) error {
		loose := &storepb.BackupEntries{Service: s.Service, Tenant: tenant}
		for _, row := range page {
			loose.Loose = append(loose.Loose, store.PairOf(row))
		}
		return t.entries(w, loose)
	})
}

func (t *Taking) entries(w *Writer, e *storepb.BackupEntries) error {
	defer t.progress(w)
	return w.Write(&storepb.BackupChunk{Kind: &storepb.BackupChunk_Entries{Entries: e}})
}
