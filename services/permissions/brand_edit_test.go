package permissions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionsstorepb "latchkey.dev/gen/go/latchkey/permissions/store/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/store"
)

// groupOfHouses is an identity service that knows one brand.
type groupOfHouses struct {
	identitypb.OrganizationServiceClient
	identitypb.BrandServiceClient
	houses []string
	moved  map[string]string // into another brand, by organization
}

func (g *groupOfHouses) LookupOrganization(ctx context.Context, _ *identitypb.LookupOrganizationRequest, _ ...grpc.CallOption) (*identitypb.LookupOrganizationResponse, error) {
	house := store.OriginOf(ctx).Tenant
	if !slices.Contains(g.houses, house) {
		return nil, status.Error(codes.NotFound, "no such organization")
	}
	return &identitypb.LookupOrganizationResponse{Organization: &identitypb.Organization{BrandId: cmp.Or(g.moved[house], "brand")}}, nil
}

func (g *groupOfHouses) LookupBrand(context.Context, *identitypb.LookupBrandRequest, ...grpc.CallOption) (*identitypb.LookupBrandResponse, error) {
	return &identitypb.LookupBrandResponse{BrandId: "brand", OrganizationIds: g.houses}, nil
}

// chain is a brand with some organizations in one store, of which a test goes every step
// itself.
type chain struct {
	*service
	t     *testing.T
	group *groupOfHouses
	ahead atomic.Int64
}

func newChain(t *testing.T, houses int) *chain {
	c := &chain{t: t, group: &groupOfHouses{}}
	var ids atomic.Int64
	now := func() time.Time { return noon.Add(time.Duration(c.ahead.Load())) }
	c.service = &service{
		db: openStoreAt(t, now), clock: now, log: slog.New(slog.DiscardHandler), newID: func() string { return fmt.Sprint("id", ids.Add(1)) },
		hub:   lease.NewHub(lease.HubConfig{Source: source, Duration: time.Second, FirstStart: true, Log: slog.New(slog.DiscardHandler)}),
		users: everyone{}, agent: everyone{}, organizations: c.group, brands: c.group,
	}
	t.Cleanup(c.hub.Close)
	for i := range houses {
		c.found(fmt.Sprint("house", i))
	}
	return c
}

// found makes an organization of the brand, which boss owns.
func (c *chain) found(house string) {
	c.t.Helper()
	_, err := c.SeedOrganization(c.at(house), &pb.SeedOrganizationRequest{OwnerUserId: "boss", BrandId: "brand"})
	c.must(err)
	c.group.houses = append(c.group.houses, house)
	slices.Sort(c.group.houses)
}

// at is the context of a call for an organization.
func (c *chain) at(house string) context.Context {
	return store.WithOrigin(c.t.Context(), store.Origin{Tenant: house, Caller: "boss"})
}

func (c *chain) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// boss holds every key and setting, and owns every organization.
func boss() granter {
	var all catalog.Set
	for _, k := range allKeys {
		all.Add(k.Bit())
	}
	for n, b := range settingBits {
		if boolSettings.has(n) {
			all.Add(b)
		}
	}
	return granter{id: "boss", carries: all}
}

func (c *chain) role(keys ...string) string {
	c.t.Helper()
	req := &pb.CreateBrandRoleRequest{Name: "Desk", Keys: keys}
	e, err := c.createOfBrand(c.at("house0"), boss(), req)
	c.must(err)
	resp, err := makeBrandEdit(c.at("house0"), e, req, func(r *pb.Role) *pb.CreateBrandRoleResponse { return &pb.CreateBrandRoleResponse{Role: r} })
	c.must(err)
	return resp.GetRole().GetId()
}

// edit makes an edit in an organization.
func (c *chain) edit(house string, f func(*loader) error) error {
	return c.db.Update(c.at(house), func(tx *store.Tx) error { return f(newLoader(tx)) })
}

func (c *chain) editUser(house, user string, f func(*editing) error) error {
	return c.edit(house, func(l *loader) error { return errOf(l.editUser(boss(), user, "", map[string]bool{"boss": true}, f)) })
}

func (c *chain) give(house, user, role string) error {
	return c.editUser(house, user, setRole(&pb.SetUserRoleRequest{RoleId: role}))
}

func updateRequest(role string, keys ...string) *pb.UpdateBrandRoleRequest {
	return &pb.UpdateBrandRoleRequest{Role: &pb.Role{Id: role, Keys: keys}, UpdateMask: maskOfFields("keys")}
}

// update returns an update of a brand's role that has done nothing yet.
func (c *chain) update(req *pb.UpdateBrandRoleRequest) *brandEdit {
	c.t.Helper()
	e, err := c.updateOfBrand(c.at("house0"), boss(), "", req)
	c.must(err)
	return e
}

