package permissions_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

// TestWalksThroughIdentityRaiseNobody lets people of every rank edit access, and who there is,
// in two organizations of a brand at once, through the real services: they make users, end,
// deactivate and bring back memberships, act for one another, make API keys and use them, and edit
// roles of the brand. After each call that went well nobody may hold a key that the person
// behind the call did not hold where he acted, and each organization has an owner.
func TestWalksThroughIdentityRaiseNobody(t *testing.T) {
	walks, steps := 2, 250
	switch {
	case flag.Lookup("long").Value.String() == "true":
		walks, steps = 200, 300
	case testing.Short():
		walks, steps = 1, 100
	}
	made := map[string]int{}
	missing := func() int { return len((&suiteWalk{}).kinds()) - len(made) }
	// A few kinds need several others to have gone well before.
	enough := func(seed int) bool { return seed >= walks && (testing.Short() || missing() <= 3 || seed >= 4*walks) }
	for seed := 0; !enough(seed); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newSuiteWalk(t, uint64(seed))
			for i := range steps {
				if err := w.step(); err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
			}
			for what, n := range w.made {
				made[what] += n
			}
		})
	}
	t.Logf("calls that went well: %v", made)
	if n := missing(); n > 3 && !t.Failed() && !testing.Short() {
		t.Errorf("%d kinds of calls never went well: the walks show too little", n)
	}
}

// credential is something that calls are made with.
type credential struct {
	token        string
	organization string
	behind       string // whose deeds they are: of an API key its maker, of a session for another who acts
}

// suiteWalk is a brand of two organizations and its people.
type suiteWalk struct {
	*rand.Rand
	*suite
	organizations []string
	people        []*person
	credentials   []credential
	roles         map[string][]string // ids, by organization; built-in ones and the brand's too
	groups        map[string][]string
	brand         []string // ids of its roles
	accounts      []string // service accounts; of people, too
	held          map[seat]catalog.Set
	machine       map[seat]bool // service accounts, which are nobody's owner
	made          map[string]int
	names         int
}

// seat is somebody in an organization.
type seat struct{ organization, user string }

func newSuiteWalk(t *testing.T, seed uint64) *suiteWalk {
	t.Helper()
	owner := start(t)
	there := owner.elsewhere()
	w := &suiteWalk{
		Rand: rand.New(rand.NewPCG(seed, 3)), suite: owner.suite, organizations: []string{owner.organization, there.organization},
		people: []*person{owner}, roles: map[string][]string{}, groups: map[string][]string{}, made: map[string]int{}, machine: map[seat]bool{},
	}
	w.add(owner.token, owner.organization, owner.id)
	w.add(there.token, there.organization, owner.id)
	for _, o := range w.organizations {
		w.roles[o] = []string{"OW", "OA", "US", "SP"}
	}
	for i, role := range []string{"OA", "OA", "US"} {
		p := owner.hire(fmt.Sprint("walker", i), role)
		there.join(&identitypb.CreateUserRequest{Email: p.email, DisplayName: p.email}, []string{"US", "OA", "OA"}[i])
		away := p.signIn(there.organization, webSurface)
		w.people = append(w.people, p)
		w.add(p.token, p.organization, p.id)
		w.add(away.token, away.organization, p.id)
		for _, key := range []string{"Organizations: Roles", "User: Impersonation", "ControlPanel:ApiKeys"} {
			for _, boss := range []*person{owner, there} {
				if w.IntN(3) > 0 {
					mustNot(t, boss.override(p.id, key, pb.Effect_EFFECT_GRANT))
				}
			}
		}
	}
	w.held = w.everybody()
	return w
}

func (w *suiteWalk) add(token, organization, behind string) {
	w.credentials = append(w.credentials, credential{token, organization, behind})
}

