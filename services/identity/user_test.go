package identity_test

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/servertest"
)

const (
	active      = pb.UserState_USER_STATE_ACTIVE
	deactivated = pb.UserState_USER_STATE_DEACTIVATED
)

func TestCreateUser(t *testing.T) {
	owner := owned(t)
	req := &pb.CreateUserRequest{
		RequestId: servertest.UUID(1), Email: " Ada@Example.com ", DisplayName: "Ada Byron", InitialPassword: "to be changed soon",
	}
	dry := proto.CloneOf(req)
	dry.ValidateOnly = true
	_, err := owner.users().CreateUser(owner.ctx(), dry)
	mustNot(t, err)
	resp, err := owner.users().CreateUser(owner.ctx(), req)
	mustNot(t, err)
	u := resp.GetUser()
	same(t, "user", u, &pb.User{
		Id: u.GetId(), Etag: u.GetEtag(), CreateTime: u.GetCreateTime(), UpdateTime: u.GetCreateTime(),
		OrganizationId: owner.user.GetOrganizationId(), Email: "ada@example.com", DisplayName: "Ada Byron", State: active,
		AvailableActions: []*typepb.AvailableAction{
			{Method: "latchkey.identity.v1.UserService/UpdateUser", Allowed: true},
			{Method: "latchkey.identity.v1.UserService/DeactivateUser", Allowed: true},
			{
				Method: "latchkey.identity.v1.UserService/ReactivateUser", Reason: "STATE_FORBIDS",
				Explanation: "only in state DEACTIVATED",
			},
			{Method: "latchkey.identity.v1.UserService/EndMembership", Allowed: true},
		},
	})
	again, err := owner.users().CreateUser(owner.ctx(), req)
	mustNot(t, err)
	same(t, "repeat", again, resp)
	got, err := owner.users().GetUser(owner.ctx(), &pb.GetUserRequest{Id: u.GetId()})
	mustNot(t, err)
	same(t, "get", got.GetUser(), u)
	_, err = owner.users().CreateUser(owner.ctx(), &pb.CreateUserRequest{Email: "ADA@example.com", DisplayName: "Another"})
	check(t, "the address again", err, codes.AlreadyExists, "RECORD_EXISTS")
}

func TestCreateUserRefuses(t *testing.T) {
	owner := owned(t)
	for field, req := range map[string]*pb.CreateUserRequest{
		"email":            {Email: "ada at example.com", DisplayName: "Ada"},
		"display_name":     {Email: "ada@example.com", DisplayName: " \t"},
		"initial_password": {Email: "ada@example.com", DisplayName: "Ada", InitialPassword: "short"},
		"request_id":       {Email: "ada@example.com", DisplayName: "Ada", RequestId: "one"},
	} {
		_, err := owner.users().CreateUser(owner.ctx(), req)
		checkField(t, field, err, field)
	}
	clerk := owner.hire("clerk", "US")
	_, err := owner.users().CreateUser(clerk.ctx(), &pb.CreateUserRequest{Email: "no address"})
	check(t, "without the key, and malformed", err, codes.PermissionDenied, "GRANT_MISSING")
}

func TestListUsers(t *testing.T) {
	owner := owned(t)
	for i := range 5 {
		owner.add(fmt.Sprintf("user%d", i), "")
	}
	list := func(req *pb.ListUsersRequest) (names []string, next string) {
		t.Helper()
		resp, err := owner.users().ListUsers(owner.ctx(), req)
		mustNot(t, err)
		for _, u := range resp.GetUsers() {
			names = append(names, u.GetDisplayName())
		}
		return names, resp.GetNextPageToken()
	}
	names, next := list(&pb.ListUsersRequest{PageSize: 4})
	if got, want := fmt.Sprint(names), "[Olga Owner user0 user1 user2]"; got != want {
		t.Errorf("first page: got %s, want %s", got, want)
	}
	names, next2 := list(&pb.ListUsersRequest{PageSize: 4, PageToken: next})
	if got, want := fmt.Sprint(names), "[user3 user4]"; got != want || next2 != "" {
		t.Errorf("last page: got %s and %q, want %s", got, next2, want)
	}
	names, _ = list(&pb.ListUsersRequest{Filter: `email = "user3@example.com"`})
	if got, want := fmt.Sprint(names), "[user3]"; got != want {
		t.Errorf("by address: got %s, want %s", got, want)
	}
	_, err := owner.users().ListUsers(owner.ctx(), &pb.ListUsersRequest{Filter: "state = ACTIVE", PageToken: next})
	check(t, "the token of another request", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	_, err = owner.users().ListUsers(owner.ctx(), &pb.ListUsersRequest{Filter: "state ="})
	checkField(t, "half a filter", err, "filter")
}

func TestUpdateUser(t *testing.T) {
	owner := owned(t)
	ada := owner.add("ada", "US").user
	update := func(u *pb.User, paths ...string) (*pb.User, error) {
		req := &pb.UpdateUserRequest{User: u}
		if paths != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
		}
		resp, err := owner.users().UpdateUser(owner.ctx(), req)
		return resp.GetUser(), err
	}
	got, err := update(&pb.User{Id: ada.GetId(), Etag: ada.GetEtag(), DisplayName: "Ada Lovelace"}, "display_name")
	mustNot(t, err)
	want := proto.CloneOf(ada)
	want.DisplayName, want.Etag, want.UpdateTime = "Ada Lovelace", got.GetEtag(), got.GetUpdateTime()
	same(t, "update", got, want)
	_, err = update(&pb.User{Id: ada.GetId(), Etag: ada.GetEtag(), DisplayName: "Ada"})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = update(&pb.User{Id: ada.GetId(), Email: "other@example.com"}, "email")
	checkField(t, "the address", err, "update_mask")
	_, err = update(&pb.User{Id: ada.GetId(), State: deactivated}, "state")
	checkField(t, "the state", err, "update_mask")
	_, err = update(&pb.User{Id: ada.GetId()}, "display_name")
	checkField(t, "no name", err, "user.display_name")
	_, err = update(&pb.User{Id: servertest.UUID(7), DisplayName: "X"})
	check(t, "an unknown user", err, codes.NotFound, "RECORD_NOT_FOUND")
}

