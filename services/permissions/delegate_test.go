package permissions

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
)

// delegation returns what a user of the world may do, with a session that carries all
// that he holds.
func (w *world) delegation(caller string) *delegation {
	a := w.access(caller)
	carries, _ := a.grants(noon)
	return newDelegation(granter{id: caller, carries: carries}, a, noon, w.access)
}

// try lets a caller edit a user of the world.
func (w *world) try(caller, user string, f func(*pb.UserAccess)) error {
	after := &world{users: map[string]*pb.UserAccess{}, roles: w.roles, groups: w.groups, plan: w.plan}
	u := proto.CloneOf(w.users[user])
	f(u)
	after.users[user] = u
	return w.delegation(caller).check(edit{user, w.access(user), after.access(user)})
}

// office is an organization with an owner who holds everything, an administrator with
// the role OA, and a clerk who edits users and holds little else.
func office() *world {
	w := emptyWorld()
	w.roles["clerk"] = &pb.Role{Id: "clerk", Keys: []string{"Web", "Organization", "Organization: Users", "Invoices"}}
	owner := &pb.UserAccess{Id: "owner", RoleId: "OW"}
	for b := range firstOwnerKeys(builtIn["BA"].keys).All() {
		setOverride(owner, grant(b.String()))
	}
	w.users["owner"] = owner
	w.users["admin"] = &pb.UserAccess{Id: "admin", RoleId: "OA"}
	w.users["clerk"] = &pb.UserAccess{Id: "clerk", RoleId: "clerk"}
	w.users["user"] = &pb.UserAccess{Id: "user"}
	return w
}

func grant(key string) *pb.Override {
	return &pb.Override{Key: key, Effect: pb.Effect_EFFECT_GRANT}
}

func deny(key, author string) *pb.Override {
	return &pb.Override{Key: key, Effect: pb.Effect_EFFECT_DENY, SetBy: author}
}

func until(o *pb.Override, after time.Duration) *pb.Override {
	o.ExpireTime = timestamppb.New(noon.Add(after))
	return o
}

func withRole(id string) func(*pb.UserAccess) {
	return func(u *pb.UserAccess) { u.RoleId = id }
}

func withOverride(o *pb.Override) func(*pb.UserAccess) {
	return func(u *pb.UserAccess) { setOverride(u, o) }
}

func withoutOverride(key string) func(*pb.UserAccess) {
	return func(u *pb.UserAccess) { clearOverride(u, key) }
}

