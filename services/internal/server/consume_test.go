package server_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	eventpb "latchkey.dev/gen/go/latchkey/event/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// source is a part whose store a test changes.
type source struct{ env *server.Env }

func (s *source) part() server.Part {
	return server.Part{Name: "scheduling", Schema: schema, Start: func(env *server.Env) error {
		s.env = env
		return nil
	}}
}

// emit commits the notes as events of one revision.
func (s *source) emit(t *testing.T, tenant string, notes ...string) {
	t.Helper()
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: tenant, Caller: "ann", Method: "test"})
	err := s.env.Store.Update(ctx, func(tx *store.Tx) error {
		for _, note := range notes {
			tx.Emit(&storepb.Sample{Id: note, Note: note})
		}
		tx.Emit(&storepb.SaveSampleRequest{}) // of a type that nobody wants
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sink is a part that consumes the source's samples: it counts each in its own store,
// in a record per note, so that what took effect twice shows.
type sink struct {
	handle func(tenant, note string) error // what else a test does with an event; nil if nothing
	around server.EventWrapper             // nil if there is none

	mu  sync.Mutex
	env *server.Env
}

func newSink() *sink { return &sink{} }

func (s *sink) part() server.Part {
	return server.Part{Name: "invoicing", Schema: schema, Start: func(env *server.Env) error {
		s.mu.Lock()
		s.env = env
		s.mu.Unlock()
		if s.around != nil {
			env.ConsumeAround("scheduling", s.consume, s.around, "latchkey.store.v1.Sample")
		} else {
			env.Consume("scheduling", s.consume, "latchkey.store.v1.Sample")
		}
		return nil
	}}
}

func (s *sink) consume(ctx context.Context, tx *store.Tx, e *eventpb.WatchEventsResponse) error {
	event := &storepb.Sample{}
	if err := proto.Unmarshal(e.GetPayload(), event); err != nil {
		return err
	}
	if o := store.OriginOf(ctx); o.Tenant != e.GetTenant() || o.Tenant != tx.Tenant() || o.Caller != "ann" || o.Method != e.GetType() {
		return fmt.Errorf("the origin is %+v", o)
	}
	v, ok := samples.Get(tx, event.GetId())
	if !ok {
		v = &storepb.Sample{Id: event.GetId(), Group: fmt.Sprint(e.GetRevision())}
	}
	v.Rank++
	if err := samples.Put(tx, v); err != nil {
		return err
	}
	if s.handle != nil {
		if err := s.handle(e.GetTenant(), event.GetNote()); err != nil {
			return err
		}
	}
	return nil
}

// effects returns how often each event of a tenant took effect.
func (s *sink) effects(t *testing.T, tenant string, notes ...string) map[string]int64 {
	t.Helper()
	s.mu.Lock()
	env := s.env
	s.mu.Unlock()
	got := map[string]int64{}
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: tenant})
	err := env.Store.View(ctx, func(tx *store.Tx) error {
		for _, note := range notes {
			if v, ok := samples.Get(tx, note); ok {
				got[note] = v.GetRank()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// wait waits until all of the notes took effect, and wants each to have done so once.
func (s *sink) wait(t *testing.T, tenant string, notes ...string) {
	t.Helper()
	s.mu.Lock()
	changed := s.env.Store.Changed()
	s.mu.Unlock()
	defer changed.Stop()
	for {
		got := s.effects(t, tenant, notes...)
		if len(got) == len(notes) {
			for note, n := range got {
				if n != 1 {
					t.Errorf("%s of %s took effect %d times", note, tenant, n)
				}
			}
			return
		}
		if _, err := changed.Next(t.Context()); err != nil {
			t.Fatalf("of %q only %v took effect: %v", notes, got, err)
		}
	}
}

func TestConsume(t *testing.T) {
	src, dst := &source{}, newSink()
	var mu sync.Mutex
	var order []string
	dst.handle = func(tenant, note string) error {
		mu.Lock()
		defer mu.Unlock()
		if tenant == "one" && !slices.Contains(order, note) { // a transaction may run twice
			order = append(order, note)
		}
		return nil
	}
	s := newSuite()
	start(t, config(t), s.identity(), s.permissions(), src.part(), dst.part())
	var want []string
	for i := range 300 { // more than are read at a time
		note := fmt.Sprint("n", i)
		want = append(want, note, note+"b")
		src.emit(t, "one", note, note+"b")
		if i%100 == 0 {
			src.emit(t, "two", note)
		}
	}
	dst.wait(t, "one", want...)
	dst.wait(t, "two", "n0", "n100", "n200")
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(order, want) {
		t.Errorf("the order is %q", order)
	}
}

// What is around the handling of a revision gets its events, and its effect is there when the
// handling has returned.
func TestConsumeAround(t *testing.T) {
	src, dst := &source{}, newSink()
	seen := make(chan []int64, 10) // events, and the effects before and after they were handled
	dst.around = func(events []*eventpb.WatchEventsResponse, handle func() error) error {
		before := dst.effects(t, events[0].GetTenant(), "a", "b")
		err := handle()
		after := dst.effects(t, events[0].GetTenant(), "a", "b")
		seen <- []int64{int64(len(events)), before["a"], before["b"], after["a"], after["b"]}
		return err
	}
	s := newSuite()
	start(t, config(t), s.identity(), s.permissions(), src.part(), dst.part())
	src.emit(t, "one", "a", "b")
	if got := <-seen; !slices.Equal(got, []int64{2, 0, 0, 1, 1}) {
		t.Errorf("got events and effects %v", got)
	}
}

// What was emitted before anybody consumed is not lost.
func TestConsumeFromTheBeginning(t *testing.T) {
	s, c := newSuite(), config(t)
	src := &source{}
	p := start(t, c, s.identity(), s.permissions(), src.part())
	src.emit(t, "one", "a")
	p.Stop()
	dst := newSink()
	start(t, c, s.identity(), s.permissions(), src.part(), dst.part())
	dst.wait(t, "one", "a")
}

// A handler's error undoes the whole revision, which is tried again; the tenant's
// later events wait for it, and other tenants do not.
func TestConsumeTriesAgain(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("not yet") },
		"panic": func() error { panic("not yet") },
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := &source{}, newSink()
			var mu sync.Mutex
			broken, failures := true, 0
			failed := make(chan struct{}, 1000)
			dst.handle = func(tenant, note string) error {
				mu.Lock()
				defer mu.Unlock()
				if broken && tenant == "one" && note == "b" {
					failures++
					failed <- struct{}{}
					return fail()
				}
				return nil
			}
			s := newSuite()
			_, j := startLogged(t, config(t), s.identity(), s.permissions(), src.part(), dst.part())
			src.emit(t, "one", "before")
			dst.wait(t, "one", "before")
			src.emit(t, "one", "a", "b", "c")
			<-failed
			src.emit(t, "one", "after")
			src.emit(t, "two", "x")
			dst.wait(t, "two", "x")
			<-failed // tried again
			if got := dst.effects(t, "one", "a", "b", "c", "after"); len(got) > 0 {
				t.Errorf("of the revision that fails, and the next, took effect: %v", got)
			}
			src.emit(t, "two", "y")
			dst.wait(t, "two", "y")
			mu.Lock()
			broken = false
			mu.Unlock()
			dst.wait(t, "one", "a", "b", "c", "after")
			if got := j.lines("level=ERROR", `msg="event not handled; trying again"`, "tenant=one", "type=latchkey.store.v1.Sample", "not yet"); len(got) == 0 {
				t.Error("the log says nothing of it")
			}
		})
	}
}

// A consumer goes on where it was when either side comes back.
func TestConsumeOverRestarts(t *testing.T) {
	s, src, dst := newSuite(), &source{}, newSink()
	from, to := config(t), config(t)
	from.Listen, to.Listen = freeAddr(t), freeAddr(t)
	from.ServiceKey = strings.Repeat("k", 40)
	to.ServiceKey = from.ServiceKey
	if err := to.Peers.Set("identity=" + from.Listen + ",permissions=" + from.Listen + ",scheduling=" + from.Listen); err != nil {
		t.Fatal(err)
	}
	startSource := func() *server.Process { return start(t, from, s.identity(), s.permissions(), src.part()) }
	p := startSource()
	q := start(t, to, dst.part())
	var want []string
	for i := range 4 {
		notes := []string{fmt.Sprint("a", i), fmt.Sprint("b", i)}
		want = append(want, notes...)
		src.emit(t, "one", notes...)
		if i%2 == 0 {
			dst.wait(t, "one", want...)
			p.Stop()
			p = startSource()
		} else {
			q.Stop()
			q = start(t, to, dst.part())
		}
	}
	dst.wait(t, "one", want...)
}

// The feed of a process that drains ends, and one of a source that is not there is
// refused.
func TestWatchEvents(t *testing.T) {
	src, s := &source{}, newSuite()
	p := start(t, config(t), s.identity(), s.permissions(), src.part())
	client := eventpb.NewEventServiceClient(p.Conn("invoicing", "scheduling"))
	watch := func(source string) error {
		stream, err := client.WatchEvents(t.Context(), &eventpb.WatchEventsRequest{Source: source, Positions: map[string]int64{"one": 1}})
		for err == nil {
			var e *eventpb.WatchEventsResponse
			if e, err = stream.Recv(); e.GetRevision() == 1 {
				t.Errorf("got %v, which is before the position", e)
			}
			if e.GetRevision() == 2 {
				go p.Stop()
			}
		}
		return err
	}
	if err := watch("nowhere"); status.Code(err) != codes.NotFound {
		t.Errorf("nowhere: got %v, want NotFound", err)
	}
	src.emit(t, "one", "a")
	src.emit(t, "one", "b")
	if err := watch("scheduling"); status.Code(err) != codes.Unavailable {
		t.Errorf("when it drains: got %v, want Unavailable", err)
	}
}

// Only services may read events.
func TestEventsAreInternal(t *testing.T) {
	s := newSuite()
	p := start(t, config(t), s.parts()...)
	stream, err := eventpb.NewEventServiceClient(dial(t, p.Addr())).WatchEvents(s.signIn(t.Context()), &eventpb.WatchEventsRequest{Source: "invoicing"})
	if err == nil {
		_, err = stream.Recv()
	}
	if reason(err) != "INTERNAL_ONLY" {
		t.Errorf("got %v, want INTERNAL_ONLY", err)
	}
}

func TestConsumeIsDeclaredWell(t *testing.T) {
	for want, part := range map[string]server.Part{
		"server: identity consumes b twice": {Name: "identity", Schema: schema, Start: func(env *server.Env) error {
			env.Consume("b", nil)
			env.Consume("b", nil)
			return nil
		}},
		"server: a consumes b, but keeps nothing in which to note how far it came": {Name: "a", Start: func(env *server.Env) error {
			env.Consume("b", nil)
			return nil
		}},
	} {
		s := newSuite()
		p := start(t, config(t), s.identity(), s.permissions())
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("got panic %v, want %q", got, want)
				}
			}()
			part.Start(server.EnvOf(p, part))
		}()
	}
}

