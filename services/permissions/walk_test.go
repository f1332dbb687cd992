package permissions

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// TestRandomWalksRaiseNobody lets users of every rank edit users, roles and groups at
// random, and after each edit that was let through asks the reference evaluator
// whether it gave anybody what its maker did not hold, or left no owner.
func TestRandomWalksRaiseNobody(t *testing.T) {
	db := openStore(t)
	walks, edits := 1000, 0
	if testing.Short() {
		walks = 100
	}
	for seed := range walks {
		err := db.Update(tenant(t.Context()), func(tx *store.Tx) error {
			w := newWalk(tx, uint64(seed))
			if err := w.run(25); err != nil {
				return fmt.Errorf("walk %d: %w", seed, err)
			}
			edits += w.made
			return errRollback
		})
		if !errors.Is(err, errRollback) {
			t.Fatal(err)
		}
	}
	t.Logf("%d edits were let through in %d walks", edits, walks)
	if edits < walks*5 {
		t.Errorf("only %d edits were let through in %d walks: the walks show little", edits, walks)
	}
}

var errRollback = errors.New("end of the walk")

func tenant(ctx context.Context) context.Context {
	return store.WithOrigin(ctx, store.Origin{Tenant: "organization"})
}

func openStore(t testing.TB) *store.DB {
	t.Helper()
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "permissions.db"), bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), engine, schema, store.Config{Now: func() time.Time { return noon }})
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

// walk is one organization and its users.
type walk struct {
	*rand.Rand
	tx     *store.Tx
	now    time.Time
	users  []string
	active map[string]bool
	keys   []string // what the edits are about
	ids    int
	made   int // edits let through
	last   *world
}

func newWalk(tx *store.Tx, seed uint64) *walk {
	w := &walk{Rand: rand.New(rand.NewPCG(seed, 1)), tx: tx, now: noon, active: map[string]bool{}}
	for i := range 6 {
		w.users = append(w.users, fmt.Sprint("user", i))
		w.active[w.users[i]] = true
	}
	w.keys = []string{
		"Organization", "Organization: Users", "Organization: Owner", "Organizations: Roles", "Web", "App",
		"Invoices", "Invoices:Void", "Campaigns", "Campaigns:Create", "ServiceRequests:Work", "Insights:Portfolio",
	}
	return w
}

func (w *walk) loader() *loader {
	l := newLoader(w.tx)
	l.now = w.now
	return l
}

