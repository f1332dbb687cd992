package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

var (
	samples  = store.NewCollection("sample", (*storepb.Sample).GetId)
	byNumber = samples.Unique("number", func(v *storepb.Sample) store.Key { return store.Key{v.GetNumber()} })
	byGroup  = samples.Index("group", func(v *storepb.Sample) store.Key { return store.Key{v.GetGroup(), v.GetRank()} })
	schema   = store.NewSchema(samples)
	tenant   = store.WithOrigin(context.Background(), store.Origin{
		Tenant: "01890a5d-ac96-774b-bcce-b302099a8057", Caller: "01890a5d-ac96-774b-bcce-b302099a8058",
		Method: "latchkey.store.v1.SampleService/SaveSample",
	})
)

func open(b *testing.B, o bolt.Options) *store.DB {
	b.Helper()
	e, err := bolt.Open(filepath.Join(b.TempDir(), "bench.db"), o)
	if err != nil {
		b.Fatal(err)
	}
	db, err := store.Open(tenant, e, schema, store.Config{Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db
}

// sample returns a record of the usual size, about 200 bytes, whose id grows with i as
// those of the suite grow with time.
func sample(i int) *storepb.Sample {
	return &storepb.Sample{
		Id: fmt.Sprintf("01890a5d-%04x-7%03x-bcce-b302099a8057", i>>12, i&0xfff), Number: strconv.Itoa(i),
		Group: "group" + strconv.Itoa(i%10), Rank: int64(i), Tags: []string{"repair", "urgent"},
		Note: "The heating on the second floor is cold, and the tenant asks for a visit before noon.",
	}
}

func create(db *store.DB, i int) error {
	req := &storepb.SaveSampleRequest{RequestId: strconv.Itoa(i)}
	_, err := store.Do(tenant, db, req, func(tx *store.Tx) (*storepb.Sample, error) {
		v := sample(i)
		tx.Emit(&storepb.Position{Revision: int64(i)})
		return v, samples.Put(tx, v)
	})
	return err
}

// syncTime returns how long the folder's disk takes to make 4 KB durable.
func syncTime(b *testing.B) time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	const n = 100
	var start time.Time
	for i := range n + 10 {
		if i == 10 {
			start = time.Now()
		}
		if _, err := f.WriteAt(page, int64(i%2)*4096); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / n
}

// BenchmarkDurableCreate stores records with index entries, journal, event and
// answer. It tells how many a caller gets in the time of one sync of the same disk.
func BenchmarkDurableCreate(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			db := open(b, bolt.Options{})
			raw := syncTime(b)
			var next atomic.Int64
			b.ReportAllocs()
			if callers == 1 {
				for b.Loop() {
					if err := create(db, int(next.Add(1))); err != nil {
						b.Fatal(err)
					}
				}
			} else {
				runCallers(b, callers, func() error { return create(db, int(next.Add(1))) })
			}
			perOp := b.Elapsed() / time.Duration(b.N)
			raw = (raw + syncTime(b)) / 2
			b.ReportMetric(float64(raw)/float64(perOp), "creates/sync")
			b.ReportMetric(float64(perOp)/float64(2*raw), "two-syncs/op")
		})
	}
}

// runCallers calls f b.N times from as many goroutines.
func runCallers(b *testing.B, callers int, f func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan error, callers)
	b.ResetTimer()
	for range callers {
		go func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range callers {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
}

// BenchmarkCreate is the same without the disk: the work of the store alone.
func BenchmarkCreate(b *testing.B) {
	db := open(b, bolt.Options{NoSync: true})
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if err := create(db, i); err != nil {
			b.Fatal(err)
		}
	}
}

// fill stores n records, many in each transaction.
func fill(b *testing.B, db *store.DB, n int) {
	b.Helper()
	for from := 0; from < n; from += 1000 {
		err := db.Update(tenant, func(tx *store.Tx) error {
			for i := from; i < min(n, from+1000); i++ {
				if err := samples.Put(tx, sample(i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	db := open(b, bolt.Options{NoSync: true})
	fill(b, db, 10_000)
	id := sample(7).GetId()
	b.ReportAllocs()
	for b.Loop() {
		_, err := store.Read(tenant, db, func(tx *store.Tx) (*storepb.Sample, error) {
			v, ok := samples.Get(tx, id)
			if !ok {
				b.Fatal("not found", tx.Failed())
			}
			return v, nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFirst(b *testing.B) {
	db := open(b, bolt.Options{NoSync: true})
	fill(b, db, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		_ = db.View(tenant, func(tx *store.Tx) error {
			if _, ok := byNumber.First(tx, "777"); !ok {
				b.Fatal("not found", tx.Failed())
			}
			return nil
		})
	}
}

// BenchmarkUpdate changes one field of a record.
func BenchmarkUpdate(b *testing.B) {
	db := open(b, bolt.Options{NoSync: true})
	fill(b, db, 10_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		err := db.Update(tenant, func(tx *store.Tx) error {
			v, _ := samples.Get(tx, sample(i%10_000).GetId())
			v.Note = strconv.Itoa(i)
			return samples.Put(tx, v)
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPage reads 50 records out of the middle of a group, by one range and by two,
// and with a filter that keeps every second. LATCHKEY_BENCH_RECORDS sets how many
// records there are; the cost should not depend on it.
func BenchmarkPage(b *testing.B) {
	n := 10_000
	if s := os.Getenv("LATCHKEY_BENCH_RECORDS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	db := open(b, bolt.Options{NoSync: true})
	fill(b, db, n)
	one := byGroup.Range("group3").From(n / 2)
	two := byGroup.Range("group4").From(n / 2)
	half := func(v *storepb.Sample) bool { return v.GetRank()/10%2 == 0 }
	for name, c := range map[string]struct {
		keep   func(*storepb.Sample) bool
		ranges []store.Range[*storepb.Sample]
	}{
		"one":    {nil, []store.Range[*storepb.Sample]{one}},
		"two":    {nil, []store.Range[*storepb.Sample]{one, two}},
		"filter": {half, []store.Range[*storepb.Sample]{one}},
	} {
		b.Run(fmt.Sprintf("%s/records=%d", name, n), func(b *testing.B) {
			b.ReportAllocs()
			req := &storepb.ListSamplesRequest{Group: "group3"}
			token := ""
			for b.Loop() {
				req.PageToken = token
				_, err := store.Read(tenant, db, func(tx *store.Tx) (bool, error) {
					items, next, err := store.Page(tx, req, c.keep, c.ranges...)
					if len(items) != 50 {
						b.Fatalf("got %d records", len(items))
					}
					if token == "" {
						token = next
					}
					return true, err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
