package postgres

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

var (
	samples = store.NewCollection("sample", (*storepb.Sample).GetId)
	_       = samples.Unique("number", func(v *storepb.Sample) store.Key { return store.Key{v.GetNumber()} })
	byGroup = samples.Index("group", func(v *storepb.Sample) store.Key { return store.Key{v.GetGroup(), v.GetRank()} })
	schema  = store.NewSchema(samples)
)

// as returns the context of a call for one of the tenants.
func as(tenant int) context.Context {
	return store.WithOrigin(context.Background(), store.Origin{
		Tenant: fmt.Sprintf("01890a5d-ac96-774b-bcce-%012d", tenant), Caller: "01890a5d-ac96-774b-bcce-b302099a8058",
		Method: "latchkey.store.v1.SampleService/SaveSample",
	})
}

// benchSample returns a record of the usual size, about 200 bytes.
func benchSample(i int) *storepb.Sample {
	return &storepb.Sample{
		Id: fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", uint32(i*2654435761)), Number: strconv.Itoa(i),
		Group: "group" + strconv.Itoa(i%10), Rank: int64(i), Tags: []string{"repair", "urgent"},
		Note: "The heating on the second floor is cold, and the tenant asks for a visit before noon.",
	}
}

func create(ctx context.Context, db *store.DB, i int) error {
	_, err := store.Do(ctx, db, &storepb.SaveSampleRequest{RequestId: strconv.Itoa(i)}, func(tx *store.Tx) (*storepb.Sample, error) {
		v := benchSample(i)
		tx.Emit(&storepb.Position{Revision: int64(i)})
		return v, samples.Put(tx, v)
	})
	return err
}

// bench is a durable cluster, and in it the store and the same in plain tables.
type bench struct {
	url  string
	pool *pgxpool.Pool
}

