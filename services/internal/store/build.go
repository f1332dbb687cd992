package store

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// buildBatch is how many entries of an index are built or dropped in one transaction.
const buildBatch = 2000

// rebuild drops what there is of an index in every tenant, and builds it if it is
// declared.
func (db *DB) rebuild(ctx context.Context, name string, ix declaredIndex) error {
	tenants, err := db.Tenants(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, t := range tenants {
		dropped, err := db.inBatches(ctx, t, func(tx *Tx) ([]byte, []byte) {
			return tx.rows(spaceIndex, name)
		}, func(tx *Tx, p Pair) error {
			tx.del(p.Key)
			return nil
		})
		if err != nil {
			return err
		}
		n += dropped
		if ix == nil {
			continue
		}
		built, err := db.inBatches(ctx, t, ix.source, ix.build)
		if err != nil {
			return err
		}
		n += built
	}
	db.cfg.Log.InfoContext(ctx, "index built or dropped", "index", name, "declared", ix != nil, "rows", n)
	return nil
}

// inBatches calls f with every pair within the bounds, in transactions of a bounded
// size, and returns how many there were.
func (db *DB) inBatches(ctx context.Context, tenant string, bounds func(*Tx) (lo, hi []byte), f func(*Tx, Pair) error) (int, error) {
	var next []byte
	for total := 0; ; {
		var last []byte
		n := 0
		err := db.update(ctx, Origin{Tenant: tenant}, func(tx *Tx) error {
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
			return nil
		})
		total += n
		if err != nil || n < buildBatch {
			return total, err
		}
		next = append(last, 0)
	}
}

type indexBuilder[T proto.Message] struct{ *Index[T] }

func (b indexBuilder[T]) describe() (name, fingerprint string) {
	kind := "index"
	if b.unique {
		kind = "unique"
	}
	return b.name, fmt.Sprintf("%s v%d", kind, b.version)
}

func (b indexBuilder[T]) source(tx *Tx) (lo, hi []byte) { return tx.rows(spaceRecord, b.c.name) }

// build adds the entries of one record.
func (b indexBuilder[T]) build(tx *Tx, record Pair) error {
	v, ok := b.c.decode(tx, record.Value)
	if !ok {
		return tx.err
	}
	id := b.c.id(v)
	for _, key := range b.entries(tx, v, id) {
		if b.unique {
			if other := tx.get(key); other != nil && string(other) != id {
				return fmt.Errorf("records %q and %q of %s have the same key", other, id, tx.Tenant())
			}
		}
		tx.put(key, b.value(id))
	}
	return nil
}
