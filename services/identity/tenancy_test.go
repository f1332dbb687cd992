package identity_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
)

// listed are the names of the brand's organizations.
func (c *caller) listed(req *pb.ListBrandOrganizationsRequest) (names []string) {
	c.t.Helper()
	resp, err := c.organizations().ListBrandOrganizations(c.ctx(), req)
	mustNot(c.t, err)
	for _, o := range resp.GetOrganizations() {
		names = append(names, o.GetName())
	}
	return names
}

func sameNames(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestOrganizationsOfABrand(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes")
	ada := there.hire("ada", "US")
	id := there.user.GetOrganizationId()
	rpc := owner.organizations()
	sameNames(t, "all", owner.listed(&pb.ListBrandOrganizationsRequest{}), "Harbour Homes", "Hill Homes")
	sameNames(t, "by a part of the name", owner.listed(&pb.ListBrandOrganizationsRequest{Filter: `name : "HILL"`}), "Hill Homes")

	suspend := &pb.SuspendOrganizationRequest{Id: id, Reason: "three invoices are unpaid"}
	dry := proto.CloneOf(suspend)
	dry.ValidateOnly = true
	_, err := rpc.SuspendOrganization(owner.ctx(), dry)
	mustNot(t, err)
	if !ada.signedIn(ada.token) {
		t.Fatal("a dry run has shut somebody out")
	}
	resp, err := rpc.SuspendOrganization(owner.ctx(), suspend)
	mustNot(t, err)
	if o := resp.GetOrganization(); o.GetState() != pb.OrganizationState_ORGANIZATION_STATE_SUSPENDED || o.GetSuspendReason() != suspend.GetReason() {
		t.Errorf("suspended: got %v", o)
	}
	if ada.signedIn(ada.token) {
		t.Error("a session in a suspended organization is accepted")
	}
	_, err = ada.trySignIn()
	check(t, "sign in to a suspended organization", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	_, err = rpc.SuspendOrganization(owner.ctx(), suspend)
	check(t, "suspend twice", err, codes.FailedPrecondition, "STATE_FORBIDS")
	resumed, err := rpc.ResumeOrganization(owner.ctx(), &pb.ResumeOrganizationRequest{Id: id, Etag: resp.GetOrganization().GetEtag()})
	mustNot(t, err)
	if o := resumed.GetOrganization(); o.GetState() != pb.OrganizationState_ORGANIZATION_STATE_ACTIVE || o.GetSuspendReason() != "" {
		t.Errorf("resumed: got %v", o)
	}
	if !ada.signedIn(ada.token) {
		t.Error("the session does not go on after the suspension")
	}
	_, err = rpc.ResumeOrganization(owner.ctx(), &pb.ResumeOrganizationRequest{Id: id, Etag: resp.GetOrganization().GetEtag()})
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
}

func TestCloseAnOrganization(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes")
	id := there.user.GetOrganizationId()
	rpc := owner.organizations()
	closed, err := rpc.DeleteOrganization(owner.ctx(), &pb.DeleteOrganizationRequest{Id: id})
	mustNot(t, err)
	o := closed.GetOrganization()
	if life := o.GetPurgeTime().AsTime().Sub(o.GetDeleteTime().AsTime()); life != 28*24*time.Hour {
		t.Errorf("it can be brought back for %v", life)
	}
	if there.signedIn(there.token) {
		t.Error("a session in a closed organization is accepted")
	}
	sameNames(t, "without closed ones", owner.listed(&pb.ListBrandOrganizationsRequest{}), "Harbour Homes")
	sameNames(t, "with closed ones", owner.listed(&pb.ListBrandOrganizationsRequest{ShowDeleted: true}), "Harbour Homes", "Hill Homes")
	mine, err := rpc.ListOrganizations(owner.ctx(), &pb.ListOrganizationsRequest{})
	mustNot(t, err)
	if n := len(mine.GetOrganizations()); n != 1 {
		t.Errorf("%d organizations are mine, want 1", n)
	}
	_, err = rpc.SuspendOrganization(owner.ctx(), &pb.SuspendOrganizationRequest{Id: id, Reason: "x"})
	check(t, "suspend a closed one", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	back, err := rpc.UndeleteOrganization(owner.ctx(), &pb.UndeleteOrganizationRequest{Id: id})
	mustNot(t, err)
	if back.GetOrganization().GetDeleteTime() != nil || !there.signedIn(there.token) {
		t.Errorf("brought back: %v", back.GetOrganization())
	}
	again, err := rpc.UndeleteOrganization(owner.ctx(), &pb.UndeleteOrganizationRequest{Id: id})
	mustNot(t, err)
	same(t, "undelete twice", again, back)
}

// SECURITY: nobody changes what is of no brand of his, nor shuts himself out.
func TestOrganizationsOfOthers(t *testing.T) {
	owner := owned(t)
	home := owner.user.GetOrganizationId()
	rpc := owner.organizations()
	_, err := rpc.SuspendOrganization(owner.ctx(), &pb.SuspendOrganizationRequest{Id: home, Reason: "x"})
	check(t, "suspend one's own", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = rpc.DeleteOrganization(owner.ctx(), &pb.DeleteOrganizationRequest{Id: home})
	check(t, "close one's own", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	foreign := owner.found("Foreign")
	mustNot(t, identity.Tamper(t.Context(), "brand closed", foreign.whom0()))
	id := foreign.user.GetOrganizationId()
	for what, call := range map[string]func(string) error{
		"get": func(id string) error {
			return second(rpc.GetOrganization(owner.ctx(), &pb.GetOrganizationRequest{Id: id}))
		},
		"suspend": func(id string) error {
			return second(rpc.SuspendOrganization(owner.ctx(), &pb.SuspendOrganizationRequest{Id: id, Reason: "x"}))
		},
		"resume": func(id string) error {
			return second(rpc.ResumeOrganization(owner.ctx(), &pb.ResumeOrganizationRequest{Id: id}))
		},
		"delete": func(id string) error {
			return second(rpc.DeleteOrganization(owner.ctx(), &pb.DeleteOrganizationRequest{Id: id}))
		},
		"undelete": func(id string) error {
			return second(rpc.UndeleteOrganization(owner.ctx(), &pb.UndeleteOrganizationRequest{Id: id}))
		},
	} {
		check(t, what+" of another brand", call(id), codes.NotFound, "RECORD_NOT_FOUND")
		check(t, what+" of nobody", call(servertest.UUID(1)), codes.NotFound, "RECORD_NOT_FOUND")
	}
	sameNames(t, "of the brand", owner.listed(&pb.ListBrandOrganizationsRequest{ShowDeleted: true}), "Harbour Homes")
	clerk := owner.hire("clerk", "OA")
	_, err = rpc.GetOrganization(clerk.ctx(), &pb.GetOrganizationRequest{Id: id})
	check(t, "get without the key", err, codes.NotFound, "RECORD_NOT_FOUND")
}

func (c *caller) whom0() identity.Whom {
	return identity.Whom{Organization: c.user.GetOrganizationId()}
}

func TestCloseBrand(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes")
	got, err := owner.brands().GetBrand(owner.ctx(), &pb.GetBrandRequest{})
	mustNot(t, err)
	b := got.GetBrand()
	_, err = owner.brands().CloseBrand(owner.ctx(), &pb.CloseBrandRequest{Id: b.GetId(), Name: "harbour group"})
	checkField(t, "another name", err, "name")
	_, err = owner.brands().CloseBrand(owner.ctx(), &pb.CloseBrandRequest{Id: servertest.UUID(1), Name: b.GetName()})
	check(t, "another brand", err, codes.NotFound, "RECORD_NOT_FOUND")
	dry, err := owner.brands().CloseBrand(owner.ctx(), &pb.CloseBrandRequest{Id: b.GetId(), Name: b.GetName(), ValidateOnly: true})
	mustNot(t, err)
	if dry.GetReopenCode() != "" || !owner.signedIn(owner.token) {
		t.Errorf("a dry run: %v", dry)
	}
	closed, err := owner.brands().CloseBrand(owner.ctx(), &pb.CloseBrandRequest{Id: b.GetId(), Name: b.GetName(), Etag: b.GetEtag()})
	mustNot(t, err)
	s := owner.suite
	for _, when := range []string{"at once", "after a restart"} {
		for _, c := range []*caller{owner.in(s), there.in(s)} {
			if c.signedIn(c.token) {
				t.Errorf("%s a session of a closed brand is accepted", when)
			}
			_, err := c.trySignIn()
			check(t, when+", sign in", err, codes.Unauthenticated, "SIGN_IN_FAILED")
		}
		for _, code := range []string{"nonsense", "lkb_" + closed.GetReopenCode(), owner.token} {
			_, err := s.brands().ReopenBrand(t.Context(), &pb.ReopenBrandRequest{ReopenCode: code})
			check(t, when+", reopening code wrong", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
		}
		if when == "at once" {
			s = s.again()
		}
	}
	open, err := s.brands().ReopenBrand(t.Context(), &pb.ReopenBrandRequest{ReopenCode: closed.GetReopenCode()})
	mustNot(t, err)
	b.Etag, b.UpdateTime = open.GetBrand().GetEtag(), open.GetBrand().GetUpdateTime()
	same(t, "reopened", open.GetBrand(), b)
	if now := owner.in(s); !now.signedIn(now.token) {
		t.Error("the session does not go on after the brand was reopened")
	}
	_, err = s.brands().ReopenBrand(t.Context(), &pb.ReopenBrandRequest{ReopenCode: closed.GetReopenCode()})
	check(t, "the code once more", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
}

func TestUndeleteUser(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	rpc, id := owner.users(), ada.user.GetId()
	was, err := rpc.GetUser(owner.ctx(), &pb.GetUserRequest{Id: id})
	mustNot(t, err)
	_, err = rpc.EndMembership(owner.ctx(), &pb.EndMembershipRequest{Id: id})
	mustNot(t, err)
	list := func(deleted bool) (n int) {
		resp, err := rpc.ListUsers(owner.ctx(), &pb.ListUsersRequest{ShowDeleted: deleted, Filter: `display_name : "ADA"`})
		mustNot(t, err)
		return len(resp.GetUsers())
	}
	if a, b := list(false), list(true); a != 0 || b != 1 {
		t.Errorf("%d users without and %d with former ones, want 0 and 1", a, b)
	}
	weak := owner.hire("weak", "US")
	owner.permit(weak, "Organization")
	owner.permit(weak, "Organization: Users")
	_, err = rpc.UndeleteUser(weak.ctx(), &pb.UndeleteUserRequest{Id: owner.user.GetId()})
	check(t, "undelete whoever holds more", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	back, err := rpc.UndeleteUser(owner.ctx(), &pb.UndeleteUserRequest{Id: id})
	mustNot(t, err)
	want := was.GetUser()
	want.Etag, want.UpdateTime = back.GetUser().GetEtag(), back.GetUser().GetUpdateTime()
	same(t, "brought back", back.GetUser(), want)
	ada.signIn(owner.user.GetOrganizationId()) // with the role of before
	if ada.signedIn(ada.token) {
		t.Error("a session that had ended came back")
	}
	again, err := rpc.UndeleteUser(owner.ctx(), &pb.UndeleteUserRequest{Id: id})
	mustNot(t, err)
	same(t, "undelete twice", again, back)
	_, err = rpc.UndeleteUser(owner.ctx(), &pb.UndeleteUserRequest{Id: servertest.UUID(9)})
	check(t, "undelete nobody", err, codes.NotFound, "RECORD_NOT_FOUND")
}

// SECURITY: a request id is unique within the organization that a call is made in: the same
// one, and the same request, in another organization is another call.
func TestRequestIDsOfTwoOrganizations(t *testing.T) {
	owner := owned(t)
	there := owner.found("Hill Homes")
	req := &pb.CreateLabelRequest{RequestId: servertest.UUID(1), Label: &pb.Label{Kind: pb.LabelKind_LABEL_KIND_TAG, Name: "Urgent"}}
	create := func(c *caller) *pb.Label {
		t.Helper()
		resp, err := pb.NewLabelServiceClient(c.conn).CreateLabel(c.ctx(), req)
		mustNot(t, err)
		return resp.GetLabel()
	}
	here, other := create(owner), create(there)
	if here.GetId() == other.GetId() || here.GetOrganizationId() != owner.user.GetOrganizationId() || other.GetOrganizationId() != there.user.GetOrganizationId() {
		t.Errorf("got %v and %v, want one in each organization", here, other)
	}
	now := owner.again()
	owner, there = owner.in(now), there.in(now)
	for who, want := range map[*caller]*pb.Label{owner: here, there: other, owner.signIn(here.GetOrganizationId()): here} {
		if got := create(who); !proto.Equal(got, want) {
			t.Errorf("a repeat: got %v, want the first answer %v", got, want)
		}
	}
}
