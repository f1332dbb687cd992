package permissions_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/permissions"
)

func TestARoleIsEnforcedOnTheNextCall(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	if !uma.holds("Invoices").GetAllowed() || uma.holds("Invoices:Void").GetAllowed() {
		t.Error("the role US is not in force")
	}
	resp, err := owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: uma.id, RoleId: "PM", RegionalManager: true})
	mustNot(t, err)
	got := uma.holds("Insights:Portfolio")
	same(t, "a regional manager's key", got, &pb.CheckResponse{
		Allowed: true, Revision: got.GetRevision(), Layer: pb.Layer_LAYER_ROLE, Source: "PM",
	})
	want := &pb.UserAccess{
		Id: uma.id, RoleId: "PM", RegionalManager: true,
		Etag: resp.GetUserAccess().GetEtag(), CreateTime: resp.GetUserAccess().GetCreateTime(), UpdateTime: resp.GetUserAccess().GetUpdateTime(),
	}
	same(t, "answer", resp.GetUserAccess(), want)
	same(t, "stored", owner.stored(uma.id), want)

	for _, test := range []struct {
		name   string
		req    *pb.SetUserRoleRequest
		code   codes.Code
		reason string
	}{
		{"nobody's id", &pb.SetUserRoleRequest{UserId: servertest.UUID(1), RoleId: "US"}, codes.NotFound, "RECORD_NOT_FOUND"},
		{"no such role", &pb.SetUserRoleRequest{UserId: uma.id, RoleId: "pm"}, codes.NotFound, "RECORD_NOT_FOUND"},
		{"a regional manager of nothing", &pb.SetUserRoleRequest{UserId: uma.id, RoleId: "US", RegionalManager: true}, codes.InvalidArgument, "FIELD_INVALID"},
		{"an old etag", &pb.SetUserRoleRequest{UserId: uma.id, RoleId: "US", Etag: "1"}, codes.Aborted, "ETAG_STALE"},
		{"an etag of nothing", &pb.SetUserRoleRequest{UserId: owner.add("una", ""), RoleId: "US", Etag: "1"}, codes.Aborted, "ETAG_STALE"},
		{"no id at all", &pb.SetUserRoleRequest{UserId: "uma", RoleId: "US"}, codes.InvalidArgument, "FIELD_INVALID"},
	} {
		_, err := owner.access().SetUserRole(owner.ctx(), test.req)
		check(t, test.name, err, test.code, test.reason)
	}
	_, err = uma.access().SetUserRole(uma.ctx(), &pb.SetUserRoleRequest{UserId: uma.id, RoleId: "OW"})
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Users")
	same(t, "after all that", owner.stored(uma.id), want)
}

func TestRepeatedRequests(t *testing.T) {
	owner := start(t)
	user := owner.add("uma", "")
	req := &pb.SetUserRoleRequest{RequestId: servertest.UUID(7), UserId: user, RoleId: "US"}

	dry := &pb.SetUserRoleRequest{ValidateOnly: true, UserId: user, RoleId: "US"}
	resp, err := owner.access().SetUserRole(owner.ctx(), dry)
	mustNot(t, err)
	if resp.GetUserAccess().GetRoleId() != "US" || owner.stored(user).GetRoleId() != "" {
		t.Error("validate_only does not answer as usual, or changes something")
	}
	first, err := owner.access().SetUserRole(owner.ctx(), req)
	mustNot(t, err)
	_, err = owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: user, RoleId: "PM"})
	mustNot(t, err)
	again, err := owner.access().SetUserRole(owner.ctx(), req)
	mustNot(t, err)
	same(t, "repeat", again, first)
	if got := owner.stored(user).GetRoleId(); got != "PM" {
		t.Errorf("a repeat changed the role to %s", got)
	}
	_, err = owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{RequestId: req.GetRequestId(), UserId: user, RoleId: "SP"})
	check(t, "another request under the same id", err, codes.InvalidArgument, "REQUEST_ID_REUSED")
}

