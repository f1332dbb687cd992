package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"gocloud.dev/blob"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

// Restoring is the restoring of a backup.
type Restoring struct {
	// Open opens the empty store of a service. Whoever calls Restore closes it.
	Open func(service string) (store.Engine, error)
	// Blobs opens the empty store of a service's blobs; nil refuses a backup with blobs.
	Blobs func(service string) (*blob.Bucket, error)
	// At is the instant to go to; zero is the end of the backup.
	At time.Time
	// Revisions are revisions to go to, of tenants, by service.
	Revisions map[string]map[string]int64
	// WithoutErased leaves out records that were erased since, instead of failing.
	WithoutErased bool
	// Now is the clock.
	Now func() time.Time
	// Progress is called now and then; it may be nil.
	Progress func(Counts)

	replays map[string]*store.Replay
	engines map[string]store.Engine
	blobs   *blobWriter
	done    Restored
	sum     []byte
	cut     time.Time // to which what was read is complete
}

// Restored says what was restored.
type Restored struct {
	Counts
	// Cut is the instant to which it is complete.
	Cut time.Time `json:"cut"`
	// Undone is how many tenants were taken back behind the end of the backup.
	Undone int `json:"undone"`
	// Clamped is how many positions of consumers were beyond the end of their source.
	Clamped int `json:"clamped"`
	// Erased is how many records were left out.
	Erased int `json:"erased"`
}

// Restore puts a backup, and then the segments that continue it, into empty stores. Segments
// that are wholly of after At are not read.
func (r *Restoring) Restore(ctx context.Context, files ...io.Reader) (Restored, error) {
	r.replays, r.engines = map[string]*store.Replay{}, map[string]store.Engine{}
	r.done, r.sum = Restored{}, nil
	r.blobs = &blobWriter{open: r.Blobs, buckets: map[string]*blob.Bucket{}}
	err := r.restore(ctx, files)
	return r.done, errors.Join(err, r.blobs.close())
}

func (r *Restoring) restore(ctx context.Context, files []io.Reader) error {
	for _, f := range files {
		if err := r.file(ctx, f); err != nil {
			return err
		}
		if r.Revisions == nil && !r.At.IsZero() && !r.cut.Before(r.At) {
			break // the rest is of later
		}
	}
	if err := r.goBack(ctx); err != nil {
		return err
	}
	for _, service := range slices.Sorted(maps.Keys(r.replays)) {
		if err := r.finish(ctx, service); err != nil {
			return fmt.Errorf("complete the store of %s: %w", service, err)
		}
	}
	return nil
}

func (r *Restoring) file(ctx context.Context, f io.Reader) error {
	in, err := NewReader(f)
	if err != nil {
		return err
	}
	if in.Header().GetExport() != nil {
		return errors.New("the file is an export of one organization: import brings that into a suite")
	}
	if !bytes.Equal(in.Header().GetFollows(), r.sum) {
		return errors.New("a segment does not follow the file before it")
	}
	if in.Header().GetBlobs() && r.Blobs == nil {
		return errors.New("the backup has photos and videos, but nobody said where to put them (--blobs)")
	}
	for _, service := range in.Header().GetServices() {
		if err := r.begin(ctx, service); err != nil {
			return fmt.Errorf("the store of %s: %w", service, err)
		}
	}
	for {
		c, err := in.Next()
		if errors.Is(err, io.EOF) {
			r.sum = slices.Clone(in.sum[:])
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = r.chunk(ctx, c)
		}
		if err != nil {
			return err
		}
		r.done.Bytes = in.read
		if r.Progress != nil {
			r.Progress(r.done.Counts)
		}
	}
}

func (r *Restoring) begin(ctx context.Context, service string) error {
	e, err := r.Open(service)
	if err != nil {
		return err
	}
	r.engines[service] = e
	r.replays[service], err = store.NewReplay(ctx, e)
	return err
}

func (r *Restoring) chunk(ctx context.Context, c *storepb.BackupChunk) error {
	switch kind := c.GetKind().(type) {
	case *storepb.BackupChunk_Pairs:
		return r.pairs(ctx, kind.Pairs)
	case *storepb.BackupChunk_Entries:
		return r.entries(ctx, kind.Entries)
	case *storepb.BackupChunk_Blob:
		if kind.Blob.GetLast() {
			r.done.Blobs++
		}
		return r.blobs.write(ctx, kind.Blob)
	case *storepb.BackupChunk_End:
		r.cut = kind.End.GetCut().AsTime()
		if r.done.Cut = r.cut; !r.At.IsZero() && r.At.Before(r.cut) {
			r.done.Cut = r.At
		}
	}
	return nil
}

func (r *Restoring) replay(service string) (*store.Replay, error) {
	replay := r.replays[service]
	if replay == nil {
		return nil, fmt.Errorf("the backup has something of %s, which its header does not name", service)
	}
	return replay, nil
}

func (r *Restoring) pairs(ctx context.Context, p *storepb.BackupPairs) error {
	replay, err := r.replay(p.GetService())
	if err == nil && p.GetRestart() {
		err = replay.Discard(ctx, p.GetTenant())
	}
	if err == nil {
		err = replay.Put(ctx, p.GetTenant(), p.GetPairs())
	}
	r.done.Pairs += int64(len(p.GetPairs()))
	return err
}

func (r *Restoring) entries(ctx context.Context, e *storepb.BackupEntries) error {
	replay, err := r.replay(e.GetService())
	if err != nil {
		return err
	}
	if err := replay.Put(ctx, e.GetTenant(), e.GetLoose()); err != nil {
		return err
	}
	for _, entry := range e.GetEntries() {
		if err := replay.Redo(ctx, e.GetTenant(), entry); err != nil {
			return err
		}
	}
	r.done.Entries += int64(len(e.GetEntries()))
	return nil
}

// CutOf reads a backup or a segment to its end, and returns the instant to which it is complete.
func CutOf(from io.Reader) (cut time.Time, err error) {
	r, err := NewReader(from)
	for err == nil {
		var c *storepb.BackupChunk
		if c, err = r.Next(); c.GetEnd() != nil {
			cut = c.GetEnd().GetCut().AsTime()
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return cut, err
}
