package identity_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/servertest"
)

func TestProfile(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	got, err := ada.profiles().GetProfile(ada.ctx(), &pb.GetProfileRequest{})
	mustNot(t, err)
	p := got.GetProfile()
	same(t, "profile", p, &pb.Profile{
		Id: ada.user.GetId(), Etag: p.GetEtag(), CreateTime: p.GetCreateTime(), UpdateTime: p.GetUpdateTime(),
		Email: "ada@example.com", DisplayName: "ada",
	})
	update := func(p *pb.Profile, path string) (*pb.Profile, error) {
		resp, err := ada.profiles().UpdateProfile(ada.ctx(), &pb.UpdateProfileRequest{
			Profile: p, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{path}},
		})
		return resp.GetProfile(), err
	}
	next, err := update(&pb.Profile{Etag: p.GetEtag(), DisplayName: "Ada Lovelace"}, "display_name")
	mustNot(t, err)
	want := proto.CloneOf(p)
	want.DisplayName, want.Etag, want.UpdateTime = "Ada Lovelace", next.GetEtag(), next.GetUpdateTime()
	same(t, "update", next, want)
	seen, err := owner.users().GetUser(owner.ctx(), &pb.GetUserRequest{Id: ada.user.GetId()})
	mustNot(t, err)
	if name := seen.GetUser().GetDisplayName(); name != "Ada Lovelace" {
		t.Errorf("the organization calls her %q", name)
	}
	_, err = update(&pb.Profile{Etag: p.GetEtag(), DisplayName: "X"}, "display_name")
	check(t, "a stale etag", err, codes.Aborted, "ETAG_STALE")
	_, err = update(&pb.Profile{Id: owner.user.GetId(), DisplayName: "X"}, "display_name")
	check(t, "somebody else's profile", err, codes.NotFound, "RECORD_NOT_FOUND")
	_, err = update(&pb.Profile{}, "display_name")
	checkField(t, "no name", err, "profile.display_name")
	_, err = update(&pb.Profile{Email: "x@example.com"}, "email")
	checkField(t, "the address", err, "update_mask")
}

func TestChangePassword(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	elsewhere := ada.signIn("")
	const next = "Ångström is a better password"
	change := func(req *pb.ChangePasswordRequest) error {
		_, err := ada.profiles().ChangePassword(ada.ctx(), req)
		return err
	}
	checkField(t, "a wrong password", change(&pb.ChangePasswordRequest{CurrentPassword: "wrong", NewPassword: next}), "current_password")
	checkField(t, "a short password", change(&pb.ChangePasswordRequest{CurrentPassword: ada.password, NewPassword: "short"}), "new_password")
	mustNot(t, change(&pb.ChangePasswordRequest{CurrentPassword: ada.password, NewPassword: next, ValidateOnly: true}))
	if !ada.signedIn(elsewhere.token) {
		t.Error("a call that changed nothing ended a session")
	}
	req := &pb.ChangePasswordRequest{RequestId: servertest.UUID(1), CurrentPassword: ada.password, NewPassword: next}
	for range 2 { // the second is a repeat
		mustNot(t, change(req))
		if ada.signedIn(elsewhere.token) || !ada.signedIn(ada.token) {
			t.Error("another session lives on, or the caller's own has ended")
		}
	}
	again := proto.CloneOf(req)
	again.RequestId = servertest.UUID(2)
	checkField(t, "the old password, with another request id", change(again), "current_password")
	_, err := ada.sessions().CreateSession(t.Context(), &pb.CreateSessionRequest{
		Email: ada.email, Password: ada.password, Surface: pb.Surface_SURFACE_WEB,
	})
	check(t, "sign in with the old password", err, codes.Unauthenticated, "SIGN_IN_FAILED")
	ada.password = "A\u030angstro\u0308m is a better password" // typed on another keyboard
	ada.signIn("")
}

func TestWrongPasswordsAreLimited(t *testing.T) {
	owner := owned(t)
	ada := owner.hire("ada", "US")
	req := &pb.ChangePasswordRequest{CurrentPassword: "wrong", NewPassword: "a better password"}
	for range 10 {
		_, err := ada.profiles().ChangePassword(ada.ctx(), req)
		checkField(t, "a wrong password", err, "current_password")
	}
	req.CurrentPassword = ada.password
	_, err := ada.profiles().ChangePassword(ada.ctx(), req)
	check(t, "the right one after ten wrong ones", err, codes.ResourceExhausted, "LIMIT_REACHED")
	_, err = owner.profiles().ChangePassword(owner.ctx(), &pb.ChangePasswordRequest{
		CurrentPassword: owner.password, NewPassword: "a better password",
	})
	mustNot(t, err)
}
