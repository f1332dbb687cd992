package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var transactionTests = map[string]func(*test){
	"sees its own writes":                 seesOwnWrites,
	"error leaves nothing":                errorLeavesNothing,
	"panic leaves nothing":                panicLeavesNothing,
	"no change is no commit":              noChangeNoCommit,
	"concurrent increments all count":     concurrentIncrements,
	"ended context":                       endedContext,
	"engine error wins":                   engineErrorWins,
	"failure at every step":               failureAtEveryStep,
	"read that lives too long":            readTooLong,
	"misuse panics":                       misusePanics,
	"tenants are apart":                   tenantsApart,
	"unknown outcome is fatal":            unknownOutcome,
	"a view sees one state":               viewSeesOneState,
	"clock and tenant of the transaction": clockAndTenant,
}

func seesOwnWrites(t *test) {
	t.put(t.ctx, sample("g", 1), sample("g", 3), sample("g", 4))
	t.update(t.ctx, func(tx *store.Tx) error {
		if err := samples.Put(tx, sample("g", 2)); err != nil {
			return err
		}
		samples.Delete(tx, "g-003")
		moved, _ := samples.Get(tx, "g-004")
		moved.Rank = 0
		if err := samples.Put(tx, moved); err != nil {
			return err
		}
		_, deleted := samples.Get(tx, "g-003")
		v, ok := byNumber.First(tx, "g/2")
		if deleted || !ok || v.GetId() != "g-002" {
			t.Errorf("deleted record there: %t, new record there: %t, %v", deleted, ok, v)
		}
		t.wantIDs(ids(samples.All(tx)), "g-001", "g-002", "g-004")
		t.wantIDs(ids(byGroup.Scan(tx, byGroup.Range("g"))), "g-004", "g-001", "g-002")
		t.wantIDs(ids(byGroup.Scan(tx, byGroup.Range("g").Reverse())), "g-002", "g-001", "g-004")
		return nil
	})
	t.view(t.ctx, func(tx *store.Tx) {
		t.wantIDs(ids(byGroup.Scan(tx, byGroup.Range("g"))), "g-004", "g-001", "g-002")
	})
}

func errorLeavesNothing(t *test) {
	want := errors.New("no")
	err := t.db.Update(t.ctx, func(tx *store.Tx) error {
		if err := samples.Put(tx, sample("g", 1)); err != nil {
			return err
		}
		return want
	})
	if err != want {
		t.Errorf("got error %v, want %v", err, want)
	}
	if v := t.get(t.ctx, "g-001"); v != nil {
		t.Errorf("record of a failed transaction is there: %v", v)
	}
}

func panicLeavesNothing(t *test) {
	p := panics(func() {
		_ = t.db.Update(t.ctx, func(tx *store.Tx) error {
			if err := samples.Put(tx, sample("g", 1)); err != nil {
				return err
			}
			panic("bug")
		})
	})
	if p != "bug" {
		t.Errorf("got panic %v, want the function's", p)
	}
	if p := panics(func() { t.view(t.ctx, func(*store.Tx) { panic("bug") }) }); p != "bug" {
		t.Errorf("got panic %v of a View, want the function's", p)
	}
	t.put(t.ctx, sample("g", 2))
	t.view(t.ctx, func(tx *store.Tx) { t.wantIDs(ids(samples.All(tx)), "g-002") })
}

func noChangeNoCommit(t *test) {
	t.close()
	e := &recorder{Engine: t.open()}
	t.openOver(e, schema)
	t.put(t.ctx, sample("g", 1))
	before := e.n
	t.put(t.ctx, sample("g", 1))
	t.update(t.ctx, func(tx *store.Tx) error {
		samples.Delete(tx, "unknown")
		if err := samples.Put(tx, sample("g", 2)); err != nil {
			return err
		}
		samples.Delete(tx, "g-002")
		return nil
	})
	if e.n != before {
		t.Errorf("transactions without a change made %d commits", e.n-before)
	}
	t.view(t.ctx, func(tx *store.Tx) {
		if got := tx.Revision(); got != 1 {
			t.Errorf("got revision %d, want 1", got)
		}
	})
}

