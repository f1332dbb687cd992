package permissions

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// archive is a store whose clock a test sets, and a walk through its organization of
// which each edit is a transaction of its own.
type archive struct {
	*walk
	t   testing.TB
	db  *store.DB
	ctx context.Context
}

func newArchive(t testing.TB, seed uint64) *archive {
	t.Helper()
	a := &archive{walk: newWalk(nil, seed), t: t, ctx: tenant(t.Context())}
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "permissions.db"), bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if a.db, err = store.Open(a.ctx, engine, schema, store.Config{Now: func() time.Time { return a.now }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.db.Close() })
	a.update(func(tx *store.Tx) error { return newLoader(tx).seed(a.users[0], builtIn["BA"].keys) })
	for _, kind := range []int{roleMade, roleMade, groupMade, groupMade} {
		for a.make(kind) == "" {
		}
	}
	return a
}

func (a *archive) update(f func(*store.Tx) error) {
	a.t.Helper()
	if err := a.db.Update(a.ctx, f); err != nil {
		a.t.Fatal(err)
	}
}

func (a *archive) view(f func(*store.Tx)) {
	a.t.Helper()
	err := a.db.View(a.ctx, func(tx *store.Tx) error {
		f(tx)
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// owner is who makes the edits: he holds everything.
func (a *archive) owner() granter {
	var all catalog.Set
	for _, k := range allKeys {
		all.Add(k.Bit())
	}
	return granter{id: a.users[0], carries: all.Union(catalog.Set{0, 0, 0, 0, ^uint64(0)})}
}

// anyEdit makes random edits until one is let through.
func (a *archive) anyEdit() (what string) {
	a.t.Helper()
	for range 100 {
		if what := a.make(a.IntN(kinds-1) + 1); what != "" {
			return what
		}
	}
	a.t.Fatal("none of 100 edits was let through")
	return ""
}

// make makes a random edit of a kind and returns it in words, or "" if it was refused.
func (a *archive) make(kind int) (what string) {
	a.t.Helper()
	seed := a.Uint64() // the function may run twice
	err := a.db.Update(a.ctx, func(tx *store.Tx) (err error) {
		w := *a.walk
		w.Rand, w.tx = rand.New(rand.NewPCG(seed, 1)), tx
		what, err = w.edit(a.owner(), kind)
		a.roles, a.groups = known(tx)
		return err
	})
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return ""
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return what
}

// known returns the roles and the groups that edits can be about.
func known(tx *store.Tx) (roleIDs, groupIDs []string) {
	roleIDs = []string{"OW", "SP", "PM"}
	for r := range roles.All(tx) {
		roleIDs = append(roleIDs, r.GetId())
	}
	for g := range groups.All(tx) {
		groupIDs = append(groupIDs, g.GetId())
	}
	return roleIDs, groupIDs
}

func (l *loader) everybody(users []string) map[string]catalog.Set {
	all := map[string]catalog.Set{}
	for _, id := range users {
		all[id], _ = l.access(l.user(id)).grants(l.now)
	}
	return all
}

// TestThePastIsAsItWas makes random edits, and holds what was computed after each against
// what is computed afterwards as of then.
func TestThePastIsAsItWas(t *testing.T) {
	const seeds = 5
	differ := 0 // moments that differ from the one before
	for seed := range uint64(seeds) {
		a := newArchive(t, seed)
		type moment struct {
			at   time.Time
			what string
			sets map[string]catalog.Set
		}
		moments := []moment{{at: a.now.Add(-time.Hour), what: "nothing", sets: map[string]catalog.Set{}}}
		for range 40 {
			a.now = a.now.Add(time.Duration(1+a.IntN(90)) * time.Minute)
			m := moment{at: a.now, what: a.anyEdit()}
			// Later an override may have ended, so each edit is looked at twice.
			for range 2 {
				a.view(func(tx *store.Tx) { m.sets = newLoader(tx).everybody(a.users) })
				moments = append(moments, m)
				a.now = a.now.Add(7 * time.Minute)
				m.at = a.now
			}
		}
		a.now = a.now.Add(time.Hour)
		for i, m := range moments {
			a.view(func(tx *store.Tx) {
				l, err := loaderAsOf(tx, timestamppb.New(m.at))
				if err != nil {
					t.Fatal(err)
				}
				for user, got := range l.everybody(a.users) {
					if want := m.sets[user]; got != want {
						t.Errorf("seed %d, %s after %s: %s had %v, was %v", seed, m.at, m.what, user, keyNames(got), keyNames(want))
					}
				}
			})
			if i > 0 && fmt.Sprint(m.sets) != fmt.Sprint(moments[i-1].sets) {
				differ++
			}
		}
	}
	if differ < 10*seeds {
		t.Errorf("only %d moments differ from the one before: it shows little", differ)
	}
}

func TestThereWasNothingBeforeTheBeginning(t *testing.T) {
	a := newArchive(t, 1)
	a.now = a.now.Add(time.Hour)
	a.view(func(tx *store.Tx) {
		l, err := loaderAsOf(tx, timestamppb.New(noon.Add(-time.Nanosecond)))
		if err != nil || l.revision() != 0 {
			t.Fatalf("got revision %d, %v", l.revision(), err)
		}
		if set, _ := l.access(l.user(a.users[0])).grants(l.now); !set.Empty() {
			t.Errorf("the owner had %v before the organization was", keyNames(set))
		}
		l, err = loaderAsOf(tx, timestamppb.New(noon))
		if set, _ := l.access(l.user(a.users[0])).grants(l.now); err != nil || set.Empty() || l.revision() == 0 {
			t.Errorf("at the instant of revision %d the owner has nothing, %v", l.revision(), err)
		}
	})
}
