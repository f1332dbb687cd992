package servertest

import (
	"context"
	"errors"
	"testing"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// Stores are those of some parts.
type Stores struct {
	t   testing.TB
	all []*store.DB // of those that have started
}

// StoresOf returns the parts to start, and what will be their stores then.
func StoresOf(t testing.TB, parts ...server.Part) (*Stores, []server.Part) {
	s := &Stores{t: t}
	known := make([]server.Part, len(parts))
	for i, part := range parts {
		known[i] = part
		known[i].Start = func(env *server.Env) error {
			if env.Store != nil {
				s.all = append(s.all, env.Store)
			}
			return part.Start(env)
		}
	}
	return s, known
}

// Verify fails the test with each problem of the stores that are open: of their journals, their
// indexes, and what services promise of their records. A test may clean up with it, before it
// stops the parts.
func (s *Stores) Verify() {
	s.t.Helper()
	for _, db := range s.all {
		Verify(s.t, db)
	}
}

// Verify does so with one store.
func Verify(t testing.TB, db *store.DB) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // also when the test is over
	_, err := db.Verify(ctx, func(problem string) { t.Error(problem) }, func(store.Verified) error { return nil })
	if err != nil && !errors.Is(err, store.ErrClosed) {
		t.Errorf("verify: %v", err)
	}
}
