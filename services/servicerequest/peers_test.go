package servicerequest_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/permissions"
	"latchkey.dev/services/servicerequest"
)

// TestCategoriesOfTheRealIdentity lists by a category what is in those beneath it, as they are
// when the list is made.
func TestCategoriesOfTheRealIdentity(t *testing.T) {
	s := servertest.Start(t, identity.Part, permissions.Part, servicerequest.Part)
	office := s.AsRole("OA")
	labels := identitypb.NewLabelServiceClient(office)
	requests := pb.NewServiceRequestServiceClient(office)
	made, err := pb.NewPropertyServiceClient(office).CreateProperty(t.Context(), &pb.CreatePropertyRequest{Name: "Elm Court", TimeZone: "UTC"})
	if err != nil {
		t.Fatal(err)
	}
	category := func(name, parent string) string {
		t.Helper()
		resp, err := labels.CreateLabel(t.Context(), &identitypb.CreateLabelRequest{Label: &identitypb.Label{
			Kind: identitypb.LabelKind_LABEL_KIND_CATEGORY, Name: name, ParentId: parent,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetLabel().GetId()
	}
	water := category("Water", "")
	pipes := category("Pipes", water)
	hot, roof := category("Hot pipes", pipes), category("Roof", "")
	for _, in := range []string{water, pipes, hot, roof} {
		_, err := requests.CreateServiceRequest(t.Context(), &pb.CreateServiceRequestRequest{PropertyId: made.GetProperty().GetId(), Title: "Tap drips", CategoryId: in})
		if err != nil {
			t.Fatal(err)
		}
	}
	count := func(category string) int {
		t.Helper()
		resp, err := requests.ListServiceRequests(t.Context(), &pb.ListServiceRequestsRequest{
			View: pb.ServiceRequestView_SERVICE_REQUEST_VIEW_NEW, LabelIds: []string{category},
		})
		if err != nil {
			t.Fatal(err)
		}
		return len(resp.GetServiceRequests())
	}
	for category, want := range map[string]int{water: 3, pipes: 2, hot: 1, roof: 1} {
		if got := count(category); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	_, err = labels.UpdateLabel(t.Context(), &identitypb.UpdateLabelRequest{Label: &identitypb.Label{Id: pipes, ParentId: roof}})
	if err != nil {
		t.Fatal(err)
	}
	s.Forget("definitions:" + s.Organization) // the server of this test does not hear of it from identity
	if got := []int{count(water), count(pipes), count(roof)}; got[0] != 1 || got[1] != 2 || got[2] != 3 {
		t.Errorf("after a move: got %v, want [1 2 3]", got)
	}
	category("Valves", hot)
	if _, err := labels.DeleteLabel(t.Context(), &identitypb.DeleteLabelRequest{Id: water}); err != nil {
		t.Fatal(err)
	}
	s.Forget("definitions:" + s.Organization)
	if got := count(water); got != 1 {
		t.Errorf("by a deleted category: got %d, want the one that keeps it", got)
	}
}

// TestMembersOfTheRealIdentity names users of whom identity says that they are active
// members, that they are not any more, and that they belong to another organization.
func TestMembersOfTheRealIdentity(t *testing.T) {
	s := servertest.Start(t, identity.Part, permissions.Part, servicerequest.Part)
	office := s.AsRole("OA")
	users := identitypb.NewUserServiceClient(office)
	user := func(c identitypb.UserServiceClient, name string) string {
		t.Helper()
		resp, err := c.CreateUser(t.Context(), &identitypb.CreateUserRequest{Email: name + "@example.com", DisplayName: name})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetUser().GetId()
	}
	active, gone := user(users, "active"), user(users, "gone")
	if _, err := users.DeactivateUser(t.Context(), &identitypb.DeactivateUserRequest{Id: gone}); err != nil {
		t.Fatal(err)
	}
	stranger := user(identitypb.NewUserServiceClient(s.InOrganization(servertest.UUID(1)).AsRole("OA")), "stranger")

	properties := pb.NewPropertyServiceClient(office)
	requests := pb.NewServiceRequestServiceClient(office)
	made, err := properties.CreateProperty(t.Context(), &pb.CreatePropertyRequest{Name: "Elm Court", TimeZone: "UTC", DefaultAssigneeId: active})
	if err != nil {
		t.Fatal(err)
	}
	p := made.GetProperty()
	tests := []struct {
		name, user string
		want       codes.Code
	}{
		{"active", active, codes.OK}, {"gone", gone, codes.NotFound},
		{"stranger", stranger, codes.NotFound}, {"nobody", servertest.UUID(2), codes.NotFound},
	}
	for _, tt := range tests {
		_, add := properties.AddUserToProperty(t.Context(), &pb.AddUserToPropertyRequest{PropertyId: p.GetId(), UserId: tt.user})
		_, update := properties.UpdateProperty(t.Context(), &pb.UpdatePropertyRequest{Property: &pb.Property{Id: p.GetId(), DefaultAssigneeId: &tt.user}})
		_, create := requests.CreateServiceRequest(t.Context(), &pb.CreateServiceRequestRequest{
			PropertyId: p.GetId(), Title: "Tap drips", AssigneeId: &tt.user,
		})
		for method, err := range map[string]error{"AddUserToProperty": add, "CreateServiceRequest": create} {
			if got := status.Code(err); got != tt.want {
				t.Errorf("%s with %s: got %v, want %v", method, tt.name, err, tt.want)
			}
		}
		if got := status.Code(update); tt.user != active && got != tt.want {
			t.Errorf("UpdateProperty with %s: got %v, want %v", tt.name, update, tt.want)
		}
	}
	draft, err := requests.CreateServiceRequest(t.Context(), &pb.CreateServiceRequestRequest{PropertyId: p.GetId(), Title: "Tap drips"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := requests.RequestServiceRequest(t.Context(), &pb.RequestServiceRequestRequest{Id: draft.GetServiceRequest().GetId()})
	if err != nil || got.GetServiceRequest().GetAssigneeId() != active {
		t.Errorf("the default assignee: got %v and %v, want %s", got, err, active)
	}
	_, err = requests.ReassignServiceRequest(t.Context(), &pb.ReassignServiceRequestRequest{
		Id: draft.GetServiceRequest().GetId(), AssigneeId: gone, PurchaseOrderNumber: proto.String("PO-1"),
	})
	if status.Code(err) != codes.NotFound {
		t.Errorf("reassign to gone: got %v", err)
	}
}
