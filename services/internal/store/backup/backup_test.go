package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
	"latchkey.dev/services/internal/store/bolt"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	defer postgrestest.Stop()
	m.Run()
}

// engines open an empty store, of each kind.
var engines = map[string]func(t *testing.T) store.Engine{
	"bolt": func(t *testing.T) store.Engine {
		e, err := bolt.Open(filepath.Join(t.TempDir(), "test.db"), bolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		return e
	},
	"postgres": func(t *testing.T) store.Engine {
		e, _, err := postgres.Open(t.Context(), postgrestest.URL(t), fmt.Sprint("test", tables.Add(1)), store.MakeMissing)
		if err != nil {
			t.Fatal(err)
		}
		return e
	},
}

var tables atomic.Int64

func onEach(t *testing.T, f func(t *testing.T, open func(t *testing.T) store.Engine)) {
	for kind, open := range engines {
		t.Run(kind, func(t *testing.T) { f(t, open) })
	}
}

// A schema belongs to one DB at a time as little as to one test: it is only read.
var (
	samples = store.NewCollection("sample", (*storepb.Sample).GetId)
	_       = samples.Index("group", func(v *storepb.Sample) store.Key { return store.Key{v.GetGroup(), v.GetRank()} })
	schema  = store.NewSchema(samples)
)

func openDB(t *testing.T, e store.Engine) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), e, schema, store.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// model is what should be in a store after each revision of each tenant.
type model struct {
	mu   sync.Mutex
	past map[string][]map[string]*storepb.Sample // by tenant and revision
	at   map[string]map[int64]int64              // the position of "elsewhere", by tenant and revision
}

func newModel() *model {
	return &model{past: map[string][]map[string]*storepb.Sample{}, at: map[string]map[int64]int64{}}
}

// note keeps what a revision changed; nil is a record that was deleted.
func (m *model) note(tenant string, revision int64, changed map[string]*storepb.Sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for int64(len(m.past[tenant])) <= revision {
		m.past[tenant] = append(m.past[tenant], nil)
	}
	m.past[tenant][revision] = changed
}

// state returns the records of a tenant after a revision.
func (m *model) state(tenant string, revision int64) map[string]*storepb.Sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	state := map[string]*storepb.Sample{}
	for _, changed := range m.past[tenant][:min(int64(len(m.past[tenant])), revision+1)] {
		for id, v := range changed {
			if v == nil {
				delete(state, id)
			} else {
				state[id] = v
			}
		}
	}
	return state
}

// write does something at random to a tenant.
func (m *model) write(ctx context.Context, db *store.DB, random *rand.Rand, tenant string, n int) error {
	ctx = store.WithOrigin(ctx, store.Origin{Tenant: tenant, Caller: "ann", Method: "latchkey.store.v1.SampleService/SaveSample"})
	id, choice := fmt.Sprintf("s%02d", random.IntN(40)), random.IntN(10)
	req := &storepb.SaveSampleRequest{RequestId: fmt.Sprintf("%s-%d-%d", tenant, n, random.Uint64())}
	var revision int64
	var changed map[string]*storepb.Sample
	_, err := store.Do(ctx, db, req, func(tx *store.Tx) (*storepb.Sample, error) {
		changed, revision = map[string]*storepb.Sample{}, tx.Revision()
		if _, ok := samples.Get(tx, id); ok && choice < 2 {
			changed[id] = nil
			samples.Delete(tx, id)
			return &storepb.Sample{}, nil
		}
		for i := range 1 + choice%3 {
			v := &storepb.Sample{Id: fmt.Sprint(id, i), Group: fmt.Sprint(choice), Rank: int64(n), Note: fmt.Sprintf("%*d", 20+n%400, random.Uint64())} // what is there already would be no change
			if i == 0 {
				v.Id = id
			}
			if err := samples.Put(tx, v); err != nil {
				return nil, err
			}
			stored, _ := samples.Get(tx, v.GetId())
			changed[v.GetId()] = stored
		}
		if choice == 5 {
			tx.Emit(&storepb.Sample{Id: id, Note: "happened"})
		}
		if choice > 6 {
			tx.SetPosition("elsewhere", int64(n))
		}
		return &storepb.Sample{Id: id}, nil
	})
	if err == nil {
		m.note(tenant, revision, changed)
	}
	return err
}

