package permissions_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/servertest"
)

func (s *suite) owners() pb.OwnerServiceClient { return pb.NewOwnerServiceClient(s.conn) }

func (p *person) listOwners() []*pb.Owner {
	p.t.Helper()
	var all []*pb.Owner
	req := &pb.ListOrganizationOwnersRequest{PageSize: 1}
	for {
		resp, err := p.owners().ListOrganizationOwners(p.ctx(), req)
		mustNot(p.t, err)
		all = append(all, resp.GetOwners()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return all
		}
	}
}

func (p *person) transfer(to, role string) (*pb.TransferOrganizationOwnershipResponse, error) {
	return p.owners().TransferOrganizationOwnership(p.ctx(), &pb.TransferOrganizationOwnershipRequest{UserId: to, RoleId: role})
}

// robot makes a service account with a role.
func (p *person) robot(role string) string {
	p.t.Helper()
	resp, err := identitypb.NewServiceAccountServiceClient(p.conn).CreateServiceAccount(p.ctx(),
		&identitypb.CreateServiceAccountRequest{DisplayName: "robot"})
	mustNot(p.t, err)
	_, err = p.access().SetUserRole(p.ctx(), &pb.SetUserRoleRequest{UserId: resp.GetUser().GetId(), RoleId: role})
	mustNot(p.t, err)
	return resp.GetUser().GetId()
}

