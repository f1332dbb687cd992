package e2e

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/trial"
)

// employee is a user whose rights the owner changes, in every way there is.
type employee struct {
	*watch
	id, role, group, bare string // the group has the role, the bare one only what opens the web
	brandRole, brandGroup string // a group whose role is the brand's, with the same keys
	keys                  []string
	password              string
}

// bare are keys that let nobody call a probe: one opens the web, the others stand above
// keys that do.
var bare = []string{"Web", "Invoices", "Organization"}

// employ makes a user who may call the probes of all services, and signs him in.
func (w *watch) employ() *employee {
	w.t.Helper()
	e := &employee{watch: w, keys: slices.Clone(bare), password: "a password of Frieda's"}
	for service, p := range probes {
		if service != "invoicing" { // that he has by an override
			e.keys = append(e.keys, p.key)
		}
	}
	owner := w.company.As(w.t.Context(), "OW")
	user, err := identitypb.NewUserServiceClient(w.suite).CreateUser(owner, &identitypb.CreateUserRequest{
		Email: email, DisplayName: "Frieda Lang", InitialPassword: e.password,
	})
	w.must(err)
	e.id = user.GetUser().GetId()
	e.role, e.group = w.makeGroup("Every probe", e.keys)
	_, e.bare = w.makeGroup("Hardly anything", bare)
	e.brandRole, e.brandGroup = w.makeBrandGroup(w.suite, "Every probe, in every organization", e.keys)
	w.must(e.setGroup(owner, "", e.group))
	w.must(e.override(owner, "", "Invoices:Void", permissionspb.Effect_EFFECT_GRANT))
	return e
}

const email = "frieda@harbour-lane.example"

// signIn opens a session, which somebody must be able to use from then on.
func (e *employee) signIn() *identitypb.CreateSessionResponse {
	e.t.Helper()
	var session *identitypb.CreateSessionResponse
	e.must(e.insist("sign in", func(ctx context.Context, _ string) (err error) {
		session, err = identitypb.NewSessionServiceClient(e.suite).CreateSession(ctx, &identitypb.CreateSessionRequest{
			Email: email, Password: e.password, Surface: identitypb.Surface_SURFACE_WEB,
		})
		return err
	}))
	return session
}

func (w *watch) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *watch) makeGroup(name string, keys []string) (role, group string) {
	w.t.Helper()
	owner := w.company.As(w.t.Context(), "OW")
	r, err := permissionspb.NewRoleServiceClient(w.suite).CreateRole(owner, &permissionspb.CreateRoleRequest{Name: name, Keys: keys})
	w.must(err)
	g, err := permissionspb.NewGroupServiceClient(w.suite).CreateGroup(owner, &permissionspb.CreateGroupRequest{Name: name, RoleId: r.GetRole().GetId()})
	w.must(err)
	return r.GetRole().GetId(), g.GetGroup().GetId()
}

// makeBrandGroup makes a role of the brand, and a group that has it.
func (w *watch) makeBrandGroup(conn grpc.ClientConnInterface, name string, keys []string) (role, group string) {
	w.t.Helper()
	owner := w.company.As(w.t.Context(), "OW")
	r, err := permissionspb.NewBrandRoleServiceClient(conn).CreateBrandRole(owner, &permissionspb.CreateBrandRoleRequest{Name: name, Keys: keys})
	w.must(err)
	g, err := permissionspb.NewGroupServiceClient(conn).CreateGroup(owner, &permissionspb.CreateGroupRequest{Name: name, RoleId: r.GetRole().GetId()})
	w.must(err)
	return r.GetRole().GetId(), g.GetGroup().GetId()
}

// setBrandKeys changes what a role of the brand may.
func setBrandKeys(conn grpc.ClientConnInterface, role string, keys ...string) func(context.Context, string) error {
	return func(ctx context.Context, requestID string) error {
		_, err := permissionspb.NewBrandRoleServiceClient(conn).UpdateBrandRole(ctx, &permissionspb.UpdateBrandRoleRequest{
			RequestId: requestID, Role: &permissionspb.Role{Id: role, Keys: keys}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"keys"}},
		})
		return err
	}
}

func (e *employee) access() permissionspb.AccessServiceClient {
	return permissionspb.NewAccessServiceClient(e.suite)
}

func (e *employee) override(ctx context.Context, requestID, key string, effect permissionspb.Effect) error {
	_, err := e.access().SetOverride(ctx, &permissionspb.SetOverrideRequest{
		RequestId: requestID, UserId: e.id, Key: key, Effect: effect, Reason: "a try",
	})
	return err
}

