package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var eventTests = map[string]func(*test){
	"events":                      events,
	"positions":                   positions,
	"a consumer sees each once":   consumerSeesEachOnce,
	"listeners":                   listeners,
	"listeners miss nothing":      listenersMissNothing,
	"listeners end with the rest": listenersEnd,
}

func (t *test) emit(ctx context.Context, names ...string) {
	t.Helper()
	t.update(ctx, func(tx *store.Tx) error {
		for _, name := range names {
			tx.Emit(noted(name, ""))
		}
		return nil
	})
}

// events returns the events as "revision.index:id".
func (t *test) events(tenant string, after int64, limit int) (got []string) {
	t.Helper()
	all, err := t.db.Events(t.ctx, tenant, after, limit)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		v := &storepb.Sample{}
		if err := proto.Unmarshal(e.Payload, v); err != nil {
			t.Error(err)
		}
		if e.Tenant != tenant || e.Type != "latchkey.store.v1.Sample" || e.Caller != "ann" || !e.CommitTime.Equal(t.clock.Now()) {
			t.Errorf("got event %+v", e)
		}
		got = append(got, fmt.Sprintf("%d.%d:%s", e.Revision, e.Index, v.GetId()))
	}
	return got
}

func events(t *test) {
	t.emit(t.ctx, "a", "b", "c")
	t.put(t.ctx, sample("g", 1))
	t.emit(t.ctx, "d")
	t.emit(t.ctx, "e", "f")
	t.emit(as("beta", "ann"), "x")
	if err := t.db.Update(t.ctx, func(tx *store.Tx) error { tx.Emit(noted("lost", "")); return errBoom }); err != errBoom {
		t.Fatal(err)
	}
	t.wantIDs(t.events("acme", 0, 100), "1.0:a", "1.1:b", "1.2:c", "3.0:d", "4.0:e", "4.1:f")
	t.wantIDs(t.events("acme", 1, 100), "3.0:d", "4.0:e", "4.1:f")
	t.wantIDs(t.events("acme", 4, 100))
	t.wantIDs(t.events("acme", 0, 2), "1.0:a", "1.1:b", "1.2:c") // a revision is whole
	t.wantIDs(t.events("acme", 1, 2), "3.0:d", "4.0:e", "4.1:f")
	t.wantIDs(t.events("beta", 0, 100), "1.0:x")
	t.wantIDs(t.events("none", 0, 100))
}

func positions(t *test) {
	set := func(tenant, source string, revision int64) {
		t.update(as(tenant, ""), func(tx *store.Tx) error {
			tx.SetPosition(source, revision)
			if got := tx.Position(source); got != revision {
				t.Errorf("got position %d, want %d", got, revision)
			}
			return nil
		})
	}
	set("acme", "scheduling", 3)
	set("acme", "identity", 1)
	set("beta", "scheduling", 7)
	set("acme", "scheduling", 4)
	t.put(as("gamma", ""), sample("g", 1))
	for source, want := range map[string]map[string]int64{
		"scheduling": {"acme": 4, "beta": 7}, "identity": {"acme": 1}, "none": {},
	} {
		if got, err := t.db.Positions(t.ctx, source); err != nil || !maps.Equal(got, want) {
			t.Errorf("positions for %s: got %v, %v, want %v", source, got, err, want)
		}
	}
	if n := len(t.journal("acme", 0)); n != 0 {
		t.Errorf("positions alone made %d entries", n)
	}
}

// consumerSeesEachOnce crashes between any two steps of a consumer.
func consumerSeesEachOnce(t *test) {
	for i := range 10 {
		t.emit(t.ctx, fmt.Sprint("e", i))
	}
	consumer := as("acme", "")
	crash := 0
	step := func(e store.Event) error {
		return t.db.Update(consumer, func(tx *store.Tx) error {
			if e.Revision <= tx.Position("self") {
				return nil
			}
			v, ok := samples.Get(tx, "sum")
			if !ok {
				v = &storepb.Sample{Id: "sum"}
			}
			v.Rank++
			tx.SetPosition("self", e.Revision)
			if crash++; crash%3 == 0 {
				return errBoom
			}
			return samples.Put(tx, v)
		})
	}
	for round := 0; round < 40; round++ {
		all, err := t.db.Events(t.ctx, "acme", 0, 100) // always from the beginning
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if err := step(e); err != nil && err != errBoom {
				t.Fatal(err)
			} else if err != nil {
				break
			}
		}
	}
	if got := t.get(t.ctx, "sum").GetRank(); got != 10 {
		t.Errorf("10 events took effect %d times", got)
	}
}

func listeners(t *test) {
	a, b := t.db.Changed(), t.db.Changed()
	defer a.Stop()
	t.emit(as("beta", "ann"), "x")
	t.put(t.ctx, sample("g", 1))
	t.put(t.ctx, sample("g", 2))
	for range 2 { // coalesced, and once
		for name, l := range map[string]*store.Changes{"a": a, "b": b} {
			if got, err := l.Next(t.ctx); err != nil || !slices.Equal(got, []string{"acme", "beta"}) {
				t.Errorf("%s: got %v, %v", name, got, err)
			}
		}
		t.put(t.ctx, sample("h", 1))
		t.put(as("beta", "ann"), sample("h", 1))
		t.put(t.ctx, sample("h", 2))
		t.put(as("beta", "ann"), sample("h", 2))
		t.clear()
	}
	b.Stop()
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	if _, err := b.Next(ctx); !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("got error %v", err)
	}
}

// clear removes all records of the two tenants.
func (t *test) clear() {
	for _, tenant := range []string{"acme", "beta"} {
		t.update(as(tenant, "ann"), func(tx *store.Tx) error {
			for v := range samples.All(tx) {
				samples.Delete(tx, v.GetId())
			}
			return nil
		})
	}
}

// listenersMissNothing reads the events that a slow listener is told of while others
// commit: when all have committed, all have been read.
func listenersMissNothing(t *test) {
	const callers, each = 4, 25
	l := t.db.Changed()
	defer l.Stop()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				t.emit(as(fmt.Sprint("tenant", c), "ann"), fmt.Sprint(i))
			}
		})
	}
	position := map[string]int64{}
	for n := 0; n < callers*each; {
		tenants, err := l.Next(t.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, tenant := range tenants {
			all, err := t.db.Events(t.ctx, tenant, position[tenant], 1000)
			if err != nil {
				t.Fatal(err)
			}
			if n += len(all); len(all) > 0 {
				position[tenant] = all[len(all)-1].Revision
			}
		}
	}
	wg.Wait()
}

func listenersEnd(t *test) {
	db := t.db
	l := db.Changed()
	ended := make(chan error)
	go func() {
		_, err := l.Next(t.ctx)
		ended <- err
	}()
	t.close()
	if err := <-ended; !errors.Is(err, store.ErrClosed) {
		t.Errorf("got error %v, want ErrClosed", err)
	}
	l.Stop()
	if _, err := db.Changed().Next(t.ctx); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a listener to a closed store: got error %v, want ErrClosed", err)
	}
}
