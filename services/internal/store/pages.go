package store

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// Pages reads the rows of a store, as its engine has them and of all tenants, a page at a
// time. What is read through it is for those who look after the store: a service sees
// none of it.
type Pages interface {
	// Page returns the first rows of lo <= key < hi in the order of their keys, of one
	// snapshot, and none only if there are none.
	Page(ctx context.Context, lo, hi []byte) ([]Pair, error)
}

// pagePairs and pageBytes bound a page, beside its last row.
const (
	pagePairs = 4000
	pageBytes = 1 << 20
)

// PagesOf reads the rows of an engine.
func PagesOf(e Engine) Pages { return enginePages{e} }

// Pages reads the rows of the DB's engine.
func (db *DB) Pages() Pages { return enginePages{db.engine} }

type enginePages struct{ engine Engine }

// Page implements Pages.
func (p enginePages) Page(ctx context.Context, lo, hi []byte) (page []Pair, err error) {
	err = caught(func() error {
		return p.engine.View(ctx, func(s Snapshot) error {
			page = nil
			size := 0
			for pair, err := range s.Scan(lo, hi, false) {
				if err != nil {
					return err
				}
				page = append(page, Pair{bytes.Clone(pair.Key), bytes.Clone(pair.Value)})
				if size += len(pair.Key) + len(pair.Value); size >= pageBytes || len(page) == pagePairs {
					break
				}
			}
			return nil
		})
	})
	return page, err
}

// EachPage calls f with every page of a range.
func EachPage(ctx context.Context, p Pages, lo, hi []byte, f func([]Pair) error) error {
	for {
		page, err := p.Page(ctx, lo, hi)
		if err != nil || len(page) == 0 {
			return err
		}
		if err := f(page); err != nil {
			return err
		}
		lo = append(bytes.Clone(page[len(page)-1].Key), 0)
	}
}

// getRow returns the value of one key, nil if there is none.
func getRow(ctx context.Context, p Pages, key []byte) ([]byte, error) {
	page, err := p.Page(ctx, key, append(bytes.Clone(key), 0))
	if err != nil || len(page) == 0 {
		return nil, err
	}
	if page[0].Value == nil {
		return present, nil
	}
	return page[0].Value, nil
}

// Everything returns the bounds of all rows of a store.
func Everything() (lo, hi []byte) { return []byte{0}, []byte{0xff, 0xff} }

// OutsideTenants returns the bounds of the rows that are of no tenant.
func OutsideTenants() (lo, hi []byte) { return []byte{system}, []byte{system + 1} }

// tenantRow returns the key of a row in a space of a tenant.
func tenantRow(tenant string, space byte, parts ...any) []byte {
	return Key(parts).appendTo(append(appendString(nil, tenant), space))
}

// OfTenant returns the bounds of all rows of a tenant.
func OfTenant(tenant string) (lo, hi []byte) {
	lo = appendString(nil, tenant)
	return lo, after(lo)
}

// ReadTenants returns the tenants that a store has, in order.
func ReadTenants(ctx context.Context, p Pages) (tenants []string, err error) {
	err = EachPage(ctx, p, tenantPrefix, after(tenantPrefix), func(page []Pair) error {
		for _, row := range page {
			tenant, _, ok := cutString(row.Key[len(tenantPrefix):])
			if !ok {
				return fmt.Errorf("row %x is malformed", row.Key)
			}
			tenants = append(tenants, tenant)
		}
		return nil
	})
	return tenants, err
}

// ReadHead returns the last revision of a tenant's journal.
func ReadHead(ctx context.Context, p Pages, tenant string) (int64, error) {
	head := &storepb.Head{}
	row, err := getRow(ctx, p, tenantRow(tenant, spaceHead))
	if err == nil {
		err = proto.Unmarshal(row, head)
	}
	return head.GetRevision(), err
}

// readBase returns where a tenant's journal begins.
func readBase(ctx context.Context, p Pages, tenant string) (*storepb.Base, error) {
	base := &storepb.Base{}
	row, err := getRow(ctx, p, tenantRow(tenant, spaceBase))
	if err == nil {
		err = proto.Unmarshal(row, base)
	}
	return base, err
}

// Baseline is what was read of a tenant by [ReadTenant].
type Baseline struct {
	After int64 // entries up to this one are among the rows, and nothing of them is missing
	Least int64 // the entries up to this one are needed to make the rows those of one revision
}

// ReadTenant gives take all rows of a tenant but those of indexes, page after page. Others
// may write meanwhile: what was committed since the first page is in some rows and not in
// others, and the entries of the journal tell the rest. If the journal was cut
// meanwhile it begins again, with restart.
func ReadTenant(ctx context.Context, p Pages, tenant string, take func(rows []Pair, restart bool) error) (b Baseline, err error) {
	for {
		base, err := getRow(ctx, p, tenantRow(tenant, spaceBase))
		if err != nil {
			return b, err
		}
		if b.After, err = ReadHead(ctx, p, tenant); err != nil {
			return b, err
		}
		restart := true
		lo, hi := OfTenant(tenant)
		event, index, journal := tenantRow(tenant, spaceEvent), tenantRow(tenant, spaceIndex), tenantRow(tenant, spaceJournal)
		// Later entries and their events come with the tail. To read them here too would be to
		// run after those who write.
		later := b.After + 1
		for _, r := range [][2][]byte{
			{lo, tenantRow(tenant, spaceEvent, later)},
			{after(event), index},
			{after(index), tenantRow(tenant, spaceJournal, later)},
			{after(journal), hi},
		} {
			err := EachPage(ctx, p, r[0], r[1], func(page []Pair) error {
				defer func() { restart = false }()
				return take(page, restart)
			})
			if err != nil {
				return b, err
			}
		}
		again, err := getRow(ctx, p, tenantRow(tenant, spaceBase))
		if err != nil {
			return b, err
		}
		b.Least, err = ReadHead(ctx, p, tenant)
		if err != nil || bytes.Equal(base, again) {
			return b, err
		}
	}
}

// ReadRevisionAt returns the last revision of a tenant before the first that was committed
// after an instant, of those up to head that its journal still has.
func ReadRevisionAt(ctx context.Context, p Pages, tenant string, head int64, at time.Time) (int64, error) {
	base, err := readBase(ctx, p, tenant)
	if err != nil {
		return 0, err
	}
	for revision := head; revision > 0; revision-- {
		if revision == base.GetRevision() && !base.GetCommitTime().AsTime().After(at) {
			return revision, nil
		}
		row, err := getRow(ctx, p, tenantRow(tenant, spaceJournal, revision))
		if err != nil {
			return 0, err
		}
		if row == nil {
			return 0, fmt.Errorf("the journal of %s does not go back to %s: it begins after revision %d", tenant, at.Format(time.RFC3339), revision)
		}
		e := &storepb.JournalEntry{}
		if err := proto.Unmarshal(row, e); err != nil {
			return 0, err
		}
		if !e.GetCommitTime().AsTime().After(at) {
			return revision, nil
		}
	}
	return 0, nil
}
