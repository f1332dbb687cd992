package permissions_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/invoicing"
	"latchkey.dev/services/servicerequest"
)

func (s *suite) brandRoles() pb.BrandRoleServiceClient { return pb.NewBrandRoleServiceClient(s.conn) }

func (p *person) brandRole(name string, keys ...string) *pb.Role {
	p.t.Helper()
	resp, err := p.brandRoles().CreateBrandRole(p.ctx(), &pb.CreateBrandRoleRequest{Name: name, Keys: keys})
	mustNot(p.t, err)
	return resp.GetRole()
}

// brandKeys gives a role of the brand these keys in place of its own.
func (p *person) brandKeys(role string, keys ...string) error {
	_, err := p.brandRoles().UpdateBrandRole(p.ctx(), &pb.UpdateBrandRoleRequest{Role: &pb.Role{Id: role, Keys: keys}, UpdateMask: mask("keys")})
	return err
}

func (p *person) give(user, role string) error {
	_, err := p.access().SetUserRole(p.ctx(), &pb.SetUserRoleRequest{UserId: user, RoleId: role})
	return err
}

// offered returns the role as the person's organization offers it, without its bookkeeping.
func (p *person) offered(id string) *pb.Role {
	p.t.Helper()
	resp, err := p.roles().GetRole(p.ctx(), &pb.GetRoleRequest{Id: id})
	mustNot(p.t, err)
	return bare(resp.GetRole())
}

func bare(r *pb.Role) *pb.Role {
	r = proto.CloneOf(r)
	r.Etag, r.CreateTime, r.UpdateTime = "", nil, nil
	return r
}

func TestABrandsRoleIsOfferedAndChangedInEveryOrganization(t *testing.T) {
	owner := start(t)
	there := owner.elsewhere()
	r := owner.brandRole("Regional desk", "web", "Calendar", "Contacts")
	same(t, "role", r, &pb.Role{
		Id: r.GetId(), BrandId: r.GetBrandId(), Etag: r.GetEtag(), CreateTime: r.GetCreateTime(), UpdateTime: r.GetUpdateTime(),
		Name: "Regional desk", Keys: []string{"Contacts", "Calendar", "Web"},
	})
	if r.GetBrandId() == "" {
		t.Error("the role names no brand")
	}
	late := there.elsewhere() // an organization that is made afterwards
	everywhere := []*person{owner, there, late}
	var holders []*person
	for i, boss := range everywhere {
		same(t, "offered", boss.offered(r.GetId()), bare(r))
		uma, gus := boss.hire(fmt.Sprint("uma", i), r.GetId()), boss.hire(fmt.Sprint("gus", i), "US")
		boss.put(gus.id, boss.group(&pb.CreateGroupRequest{Name: "Desk", RoleId: r.GetId()}).GetId())
		holders = append(holders, uma, gus)
	}
	resp, err := there.brandRoles().UpdateBrandRole(there.ctx(), &pb.UpdateBrandRoleRequest{
		Role: &pb.Role{Id: r.GetId(), Etag: r.GetEtag(), Keys: []string{"Web", "Contacts", "Contacts:View"}, Settings: &pb.UserSettings{SeePricing: new(true)}},
	})
	mustNot(t, err)
	for _, p := range holders {
		if p.holds("Calendar").GetAllowed() || !p.holds("Contacts:View").GetAllowed() || !p.holds("setting:see_pricing").GetAllowed() {
			t.Errorf("%s does not have the change", p.email)
		}
	}
	for _, boss := range everywhere {
		same(t, "offered after the change", boss.offered(r.GetId()), bare(resp.GetRole()))
		list, err := boss.roles().ListRoles(boss.ctx(), &pb.ListRolesRequest{})
		mustNot(t, err)
		if len(list.GetRoles()) != 1 || list.GetRoles()[0].GetId() != r.GetId() {
			t.Errorf("listed: %v", list.GetRoles())
		}
	}
	got, err := late.brandRoles().GetBrandRole(late.ctx(), &pb.GetBrandRoleRequest{Id: r.GetId()})
	mustNot(t, err)
	same(t, "got", got.GetRole(), resp.GetRole())
	list, err := owner.brandRoles().ListBrandRoles(owner.ctx(), &pb.ListBrandRolesRequest{})
	mustNot(t, err)
	same(t, "list", list, &pb.ListBrandRolesResponse{Roles: []*pb.Role{resp.GetRole()}})
	owner.tracedToWhoChanged(t, holders[0], "Contacts:View", there.id)
}