// make makes an update.
func (c *chain) make(ctx context.Context, e *brandEdit, req *pb.UpdateBrandRoleRequest) (*pb.UpdateBrandRoleResponse, error) {
	return makeBrandEdit(ctx, e, req, func(r *pb.Role) *pb.UpdateBrandRoleResponse { return &pb.UpdateBrandRoleResponse{Role: r} })
}

// updated makes an update at once.
func (c *chain) updated(role string, keys ...string) error {
	req := updateRequest(role, keys...)
	return errOf(c.make(c.at("house0"), c.update(req), req))
}

// decide goes all steps of an edit up to the decision.
func (c *chain) decide(e *brandEdit) {
	c.t.Helper()
	c.must(e.hold(c.at("house0")))
	c.must(c.db.Update(inBrand(c.at("house0"), "brand"), func(tx *store.Tx) error {
		if err := e.ready(tx); err != nil {
			return err
		}
		r, err := e.change(tx)
		if err != nil {
			return err
		}
		return roles.Put(tx, r)
	}))
}

// stored returns the edit of a role that goes on, and the brand's role.
func (c *chain) stored(role string) (edit *permissionsstorepb.RoleEdit, r *pb.Role) {
	c.must(c.db.View(c.at("brand"), func(tx *store.Tx) error {
		edit, _ = roleEdits.Get(tx, role)
		r, _ = roles.Get(tx, role)
		return nil
	}))
	return edit, r
}

// leftNothing holds that no edit and no hold is left, and that every organization has the
// brand's role.
func (c *chain) leftNothing(role string, keys ...string) {
	c.t.Helper()
	for _, tenant := range append([]string{"brand"}, c.group.houses...) {
		c.must(c.db.View(c.at(tenant), func(tx *store.Tx) error {
			for e := range roleEdits.All(tx) {
				c.t.Errorf("%s: edit %v", tenant, e)
			}
			for h := range roleHolds.All(tx) {
				c.t.Errorf("%s: hold %v", tenant, h)
			}
			if r, _ := roles.Get(tx, role); !slices.Equal(r.GetKeys(), keys) {
				c.t.Errorf("%s: role %v, want the keys %q", tenant, r, keys)
			}
			return nil
		}))
	}
}

func (c *chain) keyOf(house, user, key string) bool {
	c.t.Helper()
	resp, err := c.Check(c.at(house), &pb.CheckRequest{UserId: &user, Grant: key})
	c.must(err)
	return resp.GetAllowed()
}

func isRaceLost(err error) bool {
	e, ok := errors.AsType[*fault.Error](err)
	return ok && e.Reason == faultpb.Reason_REASON_RACE_LOST
}

func errOf[T any](_ T, err error) error { return err }

// An edit that a crash ends before it is decided comes to nothing, and one that was decided
// is made everywhere.
func TestAnEditOfABrandsRoleIsCompletedOrComesToNothing(t *testing.T) {
	c := newChain(t, 3)
	role := c.role("Web", "Calendar")
	c.must(c.give("house2", "uma", role))
	e := c.update(updateRequest(role, "Web"))
	c.must(e.hold(c.at("house0"))) // and here it crashes
	c.must(c.completeAll(t.Context(), c.clock()))
	c.leftNothing(role, "Calendar", "Web")

	c.decide(c.update(updateRequest(role, "Web"))) // and here
	if !c.keyOf("house2", "uma", "Calendar") {
		t.Error("the test shows nothing: the change is made already")
	}
	c.must(c.completeAll(t.Context(), time.Time{}))
	c.leftNothing(role, "Web")
	if c.keyOf("house2", "uma", "Calendar") {
		t.Error("what was decided is not made")
	}
}

// Whoever was taken for dead decides nothing any more, and undoes nothing that was made since.
func TestAnEditThatWasGivenUpIsNotDecided(t *testing.T) {
	c := newChain(t, 2)
	role := c.role("Web", "Calendar")
	req := updateRequest(role, "Web")
	frozen := c.update(req)
	c.must(frozen.hold(c.at("house0")))
	c.must(c.completeAll(t.Context(), c.clock()))
	c.must(c.updated(role, "Web", "Contacts"))
	if _, err := c.make(c.at("house0"), frozen, req); !isRaceLost(err) {
		t.Errorf("deciding what was given up: %v", err)
	}
	c.leftNothing(role, "Contacts", "Web")

	c.decide(c.update(req))
	edit, was := c.stored(role)
	c.must(c.completeAll(t.Context(), time.Time{}))
	c.must(c.updated(role, "Web", "Calendar"))
	c.must(c.offerEverywhere(t.Context(), edit, was, c.group.houses)) // the one that was frozen wakes up
	c.leftNothing(role, "Calendar", "Web")
}