// everybody returns what everybody holds: nothing, who is no active member.
func (w *suiteWalk) everybody() map[seat]catalog.Set {
	w.t.Helper()
	held := map[seat]catalog.Set{}
	users := identitypb.NewUserServiceClient(w.Conn("permissions", "identity"))
	var ids []string
	for _, p := range w.people {
		ids = append(ids, p.id)
	}
	for _, o := range w.organizations {
		members := reached(w, func() (*identitypb.LookupMembersResponse, error) {
			return users.LookupMembers(w.inside(o), &identitypb.LookupMembersRequest{UserIds: ids})
		})
		for _, m := range members.GetMembers() {
			resp := reached(w, func() (*pb.ResolveGrantsResponse, error) {
				return w.grants().ResolveGrants(w.inside(o), &pb.ResolveGrantsRequest{UserId: m.GetUserId()})
			})
			set, err := catalog.SetFromBytes(resp.GetGrants())
			mustNot(w.t, err)
			held[seat{o, m.GetUserId()}] = set.OnlyKeys()
			if m.GetServiceAccount() {
				w.machine[seat{o, m.GetUserId()}] = true
			}
		}
	}
	return held
}

// reached asks until it is answered: on a slow machine a lease can run out.
func reached[R any](w *suiteWalk, ask func() (R, error)) R {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := ask()
		if code := status.Code(err); (code == codes.Unavailable || code == codes.DeadlineExceeded) && time.Now().Before(deadline) {
			continue
		}
		mustNot(w.t, err)
		return resp
	}
}