func newBench(b *testing.B) *bench {
	b.Helper()
	c := postgrestest.New(b, "fsync=on", "full_page_writes=on", "autovacuum=on")
	w := &bench{url: c.URL() + "?pool_max_conns=20"}
	pool, err := pgxpool.New(b.Context(), w.url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	w.pool = pool
	return w
}

func (w *bench) store(b testing.TB) *store.DB {
	b.Helper()
	e, _, err := Open(b.Context(), w.url, newService(), store.MakeMissing)
	if err != nil {
		b.Fatal(err)
	}
	db, err := store.Open(b.Context(), e, schema, store.Config{Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db
}

// plain makes the tables that one would make for the same without the store.
func (w *bench) plain(b *testing.B) {
	b.Helper()
	_, err := w.pool.Exec(b.Context(), `
		DROP TABLE IF EXISTS heads, records, journal, events, history, answers;
		CREATE TABLE heads (tenant text PRIMARY KEY, revision bigint NOT NULL, hash bytea NOT NULL);
		CREATE TABLE records (tenant text, id text, number text, grp text, rank bigint, body bytea, PRIMARY KEY (tenant, id), UNIQUE (tenant, number));
		CREATE INDEX ON records (tenant, grp, rank, id);
		CREATE TABLE journal (tenant text, revision bigint, entry bytea, PRIMARY KEY (tenant, revision));
		CREATE TABLE events (tenant text, revision bigint, i int, payload bytea, PRIMARY KEY (tenant, revision, i));
		CREATE TABLE history (tenant text, collection text, id text, revision bigint, PRIMARY KEY (tenant, collection, id, revision));
		CREATE TABLE answers (tenant text, caller text, method text, request text, hash bytea, answer bytea, at timestamptz, PRIMARY KEY (tenant, caller, method, request));`)
	if err != nil {
		b.Fatal(err)
	}
}

var padding = make([]byte, 1024)

// createPlain stores the same rows in two round trips: it locks the tenant's head, and
// writes everything.
func (w *bench) createPlain(ctx context.Context, i int) error {
	o := store.OriginOf(ctx)
	conn, err := w.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	request := strconv.Itoa(i)
	begin := &pgx.Batch{}
	begin.Queue(`BEGIN`)
	begin.Queue(`SELECT answer FROM answers WHERE tenant = $1 AND caller = $2 AND method = $3 AND request = $4`, o.Tenant, o.Caller, o.Method, request)
	begin.Queue(`INSERT INTO heads AS h VALUES ($1, 1, $2) ON CONFLICT (tenant) DO UPDATE SET revision = h.revision + 1, hash = excluded.hash RETURNING revision`, o.Tenant, padding[:32])
	results := conn.SendBatch(ctx, begin)
	var revision int64
	if _, err = results.Exec(); err == nil {
		_, err = results.Exec()
	}
	if err == nil {
		err = results.QueryRow().Scan(&revision)
	}
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	v := benchSample(i)
	write := &pgx.Batch{}
	write.Queue(`INSERT INTO records VALUES ($1, $2, $3, $4, $5, $6)`, o.Tenant, v.GetId(), v.GetNumber(), v.GetGroup(), v.GetRank(), padding[:230])
	write.Queue(`INSERT INTO journal VALUES ($1, $2, $3)`, o.Tenant, revision, padding[:620])
	write.Queue(`INSERT INTO events VALUES ($1, $2, 0, $3)`, o.Tenant, revision, padding[:100])
	write.Queue(`INSERT INTO history VALUES ($1, 'sample', $2, $3)`, o.Tenant, v.GetId(), revision)
	write.Queue(`INSERT INTO answers VALUES ($1, $2, $3, $4, $5, $6, now())`, o.Tenant, o.Caller, o.Method, request, padding[:32], padding[:270])
	write.Queue(`COMMIT`)
	return conn.SendBatch(ctx, write).Close()
}

// callers calls f n times from as many goroutines and returns how long it took.
func callers(b *testing.B, callers, n int, f func(i int) error) time.Duration {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// BenchmarkCreate stores records with their index entries, journal, event and answer, and
// the same rows in plain tables. plain/store is how many the store stores in the time in
// which the plain tables take one.
func BenchmarkCreate(b *testing.B) {
	w := newBench(b)
	for _, tenants := range []int{1, 100} {
		for _, n := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("tenants=%d/callers=%d", tenants, n), func(b *testing.B) {
				db := w.store(b)
				w.plain(b)
				plain := callers(b, n, b.N, func(i int) error { return w.createPlain(as(i%tenants), i) })
				b.ResetTimer()
				ours := callers(b, n, b.N, func(i int) error { return create(as(i%tenants), db, i) })
				b.ReportMetric(float64(plain)/float64(ours), "plain/store")
				b.ReportMetric(float64(b.N)/plain.Seconds(), "plain/s")
				b.ReportMetric(float64(b.N)/ours.Seconds(), "store/s")
			})
		}
	}
}

// fill stores n records of each tenant in both, many in each transaction.
func (w *bench) fill(b *testing.B, db *store.DB, tenants, n int) {
	b.Helper()
	for tenant := range tenants {
		ctx := as(tenant)
		for from := 0; from < n; from += 500 {
			err := db.Update(ctx, func(tx *store.Tx) error {
				for i := from; i < min(n, from+500); i++ {
					if err := samples.Put(tx, benchSample(i)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		_, err := w.pool.CopyFrom(ctx, pgx.Identifier{"records"}, []string{"tenant", "id", "number", "grp", "rank", "body"},
			pgx.CopyFromSlice(n, func(i int) ([]any, error) {
				v := benchSample(i)
				body, err := proto.Marshal(v)
				return []any{store.OriginOf(ctx).Tenant, v.GetId(), v.GetNumber(), v.GetGroup(), v.GetRank(), body}, err
			}))
		if err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.pool.Exec(b.Context(), "VACUUM ANALYZE"); err != nil {
		b.Fatal(err)
	}
}

const listed = 50

// list reads a page of the records of a group, from the middle.
func list(ctx context.Context, db *store.DB, from int) error {
	_, err := store.Read(ctx, db, func(tx *store.Tx) ([]*storepb.Sample, error) {
		v, _, err := store.Page(tx, &storepb.ListSamplesRequest{}, nil, byGroup.Range("group3").From(from))
		if err == nil && len(v) != listed {
			err = fmt.Errorf("the page has %d records", len(v))
		}
		return v, err
	})
	return err
}

// listPlain does the same with the index of the plain table.
func (w *bench) listPlain(ctx context.Context, from int) error {
	rows, _ := w.pool.Query(ctx, `SELECT body FROM records WHERE tenant = $1 AND grp = $2 AND rank >= $3 ORDER BY rank, id LIMIT $4`,
		store.OriginOf(ctx).Tenant, "group3", from, listed+1)
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*storepb.Sample, error) {
		var body []byte
		v := &storepb.Sample{}
		if err := row.Scan(&body); err != nil {
			return nil, err
		}
		return v, proto.Unmarshal(body, v)
	})
	if err == nil && len(found) != listed+1 {
		err = fmt.Errorf("the page has %d records", len(found))
	}
	return err
}

// BenchmarkList reads pages of 50 records. plain/store is as in BenchmarkCreate.
func BenchmarkList(b *testing.B) {
	w := newBench(b)
	for _, tenants := range []int{1, 100} {
		db := w.store(b)
		w.plain(b)
		w.fill(b, db, tenants, max(2000, 20_000/tenants))
		for _, n := range []int{1, 16} {
			b.Run(fmt.Sprintf("tenants=%d/callers=%d", tenants, n), func(b *testing.B) {
				plain := callers(b, n, b.N, func(i int) error { return w.listPlain(as(i%tenants), i%1000) })
				b.ResetTimer()
				ours := callers(b, n, b.N, func(i int) error { return list(as(i%tenants), db, i%1000) })
				b.ReportMetric(float64(plain)/float64(ours), "plain/store")
				b.ReportMetric(float64(b.N)/plain.Seconds(), "plain/s")
				b.ReportMetric(float64(b.N)/ours.Seconds(), "store/s")
			})
		}
	}
}