func TestReceiveRevision(t *testing.T) {
	event := func(tenant string, revision int64, last bool) *eventpb.WatchEventsResponse {
		return &eventpb.WatchEventsResponse{Tenant: tenant, Revision: revision, Last: last}
	}
	for name, c := range map[string]struct {
		events []*eventpb.WatchEventsResponse
		n      int
		want   string
	}{
		"one":                         {[]*eventpb.WatchEventsResponse{event("a", 1, true), event("a", 2, true)}, 1, ""},
		"three":                       {[]*eventpb.WatchEventsResponse{event("a", 1, false), event("a", 1, false), event("a", 1, true)}, 3, ""},
		"cut off":                     {[]*eventpb.WatchEventsResponse{event("a", 1, false)}, 0, "the end"},
		"another revision in between": {[]*eventpb.WatchEventsResponse{event("a", 1, false), event("a", 2, true)}, 0, "revision 1 of a ended without its last event"},
		"another tenant's in between": {[]*eventpb.WatchEventsResponse{event("a", 1, false), event("b", 1, true)}, 0, "revision 1 of a ended without its last event"},
	} {
		t.Run(name, func(t *testing.T) {
			rest := c.events
			got, err := server.ReceiveRevision(func() (*eventpb.WatchEventsResponse, error) {
				if len(rest) == 0 {
					return nil, errors.New("the end")
				}
				e := rest[0]
				rest = rest[1:]
				return e, nil
			})
			if text := fmt.Sprint(err); len(got) != c.n || c.want != "" && text != c.want || c.want == "" && err != nil {
				t.Errorf("got %d events, %v; want %d, %s", len(got), err, c.n, c.want)
			}
		})
	}
}

