package backup

import (
	"bytes"
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

// blobs writes all blobs, or those of the one tenant that is wanted: their keys begin with
// it. One that is deleted meanwhile is left out.
func (t *Taking) blobs(ctx context.Context, w *Writer) error {
	for _, service := range slices.Sorted(maps.Keys(t.Blobs)) {
		options := &blob.ListOptions{}
		if t.Tenant != "" {
			options.Prefix = t.Tenant + "/"
		}
		list := t.Blobs[service].List(options)
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
	// same lets a blob be there already, if it is the same.
	same    bool
	present io.ReadCloser // of the current one, if it is there
}

func (b *blobWriter) write(ctx context.Context, part *storepb.BackupBlob) error {
	if b.current == nil && b.present == nil {
		if err := b.begin(ctx, part); err != nil {
			return err
		}
	}
	if part.GetKey() != b.key {
		return fmt.Errorf("blob %s has no end", b.key)
	}
	if b.present != nil {
		return b.compare(part)
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

// compare wants what is there to be the same.
func (b *blobWriter) compare(part *storepb.BackupBlob) error {
	found := make([]byte, len(part.GetData()))
	if _, err := io.ReadFull(b.present, found); err != nil && !short(err) {
		return err
	}
	more := 0
	if part.GetLast() {
		more, _ = b.present.Read(make([]byte, 1))
	}
	if more > 0 || !bytes.Equal(found, part.GetData()) {
		return fmt.Errorf("blob %s is there already, and is another: it is never overwritten", b.key)
	}
	if !part.GetLast() {
		return nil
	}
	r := b.present
	b.present = nil
	return r.Close()
}

func (b *blobWriter) begin(ctx context.Context, part *storepb.BackupBlob) (err error) {
	bucket := b.buckets[part.GetService()]
	if bucket == nil {
		if bucket, err = b.open(part.GetService()); err != nil {
			return err
		}
		b.buckets[part.GetService()] = bucket
	}
	b.key = part.GetKey()
	if b.same {
		r, err := bucket.NewReader(ctx, b.key, nil)
		if err == nil {
			b.present = r
			return nil
		}
		if gcerrors.Code(err) != gcerrors.NotFound {
			return err
		}
	}
	ctx, b.cancel = context.WithCancel(ctx)
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
	if b.present != nil {
		errs = append(errs, b.present.Close())
	}
	for _, bucket := range b.buckets {
		errs = append(errs, bucket.Close())
	}
	return errors.Join(errs...)
}
