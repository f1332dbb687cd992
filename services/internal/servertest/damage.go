package servertest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// Damage changes records behind the back of their service.
type Damage func(*store.Tx) error

// Put is the damage that there is a record.
func Put[T proto.Message](c *store.Collection[T], v T) Damage {
	return func(tx *store.Tx) error { return c.Put(tx, proto.CloneOf(v)) }
}

// Changed is the damage that a record is another.
func Changed[T proto.Message](c *store.Collection[T], id string, change func(T)) Damage {
	return func(tx *store.Tx) error {
		v, ok := c.Get(tx, id)
		if !ok {
			return fmt.Errorf("there is no %s %q to change", c.Name(), id)
		}
		change(v)
		return c.Put(tx, v)
	}
}

// Removed is the damage that there is no such record.
func Removed[T proto.Message](c *store.Collection[T], id string) Damage {
	return func(tx *store.Tx) error {
		if !c.Has(tx, id) {
			return fmt.Errorf("there is no %s %q to remove", c.Name(), id)
		}
		c.Delete(tx, id)
		return nil
	}
}

// FindsDamage fails the test unless verify finds nothing wrong with sound records, and each damage to
// them as what it is: the breach of the invariant that it stands under, by the name that
// [store.Schema.Invariants] gives it. Each invariant needs a damage.
func FindsDamage(t *testing.T, schema *store.Schema, sound Damage, damages map[string][]Damage) {
	t.Helper()
	db := OpenStore(t, schema)
	names := schema.Invariants()
	for name := range damages {
		if !slices.Contains(names, name) {
			t.Errorf("there is no invariant %s", name)
		}
	}
	for _, name := range names {
		if len(damages[name]) == 0 {
			t.Errorf("nothing is damaged that breaks %s", name)
		}
		for i, damage := range damages[name] {
			tenant := fmt.Sprintf("%s/%d", name, i)
			ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: tenant})
			if err := db.Update(ctx, sound); err != nil {
				t.Fatal(err)
			}
			if found := problemsOf(t, db, tenant); len(found) > 0 {
				t.Fatalf("sound records are said to be wrong: %q", found)
			}
			if err := db.Update(ctx, damage); err != nil {
				t.Fatalf("%s: %v", tenant, err)
			}
			found := problemsOf(t, db, tenant)
			collection, invariant, _ := strings.Cut(name, "/")
			told := func(problem string) bool {
				return strings.Contains(problem, ": "+collection+` "`) && strings.Contains(problem, fmt.Sprintf(" breaks %q: ", invariant))
			}
			if !slices.ContainsFunc(found, told) {
				t.Errorf("%s: verify finds %q", tenant, found)
			}
			t.Logf("%s: %q", tenant, found)
		}
	}
}

// OpenStore opens an empty store in files, until the test is over.
func OpenStore(t *testing.T, schema *store.Schema) *store.DB {
	t.Helper()
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "test.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), engine, schema, store.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// problemsOf returns what is wrong in one tenant.
func problemsOf(t *testing.T, db *store.DB, tenant string) (found []string) {
	t.Helper()
	prefix := "records of " + tenant + ": "
	_, err := db.Verify(t.Context(), func(problem string) {
		switch {
		case strings.HasPrefix(problem, prefix):
			found = append(found, problem)
		case !strings.HasPrefix(problem, "records of "):
			t.Errorf("verify finds %s", problem)
		}
	}, func(store.Verified) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return found
}
