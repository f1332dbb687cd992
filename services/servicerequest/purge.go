package servicerequest

import (
	"context"
	"fmt"
	"time"

	"gocloud.dev/gcerrors"
	"google.golang.org/protobuf/types/known/timestamppb"

	storepb "latchkey.dev/gen/go/latchkey/servicerequest/store/v1"

	"latchkey.dev/services/internal/store"
)

// purgeRequests purges a request whose time is over with all that belongs to it, or a
// bounded part of that, and reports whether there may be more to do.
func (s *service) purgeRequests(ctx context.Context) (more bool, err error) {
	return s.work(ctx, func(tx *store.Tx) (bool, error) {
		r, ok := requestPurge.First(tx)
		if !ok || r.GetPurgeTime().AsTime().After(tx.Now()) {
			return false, nil
		}
		left := batch
		for c := range commentRequest.Scan(tx, commentRequest.Range(r.GetId())) {
			if left--; left < 0 {
				return true, nil
			}
			comments.Delete(tx, c.GetId())
			tx.EraseHistory(comments.Name(), c.GetId())
		}
		for a := range attachmentRequest.Scan(tx, attachmentRequest.Range(r.GetId())) {
			if left--; left < 0 {
				return true, nil
			}
			if err := purgeAttachment(tx, a.GetId()); err != nil {
				return false, err
			}
		}
		requests.Delete(tx, r.GetId())
		tx.EraseHistory(requests.Name(), r.GetId())
		return true, nil
	})
}

// purgeAttachments purges a bounded number of attachments whose time is over, and
// reports whether there may be more.
func (s *service) purgeAttachments(ctx context.Context) (more bool, err error) {
	return s.work(ctx, func(tx *store.Tx) (bool, error) {
		left := batch
		for a := range attachmentPurge.Scan(tx, attachmentPurge.Range().To(justAfter(tx.Now()))) {
			if left--; left < 0 {
				return true, nil
			}
			if err := purgeAttachment(tx, a.GetId()); err != nil {
				return false, err
			}
		}
		return false, nil
	})
}

// purgeAttachment deletes the record of an attachment and leaves its file to the sweep.
func purgeAttachment(tx *store.Tx, id string) error {
	attachments.Delete(tx, id)
	tx.EraseHistory(attachments.Name(), id)
	return orphans.Put(tx, &storepb.Orphan{Id: id, SweepTime: timestamppb.New(tx.Now())})
}

// justAfter returns the end of a range that holds a time and all before it.
func justAfter(t time.Time) time.Time { return t.Add(time.Nanosecond) }

const (
	// uploadTime is how long an upload can take.
	uploadTime = 12 * time.Hour
	// orphanTime is when the file of an upload is deleted that has come to nothing. It
	// is so much longer that no upload is swept that is about to become an attachment,
	// even if the clocks of two machines differ.
	orphanTime = 2 * uploadTime
)

// sweep deletes a bounded number of files that are to be deleted by now, and reports
// whether there may be more. What the blob store fails to delete is tried again.
func (s *service) sweep(ctx context.Context) (more bool, err error) {
	due, err := store.Read(ctx, s.db, func(tx *store.Tx) ([]string, error) {
		var due []string
		for o := range orphanSweep.Scan(tx, orphanSweep.Range().To(justAfter(tx.Now()))) {
			if due = append(due, o.GetId()); len(due) == batch {
				break
			}
		}
		return due, nil
	})
	if err != nil {
		return false, err
	}
	for _, id := range due {
		if err := s.discard(ctx, id); err != nil {
			return false, err
		}
	}
	return len(due) == batch, nil
}

// discard deletes a file and then its orphan.
func (s *service) discard(ctx context.Context, id string) error {
	key := blobKey(store.OriginOf(ctx).Tenant, id)
	if err := s.blobs.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("delete file %s: %w", key, err)
	}
	return s.db.Update(ctx, func(tx *store.Tx) error {
		orphans.Delete(tx, id)
		return nil
	})
}
