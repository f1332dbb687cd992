package postgres

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// cancelRequest is how a message begins that asks a server to cancel what it does.
var cancelRequest = []byte{0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e}

// TestNothingIsCancelled ends the contexts of callers in the middle of their commits, and every
// other time loses the answer too: the engine asks the server to cancel nothing. A plain
// connection of the driver, whose context ends, is the control: it asks.
func TestNothingIsCancelled(t *testing.T) {
	url := postgrestest.URL(t)
	p := newProxy(t, hostOf(url))
	asked, committing := 0, func() {}
	loses := false
	p.watch(func(c *passage, b []byte) verdict {
		if bytes.HasPrefix(b, cancelRequest) {
			asked++
		}
		if bytes.Contains(b, []byte(marker)) {
			committing()
			c.marked = loses
		}
		return pass
	}, func(c *passage, _ []byte) verdict {
		if c.marked {
			return drop
		}
		return pass
	})
	seen := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return asked
	}
	control(t, p.url(url), seen)
	before := seen()
	e := mustOpen(t, p.url(url), newService())
	for i := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		p.mu.Lock()
		committing, loses = cancel, i%2 == 1
		p.mu.Unlock()
		if _, err := add(ctx, e); err != nil && err != context.Canceled {
			t.Errorf("update %d: %v", i, err)
		}
		if ctx.Err() == nil {
			t.Errorf("update %d did not commit", i)
		}
		cancel()
	}
	p.mu.Lock()
	committing, loses = func() {}, false
	p.mu.Unlock()
	if n := counter(t, e); n != 40 {
		t.Errorf("40 updates count to %d", n)
	}
	if n := seen() - before; n > 0 {
		t.Errorf("the server was asked to cancel %d times", n)
	}
}

// control lets a statement's context end, and waits until the driver has asked for its end.
func control(t *testing.T, url string, seen func() int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT pg_sleep(60)"); err == nil {
		t.Fatal("the statement ended by itself")
	}
	for deadline := time.Now().Add(time.Minute); seen() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody saw the driver ask for the end of a statement")
		}
	}
}

// TestRoundTrips counts how often the engine waits for the database.
func TestRoundTrips(t *testing.T) {
	url := postgrestest.URL(t)
	p := newProxy(t, hostOf(url))
	e := mustOpen(t, p.url(url), newService())
	var keys [][]byte
	var writes []store.Write
	for i := range 20 {
		keys = append(keys, fmt.Appendf(nil, "key %02d", i))
		writes = append(writes, store.Write{Key: keys[i], Value: []byte("value")})
	}
	fetch := func(s store.Snapshot) error { return s.(store.Remote).Fetch(keys) }
	for _, c := range []struct {
		what string
		run  func() error
		want int
	}{
		{"a write", func() error {
			return e.Update(as(1), func(store.Snapshot) ([]store.Write, error) { return writes, nil })
		}, 1},
		{"a read of twenty keys", func() error { return e.View(as(1), fetch) }, 1},
		{"a read of twenty keys, and a write of as many", func() error {
			return e.Update(as(1), func(s store.Snapshot) ([]store.Write, error) { return writes, fetch(s) })
		}, 2},
	} {
		if least := p.leastTrips(t, c.run); least != c.want {
			t.Errorf("%s: %d round trips, want %d", c.what, least, c.want)
		}
	}
}

// leastTrips counts the round trips of the best of some runs: others have to connect, too.
func (p *proxy) leastTrips(t *testing.T, run func() error) int {
	least := math.MaxInt
	for range 10 {
		trips, answered := 0, true
		p.watch(func(*passage, []byte) verdict {
			if answered {
				trips, answered = trips+1, false
			}
			return pass
		}, func(*passage, []byte) verdict {
			answered = true
			return pass
		})
		err := run()
		p.watch(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		least = min(least, trips)
	}
	return least
}

// TestUsesInTwoTrips counts what it costs to add to many counts of uses at once.
func TestUsesInTwoTrips(t *testing.T) {
	url := postgrestest.URL(t)
	p := newProxy(t, hostOf(url))
	db, err := store.Open(t.Context(), mustOpen(t, p.url(url), newService()), store.NewSchema(), store.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	uses := make([]store.Use, 50)
	for i := range uses {
		uses[i] = store.Use{Day: store.DayOf(time.Now()), User: fmt.Sprint("user ", i), Grant: "g", Reads: 1}
	}
	ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: "acme"})
	least := p.leastTrips(t, func() error {
		return db.Update(ctx, func(tx *store.Tx) error {
			tx.AddUses(uses...)
			return nil
		})
	})
	if least != 2 {
		t.Errorf("%d round trips, want one to read and one to write", least)
	}
}
