package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"gocloud.dev/blob"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Exported is what an export says of itself.
type Exported struct {
	Header   *storepb.BackupHeader
	End      *storepb.BackupEnd
	Checksum []byte // of its last chunk
	Bytes    int64
}

// EachChunk reads an export to its end, and calls f with each chunk between the first and the
// last. It returns an error if the file is damaged, or no export.
func EachChunk(ctx context.Context, from io.Reader, f func(*storepb.BackupChunk) error) (*Exported, error) {
	r, err := NewReader(from)
	if err != nil {
		return nil, err
	}
	if r.Header().GetExport() == nil {
		return nil, errors.New("the file is a backup of everything, and no export of one organization: restore puts it where there is no data yet")
	}
	e := &Exported{Header: r.Header()}
	for {
		c, err := r.Next()
		if errors.Is(err, io.EOF) {
			e.Checksum, e.Bytes = r.sum[:], r.read
			return e, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if e.End = c.GetEnd(); e.End == nil {
			if err := f(c); err != nil {
				return nil, err
			}
		}
	}
}

// Stage puts what an export has of the organization's own tenants into arrivals, by service,
// and completes these. It calls records, if that is not nil, with what is of shared tenants,
// and tell now and then.
func Stage(ctx context.Context, from io.Reader, arrivals map[string]*store.Arrival, records func(*storepb.BackupRecords) error, tell func()) (*Exported, error) {
	e, err := EachChunk(ctx, from, func(c *storepb.BackupChunk) error {
		defer tell()
		if a := arrivals[c.GetPairs().GetService()]; a != nil {
			return stagePairs(ctx, a, c.GetPairs())
		}
		if a := arrivals[c.GetEntries().GetService()]; a != nil {
			return stageEntries(ctx, a, c.GetEntries())
		}
		if r := c.GetRecords(); r != nil && records != nil {
			return records(r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, service := range slices.Sorted(maps.Keys(arrivals)) {
		if err := arrivals[service].Complete(ctx, e.End.GetRevisions()[service]); err != nil {
			return nil, fmt.Errorf("complete the store of %s: %w", service, err)
		}
	}
	return e, nil
}

func stagePairs(ctx context.Context, a *store.Arrival, p *storepb.BackupPairs) error {
	if p.GetRestart() {
		if err := a.Discard(ctx); err != nil {
			return err
		}
	}
	return a.Put(ctx, p.GetPairs())
}

func stageEntries(ctx context.Context, a *store.Arrival, e *storepb.BackupEntries) error {
	if err := a.Put(ctx, e.GetLoose()); err != nil {
		return err
	}
	for _, entry := range e.GetEntries() {
		if err := a.Redo(ctx, entry); err != nil {
			return err
		}
	}
	return nil
}

// Records returns the records that an export has for a service.
func Records(ctx context.Context, from io.Reader, service string) (*Exported, []*storepb.BackupRecord, error) {
	var all []*storepb.BackupRecord
	e, err := EachChunk(ctx, from, func(c *storepb.BackupChunk) error {
		if c.GetRecords().GetService() == service {
			all = append(all, c.GetRecords().GetRecords()...)
		}
		return nil
	})
	return e, all, err
}

// Blobs puts the blobs of an export into stores of blobs. One may be there already, of an
// import that was interrupted, if it is the same.
func Blobs(ctx context.Context, from io.Reader, organization string, open func(service string) (*blob.Bucket, error)) (n int64, err error) {
	w := &blobWriter{open: open, buckets: map[string]*blob.Bucket{}, same: true}
	_, err = EachChunk(ctx, from, func(c *storepb.BackupChunk) error {
		b := c.GetBlob()
		if b == nil {
			return nil
		}
		if !strings.HasPrefix(b.GetKey(), organization+"/") {
			return fault.Invalid("export", "has a blob that is not the organization's: %s", b.GetKey())
		}
		if b.GetLast() {
			n++
		}
		return w.write(ctx, b)
	})
	return n, errors.Join(err, w.close())
}