func TestAnOverrideIsGivenAndTakenAway(t *testing.T) {
	owner := start(t)
	admin, uma := owner.hire("ada", "OA"), owner.hire("uma", "US")
	end := timestamppb.New(uma.clock.now().Add(time.Hour).Truncate(time.Second))
	resp, err := admin.access().SetOverride(admin.ctx(), &pb.SetOverrideRequest{
		UserId: uma.id, Key: "invoices : VOID", Effect: pb.Effect_EFFECT_GRANT, Reason: "year end", ExpireTime: end,
	})
	mustNot(t, err)
	if got := resp.GetUserAccess().GetOverrides(); len(got) != 1 {
		t.Fatalf("got %v", got)
	}
	same(t, "override", resp.GetUserAccess().GetOverrides()[0], &pb.Override{
		Key: "Invoices:Void", Effect: pb.Effect_EFFECT_GRANT, Reason: "year end", ExpireTime: end,
		SetBy: admin.id, SetTime: resp.GetUserAccess().GetUpdateTime(),
	})
	got := uma.holds("Invoices:Void")
	same(t, "granted", got, &pb.CheckResponse{
		Allowed: true, Revision: got.GetRevision(), Layer: pb.Layer_LAYER_OVERRIDE, Source: admin.id, ExpireTime: end,
	})
	_, err = admin.access().ClearOverride(admin.ctx(), &pb.ClearOverrideRequest{UserId: uma.id, Key: "Invoices:Void"})
	mustNot(t, err)
	got = uma.holds("Invoices:Void")
	same(t, "taken away", got, &pb.CheckResponse{Revision: got.GetRevision(), Layer: pb.Layer_LAYER_NONE})

	mustNot(t, admin.override(uma.id, "Invoices:Void", pb.Effect_EFFECT_GRANT))
	mustNot(t, admin.override(uma.id, "Invoices", pb.Effect_EFFECT_DENY))
	got = uma.holds("Invoices:Void")
	same(t, "without its parent", got, &pb.CheckResponse{
		Revision: got.GetRevision(), Layer: pb.Layer_LAYER_OVERRIDE, Source: admin.id, Missing: "Invoices",
	})
}

func TestOverridesThatAreRefused(t *testing.T) {
	owner := start(t)
	admin, user := owner.hire("ada", "OA"), owner.add("uma", "US")
	past := timestamppb.New(owner.clock.now().Add(-time.Second))
	for _, test := range []struct {
		name   string
		req    *pb.SetOverrideRequest
		code   codes.Code
		reason string
		detail []string
	}{
		{"a key the caller lacks", &pb.SetOverrideRequest{UserId: user, Key: "ServiceRequests:Work"}, codes.PermissionDenied, "BEYOND_OWN_GRANTS", []string{"grant", "ServiceRequests:Work"}},
		{"a user above", &pb.SetOverrideRequest{UserId: owner.id, Key: "Reports"}, codes.PermissionDenied, "BEYOND_OWN_GRANTS", nil},
		{"an add-on that was not bought", &pb.SetOverrideRequest{UserId: user, Key: "Routing"}, codes.FailedPrecondition, "FEATURE_NOT_IN_PLAN", []string{"feature", "routing", "grant", "Routing"}},
		{"a key that is none", &pb.SetOverrideRequest{UserId: user, Key: "Invoices:Burn"}, codes.InvalidArgument, "FIELD_INVALID", nil},
		{"an end that has passed", &pb.SetOverrideRequest{UserId: user, Key: "Reports", ExpireTime: past}, codes.InvalidArgument, "FIELD_INVALID", nil},
		{"an end that is no time", &pb.SetOverrideRequest{UserId: user, Key: "Reports", ExpireTime: &timestamppb.Timestamp{Nanos: -1}}, codes.InvalidArgument, "FIELD_INVALID", nil},
		{"somebody else", &pb.SetOverrideRequest{UserId: servertest.UUID(3), Key: "Reports"}, codes.NotFound, "RECORD_NOT_FOUND", nil},
	} {
		for _, test.req.Effect = range []pb.Effect{pb.Effect_EFFECT_GRANT, pb.Effect_EFFECT_DENY} {
			_, err := admin.access().SetOverride(admin.ctx(), test.req)
			check(t, test.name, err, test.code, test.reason, test.detail...)
		}
	}
	_, err := admin.access().SetOverride(admin.ctx(), &pb.SetOverrideRequest{UserId: user, Key: "Reports"})
	check(t, "no effect", err, codes.InvalidArgument, "FIELD_INVALID")

	mustNot(t, owner.override(user, "Calendar", pb.Effect_EFFECT_DENY))
	_, err = admin.access().ClearOverride(admin.ctx(), &pb.ClearOverrideRequest{UserId: user, Key: "Calendar"})
	check(t, "a deny from above", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = owner.access().ClearOverride(owner.ctx(), &pb.ClearOverrideRequest{UserId: user, Key: "Calendar"})
	mustNot(t, err)
	before := owner.stored(user)
	_, err = admin.access().ClearOverride(admin.ctx(), &pb.ClearOverrideRequest{UserId: user, Key: "Calendar"})
	mustNot(t, err)
	same(t, "clearing what is not there", owner.stored(user), before)
}

func TestAnOverrideEnds(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	_, err := owner.access().SetOverride(owner.ctx(), &pb.SetOverrideRequest{
		UserId: uma.id, Key: "Organization: Users", Effect: pb.Effect_EFFECT_GRANT, ExpireTime: timestamppb.New(owner.clock.now().Add(time.Hour)),
	})
	mustNot(t, err)
	mustNot(t, owner.override(uma.id, "Organization", pb.Effect_EFFECT_GRANT))
	_, err = uma.access().ListAssignableKeys(uma.ctx(), &pb.ListAssignableKeysRequest{})
	mustNot(t, err)
	uma.clock.forward(time.Hour)
	_, err = uma.access().ListAssignableKeys(uma.ctx(), &pb.ListAssignableKeysRequest{})
	check(t, "after the end", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Users")
}

func TestSettings(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	no, week := false, int32(7)
	resp, err := owner.access().UpdateUserSettings(owner.ctx(), &pb.UpdateUserSettingsRequest{
		UserId: uma.id, Settings: &pb.UserSettings{SeePricing: &no, InvoiceApprover: &owner.id},
	})
	mustNot(t, err)
	same(t, "settings", resp.GetUserAccess().GetSettings(), &pb.UserSettings{SeePricing: &no, InvoiceApprover: &owner.id})
	if uma.holds("setting:see_pricing").GetAllowed() {
		t.Error("sees pricing")
	}
	resp, err = owner.access().UpdateUserSettings(owner.ctx(), &pb.UpdateUserSettingsRequest{
		UserId: uma.id, Settings: &pb.UserSettings{}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"see_pricing"}},
	})
	mustNot(t, err)
	same(t, "settings", resp.GetUserAccess().GetSettings(), &pb.UserSettings{InvoiceApprover: &owner.id})
	got := uma.holds("setting:see_pricing")
	same(t, "left to the role", got, &pb.CheckResponse{Allowed: true, Revision: got.GetRevision(), Layer: pb.Layer_LAYER_ROLE, Source: "US"})

	nobody := servertest.UUID(9)
	for _, test := range []struct {
		name   string
		req    *pb.UpdateUserSettingsRequest
		code   codes.Code
		reason string
	}{
		{"an agent's", &pb.UpdateUserSettingsRequest{Settings: &pb.UserSettings{FutureVisibility: &week}}, codes.FailedPrecondition, "NO_SERVICE_AGENT"},
		{"nobody as approver", &pb.UpdateUserSettingsRequest{Settings: &pb.UserSettings{InvoiceApprover: &nobody}}, codes.NotFound, "RECORD_NOT_FOUND"},
		{"himself as approver", &pb.UpdateUserSettingsRequest{Settings: &pb.UserSettings{InvoiceApprover: &uma.id}}, codes.InvalidArgument, "FIELD_INVALID"},
		{"a mask of nothing", &pb.UpdateUserSettingsRequest{Settings: &pb.UserSettings{}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"pricing"}}}, codes.InvalidArgument, "FIELD_INVALID"},
		{"no settings", &pb.UpdateUserSettingsRequest{}, codes.InvalidArgument, "FIELD_INVALID"},
	} {
		test.req.UserId = uma.id
		_, err := owner.access().UpdateUserSettings(owner.ctx(), test.req)
		check(t, test.name, err, test.code, test.reason)
	}
}