// tracedToWhoChanged holds why somebody has a key by his role against who put it there.
func (p *person) tracedToWhoChanged(t *testing.T, holder *person, key, author string) {
	t.Helper()
	resp, err := pb.NewAnalysisServiceClient(p.conn).ExplainAccess(p.ctx(), &pb.ExplainAccessRequest{
		UserId: &holder.id, Question: &pb.ExplainAccessRequest_Grant{Grant: key},
	})
	mustNot(t, err)
	words := resp.GetGrant().GetWords()
	if len(words) != 1 || words[0].GetSourceName() != "Regional desk" || words[0].GetSet().GetAuthor() != author ||
		!strings.HasSuffix(words[0].GetSet().GetMethod(), "UpdateBrandRole") {
		t.Errorf("why: %v", words)
	}
}

func TestOnlyTheBrandChangesItsRoles(t *testing.T) {
	owner := start(t)
	there := owner.elsewhere()
	r := owner.brandRole("Desk", "Web", "Calendar")
	_, err := there.roles().UpdateRole(there.ctx(), &pb.UpdateRoleRequest{Role: &pb.Role{Id: r.GetId(), Name: "Ours"}, UpdateMask: mask("name")})
	check(t, "changing it", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = there.roles().DeleteRole(there.ctx(), &pb.DeleteRoleRequest{Id: r.GetId()})
	check(t, "deleting it", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	_, err = there.roles().UndeleteRole(there.ctx(), &pb.UndeleteRoleRequest{Id: r.GetId()})
	check(t, "bringing it back", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	same(t, "a role of the same name", there.role("Desk", "Web"), there.named("Desk"))
	admin := there.hire("ada", "OA")
	err = admin.brandKeys(r.GetId(), "Web")
	check(t, "without the key", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organizations: Roles")
	same(t, "afterwards", there.offered(r.GetId()), bare(r))
}

// named returns the organization's own role of a name.
func (p *person) named(name string) *pb.Role {
	p.t.Helper()
	list, err := p.roles().ListRoles(p.ctx(), &pb.ListRolesRequest{})
	mustNot(p.t, err)
	i := slices.IndexFunc(list.GetRoles(), func(r *pb.Role) bool { return r.GetBrandId() == "" && r.GetName() == name })
	return list.GetRoles()[i]
}

func TestBrandRolesThatAreRefused(t *testing.T) {
	owner := start(t)
	there := owner.elsewhere()
	admin := owner.hire("ada", "OA")
	mustNot(t, owner.override(admin.id, "Organizations: Roles", pb.Effect_EFFECT_GRANT))
	r := owner.brandRole("Desk", "Web", "ServiceRequests:Work", "ServiceRequests")
	there.add("uma", r.GetId())
	create := func(req *pb.CreateBrandRoleRequest) error {
		_, err := admin.brandRoles().CreateBrandRole(admin.ctx(), req)
		return err
	}
	nobody := servertest.UUID(2)
	check(t, "the same name", create(&pb.CreateBrandRoleRequest{Name: "desk"}), codes.AlreadyExists, "RECORD_EXISTS", "field", "name")
	check(t, "a code", create(&pb.CreateBrandRoleRequest{Name: "oa"}), codes.InvalidArgument, "FIELD_INVALID")
	check(t, "a name of files", create(&pb.CreateBrandRoleRequest{Name: "Brand/x"}), codes.InvalidArgument, "FIELD_INVALID")
	check(t, "no such key", create(&pb.CreateBrandRoleRequest{Name: "A", Keys: []string{"Fly"}}), codes.InvalidArgument, "FIELD_INVALID")
	check(t, "a key the caller lacks", create(&pb.CreateBrandRoleRequest{Name: "A", Keys: []string{"Branding"}}), codes.PermissionDenied, "BEYOND_OWN_GRANTS", "grant", "Branding")
	check(t, "an approver", create(&pb.CreateBrandRoleRequest{Name: "A", Settings: &pb.UserSettings{InvoiceApprover: &nobody}}), codes.InvalidArgument, "FIELD_INVALID")
	check(t, "holders above in another organization", admin.brandKeys(r.GetId(), "Web"), codes.PermissionDenied, "BEYOND_OWN_GRANTS", "grant", "ServiceRequests:Work")
	check(t, "no such role", admin.brandKeys(servertest.UUID(1), "Web"), codes.NotFound, "RECORD_NOT_FOUND")
	_, err := owner.brandRoles().UpdateBrandRole(owner.ctx(), &pb.UpdateBrandRoleRequest{Role: &pb.Role{Id: r.GetId(), Etag: "0"}, UpdateMask: mask("keys")})
	check(t, "an old etag", err, codes.Aborted, "ETAG_STALE")
	_, err = owner.brandRoles().DeleteBrandRole(owner.ctx(), &pb.DeleteBrandRoleRequest{Id: r.GetId()})
	check(t, "deleting what is in use elsewhere", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	if err == nil || !strings.Contains(err.Error(), there.organization) {
		t.Errorf("the refusal does not name the organization: %v", err)
	}
	_, err = owner.brandRoles().UpdateBrandRole(owner.ctx(), &pb.UpdateBrandRoleRequest{ValidateOnly: true, Role: &pb.Role{Id: r.GetId(), Keys: []string{"Web"}}, UpdateMask: mask("keys")})
	mustNot(t, err)
	for _, p := range []*person{owner, there} {
		same(t, "after all refusals", p.offered(r.GetId()), bare(r))
	}
	mustNot(t, owner.brandKeys(r.GetId(), "Web")) // nothing is held any more
}

// Nobody raises himself by a role of the brand in an organization where he is less.
func TestNobodyRaisesHimselfByABrandsRole(t *testing.T) {
	owner := start(t)
	there := owner.elsewhere()
	r := owner.brandRole("Desk", "Web", "Calendar", "Organization", "Organization: Users")
	admin := owner.hire("ada", "OA")
	mustNot(t, owner.override(admin.id, "Organizations: Roles", pb.Effect_EFFECT_GRANT))
	there.join(&identitypb.CreateUserRequest{Email: admin.email, DisplayName: "ada"}, r.GetId())
	away := admin.signIn(there.organization, webSurface)
	check(t, "adding what he has at home and lacks there", admin.brandKeys(r.GetId(), "Web", "Calendar", "Organization", "Organization: Users", "Contacts"),
		codes.PermissionDenied, "BEYOND_OWN_GRANTS", "grant", "Contacts")
	if away.holds("Contacts").GetAllowed() {
		t.Error("he raised himself")
	}
	mustNot(t, admin.brandKeys(r.GetId(), "Web", "Organization", "Organization: Users"))
	if away.holds("Calendar").GetAllowed() {
		t.Error("he keeps what he took away")
	}
	check(t, "giving it back to himself", admin.brandKeys(r.GetId(), "Web", "Calendar", "Organization", "Organization: Users"),
		codes.PermissionDenied, "BEYOND_OWN_GRANTS", "grant", "Calendar")
}

// An organization keeps an owner whatever its brand does.
func TestABrandsRoleMakesNoLastOwner(t *testing.T) {
	owner := start(t)
	there := owner.elsewhere()
	r := owner.brandRole("Director", "Web", "Organization", "Organization: Users", "Organization: Owner")
	for _, p := range []*person{owner, there} {
		u := p.stored(p.id)
		for _, o := range u.GetOverrides() {
			if o.GetKey() == "Organization: Owner" {
				t.Fatal("the owner is one by an override: the test shows nothing")
			}
		}
		check(t, "the last owner by a role of the brand", p.give(p.id, r.GetId()), codes.FailedPrecondition, "LAST_OWNER")
	}
	there.add("oda", r.GetId())
	check(t, "beside one by a role of the brand", there.give(there.id, "US"), codes.FailedPrecondition, "LAST_OWNER")
	mustNot(t, owner.brandKeys(r.GetId(), "Web"))
}

func TestABrandsRoleIsDeletedAndBroughtBack(t *testing.T) {
	owner := start(t)
	there := owner.elsewhere()
	r := owner.brandRole("Desk", "Web")
	uma := there.hire("uma", r.GetId())
	remove := func() error {
		_, err := owner.brandRoles().DeleteBrandRole(owner.ctx(), &pb.DeleteBrandRoleRequest{Id: r.GetId()})
		return err
	}
	check(t, "deleting what somebody has", remove(), codes.FailedPrecondition, "PRECONDITION_FAILED")
	mustNot(t, there.give(uma.id, "US"))
	mustNot(t, remove())
	mustNot(t, remove()) // changes nothing
	for _, p := range []*person{owner, there} {
		check(t, "giving it afterwards", p.give(p.add("ulf"+p.organization, ""), r.GetId()), codes.NotFound, "RECORD_NOT_FOUND")
	}
	again := owner.brandRole("Desk", "Web")
	_, err := owner.brandRoles().UndeleteBrandRole(owner.ctx(), &pb.UndeleteBrandRoleRequest{Id: r.GetId()})
	check(t, "bringing it back beside another of its name", err, codes.AlreadyExists, "RECORD_EXISTS")
	_, err = owner.brandRoles().DeleteBrandRole(owner.ctx(), &pb.DeleteBrandRoleRequest{Id: again.GetId()})
	mustNot(t, err)
	late := there.elsewhere()
	_, err = owner.brandRoles().UndeleteBrandRole(owner.ctx(), &pb.UndeleteBrandRoleRequest{Id: r.GetId()})
	mustNot(t, err)
	for _, p := range []*person{owner, there, late} {
		same(t, "brought back", p.offered(r.GetId()), bare(r))
		mustNot(t, p.give(p.add("uli"+p.organization, ""), r.GetId()))
	}
}

// What a preview tells of all organizations is what the change then does, page by page.
func TestAPreviewOfABrandsRoleTellsOfEveryOrganization(t *testing.T) {
	owner := start(t)
	everywhere := []*person{owner, owner.elsewhere()}
	everywhere = append(everywhere, everywhere[1].elsewhere())
	r := owner.brandRole("Desk", "Web", "Calendar")
	want := map[string]bool{}
	for i, p := range everywhere {
		for j := range 2 {
			want[p.organization+" "+p.add(fmt.Sprintf("u%d%d", i, j), r.GetId())] = true
		}
		want[p.organization+" "+everywhere[0].holder(p, r.GetId(), i)] = true
	}
	change := &pb.UpdateBrandRoleRequest{Role: &pb.Role{Id: r.GetId(), Keys: []string{"Web", "Contacts"}}, UpdateMask: mask("keys")}
	req := &pb.PreviewChangeRequest{PageSize: 2, Change: &pb.PreviewChangeRequest_UpdateBrandRole{UpdateBrandRole: change}}
	analysis := pb.NewAnalysisServiceClient(owner.conn)
	got := map[string]bool{}
	for {
		resp, err := analysis.PreviewChange(owner.ctx(), req)
		mustNot(t, err)
		for _, d := range resp.GetDifferences() {
			got[d.GetOrganizationId()+" "+d.GetUserId()] = true
			if !slices.Equal(d.GetGained(), []string{"Contacts"}) || !slices.Equal(d.GetLost(), []string{"Calendar"}) {
				t.Errorf("difference: %v", d)
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("previewed:\n got %v\nwant %v", got, want)
	}
	for _, p := range everywhere {
		same(t, "after a preview", p.offered(r.GetId()), bare(r))
	}
	admin := owner.hire("ada", "OA")
	_, err := analysis.PreviewChange(admin.ctx(), &pb.PreviewChangeRequest{Change: req.GetChange()})
	check(t, "without the change's key", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organizations: Roles")
	_, err = analysis.PreviewChange(owner.ctx(), &pb.PreviewChangeRequest{Change: &pb.PreviewChangeRequest_UpdateBrandRole{
		UpdateBrandRole: &pb.UpdateBrandRoleRequest{Role: &pb.Role{Id: r.GetId(), Keys: []string{"Fly"}}},
	}})
	check(t, "no such key", err, codes.InvalidArgument, "FIELD_INVALID")
}

// holder makes somebody in an organization whose group has the role.
func (*person) holder(p *person, role string, i int) string {
	g := p.group(&pb.CreateGroupRequest{Name: "Desk", RoleId: role})
	id := p.add(fmt.Sprint("gus", i), "US")
	p.put(id, g.GetId())
	return id
}

// A file refers to a role of the brand and does not define it.
func TestAFileRefersToABrandsRole(t *testing.T) {
	owner := start(t)
	there := owner.elsewhere()
	r := owner.brandRole("Desk", "Web", "Calendar")
	owner.role("Desk", "Web", "Contacts")
	uma := owner.hire("uma", r.GetId())
	owner.group(&pb.CreateGroupRequest{Name: "Night", RoleId: r.GetId()})
	file := owner.export()
	for _, want := range []string{"role: brand/Desk", "name: Desk"} {
		if !strings.Contains(file, want) {
			t.Errorf("the file lacks %q:\n%s", want, file)
		}
	}
	if strings.Count(file, "name: Desk") != 1 {
		t.Errorf("the file defines the brand's role:\n%s", file)
	}
	there.join(&identitypb.CreateUserRequest{Email: uma.email, DisplayName: "uma"}, "")
	moved := strings.Replace(file, "user: "+owner.email, "user: "+there.email, 1)
	_, err := there.tryImport(there.ctx(), moved, &pb.ImportAccessRequest{Mode: pb.ImportMode_IMPORT_MODE_MERGE})
	mustNot(t, err)
	if got := there.stored(uma.id).GetRoleId(); got != r.GetId() {
		t.Errorf("imported role: got %q, want %q", got, r.GetId())
	}
	_, err = there.tryImport(there.ctx(), "roles:\n- name: brand/Desk\n", &pb.ImportAccessRequest{Mode: pb.ImportMode_IMPORT_MODE_MERGE})
	check(t, "defining one", err, codes.InvalidArgument, "FIELD_INVALID")
	_, err = there.tryImport(there.ctx(), "users:\n- user: "+uma.email+"\n  role: brand/Nothing\n", &pb.ImportAccessRequest{Mode: pb.ImportMode_IMPORT_MODE_MERGE})
	check(t, "one that there is not", err, codes.InvalidArgument, "FIELD_INVALID")
	_, err = there.tryImport(there.ctx(), "users:\n- user: "+there.email+"\n  role: OW\n", &pb.ImportAccessRequest{Mode: pb.ImportMode_IMPORT_MODE_REPLACE})
	mustNot(t, err)
	same(t, "after a replacement without it", there.offered(r.GetId()), bare(r))
}

func TestAnOrganizationThatIsGoneHoldsUpNothing(t *testing.T) {
	owner := start(t)
	there := owner.elsewhere()
	r := owner.brandRole("Desk", "Web")
	there.add("uma", r.GetId())
	_, err := identitypb.NewOrganizationServiceClient(owner.conn).DeleteOrganization(owner.ctx(), &identitypb.DeleteOrganizationRequest{Id: there.organization})
	mustNot(t, err)
	_, err = owner.brandRoles().DeleteBrandRole(owner.ctx(), &pb.DeleteBrandRoleRequest{Id: r.GetId()})
	check(t, "deleting what one has that can be brought back", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	owner.clock.forward(29 * 24 * time.Hour)
	owner = owner.signIn(owner.organization, webSurface)
	_, err = owner.brandRoles().DeleteBrandRole(owner.ctx(), &pb.DeleteBrandRoleRequest{Id: r.GetId()})
	mustNot(t, err)
}

// A replay of a change of a brand's role looks at the calls of every organization.
func TestAReplayOfABrandsRoleLooksAtEveryOrganization(t *testing.T) {
	owner := startWith(t, invoicing.Part, servicerequest.Part)
	there := owner.elsewhere()
	r := owner.brandRole("Desk", "Web", "Organization", "Organization: Users")
	want := map[string]bool{}
	for i, boss := range []*person{owner, there} {
		admin, uma := boss.hire(fmt.Sprint("ada", i), r.GetId()), boss.add(fmt.Sprint("uma", i), "")
		mustNot(t, admin.override(uma, "Web", pb.Effect_EFFECT_DENY))
		admin.stored(uma)
		want["SetOverride "+boss.organization+" "+admin.id], want["reads "+boss.organization+" "+admin.id] = true, true
	}
	resp, err := owner.replay(&pb.PreviewChangeRequest{Change: &pb.PreviewChangeRequest_UpdateBrandRole{
		UpdateBrandRole: &pb.UpdateBrandRoleRequest{Role: &pb.Role{Id: r.GetId(), Keys: []string{"Web"}}, UpdateMask: mask("keys")},
	}})
	mustNot(t, err)
	got := map[string]bool{}
	for _, c := range resp.GetCalls() {
		d := c.GetDecision()
		got[d.GetMethod()[strings.LastIndex(d.GetMethod(), "/")+1:]+" "+d.GetOrganizationId()+" "+d.GetUserId()] = true
	}
	for _, r := range resp.GetReads() {
		if r.GetGrant() == "Organization: Users" {
			got["reads "+r.GetOrganizationId()+" "+r.GetUserId()] = true
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("replayed:\n got %v\nwant %v", got, want)
	}
	same(t, "after a replay", there.offered(r.GetId()), bare(r))
}
