package permissions_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

func (s *suite) files() pb.AccessFileServiceClient { return pb.NewAccessFileServiceClient(s.conn) }

// export returns the file of an export.
func (p *person) export() string {
	p.t.Helper()
	stream, err := p.files().ExportAccess(p.ctx(), &pb.ExportAccessRequest{})
	mustNot(p.t, err)
	var file bytes.Buffer
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file.String()
		}
		mustNot(p.t, err)
		file.Write(piece.GetData())
	}
}

// imported is all that an import told, in one response.
func (p *person) tryImport(ctx context.Context, file string, req *pb.ImportAccessRequest) (*pb.ImportAccessResponse, error) {
	p.t.Helper()
	stream, err := p.files().ImportAccess(ctx)
	mustNot(p.t, err)
	for i := 0; i == 0 || i < len(file); i += 1 << 20 {
		req.Data = []byte(file[i:min(i+1<<20, len(file))])
		if err := stream.Send(req); err != nil {
			break // what is wrong is received
		}
		req = &pb.ImportAccessRequest{}
	}
	stream.CloseSend()
	all := &pb.ImportAccessResponse{}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all.Roles, all.Groups = append(all.Roles, part.GetRoles()...), append(all.Groups, part.GetGroups()...)
		all.Users, all.Differences = append(all.Users, part.GetUsers()...), append(all.Differences, part.GetDifferences()...)
		all.Summary = part.GetSummary()
	}
}

func (p *person) imports(file string, req *pb.ImportAccessRequest) *pb.ImportAccessResponse {
	p.t.Helper()
	resp, err := p.tryImport(p.ctx(), file, req)
	mustNot(p.t, err)
	return resp
}

const replace = pb.ImportMode_IMPORT_MODE_REPLACE

// company is a file with everything that a file can have.
const company = `roles:
  - name: Front desk
    description: 'Answers: the phone'
    keys:
      - Calendar
      - Web
    settings:
      see_pricing: true
      search_scope: SEARCH_SCOPE_OWNED
    invoice_approver: uma@example.com
groups:
  - name: Night shift
    description: |-
      From ten
      to six
    role: Front desk
    grants:
      - Invoices
    denies:
      - Calendar
    settings:
      include_member_orgs: true
  - name: Weekend
    role: PM
users:
  - user: ulf@example.com
    role: Front desk
    group: Night shift
    grants:
      - key: Invoices:Void
        reason: year end, as agreed
        expire_time: "2199-01-01T00:00:00Z"
    denies:
      - key: Web
        reason: =1+1
    settings:
      see_pricing: false
      proposal_scope: PROPOSAL_SCOPE_OWNED
      invoice_approver: ""
  - user: uma@example.com
    role: PM
    regional_manager: true
    invoice_approver: ulf@example.com
`

func TestAnImportMakesWhatTheFileSays(t *testing.T) {
	owner := start(t)
	uma, ulf := owner.add("uma", ""), owner.add("ulf", "SA")
	before := owner.export()
	preview := owner.imports(company, &pb.ImportAccessRequest{ValidateOnly: true})
	if s := preview.GetSummary(); s.GetApplied() || s.GetRoles() != 1 || s.GetGroups() != 2 || s.GetUsers() != 2 || s.GetAffectedUsers() != 2 {
		t.Errorf("the preview: got %v", s)
	}
	if got := owner.export(); got != before {
		t.Errorf("after the preview: got\n%s\nwant\n%s", got, before)
	}
	made := owner.imports(company, &pb.ImportAccessRequest{Etag: preview.GetSummary().GetEtag()})
	if s := made.GetSummary(); !s.GetApplied() || s.GetEtag() != preview.GetSummary().GetEtag() || s.GetRevision() != preview.GetSummary().GetRevision()+1 {
		t.Errorf("got %v, and previewed %v", s, preview.GetSummary())
	}
	made.Summary, preview.Summary = nil, nil
	same(t, "what was made, beside what was previewed", made, preview)
	for _, d := range made.GetDifferences() {
		if d.GetUserId() == uma && !slices.Contains(d.GetGained(), "Web") {
			t.Errorf("uma gains %q", d.GetGained())
		}
		if d.GetUserId() == ulf && (!slices.Contains(d.GetLost(), "App") || len(d.GetLostMethods()) == 0) {
			t.Errorf("ulf loses %q and %q", d.GetLost(), d.GetLostMethods())
		}
	}
	u := owner.stored(ulf)
	if len(u.GetOverrides()) != 2 || u.GetOverrides()[0].GetSetBy() != owner.id || u.GetSettings().InvoiceApprover == nil {
		t.Errorf("stored of ulf: %v", u)
	}
	if got := owner.stored(uma); got.GetSettings().GetInvoiceApprover() != ulf || !got.GetRegionalManager() {
		t.Errorf("stored of uma: %v", got)
	}
	// The file of the company is what is exported, but for the owner.
	got := owner.export()
	head, rest, _ := strings.Cut(company, "users:\n")
	if !strings.HasPrefix(got, head+"users:\n  - user: olga@example.com\n") || !strings.HasSuffix(got, rest) {
		t.Errorf("exported:\n%s", got)
	}
	again := owner.imports(got, &pb.ImportAccessRequest{Mode: replace})
	if s := again.GetSummary(); s.GetRoles()+s.GetGroups()+s.GetUsers()+s.GetAffectedUsers() != 0 || s.GetRevision() != made.GetSummary().GetRevision()+0 && s.GetRevision() == 0 {
		t.Errorf("again: got %v", again)
	}
}