func TestSettingsOfAServiceAgent(t *testing.T) {
	owner := start(t)
	sam := owner.add("sam", "SA")
	made, err := schedulingpb.NewServiceAgentServiceClient(owner.conn).CreateServiceAgent(owner.ctx(), &schedulingpb.CreateServiceAgentRequest{
		UserId: sam, DisplayName: "Sam", TimeZone: "Europe/Berlin",
	})
	mustNot(t, err)
	resp, err := owner.access().UpdateUserSettings(owner.ctx(), &pb.UpdateUserSettingsRequest{
		UserId: sam, Settings: &pb.UserSettings{PullFromQueue: new(true), FutureVisibility: new(int32(7))},
	})
	mustNot(t, err)
	if got, want := resp.GetUserAccess().GetServiceAgentId(), made.GetServiceAgent().GetId(); got != want {
		t.Errorf("service agent: got %q, want %q", got, want)
	}
	access, err := owner.access().GetEffectiveAccess(owner.ctx(), &pb.GetEffectiveAccessRequest{UserId: &sam})
	mustNot(t, err)
	same(t, "settings", access.GetSettings(), &pb.UserSettings{
		SeePricing: new(false), RescheduleAppointments: new(false), TransferAppointments: new(false), LimitSlots: new(false),
		SearchScope: new(pb.SearchScope_SEARCH_SCOPE_NONE), IncludeMemberOrgs: new(false),
		ProposalScope: new(pb.ProposalScope_PROPOSAL_SCOPE_OWNED), InvoiceApprover: new(""),
		TrackInventory: new(false), CcAppointmentConfirmations: new(false), SelfEditInventory: new(false),
		AlterStartFinish: new(false), PullFromQueue: new(true), FutureVisibility: new(int32(7)), HideFutureOnDetails: new(false),
	})
}

