package permissions

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

var long = flag.Bool("long", false, "run what takes minutes in full: more changes, a million users")

// everyone is an identity and a scheduling service for which everybody is an active
// member and an agent.
type everyone struct {
	identitypb.UserServiceClient
	schedulingpb.ServiceAgentServiceClient
}

func (everyone) LookupMembers(_ context.Context, req *identitypb.LookupMembersRequest, _ ...grpc.CallOption) (*identitypb.LookupMembersResponse, error) {
	resp := &identitypb.LookupMembersResponse{}
	for _, id := range req.GetUserIds() {
		resp.Members = append(resp.Members, &identitypb.Member{UserId: id})
	}
	return resp, nil
}

func (everyone) LookupServiceAgent(context.Context, *schedulingpb.LookupServiceAgentRequest, ...grpc.CallOption) (*schedulingpb.LookupServiceAgentResponse, error) {
	return &schedulingpb.LookupServiceAgentResponse{ServiceAgentId: "agent"}, nil
}

// company is an archive with many users and a service over it.
type company struct {
	*archive
	*service
	gate   *gate
	grants []catalog.Bit // every key and boolean setting
}

func newCompany(t testing.TB, users int) *company {
	t.Helper()
	c := &company{archive: newArchive(t, 7)}
	c.service = &service{db: c.archive.db, clock: func() time.Time { return c.archive.now }, users: everyone{}, agent: everyone{}}
	group := &groupOfHouses{houses: []string{store.OriginOf(c.archive.ctx).Tenant}}
	c.service.organizations, c.service.brands, c.service.newID = group, group, func() string { return "an edit" }
	for i := len(c.archive.walk.users); i < users; i++ {
		id := fmt.Sprintf("user%03d", i)
		c.archive.walk.users = append(c.archive.walk.users, id)
		c.active[id] = true
	}
	c.update(func(tx *store.Tx) error {
		for _, id := range c.archive.walk.users[1:] {
			u := newLoader(tx).user(id)
			u.RoleId = pick(c.walk, []string{"OA", "US", "SW", "SA", "PM", "PM+", "SP", "BA", c.roles[3], c.roles[4], ""})
			u.RegionalManager = c.IntN(5) == 0
			if c.IntN(3) == 0 {
				u.GroupId = pick(c.walk, c.archive.walk.groups)
			}
			if err := accesses.Put(tx, u); err != nil {
				return err
			}
		}
		return nil
	})
	c.offerRole("the brand's role")
	c.gate = newGate(c)
	for _, k := range allKeys {
		c.grants = append(c.grants, k.Bit())
	}
	for n, b := range settingBits {
		if n > 0 && boolSettings.has(n) {
			c.grants = append(c.grants, b)
		}
	}
	return c
}

