package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// kept is a store without a service, with service requests in it.
type kept struct {
	b        *bench
	requests *store.Collection[*servicerequestpb.ServiceRequest]
	byPlace  *store.Index[*servicerequestpb.ServiceRequest]
	schema   *store.Schema
	newID    func() string
}

func (b *bench) kept() *kept {
	k := &kept{b: b, newID: server.NewIDs(time.Now)}
	b.one() // for the company
	k.requests = store.NewCollection("service_request", (*servicerequestpb.ServiceRequest).GetId)
	k.byPlace = k.requests.Index("place", func(r *servicerequestpb.ServiceRequest) store.Key {
		return store.Key{r.GetPropertyId(), r.GetRequestTime().AsTime()}
	})
	k.schema = store.NewSchema(k.requests)
	return k
}

func (k *kept) open(e store.Engine, err error) *store.DB {
	if err != nil {
		k.b.t.Fatal(err)
	}
	db, err := store.Open(k.b.t.Context(), e, k.schema, store.Config{Now: time.Now})
	if err != nil {
		k.b.t.Fatal(err)
	}
	k.b.t.Cleanup(func() { db.Close() })
	return db
}

// in returns the context of a call of one of so many tenants.
func (k *kept) in(tenant int) context.Context {
	return store.WithOrigin(k.b.t.Context(), store.Origin{Tenant: servertest.UUID(tenant), Caller: servertest.UUID(1), Method: "benchmark"})
}

// create stores a new record with its index entries, journal entry and answer.
func (k *kept) create(db *store.DB, tenants int) func(context.Context) error {
	var next atomic.Int64
	return func(context.Context) error {
		i := int(next.Add(1))
		id := k.newID()
		_, err := store.Do(k.in(i%tenants), db, &servicerequestpb.CreateServiceRequestRequest{RequestId: id}, func(tx *store.Tx) (*servicerequestpb.ServiceRequest, error) {
			v := someRequest(k.b.company, id, i, time.Now())
			return v, k.requests.Put(tx, v)
		})
		return err
	}
}

// filled returns a file with n records of one tenant, open as a store, and as what it is.
func (k *kept) filled(n int) (db *store.DB, raw *bbolt.DB, ids []string) {
	path := filepath.Join(k.b.t.TempDir(), "kept.db")
	e, err := bolt.Open(path, bolt.Options{NoSync: true})
	db = k.open(e, err)
	start := time.Now().Add(-time.Hour)
	for from := 0; from < n; from += 1000 {
		err := db.Update(k.in(0), func(tx *store.Tx) error {
			for i := from; i < min(n, from+1000); i++ {
				v := someRequest(k.b.company, k.newID(), i, start.Add(time.Duration(i)*time.Millisecond))
				ids = append(ids, v.GetId())
				if err := k.requests.Put(tx, v); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			k.b.t.Fatal(err)
		}
	}
	copied := filepath.Join(k.b.t.TempDir(), "raw.db") // a file is open once
	if err := copyFile(path, copied); err != nil {
		k.b.t.Fatal(err)
	}
	if raw, err = bbolt.Open(copied, 0o600, &bbolt.Options{ReadOnly: true}); err != nil {
		k.b.t.Fatal(err)
	}
	k.b.t.Cleanup(func() { raw.Close() })
	return db, raw, ids
}

// rows returns the rows of a file whose value is one of the records, in the order of the keys.
func rows(raw *bbolt.DB, ids []string) (keys [][]byte, err error) {
	known := map[string]bool{}
	for _, id := range ids {
		known[id] = true
	}
	err = raw.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("records")).ForEach(func(key, value []byte) error {
			v := &servicerequestpb.ServiceRequest{}
			if proto.Unmarshal(value, v) == nil && known[v.GetId()] {
				delete(known, v.GetId())
				keys = append(keys, append([]byte{}, key...))
			}
			return nil
		})
	})
	if err == nil && len(known) > 0 {
		err = fmt.Errorf("%d records have no row", len(known))
	}
	return keys, err
}

// gets measures one record by its id beside the row of the same record.
func (b *bench) gets() finding {
	k := b.kept()
	db, raw, ids := k.filled(10_000)
	keys, err := rows(raw, ids)
	if err != nil {
		b.t.Fatal(err)
	}
	n := 0
	ctx := k.in(0)
	ours := func(context.Context) error {
		n++
		return db.View(ctx, func(tx *store.Tx) error {
			if _, ok := k.requests.Get(tx, ids[n*7919%len(ids)]); !ok {
				return errors.New("it is not there")
			}
			return nil
		})
	}
	plain := func(context.Context) error {
		n++
		return raw.View(func(tx *bbolt.Tx) error {
			return proto.Unmarshal(tx.Bucket([]byte("records")).Get(keys[n*7919%len(keys)]), &servicerequestpb.ServiceRequest{})
		})
	}
	value, ratio := beside(rounds, func() float64 { return b.rate(1, ours) }, func() float64 { return b.rate(1, plain) })
	return finding{perSecond(value, "reads"), ratio, "bbolt's Get in a View, and the same message decoded, a second"}
}