// While an edit goes on, nobody comes to have the role or more besides, and another edit of
// the role loses the race; others' access is edited as ever.
func TestWhatAnEditOfABrandsRoleRestsOnIsHeld(t *testing.T) {
	c := newChain(t, 2)
	role := c.role("Web", "Calendar")
	c.must(c.give("house1", "uma", role))
	makeGroup := func(id, role string) error {
		return c.edit("house1", func(l *loader) error { return l.createGroup(boss(), &pb.Group{Id: id, Name: id, RoleId: role}) })
	}
	c.must(makeGroup("night", "US"))
	join := func(user string) error {
		return c.editUser("house1", user, setGroup(&pb.SetUserGroupRequest{GroupId: "night"}, ""))
	}
	c.must(join("gus"))
	more := func(user string) error {
		contacts, _ := catalog.Lookup("Contacts")
		return c.editUser("house1", user, putOverride(&pb.SetOverrideRequest{Effect: pb.Effect_EFFECT_GRANT}, contacts))
	}
	toGroup := func() error {
		return c.edit("house1", func(l *loader) error {
			return errOf(l.updateGroup(boss(), &pb.Group{Id: "night", RoleId: role}, maskOfFields("role_id"), nil))
		})
	}
	handOver := func(user string) error {
		return c.edit("house1", func(l *loader) error {
			return errOf(l.transfer(boss(), &pb.TransferOrganizationOwnershipRequest{UserId: user}))
		})
	}
	e := c.update(updateRequest(role, "Web"))
	c.must(e.hold(c.at("house0")))
	for name, err := range map[string]error{
		"making a holder the owner":  handOver("uma"),
		"giving the role":            c.give("house1", "ulf", role),
		"taking the role":            c.give("house1", "uma", "US"),
		"giving a holder more":       more("uma"),
		"making a group with it":     makeGroup("desk", role),
		"giving it to a group":       toGroup(),
		"putting a holder elsewhere": join("uma"),
		"another edit of the role":   c.updated(role, "Web"),
	} {
		if !isRaceLost(err) {
			t.Errorf("%s: got %v, want RACE_LOST", name, err)
		}
	}
	c.must(more("gus"))
	c.must(c.give("house1", "ulf", "SP"))
	e.giveUp(c.at("house0"))
	c.leftNothing(role, "Calendar", "Web")
	c.must(c.give("house1", "ulf", role))
	c.must(toGroup())
}

// A hold that no edit knows of is what a process left that was taken for dead.
func TestAHoldThatIsLostIsReleased(t *testing.T) {
	c := newChain(t, 2)
	role := c.role("Web")
	e := c.update(updateRequest(role, "Web", "Calendar"))
	c.must(c.db.Update(c.at("house1"), func(tx *store.Tx) error {
		r, _ := roles.Get(tx, role)
		return e.holdIn(tx, r)
	}))
	c.must(c.completeAll(t.Context(), time.Time{}))
	if err := c.give("house1", "uma", role); !isRaceLost(err) {
		t.Errorf("a hold of just now: %v", err)
	}
	c.ahead.Add(int64(2 * decideWithin))
	c.must(c.completeAll(t.Context(), time.Time{}))
	c.leftNothing(role, "Web")
	c.must(c.give("house1", "uma", role))
}

// An organization that joins while an edit goes on has the change when it is made.
func TestAnOrganizationThatJoinsMeanwhileHasTheChange(t *testing.T) {
	c := newChain(t, 2)
	role := c.role("Web")
	req := updateRequest(role, "Web", "Calendar")
	e := c.update(req)
	c.must(e.hold(c.at("house0")))
	c.found("house2")
	c.must(errOf(c.make(c.at("house0"), e, req)))
	c.leftNothing(role, "Calendar", "Web")
}

// A repeat gets the first answer, also where the first call ended before the change was made
// everywhere: then the repeat makes it.
func TestARepeatCompletesTheChange(t *testing.T) {
	c := newChain(t, 2)
	role := c.role("Web")
	req := updateRequest(role, "Web", "Calendar")
	req.RequestId = "0198c5a0-0000-7000-8000-0000000000aa"
	first, err := c.make(c.at("house0"), c.update(req), req)
	c.must(err)
	c.decide(c.update(updateRequest(role, "Web"))) // of somebody whose process crashed
	again, err := c.make(c.at("house0"), c.update(req), req)
	c.must(err)
	if !proto.Equal(first, again) {
		t.Errorf("repeat: got %v, want %v", again, first)
	}
	c.leftNothing(role, "Web")
}

