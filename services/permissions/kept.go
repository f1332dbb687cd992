package permissions

import (
	"sync"
	"time"

	"latchkey.dev/services/internal/store"
)

// maxKept bounds the verdicts in memory.
const maxKept = 10_000

// kept are verdicts in memory, each with the revision that it was made at. Whatever
// changes anybody's access in an organization makes a revision there, so one of the
// revision that a transaction sees is what it would come to itself.
type kept struct {
	mu       sync.RWMutex
	verdicts map[keptKey]*keptVerdict
}

type keptKey struct{ organization, user string }

type keptVerdict struct {
	verdict
	revision int64
	stored   bool // something is stored of the user
}

// holds tells whether the verdict is still that of the records and the time. Between
// the instant of a verdict and the next one nobody's access changes by itself.
func (v *keptVerdict) holds(revision int64, now time.Time) bool {
	return v.revision == revision && !now.Before(v.at) && (v.next.IsZero() || now.Before(v.next))
}

// find returns the verdict of a user if there is one that holds, or nil.
func (k *kept) find(key keptKey, revision int64, now time.Time) *keptVerdict {
	k.mu.RLock()
	v := k.verdicts[key]
	k.mu.RUnlock()
	if v != nil && v.holds(revision, now) {
		return v
	}
	return nil
}

// judge returns what a user may do now. The transaction must be one that reads.
func (k *kept) judge(tx *store.Tx, user string) *keptVerdict {
	key, revision := keptKey{tx.Tenant(), user}, tx.Revision()
	if v := k.find(key, revision, tx.Now()); v != nil {
		return v
	}
	l := newLoader(tx)
	v := &keptVerdict{l.access(l.user(user)).judge(l.now), revision, accesses.Has(tx, user)}
	// SECURITY: a transaction that failed has found nothing, whatever there is.
	if tx.Failed() == nil {
		k.put(key, v)
	}
	return v
}

func (k *kept) put(key keptKey, v *keptVerdict) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.verdicts == nil || len(k.verdicts) >= maxKept {
		k.verdicts = map[keptKey]*keptVerdict{}
	}
	k.verdicts[key] = v
}