// contents returns the records of a tenant as they are.
func contents(t *testing.T, db *store.DB, tenant string) map[string]*storepb.Sample {
	t.Helper()
	found := map[string]*storepb.Sample{}
	err := db.View(store.WithOrigin(t.Context(), store.Origin{Tenant: tenant}), func(tx *store.Tx) error {
		for v := range samples.All(tx) {
			found[v.GetId()] = v
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func same(a, b map[string]*storepb.Sample) bool {
	return maps.EqualFunc(a, b, func(a, b *storepb.Sample) bool { return proto.Equal(a, b) })
}

// check fails the test unless a tenant is as it was after a revision, and all is whole.
func (m *model) check(t *testing.T, db *store.DB, tenant string, revision int64) {
	t.Helper()
	if got, want := contents(t, db, tenant), m.state(tenant, revision); !same(got, want) {
		t.Errorf("%s at revision %d: got %d records, want %d\n%v\n%v", tenant, revision, len(got), len(want), got, want)
	}
	if err := db.VerifyJournal(t.Context(), tenant); err != nil {
		t.Error(err)
	}
	if err := db.VerifyRecords(t.Context(), tenant); err != nil {
		t.Error(err)
	}
}

// loadLimit bounds what each of the writers writes, or who reads a few rows at a time
// would never come to the end on a machine that has other things to do.
const loadLimit = 2000

// load has writers run while f does.
func (m *model) load(t *testing.T, db *store.DB, seed uint64, tenants []string, f func()) {
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			for n := 1; ctx.Err() == nil && n <= loadLimit; n++ {
				if err := m.write(t.Context(), db, random, tenants[random.IntN(len(tenants))], n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	f()
	stop()
	writers.Wait()
}

// head returns the last revision of a tenant.
func head(t *testing.T, db *store.DB, tenant string) (last int64) {
	t.Helper()
	err := db.View(store.WithOrigin(t.Context(), store.Origin{Tenant: tenant}), func(tx *store.Tx) error {
		last = tx.Revision()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// restored opens what a backup holds, restored as r says.
func restored(t *testing.T, e store.Engine, r backup.Restoring, files ...[]byte) (*store.DB, backup.Restored) {
	t.Helper()
	r.Open = func(string) (store.Engine, error) { return e, nil }
	r.Now = time.Now
	var in []*bytes.Reader
	for _, f := range files {
		in = append(in, bytes.NewReader(f))
	}
	done, err := r.Restore(t.Context(), readers(in)...)
	if err != nil {
		t.Fatal(err)
	}
	return openDB(t, e), done
}

// TestMore takes a backup, and then segments while writers run, one of which fails, and
// restores all of them, and only the first.
func TestMore(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) store.Engine) {
		tenants := []string{"acme", "brick", "cedar"}
		m, live := newModel(), open(t)
		db := openDB(t, live)
		random := rand.New(rand.NewPCG(1, 2))
		if err := m.write(t.Context(), db, random, "acme", 0); err != nil {
			t.Fatal(err)
		}
		taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: small{store.PagesOf(live), random}}}, Now: time.Now}
		var files [][]byte
		take := func(f func(w io.Writer) error) {
			var file bytes.Buffer
			if err := f(&file); err != nil {
				t.Error(err)
			}
			files = append(files, file.Bytes())
		}
		more := func(w io.Writer) error {
			_, err := taking.TakeMore(t.Context(), w, map[string][]string{"test": tenants})
			return err
		}
		m.load(t, db, 3, tenants, func() {
			take(func(w io.Writer) error {
				_, err := taking.Take(t.Context(), w)
				return err
			})
			for range 4 {
				if err := more(failing{}); err == nil {
					t.Error("a segment that could not be written is no error")
				}
				take(more)
			}
		})
		take(more)
		all, _ := restored(t, engines["bolt"](t), backup.Restoring{}, files...)
		for _, tenant := range tenants {
			if got, want := head(t, all, tenant), head(t, db, tenant); got != want {
				t.Errorf("%s was restored at revision %d, want %d", tenant, got, want)
			}
			m.check(t, all, tenant, head(t, all, tenant))
		}
		all.Close()
		first, _ := restored(t, engines["bolt"](t), backup.Restoring{}, files[:2]...)
		m.check(t, first, "acme", head(t, first, "acme"))
		first.Close()
		r := backup.Restoring{Now: time.Now, Open: func(string) (store.Engine, error) { return engines["bolt"](t), nil }}
		if _, err := r.Restore(t.Context(), bytes.NewReader(files[0]), bytes.NewReader(files[2])); err == nil {
			t.Error("a segment is missing, and nobody noticed")
		}
	})
}

// TestPositions goes back behind events of another service that were handled: they are
// handled again.
func TestPositions(t *testing.T) {
	db := openDB(t, engines["bolt"](t))
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: "acme"})
	for n := range int64(6) {
		err := db.Update(ctx, func(tx *store.Tx) error {
			tx.SetPosition("elsewhere", 10*(n+1))
			if n == 4 {
				return nil // an event that changed nothing
			}
			return samples.Put(tx, &storepb.Sample{Id: fmt.Sprint(n)})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: db.Pages()}}, Now: time.Now}
	if _, err := taking.Take(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	for revision, want := range map[int64]int64{5: 60, 4: 40, 2: 20} {
		part, _ := restored(t, engines["bolt"](t), backup.Restoring{Revisions: map[string]map[string]int64{"test": {"acme": revision}}}, file.Bytes())
		positions, err := part.Positions(t.Context(), "elsewhere")
		if err != nil || positions["acme"] != want {
			t.Errorf("at revision %d: got position %d, %v, want %d", revision, positions["acme"], err, want)
		}
		part.Close()
	}
}

// TestRestoredIsAnotherStore looks at what of a store is its own and in no other: its id, and
// how far the files have come that are counted in beside it.
func TestRestoredIsAnotherStore(t *testing.T) {
	db := openDB(t, engines["bolt"](t))
	id, err := db.ID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(store.WithOrigin(t.Context(), store.Origin{Tenant: "acme"}), func(tx *store.Tx) error {
		tx.SetCounted("file", 7)
		return samples.Put(tx, &storepb.Sample{Id: "a"})
	})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: db.Pages()}}, Now: time.Now}
	if _, err := taking.Take(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	for name, engine := range engines {
		part, _ := restored(t, engine(t), backup.Restoring{}, file.Bytes())
		defer part.Close()
		if other, err := part.ID(t.Context()); other == id || err != nil {
			t.Errorf("%s: it has the id %q, %v, and that of the first is %q", name, other, err, id)
		}
		if n, err := part.Counted(t.Context(), "file"); n != 0 || err != nil {
			t.Errorf("%s: the file of the first has come to %d, %v", name, n, err)
		}
	}
}

