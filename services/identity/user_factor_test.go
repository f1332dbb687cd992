package identity_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/authenticator"
	"latchkey.dev/services/internal/servertest"
)

func (c *caller) factorsOf(who *caller) (*pb.GetUserFactorsResponse, error) {
	return c.userFactors().GetUserFactors(c.ctx(), &pb.GetUserFactorsRequest{UserId: who.user.GetId()})
}

func (c *caller) take(who *caller, factor pb.Factor, change ...func(*pb.RemoveUserFactorRequest)) (*pb.RemoveUserFactorResponse, error) {
	req := &pb.RemoveUserFactorRequest{UserId: who.user.GetId(), Factor: factor, Reason: "the phone is lost"}
	for _, f := range change {
		f(req)
	}
	return c.userFactors().RemoveUserFactor(c.ctx(), req)
}

// An administrator takes from a person what was lost, one after the other. Each time her
// sessions end, and she is told.
func TestRemoveUserFactor(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US").withApp().withPasskey(authenticator.New(origin))
	before, err := owner.factorsOf(ada)
	mustNot(t, err)
	if before.GetTotpTime() == nil || before.GetRecoveryCodesLeft() != 9 || len(before.GetPasskeys()) != 1 ||
		before.GetPasskeys()[0].GetName() != "of a test" || len(before.GetRemovals()) > 0 {
		t.Fatalf("got %v", before)
	}
	dry, err := owner.take(ada, pb.Factor_FACTOR_TOTP, func(r *pb.RemoveUserFactorRequest) { r.ValidateOnly = true })
	mustNot(t, err)
	if !ada.signedIn(ada.token) || dry.GetFactorRemoval().GetEnded() != 1 {
		t.Errorf("a try ended sessions, or got %v", dry)
	}
	again := func(r *pb.RemoveUserFactorRequest) { r.RequestId = servertest.UUID(1) }
	resp, err := owner.take(ada, pb.Factor_FACTOR_TOTP, again)
	mustNot(t, err)
	r := resp.GetFactorRemoval()
	same(t, "what was done", r, &pb.FactorRemoval{
		Id: r.GetId(), Etag: r.GetEtag(), CreateTime: r.GetCreateTime(), UpdateTime: r.GetCreateTime(), PurgeTime: r.GetPurgeTime(),
		OrganizationId: owner.session.GetOrganizationId(), UserId: ada.user.GetId(), RemoverId: owner.user.GetId(),
		Factor: pb.Factor_FACTOR_TOTP, Reason: "the phone is lost", Ended: 1,
	})
	if life := r.GetPurgeTime().AsTime().Sub(r.GetCreateTime().AsTime()); life != 28*24*time.Hour {
		t.Errorf("she is told for %v", life)
	}
	if ada.signedIn(ada.token) {
		t.Error("a session lives on that rests on the factor")
	}
	repeat, err := owner.take(ada, pb.Factor_FACTOR_TOTP, again)
	mustNot(t, err)
	same(t, "a repeat", repeat, resp)
	_, err = owner.take(ada, pb.Factor_FACTOR_TOTP)
	check(t, "what is gone", err, codes.NotFound, "RECORD_NOT_FOUND")

	ada = ada.signInAlone(ada.challenged())
	own, err := ada.factors().GetFactors(ada.ctx(), &pb.GetFactorsRequest{})
	mustNot(t, err)
	same(t, "what she is told", own, &pb.GetFactorsResponse{RecoveryCodesLeft: 9, Passkeys: 1, Removals: []*pb.FactorRemoval{r}})
	other := func(r *pb.RemoveUserFactorRequest) { r.PasskeyId = servertest.UUID(1) }
	_, err = owner.take(ada, pb.Factor_FACTOR_PASSKEY, other)
	check(t, "another passkey", err, codes.NotFound, "RECORD_NOT_FOUND")
	waiting := ada.beginAlone(&pb.BeginPasskeySignInRequest{})
	resp, err = owner.take(ada, pb.Factor_FACTOR_PASSKEY, func(r *pb.RemoveUserFactorRequest) { r.PasskeyId = before.GetPasskeys()[0].GetId() })
	mustNot(t, err)
	if names := resp.GetFactorRemoval().GetPasskeyNames(); !slices.Equal(names, []string{"of a test"}) || ada.signedIn(ada.token) {
		t.Errorf("got %v", resp)
	}
	_, err = ada.tryOn(ada.passkeys, waiting)
	check(t, "the passkey", err, codes.Unauthenticated, "PROOF_WRONG")
	after, err := owner.factorsOf(ada)
	mustNot(t, err)
	if after.GetTotpTime() != nil || after.GetRecoveryCodesLeft() != 0 || len(after.GetPasskeys()) > 0 || len(after.GetRemovals()) != 2 {
		t.Errorf("after the last second factor: %v", after)
	}
	ada.codes = nil
	ada = ada.signIn("")
	var told []any
	for _, e := range owner.told("UserFactorRemoved") {
		if e["user_id"] != ada.user.GetId() || e["remover_id"] != owner.user.GetId() {
			t.Errorf("told %v", e)
		}
		told = append(told, e["factor"])
	}
	if !slices.Equal(told, []any{"FACTOR_PASSKEY", "FACTOR_TOTP"}) {
		t.Errorf("told of %v", told)
	}
}