func TestListOrganizationOwners(t *testing.T) {
	owner := start(t)
	second := owner.add("otto", "OW")
	mustNot(t, owner.override(owner.add("ada", "US"), "Organization: Owner", pb.Effect_EFFECT_DENY))
	without := owner.add("una", "OW")
	mustNot(t, owner.override(without, "Organization: Users", pb.Effect_EFFECT_DENY))
	owner.robot("OW")
	gone := owner.add("gustav", "OW")
	_, err := identitypb.NewUserServiceClient(owner.conn).DeactivateUser(owner.ctx(), &identitypb.DeactivateUserRequest{Id: gone})
	mustNot(t, err)
	got := map[string]*pb.Owner{}
	for _, o := range owner.listOwners() {
		got[o.GetUserId()] = o
	}
	for id, want := range map[string]*pb.Owner{
		owner.id: {UserId: owner.id, DisplayName: "Olga Owner", Email: "olga@example.com", Active: true, Sufficient: true},
		second:   {UserId: second, DisplayName: "otto", Email: "otto@example.com", Active: true, Sufficient: true},
		without:  {UserId: without, DisplayName: "una", Email: "una@example.com", Active: true},
		gone:     {UserId: gone, DisplayName: "gustav", Email: "gustav@example.com"},
	} {
		same(t, "owner "+want.GetDisplayName(), got[id], want)
	}
	if len(got) != 4 {
		t.Errorf("got %v, want four owners", got)
	}
	_, err = owner.hire("admin", "OA").owners().ListOrganizationOwners(owner.ctx(), &pb.ListOrganizationOwnersRequest{PageToken: "x"})
	check(t, "a page of nothing", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}

func TestTransferOrganizationOwnership(t *testing.T) {
	owner := start(t)
	admin, next := owner.hire("admin", "OA"), owner.hire("nora", "PM")
	_, err := admin.owners().ListOrganizationOwners(admin.ctx(), &pb.ListOrganizationOwnersRequest{})
	check(t, "a list for who is none", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Owner")
	_, err = admin.transfer(next.id, "")
	check(t, "by who is none", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Owner")
	for what, x := range map[string]struct {
		to, role string
		code     codes.Code
		reason   string
	}{
		"to nobody":              {servertest.UUID(1), "", codes.NotFound, "RECORD_NOT_FOUND"},
		"to oneself":             {owner.id, "", codes.InvalidArgument, "FIELD_INVALID"},
		"to a service account":   {owner.robot("OA"), "", codes.InvalidArgument, "FIELD_INVALID"},
		"for no role":            {next.id, "XX", codes.NotFound, "RECORD_NOT_FOUND"},
		"for the role of owners": {next.id, "OW", codes.InvalidArgument, "FIELD_INVALID"},
	} {
		_, err := owner.transfer(x.to, x.role)
		check(t, what, err, x.code, x.reason)
	}
	gone := owner.add("gustav", "OW")
	_, err = identitypb.NewUserServiceClient(owner.conn).DeactivateUser(owner.ctx(), &identitypb.DeactivateUserRequest{Id: gone})
	mustNot(t, err)
	_, err = owner.transfer(gone, "")
	check(t, "to who is deactivated", err, codes.NotFound, "RECORD_NOT_FOUND")
	mustNot(t, owner.override(next.id, "Organization: Users", pb.Effect_EFFECT_DENY))
	_, err = owner.transfer(next.id, "")
	check(t, "to who is denied what owners need", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = owner.access().ClearOverride(owner.ctx(), &pb.ClearOverrideRequest{UserId: next.id, Key: "Organization: Users"})
	mustNot(t, err)

	before := owner.stored(owner.id)
	dry, err := owner.owners().TransferOrganizationOwnership(owner.ctx(), &pb.TransferOrganizationOwnershipRequest{UserId: next.id, ValidateOnly: true})
	mustNot(t, err)
	same(t, "after a call that only validates", owner.stored(owner.id), before)
	if dry.GetOwner().GetRoleId() != "OW" {
		t.Errorf("a call that only validates: got %v", dry)
	}
	resp, err := owner.transfer(next.id, "")
	mustNot(t, err)
	if o, f := resp.GetOwner(), resp.GetFormer(); o.GetId() != next.id || o.GetRoleId() != "OW" || f.GetId() != owner.id || f.GetRoleId() != "OA" || len(f.GetOverrides()) != 0 {
		t.Errorf("got %v", resp)
	}
	keys := func(overrides []*pb.Override) (keys []string) {
		for _, o := range overrides {
			keys = append(keys, o.GetKey())
		}
		return keys
	}
	if got, want := keys(resp.GetOwner().GetOverrides()), keys(before.GetOverrides()); !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("the new owner got the overrides %q, want %q", got, want)
	}
	if got := next.listOwners(); !slices.ContainsFunc(got, func(o *pb.Owner) bool { return o.GetUserId() == next.id && o.GetSufficient() }) ||
		slices.ContainsFunc(got, func(o *pb.Owner) bool { return o.GetUserId() == owner.id }) {
		t.Errorf("the owners afterwards: got %v", got)
	}
	_, err = owner.transfer(next.id, "")
	check(t, "by the former owner", err, codes.PermissionDenied, "GRANT_MISSING")
	// The new owner may change the former one, and not the other way round.
	_, err = next.access().SetUserRole(next.ctx(), &pb.SetUserRoleRequest{UserId: owner.id, RoleId: "US"})
	mustNot(t, err)
	_, err = admin.access().SetUserRole(admin.ctx(), &pb.SetUserRoleRequest{UserId: next.id, RoleId: "US"})
	check(t, "an admin changes the owner", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
}

// SECURITY: to hand the organization over takes the person, and a fresh proof.
func TestTransferTakesTheOwnerHimself(t *testing.T) {
	owner := start(t)
	next := owner.add("nora", "OA")
	key, err := identitypb.NewApiKeyServiceClient(owner.conn).CreateApiKey(owner.ctx(), &identitypb.CreateApiKeyRequest{
		Name: "x", Scopes: []string{"Organization", "Organization: Owner"},
	})
	mustNot(t, err)
	program := *owner
	program.token = key.GetToken()
	_, err = program.transfer(next, "")
	check(t, "by an API key", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	second := owner.add("otto", "OW")
	acting, err := identitypb.NewImpersonationServiceClient(owner.conn).ImpersonateUser(owner.ctx(), &identitypb.ImpersonateUserRequest{UserId: second, Reason: "help"})
	mustNot(t, err)
	program.token = acting.GetToken()
	_, err = program.transfer(next, "")
	check(t, "by who acts for an owner", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	owner.clock.forward(11 * time.Minute)
	_, err = owner.transfer(next, "")
	check(t, "with an old proof", err, codes.FailedPrecondition, "STEP_UP_NEEDED", "max_age", "600")
	fresh := owner.signIn(owner.organization, identitypb.Surface_SURFACE_WEB)
	_, err = fresh.transfer(next, "")
	mustNot(t, err)
}

// SECURITY: nobody is made the last owner who is being removed, and was none when that was
// asked.
func TestTransferToWhoLeaves(t *testing.T) {
	owner := start(t)
	heir := owner.add("nora", "OA")
	_, err := owner.grants().CheckRemovable(owner.inside(owner.organization), &pb.CheckRemovableRequest{UserId: heir})
	mustNot(t, err)
	_, err = owner.transfer(heir, "")
	check(t, "to who is about to be removed", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	owner.clock.forward(time.Minute)
	_, err = owner.transfer(heir, "")
	mustNot(t, err)
}

// Of two who hand over to each other at once, or to a third, one is refused or later, and an
// owner is there afterwards.
func TestTransfersAtOnce(t *testing.T) {
	owner := start(t)
	second := owner.hire("otto", "OW")
	var both sync.WaitGroup
	for from, to := range map[*person]string{owner: second.id, second: owner.id} {
		both.Go(func() { _, _ = from.transfer(to, "US") })
	}
	both.Wait()
	owners := 0
	for _, p := range []*person{owner, second} {
		if p.holds("Organization: Owner").GetAllowed() {
			owners++
		}
	}
	if owners == 0 {
		t.Error("nobody owns the organization any more")
	}
}

// Who holds the key now, and what the history says of both, agree with what was handed over.
func TestTransferIsToldOfBoth(t *testing.T) {
	owner := start(t)
	next := owner.hire("nora", "PM")
	_, err := owner.transfer(next.id, "")
	mustNot(t, err)
	var holders []string
	resp, err := next.analysis().ListHolders(next.ctx(), &pb.ListHoldersRequest{Question: &pb.ListHoldersRequest_Grant{Grant: "Organization: Owner"}})
	mustNot(t, err)
	for _, h := range resp.GetHolders() {
		holders = append(holders, h.GetUserId())
	}
	if !slices.Equal(holders, []string{next.id}) {
		t.Errorf("the key is held by %q, want the new owner %q", holders, next.id)
	}
	for _, user := range []string{owner.id, next.id} {
		resp, err := next.analysis().ListAccessChanges(next.ctx(), &pb.ListAccessChangesRequest{UserId: &user, PageSize: 1})
		mustNot(t, err)
		c := resp.GetChanges()[0]
		keys := c.GetGained()
		if user == owner.id {
			keys = c.GetLost()
		}
		if p := c.GetProvenance(); p.GetAuthor() != owner.id || !strings.HasSuffix(p.GetMethod(), "TransferOrganizationOwnership") || !slices.Contains(keys, "Organization: Owner") {
			t.Errorf("the last change of %s: got %v", user, c)
		}
	}
}

// A repeat hands nothing over once more, though the organization was handed back meanwhile.
func TestTransferRepeated(t *testing.T) {
	owner := start(t)
	next := owner.hire("nora", "PM")
	req := &pb.TransferOrganizationOwnershipRequest{RequestId: servertest.UUID(7), UserId: next.id}
	first, err := owner.owners().TransferOrganizationOwnership(owner.ctx(), req)
	mustNot(t, err)
	_, err = owner.owners().TransferOrganizationOwnership(owner.ctx(), req)
	check(t, "a repeat by who may not any more", err, codes.PermissionDenied, "GRANT_MISSING")
	_, err = next.transfer(owner.id, "")
	mustNot(t, err)
	before := owner.stored(owner.id)
	again, err := owner.owners().TransferOrganizationOwnership(owner.ctx(), req)
	mustNot(t, err)
	same(t, "the repeat", again, first)
	same(t, "after the repeat", owner.stored(owner.id), before)
}