func TestAnExportMovesToAnEmptyOrganization(t *testing.T) {
	owner := start(t)
	owner.add("uma", "")
	owner.add("ulf", "")
	owner.imports(company, &pb.ImportAccessRequest{})
	there := owner.elsewhere()
	for _, name := range []string{"uma", "ulf"} {
		there.add(name, "")
	}
	file := owner.export()
	if !strings.Contains(file, "Night shift") || len(file) < 1000 {
		t.Fatalf("exported:\n%s", file)
	}
	there.imports(file, &pb.ImportAccessRequest{Mode: replace})
	if got := there.export(); got != file {
		t.Errorf("got\n%s\nwant\n%s", got, file)
	}
}

func TestReplaceTakesAwayWhatTheFileLacks(t *testing.T) {
	owner := start(t)
	uma := owner.add("uma", "")
	ulf := owner.add("ulf", "")
	own := owner.export()
	owner.imports(company, &pb.ImportAccessRequest{})
	_, err := owner.tryImport(owner.ctx(), "users: []", &pb.ImportAccessRequest{Mode: replace})
	check(t, "without the owner", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	got := owner.imports(own, &pb.ImportAccessRequest{Mode: replace})
	if s := got.GetSummary(); s.GetRoles() != 1 || s.GetGroups() != 2 || s.GetUsers() != 2 {
		t.Errorf("got %v", s)
	}
	if got := owner.export(); got != own {
		t.Errorf("got\n%s\nwant\n%s", got, own)
	}
	for _, id := range []string{uma, ulf} {
		if u := owner.stored(id); u.GetRoleId()+u.GetGroupId() != "" || len(u.GetOverrides()) > 0 {
			t.Errorf("stored: %v", u)
		}
	}
	deleted, err := owner.groups().ListGroups(owner.ctx(), &pb.ListGroupsRequest{Deleted: true})
	mustNot(t, err)
	if len(deleted.GetGroups()) != 2 {
		t.Errorf("deleted groups: %v", deleted)
	}
}

func TestWhatWasReviewedIsWhatIsMade(t *testing.T) {
	owner := start(t)
	uma, ulf := owner.add("uma", ""), owner.add("ulf", "")
	file := "users:\n  - user: UMA@example.com\n    role: US\n"
	etag := owner.imports(file, &pb.ImportAccessRequest{ValidateOnly: true}).GetSummary().GetEtag()
	// A change of somebody else makes no difference to it.
	_, err := owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: ulf, RoleId: "PM"})
	mustNot(t, err)
	if got := owner.imports(file, &pb.ImportAccessRequest{ValidateOnly: true}).GetSummary().GetEtag(); got != etag {
		t.Errorf("etag %s after another change, want %s", got, etag)
	}
	_, err = owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: uma, RoleId: "PM"})
	mustNot(t, err)
	_, err = owner.tryImport(owner.ctx(), file, &pb.ImportAccessRequest{Etag: etag})
	check(t, "another difference", err, codes.Aborted, "ETAG_STALE")
	if got := owner.stored(uma).GetRoleId(); got != "PM" {
		t.Errorf("uma has the role %q", got)
	}
	// A repeat gets the first answer, and changes nothing again.
	id := "0198c5a0-0000-7000-8000-0000000000aa"
	first := owner.imports(file, &pb.ImportAccessRequest{RequestId: id})
	_, err = owner.access().SetUserRole(owner.ctx(), &pb.SetUserRoleRequest{UserId: uma, RoleId: "PM"})
	mustNot(t, err)
	again := owner.imports(file, &pb.ImportAccessRequest{RequestId: id})
	same(t, "the repeat", again.GetSummary(), first.GetSummary())
	if got := owner.stored(uma).GetRoleId(); got != "PM" {
		t.Errorf("after the repeat uma has the role %q", got)
	}
	_, err = owner.tryImport(owner.ctx(), file+"# more\n", &pb.ImportAccessRequest{RequestId: id})
	check(t, "another file", err, codes.InvalidArgument, "REQUEST_ID_REUSED")
}