var delegations = []struct {
	name   string
	given  func(*world)
	caller string
	user   string
	edit   func(*pb.UserAccess)
	beyond string // the first grant that is missing, "" if the edit goes
}{
	{name: "the owner appoints a technician", caller: "owner", user: "user", edit: withRole("SP")},
	{name: "the owner appoints a brand's administrator", caller: "owner", user: "user", edit: withRole("BA")},
	{name: "an administrator appoints office staff", caller: "admin", user: "user", edit: withRole("US")},
	{name: "an administrator appoints no technician as long as he lacks their keys", caller: "admin", user: "user", edit: withRole("SP"), beyond: "Subcontractors:Bids"},
	{name: "an administrator appoints no owner", caller: "admin", user: "user", edit: withRole("OW"), beyond: "Organization: Owner"},
	{name: "an administrator edits no owner", caller: "admin", user: "owner", edit: withOverride(deny("Reports", "admin")), beyond: "Contacts:Edit:Owned"},
	{
		name: "he who was given the keys appoints technicians", caller: "admin", user: "user", edit: withRole("SP"),
		given: func(w *world) {
			for b := range builtIn["SP"].keys.Without(builtIn["OA"].keys).All() {
				setOverride(w.users["admin"], grant(b.String()))
			}
		},
	},
	{name: "nobody raises himself by a role", caller: "clerk", user: "clerk", edit: withRole("OA"), beyond: "Appointments:Email"},
	{name: "nobody raises himself by an override", caller: "clerk", user: "clerk", edit: withOverride(grant("Invoices:Void")), beyond: "Invoices:Void"},
	{name: "anybody may lower himself", caller: "clerk", user: "clerk", edit: withOverride(deny("Invoices", "clerk"))},
	{
		name: "nobody prolongs what he has for a time", caller: "clerk", user: "clerk", edit: withOverride(grant("Invoices:Void")), beyond: "Invoices:Void",
		given: func(w *world) { setOverride(w.users["clerk"], until(grant("Invoices:Void"), time.Hour)) },
	},
	{
		name: "also he who waits for a key", caller: "clerk", user: "clerk", edit: withOverride(deny("Web", "clerk")),
		given: func(w *world) {
			w.roles["clerk"].Keys = append(w.roles["clerk"].Keys, "Invoices:Edit")
			setOverride(w.users["clerk"], until(deny("Invoices:Edit", "owner"), time.Hour))
		},
	},
	{
		name: "nobody gives for longer than he has", caller: "clerk", user: "user", edit: withOverride(grant("Invoices:Edit")), beyond: "Invoices:Edit",
		given: func(w *world) {
			w.users["user"].Overrides = []*pb.Override{grant("Invoices")}
			setOverride(w.users["clerk"], until(grant("Invoices:Edit"), time.Hour))
		},
	},
	{
		name: "for as long as he has is fine", caller: "clerk", user: "user", edit: withOverride(until(grant("Invoices:Edit"), time.Hour)),
		given: func(w *world) {
			w.users["user"].Overrides = []*pb.Override{grant("Invoices")}
			setOverride(w.users["clerk"], until(grant("Invoices:Edit"), time.Hour))
		},
	},
	{
		name: "nobody gives what he will have", caller: "clerk", user: "user", edit: withRole("billing"), beyond: "Invoices:Edit",
		given: func(w *world) {
			w.roles["billing"] = &pb.Role{Id: "billing", Keys: []string{"Invoices", "Invoices:Edit"}}
			w.roles["clerk"].Keys = append(w.roles["clerk"].Keys, "Invoices:Edit")
			setOverride(w.users["clerk"], until(deny("Invoices:Edit", "owner"), time.Hour))
			w.users["user"].Overrides = []*pb.Override{until(deny("Invoices:Edit", "clerk"), time.Hour)}
		},
	},
	{
		name: "a suspended owner is still above", caller: "admin", user: "boss", edit: withRole("US"), beyond: "Organization: Owner",
		given: func(w *world) {
			w.users["boss"] = &pb.UserAccess{Id: "boss", RoleId: "OW", Overrides: []*pb.Override{until(deny("Organization", "owner"), time.Hour)}}
		},
	},
	{
		name: "what a missing parent hides is not given behind it", caller: "clerk", user: "user", edit: withOverride(grant("Invoices")), beyond: "Invoices:Void",
		given: func(w *world) { w.users["user"].Overrides = []*pb.Override{grant("Invoices:Void")} },
	},
	{
		name: "what the plan hides is not given behind it", caller: "clerk", user: "user", edit: withRole("marketing"), beyond: "Campaigns",
		given: func(w *world) { w.roles["marketing"] = &pb.Role{Id: "marketing", Keys: []string{"Campaigns"}} },
	},
	{
		name: "what ends an hour later is not given behind it", caller: "clerk", user: "user", edit: withRole("void"), beyond: "Invoices:Void",
		given: func(w *world) {
			w.roles["void"] = &pb.Role{Id: "void", Keys: []string{"Invoices", "Invoices:Void"}}
			w.users["user"].Overrides = []*pb.Override{until(deny("Invoices:Void", "clerk"), time.Hour)}
		},
	},
	{
		name: "nobody lifts a deny by somebody above", caller: "admin", user: "user", edit: withoutOverride("Calendar"), beyond: "Contacts:Edit:Owned",
		given: func(w *world) { w.users["user"].Overrides = []*pb.Override{deny("Calendar", "owner")} },
	},
	{
		name: "nor takes it over", caller: "admin", user: "user", edit: withOverride(deny("Calendar", "admin")), beyond: "Contacts:Edit:Owned",
		given: func(w *world) { w.users["user"].Overrides = []*pb.Override{deny("Calendar", "owner")} },
	},
	{
		name: "nor leaves the group that has it", caller: "admin", user: "user", edit: func(u *pb.UserAccess) { u.GroupId = "" }, beyond: "Contacts:Edit:Owned",
		given: func(w *world) {
			w.users["user"].GroupId = "group"
			w.groups["group"] = &pb.Group{Id: "group", RoleId: "US", Denies: []string{"Calendar"}, DenyAuthors: map[string]string{"Calendar": "owner"}}
		},
	},
	{
		name: "nor grants over it", caller: "admin", user: "user", edit: withOverride(grant("Calendar")), beyond: "Contacts:Edit:Owned",
		given: func(w *world) {
			w.users["user"].GroupId = "group"
			w.groups["group"] = &pb.Group{Id: "group", RoleId: "US", Denies: []string{"Calendar"}, DenyAuthors: map[string]string{"Calendar": "owner"}}
		},
	},
	{
		name: "nor includes what it denies", caller: "admin", user: "user", edit: withOverride(grant("Web")), beyond: "Contacts:Edit:Owned",
		given: func(w *world) { w.users["user"].Overrides = []*pb.Override{deny("App", "owner")} },
	},
	{
		name: "a deny by a peer may be lifted", caller: "admin", user: "user", edit: withoutOverride("Calendar"),
		given: func(w *world) { w.users["user"].Overrides = []*pb.Override{deny("Calendar", "clerk")} },
	},
	{
		name: "one that has ended too", caller: "admin", user: "user", edit: withoutOverride("Calendar"),
		given: func(w *world) { w.users["user"].Overrides = []*pb.Override{until(deny("Calendar", "owner"), 0)} },
	},
	{
		name: "a role's settings are above who lacks them", caller: "clerk", user: "user", edit: withRole("seeing"), beyond: "setting:see_pricing",
		given: func(w *world) {
			w.roles["seeing"] = &pb.Role{Id: "seeing", Settings: &pb.UserSettings{SeePricing: yes()}}
		},
	},
}

