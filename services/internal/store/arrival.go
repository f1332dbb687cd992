package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
)

// Arrival is a tenant that is put into a store beside others, which are in use. It is on
// no list until all of it is there, so nothing is done with it before.
type Arrival struct {
	db     *DB
	engine claimed
	tenant string
	replay *Replay
	rows   int64
}

// NewArrival begins, in place of what an earlier one has left that did not come to its end.
// It returns nil if that one was complete, of the same export, and is to go on: again.
// If there is another thing of the tenant, it replaces that or refuses. From then on no
// arrival with a lower claim writes here.
func (db *DB) NewArrival(ctx context.Context, tenant string, claim int64, checksum []byte, again, replace bool) (*Arrival, error) {
	lo, hi := OfTenant(tenant)
	some, err := PagesOf(db.engine).Page(ctx, lo, hi)
	if err != nil {
		return nil, err
	}
	complete := false
	err = db.system(ctx, func(s Snapshot) ([]Write, error) {
		noted := &storepb.Arrival{}
		if err := read(s, arrivalKey(tenant), noted); err != nil {
			return nil, err
		}
		complete = again && noted.GetComplete() && bytes.Equal(noted.GetChecksum(), checksum)
		switch {
		case noted.GetClaim() > claim:
			return nil, errTakenOver
		case !complete && len(noted.GetChecksum()) == 0 && len(some) > 0 && !replace:
			return nil, fault.Refused("there is something of %s already: what it left when it was erased goes only while the services do not run", tenant)
		}
		mark, err := encode(&storepb.Arrival{Checksum: checksum, Complete: complete, Claim: claim})
		writes := []Write{{arrivalKey(tenant), mark}}
		if !complete {
			writes = append(writes, Write{registryKey(tenant), nil})
		}
		return writes, err
	})
	if err != nil || complete {
		return nil, err
	}
	db.heads.forget(tenant)
	engine := claimed{db.engine, db, tenant, claim}
	a := &Arrival{db: db, engine: engine, tenant: tenant, replay: &Replay{engine: engine, Lost: map[Record][]byte{}, unseen: true}}
	return a, a.Discard(ctx)
}

func arrivalKey(tenant string) []byte { return tenantRow(tenant, spaceArrival, tenant) }

// Discard removes what was put so far.
func (a *Arrival) Discard(ctx context.Context) error {
	if err := a.replay.Flush(ctx); err != nil {
		return err
	}
	a.rows, a.replay.Lost = 0, map[Record][]byte{}
	lo, hi := OfTenant(a.tenant)
	return a.replay.remove(ctx, lo, hi, arrivalKey(a.tenant))
}

// Put puts rows of the tenant.
func (a *Arrival) Put(ctx context.Context, rows []*storepb.Pair) error {
	prefix := tenantRow(a.tenant, spaceArrival)
	kept := rows[:0]
	for _, row := range rows {
		if !bytes.HasPrefix(row.GetKey(), prefix) { // it came from elsewhere before
			kept = append(kept, row)
		}
	}
	a.rows += int64(len(kept))
	return a.replay.Put(ctx, a.tenant, kept)
}

// Redo does again what an entry of the tenant's journal says was done.
func (a *Arrival) Redo(ctx context.Context, e *storepb.BackupEntry) error {
	a.rows++
	return a.replay.Redo(ctx, a.tenant, e)
}

// Complete builds the indexes and verifies everything.
func (a *Arrival) Complete(ctx context.Context, revision int64) error {
	if err := a.replay.Flush(ctx); err != nil {
		return err
	}
	for r := range a.replay.Lost {
		return fmt.Errorf("the value of %s %q is missing", r.Collection, r.ID)
	}
	for _, c := range a.db.schema.collections {
		for _, ix := range c.declaredIndexes() {
			if err := a.build(ctx, ix); err != nil {
				return err
			}
		}
	}
	head, err := ReadHead(ctx, PagesOf(a.db.engine), a.tenant)
	if err == nil && head != revision {
		err = fmt.Errorf("the journal of %s ends at revision %d, and not at %d", a.tenant, head, revision)
	}
	if err == nil {
		err = a.db.VerifyJournal(ctx, a.tenant)
	}
	if err == nil {
		err = a.db.VerifyRecords(ctx, a.tenant)
	}
	return err
}

// Rows returns how many rows and entries were put.
func (a *Arrival) Rows() int64 { return a.rows }

// build builds an index.
func (a *Arrival) build(ctx context.Context, ix declaredIndex) error {
	return a.unseen(ctx, ix.source, ix.build)
}

// unseen is inBatches, of which nobody hears who listens to what changes.
func (a *Arrival) unseen(ctx context.Context, bounds func(*Tx) (lo, hi []byte), f func(*Tx, Pair) error) error {
	var next []byte
	for {
		var last []byte
		n := 0
		err := a.engine.Update(WithOrigin(ctx, Origin{}), func(s Snapshot) ([]Write, error) {
			tx := a.db.begin(ctx, s, Origin{Tenant: a.tenant})
			tx.writable = true
			var writes []Write
			err := tx.run(func(tx *Tx) error {
				last, n = nil, 0
				lo, hi := bounds(tx)
				if next != nil {
					lo = next
				}
				for p := range tx.scan(lo, hi, false) {
					if n == buildBatch {
						break
					}
					n, last = n+1, bytes.Clone(p.Key)
					if err := f(tx, p); err != nil {
						return err
					}
				}
				writes = tx.effects()
				return nil
			})
			return writes, err
		})
		if err != nil || n < buildBatch {
			return err
		}
		next = append(last, 0)
	}
}

// ListArrival lists a tenant that is complete. From then on it is one as others are.
func (db *DB) ListArrival(ctx context.Context, tenant string, claim int64) error {
	err := claimed{db.engine, db, tenant, claim}.Update(WithOrigin(ctx, Origin{Tenant: tenant}), func(s Snapshot) ([]Write, error) {
		noted := &storepb.Arrival{}
		if err := read(s, arrivalKey(tenant), noted); err != nil {
			return nil, err
		}
		noted.Complete = true
		row, err := encode(noted)
		return []Write{{registryKey(tenant), present}, {arrivalKey(tenant), row}}, err
	})
	if err == nil {
		db.changes.add(tenant)
	}
	return err
}

// FinishArrival removes what was noted of an arrival, but for its claim. Where there was none there is
// nothing to do.
func (db *DB) FinishArrival(ctx context.Context, tenant string, claim int64) error {
	err := claimed{db.engine, db, tenant, claim}.Update(WithOrigin(ctx, Origin{}), func(Snapshot) ([]Write, error) {
		row, err := encode(&storepb.Arrival{Claim: claim})
		return []Write{{arrivalKey(tenant), row}}, err
	})
	if errors.Is(err, errNoArrival) {
		return nil
	}
	return err
}