func (e *employee) clear(ctx context.Context, requestID, key string) error {
	_, err := e.access().ClearOverride(ctx, &permissionspb.ClearOverrideRequest{RequestId: requestID, UserId: e.id, Key: key})
	return err
}

func (e *employee) setGroup(ctx context.Context, requestID, group string) error {
	_, err := e.access().SetUserGroup(ctx, &permissionspb.SetUserGroupRequest{RequestId: requestID, UserId: e.id, GroupId: group})
	return err
}

func (e *employee) setDenies(ctx context.Context, requestID string, denies ...string) error {
	_, err := permissionspb.NewGroupServiceClient(e.suite).UpdateGroup(ctx, &permissionspb.UpdateGroupRequest{
		RequestId: requestID, Group: &permissionspb.Group{Id: e.group, Denies: denies}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"denies"}},
	})
	return err
}

func (e *employee) setKeys(ctx context.Context, requestID string, keys ...string) error {
	_, err := permissionspb.NewRoleServiceClient(e.suite).UpdateRole(ctx, &permissionspb.UpdateRoleRequest{
		RequestId: requestID, Role: &permissionspb.Role{Id: e.role, Keys: keys}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"keys"}},
	})
	return err
}

// changes are the ways in which he loses what he may.
func (e *employee) changes() []change {
	subject := e.subject.Load()
	byRole := subject.of("identity", "permissions", "scheduling", "servicerequest")
	void := probes["invoicing"].key
	keys := slices.DeleteFunc(slices.Clone(e.keys), func(k string) bool { return slices.Contains(bare, k) })
	type edit = func(context.Context, string) error
	overridden := func(what, key string, registers []*register) change {
		return change{what: what, registers: registers,
			take: func(ctx context.Context, id string) error {
				return e.override(ctx, id, key, permissionspb.Effect_EFFECT_DENY)
			},
			give: func(ctx context.Context, id string) error { return e.clear(ctx, id, key) },
		}
	}
	in := func(group string) edit {
		return func(ctx context.Context, id string) error { return e.setGroup(ctx, id, group) }
	}
	shared := func(what string, take, give edit) change {
		return change{what: what, registers: byRole, before: in(e.group), take: take, give: give}
	}
	return []change{
		{what: "his override", registers: subject.of("invoicing"),
			take: func(ctx context.Context, id string) error { return e.clear(ctx, id, void) },
			give: func(ctx context.Context, id string) error {
				return e.override(ctx, id, void, permissionspb.Effect_EFFECT_GRANT)
			}},
		overridden("the web", "Web", subject.of()),
		overridden("a key above two others", "Organization", subject.of("identity", "scheduling")),
		shared("what his group may",
			func(ctx context.Context, id string) error { return e.setDenies(ctx, id, keys...) },
			func(ctx context.Context, id string) error { return e.setDenies(ctx, id) }),
		shared("what the role of his group may",
			func(ctx context.Context, id string) error { return e.setKeys(ctx, id, bare...) },
			func(ctx context.Context, id string) error { return e.setKeys(ctx, id, e.keys...) }),
		shared("his group", in(e.bare), in(e.group)),
		{what: "what a role of the brand may", registers: byRole, needs: "identity", before: in(e.brandGroup),
			take: setBrandKeys(e.suite, e.brandRole, bare...), give: setBrandKeys(e.suite, e.brandRole, e.keys...)},
	}
}

// TestFreshness changes what somebody may, in every way there is, while he calls all
// five services, and checks that nothing is allowed by a call that started after a
// revoke had returned, nothing denied by one that started after a grant had: with
// each kind of trouble between a service and permissions.
func TestFreshness(t *testing.T) {
	w := newWatch(t, trial.New(t, "no allow after a returned revoke: services killed, frozen, cut off", "bolt"), codes.PermissionDenied)
	e := w.employ()
	w.watched(e.signIn().GetToken(), "what Frieda may")
	stop := w.callAlways()
	defer stop()
	for _, c := range e.changes() {
		w.round(nothing, "", c)
	}
	n := 0
	w.troubled("permissions", "identity", func(victim string) change {
		able := slices.DeleteFunc(e.changes(), func(c change) bool { return !c.concerns(victim) })
		if n++; n%3 == 0 && victim != "identity" { // most often what takes the longest way
			return able[len(able)-1]
		}
		return pick(w.random, able)
	})
	stop()
	w.verify()
}
