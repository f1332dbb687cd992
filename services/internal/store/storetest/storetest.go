package storetest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Run runs the suite. place is called once for each test, and returns a function
// that opens an engine: an empty one at first, and with the data of the one before
// after that was closed.
func Run(t *testing.T, place func(t *testing.T) func() store.Engine) {
	t.Run("engine", func(t *testing.T) { runEngine(t, place) })
	t.Run("store", func(t *testing.T) { runStore(t, place) })
	t.Run("twice", func(t *testing.T) {
		runStore(t, func(t *testing.T) func() store.Engine {
			open := place(t)
			return func() store.Engine { return Twice(open()) }
		})
	})
}

// test is one test of the store and what it needs.
type test struct {
	*testing.T
	open  func() store.Engine
	clock *clock
	db    *store.DB
	ctx   context.Context // tenant "acme", caller "ann"
}

func runStore(t *testing.T, place func(t *testing.T) func() store.Engine) {
	for _, group := range []map[string]func(*test){
		transactionTests, recordTests, indexTests, pageTests, sectionTests, journalTests, pastTests, answerTests, noteTests, eventTests, schemaTests, verifyTests, alwaysTests, compactTests, eraseTests, modelTests,
	} {
		for name, f := range group {
			t.Run(name, func(t *testing.T) {
				s := &test{T: t, open: place(t), clock: &clock{now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}}
				s.ctx = as("acme", "ann")
				s.reopen()
				t.Cleanup(func() { s.close() })
				f(s)
			})
		}
	}
}

// as returns the context of a call.
func as(tenant, caller string) context.Context {
	return store.WithOrigin(context.Background(), store.Origin{
		Tenant: tenant, Caller: caller, Method: "latchkey.store.v1.SampleService/SaveSample",
	})
}

// reopen closes the store and opens it again.
func (t *test) reopen() {
	t.Helper()
	t.close()
	t.openOver(t.open(), schema)
}

func (t *test) openOver(e store.Engine, s *store.Schema) {
	t.Helper()
	db, err := store.Open(t.ctx, e, s, t.config())
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	t.db = db
}

func (t *test) config() store.Config { return store.Config{Now: t.clock.Now} }

func (t *test) close() {
	t.Helper()
	if t.db == nil {
		return
	}
	if err := t.db.Close(); err != nil {
		t.Errorf("close store: %v", err)
	}
	t.db = nil
}

// clock is a clock that moves only when it is told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// The collection that the tests store, as a service would declare it.
var (
	samples  = store.NewCollection("sample", (*storepb.Sample).GetId)
	byNumber = samples.Unique("number", numberKey)
	byGroup  = samples.Index("group", groupKey)
	byRank   = samples.Index("rank", func(v *storepb.Sample) store.Key {
		return store.Key{v.GetGroup(), store.Desc(v.GetRank())}
	})
	byTag = samples.MultiIndex("tag", func(v *storepb.Sample) []store.Key {
		var keys []store.Key
		for _, t := range v.GetTags() {
			keys = append(keys, store.Key{t})
		}
		return keys
	})
	notes  = store.NewCollection("note", (*storepb.Answer).String) // a message without any field of the conventions
	schema = store.NewSchema(samples, notes)
)

func numberKey(v *storepb.Sample) store.Key {
	if v.GetNumber() == "" {
		return nil
	}
	return store.Key{v.GetNumber()}
}

func groupKey(v *storepb.Sample) store.Key { return store.Key{v.GetGroup(), v.GetRank()} }

// sample returns a record of a group, with its rank and number made from n.
func sample(group string, n int) *storepb.Sample {
	return &storepb.Sample{
		Id: fmt.Sprintf("%s-%03d", group, n), Group: group, Rank: int64(n), Number: fmt.Sprintf("%s/%d", group, n),
	}
}

// update runs f and fails the test if it fails.
func (t *test) update(ctx context.Context, f func(tx *store.Tx) error) {
	t.Helper()
	if err := t.db.Update(ctx, f); err != nil {
		t.Fatalf("update: %v", err)
	}
}

func (t *test) view(ctx context.Context, f func(tx *store.Tx)) {
	t.Helper()
	err := t.db.View(ctx, func(tx *store.Tx) error {
		f(tx)
		return nil
	})
	if err != nil {
		t.Fatalf("view: %v", err)
	}
}

// put stores the records, all in one transaction.
func (t *test) put(ctx context.Context, records ...*storepb.Sample) {
	t.Helper()
	t.update(ctx, func(tx *store.Tx) error {
		for _, v := range records {
			if err := samples.Put(tx, proto.CloneOf(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *test) get(ctx context.Context, id string) (v *storepb.Sample) {
	t.Helper()
	t.view(ctx, func(tx *store.Tx) { v, _ = samples.Get(tx, id) })
	return v
}

// wantReason fails the test unless err is a fault with the reason.
func (t *test) wantReason(err error, reason string) {
	t.Helper()
	if f, ok := err.(*fault.Error); !ok || f.ReasonName() != reason {
		t.Errorf("got error %v, want a fault with reason %s", err, reason)
	}
}

func (t *test) wantIDs(got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func ids(seq iter.Seq[*storepb.Sample]) []string {
	var got []string
	for v := range seq {
		got = append(got, v.GetId())
	}
	return got
}

// panics reports what f panics with, or nil.
func panics(f func()) (p any) {
	defer func() { p = recover() }()
	f()
	return nil
}
