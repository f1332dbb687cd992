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
}

// holds tells whether the verdict is still that of the records and the time. Between
// the instant of a verdict and the next one nobody's access changes by itself.
func (v *keptVerdict) holds(revision int64, now time.Time) bool {
	return v.revision == revision && !now.Before(v.at) && (v.next.IsZero() || now.Before(v.next))
}

// judge returns what a user may do now. The transaction must be one that reads.
func (k *kept) judge(tx *store.Tx, user string) *verdict {
	key, revision := keptKey{tx.Tenant(), user}, tx.Revision()
	k.mu.RLock()
	v := k.verdicts[key]
	k.mu.RUnlock()
	if v != nil && v.holds(revision, tx.Now()) {
		return &v.verdict
	}
	l := newLoader(tx)
	v = &keptVerdict{l.access(l.user(user)).judge(l.now), revision}
	// SECURITY: a transaction that failed has found nothing, whatever there is.
	if tx.Failed() == nil {
		k.put(key, v)
	}
	return &v.verdict
}

func (k *kept) put(key keptKey, v *keptVerdict) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.verdicts == nil || len(k.verdicts) >= maxKept {
		k.verdicts = map[keptKey]*keptVerdict{}
	}
	k.verdicts[key] = v
}