// TestAnImportIsAllOrNothing: each of these files has one entry that goes and one that
// does not.
func TestAnImportIsAllOrNothing(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	admin := owner.hire("ada", "OA")
	clerk := owner.hire("cleo", "US")
	mustNot(t, owner.override(clerk.id, "Organization", pb.Effect_EFFECT_GRANT))
	mustNot(t, owner.override(clerk.id, "Organization: Users", pb.Effect_EFFECT_GRANT))
	ulf := owner.add("ulf", "")
	mustNot(t, owner.override(ulf, "Calendar", pb.Effect_EFFECT_DENY))
	good := "users:\n  - user: uma@example.com\n    role: PM\n"
	for _, c := range []struct {
		by     *person
		file   string
		code   codes.Code
		reason string
		field  string
	}{
		{owner, good + "  - user: nobody@example.com\n", codes.InvalidArgument, "FIELD_INVALID", "users[1].user: line 4"},
		{owner, good + "  - user: ulf@example.com\n    role: Nobody\n", codes.InvalidArgument, "FIELD_INVALID", "users[1].role: line 5"},
		{owner, good + "  - user: ulf@example.com\n    group: Nobody\n", codes.InvalidArgument, "FIELD_INVALID", "users[1].group: line 5"},
		{owner, good + "  - user: ulf@example.com\n    grants:\n      - key: Nothing\n", codes.InvalidArgument, "FIELD_INVALID", "users[1].grants[0].key: line 6"},
		{owner, good + "  - user: ulf@example.com\n    rolle: PM\n", codes.InvalidArgument, "FIELD_INVALID", "data: line 5, column 5"},
		{owner, good + "  - user: ulf@example.com\n    settings: {future_visibility: 4000}\n", codes.InvalidArgument, "FIELD_INVALID", "users[1].settings.future_visibility: line 5"},
		{owner, good + "  - user: ulf@example.com\n    regional_manager: true\n    role: US\n", codes.InvalidArgument, "FIELD_INVALID", "users[1].regional_manager: line 5"},
		{owner, good + "  - user: Uma@example.com\n", codes.InvalidArgument, "FIELD_INVALID", "users[1].user: line 4"},
		{owner, good + "roles:\n  - name: pm\n", codes.InvalidArgument, "FIELD_INVALID", "roles[0].name: line 5"},
		{owner, good + "  - &a [user]\n  - *a\n", codes.InvalidArgument, "FIELD_INVALID", "data: line 4, column 5"},
		{owner, good + "  - user: ulf@example.com\n    settings: {track_inventory: true}\n", codes.FailedPrecondition, "NO_SERVICE_AGENT", "users[1].settings.track_inventory"},
		{owner, good + "  - user: olga@example.com\n    role: OA\n", codes.FailedPrecondition, "LAST_OWNER", ""},
		{admin, good + "  - user: olga@example.com\n    role: OW\n", codes.PermissionDenied, "BEYOND_OWN_GRANTS", "users[1]"},
		{admin, good + "  - user: ulf@example.com\n    denies:\n      - key: Calendar\n    role: SA\n", codes.PermissionDenied, "BEYOND_OWN_GRANTS", "users[1]"},
		{admin, good + "  - user: ulf@example.com\n", codes.PermissionDenied, "BEYOND_OWN_GRANTS", "users[1]"},
		{admin, good + "  - user: ada@example.com\n    role: US\n", codes.FailedPrecondition, "PRECONDITION_FAILED", "users[1]"},
		{clerk, "roles:\n  - name: Desk\n    keys: [Web]\n", codes.PermissionDenied, "GRANT_MISSING", ""},
		{clerk, "groups:\n  - name: Desk\n    role: US\n    grants: ['Invoices:Void']\n", codes.PermissionDenied, "BEYOND_OWN_GRANTS", "groups[0]"},
		{uma, good, codes.PermissionDenied, "GRANT_MISSING", ""},
	} {
		before := owner.export()
		_, err := c.by.tryImport(c.by.ctx(), c.file, &pb.ImportAccessRequest{})
		check(t, c.file, err, c.code, c.reason)
		if text := fmt.Sprint(err); !strings.Contains(text, c.field) {
			t.Errorf("%s: got %q, want it to name %q", c.file, text, c.field)
		}
		if got := owner.export(); got != before {
			t.Errorf("%s: changed\n%s\nto\n%s", c.file, before, got)
		}
	}
}

