package permissions_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

func (s *suite) analysis() pb.AnalysisServiceClient { return pb.NewAnalysisServiceClient(s.conn) }

func (p *person) why(user, grant string) *pb.ExplainAccessResponse {
	p.t.Helper()
	resp, err := p.analysis().ExplainAccess(p.ctx(), &pb.ExplainAccessRequest{
		UserId: &user, Question: &pb.ExplainAccessRequest_Grant{Grant: grant},
	})
	mustNot(p.t, err)
	return resp
}

func TestWhySaysWhoAndWhenAndWhatWouldFlipIt(t *testing.T) {
	owner := start(t)
	admin, uma := owner.hire("ada", "OA"), owner.add("uma", "US")
	_, err := admin.access().SetOverride(admin.ctx(), &pb.SetOverrideRequest{
		UserId: uma, Key: "Invoices:Void", Effect: pb.Effect_EFFECT_GRANT, Reason: "year end",
	})
	mustNot(t, err)
	set := owner.stored(uma)
	mustNot(t, owner.override(uma, "Invoices", pb.Effect_EFFECT_DENY))

	got := owner.why(uma, "Invoices:Void")
	if got.GetAllowed() || got.GetUserId() != uma || len(got.GetGrant().GetWords()) != 1 {
		t.Fatalf("got %v", got)
	}
	same(t, "the override's word", got.GetGrant().GetWords()[0], &pb.LayerWord{
		Layer: pb.Layer_LAYER_OVERRIDE, Effect: pb.Effect_EFFECT_GRANT, Decided: true, Reason: "year end",
		Set: &pb.Provenance{
			Author: admin.id, Time: set.GetUpdateTime(), Revision: number(t, set.GetEtag()), Reason: "year end",
			Method: "latchkey.permissions.v1.AccessService/SetOverride",
		},
	})
	same(t, "the gate", got.GetGrant().GetGates()[0], &pb.Gate{Grant: "Invoices"})
	var kinds []string
	for _, f := range got.GetGrant().GetFlips() {
		kinds = append(kinds, f.GetSteps()[0].GetKind().String()+" "+f.GetSteps()[0].GetGrant()+" "+strconv.FormatBool(f.GetSteps()[0].GetSetBy() == owner.id))
	}
	if !slices.Contains(kinds, "FLIP_KIND_GRANT_OVERRIDE Invoices true") {
		t.Errorf("got flips %q", kinds)
	}
	word := owner.why(uma, "Web").GetGrant().GetWords()[0]
	if word.GetLayer() != pb.Layer_LAYER_ROLE || word.GetSourceName() == "" || word.GetAssigned().GetAuthor() != owner.id {
		t.Errorf("the role's word: got %v", word)
	}
}

func TestWhyOfAGroupsDeny(t *testing.T) {
	owner := start(t)
	admin, uma := owner.hire("ada", "OA"), owner.add("uma", "US")
	g, err := admin.groups().CreateGroup(admin.ctx(), &pb.CreateGroupRequest{Name: "Night", RoleId: "US", Denies: []string{"Calendar"}})
	mustNot(t, err)
	group := g.GetGroup().GetId()
	_, err = owner.access().SetUserGroup(owner.ctx(), &pb.SetUserGroupRequest{UserId: uma, GroupId: group})
	mustNot(t, err)
	got := owner.why(uma, "Calendar").GetGrant()
	words := got.GetWords()
	w := words[len(words)-1]
	if w.GetLayer() != pb.Layer_LAYER_GROUP || w.GetEffect() != pb.Effect_EFFECT_DENY || !w.GetDecided() || w.GetSourceName() != "Night" ||
		w.GetSet().GetAuthor() != admin.id || w.GetAssigned().GetAuthor() != owner.id {
		t.Errorf("got %v", w)
	}
	lift := &pb.FlipStep{Kind: pb.FlipKind_FLIP_KIND_LIFT_GROUP_DENY, Grant: "Calendar", SetBy: admin.id, Source: group}
	found := slices.ContainsFunc(got.GetFlips(), func(f *pb.Flip) bool {
		return len(f.GetSteps()) == 1 && proto.Equal(f.GetSteps()[0], lift)
	})
	role := words[0].GetLayer() == pb.Layer_LAYER_ROLE
	if found != role {
		t.Errorf("that lifting the deny would do is told: %v, the role grants the key: %v", found, role)
	}
}