// offerRole makes a role of the brand, which some have.
func (c *company) offerRole(id string) {
	r := &pb.Role{Id: id, BrandId: "brand", Name: id, Keys: c.someKeys()}
	for _, ctx := range []context.Context{c.archive.ctx, inBrand(c.archive.ctx, "brand")} {
		if err := c.archive.db.Update(ctx, func(tx *store.Tx) error { return roles.Put(tx, proto.CloneOf(r)) }); err != nil {
			c.t.Fatal(err)
		}
	}
	c.roles = append(c.roles, id)
	c.update(func(tx *store.Tx) error {
		for _, user := range c.archive.walk.users[1:min(20, len(c.archive.walk.users))] {
			u := newLoader(tx).user(user)
			u.RoleId = id
			if err := accesses.Put(tx, u); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *company) sets() (all map[string]catalog.Set) {
	c.view(func(tx *store.Tx) { all = newLoader(tx).everybody(c.archive.walk.users) })
	return all
}

// values returns everybody's settings that are not boolean.
func (c *company) values() map[string]*pb.EffectiveSettings {
	c.t.Helper()
	all := map[string]*pb.EffectiveSettings{}
	for _, user := range c.archive.walk.users {
		resp, err := c.ResolveGrants(c.archive.ctx, &pb.ResolveGrantsRequest{UserId: user})
		if err != nil {
			c.t.Fatal(err)
		}
		all[user] = resp.GetSettings()
	}
	return all
}

// anyChange returns a random change.
func (c *company) anyChange() *pb.PreviewChangeRequest {
	req := &pb.PreviewChangeRequest{PageSize: 500}
	user, key := pick(c.walk, c.archive.walk.users[1:]), pick(c.walk, allKeys).Name
	own := c.roles[3:]
	switch c.IntN(10) {
	case 0:
		req.Change = &pb.PreviewChangeRequest_SetUserRole{SetUserRole: &pb.SetUserRoleRequest{UserId: user, RoleId: pick(c.walk, c.roles)}}
	case 1:
		req.Change = &pb.PreviewChangeRequest_SetUserGroup{SetUserGroup: &pb.SetUserGroupRequest{UserId: user, GroupId: pick(c.walk, append(c.archive.walk.groups, ""))}}
	case 2:
		req.Change = &pb.PreviewChangeRequest_ClearOverride{ClearOverride: &pb.ClearOverrideRequest{UserId: user, Key: key}}
	case 3:
		req.Change = &pb.PreviewChangeRequest_UpdateRole{UpdateRole: &pb.UpdateRoleRequest{
			Role: &pb.Role{Id: pick(c.walk, own), Keys: c.someKeys(), Settings: c.settings()}, UpdateMask: maskOfFields("keys", "settings"),
		}}
	case 4:
		req.Change = &pb.PreviewChangeRequest_UpdateGroup{UpdateGroup: &pb.UpdateGroupRequest{
			Group:      &pb.Group{Id: pick(c.walk, c.archive.walk.groups), RoleId: pick(c.walk, c.roles), Grants: c.someKeys(), Denies: c.someKeys(), Settings: c.settings()},
			UpdateMask: maskOfFields(pick(c.walk, []string{"role_id", "grants", "denies", "settings"})),
		}}
	case 5:
		req.Change = &pb.PreviewChangeRequest_UpdateBrandRole{UpdateBrandRole: &pb.UpdateBrandRoleRequest{
			Role: &pb.Role{Id: "the brand's role", Keys: c.someKeys(), Settings: c.settings()}, UpdateMask: maskOfFields("keys", "settings"),
		}}
	case 6:
		req.Change = &pb.PreviewChangeRequest_UpdateBillingPlan{UpdateBillingPlan: &pb.UpdateBillingPlanRequest{
			Plan: &pb.Plan{Features: []string{pick(c.walk, featureNames()), pick(c.walk, featureNames())}}, UpdateMask: maskOfFields("features"),
		}}
	default:
		if c.IntN(20) == 0 {
			req.Change = &pb.PreviewChangeRequest_EndOfMembership{EndOfMembership: &pb.EndOfMembership{UserId: user}}
			return req
		}
		o := &pb.SetOverrideRequest{UserId: user, Key: key, Effect: pb.Effect(1 + c.IntN(2)), Reason: "because"}
		if c.IntN(2) == 0 {
			o.ExpireTime = timestamppb.New(c.now.Add(time.Duration(1+c.IntN(300)) * time.Minute))
		}
		req.Change = &pb.PreviewChangeRequest_SetOverride{SetOverride: o}
	}
	return req
}

func (c *company) someKeys() (keys []string) {
	for range c.IntN(20) {
		keys = append(keys, pick(c.walk, allKeys).Name)
	}
	return keys
}

func maskOfFields(paths ...string) *fieldmaskpb.FieldMask {
	return &fieldmaskpb.FieldMask{Paths: paths}
}

// change previews a change, makes it, and compares. It returns false if it was refused.
func (c *company) change(req *pb.PreviewChangeRequest) bool {
	c.t.Helper()
	before, was := c.sets(), c.values()
	var told *pb.PreviewChangeResponse
	d, err := c.draftOf(c.archive.ctx, c.owner(), req)
	if err == nil {
		told, err = store.Do(c.archive.ctx, c.archive.db, dry, func(tx *store.Tx) (*pb.PreviewChangeResponse, error) { return d.preview(tx, req) })
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return false
	}
	if err != nil {
		c.t.Fatalf("%v: %v", req, err)
	}
	if after := c.sets(); fmt.Sprint(after) != fmt.Sprint(before) {
		c.t.Fatalf("the preview of %v changed something", req)
	}
	c.update(func(tx *store.Tx) error { return d.apply(newLoader(tx)) })
	c.gate.changed(c.t)
	after, is := c.sets(), c.values()
	var want []*pb.AccessDifference
	for _, user := range slices.Sorted(slices.Values(c.archive.walk.users)) {
		if d := differenceOf(user, before[user], after[user], was[user], is[user]); d != nil {
			want = append(want, d)
		}
	}
	if got := (&pb.PreviewChangeResponse{Differences: told.GetDifferences()}); !proto.Equal(got, &pb.PreviewChangeResponse{Differences: want}) {
		c.t.Fatalf("%v:\ntold %v\ndid  %v", req, got, want)
	}
	return true
}

// differenceOf is the difference of two sets and of settings, by walking through all there is.
func differenceOf(user string, before, after catalog.Set, was, is *pb.EffectiveSettings) *pb.AccessDifference {
	d := &pb.AccessDifference{UserId: user}
	if !proto.Equal(was, is) {
		d.SettingsBefore, d.SettingsAfter = was, is
	}
	for b := range before.Union(after).All() {
		switch {
		case allFeatures.Has(b):
		case after.Has(b) && !before.Has(b):
			d.Gained = append(d.Gained, b.String())
		case before.Has(b) && !after.Has(b):
			d.Lost = append(d.Lost, b.String())
		}
	}
	for name, m := range methods {
		if m.Asks().Empty() {
			continue
		}
		switch can, could := m.Permits(after), m.Permits(before); {
		case can && !could:
			d.GainedMethods = append(d.GainedMethods, name)
		case could && !can:
			d.LostMethods = append(d.LostMethods, name)
		}
	}
	slices.Sort(d.GainedMethods)
	slices.Sort(d.LostMethods)
	if proto.Equal(d, &pb.AccessDifference{UserId: user}) {
		return nil
	}
	return d
}

// TestAllAnswersAgree makes random changes in a company of 200, and after each compares what all the
// questions are answered, about every user and key. Without -long it does so after each fifth,
// and asks why and who of some. What a preview told is compared after each.
func TestAllAnswersAgree(t *testing.T) {
	changes := 100
	switch {
	case *long:
		changes = 1000
	case testing.Short():
		changes = 15
	}
	c := newCompany(t, 200)
	made := 0
	for i := 0; made < changes; i++ {
		if i > 10*changes {
			t.Fatalf("only %d of %d changes were let through", made, i)
		}
		c.now = c.now.Add(time.Duration(c.IntN(60)) * time.Minute)
		if c.change(c.anyChange()) {
			if made++; *long || made%5 == 0 {
				c.agree()
			}
		}
	}
}

// agree holds every answer against the evaluation: as what was remembered before has it,
// then with nothing remembered, and again with that.
func (c *company) agree() {
	c.t.Helper()
	sets := c.sets()
	c.agreeGate(sets)
	c.agreeBatch(sets)
	c.forget()
	c.agreeGate(sets)
	c.agreeBatch(sets)
	c.agreeEffective(sets)
	for _, user := range drawn(c, 5, c.archive.walk.users) {
		c.agreeWhy(sets, user)
	}
	for _, b := range drawn(c, 20, c.grants) {
		c.agreeWho(sets, &pb.ListHoldersRequest{Question: &pb.ListHoldersRequest_Grant{Grant: b.String()}}, func(s catalog.Set) bool { return s.Has(b) })
	}
	for _, name := range drawn(c, 5, askingMethods) {
		c.agreeWho(sets, &pb.ListHoldersRequest{Question: &pb.ListHoldersRequest_Method{Method: name}}, methods[name].Permits)
	}
}

// drawn returns n of all, drawn at random, and with -long all.
func drawn[T any](c *company, n int, all []T) []T {
	if *long {
		return all
	}
	few := make([]T, n)
	for i := range few {
		few[i] = pick(c.walk, all)
	}
	return few
}

func (c *company) agreeEffective(sets map[string]catalog.Set) {
	for user, want := range sets {
		resp, err := c.GetEffectiveAccess(c.archive.ctx, &pb.GetEffectiveAccessRequest{UserId: &user})
		if err != nil {
			c.t.Fatal(err)
		}
		for i, k := range resp.GetKeys() {
			if k.GetAllowed() != want.Has(allKeys[i].Bit()) {
				c.t.Fatalf("effective access of %s: %v", user, k)
			}
		}
		resolved, err := c.ResolveGrants(c.archive.ctx, &pb.ResolveGrantsRequest{UserId: user})
		if got, bad := catalog.SetFromBytes(resolved.GetGrants()); err != nil || bad != nil || got != want {
			c.t.Fatalf("grants of %s: %v, %v %v, want %v", user, keyNames(got), err, bad, keyNames(want))
		}
	}
}

func (c *company) agreeBatch(sets map[string]catalog.Set) {
	type pair struct {
		user string
		bit  catalog.Bit
	}
	var pairs []pair
	for user := range sets {
		for _, b := range c.grants {
			pairs = append(pairs, pair{user, b})
		}
	}
	for some := range slices.Chunk(pairs, 1000) {
		req := &pb.BatchCheckRequest{}
		for _, p := range some {
			req.Evaluations = append(req.Evaluations, &pb.Evaluation{UserId: &p.user, Grant: p.bit.String()})
		}
		resp, err := c.BatchCheck(c.archive.ctx, req)
		if err != nil {
			c.t.Fatal(err)
		}
		for i, e := range resp.GetEvaluations() {
			if e.GetAllowed() != sets[some[i].user].Has(some[i].bit) {
				c.t.Fatalf("batch: %s of %s: %v", some[i].bit, some[i].user, e)
			}
		}
		for i, e := range resp.GetEvaluations() {
			if !*long && i%20 != 0 {
				continue
			}
			one, err := c.Check(c.archive.ctx, &pb.CheckRequest{UserId: req.Evaluations[i].UserId, Grant: req.Evaluations[i].GetGrant()})
			if err != nil || one.GetAllowed() != e.GetAllowed() || one.GetLayer() != e.GetLayer() {
				c.t.Fatalf("check: %v, %v, batch: %v", one, err, e)
			}
		}
	}
}

func (c *company) agreeWhy(sets map[string]catalog.Set, user string) {
	for _, b := range c.grants {
		resp, err := c.ExplainAccess(c.archive.ctx, &pb.ExplainAccessRequest{UserId: &user, Question: &pb.ExplainAccessRequest_Grant{Grant: b.String()}})
		if err != nil || resp.GetAllowed() != sets[user].Has(b) || len(resp.GetGrant().GetFlips()) == 0 {
			c.t.Fatalf("why %s of %s: %v, %v", b, user, resp, err)
		}
	}
	for range 5 {
		name := pick(c.walk, askingMethods)
		resp, err := c.ExplainAccess(c.archive.ctx, &pb.ExplainAccessRequest{UserId: &user, Question: &pb.ExplainAccessRequest_Method{Method: name}})
		if err != nil || resp.GetAllowed() != methods[name].Permits(sets[user]) {
			c.t.Fatalf("why %s of %s: %v, %v", name, user, resp, err)
		}
	}
}

// agreeWho pages through the holders, now and, as the same, of this very instant.
func (c *company) agreeWho(sets map[string]catalog.Set, req *pb.ListHoldersRequest, holds func(catalog.Set) bool) {
	var want []string
	for _, user := range slices.Sorted(slices.Values(c.archive.walk.users)) {
		if holds(sets[user]) {
			want = append(want, user)
		}
	}
	req.PageSize = int32(50 + c.IntN(300))
	if got := c.holders(req); !slices.Equal(got, want) {
		c.t.Fatalf("%v: got %v, want %v", req, got, want)
	}
	if c.IntN(10) == 0 {
		req.AsOfTime = timestamppb.New(c.now)
		if got := c.holders(req); !slices.Equal(got, want) {
			c.t.Fatalf("%v: got %v, want %v", req, got, want)
		}
	}
}

func (c *company) holders(req *pb.ListHoldersRequest) (ids []string) {
	c.t.Helper()
	req.PageToken = ""
	for {
		resp, err := c.ListHolders(c.archive.ctx, req)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, h := range resp.GetHolders() {
			ids = append(ids, h.GetUserId())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return ids
		}
	}
}
