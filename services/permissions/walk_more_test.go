package permissions

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

func openStore(t testing.TB) *store.DB {
	t.Helper()
	return openStoreAt(t, func() time.Time { return noon })
}

func openStoreAt(t testing.TB, now func() time.Time) *store.DB {
	t.Helper()
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "permissions.db"), bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), engine, schema, store.Config{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// Edits of a walk that take things away and bring them back, and those by API keys.

// deleteRole deletes a role of the organization, or brings it back.
func (w *walk) deleteRole(l *loader) (string, error) {
	id := pick(w, w.roles)
	if r, ok := roles.Get(l.tx, id); ok && r.GetDeleteTime() != nil {
		_, err := l.undeleteRole(id, "")
		return "UndeleteRole of " + id, err
	}
	_, err := l.deleteRole(id, "")
	return "DeleteRole of " + id, err
}

// deleteGroup deletes a group, or brings it back.
func (w *walk) deleteGroup(l *loader) (string, error) {
	id := pick(w, w.groups)
	if g, ok := groups.Get(l.tx, id); ok && g.GetDeleteTime() != nil {
		_, err := l.undeleteGroup(id, "")
		return "UndeleteGroup of " + id, err
	}
	_, err := l.deleteGroup(id, "")
	return "DeleteGroup of " + id, err
}

// editMember shuts a user out, or lets him in again, as identity does: nobody who holds more than
// the caller, and nobody who leaves no owner. Who is admitted anew is forgotten first.
func (w *walk) editMember(l *loader, by granter, user string) (string, error) {
	theirs := l.access(l.user(user)).keys(w.now, l.plan)
	if more := theirs.Without(by.carries); !more.Empty() {
		return "", fault.Refused("the user has %v", keyNames(more))
	}
	if w.active[user] {
		err := l.leave(user, w.active)
		w.active[user] = err != nil
		return "the end of the membership of " + user, err
	}
	w.active[user] = true
	if w.IntN(2) == 0 {
		accesses.Delete(w.tx, user)
		return "the admission of " + user, nil
	}
	return "the reactivation of " + user, nil
}

// scoped returns what an API key of somebody carries: some of the keys that he holds, with
// what they require.
func (w *walk) scoped(set catalog.Set) catalog.Set {
	scopes := keySet([]string{"Organization", "Organization: Users", "Organizations: Roles"})
	for _, name := range w.about {
		if w.IntN(3) > 0 {
			scopes.Add(catalog.MustGrant(name))
		}
	}
	return set.Without(set.OnlyKeys().Without(scopes))
}

// checkScoped checks that nobody got a key that the API key did not carry.
func (w *walk) checkScoped(before, after *world, carries catalog.Set) error {
	for _, user := range w.users {
		for _, at := range w.instants(before, after, user) {
			was := w.keys(before, user, at)
			for k := range w.keys(after, user, at) {
				if !was[k] && !carries.Has(catalog.MustGrant(k)) && reached(before, after, user) {
					return fmt.Errorf("%s got %s, which the API key does not carry", user, k)
				}
			}
		}
	}
	return nil
}

// editBrand makes a role of the brand, or gives one other keys, as an edit of the brand does in
// the organization of who makes it.
func (w *walk) editBrand(l *loader, by granter) (string, error) {
	id := fmt.Sprint("brand's ", w.IntN(2))
	is := &pb.Role{Id: id, BrandId: "brand", Name: id, Keys: w.some(), Settings: w.settings()}
	was, there := roles.Get(l.tx, id)
	d := l.delegation(by)
	if err := d.names(keySet(is.GetKeys()).Without(keySet(was.GetKeys()))); err != nil {
		return "", err
	}
	if err := l.editShared(d, l.with(compileRole(is)), nil, l.roleHolders(id)...); err != nil {
		return "", err
	}
	if !there {
		w.roles = append(w.roles, id)
	}
	return fmt.Sprint("UpdateBrandRole ", is), roles.Put(l.tx, offeredAs(is, was))
}

// withoutBrand returns a world in which the brand's roles grant nothing.
func withoutBrand(v *world) *world {
	has := func(user string) bool { _, _, r := v.layersOf(user); return r.GetBrandId() != "" }
	if !slices.ContainsFunc(slices.Collect(maps.Keys(v.users)), has) {
		return v
	}
	without := *v
	without.roles = maps.Clone(v.roles)
	maps.DeleteFunc(without.roles, func(_ string, r *pb.Role) bool { return r.GetBrandId() != "" })
	return &without
}