func number(t testing.TB, etag string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(etag, 10, 64)
	mustNot(t, err)
	return n
}

func TestWhyOfAMethod(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	ask := func(p *person, user *string, method string) (*pb.ExplainAccessResponse, error) {
		return p.analysis().ExplainAccess(p.ctx(), &pb.ExplainAccessRequest{
			UserId: user, Question: &pb.ExplainAccessRequest_Method{Method: method},
		})
	}
	got, err := ask(uma, nil, "latchkey.invoicing.v1.PartService/UpdatePart")
	mustNot(t, err)
	if got.GetAllowed() == (len(got.GetMethod().GetNeeds()) == 0) && got.GetMethod().GetRule() == pb.RuleKind_RULE_KIND_ALL {
		t.Errorf("got %v", got)
	}
	priced := slices.ContainsFunc(got.GetMethod().GetContent(), func(c *pb.ContentNeed) bool {
		return c.GetField() == "part.price" && len(c.GetNeeds()) == 2
	})
	if !priced {
		t.Errorf("it does not say what a price takes: %v", got)
	}
	got, err = ask(owner, &uma.id, "latchkey.permissions.v1.GrantService/ResolveGrants")
	mustNot(t, err)
	if got.GetAllowed() || got.GetMethod().GetRule() != pb.RuleKind_RULE_KIND_INTERNAL {
		t.Errorf("got %v of a method of the suite", got)
	}
	_, err = ask(owner, nil, "latchkey.permissions.v1.GrantService/Nothing")
	check(t, "no method", err, codes.InvalidArgument, "FIELD_INVALID")
	_, err = ask(uma, &owner.id, "latchkey.permissions.v1.AccessService/Check")
	check(t, "about somebody else", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Users")
}

func TestHoldersArePagedAndOfThePast(t *testing.T) {
	owner := start(t)
	uma, ulf := owner.add("uma", "US"), owner.add("ulf", "US")
	mustNot(t, owner.override(uma, "Invoices:Void", pb.Effect_EFFECT_GRANT))
	mustNot(t, owner.override(uma, "Invoices", pb.Effect_EFFECT_GRANT))
	then := owner.clock.now()
	owner.clock.forward(time.Minute)
	_, err := owner.access().ClearOverride(owner.ctx(), &pb.ClearOverrideRequest{UserId: uma, Key: "Invoices:Void"})
	mustNot(t, err)
	list := func(req *pb.ListHoldersRequest) (ids []string) {
		t.Helper()
		for req.PageSize = 1; ; {
			resp, err := owner.analysis().ListHolders(owner.ctx(), req)
			mustNot(t, err)
			for _, h := range resp.GetHolders() {
				ids = append(ids, h.GetUserId())
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				return ids
			}
		}
	}
	void := &pb.ListHoldersRequest_Grant{Grant: "Invoices:Void"}
	if got := list(&pb.ListHoldersRequest{Question: void}); slices.Contains(got, uma) || !slices.Contains(got, owner.id) {
		t.Errorf("now: got %q", got)
	}
	got := list(&pb.ListHoldersRequest{Question: void, AsOfTime: timestamppb.New(then)})
	if !slices.Contains(got, uma) || !slices.Contains(got, owner.id) || slices.Contains(got, ulf) {
		t.Errorf("then: got %q", got)
	}
	method := "latchkey.permissions.v1.AccessService/SetUserRole"
	if got := list(&pb.ListHoldersRequest{Question: &pb.ListHoldersRequest_Method{Method: method}}); !slices.Equal(got, []string{owner.id}) {
		t.Errorf("of a method: got %q", got)
	}
	refused := &pb.ListHoldersRequest{Question: &pb.ListHoldersRequest_Method{Method: "latchkey.permissions.v1.AccessService/Check"}}
	_, err = owner.analysis().ListHolders(owner.ctx(), refused)
	check(t, "a method for everybody", err, codes.InvalidArgument, "FIELD_INVALID")
	_, err = owner.analysis().ListHolders(owner.ctx(), &pb.ListHoldersRequest{Question: void, PageToken: "x"})
	check(t, "a wrong token", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}

func TestAPreviewFailsAsTheChangeDoes(t *testing.T) {
	owner := start(t)
	admin, uma := owner.hire("ada", "OA"), owner.add("uma", "US")
	preview := func(p *person, req *pb.PreviewChangeRequest) (*pb.PreviewChangeResponse, error) {
		return p.analysis().PreviewChange(p.ctx(), req)
	}
	set := func(user, role string) *pb.PreviewChangeRequest {
		return &pb.PreviewChangeRequest{Change: &pb.PreviewChangeRequest_SetUserRole{SetUserRole: &pb.SetUserRoleRequest{UserId: user, RoleId: role}}}
	}
	before := owner.stored(uma)
	got, err := preview(owner, set(uma, "OA"))
	mustNot(t, err)
	if len(got.GetDifferences()) != 1 || !slices.Contains(got.GetDifferences()[0].GetGained(), "Organization: Users") ||
		!slices.Contains(got.GetDifferences()[0].GetGainedMethods(), "latchkey.permissions.v1.AccessService/SetUserRole") {
		t.Errorf("got %v", got)
	}
	same(t, "after the preview", owner.stored(uma), before)
	_, err = preview(admin, set(owner.id, "US"))
	check(t, "of somebody above", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = preview(owner, &pb.PreviewChangeRequest{Change: &pb.PreviewChangeRequest_SetOverride{SetOverride: &pb.SetOverrideRequest{
		UserId: owner.id, Key: "Organization: Owner", Effect: pb.Effect_EFFECT_DENY,
	}}})
	check(t, "of the last owner", err, codes.FailedPrecondition, "LAST_OWNER")
	_, err = preview(owner, set(uma, "no such role"))
	check(t, "a role that is not", err, codes.NotFound, "RECORD_NOT_FOUND", "kind", "role")
	mustNot(t, owner.override(admin.id, "Organizations: Roles", pb.Effect_EFFECT_DENY))
	_, err = preview(admin, &pb.PreviewChangeRequest{Change: &pb.PreviewChangeRequest_UpdateBillingPlan{
		UpdateBillingPlan: &pb.UpdateBillingPlanRequest{Plan: &pb.Plan{Features: []string{"routing"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"features"}}},
	}})
	check(t, "of what the caller may not do", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organizations: Roles")
}

// TestAPreviewOfTheEndOfAMembership tells that all is lost, and fails as the end itself would.
func TestAPreviewOfTheEndOfAMembership(t *testing.T) {
	owner := start(t)
	admin, uma := owner.hire("ada", "OA"), owner.add("uma", "US")
	preview := func(p *person, user string) (*pb.PreviewChangeResponse, error) {
		return p.analysis().PreviewChange(p.ctx(), &pb.PreviewChangeRequest{
			Change: &pb.PreviewChangeRequest_EndOfMembership{EndOfMembership: &pb.EndOfMembership{UserId: user}},
		})
	}
	before := owner.stored(uma)
	got, err := preview(admin, uma)
	mustNot(t, err)
	same(t, "after the preview", owner.stored(uma), before)
	access, err := owner.access().GetEffectiveAccess(owner.ctx(), &pb.GetEffectiveAccessRequest{UserId: &uma})
	mustNot(t, err)
	var want []string
	for _, k := range access.GetKeys() {
		if k.GetAllowed() {
			want = append(want, k.GetKey())
		}
	}
	if len(got.GetDifferences()) != 1 || !slices.Equal(got.GetDifferences()[0].GetLost(), append(want, "setting:see_pricing")) ||
		len(got.GetDifferences()[0].GetGained()) > 0 || len(got.GetDifferences()[0].GetLostMethods()) == 0 {
		t.Errorf("got %v, want the loss of %q", got, want)
	}
	_, err = preview(admin, owner.id)
	check(t, "of somebody above", err, codes.PermissionDenied, "BEYOND_OWN_GRANTS")
	_, err = preview(owner, owner.id)
	check(t, "of the last owner", err, codes.FailedPrecondition, "LAST_OWNER")
	_, err = preview(owner, "00000000-0000-4000-8000-000000000009")
	check(t, "of nobody", err, codes.NotFound, "RECORD_NOT_FOUND", "kind", "user")
}

func TestCompareTellsWhatEachHasAlone(t *testing.T) {
	owner := start(t)
	ask := func(first, second *pb.Party) *pb.CompareAccessResponse {
		t.Helper()
		resp, err := owner.analysis().CompareAccess(owner.ctx(), &pb.CompareAccessRequest{First: first, Second: second})
		mustNot(t, err)
		return resp
	}
	role := func(id string) *pb.Party { return &pb.Party{Party: &pb.Party_RoleId{RoleId: id}} }
	user := func(id string) *pb.Party { return &pb.Party{Party: &pb.Party_UserId{UserId: id}} }
	group, err := owner.groups().CreateGroup(owner.ctx(), &pb.CreateGroupRequest{Name: "Night", RoleId: "PM"})
	mustNot(t, err)
	night := &pb.Party{Party: &pb.Party_GroupId{GroupId: group.GetGroup().GetId()}}
	uma := owner.add("uma", "PM")
	none := owner.add("nora", "")
	for _, c := range []struct {
		what          string
		first, second *pb.Party
		want          pb.Relation
	}{
		{"a role and its group", role("PM"), night, pb.Relation_RELATION_EQUIVALENT},
		{"a group and one who has its role", night, user(uma), pb.Relation_RELATION_EQUIVALENT},
		{"PM and PM+", role("PM"), role("PM+"), pb.Relation_RELATION_FIRST_WITHIN_SECOND},
		{"PM+ and SP", role("PM+"), role("SP"), pb.Relation_RELATION_SECOND_WITHIN_FIRST},
		{"PM and SP", role("PM"), role("SP"), pb.Relation_RELATION_OVERLAPPING},
		{"nothing and PM", user(none), role("PM"), pb.Relation_RELATION_FIRST_WITHIN_SECOND},
		{"nothing and nothing", user(none), user(none), pb.Relation_RELATION_EQUIVALENT},
	} {
		got := ask(c.first, c.second)
		if got.GetRelation() != c.want {
			t.Errorf("%s: got %v", c.what, got)
		}
		turned := ask(c.second, c.first)
		if !slices.Equal(turned.GetFirstOnly(), got.GetSecondOnly()) || !slices.Equal(turned.GetBoth(), got.GetBoth()) {
			t.Errorf("%s: turned round got %v", c.what, turned)
		}
	}
	owned := pb.SearchScope_SEARCH_SCOPE_OWNED
	made := func(name string, s *pb.UserSettings) *pb.Party {
		t.Helper()
		r, err := owner.roles().CreateRole(owner.ctx(), &pb.CreateRoleRequest{Name: name, Keys: []string{"Web"}, Settings: s})
		mustNot(t, err)
		return role(r.GetRole().GetId())
	}
	narrow, wide := made("Narrow", &pb.UserSettings{LimitSlots: new(true)}), made("Wide", &pb.UserSettings{SearchScope: &owned})
	van := made("Van", &pb.UserSettings{PullFromQueue: new(true), FutureVisibility: new(int32(7))})
	got := ask(narrow, wide)
	if got.GetRelation() != pb.Relation_RELATION_FIRST_WITHIN_SECOND || !slices.Equal(got.GetSecondMore(), []string{"limit_slots", "search_scope"}) ||
		len(got.GetFirstMore()) > 0 || got.GetSecondSettings().GetSearchScope() != owned || got.GetFirstSettings() == nil {
		t.Errorf("of roles that differ in settings alone: got %v", got)
	}
	got = ask(wide, van)
	if got.GetRelation() != pb.Relation_RELATION_OVERLAPPING || !slices.Equal(got.GetFirstMore(), []string{"search_scope", "future_visibility"}) ||
		!slices.Equal(got.GetSecondOnly(), []string{"setting:pull_from_queue"}) {
		t.Errorf("of settings of service agents: got %v", got)
	}
	_, err = owner.analysis().CompareAccess(owner.ctx(), &pb.CompareAccessRequest{First: role("XX"), Second: role("PM")})
	check(t, "no role", err, codes.NotFound, "RECORD_NOT_FOUND", "kind", "role")
}

func TestChangesOfAccessThroughEveryLayer(t *testing.T) {
	owner := start(t)
	uma, other := owner.hire("uma", "US"), owner.add("otto", "US")
	r, err := owner.roles().CreateRole(owner.ctx(), &pb.CreateRoleRequest{Name: "Desk", Keys: []string{"Web", "Calendar"}})
	mustNot(t, err)
	g, err := owner.groups().CreateGroup(owner.ctx(), &pb.CreateGroupRequest{Name: "Night", RoleId: r.GetRole().GetId()})
	mustNot(t, err)
	role, group := r.GetRole().GetId(), g.GetGroup().GetId()
	_, err = owner.access().SetUserGroup(owner.ctx(), &pb.SetUserGroupRequest{UserId: uma.id, GroupId: group})
	mustNot(t, err)
	mustNot(t, owner.override(other, "Invoices", pb.Effect_EFFECT_GRANT)) // somebody else's
	_, err = owner.roles().UpdateRole(owner.ctx(), &pb.UpdateRoleRequest{
		Role: &pb.Role{Id: role, Keys: []string{"Web"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"keys"}},
	})
	mustNot(t, err)
	_, err = owner.groups().UpdateGroup(owner.ctx(), &pb.UpdateGroupRequest{
		Group: &pb.Group{Id: group, Grants: []string{"Contacts"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"grants"}},
	})
	mustNot(t, err)
	_, err = owner.groups().UpdateGroup(owner.ctx(), &pb.UpdateGroupRequest{ // says nothing about access
		Group: &pb.Group{Id: group, Name: "Late"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}},
	})
	mustNot(t, err)
	_, err = owner.access().SetOverride(owner.ctx(), &pb.SetOverrideRequest{UserId: uma.id, Key: "Contacts", Effect: pb.Effect_EFFECT_DENY, Reason: "rest"})
	mustNot(t, err)

	var all []*pb.AccessChange
	for req := (&pb.ListAccessChangesRequest{PageSize: 2}); ; {
		resp, err := uma.analysis().ListAccessChanges(uma.ctx(), req)
		mustNot(t, err)
		all = append(all, resp.GetChanges()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	want := []*pb.AccessChange{
		{Layers: []*pb.ChangedLayer{{Layer: pb.Layer_LAYER_OVERRIDE}}, Lost: []string{"Contacts"}, Reasons: []string{"rest"}},
		{Layers: []*pb.ChangedLayer{{Layer: pb.Layer_LAYER_GROUP, Source: group}}, Gained: []string{"Contacts"}},
		{Layers: []*pb.ChangedLayer{{Layer: pb.Layer_LAYER_ROLE, Source: role}}, Lost: []string{"Calendar"}},
	}
	for i, w := range want {
		if all[i].GetProvenance().GetAuthor() != owner.id || all[i].GetProvenance().GetTime() == nil {
			t.Errorf("change %d is by %v", i, all[i].GetProvenance())
		}
		all[i].Provenance = nil
		same(t, "change "+strconv.Itoa(i), all[i], w)
	}
	if l := all[3].GetLayers(); len(l) != 1 || l[0].GetLayer() != pb.Layer_LAYER_OVERRIDE || len(all) != 5 {
		t.Errorf("got %d changes, the first of %v", len(all), l)
	}
	_, err = uma.analysis().ListAccessChanges(uma.ctx(), &pb.ListAccessChangesRequest{UserId: &owner.id})
	check(t, "of somebody else", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Users")
}

// review exports a review and returns the file.
func (p *person) review(req *pb.ExportAccessReviewRequest) ([]byte, error) {
	ctx, cancel := context.WithCancel(p.ctx())
	defer cancel()
	stream, err := p.analysis().ExportAccessReview(ctx, req)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		b.Write(piece.GetData())
	}
}

// TestAReviewNamesAuthors compares who had roles and groups speak as they do, now and as
// of a time before others changed them.
func TestAReviewNamesAuthors(t *testing.T) {
	owner := start(t)
	ola := owner.hire("ola", "OW")
	mustNot(t, owner.override(ola.id, "Organizations: Roles", pb.Effect_EFFECT_GRANT))
	role, err := owner.roles().CreateRole(owner.ctx(), &pb.CreateRoleRequest{Name: "Desk", Keys: []string{"Web", "Invoices"}})
	mustNot(t, err)
	group, err := owner.groups().CreateGroup(owner.ctx(), &pb.CreateGroupRequest{
		Name: "Night", RoleId: role.GetRole().GetId(), Grants: []string{"Tasks"}, Denies: []string{"Maps"},
	})
	mustNot(t, err)
	uma := owner.add("uma", "US")
	_, err = owner.access().SetUserGroup(owner.ctx(), &pb.SetUserGroupRequest{UserId: uma, GroupId: group.GetGroup().GetId()})
	mustNot(t, err)
	owner.clock.forward(time.Minute)
	before := timestamppb.New(owner.clock.now())
	owner.clock.forward(time.Minute)
	_, err = ola.roles().UpdateRole(ola.ctx(), &pb.UpdateRoleRequest{
		Role: &pb.Role{Id: role.GetRole().GetId(), Keys: []string{"Web", "Invoices", "Contacts"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"keys"}},
	})
	mustNot(t, err)
	_, err = ola.groups().UpdateGroup(ola.ctx(), &pb.UpdateGroupRequest{
		Group: &pb.Group{Id: group.GetGroup().GetId(), Grants: []string{"Tasks", "Reports"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"grants"}},
	})
	mustNot(t, err)
	for what, c := range map[string]struct {
		at   *timestamppb.Timestamp
		want map[string]string
	}{
		"now":    {nil, map[string]string{"Web": owner.id, "Invoices": owner.id, "Tasks": owner.id, "Maps": owner.id, "Contacts": ola.id, "Reports": ola.id, "App": ""}},
		"before": {before, map[string]string{"Web": owner.id, "Invoices": owner.id, "Tasks": owner.id, "Maps": owner.id, "App": ""}},
	} {
		text, err := owner.review(&pb.ExportAccessReviewRequest{Format: pb.ReviewFormat_REVIEW_FORMAT_JSON, AsOfTime: c.at})
		mustNot(t, err)
		var rows []map[string]any
		mustNot(t, json.Unmarshal(text, &rows))
		got := map[string]string{}
		for _, row := range rows {
			if row["user_id"] == owner.id && row["layer"] == "role" && (row["set_by"] != "" || row["set_time"] != "") {
				t.Errorf("%s: a role that is built in was set by %v at %v", what, row["set_by"], row["set_time"])
			}
			if row["user_id"] != uma {
				continue
			}
			got[row["key"].(string)] = row["set_by"].(string)
			if _, err := time.Parse(time.RFC3339Nano, row["set_time"].(string)); err != nil && row["set_by"] != "" {
				t.Errorf("%s: %v was set at %q", what, row["key"], row["set_time"])
			}
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", what, got, c.want)
		}
	}
}

func TestAReviewIsReadBack(t *testing.T) {
	owner := start(t)
	uma := owner.add("uma", "US")
	_, err := owner.access().SetOverride(owner.ctx(), &pb.SetOverrideRequest{
		UserId: uma, Key: "Invoices:Void", Effect: pb.Effect_EFFECT_DENY, Reason: "a \"quoted\", long\nreason",
	})
	mustNot(t, err)
	text, err := owner.review(&pb.ExportAccessReviewRequest{Format: pb.ReviewFormat_REVIEW_FORMAT_CSV})
	mustNot(t, err)
	lines, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	mustNot(t, err)
	const columns = "user_id,role_id,group_id,key,allowed,layer,source,missing,set_by,set_time,expire_time,reason,display_name,email,member"
	if got := strings.Join(lines[0], ","); got != columns {
		t.Errorf("got columns %s", got)
	}
	text, err = owner.review(&pb.ExportAccessReviewRequest{Format: pb.ReviewFormat_REVIEW_FORMAT_JSON})
	mustNot(t, err)
	var rows []map[string]any
	mustNot(t, json.Unmarshal(text, &rows))
	if len(rows) != len(lines)-1 {
		t.Fatalf("%d objects and %d lines", len(rows), len(lines)-1)
	}
	for i, row := range rows {
		for j, name := range lines[0] {
			cell := lines[i+1][j]
			if got := row[name]; got != cell && !(name == "allowed" && strconv.FormatBool(got.(bool)) == cell) {
				t.Errorf("row %d: %s is %v in JSON and %q in CSV", i, name, got, cell)
			}
		}
	}
	allowed := map[string]bool{}
	for _, row := range rows {
		if row["user_id"] == uma {
			allowed[row["key"].(string)] = row["allowed"].(bool)
		}
		if row["user_id"] == uma && row["key"] == "Invoices:Void" &&
			(row["layer"] != "override" || row["set_by"] != owner.id || row["reason"] != "a \"quoted\", long\nreason") {
			t.Errorf("the override's row: got %v", row)
		}
	}
	resp, err := owner.access().GetEffectiveAccess(owner.ctx(), &pb.GetEffectiveAccessRequest{UserId: &uma})
	mustNot(t, err)
	for _, k := range resp.GetKeys() {
		if allowed[k.GetKey()] != k.GetAllowed() {
			t.Errorf("%s: the review says %v", k.GetKey(), allowed[k.GetKey()])
		}
	}
	_, err = owner.review(&pb.ExportAccessReviewRequest{Format: pb.ReviewFormat_REVIEW_FORMAT_CSV, AsOfTime: timestamppb.New(owner.clock.now().Add(time.Hour))})
	check(t, "of the future", err, codes.InvalidArgument, "FIELD_INVALID")
}
