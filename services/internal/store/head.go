package store

import (
	"context"
	"sync"
	"sync/atomic"
)

// Revision returns the last revision of the tenant of ctx's Origin, from memory. It is
// no older than what any transaction of this DB that has returned saw or made. False
// means that only a transaction can tell: none has looked yet, other processes change
// the data too, or the engine has failed.
func (db *DB) Revision(ctx context.Context) (revision int64, ok bool) {
	return db.heads.of(OriginOf(ctx).Tenant)
}

// heads are the last revisions that this process has seen, by tenant. Whoever learns of
// a later one raises it before anybody else can be told, so that what is read here goes
// never back behind what was read in a transaction.
type heads struct {
	byTenant sync.Map // of *atomic.Int64
	off      atomic.Bool
}

func (h *heads) of(tenant string) (revision int64, ok bool) {
	if h.off.Load() {
		return 0, false
	}
	if last, ok := h.byTenant.Load(tenant); ok {
		return last.(*atomic.Int64).Load(), true
	}
	return 0, false
}

func (h *heads) raise(tenant string, revision int64) {
	last, ok := h.byTenant.Load(tenant)
	if !ok {
		last, _ = h.byTenant.LoadOrStore(tenant, &atomic.Int64{})
	}
	for n := last.(*atomic.Int64); ; {
		seen := n.Load()
		if seen >= revision || n.CompareAndSwap(seen, revision) {
			return
		}
	}
}

// forget lets the next transaction tell the revision of a tenant that is replaced.
func (h *heads) forget(tenant string) { h.byTenant.Delete(tenant) }
