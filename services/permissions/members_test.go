package permissions_test

import (
	"encoding/json"
	"testing"

	"google.golang.org/grpc/codes"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// TestHoldersAndReviewsTellWhoIsNoMemberAnyMore: what is stored of whoever leaves stays, but
// lets nobody do anything.
func TestHoldersAndReviewsTellWhoIsNoMemberAnyMore(t *testing.T) {
	owner := start(t)
	users := identitypb.NewUserServiceClient(owner.conn)
	uma, dora, egon := owner.add("uma", "US"), owner.add("dora", "US"), owner.add("egon", "US")
	_, err := users.DeactivateUser(owner.ctx(), &identitypb.DeactivateUserRequest{Id: dora})
	mustNot(t, err)
	_, err = users.EndMembership(owner.ctx(), &identitypb.EndMembershipRequest{Id: egon})
	mustNot(t, err)
	want := map[string]*pb.Holder{
		uma:  {DisplayName: "uma", Email: "uma@example.com", Member: pb.MemberState_MEMBER_STATE_ACTIVE},
		dora: {DisplayName: "dora", Email: "dora@example.com", Member: pb.MemberState_MEMBER_STATE_DEACTIVATED},
		egon: {Member: pb.MemberState_MEMBER_STATE_ENDED},
	}
	resp, err := owner.analysis().ListHolders(owner.ctx(), &pb.ListHoldersRequest{Question: &pb.ListHoldersRequest_Grant{Grant: "Calendar"}})
	mustNot(t, err)
	found := 0
	for _, h := range resp.GetHolders() {
		if w := want[h.GetUserId()]; w != nil {
			found++
			same(t, w.GetDisplayName(), &pb.Holder{DisplayName: h.GetDisplayName(), Email: h.GetEmail(), Member: h.GetMember()}, w)
		}
	}
	if found != len(want) {
		t.Errorf("got %v", resp)
	}
	text, err := owner.review(&pb.ExportAccessReviewRequest{Format: pb.ReviewFormat_REVIEW_FORMAT_JSON})
	mustNot(t, err)
	var rows []map[string]any
	mustNot(t, json.Unmarshal(text, &rows))
	members := map[any]any{}
	for _, row := range rows {
		members[row["user_id"]] = row["member"]
		if w := want[row["user_id"].(string)]; w != nil && (row["email"] != w.GetEmail() || row["display_name"] != w.GetDisplayName()) {
			t.Errorf("got the row %v", row)
		}
	}
	if members[uma] != "active" || members[dora] != "deactivated" || members[egon] != "ended" {
		t.Errorf("the review tells %v", members)
	}
	_, err = owner.analysis().ListHolders(owner.ctx(), &pb.ListHoldersRequest{Question: &pb.ListHoldersRequest_Grant{Grant: "feature:routing"}})
	check(t, "of a feature", err, codes.InvalidArgument, "FIELD_INVALID")
}