// TestStates walks the state table: every action from every state.
func TestStates(t *testing.T) {
	owner := owned(t)
	users, ctx := owner.users(), owner.ctx()
	deactivate := func(id, etag string) error {
		_, err := users.DeactivateUser(ctx, &pb.DeactivateUserRequest{Id: id, Etag: etag})
		return err
	}
	reactivate := func(id, etag string) error {
		_, err := users.ReactivateUser(ctx, &pb.ReactivateUserRequest{Id: id, Etag: etag})
		return err
	}
	end := func(id, etag string) error {
		_, err := users.EndMembership(ctx, &pb.EndMembershipRequest{Id: id, Etag: etag})
		return err
	}
	id := owner.add("ada", "US").user.GetId()
	state := func(want pb.UserState) {
		t.Helper()
		resp, err := users.GetUser(ctx, &pb.GetUserRequest{Id: id})
		mustNot(t, err)
		if got := resp.GetUser().GetState(); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	check(t, "reactivate an active user", reactivate(id, ""), codes.FailedPrecondition, "STATE_FORBIDS")
	check(t, "deactivate an old version", deactivate(id, "old"), codes.Aborted, "ETAG_STALE")
	state(active)
	mustNot(t, deactivate(id, ""))
	state(deactivated)
	check(t, "deactivate twice", deactivate(id, ""), codes.FailedPrecondition, "STATE_FORBIDS")
	check(t, "reactivate an old version", reactivate(id, "old"), codes.Aborted, "ETAG_STALE")
	mustNot(t, reactivate(id, ""))
	state(active)
	mustNot(t, deactivate(id, ""))
	check(t, "end an old version", end(id, "old"), codes.Aborted, "ETAG_STALE")
	mustNot(t, end(id, "")) // also of one who is deactivated
	for what, err := range map[string]error{
		"deactivate": deactivate(id, ""), "reactivate": reactivate(id, ""), "end": end(id, ""),
	} {
		check(t, what+" who is no member any more", err, codes.NotFound, "RECORD_NOT_FOUND")
	}
	_, err := users.GetUser(ctx, &pb.GetUserRequest{Id: id})
	check(t, "get who is no member any more", err, codes.NotFound, "RECORD_NOT_FOUND")
}

// Whoever is shut out is refused from the moment the call has returned, and a repeat
// of the call says the same again.
func TestShutOut(t *testing.T) {
	owner := owned(t)
	for i, shut := range []func(*caller) error{
		func(c *caller) error {
			_, err := c.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{RequestId: servertest.UUID(1), Id: c.user.GetId()})
			return err
		},
		func(c *caller) error {
			_, err := c.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{RequestId: servertest.UUID(2), Id: c.user.GetId()})
			return err
		},
	} {
		c := owner.hire(fmt.Sprintf("user%d", i), "US")
		if !c.signedIn(c.token) {
			t.Fatal("not signed in")
		}
		for range 2 {
			mustNot(t, shut(c))
			if c.signedIn(c.token) {
				t.Errorf("%d: the session outlives its user", i)
			}
			_, err := c.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
				Email: c.email, Password: c.password, Surface: pb.Surface_SURFACE_WEB,
			})
			check(t, "sign in again", err, codes.Unauthenticated, "SIGN_IN_FAILED")
		}
	}
	_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{ValidateOnly: true, Id: owner.hire("last", "US").user.GetId()})
	mustNot(t, err)
}

// Whoever comes in again after a deactivation signs in anew: the old token stays dead.
func TestReactivationRevivesNoSession(t *testing.T) {
	owner := owned(t)
	c := owner.hire("ada", "US")
	_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: c.user.GetId()})
	mustNot(t, err)
	_, err = owner.users().ReactivateUser(owner.ctx(), &pb.ReactivateUserRequest{Id: c.user.GetId()})
	mustNot(t, err)
	if c.signedIn(c.token) {
		t.Error("an old token is live again")
	}
	if next := c.signIn(""); !next.signedIn(next.token) {
		t.Error("a new token is not accepted")
	}
}