// An organization that identity no longer has is in nobody's way.
func TestAnOrganizationThatIsPurgedIsForgotten(t *testing.T) {
	c := newChain(t, 3)
	role := c.role("Web")
	c.must(c.give("house2", "uma", role))
	remove := func() error {
		req := &pb.DeleteBrandRoleRequest{Id: role}
		e, err := c.deleteOfBrand(c.at("house0"), boss(), req)
		c.must(err)
		return errOf(makeBrandEdit(c.at("house0"), e, req, func(r *pb.Role) *pb.DeleteBrandRoleResponse { return &pb.DeleteBrandRoleResponse{Role: r} }))
	}
	if err := remove(); err == nil {
		t.Error("what somebody has was deleted")
	}
	c.group.houses = c.group.houses[:2]
	c.must(remove())
	if members, err := c.membersOf(c.at("house0"), "brand"); err != nil || !slices.Equal(members, c.group.houses) {
		t.Errorf("members: %q, %v", members, err)
	}
}

// An organization that came into another brand keeps what its people have, by roles that are its
// own from then on, and offers what its new brand does; one that came back has what its
// brand changed meanwhile.
func TestAnOrganizationSettlesInItsBrand(t *testing.T) {
	c := newChain(t, 3)
	role := c.role("Web", "Calendar")
	c.must(c.give("house1", "uma", role))
	c.must(c.edit("house1", func(l *loader) error { return l.createRole(boss(), &pb.Role{Id: "own", Name: "Desk"}) }))
	c.must(c.edit("other brand", func(l *loader) error {
		return roles.Put(l.tx, &pb.Role{Id: "theirs", BrandId: "other brand", Name: "Night"})
	}))
	c.must(c.edit("house2", func(l *loader) error {
		r, _ := roles.Get(l.tx, role)
		r.Keys = []string{"Web"}
		return roles.Put(l.tx, r)
	}))
	c.group.moved = map[string]string{"house1": "other brand"}
	for range 2 { // the second changes nothing
		c.must(c.settleAll(t.Context()))
	}
	want := map[string]string{"own": "Desk", role: "Desk 2", "theirs": "Night of other brand"}
	got := map[string]string{}
	c.must(c.db.View(c.at("house1"), func(tx *store.Tx) error {
		for r := range roles.All(tx) {
			got[r.GetId()] = r.GetName()
			if r.GetBrandId() != "" {
				got[r.GetId()] += " of " + r.GetBrandId()
			}
		}
		return nil
	}))
	if !maps.Equal(got, want) || !c.keyOf("house1", "uma", "Calendar") {
		t.Errorf("in another brand: got %v, want %v", got, want)
	}
	c.must(c.db.View(c.at("house2"), func(tx *store.Tx) error {
		if r, _ := roles.Get(tx, role); !slices.Equal(r.GetKeys(), []string{"Calendar", "Web"}) {
			t.Errorf("what the brand changed meanwhile: %v", r)
		}
		return nil
	}))
	e := c.update(updateRequest(role, "Web"))
	c.must(e.hold(c.at("house0")))
	c.must(c.edit("house2", func(l *loader) error {
		r, _ := roles.Get(l.tx, role)
		r.Description = "while an edit goes on"
		return roles.Put(l.tx, r)
	}))
	c.must(c.settleAll(t.Context()))
	c.must(c.db.View(c.at("house2"), func(tx *store.Tx) error {
		if r, _ := roles.Get(tx, role); r.GetDescription() == "" {
			t.Error("it settled while an edit went on")
		}
		return nil
	}))
}

// An organization that was elsewhere while its brand deleted a role keeps it as its own if somebody
// has it, so that nobody loses what he may do unseen.
func TestAnOrganizationKeepsARoleThatItsBrandDeleted(t *testing.T) {
	c := newChain(t, 2)
	role := c.role("Web", "Calendar")
	c.must(c.give("house1", "uma", role))
	c.must(c.edit("brand", func(l *loader) error {
		r, _ := roles.Get(l.tx, role)
		r.DeleteTime, r.PurgeTime = timestamppb.New(l.now), timestamppb.New(l.now.Add(purgeAfter))
		return roles.Put(l.tx, r)
	}))
	etags := map[string]bool{}
	for range 2 { // the second changes nothing
		c.must(c.settleAll(t.Context()))
		for house, own := range map[string]bool{"house0": false, "house1": true} {
			c.must(c.db.View(c.at(house), func(tx *store.Tx) error {
				r, _ := roles.Get(tx, role)
				etags[r.GetEtag()] = true
				if (r.GetBrandId() == "") != own || (r.GetDeleteTime() == nil) != own || r.GetName() != "Desk" {
					t.Errorf("in %s: got %v, want it the organization's own: %t, and else deleted", house, r, own)
				}
				return nil
			}))
		}
	}
	if !c.keyOf("house1", "uma", "Calendar") || len(etags) != 2 {
		t.Errorf("uma may use the calendar: %t; the role had the etags %v", c.keyOf("house1", "uma", "Calendar"), etags)
	}
}
