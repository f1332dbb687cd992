package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
	"latchkey.dev/services/internal/store/bolt"
)

// BenchmarkRestore restores records with their journal into a file, and what comes after it
// in the command: the indexes are built, and all of it is verified.
func BenchmarkRestore(b *testing.B) {
	open := func() store.Engine {
		e, err := bolt.Open(filepath.Join(b.TempDir(), "test.db"), bolt.Options{NoSync: true})
		if err != nil {
			b.Fatal(err)
		}
		return e
	}
	opened := func(e store.Engine) *store.DB {
		db, err := store.Open(b.Context(), e, schema, store.Config{Now: time.Now})
		if err != nil {
			b.Fatal(err)
		}
		return db
	}
	live := open()
	db := opened(live)
	ctx := store.WithOrigin(b.Context(), store.Origin{Tenant: "acme", Caller: "ann", Method: "latchkey.store.v1.SampleService/SaveSample"})
	// Some come with an import of many, most alone.
	const imports, each, alone = 20, 500, 5000
	for n := range imports + alone {
		err := db.Update(ctx, func(tx *store.Tx) error {
			for i := range each {
				if n >= imports && i > 0 {
					break
				}
				v := &storepb.Sample{Id: fmt.Sprintf("%016x", rand.Uint64()), Group: fmt.Sprint(i % 10), Rank: int64(n), Note: fmt.Sprintf("%*d", 150, i)}
				if err := samples.Put(tx, v); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	var file bytes.Buffer
	taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: store.PagesOf(live)}}, Now: time.Now}
	if _, err := taking.Take(b.Context(), &file); err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	var restore, build, verify time.Duration
	b.SetBytes(int64(file.Len()))
	for b.Loop() {
		e := open()
		start := time.Now()
		r := backup.Restoring{Now: time.Now, Open: func(string) (store.Engine, error) { return e, nil }}
		if _, err := r.Restore(context.Background(), bytes.NewReader(file.Bytes())); err != nil {
			b.Fatal(err)
		}
		restore += time.Since(start)
		start = time.Now()
		again := opened(e)
		build += time.Since(start)
		start = time.Now()
		v, err := again.Verify(context.Background(), func(problem string) { b.Error(problem) }, func(store.Verified) error { return nil })
		if err != nil || v.Problems > 0 {
			b.Errorf("got %+v, %v", v, err)
		}
		verify += time.Since(start)
		if err := again.Close(); err != nil {
			b.Fatal(err)
		}
	}
	all := float64(restore + build + verify)
	b.ReportMetric(float64(restore)/all, "restored/all")
	b.ReportMetric(float64(build)/all, "indexed/all")
	b.ReportMetric(float64(verify)/all, "verified/all")
}