// TestParties asks for an organization's entries of a tenant that is none, with segments
// and at an earlier revision: those that are left are found, and no others.
func TestParties(t *testing.T) {
	live := engines["bolt"](t)
	db := openDB(t, live)
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: "directory"})
	write := func(n int) {
		err := db.Update(ctx, func(tx *store.Tx) error {
			tx.Involve([]string{"acme", "brick"}[n%2])
			return samples.Put(tx, &storepb.Sample{Id: fmt.Sprint(n)})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: store.PagesOf(live)}}, Now: time.Now}
	var base, segment bytes.Buffer
	write(0)
	write(1)
	if _, err := taking.Take(t.Context(), &base); err != nil {
		t.Fatal(err)
	}
	for n := 2; n < 6; n++ {
		write(n)
	}
	if _, err := taking.TakeMore(t.Context(), &segment, map[string][]string{"test": {"directory"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		revision int64
		want     []int64
	}{{0, []int64{1, 3, 5}}, {4, []int64{1, 3}}, {1, []int64{1}}} {
		var r backup.Restoring
		if c.revision > 0 {
			r.Revisions = map[string]map[string]int64{"test": {"directory": c.revision}}
		}
		part, _ := restored(t, engines["bolt"](t), r, base.Bytes(), segment.Bytes())
		entries, _, err := part.EntriesAfter(t.Context(), "directory", "acme", 0)
		var got []int64
		for _, e := range entries {
			got = append(got, e.GetRevision())
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("at revision %d: got entries %d, %v, want %d", c.revision, got, err, c.want)
		}
		if err := part.VerifyJournal(t.Context(), "directory"); err != nil {
			t.Error(err)
		}
		part.Close()
	}
}

// TestErased goes back behind a record that was erased: it cannot come back, and a restore
// says so.
func TestErased(t *testing.T) {
	db := openDB(t, engines["bolt"](t))
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: "acme"})
	for _, change := range []func(tx *store.Tx) error{
		func(tx *store.Tx) error { return samples.Put(tx, &storepb.Sample{Id: "a"}) },
		func(tx *store.Tx) error { return samples.Put(tx, &storepb.Sample{Id: "b"}) },
		func(tx *store.Tx) error {
			samples.Delete(tx, "a")
			tx.EraseHistory("sample", "a")
			return nil
		},
	} {
		if err := db.Update(ctx, change); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: db.Pages()}}, Now: time.Now}
	if _, err := taking.Take(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	at := map[string]map[string]int64{"test": {"acme": 2}}
	e := engines["bolt"](t)
	r := backup.Restoring{Now: time.Now, Revisions: at, Open: func(string) (store.Engine, error) { return e, nil }}
	if _, err := r.Restore(t.Context(), bytes.NewReader(file.Bytes())); err == nil || !strings.Contains(err.Error(), "1 records were there") {
		t.Fatalf("got error %v, want one that says what cannot come back", err)
	}
	if _, err := store.Open(t.Context(), notClosed{e}, schema, store.Config{Now: time.Now}); err == nil {
		t.Error("what was not restored whole can be opened")
	}
	// The remains are replaced by the next restore.
	part, done := restored(t, e, backup.Restoring{Revisions: at, WithoutErased: true}, file.Bytes())
	if got := contents(t, part, "acme"); done.Erased != 1 || len(got) != 1 || got["b"] == nil {
		t.Errorf("got %v and %+v, want b alone", got, done)
	}
	if err := errors.Join(part.VerifyJournal(t.Context(), "acme"), part.VerifyRecords(t.Context(), "acme")); err != nil {
		t.Error(err)
	}
	if _, err := r.Restore(t.Context(), bytes.NewReader(file.Bytes())); err == nil || !strings.Contains(err.Error(), "never overwritten") {
		t.Errorf("got error %v for a restore over data, want a refusal", err)
	}
}
