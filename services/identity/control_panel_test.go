package identity_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/catalog"
)

func (c *caller) controlPanel() (map[string]*pb.ControlPanelSection, error) {
	resp, err := pb.NewControlPanelServiceClient(c.conn).GetControlPanel(c.ctx(), &pb.GetControlPanelRequest{})
	sections := map[string]*pb.ControlPanelSection{}
	for _, section := range resp.GetControlPanel().GetSections() {
		sections[section.GetGrant()] = section
	}
	return sections, err
}

// Without the key Organization none of those beneath it counts, and with it each says whether
// it is open and what is missing.
func TestControlPanel(t *testing.T) {
	owner := owned(t)
	admin, user := owner.hire("admin", "OA"), owner.hire("user", "US")
	_, err := user.controlPanel()
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING")
	owner.permit(user, "Organization: Users")
	_, err = user.users().ListUsers(user.ctx(), &pb.ListUsersRequest{})
	check(t, "with a key beneath it alone", err, codes.PermissionDenied, "GRANT_MISSING")

	_, err = owner.access().SetOverride(owner.ctx(), &permissionspb.SetOverrideRequest{
		UserId: admin.user.GetId(), Key: "Organization: Account", Effect: permissionspb.Effect_EFFECT_DENY,
	})
	mustNot(t, err)
	got, err := admin.controlPanel()
	mustNot(t, err)
	for name, want := range map[string]struct {
		open    bool
		missing string
	}{
		"Organization: Users":   {true, ""},
		"ControlPanel:ApiKeys":  {true, ""},
		"Organization: Account": {false, "Organization: Account"},
		"Organization: Owner":   {false, "Organization: Owner"},
	} {
		s := got[name]
		if s.GetOpen() != want.open || s.GetMissing() != want.missing || s.GetTitle() == "" || s.GetDescription() == "" {
			t.Errorf("%s: got %v, want %v", name, s, want)
		}
	}
	beneath := 0
	for _, key := range catalog.Keys() {
		needs := catalog.Needs(key.Bit())
		if key.Name != "Organization" && needs.Has(catalog.MustGrant("Organization")) {
			beneath++
		}
	}
	if len(got) != beneath || got["Branding"] != nil || got["Organization"] != nil {
		t.Errorf("got %d sections, want the %d keys beneath Organization", len(got), beneath)
	}
}