func TestDelegation(t *testing.T) {
	for _, test := range delegations {
		t.Run(test.name, func(t *testing.T) {
			w := office()
			if test.given != nil {
				test.given(w)
			}
			err := w.try(test.caller, test.user, test.edit)
			if got := beyondOf(err); got != test.beyond {
				t.Errorf("got %q (%v), want %q", got, err, test.beyond)
			}
		})
	}
}

// beyondOf returns the grant that a BEYOND_OWN_GRANTS names.
func beyondOf(err error) string {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Reason != faultpb.Reason_REASON_BEYOND_OWN_GRANTS {
		return ""
	}
	return e.Metadata["grant"]
}

func TestSettingsThatRaise(t *testing.T) {
	no, days, week := false, int32(30), int32(7)
	boss, nobody := "boss", ""
	for _, test := range []struct {
		name         string
		caller, user string
		was, is      *pb.UserSettings
		beyond       string
	}{
		{name: "nobody shows prices who does not see them", caller: "clerk", user: "user", is: &pb.UserSettings{SeePricing: yes()}, beyond: "setting:see_pricing"},
		{name: "who sees them may", caller: "admin", user: "user", is: &pb.UserSettings{SeePricing: yes()}},
		{name: "and may hide them", caller: "clerk", user: "user", was: &pb.UserSettings{SeePricing: yes()}, is: &pb.UserSettings{SeePricing: &no}},
		{name: "nobody widens his own search", caller: "clerk", user: "clerk", is: &pb.UserSettings{SearchScope: search(pb.SearchScope_SEARCH_SCOPE_OWNED)}, beyond: "setting:search_scope"},
		{name: "nobody lets others search further", caller: "clerk", user: "user", is: &pb.UserSettings{SearchScope: search(pb.SearchScope_SEARCH_SCOPE_ALL)}, beyond: "setting:search_scope"},
		{name: "nobody frees himself of a limit", caller: "clerk", user: "clerk", was: &pb.UserSettings{LimitSlots: yes()}, is: &pb.UserSettings{LimitSlots: &no}, beyond: "setting:limit_slots"},
		{name: "who is free frees others", caller: "admin", user: "user", was: &pb.UserSettings{LimitSlots: yes()}, is: &pb.UserSettings{LimitSlots: &no}},
		{name: "an agent's settings are given by who is none", caller: "clerk", user: "user", is: &pb.UserSettings{PullFromQueue: yes()}},
		{name: "but not to oneself, whether or not one is an agent", caller: "clerk", user: "clerk", is: &pb.UserSettings{PullFromQueue: yes()}, beyond: "setting:pull_from_queue"},
		{name: "nobody sees further ahead by himself", caller: "clerk", user: "clerk", was: &pb.UserSettings{FutureVisibility: &week}, is: &pb.UserSettings{FutureVisibility: &days}, beyond: "setting:future_visibility"},
		{name: "nor without a bound", caller: "clerk", user: "clerk", was: &pb.UserSettings{FutureVisibility: &week}, is: nil, beyond: "setting:future_visibility"},
		{name: "nobody widens his own hours", caller: "clerk", user: "clerk", was: &pb.UserSettings{LoginRestrictions: &pb.LoginRestrictions{BeforeMinutes: 30}}, is: &pb.UserSettings{LoginRestrictions: &pb.LoginRestrictions{BeforeMinutes: 30, AfterMinutes: 1}}, beyond: "setting:login_restrictions"},
		{name: "nobody chooses his own approver", caller: "clerk", user: "clerk", was: &pb.UserSettings{InvoiceApprover: &boss}, is: &pb.UserSettings{InvoiceApprover: &nobody}, beyond: "setting:invoice_approver"},
		{name: "others choose him", caller: "clerk", user: "user", was: &pb.UserSettings{InvoiceApprover: &boss}, is: &pb.UserSettings{InvoiceApprover: &nobody}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := office()
			w.users[test.user].Settings = test.was
			err := w.try(test.caller, test.user, func(u *pb.UserAccess) { u.Settings = test.is })
			if got := beyondOf(err); got != test.beyond {
				t.Errorf("got %q (%v), want %q", got, err, test.beyond)
			}
		})
	}
}

