package permissions

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
)

// TestRandomWalksRaiseNobody lets users of every rank edit users, roles and groups at
// random, and after each edit that was let through asks the reference evaluator
// whether it gave anybody what its maker did not hold, or left no owner.
func TestRandomWalksRaiseNobody(t *testing.T) {
	db := openStore(t)
	walks, edits := 1000, 0
	switch {
	case *long:
		walks = 10_000
	case testing.Short():
		walks = 100
	}
	first, kinds := chosenSeed(t), map[int]int{}
	for i := range uint64(walks) {
		err := db.Update(tenant(t.Context()), func(tx *store.Tx) error {
			w := newWalk(tx, first+i)
			if err := w.run(50); err != nil {
				return fmt.Errorf("walk of seed %d: %w", first+i, err)
			}
			edits += w.made
			for k, n := range w.kinds {
				kinds[k] += n
			}
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
	for k := range overrideEdit + 1 {
		if kinds[k] < walks/50 {
			t.Errorf("of kind %d only %d edits were let through: %v", k, kinds[k], kinds)
		}
	}
}

var errRollback = errors.New("end of the walk")

func tenant(ctx context.Context) context.Context {
	return store.WithOrigin(ctx, store.Origin{Tenant: "organization"})
}

// walk is one organization and its users.
type walk struct {
	*rand.Rand
	tx     *store.Tx
	now    time.Time
	users  []string
	active map[string]bool
	about  []string // keys
	roles  []string // ids, of the built-in ones too
	groups []string // ids
	made   int      // edits let through
	kinds  map[int]int
	last   *world
	known  map[question]map[string]bool
}

// question is one that the reference was asked.
type question struct {
	world *world
	user  string
	at    time.Time
}

// keys asks the reference, as if every add-on were bought. A snapshot never changes.
func (w *walk) keys(v *world, user string, at time.Time) map[string]bool {
	q := question{v, user, at}
	if _, ok := w.known[q]; !ok {
		w.known[q] = v.keys(user, at, featureNames())
	}
	return w.known[q]
}

func newWalk(tx *store.Tx, seed uint64) *walk {
	w := &walk{Rand: rand.New(rand.NewPCG(seed, 1)), tx: tx, now: noon, active: map[string]bool{}, known: map[question]map[string]bool{}, kinds: map[int]int{}}
	for i := range 5 {
		w.users = append(w.users, fmt.Sprint("user", i))
		w.active[w.users[i]] = true
	}
	w.about = []string{
		"Organization", "Organization: Users", "Organization: Owner", "Organizations: Roles", "Web", "App",
		"Invoices", "Invoices:Void", "Campaigns", "Campaigns:Create",
	}
	w.roles = []string{"OW", "SP", "PM"}
	return w
}

func (w *walk) loader() *loader {
	l := newLoader(w.tx)
	l.now = w.now
	return l
}

// run seeds the organization, lets its owner make roles, groups and ranks, and then
// everybody edit.
func (w *walk) run(steps int) error {
	if err := w.loader().seed(w.users[0], builtIn["BA"].keys); err != nil {
		return err
	}
	w.last = w.snapshot()
	setup := []int{planEdit, roleMade, roleMade, brandRoleEdit, groupMade, groupMade, roleSet, roleSet, groupSet, groupSet}
	for i := range steps {
		caller, n := w.users[0], w.IntN(kinds)
		if i < len(setup) {
			n = setup[i]
		} else {
			caller = w.editor()
		}
		if err := w.step(caller, n); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// editor picks somebody who as a rule may edit users.
func (w *walk) editor() (user string) {
	for range 4 {
		if user = pick(w, w.users); w.keys(w.last, user, w.now)["Organization: Users"] {
			break
		}
	}
	return user
}

func pick[T any](w *walk, from []T) T { return from[w.IntN(len(from))] }

// step makes one edit, and checks what it did if it was let through.
func (w *walk) step(caller string, n int) error {
	before := w.last
	set, _ := w.loader().access(w.loader().user(caller)).grants(w.now)
	key := catalog.MustGrant(keyOf(n))
	if !set.Has(key) || !w.active[caller] {
		return nil
	}
	by := granter{id: caller, carries: set}
	if w.IntN(4) == 0 {
		by.carries, by.limited = w.scoped(set), true
		if !by.carries.Has(key) {
			return nil
		}
	}
	what, err := w.edit(by, n)
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s by %s: %w", what, caller, err)
	}
	w.made++
	w.kinds[min(n, overrideEdit)]++
	w.last = w.snapshot()
	err = w.checkStep(before, w.last, caller, n == memberEdit)
	if err == nil && by.limited {
		err = w.checkScoped(before, w.last, by.carries)
	}
	if err != nil {
		return fmt.Errorf("%s by %s, limited %t: %w", what, caller, by.limited, err)
	}
	return nil
}

// The kinds of edits.
const (
	timePasses = iota
	planEdit
	roleMade
	roleEdit
	groupMade
	groupEdit
	settingsEdit
	roleGone
	groupGone
	memberEdit
	groupSet
	roleSet
	brandRoleEdit
	overrideEdit
	kinds = overrideEdit + 4 // overrides are edited most
)

// keyOf returns the key that the method of an edit asks for.
func keyOf(n int) string {
	switch n {
	case planEdit, roleMade, roleEdit, roleGone, brandRoleEdit:
		return "Organizations: Roles"
	}
	return "Organization: Users"
}

// edit makes a random edit and returns it in words.
func (w *walk) edit(by granter, n int) (what string, err error) {
	l, user := w.loader(), pick(w, w.users)
	switch n {
	case timePasses:
		w.now = w.now.Add(time.Duration(w.IntN(3)) * time.Hour)
	case planEdit:
		p, _ := plans.Get(w.tx, w.tx.Tenant())
		p.Features = [][]string{nil, {"campaigns"}, {"campaigns"}}[w.IntN(3)]
		return fmt.Sprint("UpdateBillingPlan", p), plans.Put(w.tx, p)
	case roleMade:
		w.roles = append(w.roles, fmt.Sprint("role", len(w.roles)))
		r := &pb.Role{Id: w.roles[len(w.roles)-1], Name: w.roles[len(w.roles)-1], Keys: w.some(), Settings: w.settings()}
		return fmt.Sprint("CreateRole", r), l.createRole(by, r)
	case roleEdit:
		r := &pb.Role{Id: pick(w, w.roles), Keys: w.some(), Settings: w.settings()}
		_, err = l.updateRole(by, r, &fieldmaskpb.FieldMask{Paths: []string{pick(w, []string{"keys", "settings"})}}, w.active)
		return fmt.Sprint("UpdateRole", r), err
	case groupMade:
		w.groups = append(w.groups, fmt.Sprint("group", len(w.groups)))
		g := w.group(w.groups[len(w.groups)-1])
		return fmt.Sprint("CreateGroup", g), l.createGroup(by, g)
	case groupEdit:
		g := w.group(pick(w, w.groups))
		_, err = l.updateGroup(by, g, &fieldmaskpb.FieldMask{Paths: []string{pick(w, []string{"role_id", "grants", "denies", "settings"})}}, w.active)
		return fmt.Sprint("UpdateGroup", g), err
	case settingsEdit:
		return w.editSettings(l, by, user)
	case roleGone:
		return w.deleteRole(l)
	case groupGone:
		return w.deleteGroup(l)
	case memberEdit:
		return w.editMember(l, by, user)
	case groupSet:
		req := &pb.SetUserGroupRequest{UserId: user, GroupId: pick(w, append(w.groups, ""))}
		_, err = l.editUser(by, user, "", w.active, setGroup(req, ""))
		return fmt.Sprint("SetUserGroup", req), err
	case roleSet:
		return w.editRole(l, by, user)
	case brandRoleEdit:
		return w.editBrand(l, by)
	default:
		return w.editOverride(l, by, user)
	}
	return "", nil
}

func (w *walk) group(id string) *pb.Group {
	return &pb.Group{Id: id, Name: id, RoleId: pick(w, w.roles), Grants: w.some(), Denies: w.some(), Settings: w.settings()}
}

func (w *walk) editRole(l *loader, by granter, user string) (string, error) {
	req := &pb.SetUserRoleRequest{UserId: user, RoleId: pick(w, w.roles)}
	req.RegionalManager = takesRegional(req.GetRoleId()) && w.IntN(2) == 0
	_, err := l.editUser(by, user, "", w.active, setRole(req))
	return fmt.Sprint("SetUserRole", req), err
}

func (w *walk) editOverride(l *loader, by granter, user string) (string, error) {
	key, _ := catalog.Lookup(pick(w, w.about))
	if w.IntN(4) == 0 {
		_, err := l.editUser(by, user, "", w.active, dropOverride(nil, key))
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
	_, err := l.editUser(by, user, "", w.active, putSettings(req, "agent"))
	return fmt.Sprint("UpdateUserSettings", req), err
}

func (w *walk) settings() *pb.UserSettings {
	a, b, c := w.IntN(2) == 0, w.IntN(2) == 0, w.IntN(2) == 0
	return &pb.UserSettings{SeePricing: &a, LimitSlots: &b, PullFromQueue: &c, SearchScope: search(pb.SearchScope(1 + w.IntN(3)))}
}

// some returns a few keys, often those that let edit users.
func (w *walk) some() (keys []string) {
	for range w.IntN(4) {
		keys = append(keys, pick(w, w.about))
	}
	switch w.IntN(4) {
	case 0:
		keys = append(keys, "Organization", "Organization: Users", "Invoices")
	case 1:
		keys = append(keys, "Organization", "Organization: Users", "Organization: Owner", "Organizations: Roles")
	}
	return keyNames(keySet(keys))
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
// the reference, as if every add-on were bought. Who is a member is edited in identity,
// which compares keys by the plan as it is.
func (w *walk) checkStep(before, after *world, caller string, member bool) error {
	now := w.keys(before, caller, w.now)
	for _, user := range w.users {
		if !reached(before, after, user) {
			continue
		}
		for _, at := range w.instants(before, after, caller, user) {
			was, is := w.keys(before, user, at), w.keys(after, user, at)
			then := w.keys(before, caller, at)
			for k := range is {
				if !was[k] && !(now[k] && then[k]) {
					return fmt.Errorf("%s got %s at %s, which the caller lacks", user, k, at)
				}
			}
			for k := range was {
				if !now[k] && user != caller && !member {
					return fmt.Errorf("%s was edited though he holds %s at %s, which the caller lacks", user, k, at)
				}
			}
		}
		if after.users[user] == nil {
			continue // forgotten, with all that was given, denied and set
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

// checkDenies checks that no deny by somebody who holds more was lifted, or overcome by
// what is more specific.
func (w *walk) checkDenies(before, after *world, caller, user string) error {
	for k, authors := range w.denies(before, user, w.now) {
		for _, author := range authors {
			if slices.Contains(w.denies(after, user, w.now)[k], author) {
				continue
			}
			if err := w.mayLift(before, caller, author); err != nil {
				return fmt.Errorf("the deny of %s to %s was lifted: %w", k, user, err)
			}
		}
	}
	for _, at := range w.instants(before, after, user) {
		was, is := w.keys(before, user, at), w.keys(after, user, at)
		for k, authors := range w.denies(after, user, at) {
			for _, author := range authors {
				if err := w.mayLift(before, caller, author); err != nil && is[k] && !was[k] {
					return fmt.Errorf("the deny of %s to %s was overcome: %w", k, user, err)
				}
			}
		}
	}
	return nil
}

func (w *walk) mayLift(before *world, caller, author string) error {
	now := w.keys(before, caller, w.now)
	for k := range w.keys(before, author, w.now) {
		if !now[k] {
			return fmt.Errorf("%s holds %s, which the caller lacks", author, k)
		}
	}
	return nil
}

// denies returns who denies what to a user at an instant.
func (w *walk) denies(v *world, user string, at time.Time) map[string][]string {
	u, g, _ := v.layersOf(user)
	all := map[string][]string{}
	for _, k := range g.GetDenies() {
		all[k] = append(all[k], g.GetDenyAuthors()[k])
	}
	for _, o := range u.GetOverrides() {
		if o.GetEffect() == pb.Effect_EFFECT_DENY && (o.ExpireTime == nil || at.Before(o.ExpireTime.AsTime())) {
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

// checkOwner checks that somebody is an owner for good, whatever the brand does.
func (w *walk) checkOwner(after *world) error {
	after = withoutBrand(after)
	for _, user := range w.users {
		owner := w.active[user]
		for _, at := range w.instants(after, after, user) {
			keys := w.keys(after, user, at)
			owner = owner && keys["Organization: Owner"] && keys["Organization: Users"]
		}
		if owner {
			return nil
		}
	}
	return errors.New("nobody is an owner")
}
