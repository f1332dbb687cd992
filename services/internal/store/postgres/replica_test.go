package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
	"latchkey.dev/services/internal/store/storetest"
	"latchkey.dev/services/internal/trial"
)

// replicas opens a service as so many processes would.
func replicas(t *testing.T, n int) (dbs []*store.DB) {
	t.Helper()
	url, service := postgrestest.URL(t), newService()
	for range n {
		dbs = append(dbs, mustOpenStore(t, mustOpen(t, url, service)))
	}
	return dbs
}

// TestReplicasOneRecord lets many callers of three replicas add to one record.
func TestReplicasOneRecord(t *testing.T) {
	dbs := replicas(t, 3)
	const callers, each = 12, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for range each {
				err := dbs[c%3].Update(as(0), func(tx *store.Tx) error {
					v, ok := samples.Get(tx, "sum")
					if !ok {
						v = &storepb.Sample{Id: "sum"}
					}
					v.Rank++
					return samples.Put(tx, v)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, db := range dbs {
		v := get(t, db, "sum")
		if v.GetRank() != callers*each || v.GetEtag() != fmt.Sprint(callers*each) {
			t.Errorf("%d additions give %v", callers*each, v)
		}
		if err := db.VerifyJournal(as(0), store.OriginOf(as(0)).Tenant); err != nil {
			t.Error(err)
		}
	}
}

func get(t *testing.T, db *store.DB, id string) (v *storepb.Sample) {
	t.Helper()
	err := db.View(as(0), func(tx *store.Tx) error {
		v, _ = samples.Get(tx, id)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return v
}

// TestReplicasUnique lets all replicas take the same numbers.
func TestReplicasUnique(t *testing.T) {
	dbs := replicas(t, 3)
	const numbers = 20
	var mu sync.Mutex
	holders := map[string][]string{}
	var wg sync.WaitGroup
	for r, db := range dbs {
		wg.Go(func() {
			for _, n := range rand.Perm(numbers) {
				v := &storepb.Sample{Id: fmt.Sprintf("%d-%d", r, n), Number: fmt.Sprint(n)}
				err := db.Update(as(0), func(tx *store.Tx) error { return samples.Put(tx, proto.CloneOf(v)) })
				if f, ok := errors.AsType[*fault.Error](err); ok && f.ReasonName() == "RECORD_EXISTS" {
					continue
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				holders[v.GetNumber()] = append(holders[v.GetNumber()], v.GetId())
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for n := range numbers {
		ids := holders[fmt.Sprint(n)]
		if len(ids) != 1 || get(t, dbs[0], ids[0]).GetNumber() != fmt.Sprint(n) {
			t.Errorf("number %d belongs to %v", n, ids)
		}
	}
}

// TestReplicasRequestID sends each request to all replicas at once.
func TestReplicasRequestID(t *testing.T) {
	dbs := replicas(t, 3)
	for i := range 20 {
		answers := make([]*storepb.Sample, 2*len(dbs))
		var wg sync.WaitGroup
		for n := range answers {
			wg.Go(func() {
				var err error
				req := &storepb.SaveSampleRequest{RequestId: fmt.Sprint("r", i)}
				answers[n], err = store.Do(as(0), dbs[n%len(dbs)], req, func(tx *store.Tx) (*storepb.Sample, error) {
					v := &storepb.Sample{Id: fmt.Sprint(i, "-", rand.Uint64()), Number: fmt.Sprint(i)}
					return v, samples.Put(tx, v)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, a := range answers {
			if !proto.Equal(a, answers[0]) {
				t.Errorf("request %d got %v and %v", i, a, answers[0])
			}
		}
	}
	err := dbs[0].View(as(0), func(tx *store.Tx) error {
		if n := samples.Count(tx, samples.Range()); n != 20 || tx.Revision() != 20 {
			t.Errorf("20 requests made %d records and %d revisions", n, tx.Revision())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestReplicasSkew has Updates that read two keys and write one: each alone keeps the
// rule that at most one of the two is set, and so must all together.
func TestReplicasSkew(t *testing.T) {
	url, service := postgrestest.URL(t), newService()
	engines := []*Engine{mustOpen(t, url, service), mustOpen(t, url, service)}
	keys := []string{"a", "b"}
	set := func(e *Engine, mine string, value []byte) error {
		return e.Update(t.Context(), func(s store.Snapshot) ([]store.Write, error) {
			for _, key := range keys {
				if b, err := s.Get([]byte(key)); err != nil || b != nil && value != nil {
					return nil, err
				}
			}
			return []store.Write{{Key: []byte(mine), Value: value}}, nil
		})
	}
	for range 100 {
		var wg sync.WaitGroup
		for i, e := range engines {
			wg.Go(func() {
				if err := set(e, keys[i], []byte("x")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n := 0
		err := engines[0].View(t.Context(), func(s store.Snapshot) error {
			for range s.Scan([]byte("a"), []byte("c"), false) {
				n++
			}
			return nil
		})
		if err != nil || n != 1 {
			t.Fatalf("%d of the two keys are set, %v", n, err)
		}
		for i, e := range engines {
			if err := set(e, keys[i], nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestReplicasSeeCommits reads through one replica what was acknowledged by another.
func TestReplicasSeeCommits(t *testing.T) {
	dbs := replicas(t, 2)
	for i := range 50 {
		id := fmt.Sprint(i)
		if err := save(as(0), dbs[i%2], id); err != nil {
			t.Fatal(err)
		}
		if v := get(t, dbs[(i+1)%2], id); v.GetId() != id {
			t.Fatalf("record %s is not seen", id)
		}
		// Also by an Update, which may find others in its line.
		if err := save(as(0), dbs[(i+1)%2], id); err != nil {
			t.Fatalf("the repeat of %s: %v", id, err)
		}
	}
}

// TestReplicasListen hears through one replica of what others commit, while it commits
// itself.
func TestReplicasListen(t *testing.T) {
	dbs := replicas(t, 3)
	heard := dbs[0].Changed()
	defer heard.Stop()
	const tenants, each = 4, 15
	var wg sync.WaitGroup
	for r, db := range dbs {
		wg.Go(func() {
			for i := range each {
				for n := range tenants {
					if err := save(as(n), db, fmt.Sprintf("%d-%d", r, i)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	positions := map[string]int64{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for read := 0; read < len(dbs)*tenants*each; {
		changed, err := heard.Next(ctx)
		if err != nil {
			t.Fatalf("%v after %d events", err, read)
		}
		for _, tenant := range changed {
			events, err := dbs[0].Events(ctx, tenant, positions[tenant], 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Revision != positions[tenant]+1 {
					t.Fatalf("revision %d follows %d", e.Revision, positions[tenant])
				}
				positions[tenant], read = e.Revision, read+1
			}
		}
	}
	wg.Wait()
}

// TestReplicasWatch has writers that pause in their transactions, compaction, and followers
// of all kinds on three replicas.
func TestReplicasWatch(t *testing.T) {
	tr := trial.New(t, "watch: pausing writers, compaction, slow and frozen consumers, on three replicas", "postgres")
	for range trial.Times(1, 20) {
		tr.Tried()
		t.Run("three", func(t *testing.T) { tr.Checked(storetest.NeverSkips(t, samples, replicas(t, 3)...)) })
	}
}

// TestOthers looks at which commits a process is told of.
func TestOthers(t *testing.T) {
	url, service := postgrestest.URL(t), newService()
	a, b := mustOpen(t, url, service), mustOpen(t, url, service)
	commit := func(e *Engine, tenant int) {
		t.Helper()
		if _, err := add(as(tenant), e); err != nil {
			t.Fatal(err)
		}
	}
	told := func(want ...int) {
		t.Helper()
		got, err := a.Others(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, n := range want {
			names = append(names, store.OriginOf(as(n)).Tenant)
		}
		if slices.Sort(got); !slices.Equal(got, names) {
			t.Errorf("got %v, want %v", got, names)
		}
	}
	told()
	commit(a, 1)
	told() // its own
	commit(b, 1)
	commit(b, 2)
	commit(a, 3)
	told(1, 2)
	told()
	commit(b, 1)
	commit(a, 1) // its own does not hide the other's
	commit(a, 2)
	told(1)
	commit(a, 1)
	told()
}