func TestLastOwnerStays(t *testing.T) {
	owner := owned(t)
	_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: owner.user.GetId()})
	check(t, "deactivate the last owner", err, codes.FailedPrecondition, "LAST_OWNER")
	_, err = owner.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: owner.user.GetId()})
	check(t, "end the last owner's membership", err, codes.FailedPrecondition, "LAST_OWNER")
	if !owner.signedIn(owner.token) {
		t.Error("a refused call ended the owner's session")
	}
	second := owner.hire("second", "OW")
	// Trying it out on one does not make the other the last.
	for _, id := range []string{owner.user.GetId(), second.user.GetId()} {
		_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: id, ValidateOnly: true})
		mustNot(t, err)
	}
	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: second.user.GetId()})
	mustNot(t, err)
	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: owner.user.GetId()})
	check(t, "deactivate the last owner who is active", err, codes.FailedPrecondition, "LAST_OWNER")
}

// Two owners who shut each other out at the same moment: one of them stays.
func TestOwnersShutEachOtherOut(t *testing.T) {
	owner := owned(t)
	second := owner.hire("second", "OW")
	pairs := [][2]*caller{{owner, second}, {second, owner}}
	var all sync.WaitGroup
	errs := make([]error, len(pairs))
	for i, p := range pairs {
		all.Go(func() {
			_, errs[i] = p[0].users().DeactivateUser(p[0].ctx(), &pb.DeactivateUserRequest{Id: p[1].user.GetId()})
		})
	}
	all.Wait()
	stayed := 0
	for _, c := range []*caller{owner, second} {
		if c.signedIn(c.token) {
			stayed++
		}
	}
	if stayed == 0 {
		t.Errorf("nobody is left; the calls returned %v", errs)
	}
}

// No sign-in that runs while its user is shut out leaves a session behind.
func TestSignInDuringDeactivation(t *testing.T) {
	owner := owned(t)
	ada := owner.add("ada", "US")
	var all sync.WaitGroup
	var mu sync.Mutex
	var tokens []string
	begun := make(chan struct{}, 1)
	for range 4 {
		all.Go(func() {
			for {
				resp, err := ada.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
					Email: ada.email, Password: ada.password, Surface: pb.Surface_SURFACE_WEB,
				})
				if err != nil {
					check(t, "sign in", err, codes.Unauthenticated, "SIGN_IN_FAILED")
					return
				}
				mu.Lock()
				tokens = append(tokens, resp.GetToken())
				mu.Unlock()
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		})
	}
	<-begun
	_, err := owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: ada.user.GetId()})
	mustNot(t, err)
	all.Wait()
	for i, token := range tokens {
		if ada.signedIn(token) {
			t.Errorf("session %d of %d lives on", i, len(tokens))
		}
	}
}

// An administrator cannot touch an owner, who holds more.
func TestNobodyChangesWhoHoldsMore(t *testing.T) {
	owner := owned(t)
	second, admin := owner.add("second", "OW"), owner.hire("admin", "OA")
	id := second.user.GetId()
	_, err := admin.users().UpdateUser(admin.ctx(), &pb.UpdateUserRequest{User: &pb.User{Id: id, DisplayName: "Fool"}})
	check(t, "update", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = admin.users().DeactivateUser(admin.ctx(), &pb.DeactivateUserRequest{Id: id})
	check(t, "deactivate", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = admin.users().EndMembership(admin.ctx(), &pb.EndMembershipRequest{Id: id})
	check(t, "end", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = owner.users().DeactivateUser(owner.ctx(), &pb.DeactivateUserRequest{Id: id})
	mustNot(t, err)
	_, err = admin.users().ReactivateUser(admin.ctx(), &pb.ReactivateUserRequest{Id: id})
	check(t, "reactivate", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	// Nor can he bring one back.
	_, err = owner.users().EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: id})
	mustNot(t, err)
	if holds(owner, id) {
		_, err = admin.users().CreateUser(admin.ctx(), &pb.CreateUserRequest{Email: second.email, DisplayName: "Second"})
		check(t, "create again", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	}
	back, err := owner.users().CreateUser(owner.ctx(), &pb.CreateUserRequest{Email: second.email, DisplayName: "Second"})
	mustNot(t, err)
	if got := back.GetUser(); got.GetId() != id || got.GetState() != active || got.GetDeleteTime() != nil {
		t.Errorf("who comes back is %v, want the id %s", got, id)
	}
	if holds(owner, id) {
		t.Error("who comes back has what he could do before")
	}
}

// holds tells whether permissions still knows keys of somebody.
func holds(c *caller, id string) bool {
	resp, err := permissionspb.NewGrantServiceClient(c.Conn("identity", "permissions")).ResolveGrants(
		inOrganization(c.t.Context(), c.user.GetOrganizationId()), &permissionspb.ResolveGrantsRequest{UserId: id})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, b := range resp.GetGrants() {
		if b != 0 {
			return true
		}
	}
	return false
}