// step makes a random call, and checks what it did if it went well.
func (w *suiteWalk) step() error {
	kinds := w.kinds()
	what := oneOf(w, sortedNames(kinds))
	by := oneOf(w, w.credentials)
	if w.IntN(3) == 0 {
		by = w.credentials[w.IntN(2)] // the owner's, so that the others come to something
	}
	err := kinds[what](w.as(by), by)
	switch status.Code(err) {
	case codes.OK:
	case codes.Unavailable, codes.DeadlineExceeded: // it may have gone well
		w.held = w.everybody()
		return nil
	case codes.Unauthenticated:
		w.credentials = slices.DeleteFunc(w.credentials, func(c credential) bool { return c == by && c.behind != w.people[0].id })
		return nil
	case codes.PermissionDenied, codes.FailedPrecondition, codes.NotFound, codes.AlreadyExists, codes.Aborted,
		codes.InvalidArgument, codes.ResourceExhausted:
		return nil
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
	w.made[what]++
	before := w.held
	w.held = w.everybody()
	if err := w.check(before, by); err != nil {
		return fmt.Errorf("%s in %s by %s: %w", what, by.organization, by.behind, err)
	}
	return nil
}

// check holds a call that went well against the rules.
func (w *suiteWalk) check(before map[seat]catalog.Set, by credential) error {
	own := before[seat{by.organization, by.behind}]
	for s, set := range w.held {
		gained := set.Without(before[s])
		if s.user == by.behind && !gained.Empty() {
			return fmt.Errorf("he raised himself in %s: %s", s.organization, names(gained))
		}
		if more := gained.Without(own); !more.Empty() {
			return fmt.Errorf("%s in %s got %s, which he lacks", s.user, s.organization, names(more))
		}
	}
	for _, o := range w.organizations {
		if !w.hasOwner(o) {
			return errors.New("nobody is an owner of " + o)
		}
	}
	return nil
}

func (w *suiteWalk) hasOwner(organization string) bool {
	for s, set := range w.held {
		if s.organization == organization && !w.machine[s] && set.Has(catalog.MustGrant("Organization: Owner")) && set.Has(catalog.MustGrant("Organization: Users")) {
			return true
		}
	}
	return false
}

func names(set catalog.Set) (all []string) {
	for b := range set.All() {
		all = append(all, b.String())
	}
	return all
}

func (w *suiteWalk) as(c credential) context.Context {
	return metadata.NewOutgoingContext(w.t.Context(), metadata.Pairs("authorization", "Bearer "+c.token))
}

func oneOf[T any](w *suiteWalk, from []T) T { return from[w.IntN(len(from))] }

func sortedNames[T any](m map[string]T) (all []string) {
	for name := range m {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// name returns a name that nothing has.
func (w *suiteWalk) name() string {
	w.names++
	return fmt.Sprint("walk", w.names)
}

// about are the keys that a walk is about.
var about = []string{
	"Web", "App", "Organization", "Organization: Users", "Organization: Owner", "Organizations: Roles", "User: Impersonation",
	"ControlPanel:ApiKeys", "Invoices", "Invoices:Void", "Calendar", "Contacts",
}

func (w *suiteWalk) some() (keys []string) {
	for range w.IntN(5) {
		keys = append(keys, oneOf(w, about))
	}
	if w.IntN(2) == 0 {
		keys = append(keys, "Web", "Organization", "Organization: Users")
	}
	return keys
}

func (w *suiteWalk) somebody() string { return oneOf(w, w.people).id }

// kinds are the calls of a walk.
func (w *suiteWalk) kinds() map[string]func(context.Context, credential) error {
	return map[string]func(context.Context, credential) error{
		"SetUserRole": w.setRole, "SetUserGroup": w.setGroup, "SetOverride": w.setOverride, "CreateRole": w.createRole, "UpdateRole": w.updateRole,
		"CreateGroup": w.createGroup, "UpdateGroup": w.updateGroup, "CreateBrandRole": w.createBrandRole, "UpdateBrandRole": w.updateBrandRole,
		"CreateUser": w.createUser, "EndMembership": w.endMembership, "UndeleteUser": w.undeleteUser, "DeactivateUser": w.deactivateUser,
		"ReactivateUser": w.reactivateUser, "ImpersonateUser": w.impersonate, "CreateApiKey": w.createKey,
		"CreateServiceAccount": w.createAccount, "CreateApiKey of an account": w.createAccountKey,
	}
}

func (w *suiteWalk) setRole(ctx context.Context, by credential) error {
	_, err := w.access().SetUserRole(ctx, &pb.SetUserRoleRequest{UserId: w.somebody(), RoleId: oneOf(w, append(w.roles[by.organization], w.brand...))})
	return err
}

func (w *suiteWalk) setGroup(ctx context.Context, by credential) error {
	_, err := w.access().SetUserGroup(ctx, &pb.SetUserGroupRequest{UserId: w.somebody(), GroupId: oneOf(w, append(w.groups[by.organization], ""))})
	return err
}

func (w *suiteWalk) setOverride(ctx context.Context, _ credential) error {
	_, err := w.access().SetOverride(ctx, &pb.SetOverrideRequest{UserId: w.somebody(), Key: oneOf(w, about), Effect: pb.Effect(1 + w.IntN(2))})
	return err
}

func (w *suiteWalk) createRole(ctx context.Context, by credential) error {
	resp, err := w.suite.roles().CreateRole(ctx, &pb.CreateRoleRequest{Name: w.name(), Keys: w.some()})
	if err == nil {
		w.roles[by.organization] = append(w.roles[by.organization], resp.GetRole().GetId())
	}
	return err
}

func (w *suiteWalk) updateRole(ctx context.Context, by credential) error {
	_, err := w.suite.roles().UpdateRole(ctx, &pb.UpdateRoleRequest{
		Role: &pb.Role{Id: oneOf(w, append(w.roles[by.organization][4:], "")), Keys: w.some()}, UpdateMask: mask("keys"),
	})
	return err
}

func (w *suiteWalk) createGroup(ctx context.Context, by credential) error {
	resp, err := w.suite.groups().CreateGroup(ctx, &pb.CreateGroupRequest{
		Name: w.name(), RoleId: oneOf(w, append(w.roles[by.organization], w.brand...)), Grants: w.some(),
	})
	if err == nil {
		w.groups[by.organization] = append(w.groups[by.organization], resp.GetGroup().GetId())
	}
	return err
}

func (w *suiteWalk) updateGroup(ctx context.Context, by credential) error {
	g := &pb.Group{Id: oneOf(w, append(w.groups[by.organization], "")), RoleId: oneOf(w, append(w.roles[by.organization], w.brand...)), Denies: w.some()}
	_, err := w.suite.groups().UpdateGroup(ctx, &pb.UpdateGroupRequest{Group: g, UpdateMask: mask(oneOf(w, []string{"role_id", "denies"}))})
	return err
}

func (w *suiteWalk) createBrandRole(ctx context.Context, _ credential) error {
	resp, err := w.brandRoles().CreateBrandRole(ctx, &pb.CreateBrandRoleRequest{Name: w.name(), Keys: w.some()})
	if err == nil {
		w.brand = append(w.brand, resp.GetRole().GetId())
	}
	return err
}

func (w *suiteWalk) updateBrandRole(ctx context.Context, _ credential) error {
	_, err := w.brandRoles().UpdateBrandRole(ctx, &pb.UpdateBrandRoleRequest{
		Role: &pb.Role{Id: oneOf(w, append(w.brand, "")), Keys: w.some()}, UpdateMask: mask("keys"),
	})
	return err
}

// createUser makes somebody new, or admits somebody who is known.
func (w *suiteWalk) createUser(ctx context.Context, _ credential) error {
	p := oneOf(w, w.people)
	req := &identitypb.CreateUserRequest{Email: p.email, DisplayName: p.email}
	if w.IntN(4) == 0 && len(w.people) < 8 {
		name := w.name()
		p, req = &person{suite: w.suite, email: name + "@example.com"}, &identitypb.CreateUserRequest{Email: name + "@example.com", DisplayName: name}
	}
	resp, err := identitypb.NewUserServiceClient(w.conn).CreateUser(ctx, req)
	if err == nil && p.id == "" {
		p.id = resp.GetUser().GetId()
		w.people = append(w.people, p)
	}
	return err
}

func (w *suiteWalk) endMembership(ctx context.Context, _ credential) error {
	_, err := identitypb.NewUserServiceClient(w.conn).EndMembership(ctx, &identitypb.EndMembershipRequest{Id: w.somebody()})
	return err
}

func (w *suiteWalk) undeleteUser(ctx context.Context, by credential) error {
	p := oneOf(w, w.people)
	_, err := identitypb.NewUserServiceClient(w.conn).UndeleteUser(ctx, &identitypb.UndeleteUserRequest{Id: p.id})
	if err == nil {
		w.back(p, by.organization)
	}
	return err
}

// back signs somebody in again who was let in again.
func (w *suiteWalk) back(p *person, organization string) {
	if p.password == "" {
		return
	}
	resp, err := identitypb.NewSessionServiceClient(w.conn).CreateSession(w.t.Context(), &identitypb.CreateSessionRequest{
		Email: p.email, Password: p.password, Surface: webSurface, OrganizationId: organization,
	})
	if err == nil {
		w.add(resp.GetToken(), organization, p.id)
	}
}

func (w *suiteWalk) deactivateUser(ctx context.Context, _ credential) error {
	_, err := identitypb.NewUserServiceClient(w.conn).DeactivateUser(ctx, &identitypb.DeactivateUserRequest{Id: w.somebody()})
	return err
}

func (w *suiteWalk) reactivateUser(ctx context.Context, by credential) error {
	p := oneOf(w, w.people)
	_, err := identitypb.NewUserServiceClient(w.conn).ReactivateUser(ctx, &identitypb.ReactivateUserRequest{Id: p.id})
	if err == nil {
		w.back(p, by.organization)
	}
	return err
}

// impersonate opens a session for another. What is done in it is done by who opened it.
func (w *suiteWalk) impersonate(ctx context.Context, by credential) error {
	resp, err := identitypb.NewImpersonationServiceClient(w.conn).ImpersonateUser(ctx, &identitypb.ImpersonateUserRequest{UserId: w.somebody(), Reason: "a walk"})
	if err == nil {
		w.add(resp.GetToken(), by.organization, by.behind)
	}
	return err
}

// scopes are what API keys of a walk are for.
var scopes = [][]string{
	{"Organization", "Organization: Users"}, {"Organization", "Organization: Users", "Organizations: Roles", "Invoices"},
	{"Organizations: Roles", "Calendar"},
}

func (w *suiteWalk) createKey(ctx context.Context, by credential) error {
	resp, err := identitypb.NewApiKeyServiceClient(w.conn).CreateApiKey(ctx, &identitypb.CreateApiKeyRequest{Name: w.name(), Scopes: oneOf(w, scopes)})
	if err == nil {
		w.add(resp.GetToken(), by.organization, by.behind)
	}
	return err
}

// createAccount makes a service account, or lets in one of the other organization.
func (w *suiteWalk) createAccount(ctx context.Context, _ credential) error {
	req := &identitypb.CreateServiceAccountRequest{DisplayName: w.name()}
	if w.IntN(2) == 0 && len(w.accounts) > 0 {
		req.Id = oneOf(w, w.accounts)
	} else if len(w.people) > 8 {
		return status.Error(codes.ResourceExhausted, "enough people for one walk")
	}
	resp, err := identitypb.NewServiceAccountServiceClient(w.conn).CreateServiceAccount(ctx, req)
	if err == nil && req.GetId() == "" {
		w.accounts = append(w.accounts, resp.GetUser().GetId())
		w.people = append(w.people, &person{suite: w.suite, id: resp.GetUser().GetId()})
	}
	return err
}

// createAccountKey makes a key that acts as a service account, of which the maker must hold
// what it is for.
func (w *suiteWalk) createAccountKey(ctx context.Context, by credential) error {
	account := oneOf(w, append(w.accounts, ""))
	req := &identitypb.CreateApiKeyRequest{Name: w.name(), Scopes: oneOf(w, scopes), ServiceAccountId: &account}
	resp, err := identitypb.NewApiKeyServiceClient(w.conn).CreateApiKey(ctx, req)
	if err != nil {
		return err
	}
	w.add(resp.GetToken(), by.organization, account)
	for _, key := range req.GetScopes() {
		if !w.held[seat{by.organization, by.behind}].Has(catalog.MustGrant(key)) {
			return fmt.Errorf("%s made a key for %s, which he lacks", by.behind, key)
		}
	}
	return nil
}

// TestWalksThroughIdentityFindARaise holds the check of the walks itself against what they must
// not let pass.
func TestWalksThroughIdentityFindARaise(t *testing.T) {
	set := func(names ...string) (s catalog.Set) {
		for _, name := range names {
			s.Add(catalog.MustGrant(name))
		}
		return s
	}
	owner := set("Organization: Owner", "Organization: Users", "Calendar")
	before := map[seat]catalog.Set{
		{"here", "owner"}: owner, {"there", "owner"}: owner, {"here", "uma"}: set("Calendar", "Contacts"), {"there", "uma"}: set("Calendar"),
	}
	for name, c := range map[string]struct {
		change map[seat]catalog.Set
		fails  bool
	}{
		"nothing":                         {nil, false},
		"what the caller has, to another": {map[seat]catalog.Set{{"there", "gus"}: set("Contacts")}, false},
		"what the caller lacks":           {map[seat]catalog.Set{{"here", "gus"}: set("Invoices")}, true},
		"more to himself":                 {map[seat]catalog.Set{{"here", "uma"}: set("Calendar", "Contacts", "Invoices")}, true},
		"more to himself elsewhere":       {map[seat]catalog.Set{{"there", "uma"}: set("Calendar", "Contacts")}, true},
		"no owner":                        {map[seat]catalog.Set{{"there", "owner"}: set("Calendar")}, true},
	} {
		w := &suiteWalk{organizations: []string{"here", "there"}, held: maps.Clone(before)}
		maps.Copy(w.held, c.change)
		if err := w.check(before, credential{"", "here", "uma"}); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
	}
}
