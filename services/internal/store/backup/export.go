package backup

import (
	"context"
	"fmt"
	"maps"
	"slices"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

// Export says what goes along with an organization beside its own tenant.
type Export struct {
	// Kinds are those that were asked for.
	Kinds map[store.Kind]bool
	// PasskeyDomain is what passkeys are made for.
	PasskeyDomain string
	// Open opens a secret that was sealed under a name.
	Open func(name string, sealed []byte) ([]byte, error)

	revisions map[string]int64 // of the shared tenants, by service
}

func (e *Export) header() *storepb.BackupExport {
	h := &storepb.BackupExport{PasskeyDomain: e.PasskeyDomain}
	for _, kind := range slices.Sorted(maps.Keys(e.Kinds)) {
		if e.Kinds[kind] {
			h.Kinds = append(h.Kinds, string(kind))
		}
	}
	return h
}

// recordsPart is how many bytes of records a chunk has, beside the last one.
const recordsPart = 1 << 20

// records writes what the organization has in tenants that it shares with others, if that is
// wanted. It comes after everything else, so that whoever is named there is among the people.
func (t *Taking) records(ctx context.Context, w *Writer) error {
	if t.Export == nil {
		return nil
	}
	t.Export.revisions = map[string]int64{}
	for _, s := range t.Stores {
		if shared, _ := s.Schema.Tenancy(); shared == "" {
			continue
		}
		selected, err := s.Schema.Select(ctx, s.Pages, &store.Leaving{
			Organization: t.Tenant, Kinds: t.Export.Kinds, Open: t.Export.Open,
		})
		if err != nil {
			return fmt.Errorf("read the organization's records in %s: %w", s.Service, err)
		}
		t.Export.revisions[s.Service] = selected.Revision
		if err := t.writeRecords(w, s.Service, selected.Records); err != nil {
			return err
		}
	}
	return nil
}

func (t *Taking) writeRecords(w *Writer, service string, records []*storepb.BackupRecord) error {
	part, size := &storepb.BackupRecords{Service: service}, 0
	for i, r := range records {
		part.Records = append(part.Records, r)
		if size += len(r.GetValue()); size < recordsPart && i < len(records)-1 {
			continue
		}
		if err := w.Write(&storepb.BackupChunk{Kind: &storepb.BackupChunk_Records{Records: part}}); err != nil {
			return err
		}
		t.counts.Records += int64(len(part.Records))
		t.progress(w)
		part, size = &storepb.BackupRecords{Service: service}, 0
	}
	return nil
}

// revisions returns the revision of the one tenant, by service.
func (t *Taking) revisions() map[string]int64 {
	all := map[string]int64{}
	for service, last := range t.last {
		all[service] = last[t.Tenant]
	}
	return all
}

// Revisions returns the revision of the one tenant that was taken, by service, and those of
// the tenants that it shares.
func (t *Taking) Revisions() (own, shared map[string]int64) { return t.revisions(), t.Export.revisions }