func TestEffectiveAccess(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	own, err := uma.access().GetEffectiveAccess(uma.ctx(), &pb.GetEffectiveAccessRequest{})
	mustNot(t, err)
	if got, want := len(own.GetKeys()), 171; got != want {
		t.Errorf("%d keys, want %d", got, want)
	}
	if len(own.GetSettingSources()) != 16 || own.GetUserId() != uma.id || own.GetRoleId() != "US" {
		t.Errorf("got %d sources, user %s, role %s", len(own.GetSettingSources()), own.GetUserId(), own.GetRoleId())
	}
	for _, k := range own.GetKeys() {
		if got := uma.holds(k.GetKey()); got.GetAllowed() != k.GetAllowed() || got.GetLayer() != k.GetLayer() || got.GetMissing() != k.GetMissing() {
			t.Errorf("%s: checked %v, effective %v", k.GetKey(), got, k)
		}
		if k.GetKey() == "Text Messaging" {
			same(t, "an add-on", k, &pb.KeyAccess{Number: 92, Key: "Text Messaging", Layer: pb.Layer_LAYER_ROLE, Source: "US", Missing: "feature:texting"})
		}
	}
	others, err := owner.access().GetEffectiveAccess(owner.ctx(), &pb.GetEffectiveAccessRequest{UserId: &uma.id})
	mustNot(t, err)
	others.EvaluateTime = own.EvaluateTime
	same(t, "asked by another", others, own)

	_, err = uma.access().GetEffectiveAccess(uma.ctx(), &pb.GetEffectiveAccessRequest{UserId: &owner.id})
	check(t, "of another without the key", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Users", "field", "user_id")
	_, err = uma.access().Check(uma.ctx(), &pb.CheckRequest{UserId: &owner.id, Grant: "Invoices"})
	check(t, "of another without the key", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Users", "field", "user_id")
	_, err = uma.access().Check(uma.ctx(), &pb.CheckRequest{Grant: "invoices"})
	check(t, "a grant that is spelled nearly right", err, codes.InvalidArgument, "FIELD_INVALID")
	nobody := servertest.UUID(4)
	_, err = owner.access().Check(owner.ctx(), &pb.CheckRequest{UserId: &nobody, Grant: "Invoices"})
	check(t, "nobody's grant", err, codes.NotFound, "RECORD_NOT_FOUND", "kind", "user")
	fresh := owner.add("fred", "")
	got, err := owner.access().Check(owner.ctx(), &pb.CheckRequest{UserId: &fresh, Grant: "Invoices"})
	mustNot(t, err)
	same(t, "a member of whom nothing is known", got, &pb.CheckResponse{Revision: got.GetRevision(), Layer: pb.Layer_LAYER_NONE})
}

func TestAnotherOrganizationsUsersAreUnknown(t *testing.T) {
	owner := start(t)
	user, there := owner.add("uma", "US"), owner.elsewhere()
	calls := map[string]func(id string) error{
		"GetUserAccess": func(id string) error {
			_, err := there.access().GetUserAccess(there.ctx(), &pb.GetUserAccessRequest{UserId: id})
			return err
		},
		"GetEffectiveAccess": func(id string) error {
			_, err := there.access().GetEffectiveAccess(there.ctx(), &pb.GetEffectiveAccessRequest{UserId: &id})
			return err
		},
		"SetUserRole": func(id string) error {
			_, err := there.access().SetUserRole(there.ctx(), &pb.SetUserRoleRequest{UserId: id, RoleId: "US"})
			return err
		},
		"SetOverride": func(id string) error { return there.override(id, "Reports", pb.Effect_EFFECT_GRANT) },
	}
	for name, call := range calls {
		check(t, name+" of another's", call(user), codes.NotFound, "RECORD_NOT_FOUND", "kind", "user", "id", user)
		check(t, name+" of nobody", call(servertest.UUID(5)), codes.NotFound, "RECORD_NOT_FOUND", "kind", "user", "id", servertest.UUID(5))
	}
}

func TestPeersThatCannotBeReached(t *testing.T) {
	s := servertest.Start(t, permissions.Part)
	admin := s.As("Organization: Users")
	_, err := pb.NewAccessServiceClient(admin).SetUserRole(t.Context(), &pb.SetUserRoleRequest{UserId: servertest.UUID(1), RoleId: "US"})
	check(t, "without identity", err, codes.Unavailable, "SERVICE_UNREACHABLE", "service", "identity")
}
