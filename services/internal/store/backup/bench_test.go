package backup_test

import (
	"bytes"
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

func openFile(b *testing.B) store.Engine {
	b.Helper()
	e, err := bolt.Open(filepath.Join(b.TempDir(), "test.db"), bolt.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	return e
}

func openStore(b *testing.B, e store.Engine) *store.DB {
	b.Helper()
	db, err := store.Open(b.Context(), e, schema, store.Config{Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	return db
}

// someBackup returns a backup of records of which some came with an import of many, and most
// alone.
func someBackup(b *testing.B) []byte {
	b.Helper()
	live := openFile(b)
	db := openStore(b, live)
	defer db.Close()
	ctx := store.WithOrigin(b.Context(), store.Origin{Tenant: "acme", Caller: "ann", Method: "latchkey.store.v1.SampleService/SaveSample"})
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
	return file.Bytes()
}

// BenchmarkRestore restores records with their journal into a file, and does what comes after
// it in the command: the indexes are built, and all of it is verified.
func BenchmarkRestore(b *testing.B) {
	file := someBackup(b)
	var restore, build, verify time.Duration
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		e := openFile(b)
		start := time.Now()
		r := backup.Restoring{Now: time.Now, Open: func(string) (store.Engine, error) { return e, nil }}
		if _, err := r.Restore(b.Context(), bytes.NewReader(file)); err != nil {
			b.Fatal(err)
		}
		restore += time.Since(start)
		start = time.Now()
		again := openStore(b, e)
		build += time.Since(start)
		start = time.Now()
		v, err := again.Verify(b.Context(), func(problem string) { b.Error(problem) }, func(store.Verified) error { return nil })
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
