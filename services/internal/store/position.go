package store

import (
	"context"
	"fmt"
	"strings"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// Position returns how far the source's events of this tenant have been handled:
// the last revision whose events have all been, 0 if none.
func (tx *Tx) Position(source string) int64 {
	p := &storepb.Position{}
	tx.load(tx.row(spacePosition, source), p)
	return p.GetRevision()
}

// CountPositions returns how many sources with such a beginning of their names have a
// position.
func (tx *Tx) CountPositions(prefix string) (n int) {
	lo, hi := tx.rows(spacePosition)
	for p := range tx.scan(lo, hi, false) {
		if source, _, ok := cutString(p.Key[len(lo):]); ok && strings.HasPrefix(source, prefix) {
			n++
		}
	}
	return n
}

// SetPosition says that the source's events of this tenant have been handled up to
// and with the revision. Called in the transaction that has their effects, it
// makes each event take effect once.
func (tx *Tx) SetPosition(source string, revision int64) {
	tx.mustWrite()
	if tx.Position(source) != revision {
		if tx.positions == nil {
			tx.positions = map[string]int64{}
		}
		tx.positions[source] = revision
		tx.save(tx.row(spacePosition, source), &storepb.Position{Revision: revision})
	}
}

// Positions returns the position of each tenant that has one for the source.
func (db *DB) Positions(ctx context.Context, source string) (map[string]int64, error) {
	tenants, err := db.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	positions := map[string]int64{}
	for _, t := range tenants {
		err := db.view(ctx, Origin{Tenant: t}, func(tx *Tx) error {
			if r := tx.Position(source); r != 0 {
				positions[t] = r
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read position of %s in %s: %w", t, source, err)
		}
	}
	return positions, nil
}
