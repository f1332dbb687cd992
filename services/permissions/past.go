package permissions

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// loaderAsOf returns a loader of the records as they were at an instant, and as they are
// without one. What it compiles is then to be judged at that instant, l.now.
func loaderAsOf(tx *store.Tx, at *timestamppb.Timestamp) (*loader, error) {
	switch {
	case at == nil:
		return newLoader(tx), nil
	case at.CheckValid() != nil:
		return nil, fault.Invalid("as_of_time", "must be a time of the years 1 to 9999")
	case at.AsTime().After(tx.Now()):
		return nil, fault.Invalid("as_of_time", "must not be in the future")
	}
	return loaderAt(tx, tx.RevisionAt(at.AsTime()), at.AsTime()), nil
}

// loaderAt returns a loader of the records as they were after a revision.
func loaderAt(tx *store.Tx, revision int64, at time.Time) *loader {
	l := &loader{tx: tx, now: at, past: revision}
	if revision == 0 {
		l.past = beginning
	}
	l.loadPlan()
	return l
}

// beginning is the revision before the first, when there was nothing.
const beginning = -1

// revision returns the revision whose records are compiled.
func (l *loader) revision() int64 {
	if l.past != 0 {
		return max(l.past, 0)
	}
	return l.tx.Revision()
}

// find returns a record as the loader sees it.
func find[T proto.Message](l *loader, c *store.Collection[T], id string) (T, bool) {
	if l.past != 0 {
		return c.At(l.tx, id, l.past)
	}
	return c.Get(l.tx, id)
}
