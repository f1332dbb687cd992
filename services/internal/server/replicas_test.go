package server_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// turn is one time that a replica's work is at the point where it writes.
type turn struct {
	name  string // of the replica
	write func() error
	ended <-chan struct{} // when it should stop
}

// worker is a replica of the suite, with work in it that one replica does at a time.
type worker struct {
	name  string
	turns chan turn // gets one as soon as somebody takes it
	env   *server.Env
}

func (w *worker) start(env *server.Env) error {
	w.env = env
	env.GoAlone("count", func(ctx context.Context) error {
		t := turn{name: w.name, ended: ctx.Done(), write: func() error { return w.count(ctx) }}
		for {
			select {
			case w.turns <- t:
			case <-ctx.Done():
				return nil
			}
		}
	})
	return nil
}

// count adds one to a record.
func (w *worker) count(ctx context.Context) error {
	ctx = store.WithOrigin(ctx, store.Origin{Tenant: "tenant"})
	return w.env.Store.Update(ctx, func(tx *store.Tx) error {
		v, ok := samples.Get(tx, "n")
		if !ok {
			v = &storepb.Sample{Id: "n"}
		}
		v.Rank++
		return samples.Put(tx, v)
	})
}

func (w *worker) counted(t *testing.T) (n int64) {
	t.Helper()
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: "tenant"})
	err := w.env.Store.View(ctx, func(tx *store.Tx) error {
		v, _ := samples.Get(tx, "n")
		n = v.GetRank()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// engines opens stores in PostgreSQL.
var engines = server.Engines{"postgres": postgres.Open}

// startReplica starts one of several processes with the same database.
func startReplica(t *testing.T, url string, parts ...server.Part) *server.Process {
	t.Helper()
	c := config(t)
	c.Store, c.Blobs = url, "file://"+t.TempDir()
	c.ServiceKey = "a secret that all the replicas of the test share"
	c.Lease = 600 * time.Millisecond
	p, err := server.Start(t.Context(), c, parts, server.Options{Engines: engines})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	waitServing(t, p)
	return p
}

// TestWorkIsDoneAlone has two replicas with the same work: one does it, the other when the
// first has stopped, and who was taken off the list meanwhile writes nothing.
func TestWorkIsDoneAlone(t *testing.T) {
	url, turns := postgrestest.Database(t), make(chan turn)
	processes, workers := map[string]*server.Process{}, map[string]*worker{}
	for i := range 2 {
		s, w := newSuite(), &worker{name: fmt.Sprint("replica ", i), turns: turns}
		s.onStart = w.start
		processes[w.name], workers[w.name] = startReplica(t, url, s.parts()...), w
	}
	next := func() turn {
		t.Helper()
		select {
		case n := <-turns:
			return n
		case <-time.After(time.Minute):
			t.Fatal("nobody does the work")
			return turn{}
		}
	}
	first := next()
	for range 10 {
		now := next()
		if now.name != first.name {
			t.Fatalf("%s does the work that %s does", now.name, first.name)
		}
		if err := now.write(); err != nil {
			t.Fatal(err)
		}
	}
	// The holder hangs between two steps, and the others take it off the list. Now and then it
	// sees so before it goes on, and then the next is taken off.
	for tries := 1; ; tries++ {
		held := next()
		observer := workers[held.name].env.Store
		if _, err := observer.Remove(t.Context(), holder(t, observer)); err != nil {
			t.Fatal(err)
		}
		err := held.write()
		if !errors.Is(err, store.ErrTakenOff) && !errors.Is(err, context.Canceled) || tries == 20 {
			t.Fatalf("who was taken off the list wrote: %v", err)
		}
		<-held.ended
		if errors.Is(err, store.ErrTakenOff) {
			break
		}
	}
	// Somebody does the work again, and it may be the same process, come back.
	second := next()
	if err := second.write(); err != nil {
		t.Fatal(err)
	}
	processes[second.name].Stop()
	<-second.ended
	third := next()
	if third.name == second.name {
		t.Fatal("who has stopped does the work")
	}
	if err := third.write(); err != nil {
		t.Fatal(err)
	}
	if n := workers[third.name].counted(t); n != 12 {
		t.Errorf("12 writes were acknowledged, and %d are there", n)
	}
}

// holder returns the id of the replica that has claimed the work.
func holder(t *testing.T, db *store.DB) string {
	t.Helper()
	const me = "somebody who looks"
	if _, err := db.Enter(t.Context(), store.Replica{ID: me, Address: me}); err != nil {
		t.Fatal(err)
	}
	now, err := db.Beat(t.Context(), me)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Remove(t.Context(), me); err != nil {
		t.Fatal(err)
	}
	return now.Claims["count"]
}

// TestSilentReplicaIsTakenOff has the others notice one that says nothing any more.
func TestSilentReplicaIsTakenOff(t *testing.T) {
	url := postgrestest.Database(t)
	w := &worker{name: "alive", turns: make(chan turn)}
	s := newSuite()
	s.onStart = w.start
	startReplica(t, url, s.parts()...)
	db := w.env.Store
	const silent = "silent"
	if _, err := db.Enter(t.Context(), store.Replica{ID: silent, Address: silent}); err != nil {
		t.Fatal(err)
	}
	fenced := store.WithFence(t.Context(), silent)
	for limit := time.Now().Add(time.Minute); ; {
		err := w.count(fenced)
		if errors.Is(err, store.ErrTakenOff) {
			return
		}
		if err != nil || time.Now().After(limit) {
			t.Fatalf("the silent replica writes on: %v", err)
		}
	}
}

// TestEventsOnReplicas has two replicas of a source and two of a consumer: each event takes
// effect once, also those that come while a replica of each stops.
func TestEventsOnReplicas(t *testing.T) {
	url := postgrestest.Database(t)
	var sources [2]*source
	var sinks [2]*sink
	var processes [2]*server.Process
	for i := range 2 {
		sources[i], sinks[i] = &source{}, newSink()
		s := newSuite()
		processes[i] = startReplica(t, url, s.identity(), s.permissions(), sources[i].part(), sinks[i].part())
	}
	var all []string
	emit := func(of *source) {
		note := fmt.Sprint("note ", len(all))
		of.emit(t, "acme", note)
		all = append(all, note)
	}
	for n := range 20 {
		emit(sources[n%2])
	}
	sinks[1].wait(t, "acme", all...)
	stopped := inBackground(func() error { processes[0].Stop(); return nil })
	for range 20 {
		emit(sources[1])
	}
	if err := stopped(); err != nil {
		t.Fatal(err)
	}
	emit(sources[1])
	sinks[1].wait(t, "acme", all...)
}