// concurrentIncrements finds lost updates: each adds one to what it read.
func concurrentIncrements(t *test) {
	t.put(t.ctx, &storepb.Sample{Id: "n"})
	const callers, each = 8, 10
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				err := t.db.Update(t.ctx, func(tx *store.Tx) error {
					v, _ := samples.Get(tx, "n")
					v.Rank++
					return samples.Put(tx, v)
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := t.get(t.ctx, "n").GetRank(); got != callers*each {
		t.Errorf("got %d after %d increments", got, callers*each)
	}
}

func endedContext(t *test) {
	ctx, cancel := context.WithCancel(t.ctx)
	err := t.db.Update(ctx, func(tx *store.Tx) error {
		cancel()
		return samples.Put(tx, sample("g", 1))
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("update: got error %v, want context.Canceled", err)
	}
	for name, run := range map[string]func(context.Context, func(*store.Tx) error) error{"update": t.db.Update, "view": t.db.View} {
		err := run(ctx, func(*store.Tx) error {
			t.Errorf("%s runs although its context has ended", name)
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got error %v, want context.Canceled", name, err)
		}
	}
	if v := t.get(t.ctx, "g-001"); v != nil {
		t.Errorf("record of a cancelled transaction is there: %v", v)
	}
}

func engineErrorWins(t *test) {
	t.put(t.ctx, sample("g", 1), sample("g", 2))
	t.close()
	e := NewFailing(t.open())
	t.openOver(e, schema)
	defer e.FailAfter(1 << 62)
	for _, run := range []func(context.Context, func(*store.Tx) error) error{t.db.View, t.db.Update} {
		e.FailAfter(1)
		err := run(t.ctx, func(tx *store.Tx) error {
			samples.Get(tx, "g-001")
			if v, ok := samples.Get(tx, "g-001"); ok || v != nil {
				t.Errorf("a failed transaction finds %v", v)
			}
			if !errors.Is(tx.Failed(), ErrInjected) {
				t.Errorf("got %v, want the engine's error", tx.Failed())
			}
			e.FailAfter(100)
			t.wantIDs(ids(samples.All(tx)))
			return errors.New("not this one")
		})
		if !errors.Is(err, ErrInjected) {
			t.Errorf("got error %v, want the engine's", err)
		}
	}
}

// failureAtEveryStep lets an Update fail at its first read, its second and so on until
// it succeeds. Before that nothing of it may be seen.
func failureAtEveryStep(t *test) {
	t.put(t.ctx, sample("g", 1), sample("g", 2))
	t.close()
	e := NewFailing(t.open())
	t.openOver(e, schema)
	for n := 0; ; n++ {
		e.FailAfter(n)
		_, err := store.Do(t.ctx, t.db, &storepb.SaveSampleRequest{RequestId: "r"}, func(tx *store.Tx) (*storepb.Sample, error) {
			for v := range byGroup.Scan(tx, byGroup.Range("g").Reverse()) {
				v.Rank += 10
				if err := samples.Put(tx, v); err != nil {
					return nil, err
				}
			}
			v := sample("g", 3)
			tx.Emit(v)
			return v, samples.Put(tx, v)
		})
		e.FailAfter(1 << 62)
		if err == nil {
			t.Logf("succeeds with %d reads", n)
			break
		}
		if !errors.Is(err, ErrInjected) {
			t.Fatalf("with %d reads: got error %v, want the engine's", n, err)
		}
		if got := t.get(t.ctx, "g-001").GetRank(); got != 1 {
			t.Fatalf("with %d reads: a failed transaction left rank %d", n, got)
		}
	}
	t.view(t.ctx, func(tx *store.Tx) { t.wantIDs(ids(byGroup.Scan(tx, byGroup.Range("g"))), "g-003", "g-001", "g-002") })
	if err := t.db.VerifyJournal(t.ctx, "acme"); err != nil {
		t.Error(err)
	}
}

func readTooLong(t *test) {
	t.put(t.ctx, sample("g", 1))
	t.close()
	cfg := t.config()
	cfg.MaxRead = time.Millisecond
	db, err := store.Open(t.ctx, t.open(), schema, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.db = db
	for name, read := range map[string]func(*store.Tx){
		"get":  func(tx *store.Tx) { samples.Get(tx, "g-001") },
		"scan": func(tx *store.Tx) { ids(samples.All(tx)) },
	} {
		err = db.View(t.ctx, func(tx *store.Tx) error {
			for tx.Failed() == nil {
				read(tx)
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "lives too long") {
			t.Errorf("%s: got error %v, want one that says that the read lives too long", name, err)
		}
		if got := status.Code(err); got != codes.ResourceExhausted {
			t.Errorf("%s: a caller gets %v, want ResourceExhausted", name, got)
		}
	}
}

func misusePanics(t *test) {
	var leaked *store.Tx
	t.update(t.ctx, func(tx *store.Tx) error {
		leaked = tx
		return nil
	})
	foreign := store.NewCollection("foreign", (*storepb.Sample).GetId)
	for _, c := range []struct {
		want string
		f    func()
	}{
		{"used after its function", func() { samples.Get(leaked, "x") }},
		{"write in a View", func() { t.view(t.ctx, func(tx *store.Tx) { samples.Delete(tx, "x") }) }},
		{"not in the schema", func() { t.view(t.ctx, func(tx *store.Tx) { foreign.Get(tx, "x") }) }},
		{"without an id", func() {
			t.update(t.ctx, func(tx *store.Tx) error { return samples.Put(tx, &storepb.Sample{}) })
		}},
		{"in two schemas", func() { store.NewSchema(samples) }},
		{"in the schema twice", func() { store.NewSchema(foreign, foreign) }},
		{"after its schema was opened", func() { samples.Index("late", groupKey) }},
		{"declared twice", func() { foreign.Index("x", groupKey); foreign.Index("x", groupKey) }},
		{"no etag to match", func() { _ = notes.Match(&storepb.Answer{}, "1") }},
		{"several collections or directions", func() { t.page(&storepb.ListSamplesRequest{}, byGroup.Range("g"), byGroup.Range("h").Reverse()) }},
		{"range of another index", func() { t.view(t.ctx, func(tx *store.Tx) { byGroup.Scan(tx, byRank.Range()) }) }},
		{"range of another index", func() { t.view(t.ctx, func(tx *store.Tx) { samples.Count(tx, byRank.Range()) }) }},
		{"cannot be part of a key", func() { byGroup.Range(1.5) }},
	} {
		if p := fmt.Sprint(panics(c.f)); !strings.Contains(p, c.want) {
			t.Errorf("got panic %q, want one that tells %q", p, c.want)
		}
	}
	for _, run := range []func(context.Context, func(*store.Tx) error) error{t.db.View, t.db.Update} {
		if err := run(context.Background(), func(*store.Tx) error { return nil }); err == nil || !strings.Contains(err.Error(), "no tenant") {
			t.Errorf("without a tenant: got error %v", err)
		}
	}
}

func tenantsApart(t *test) {
	// Names of which one starts with the other, or looks like a part of a key.
	tenants := []string{"a", "ab", "a\x00", "a\x00\x01r", "b"}
	slices.Sort(tenants)
	for i, name := range tenants {
		t.put(as(name, "ann"), sample("g", i), sample("only-"+fmt.Sprint(i), 1))
	}
	for i, name := range tenants {
		t.view(as(name, "ann"), func(tx *store.Tx) {
			t.wantIDs(ids(samples.All(tx)), fmt.Sprintf("g-%03d", i), fmt.Sprintf("only-%d-001", i))
			t.wantIDs(ids(byGroup.Scan(tx, byGroup.Range())), fmt.Sprintf("g-%03d", i), fmt.Sprintf("only-%d-001", i))
			if _, ok := byNumber.First(tx, fmt.Sprintf("g/%d", (i+1)%len(tenants))); ok {
				t.Errorf("tenant %q finds a record of another", name)
			}
			if tx.Revision() != 1 {
				t.Errorf("tenant %q: got revision %d, want 1", name, tx.Revision())
			}
		})
	}
	got, err := t.db.Tenants(t.ctx)
	if err != nil || !slices.Equal(got, tenants) {
		t.Errorf("got tenants %q, %v, want %q", got, err, tenants)
	}
}

type unknowing struct{ store.Engine }

func (unknowing) Update(context.Context, func(store.Snapshot) ([]store.Write, error)) error {
	return fmt.Errorf("%w: cable pulled", store.ErrUnknownOutcome)
}

func unknownOutcome(t *test) {
	t.close()
	var told []error
	cfg := t.config()
	cfg.Fatal = func(err error) { told = append(told, err) }
	db, err := store.Open(t.ctx, unknowing{t.open()}, schema, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.db = db
	for range 2 {
		if err := db.Update(t.ctx, func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("got error %v, want ErrUnknownOutcome", err)
		}
	}
	if len(told) != 1 {
		t.Errorf("the process was told %d times, want once: %v", len(told), told)
	}
}

func viewSeesOneState(t *test) {
	t.put(t.ctx, sample("g", 1))
	t.view(t.ctx, func(tx *store.Tx) {
		if !samples.Has(tx, "g-001") {
			t.Error("a view does not see what was committed before")
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			t.put(t.ctx, sample("g", 2))
		}()
		<-done
		t.wantIDs(ids(samples.All(tx)), "g-001")
		if tx.Revision() != 1 {
			t.Errorf("got revision %d, want 1", tx.Revision())
		}
	})
}

func clockAndTenant(t *test) {
	t.update(t.ctx, func(tx *store.Tx) error {
		now := tx.Now()
		t.clock.advance(time.Hour)
		if !tx.Now().Equal(now) || tx.Now().Location() != time.UTC {
			t.Errorf("got time %v, want still %v in UTC", tx.Now(), now)
		}
		if tx.Tenant() != "acme" || tx.Revision() != 1 {
			t.Errorf("got tenant %q, revision %d", tx.Tenant(), tx.Revision())
		}
		return nil
	})
}
