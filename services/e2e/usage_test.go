package e2e

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
)

// work is what somebody does: calls of several services, some of which he may not make.
func work(ctx context.Context, conn grpc.ClientConnInterface) (codes []codes.Code) {
	parts := invoicingpb.NewPartServiceClient(conn)
	note := func(_ any, err error) { codes = append(codes, status.Code(err)) }
	note(parts.ListParts(ctx, &invoicingpb.ListPartsRequest{View: invoicingpb.PartView_PART_VIEW_PICKER}))
	note(parts.ListParts(ctx, &invoicingpb.ListPartsRequest{View: invoicingpb.PartView_PART_VIEW_CONTROL_PANEL}))
	note(parts.CreatePart(ctx, &invoicingpb.CreatePartRequest{Name: "Gasket"}))
	for _, view := range []servicerequestpb.ServiceRequestView{
		servicerequestpb.ServiceRequestView_SERVICE_REQUEST_VIEW_NEW, servicerequestpb.ServiceRequestView_SERVICE_REQUEST_VIEW_ARCHIVE,
	} {
		note(servicerequestpb.NewServiceRequestServiceClient(conn).ListServiceRequests(ctx, &servicerequestpb.ListServiceRequestsRequest{View: view}))
	}
	note(permissionspb.NewAccessServiceClient(conn).ListAssignableKeys(ctx, &permissionspb.ListAssignableKeysRequest{}))
	note(identitypb.NewUserServiceClient(conn).ListUsers(ctx, &identitypb.ListUsersRequest{}))
	return codes
}

// TestSuggestedRoleAllowsWhatWasDone lets everybody work, gives each the role that is
// suggested for him, and lets him do the same again.
func TestSuggestedRoleAllowsWhatWasDone(t *testing.T) {
	s := one(t)
	company := s.fill()
	owner := company.As(t.Context(), "OW")
	usage, roles := permissionspb.NewUsageServiceClient(s), permissionspb.NewRoleServiceClient(s)
	tried := 0
	for _, p := range company.People {
		if p.Role == "OW" {
			continue
		}
		ctx := company.As(t.Context(), p.Role)
		before := work(ctx, s)
		suggested, err := usage.SuggestRole(owner, &permissionspb.SuggestRoleRequest{Subject: &permissionspb.SuggestRoleRequest_UserId{UserId: p.ID}, Days: 30})
		if err != nil {
			t.Fatal(err)
		}
		unused, err := usage.ListUnusedKeys(owner, &permissionspb.ListUnusedKeysRequest{Subject: &permissionspb.ListUnusedKeysRequest_UserId{UserId: p.ID}, Days: 30})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range unused.GetKeys() {
			if slices.Contains(suggested.GetKeys(), k.GetKey()) || k.GetLastDay() != "" {
				t.Errorf("%s: %v is unused and suggested", p.Role, k)
			}
		}
		made, err := roles.CreateRole(owner, &permissionspb.CreateRoleRequest{Name: "tight " + p.Role, Keys: suggested.GetKeys()})
		if err != nil {
			if status.Code(err) == codes.PermissionDenied {
				continue // the owner cannot hand out all that he has
			}
			t.Fatal(err)
		}
		_, err = permissionspb.NewAccessServiceClient(s).SetUserRole(owner, &permissionspb.SetUserRoleRequest{UserId: p.ID, RoleId: made.GetRole().GetId()})
		if status.Code(err) == codes.PermissionDenied {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		tried++
		if after := work(ctx, s); !slices.Equal(after, before) {
			t.Errorf("%s with the keys %q: got %v, had %v before", p.Role, suggested.GetKeys(), after, before)
		}
		again, err := usage.ListUnusedKeys(owner, &permissionspb.ListUnusedKeysRequest{Subject: &permissionspb.ListUnusedKeysRequest_RoleId{RoleId: made.GetRole().GetId()}, Days: 1})
		if err != nil || len(again.GetKeys()) != 0 || again.GetUsers() != 1 {
			t.Errorf("%s: the tight role has the unused keys %v of %d users, %v", p.Role, again.GetKeys(), again.GetUsers(), err)
		}
		t.Logf("%s: %d keys of the role were not used, %d are suggested", p.Role, len(unused.GetKeys()), len(suggested.GetKeys()))
	}
	if tried < 3 {
		t.Errorf("only %d people could be given the role that is suggested", tried)
	}
}

// TestUsageNeedsEveryService asks while a service is away: what it counted must not seem
// unused.
func TestUsageNeedsEveryService(t *testing.T) {
	s := five(t)
	company := s.fill()
	owner := company.As(t.Context(), "OW")
	usage := permissionspb.NewUsageServiceClient(s)
	req := &permissionspb.ListUnusedKeysRequest{Subject: &permissionspb.ListUnusedKeysRequest_RoleId{RoleId: "OW"}, Days: 7}
	resp, err := usage.ListUnusedKeys(owner, req)
	if err != nil || resp.GetUsers() != 1 || len(resp.GetKeys()) == 0 {
		t.Fatalf("got %v, %v, want unused keys of one owner", resp, err)
	}
	for _, k := range resp.GetKeys() {
		if k.GetKey() == "Organization: Users" || k.GetKey() == "ControlPanel:Parts:Create" {
			t.Errorf("the owner used %s, and it is told to be unused", k.GetKey())
		}
	}
	s.processes["invoicing"].kill()
	_, err = usage.ListUnusedKeys(owner, req)
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetMetadata()["service"] == "invoicing" && status.Code(err) == codes.Unavailable {
			return
		}
	}
	t.Errorf("without invoicing: got %v, want Unavailable that names it", err)
}