// TestEveryMistakeOfAFileIsTold wants them all at once, each where it is.
func TestEveryMistakeOfAFileIsTold(t *testing.T) {
	owner := start(t)
	_, err := owner.tryImport(owner.ctx(), "users:\n  - user: a@example.com\n  - user: b@example.com\n    role: Nobody\n", &pb.ImportAccessRequest{})
	var got []string
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				got = append(got, v.GetField())
			}
		}
	}
	if want := []string{"users[0].user", "users[1].user"}; !slices.Equal(got, want) {
		t.Errorf("got violations of %q, want %q (%v)", got, want, err)
	}
}

func TestOverridesOfAFileThatHaveEndedAreSkipped(t *testing.T) {
	owner := start(t)
	uma := owner.add("uma", "US")
	file := "users:\n  - user: uma@example.com\n    role: US\n    grants:\n      - key: Calendar\n        expire_time: 2020-01-01T00:00:00Z\n"
	got := owner.imports(file, &pb.ImportAccessRequest{})
	if s := got.GetSummary(); s.GetEndedOverrides() != 1 || s.GetUsers() != 0 {
		t.Errorf("got %v", s)
	}
	soon := owner.clock.now().Add(30 * time.Minute).UTC().Format(time.RFC3339)
	owner.imports(strings.ReplaceAll(file, "2020-01-01T00:00:00Z", soon), &pb.ImportAccessRequest{})
	if len(owner.stored(uma).GetOverrides()) != 1 {
		t.Fatalf("stored: %v", owner.stored(uma))
	}
	owner.clock.forward(45 * time.Minute)
	if file := owner.export(); strings.Contains(file, "Calendar") && strings.Contains(file[strings.Index(file, "uma@"):], "Calendar") {
		t.Errorf("exported:\n%s", file)
	}
}

// TestARoleOfAFileReachesItsHolders: those whom the file does not name, too.
func TestARoleOfAFileReachesItsHolders(t *testing.T) {
	owner := start(t)
	owner.imports("roles:\n  - name: Desk\n    keys: [Web, Calendar]\n", &pb.ImportAccessRequest{})
	file := owner.export()
	uma := owner.hire("uma", "US")
	owner.imports("users:\n  - user: uma@example.com\n    role: desk\n", &pb.ImportAccessRequest{})
	uma = uma.signIn(owner.organization, identitypb.Surface_SURFACE_WEB)
	if !uma.holds("Calendar").GetAllowed() {
		t.Fatal("uma lacks Calendar")
	}
	got := owner.imports(strings.Replace(file, "      - Calendar\n", "", 1), &pb.ImportAccessRequest{})
	if len(got.GetDifferences()) != 1 || got.GetDifferences()[0].GetUserId() != uma.id || !slices.Equal(got.GetDifferences()[0].GetLost(), []string{"Calendar"}) {
		t.Errorf("got %v", got.GetDifferences())
	}
	if uma.holds("Calendar").GetAllowed() {
		t.Error("uma has Calendar when the import has returned")
	}
}
