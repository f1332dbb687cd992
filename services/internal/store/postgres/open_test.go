package postgres

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// TestOpenTogether opens an empty database many times at once: one has made the tables,
// and all can use them.
func TestOpenTogether(t *testing.T) {
	c := postgrestest.New(t)
	var mu sync.Mutex
	created := map[string]int{}
	var wg sync.WaitGroup
	for i := range 9 {
		service := []string{"identity", "permissions", "invoicing"}[i%3]
		wg.Go(func() {
			e, first, err := Open(t.Context(), c.URL(), service, store.MakeMissing)
			if err != nil {
				t.Error(err)
				return
			}
			defer e.Close()
			if _, err := add(t.Context(), e.(*Engine)); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if created[service] += 0; first {
				created[service]++
			}
		})
	}
	wg.Wait()
	for service, n := range created {
		if n != 1 {
			t.Errorf("%d have made the tables of %s", n, service)
		}
		e, first, err := open(t.Context(), c.URL(), service, store.MakeMissing)
		if err != nil || first {
			t.Fatalf("open again: made %t, error %v", first, err)
		}
		if n := counter(t, e); n != 3 {
			t.Errorf("%s: three updates count to %d", service, n)
		}
		e.Close()
	}
}

// TestUpgrade has a second version of the tables, which a program of the first refuses.
func TestUpgrade(t *testing.T) {
	url, service := postgrestest.URL(t), newService()
	e := mustOpen(t, url, service)
	config, err := configOf(url, service)
	if err != nil {
		t.Fatal(err)
	}
	second := func(service string) []string {
		return []string{`CREATE TABLE IF NOT EXISTS ` + service + `_more_v2 (key bytea PRIMARY KEY)`}
	}
	for range 2 {
		if first, err := prepare(t.Context(), config, service, append(layouts[:1:1], second), store.MakeMissing); err != nil || first {
			t.Errorf("upgrade: made %t, error %v", first, err)
		}
	}
	if _, err := e.pool.Exec(t.Context(), `SELECT key FROM `+service+`_more_v2`); err != nil {
		t.Error(err)
	}
	_, _, err = Open(t.Context(), url, service, store.MakeMissing)
	if err == nil || !strings.Contains(err.Error(), "version 2, made by a newer program") {
		t.Errorf("got error %v, want one that tells of a newer program", err)
	}
}

// TestOpenMissing opens stores that must be there: of a database without any, and of one with
// another service's. Nothing is made.
func TestOpenMissing(t *testing.T) {
	url := postgrestest.Database(t)
	tables := func() (names []string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		rows, _ := conn.Query(t.Context(), `SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`)
		if names, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			t.Fatal(err)
		}
		return names
	}
	for range 2 {
		before := tables()
		if _, _, err := Open(t.Context(), url, "mine", store.KeepMissing); !errors.Is(err, store.ErrMissing) {
			t.Errorf("beside %v: got error %v, want that there is no store", before, err)
		}
		if after := tables(); !slices.Equal(after, before) {
			t.Errorf("there were %v, and now there are %v", before, after)
		}
		mustOpen(t, url, "another")
	}
	e, made, err := Open(t.Context(), url, "another", store.KeepMissing)
	if err != nil || made {
		t.Fatalf("the one that is there: made %t, error %v", made, err)
	}
	e.Close()
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		url       string
		encrypted bool
		conns     int32
	}{
		{"postgres://u@localhost/db", false, maxConns},
		{"postgres://u@127.0.0.1:5433/db?pool_max_conns=3", false, 3},
		{"postgres://u@/db?host=/run/postgresql", false, maxConns},
		{"postgres://u@db.example/db", true, maxConns},
		{"postgres://u@db.example/db?pool_max_conns=1", true, 2},
		{"postgres://u@db.example/db?sslmode=disable", false, maxConns},
		{"postgres://u@127.0.0.1,db.example/db", true, maxConns},
	} {
		config, err := configOf(c.url, "test")
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		tls := config.ConnConfig.TLSConfig
		if proved := tls != nil && !tls.InsecureSkipVerify; proved != c.encrypted || config.MaxConns != c.conns {
			t.Errorf("%s: the server must prove itself: %t, connections %d, want %+v", c.url, proved, config.MaxConns, c)
		}
		for _, f := range config.ConnConfig.Fallbacks {
			if c.encrypted && f.TLSConfig == nil {
				t.Errorf("%s: falls back to no encryption", c.url)
			}
		}
	}
}

// TestOpenFails looks at what a person reads who got the URL wrong.
func TestOpenFails(t *testing.T) {
	url := postgrestest.URL(t)
	for _, c := range []struct{ url, service, want string }{
		{"postgres://u:secret@127.0.0.1:1/db", "test", "refused"},
		{"postgres://u:secret@127.0.0.1:1/db?pool_max_conns=x", "test", "pool_max_conns"},
		{"postgres://u:secret@127.0.0.1:1/db?a=%zz", "test", "cannot parse"},
		{strings.Replace(url, "/postgres", "/nowhere", 1), "test", `"nowhere" does not exist`},
		{url + "?sslmode=require", "test", "sslmode=disable"},
		{url, "Bad-Name", "table's name"},
	} {
		_, _, err := Open(t.Context(), c.url, c.service, store.MakeMissing)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\n\t") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got error %q, want one line that tells %q and no password", c.url, err, c.want)
		}
	}
}

// TestContextEnds ends the contexts of callers while they read: the connections stay good.
func TestContextEnds(t *testing.T) {
	e := mustOpen(t, postgrestest.URL(t)+"?pool_max_conns=2", newService())
	before := e.pool.Stat().NewConnsCount()
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		err := e.View(ctx, func(s store.Snapshot) error {
			go cancel()
			for range 5 {
				if _, err := s.Get([]byte("n")); err != nil {
					return err
				}
			}
			return nil
		})
		if cancel(); err != nil && err != context.Canceled {
			t.Error(err)
		}
	}
	if n := e.pool.Stat().NewConnsCount() - before; n > 2 {
		t.Errorf("50 reads took %d new connections", n)
	}
}

// TestNested has as many Views as there are connections, each with an Update inside, and
// Updates with a View inside.
func TestNested(t *testing.T) {
	e := mustOpen(t, postgrestest.URL(t)+"?pool_max_conns=2", newService())
	read := func(s store.Snapshot) error {
		_, err := s.Get([]byte("n"))
		return err
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			err := e.View(as(n), func(s store.Snapshot) error {
				if err := read(s); err != nil {
					return err
				}
				_, err := add(as(n), e)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	err := e.Update(as(0), func(s store.Snapshot) ([]store.Write, error) {
		if err := read(s); err != nil {
			return nil, err
		}
		return nil, e.View(as(0), read)
	})
	if n := counter(t, e); err != nil || n != 8 {
		t.Errorf("8 updates count to %d, %v", n, err)
	}
}