// pages measures 50 records by an index beside a cursor over 50 rows.
func (b *bench) pages() finding {
	k := b.kept()
	db, raw, ids := k.filled(10_000)
	keys, err := rows(raw, ids)
	if err != nil {
		b.t.Fatal(err)
	}
	place := k.byPlace.Range(b.company.Properties[0].GetId())
	const page = 50
	ours := func(context.Context) error {
		return db.View(k.in(0), func(tx *store.Tx) error {
			found, _, err := store.Page(tx, &servicerequestpb.ListServiceRequestsRequest{PageSize: page}, nil, place)
			if err == nil && len(found) != page {
				err = fmt.Errorf("the page has %d records", len(found))
			}
			return err
		})
	}
	plain := func(context.Context) error {
		return raw.View(func(tx *bbolt.Tx) error {
			c := tx.Bucket([]byte("records")).Cursor()
			_, value := c.Seek(keys[len(keys)/2])
			for range page {
				if err := proto.Unmarshal(value, &servicerequestpb.ServiceRequest{}); err != nil {
					return err
				}
				_, value = c.Next()
			}
			return nil
		})
	}
	value, ratio := beside(rounds, func() float64 { return b.rate(1, ours) }, func() float64 { return b.rate(1, plain) })
	return finding{perSecond(value, "pages of 50"), ratio, "a bbolt cursor over 50 rows beside each other, decoded, a second"}
}

// spread measures creates of 64 callers that are of many tenants beside those of one.
func (b *bench) spread(tenants int, open func(*kept) *store.DB) finding {
	k := b.kept()
	many, hot := k.create(open(k), tenants), k.create(open(k), 1)
	value, ratio := beside(rounds, func() float64 { return b.rate(64, many) }, func() float64 { return b.rate(64, hot) })
	return finding{perSecond(value, "creates"), ratio, "the same of one tenant"}
}

// aFile opens a store in a new file.
func aFile(k *kept) *store.DB {
	e, err := bolt.Open(filepath.Join(k.b.t.TempDir(), "kept.db"), bolt.Options{})
	return k.open(e, err)
}

// durable are the settings of a PostgreSQL that keeps what it acknowledges.
var durable = []string{"fsync=on", "full_page_writes=on", "autovacuum=on"}

// aDatabase opens a store in a new database.
func aDatabase(k *kept) *store.DB {
	e, _, err := postgres.Open(k.b.t.Context(), postgrestest.New(k.b.t, durable...).URL(), "kept", store.MakeMissing)
	return k.open(e, err)
}

// writtenBytes returns how many bytes of rows a create leaves in the store of its service.
func (b *bench) writtenBytes() int {
	k := b.kept()
	e, err := bolt.Open(filepath.Join(b.t.TempDir(), "kept.db"), bolt.Options{NoSync: true})
	db := k.open(e, err)
	create := k.create(db, 1)
	size := func() (n int) {
		lo, hi := store.Everything()
		err := store.EachPage(b.t.Context(), db.Pages(), lo, hi, func(page []store.Pair) error {
			for _, row := range page {
				n += len(row.Key) + len(row.Value)
			}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
		return n
	}
	const n = 100
	before := 0
	for i := range n + 1 {
		if err := create(b.t.Context()); err != nil {
			b.t.Fatal(err)
		}
		if i == 0 {
			before = size()
		}
	}
	return (size() - before) / n
}

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

// createsBesideInserts measures creates through the API beside pgbench, with as many clients,
// that inserts one row of as many bytes for each.
func (b *bench) createsBesideInserts(callers int) finding {
	program, err := exec.LookPath("pgbench")
	if err != nil {
		b.t.Skip("there is no pgbench")
	}
	url := postgrestest.New(b.t, append(durable, fmt.Sprint("max_connections=", callers+10))...).URL()
	script := filepath.Join(b.t.TempDir(), "insert.sql")
	insert := fmt.Sprintf("INSERT INTO rows (body) VALUES (decode(repeat('5a', %d), 'hex'));\n", b.writtenBytes())
	if err := os.WriteFile(script, []byte(insert), 0o600); err != nil {
		b.t.Fatal(err)
	}
	inserts := func() float64 { // by number, since to connect takes a while, which does not count
		cmd := exec.Command(program, "--no-vacuum", "--protocol=prepared", "--client", strconv.Itoa(callers), "--jobs", strconv.Itoa(min(2, callers)),
			"--transactions", strconv.Itoa(20+200/callers), "--file", script, url)
		out, err := cmd.CombinedOutput()
		found := tps.FindSubmatch(out)
		if err != nil || found == nil {
			b.t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		value, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil {
			b.t.Fatal(err)
		}
		return value
	}
	b.makeRows(url)
	create := b.creating()
	value, ratio := beside(rounds, func() float64 { return b.rate(callers, create) }, inserts)
	return finding{perSecond(value, "creates"), ratio, "pgbench inserting one row of as many bytes, with as many clients, in PostgreSQL on the same disk, a second"}
}

// makeRows makes the table of the script.
func (b *bench) makeRows(url string) {
	b.t.Helper()
	ctx := b.t.Context()
	conn, err := pgx.Connect(ctx, url)
	if err == nil {
		_, err = conn.Exec(ctx, "CREATE TABLE rows (id bigserial PRIMARY KEY, body bytea NOT NULL)")
		err = errors.Join(err, conn.Close(ctx))
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
