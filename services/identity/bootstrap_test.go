package identity_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/permissions"
)

func TestClaim(t *testing.T) {
	s := newSuite(t, time.Now)
	ctx := t.Context()
	req := claimRequest()
	req.RequestId = servertest.UUID(1)

	dry := proto.CloneOf(req)
	dry.ValidateOnly = true
	_, err := s.bootstrap().ClaimOwnership(ctx, dry)
	mustNot(t, err)

	first, err := s.bootstrap().ClaimOwnership(ctx, req)
	mustNot(t, err)
	want := &pb.ClaimOwnershipResponse{
		Brand: &pb.Brand{Name: "Harbour Group"},
		Organization: &pb.Organization{
			BrandId: first.GetBrand().GetId(), Name: "Harbour Homes", TimeZone: "Europe/Berlin", CurrencyCode: "EUR",
			State: pb.OrganizationState_ORGANIZATION_STATE_ACTIVE,
		},
		User: &pb.User{
			OrganizationId: first.GetOrganization().GetId(), Email: "owner@example.com", DisplayName: "Olga Owner",
			State: pb.UserState_USER_STATE_ACTIVE,
		},
	}
	same(t, "claim", plain(first), want)

	again, err := s.bootstrap().ClaimOwnership(ctx, req)
	mustNot(t, err)
	same(t, "the repeat", again, first)
	_, err = s.bootstrap().ClaimOwnership(ctx, claimRequest())
	check(t, "a second claim", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	wrong := claimRequest()
	wrong.Code = "something else altogether"
	_, err = s.bootstrap().ClaimOwnership(ctx, wrong)
	check(t, "any code once there is an owner", err, codes.FailedPrecondition, "PRECONDITION_FAILED")

	owner := &caller{suite: s, user: first.GetUser(), email: "owner@example.com", password: "password of the owner"}
	owner = owner.signIn("")
	_, err = s.users().ListUsers(owner.ctx(), &pb.ListUsersRequest{})
	mustNot(t, err)
}

// plain drops what the server makes up, after a look whether it did.
func plain(resp *pb.ClaimOwnershipResponse) *pb.ClaimOwnershipResponse {
	resp = proto.CloneOf(resp)
	resp.Brand.Id, resp.Brand.Etag, resp.Brand.CreateTime, resp.Brand.UpdateTime = "", "", nil, nil
	o := resp.Organization
	o.Id, o.Etag, o.CreateTime, o.UpdateTime = "", "", nil, nil
	u := resp.User
	u.Id, u.Etag, u.CreateTime, u.UpdateTime = "", "", nil, nil
	return resp
}

func TestClaimRefuses(t *testing.T) {
	s := newSuite(t, time.Now)
	for field, change := range map[string]func(*pb.ClaimOwnershipRequest){
		"owner_email":       func(r *pb.ClaimOwnershipRequest) { r.OwnerEmail = "owner at example.com" },
		"owner_password":    func(r *pb.ClaimOwnershipRequest) { r.OwnerPassword = "too short" },
		"time_zone":         func(r *pb.ClaimOwnershipRequest) { r.TimeZone = "Europe/Nowhere" },
		"currency_code":     func(r *pb.ClaimOwnershipRequest) { r.CurrencyCode = "ZZZ" },
		"organization_name": func(r *pb.ClaimOwnershipRequest) { r.OrganizationName = " " },
		"brand_name":        func(r *pb.ClaimOwnershipRequest) { r.BrandName = "" },
	} {
		req := claimRequest()
		change(req)
		_, err := s.bootstrap().ClaimOwnership(t.Context(), req)
		checkField(t, field, err, field)
	}
	// Nothing of it was kept.
	s.claim()
}

func TestWrongCodesAreLimited(t *testing.T) {
	now := time.Now()
	s := newSuite(t, func() time.Time { return now })
	for i := range 10 {
		req := claimRequest()
		req.Code = "setup_" + strings.Repeat("0", i)
		_, err := s.bootstrap().ClaimOwnership(t.Context(), req)
		check(t, "wrong code", err, codes.Unauthenticated, "CREDENTIALS_INVALID")
	}
	_, err := s.bootstrap().ClaimOwnership(t.Context(), claimRequest())
	check(t, "the right code after ten wrong ones", err, codes.ResourceExhausted, "LIMIT_REACHED")
}

// A crash between the two services leaves an owner without a role, and the suite
// finishes that by itself.
func TestClaimSurvivesACrash(t *testing.T) {
	c := config(t)
	c.Peers = map[string][]string{"permissions": {"127.0.0.1:1"}} // nobody listens there
	first := start(t, c, time.Now, identity.Part)
	_, err := first.bootstrap().ClaimOwnership(t.Context(), claimRequest())
	check(t, "claim without permissions", err, codes.Unavailable, "SERVICE_UNREACHABLE")
	// The same again finds what was begun.
	_, err = first.bootstrap().ClaimOwnership(t.Context(), claimRequest())
	check(t, "repeat without permissions", err, codes.Unavailable, "SERVICE_UNREACHABLE")
	first.Stop()

	c.Peers = server.Defaults().Peers
	second := start(t, c, time.Now, identity.Part, permissions.Part)
	second.ready()
	for {
		_, err := second.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
			Email: "owner@example.com", Password: "password of the owner", Surface: pb.Surface_SURFACE_WEB,
		})
		if err == nil {
			break
		}
		check(t, "before upkeep has told permissions", err, codes.PermissionDenied, "SURFACE_CLOSED")
		if t.Context().Err() != nil {
			t.Fatal("the owner never got the role")
		}
	}
	_, err = second.bootstrap().ClaimOwnership(t.Context(), claimRequest())
	if err != nil { // upkeep may not have ended the claim yet; then the repeat did
		check(t, "a claim after all", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	}
	_, err = second.bootstrap().ClaimOwnership(t.Context(), claimRequest())
	check(t, "a claim after all", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
}

// A repeat with the code finishes a claim, even with other data, and makes nothing twice.
func TestRepeatFinishesAClaim(t *testing.T) {
	c := config(t)
	c.Peers = map[string][]string{"permissions": {"127.0.0.1:1"}}
	first := start(t, c, time.Now, identity.Part)
	_, err := first.bootstrap().ClaimOwnership(t.Context(), claimRequest())
	check(t, "claim without permissions", err, codes.Unavailable, "SERVICE_UNREACHABLE")
	dry := claimRequest()
	dry.ValidateOnly = true
	begun, err := first.bootstrap().ClaimOwnership(t.Context(), dry)
	mustNot(t, err)
	_, err = first.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
		Email: "owner@example.com", Password: "password of the owner", Surface: pb.Surface_SURFACE_WEB,
	})
	check(t, "sign in without permissions", err, codes.Unavailable, "SERVICE_UNREACHABLE")
	other := claimRequest()
	other.ValidateOnly, other.OwnerEmail, other.BrandName = true, "thief@example.com", "Thieves"
	got, err := first.bootstrap().ClaimOwnership(t.Context(), other)
	mustNot(t, err)
	same(t, "a repeat with other data", got, begun)
}

func TestCodeOutlivesARestart(t *testing.T) {
	s := newSuite(t, time.Now)
	s.again().claim().again()
}