func TestASessionHandsOutNoMoreThanItCarries(t *testing.T) {
	w := office()
	carries, err := catalog.SetOf("Organization", "Organization: Users", "Invoices")
	if err != nil {
		t.Fatal(err)
	}
	d := newDelegation(granter{id: "owner", carries: carries}, w.access("owner"), noon, w.access)
	if got := beyondOf(d.check(edit{"user", w.access("user"), (&world{
		users: map[string]*pb.UserAccess{"user": {Id: "user", RoleId: "US"}}, roles: w.roles, plan: w.plan,
	}).access("user")})); got == "" {
		t.Error("gave the role US with a session that does not carry its keys")
	}
	if got, want := keyNames(d.assignable()), []string{"Invoices", "Organization", "Organization: Users"}; len(got) != len(want) {
		t.Errorf("assignable: got %v, want %v", got, want)
	}
	if got := beyondOf(d.names(keySet([]string{"Invoices:Void"}))); got != "Invoices:Void" {
		t.Errorf("names: got %q", got)
	}
}

// What the plan lacks no session carries. A session that was opened with fewer keys, as by an
// API key, does not hand it out either; that of the owner in person does.
func TestALimitedSessionDoesNotHandOutWhatThePlanLacks(t *testing.T) {
	w := office()
	w.roles["router"] = &pb.Role{Id: "router", Keys: []string{"Routing"}}
	carries, err := catalog.SetOf("Organization", "Organization: Users")
	if err != nil {
		t.Fatal(err)
	}
	all, _ := w.access("owner").grants(noon)
	for want, g := range map[string]granter{
		"Routing": {id: "owner", carries: carries, limited: true},
		"":        {id: "owner", carries: all},
	} {
		d := newDelegation(g, w.access("owner"), noon, w.access)
		after := &world{users: map[string]*pb.UserAccess{"user": {Id: "user", RoleId: "router"}}, roles: w.roles, plan: w.plan}
		if got := beyondOf(d.check(edit{"user", w.access("user"), after.access("user")})); got != want {
			t.Errorf("limited %t: got %q beyond what the session carries, want %q", g.limited, got, want)
		}
	}
}

func TestAKeyOfAnAddOnIsNotGivenWithoutIt(t *testing.T) {
	w := office()
	err := w.delegation("owner").names(keySet([]string{"Routing"}))
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Reason != faultpb.Reason_REASON_FEATURE_NOT_IN_PLAN || e.Metadata["feature"] != "routing" {
		t.Errorf("got %v", err)
	}
	w.plan.Features = []string{"routing"}
	if err := w.delegation("owner").names(keySet([]string{"Routing"})); err != nil {
		t.Error(err)
	}
}

func TestOwners(t *testing.T) {
	for _, test := range []struct {
		name string
		user *pb.UserAccess
		want bool
	}{
		{"the role", &pb.UserAccess{RoleId: "OW"}, true},
		{"another role", &pb.UserAccess{RoleId: "OA"}, false},
		{"the key", &pb.UserAccess{RoleId: "OA", Overrides: []*pb.Override{grant("Organization: Owner")}}, true},
		{"the key for a time", &pb.UserAccess{RoleId: "OA", Overrides: []*pb.Override{until(grant("Organization: Owner"), time.Hour)}}, false},
		{"the role without the key", &pb.UserAccess{RoleId: "OW", Overrides: []*pb.Override{deny("Organization: Owner", "")}}, false},
		{"the role without its parent for a time", &pb.UserAccess{RoleId: "OW", Overrides: []*pb.Override{until(deny("Organization", ""), time.Hour)}}, false},
		{"the role with a deny that has ended", &pb.UserAccess{RoleId: "OW", Overrides: []*pb.Override{until(deny("Organization", ""), 0)}}, true},
		{"the role without users", &pb.UserAccess{RoleId: "OW", Overrides: []*pb.Override{deny("Organization: Users", "")}}, false},
	} {
		if got := (&loader{now: noon}).access(test.user).owns(noon); got != test.want {
			t.Errorf("%s: got %t, want %t", test.name, got, test.want)
		}
	}
}
