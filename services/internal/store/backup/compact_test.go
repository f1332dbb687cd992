package backup_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
)

// compacting compacts a journal now and then while its pages are read.
type compacting struct {
	store.Pages
	t       *testing.T
	random  *rand.Rand
	compact func() error
	left    int // how often it will
}

func (c *compacting) Page(ctx context.Context, lo, hi []byte) ([]store.Pair, error) {
	if c.left > 0 && c.random.IntN(12) == 0 {
		c.left--
		if err := c.compact(); err != nil {
			c.t.Error(err)
		}
	}
	return c.Pages.Page(ctx, lo, hi)
}

// TestCompactedMeanwhile takes a backup and segments while writers run and journals lose
// entries, or their values, of which some are of just now. What is restored is what was.
func TestCompactedMeanwhile(t *testing.T) {
	tenants := []string{"acme", "brick", "cedar"}
	for name, compact := range map[string]func(ctx context.Context, db *store.DB, random *rand.Rand, tenant string) error{
		"removed": func(ctx context.Context, db *store.DB, random *rand.Rand, tenant string) error {
			_, err := db.CompactTo(ctx, tenant, head(t, db, tenant)-random.Int64N(20))
			return err
		},
		"erased": func(ctx context.Context, db *store.DB, _ *rand.Rand, tenant string) error {
			_, err := db.Compact(ctx, tenant, store.Retention{Values: time.Nanosecond})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 99))
			m, live := newModel(), engines["bolt"](t)
			db := openDB(t, live)
			for n := range 150 {
				must(t, m.write(t.Context(), db, random, tenants[n%3], n))
			}
			must(t, compact(t.Context(), db, random, tenants[0])) // so that it surely was
			pages := &compacting{Pages: small{store.PagesOf(live), random}, t: t, random: random}
			pages.compact = func() error { return compact(t.Context(), db, random, tenants[random.IntN(3)]) }
			taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: pages}}, Now: time.Now}
			var files [][]byte
			take := func(f func(w io.Writer) error) {
				var file bytes.Buffer
				pages.left = 6
				must(t, f(&file))
				files = append(files, file.Bytes())
			}
			more := func(w io.Writer) error {
				_, err := taking.TakeMore(t.Context(), w, map[string][]string{"test": tenants})
				return err
			}
			m.load(t, db, seed, tenants, func() {
				take(func(w io.Writer) error {
					_, err := taking.Take(t.Context(), w)
					return err
				})
				for range 3 {
					take(more)
				}
			})
			// A segment finds nothing left of what it was to have.
			for _, tenant := range tenants {
				must(t, compact(t.Context(), db, random, tenant))
			}
			take(more)
			all, _ := restored(t, engines["bolt"](t), backup.Restoring{}, files...)
			for _, tenant := range tenants {
				if got, want := head(t, all, tenant), head(t, db, tenant); got != want {
					t.Errorf("%s was restored at revision %d, want %d", tenant, got, want)
				}
				m.check(t, all, tenant, head(t, all, tenant))
			}
			if name == "removed" {
				m.checkBack(t, random, all, files)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// checkBack restores revisions that the journals still have, and one that they have not.
func (m *model) checkBack(t *testing.T, random *rand.Rand, all *store.DB, files [][]byte) {
	t.Helper()
	const tenant = "acme"
	base, last := int64(0), head(t, all, tenant)
	err := all.View(store.WithOrigin(t.Context(), store.Origin{Tenant: tenant}), func(tx *store.Tx) error {
		base = tx.BaseRevision()
		return nil
	})
	if err != nil || base == 0 {
		t.Fatalf("got base %d, %v", base, err)
	}
	for _, revision := range []int64{base, base + random.Int64N(last-base+1), last} {
		at := backup.Restoring{Revisions: map[string]map[string]int64{"test": {tenant: revision}}}
		part, _ := restored(t, engines["bolt"](t), at, files...)
		m.check(t, part, tenant, revision)
		part.Close()
	}
	e := engines["bolt"](t)
	defer e.Close()
	r := backup.Restoring{
		Now: time.Now, Revisions: map[string]map[string]int64{"test": {tenant: base - 1}},
		Open: func(string) (store.Engine, error) { return e, nil },
	}
	var in []*bytes.Reader
	for _, f := range files {
		in = append(in, bytes.NewReader(f))
	}
	if _, err := r.Restore(t.Context(), readers(in)...); err == nil {
		t.Error("a revision that the journal no longer has was restored")
	}
}
