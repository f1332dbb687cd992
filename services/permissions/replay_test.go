package permissions_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/invoicing"
	"latchkey.dev/services/servicerequest"
)

func (s *suite) replays() pb.ReplayServiceClient { return pb.NewReplayServiceClient(s.conn) }

// replay returns all pages of a replay in one.
func (p *person) replay(change *pb.PreviewChangeRequest) (*pb.ReplayChangeResponse, error) {
	all := &pb.ReplayChangeResponse{}
	for req := (&pb.ReplayChangeRequest{Days: 7, PageSize: 2, Change: change}); ; {
		resp, err := p.replays().ReplayChange(p.ctx(), req)
		if err != nil {
			return nil, err
		}
		all.Calls, all.Reads = append(all.Calls, resp.GetCalls()...), append(all.Reads, resp.GetReads()...)
		all.CallsRead += resp.GetCallsRead()
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return all, nil
		}
	}
}

func overridden(user, key string, effect pb.Effect) *pb.PreviewChangeRequest {
	return &pb.PreviewChangeRequest{Change: &pb.PreviewChangeRequest_SetOverride{
		SetOverride: &pb.SetOverrideRequest{UserId: user, Key: key, Effect: effect},
	}}
}

// TestAReplayTellsWhatAChangeWouldTurnRound: of calls of an administrator to this service,
// which was let in and which denied, for want of what.
func TestAReplayTellsWhatAChangeWouldTurnRound(t *testing.T) {
	owner := startWith(t, invoicing.Part, servicerequest.Part)
	admin, uma := owner.hire("ada", "OA"), owner.add("uma", "US")
	_, err := admin.access().SetOverride(admin.ctx(), &pb.SetOverrideRequest{UserId: uma, Key: "Calendar", Effect: pb.Effect_EFFECT_DENY})
	mustNot(t, err)
	for range 3 {
		admin.stored(uma)
	}
	mustNot(t, owner.override(admin.id, "Organizations: Roles", pb.Effect_EFFECT_DENY))
	_, err = admin.roles().CreateRole(admin.ctx(), &pb.CreateRoleRequest{Name: "Desk", Keys: []string{"Web"}})
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organizations: Roles")
	before := owner.export()

	lost, err := owner.replay(overridden(admin.id, "Organization: Users", pb.Effect_EFFECT_DENY))
	mustNot(t, err)
	set := slices.IndexFunc(lost.GetCalls(), func(c *pb.ReplayedCall) bool {
		return c.GetDecision().GetMethod() == "latchkey.permissions.v1.AccessService/SetOverride"
	})
	if set < 0 || len(lost.GetCalls()) != 1 {
		t.Fatalf("of a key that is taken away: got calls %v", lost.GetCalls())
	}
	c := lost.GetCalls()[set]
	if c.GetSource() != "permissions" || c.GetOutcome() != decisionpb.Outcome_OUTCOME_DENIED || c.GetCertainty() != pb.Certainty_CERTAINTY_WOULD ||
		!slices.Equal(c.GetGrants(), []string{"Organization: Users"}) || c.GetDecision().GetSurface() != "WEB" {
		t.Errorf("got %v", c)
	}
	reads := slices.IndexFunc(lost.GetReads(), func(r *pb.ReplayedReads) bool {
		return r.GetGrant() == "Organization: Users" && r.GetSource() == "permissions"
	})
	if reads < 0 || lost.GetReads()[reads].GetReads() != 3 || lost.GetReads()[reads].GetUserId() != admin.id {
		t.Errorf("got reads %v", lost.GetReads())
	}

	gained, err := owner.replay(overridden(admin.id, "Organizations: Roles", pb.Effect_EFFECT_GRANT))
	mustNot(t, err)
	if len(gained.GetCalls()) != 1 || len(gained.GetReads()) != 0 {
		t.Fatalf("of a key that is given: got %v", gained)
	}
	c = gained.GetCalls()[0]
	if c.GetOutcome() != decisionpb.Outcome_OUTCOME_ALLOWED || c.GetDecision().GetOutcome() != decisionpb.Outcome_OUTCOME_DENIED ||
		c.GetDecision().GetMethod() != "latchkey.permissions.v1.RoleService/CreateRole" || c.GetCertainty() != pb.Certainty_CERTAINTY_WOULD {
		t.Errorf("got %v", c)
	}
	nothing, err := owner.replay(overridden(uma, "Invoices", pb.Effect_EFFECT_DENY))
	mustNot(t, err)
	if len(nothing.GetCalls())+len(nothing.GetReads()) > 0 {
		t.Errorf("of a change that turns nothing round: got %v", nothing)
	}
	_, err = admin.replay(overridden(owner.id, "Calendar", pb.Effect_EFFECT_DENY))
	check(t, "of a change that he may not make", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	if got := owner.export(); got != before {
		t.Errorf("the replays changed\n%s\nto\n%s", before, got)
	}
}

// TestAReplayIsNeverShort: without one of the services there is no answer.
func TestAReplayIsNeverShort(t *testing.T) {
	owner := start(t)
	_, err := owner.replay(overridden(owner.add("uma", "US"), "Calendar", pb.Effect_EFFECT_DENY))
	check(t, "without invoicing", err, codes.Unavailable, "SERVICE_UNREACHABLE", "service", "invoicing")
}

// TestAPreviewOfSettings tells which change, boolean ones and others.
func TestAPreviewOfSettings(t *testing.T) {
	owner := start(t)
	uma := owner.add("uma", "US")
	off, owned := false, pb.SearchScope_SEARCH_SCOPE_OWNED
	got, err := owner.analysis().PreviewChange(owner.ctx(), &pb.PreviewChangeRequest{Change: &pb.PreviewChangeRequest_UpdateUserSettings{
		UpdateUserSettings: &pb.UpdateUserSettingsRequest{UserId: uma, Settings: &pb.UserSettings{SeePricing: &off, SearchScope: &owned}},
	}})
	mustNot(t, err)
	if len(got.GetDifferences()) != 1 {
		t.Fatalf("got %v", got)
	}
	d := got.GetDifferences()[0]
	if !slices.Equal(d.GetLost(), []string{"setting:see_pricing"}) || len(d.GetGained()) > 0 ||
		d.GetSettingsBefore().GetSearchScope() != pb.SearchScope_SEARCH_SCOPE_ALL || d.GetSettingsAfter().GetSearchScope() != owned {
		t.Errorf("got %v", d)
	}
	_, err = owner.analysis().PreviewChange(owner.ctx(), &pb.PreviewChangeRequest{Change: &pb.PreviewChangeRequest_UpdateUserSettings{
		UpdateUserSettings: &pb.UpdateUserSettingsRequest{UserId: uma, Settings: &pb.UserSettings{TrackInventory: &off}},
	}})
	check(t, "of an agent's setting", err, codes.FailedPrecondition, "NO_SERVICE_AGENT")
	if owner.stored(uma).GetSettings() != nil {
		t.Error("the preview changed the settings")
	}
}

// TestHoldersOfASetting: of a boolean one and of others, now and as of a past time.
func TestHoldersOfASetting(t *testing.T) {
	owner := start(t)
	uma, ulf := owner.add("uma", "US"), owner.add("ulf", "SA")
	list := func(setting string, at *timestamppb.Timestamp) map[string]*pb.Holder {
		t.Helper()
		resp, err := owner.analysis().ListHolders(owner.ctx(), &pb.ListHoldersRequest{
			Question: &pb.ListHoldersRequest_Setting{Setting: setting}, AsOfTime: at,
		})
		mustNot(t, err)
		found := map[string]*pb.Holder{}
		for _, h := range resp.GetHolders() {
			found[h.GetUserId()] = h
		}
		return found
	}
	then := timestamppb.New(owner.clock.now())
	owner.clock.forward(time.Minute)
	_, err := owner.access().UpdateUserSettings(owner.ctx(), &pb.UpdateUserSettingsRequest{
		UserId: uma, Settings: &pb.UserSettings{InvoiceApprover: &ulf},
	})
	mustNot(t, err)
	got := list("invoice_approver", nil)
	if len(got) != 1 || got[uma].GetLayer() != pb.Layer_LAYER_OVERRIDE || got[uma].GetSettings().GetInvoiceApprover() != ulf {
		t.Errorf("of the approver: got %v", got)
	}
	if got := list("invoice_approver", then); len(got) != 0 {
		t.Errorf("of the approver, then: got %v", got)
	}
	got = list("search_scope", nil)
	if len(got) != 2 || got[uma].GetLayer() != pb.Layer_LAYER_ROLE || got[uma].GetSource() != "US" || got[ulf] != nil {
		t.Errorf("of the scope: got %v", got)
	}
	if got := list("see_pricing", nil); len(got) != 2 || got[uma].GetSettings() != nil {
		t.Errorf("of prices: got %v", got)
	}
	_, err = owner.analysis().ListHolders(owner.ctx(), &pb.ListHoldersRequest{Question: &pb.ListHoldersRequest_Setting{Setting: "see_all"}})
	check(t, "of no setting", err, codes.InvalidArgument, "FIELD_INVALID")
}