// run seeds the organization, lets its owner give out ranks, and then everybody edit.
func (w *walk) run(steps int) error {
	if err := w.loader().seed(w.users[0], builtIn["BA"].keys); err != nil {
		return err
	}
	w.last = w.snapshot()
	for i := range steps {
		caller := w.users[0]
		for n := 0; i >= 6 && n < 4; n++ {
			if caller = pick(w, w.users); w.last.keys(caller, w.now, nil)["Organization: Users"] {
				break
			}
		}
		if err := w.step(caller); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func pick[T any](w *walk, from []T) T { return from[w.IntN(len(from))] }

// step makes one edit, and checks what it did if it was let through.
func (w *walk) step(caller string) error {
	before := w.last
	set, _ := w.loader().access(w.loader().user(caller)).grants(w.now)
	what, key, err := w.edit(granter{caller, set}, set)
	if _, ok := errors.AsType[*fault.Error](err); ok || what == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s by %s: %w", what, caller, err)
	}
	w.made++
	if !before.keys(caller, w.now, before.plan.GetFeatures())[key] {
		return fmt.Errorf("%s was let through without %s", what, key)
	}
	w.last = w.snapshot()
	if err := w.checkStep(before, w.last, caller); err != nil {
		return fmt.Errorf("%s by %s: %w", what, caller, err)
	}
	return nil
}

// edit makes a random edit as a granter, if he may call the method at all. It returns
// the edit in words, or "", and the key that the method asks for.
func (w *walk) edit(by granter, holds catalog.Set) (what, key string, err error) {
	users, rolesKey := "Organization: Users", "Organizations: Roles"
	n := w.IntN(14)
	if key = users; n >= 10 {
		key = rolesKey
	}
	if n == 13 {
		w.now = w.now.Add(time.Duration(w.IntN(3)) * time.Hour)
		return "", "", nil
	}
	if !holds.Has(catalog.MustGrant(key)) {
		return "", "", nil
	}
	l, user := w.loader(), pick(w, w.users)
	switch n {
	case 0, 1:
		what, err = w.editRole(l, by, user)
	case 2, 3, 4, 5:
		what, err = w.editOverride(l, by, user)
	case 6:
		what, err = w.editSettings(l, by, user)
	case 7:
		req := &pb.SetUserGroupRequest{UserId: user, GroupId: w.anyID("group")}
		what = fmt.Sprint("SetUserGroup", req)
		_, err = l.editUser(by, user, "", w.active, setGroup(req, link{}))
	case 8:
		g := &pb.Group{Id: w.newID("group"), Name: fmt.Sprint(w.ids), RoleId: w.anyRole(), Grants: w.some(), Denies: w.some(), Settings: w.settings()}
		what, err = fmt.Sprint("CreateGroup", g), l.createGroup(by, g)
	case 9:
		g := &pb.Group{Id: w.anyID("group"), RoleId: w.anyRole(), Grants: w.some(), Denies: w.some(), Settings: w.settings()}
		what = fmt.Sprint("UpdateGroup", g)
		_, err = l.updateGroup(by, g, &fieldmaskpb.FieldMask{Paths: []string{pick(w, []string{"role_id", "grants", "denies", "settings"})}}, w.active)
	case 10:
		r := &pb.Role{Id: w.newID("role"), Name: fmt.Sprint(w.ids), Keys: w.some(), Settings: w.settings()}
		what, err = fmt.Sprint("CreateRole", r), l.createRole(by, r)
	case 11:
		r := &pb.Role{Id: w.anyID("role"), Keys: w.some(), Settings: w.settings()}
		what = fmt.Sprint("UpdateRole", r)
		_, err = l.updateRole(by, r, &fieldmaskpb.FieldMask{Paths: []string{"keys", "settings"}}, w.active)
	case 12:
		p, _ := plans.Get(w.tx, w.tx.Tenant())
		p.Features = [][]string{nil, {"campaigns"}}[w.IntN(2)]
		what, err = fmt.Sprint("UpdateBillingPlan", p), plans.Put(w.tx, p)
	}
	return what, key, err
}

func (w *walk) editRole(l *loader, by granter, user string) (string, error) {
	req := &pb.SetUserRoleRequest{UserId: user, RoleId: w.anyRole(), RegionalManager: w.IntN(2) == 0}
	_, err := l.editUser(by, user, "", w.active, setRole(req))
	return fmt.Sprint("SetUserRole", req), err
}

func (w *walk) editOverride(l *loader, by granter, user string) (string, error) {
	key, _ := catalog.Lookup(pick(w, w.keys))
	if w.IntN(4) == 0 {
		_, err := l.editUser(by, user, "", w.active, dropOverride(key))
		return "ClearOverride of " + user + " " + key.Name, err
	}
	req := &pb.SetOverrideRequest{UserId: user, Key: key.Name, Effect: pb.Effect(1 + w.IntN(2))}
	if w.IntN(2) == 0 {
		req.ExpireTime = timestamppb.New(w.now.Add(time.Duration(1+w.IntN(3)) * time.Hour))
	}
	_, err := l.editUser(by, user, "", w.active, putOverride(req, key))
	return fmt.Sprint("SetOverride", req), err
}

func (w *walk) editSettings(l *loader, by granter, user string) (string, error) {
	req := &pb.UpdateUserSettingsRequest{UserId: user, Settings: w.settings()}
	_, err := l.editUser(by, user, "", w.active, putSettings(req, link{true, "agent"}))
	return fmt.Sprint("UpdateUserSettings", req), err
}

func (w *walk) settings() *pb.UserSettings {
	a, b, c := w.IntN(2) == 0, w.IntN(2) == 0, w.IntN(2) == 0
	return &pb.UserSettings{SeePricing: &a, LimitSlots: &b, PullFromQueue: &c, SearchScope: search(pb.SearchScope(1 + w.IntN(3)))}
}

func (w *walk) some() (keys []string) {
	for range w.IntN(4) {
		keys = append(keys, pick(w, w.keys))
	}
	return keyNames(keySet(keys))
}

func (w *walk) newID(kind string) string {
	w.ids++
	return fmt.Sprint(kind, w.ids)
}

// anyID returns an id of the kind that may exist.
func (w *walk) anyID(kind string) string { return fmt.Sprint(kind, 1+w.IntN(w.ids+1)) }

func (w *walk) anyRole() string {
	if w.IntN(3) == 0 {
		return w.anyID("role")
	}
	return pick(w, []string{"OA", "OW", "US", "SA", "PM", "SP", "PM+", "BA"})
}

// snapshot reads every record for the reference.
func (w *walk) snapshot() *world {
	v := emptyWorld()
	for u := range accesses.All(w.tx) {
		v.users[u.GetId()] = u
	}
	for r := range roles.All(w.tx) {
		v.roles[r.GetId()] = r
	}
	for g := range groups.All(w.tx) {
		v.groups[g.GetId()] = g
	}
	v.plan, _ = plans.Get(w.tx, w.tx.Tenant())
	return v
}

// checkStep holds an edit that was let through against the rules of delegation, with
// the reference, as if every add-on were bought.
func (w *walk) checkStep(before, after *world, caller string) error {
	now := before.keys(caller, w.now, featureNames())
	for _, user := range w.users {
		if !reached(before, after, user) {
			continue
		}
		for _, at := range w.instants(before, after, caller, user) {
			was, is := before.keys(user, at, featureNames()), after.keys(user, at, featureNames())
			then := before.keys(caller, at, featureNames())
			for k := range is {
				if !now[k] || !was[k] && !then[k] {
					return fmt.Errorf("%s got %s at %s, which the caller lacks", user, k, at)
				}
			}
			for k := range was {
				if !now[k] {
					return fmt.Errorf("%s was edited though he holds %s at %s, which the caller lacks", user, k, at)
				}
			}
		}
		if err := w.checkDenies(before, after, caller, user); err != nil {
			return err
		}
		if err := w.checkRaise(before, after, caller, user); err != nil {
			return err
		}
	}
	return w.checkOwner(after)
}

// reached reports whether anything that decides about the user changed.
func reached(before, after *world, user string) bool {
	u, g, r := before.layersOf(user)
	v, h, s := after.layersOf(user)
	return !proto.Equal(u, v) || !proto.Equal(g, h) || !proto.Equal(r, s)
}

func (w *walk) instants(before, after *world, users ...string) []time.Time {
	all := []time.Time{w.now}
	for _, id := range users {
		for _, o := range slices.Concat(before.users[id].GetOverrides(), after.users[id].GetOverrides()) {
			if end := o.GetExpireTime().AsTime(); end.After(w.now) {
				all = append(all, end)
			}
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	return slices.CompactFunc(all, time.Time.Equal)
}

// checkDenies checks that no deny by somebody who holds more was lifted.
func (w *walk) checkDenies(before, after *world, caller, user string) error {
	now := before.keys(caller, w.now, featureNames())
	for k, authors := range w.denies(before, user) {
		for _, author := range authors {
			if slices.Contains(w.denies(after, user)[k], author) || author == caller {
				continue
			}
			for held := range before.keys(author, w.now, featureNames()) {
				if !now[held] {
					return fmt.Errorf("the deny of %s to %s by %s was lifted, who holds %s", k, user, author, held)
				}
			}
		}
	}
	return nil
}

// denies returns who denies what to a user, now.
func (w *walk) denies(v *world, user string) map[string][]string {
	u, g, _ := v.layersOf(user)
	all := map[string][]string{}
	for _, k := range g.GetDenies() {
		all[k] = append(all[k], g.GetDenyAuthors()[k])
	}
	for _, o := range u.GetOverrides() {
		if o.GetEffect() == pb.Effect_EFFECT_DENY && (o.ExpireTime == nil || w.now.Before(o.ExpireTime.AsTime())) {
			all[o.GetKey()] = append(all[o.GetKey()], o.GetSetBy())
		}
	}
	return all
}

// checkRaise checks that nobody got a setting that the caller lacks, or raised his own.
func (w *walk) checkRaise(before, after *world, caller, user string) error {
	for _, name := range []string{"see_pricing", "pull_from_queue"} {
		was, is, own := w.on(before, user, name), w.on(after, user, name), w.on(before, caller, name)
		if is && !was && (user == caller || name == "see_pricing" && !own) {
			return fmt.Errorf("%s got %s", user, name)
		}
	}
	if w.on(before, user, "limit_slots") && !w.on(after, user, "limit_slots") && (user == caller || w.on(before, caller, "limit_slots")) {
		return fmt.Errorf("%s was freed of limit_slots", user)
	}
	return nil
}

// on reports whether a boolean setting is on, were the user linked to a service agent.
func (w *walk) on(v *world, user, name string) bool {
	if u := v.users[user]; u != nil {
		u = proto.CloneOf(u)
		u.ServiceAgentId = "agent"
		linked := *v
		linked.users = map[string]*pb.UserAccess{user: u}
		v = &linked
	}
	value, layer := v.setting(user, name)
	return layer != pb.Layer_LAYER_NONE && value.Bool()
}

// checkOwner checks that somebody is an owner for good.
func (w *walk) checkOwner(after *world) error {
	for _, user := range w.users {
		owner := true
		for _, at := range w.instants(after, after, user) {
			keys := after.keys(user, at, nil)
			owner = owner && keys["Organization: Owner"] && keys["Organization: Users"]
		}
		if owner {
			return nil
		}
	}
	return errors.New("nobody is an owner")
}
