package server_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/storetest"
)

// databases are engines in memory in place of a database's, by URL and service.
type databases struct {
	mu   sync.Mutex
	made map[string]*storetest.Memory
}

func (d *databases) engines() server.Engines {
	return server.Engines{"postgres": func(_ context.Context, url, service string, _ store.Opening) (store.Engine, bool, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		name := url + " " + service
		if e, ok := d.made[name]; ok {
			e.Reopen()
			return e, false, nil
		}
		d.made[name] = storetest.NewMemory()
		return d.made[name], true, nil
	}}
}

func (d *databases) start(t *testing.T, c server.Config, parts ...server.Part) (*server.Process, error) {
	t.Helper()
	p, err := server.Start(t.Context(), c, parts, server.Options{Engines: d.engines()})
	if err == nil {
		t.Cleanup(p.Stop)
	}
	return p, err
}

func TestDatabase(t *testing.T) {
	d := &databases{made: map[string]*storetest.Memory{}}
	for _, url := range []string{"postgres://u@localhost/db", "postgresql://u:secret@example.org/db?sslmode=verify-full"} {
		for _, first := range []bool{true, false} {
			c := config(t)
			c.Store = url
			s := newSuite()
			s.onStart = func(env *server.Env) error {
				if env.FirstStart != first {
					t.Errorf("%s: FirstStart is %t, want %t", url, env.FirstStart, first)
				}
				return nil
			}
			p, err := d.start(t, c, s.parts()...)
			if err != nil {
				t.Fatal(err)
			}
			<-p.Serving()
			p.Stop()
		}
		for _, service := range []string{"identity", "permissions", "invoicing"} {
			if d.made[url+" "+service] == nil {
				t.Errorf("%s: %s has no store", url, service)
			}
		}
	}
}

func TestDatabaseNeeds(t *testing.T) {
	key := strings.Repeat("k", 32)
	blobs := func(env *server.Env) error {
		_, err := env.Blobs(t.Context())
		return err
	}
	for name, c := range map[string]struct {
		change func(*server.Config)
		start  func(*server.Env) error
		alone  bool
		want   string // "" if it starts
	}{
		"nothing":                {},
		"a key, with peers":      {change: func(c *server.Config) { c.Peers["scheduling"] = []string{"localhost:1"} }, want: "--service-key-file is missing"},
		"a key, alone":           {alone: true, want: "--service-key-file is missing"},
		"no more, with the key":  {change: func(c *server.Config) { c.Peers["scheduling"], c.ServiceKey = []string{"localhost:1"}, key }},
		"a place for blobs":      {start: blobs, want: "--blobs is missing"},
		"no more, with a folder": {change: func(c *server.Config) { c.Blobs = "file://" + t.TempDir() }, start: blobs},
		"an engine":              {change: func(c *server.Config) { c.Store = "cassandra://u:secret@h/db" }, want: "cannot keep its data there"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := config(t)
			conf.Store = "postgres://u:secret@localhost/db"
			if c.change != nil {
				c.change(&conf)
			}
			s := newSuite()
			s.onStart = c.start
			parts := s.parts()
			if c.alone {
				parts = parts[:1]
			}
			d := &databases{made: map[string]*storetest.Memory{}}
			_, err := d.start(t, conf, parts...)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got error %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret@")):
				t.Errorf("got error %v, want one that says %q and no password", err, c.want)
			}
		})
	}
}

// TestDatabaseFails does not start if one of the stores cannot be opened.
func TestDatabaseFails(t *testing.T) {
	away := errors.New("the database is away")
	var opened []string
	engines := server.Engines{"postgres": func(_ context.Context, _, service string, _ store.Opening) (store.Engine, bool, error) {
		if opened = append(opened, service); len(opened) == 2 {
			return nil, false, away
		}
		return storetest.NewMemory(), true, nil
	}}
	c := config(t)
	c.Store = "postgres://u@localhost/db"
	_, err := server.Start(t.Context(), c, newSuite().parts(), server.Options{Engines: engines})
	if !errors.Is(err, away) || !slices.Equal(opened, []string{"identity", "permissions"}) {
		t.Errorf("got error %v after %v", err, opened)
	}
}