// SECURITY: nobody takes a factor who could not hand out a code for the password, nor
// without a fresh proof, nor from somebody whose way in elsewhere it is.
func TestRemoveUserFactorIsRefused(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "OA").withApp()
	clerk := owner.hire("clerk", "US")
	_, err := clerk.take(ada, pb.Factor_FACTOR_TOTP)
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING")
	_, err = clerk.factorsOf(ada)
	check(t, "to look, without the key", err, codes.PermissionDenied, "GRANT_MISSING")
	admin := owner.hire("admin", "OA")
	boss := owner.add("boss", "OA")
	owner.permit(boss, "Branding")
	boss = boss.signIn("").withApp()
	_, err = admin.take(boss, pb.Factor_FACTOR_TOTP)
	check(t, "of somebody who may more", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = admin.factorsOf(boss)
	check(t, "to look at somebody who may more", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = boss.take(boss, pb.Factor_FACTOR_TOTP)
	checkField(t, "the own one", err, "user_id")
	_, err = admin.take(ada, pb.Factor_FACTOR_PASSWORD)
	checkField(t, "the password", err, "factor")
	_, err = admin.take(ada, pb.Factor_FACTOR_TOTP, func(r *pb.RemoveUserFactorRequest) { r.PasskeyId = servertest.UUID(1) })
	checkField(t, "a passkey that is none", err, "passkey_id")
	_, err = admin.take(ada, pb.Factor_FACTOR_TOTP, func(r *pb.RemoveUserFactorRequest) { r.Reason = " " })
	checkField(t, "without a reason", err, "reason")
	_, err = admin.withKey("Organization", "Organization: Users").program().take(owner.add("blank", ""), pb.Factor_FACTOR_TOTP)
	check(t, "an API key", err, codes.PermissionDenied, "IN_PERSON_ONLY")
	stale := admin.signIn("")
	mustNot(t, identity.Tamper(t.Context(), "nothing proven lately", identity.Whom{
		Organization: stale.session.GetOrganizationId(), User: stale.user.GetId(), Session: stale.session.GetId(),
	}))
	_, err = stale.take(ada, pb.Factor_FACTOR_TOTP)
	check(t, "without a fresh proof", err, codes.FailedPrecondition, "STEP_UP_NEEDED")
	there := owner.found("Hill Homes")
	_, err = there.users().CreateUser(there.ctx(), &pb.CreateUserRequest{Email: ada.email, DisplayName: "Ada"})
	mustNot(t, err)
	_, err = admin.take(ada, pb.Factor_FACTOR_TOTP)
	check(t, "of a member elsewhere", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = admin.factorsOf(ada)
	check(t, "to look at a member elsewhere", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	if !ada.signedIn(ada.token) {
		t.Error("a refusal ended sessions")
	}
}

// Who is left without the second factor that an organization demands sets another one up
// on the way in.
func TestAfterTheLastFactorComesAnother(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US").withApp()
	_, err := owner.organizations().UpdateOrganization(owner.ctx(), &pb.UpdateOrganizationRequest{
		Organization: &pb.Organization{Id: owner.session.GetOrganizationId(), SecondFactorRequired: true},
	})
	mustNot(t, err)
	_, err = owner.take(ada, pb.Factor_FACTOR_TOTP)
	mustNot(t, err)
	if challenge := ada.challenged(); challenge.GetTotpSetup() == nil {
		t.Errorf("got the challenge %v, want one that sets an app up", challenge)
	}
}

// A wrong passkey is told as a wrong password is, to whom it concerns; nobody is kept out.
func TestWrongPasskeysAreTold(t *testing.T) {
	owner := owned(t)
	d := authenticator.New(origin)
	ada := owner.hire("ada", "US").withPasskey(d)
	other := owner.found("Other Homes")
	forged := d.Copy()
	forged.Origin = "https://latchkey.example.org"
	for range 3 {
		_, err := ada.tryOn(forged, ada.challenged())
		check(t, "beside the password", err, codes.Unauthenticated, "PROOF_WRONG")
	}
	found := owner.told("SignInFailed")
	if len(found) != 1 || found[0]["factor"] != "FACTOR_PASSKEY" || found[0]["user_id"] != ada.user.GetId() || found[0]["in_a_row"] != 1.0 {
		t.Fatalf("got %v, want the first", found)
	}
	ada = ada.signInAlone(ada.challenged())
	_, err := ada.tryOn(forged, ada.beginAlone(&pb.BeginPasskeySignInRequest{}))
	check(t, "alone", err, codes.Unauthenticated, "PROOF_WRONG")
	if found = owner.told("SignInFailed"); len(found) != 2 || found[0]["in_a_row"] != 1.0 {
		t.Errorf("after a right one: got %v, want it to begin anew", found)
	}
	ada.signInAlone(ada.beginAlone(&pb.BeginPasskeySignInRequest{}))
	if found := other.told("SignInFailed"); len(found) > 0 {
		t.Errorf("another organization is told %v", found)
	}
	// SECURITY: of nobody the same is written.
	var entries [2]int64
	for i, id := range []string{ada.user.GetId(), servertest.UUID(77)} {
		forged.UserHandle = id
		challenge, before := ada.beginAlone(&pb.BeginPasskeySignInRequest{}), identity.Revision(t.Context())
		_, err := ada.tryOn(forged, challenge)
		check(t, "as "+id, err, codes.Unauthenticated, "PROOF_WRONG")
		entries[i] = identity.Revision(t.Context()) - before
	}
	if entries[0] != entries[1] {
		t.Errorf("%d entries of somebody known, %d of nobody", entries[0], entries[1])
	}
}