func TestPauseGrows(t *testing.T) {
	for failures := range 100 {
		for range 20 {
			if d := server.Growing(failures); d < 50*time.Millisecond || d > 30*time.Second || failures == 0 && d > 100*time.Millisecond || failures > 20 && d < 15*time.Second {
				t.Fatalf("after %d failures: got %v", failures, d)
			}
		}
	}
}

func TestIDs(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ids := server.NewIDs(func() time.Time { return now })
	var all []string
	for i := range 20_000 {
		switch i {
		case 5000:
			now = now.Add(-time.Hour) // somebody set the clock
		case 15_000:
			now = now.Add(2 * time.Hour)
		}
		all = append(all, ids())
	}
	if !slices.IsSorted(all) || len(maps.Collect(slices.All(slices.Compact(slices.Clone(all))))) != len(all) {
		t.Error("ids made later do not sort later, or are not unique")
	}
	// 2026-03-01T12:00:00Z is 0x019ca96ca800 milliseconds after 1970.
	if want := fmt.Sprintf("%012x", time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli()); strings.ReplaceAll(all[0], "-", "")[:12] != want {
		t.Errorf("got %s, want it to begin with %s", all[0], want)
	}
	for _, id := range all {
		if len(id) != 36 || id[14] != '7' || !strings.Contains("89ab", id[19:20]) {
			t.Fatalf("%s is no UUID of version 7", id)
		}
	}
}

func BenchmarkID(b *testing.B) {
	ids := server.NewIDs(time.Now)
	b.ReportAllocs()
	for b.Loop() {
		ids()
	}
}
