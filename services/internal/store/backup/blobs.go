package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// blobPart is how much of a blob a chunk has.
const blobPart = 1 << 20

// blobs writes all blobs. One that is deleted meanwhile is left out.
func (t *Taking) blobs(ctx context.Context, w *Writer) error {
	for _, service := range slices.Sorted(maps.Keys(t.Blobs)) {
		list := t.Blobs[service].List(nil)
		for {
			o, err := list.Next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = t.blob(ctx, w, service, o.Key)
			}
			if err != nil && gcerrors.Code(err) != gcerrors.NotFound {
				return fmt.Errorf("read the blobs of %s: %w", service, err)
			}
		}
	}
	return nil
}

func (t *Taking) blob(ctx context.Context, w *Writer, service, key string) error {
	r, err := t.Blobs[service].NewReader(ctx, key, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	left := r.Size()
	for {
		part := make([]byte, min(left, blobPart))
		if _, err := io.ReadFull(r, part); err != nil {
			return err
		}
		left -= int64(len(part))
		b := &storepb.BackupBlob{Service: service, Key: key, Data: part, Last: left == 0}
		if b.Last {
			b.ContentType = r.ContentType()
			t.counts.Blobs++
		}
		if err := w.Write(&storepb.BackupChunk{Kind: &storepb.BackupChunk_Blob{Blob: b}}); err != nil {
			return err
		}
		t.progress(w)
		if b.Last {
			return nil
		}
	}
}

// blobWriter writes the blobs of a backup into stores of blobs.
type blobWriter struct {
	open    func(service string) (*blob.Bucket, error)
	buckets map[string]*blob.Bucket
	current *blob.Writer
	key     string
	cancel  context.CancelFunc
}

func (b *blobWriter) write(ctx context.Context, part *storepb.BackupBlob) error {
	if b.current == nil {
		if err := b.begin(ctx, part); err != nil {
			return err
		}
	}
	if part.GetKey() != b.key {
		return fmt.Errorf("blob %s has no end", b.key)
	}
	if _, err := b.current.Write(part.GetData()); err != nil {
		return err
	}
	if !part.GetLast() {
		return nil
	}
	w := b.current
	b.current = nil
	defer b.cancel()
	return w.Close()
}

func (b *blobWriter) begin(ctx context.Context, part *storepb.BackupBlob) (err error) {
	bucket := b.buckets[part.GetService()]
	if bucket == nil {
		if bucket, err = b.open(part.GetService()); err != nil {
			return err
		}
		b.buckets[part.GetService()] = bucket
	}
	ctx, b.cancel = context.WithCancel(ctx)
	b.key = part.GetKey()
	b.current, err = bucket.NewWriter(ctx, b.key, &blob.WriterOptions{ContentType: part.GetContentType(), IfNotExist: true})
	if gcerrors.Code(err) == gcerrors.FailedPrecondition {
		return fmt.Errorf("blob %s is there already: it is never overwritten", b.key)
	}
	return err
}

// close abandons a blob that was not written whole.
func (b *blobWriter) close() error {
	var errs []error
	if b.current != nil {
		b.cancel()
		b.current.Close() // it was abandoned
	}
	for _, bucket := range b.buckets {
		errs = append(errs, bucket.Close())
	}
	return errors.Join(errs...)
}
