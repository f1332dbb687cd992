package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// TestEveryServiceSaysWhatAnOrganizationIs wants a collection that is new to have said where
// its records belong: a schema with a shared tenant refuses one that has not.
func TestEveryServiceSaysWhatAnOrganizationIs(t *testing.T) {
	for name, part := range services {
		if _, ok := part.Schema.Tenancy(); !ok {
			t.Errorf("the schema of %s says neither PerOrganization nor Shares", name)
		}
	}
}

// neighbour is another company of the installation, of which nothing may be in an export.
type neighbour struct {
	organization, person string
	ctx                  context.Context // of its owner
}

const (
	neighbourName   = "Beacon Heights Management"
	neighbourEmail  = "bea@beacon-heights.example"
	neighbourHouse  = "Lighthouse Terrace"
	neighbourSecret = "a long enough password of Bea"
)

// addNeighbour has the company's owner found another one, with somebody of its own.
func (s *suite) addNeighbour(c *demo.Company) *neighbour {
	s.t.Helper()
	owner := c.As(s.t.Context(), "OW")
	o, err := identitypb.NewOrganizationServiceClient(s).CreateOrganization(owner, &identitypb.CreateOrganizationRequest{
		Name: neighbourName, TimeZone: "Europe/Berlin", CurrencyCode: "EUR",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	n := &neighbour{organization: o.GetOrganization().GetId()}
	n.ctx = s.signIn(c.Person("OW").Email, c.Person("OW").Password, n.organization)
	u, err := identitypb.NewUserServiceClient(s).CreateUser(n.ctx, &identitypb.CreateUserRequest{
		Email: neighbourEmail, DisplayName: "Bea Conway", InitialPassword: neighbourSecret,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	n.person = u.GetUser().GetId()
	_, err = servicerequestpb.NewPropertyServiceClient(s).CreateProperty(n.ctx, &servicerequestpb.CreatePropertyRequest{
		Name: neighbourHouse, TimeZone: "Europe/Berlin",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// signIn returns a context with a new session.
func (s *suite) signIn(email, password, organization string) context.Context {
	s.t.Helper()
	return s.signInOn(email, password, organization, identitypb.Surface_SURFACE_WEB)
}

func (s *suite) signInOn(email, password, organization string, on identitypb.Surface) context.Context {
	s.t.Helper()
	resp, err := identitypb.NewSessionServiceClient(s).CreateSession(s.t.Context(), &identitypb.CreateSessionRequest{
		Email: email, Password: password, OrganizationId: organization, Surface: on,
	})
	if err != nil {
		s.t.Fatalf("sign in as %s: %v", email, err)
	}
	return metadata.AppendToOutgoingContext(s.t.Context(), "authorization", "Bearer "+resp.GetToken())
}

// claim makes a suite somebody's who has nothing to do with the company of the tests.
func (s *suite) claim() context.Context {
	s.t.Helper()
	const email, password = "tara@tamarisk.example", "a long enough password of Tara"
	_, err := identitypb.NewBootstrapServiceClient(s).ClaimOwnership(s.t.Context(), &identitypb.ClaimOwnershipRequest{
		Code: code, BrandName: "Tamarisk", OrganizationName: "Tamarisk Homes", TimeZone: "Europe/Vienna", CurrencyCode: "EUR",
		OwnerEmail: email, OwnerDisplayName: "Tara Munk", OwnerPassword: password,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.signIn(email, password, "")
}

// readers are those as whom a company is read: each sees another part of it.
var readers = []string{"OW", "PM", "SP", "SA", "BA", "US"}

// notTheSame are methods that answer otherwise in another installation: they tell of the
// brand, of this installation, or of the calls that are being made.
var notTheSame = map[string]bool{
	"ListDecisions": true, "ListUsage": true, "ListUnusedKeys": true, "ListMySessions": true, "ListOrganizations": true,
	"ListBrandOrganizations": true, "GetBrand": true, "GetAutomations": true, "GetCheckpointKey": true,
}

// readings are what each reader is answered by every method that lists or shows something
// without being told what, and what each user may do. The key names the call.
func (s *suite) readings(c *demo.Company, as map[string]context.Context) map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for _, role := range readers {
		for _, m := range methods() {
			name := string(m.Name())
			if m.rule.GetInternal() || m.IsStreamingServer() || notTheSame[name] || !strings.HasPrefix(name, "List") && !strings.HasPrefix(name, "Get") {
				continue
			}
			for i, req := range everyView(m) {
				all[fmt.Sprintf("%s %s %d", role, m.path(), i)] = s.reading(as[role], m, req)
			}
		}
	}
	for _, p := range c.People {
		for _, m := range []string{"GetEffectiveAccess", "GetUserAccess"} {
			req := newMessage(methodByName(s.t, m).Input())
			fd := req.ProtoReflect().Descriptor().Fields().ByName("user_id")
			if fd == nil {
				fd = req.ProtoReflect().Descriptor().Fields().ByName("id")
			}
			req.ProtoReflect().Set(fd, protoreflect.ValueOfString(p.ID))
			all[m+" of "+p.Role] = s.reading(as["OW"], methodByName(s.t, m), req)
		}
	}
	return all
}

// everyView returns a request for each view that the method has, or the empty one.
func everyView(m method) []proto.Message {
	fd := m.Input().Fields().ByName("view")
	if fd == nil || fd.Enum() == nil {
		return []proto.Message{newMessage(m.Input())}
	}
	var all []proto.Message
	for i := range fd.Enum().Values().Len() {
		req := newMessage(m.Input())
		req.ProtoReflect().Set(fd, protoreflect.ValueOfEnum(fd.Enum().Values().Get(i).Number()))
		all = append(all, req)
	}
	return all
}

// reading returns what a call is answered, as text, without what is of the installation.
func (s *suite) reading(ctx context.Context, m method, req proto.Message) string {
	s.t.Helper()
	resp, err := m.call(ctx, s, req)
	if err != nil {
		return status.Code(err).String()
	}
	scrub(resp.ProtoReflect())
	text, err := protojson.MarshalOptions{}.Marshal(resp)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), `": `, `":`) // protojson varies its blanks
}

// scrub removes the brand, the instant of the call, and the etags of identity's records, which are given anew.
func scrub(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Name() == "evaluate_time": // the instant of the call
			m.Clear(fd)
		case m.Descriptor().ParentFile().Package() == "latchkey.identity.v1" && (fd.Name() == "etag" || fd.Name() == "brand_id"):
			m.Clear(fd)
		case fd.IsMap():
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				scrub(v.List().Get(i).Message())
			}
		case fd.Message() != nil && !fd.IsList():
			scrub(v.Message())
		}
		return true
	})
}

// signedIn signs every reader in with the password.
func (s *suite) signedIn(c *demo.Company) map[string]context.Context {
	s.t.Helper()
	all := map[string]context.Context{}
	for _, role := range readers {
		on := identitypb.Surface_SURFACE_WEB
		if role == "SP" || role == "SA" {
			on = identitypb.Surface_SURFACE_APP
		}
		all[role] = s.signInOn(c.Person(role).Email, c.Person(role).Password, c.Organization, on)
	}
	return all
}

// alike wants two suites to answer alike.
func alike(t *testing.T, where string, got, want map[string]string) {
	t.Helper()
	answered := 0
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			g, w := difference(got[key], want[key])
			t.Errorf("%s: %s\ngot  %s\nwant %s", where, key, g, w)
		}
		if strings.HasPrefix(want[key], "{") && len(want[key]) > 2 {
			answered++
		}
	}
	if answered < 60 {
		t.Errorf("%s: only %d calls have shown something", where, answered)
	}
}

// difference returns two texts from shortly before they differ on.
func difference(a, b string) (string, string) {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	from := func(text string) string { return text[max(0, n-80):min(len(text), n+200)] }
	return from(a), from(b)
}

// enrich gives the company what the story of its day does not.
func enrich(t *testing.T, s *suite, c *demo.Company) {
	t.Helper()
	owner := c.As(t.Context(), "OW")
	for name, text := range map[string]string{
		"CreateLabel":          `{"label": {"kind": "LABEL_KIND_TAG", "name": "Urgent"}}`,
		"CreateServiceAccount": `{"display_name": "Accounting export"}`,
		"CreateCustomField":    `{"custom_field": {"noun": "CUSTOM_FIELD_NOUN_USER", "name": "Van", "type": "CUSTOM_FIELD_TYPE_TEXT"}}`,
		"SetOverride":          `{"user_id": "` + c.Person("US").ID + `", "key": "Invoices:Void", "effect": "EFFECT_GRANT", "reason": "stands in"}`,
	} {
		m := methodByName(t, name)
		req := newMessage(m.Input())
		if err := protojson.Unmarshal([]byte(text), req); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := m.call(owner, s, req); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// TestExport takes a company out of an installation that has another one, and brings it into
// others: one that runs in five processes, and one in a database; and from there into files.
func TestExport(t *testing.T) {
	s := one(t)
	teller := newTeller(t, s)
	teller.tell("day.txt")
	c := teller.company
	enrich(t, s, c)
	n := s.addNeighbour(c)
	want := s.readings(c, s.signedIn(c))

	file := filepath.Join(t.TempDir(), "company.export")
	s.must("export", "--with-blobs", "--with-keys", c.Organization, file)
	holdsNothingOf(t, file, n)
	if out := s.must("verify", file); !strings.Contains(out, "0 problems in ") {
		t.Errorf("verify of the export prints %s", out)
	}
	refusesWrongFiles(t, s, c, file)

	there := five(t)
	tara := there.claim()
	before := there.reading(tara, methodByName(t, "ListUsers"), &identitypb.ListUsersRequest{})
	out := there.must("import", "--brand=Tamarisk", "--blobs=file://"+filepath.Join(there.folder, "blobs"), "--peers="+there.peersFlag(), file)
	t.Log(out)
	alike(t, "five processes", there.readings(c, there.signedIn(c)), want)
	if now := there.reading(tara, methodByName(t, "ListUsers"), &identitypb.ListUsersRequest{}); now != before {
		t.Errorf("the other company's people: got %s\nwant %s", now, before)
	}
	if code, out := there.does("import", "--brand=Tamarisk", "--peers="+there.peersFlag(), file); code != 1 || !strings.Contains(out, "there already") {
		t.Errorf("importing again ends with %d and prints %s", code, out)
	}
	there.must("verify", "--peers="+there.peersFlag())
	there.photosAre(c, s)

	database, key := postgrestest.Database(t), filepath.Join(t.TempDir(), "seal.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("s", 40)), 0o600); err != nil {
		t.Fatal(err)
	}
	blobs := "--blobs=file://" + t.TempDir()
	big := one(t, append(inDatabaseAt(t, database), "LATCHKEY_SEAL_KEY_FILE="+key)...)
	big.claim()
	big.must("import", "--store="+database, "--seal-key-file="+key, blobs, "--brand=Tamarisk", file)
	alike(t, "a database", big.readings(c, big.signedIn(c)), want)
	big.must("verify", "--store="+database)

	second := filepath.Join(t.TempDir(), "second.export")
	big.must("export", "--store="+database, "--seal-key-file="+key, c.Organization, second)
	files := one(t)
	files.claim()
	files.stop()
	files.must("import", "--brand=Tamarisk", second)
	files.again()
	alike(t, "files again", files.readings(c, files.signedIn(c)), want)
	files.must("verify")
}

// peersFlag names where each service runs.
func (s *suite) peersFlag() string {
	var all []string
	for _, name := range names {
		all = append(all, name+"="+s.processes[name].addr)
	}
	return strings.Join(all, ",")
}

// holdsNothingOf wants no bytes of another company to be in an export.
func holdsNothingOf(t *testing.T, file string, n *neighbour) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{n.organization, n.person, neighbourName, neighbourEmail, neighbourHouse, "Bea Conway"} {
		if bytes.Contains(data, []byte(text)) {
			t.Errorf("the export has %q of another company", text)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the export has mode %v, want 0600 (%v)", info.Mode(), err)
	}
}

// refusesWrongFiles wants an export to be no backup, and a damaged one to be nothing.
func refusesWrongFiles(t *testing.T, s *suite, c *demo.Company, file string) {
	t.Helper()
	if code, out := s.does("restore", file, "--store=bolt:"+filepath.Join(t.TempDir(), "restored")); code != 1 || !strings.Contains(out, "export of one organization") {
		t.Errorf("restoring an export ends with %d and prints %s", code, out)
	}
	if code, out := s.does("import", "--brand=Harbour Lane", file); code != 1 || !strings.Contains(out, "there already") {
		t.Errorf("importing where the organization is ends with %d and prints %s", code, out)
	}
	if code, out := s.does("export", "0197a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a6b", file+".none"); code != 1 || !strings.Contains(out, "there is no organization") {
		t.Errorf("exporting nothing ends with %d and prints %s", code, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := file + ".damaged"
	data[len(data)/2] ^= 0x10
	if err := os.WriteFile(damaged, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := s.does("import", "--brand=Harbour Lane", damaged); code != 1 || !strings.Contains(out, "damaged") {
		t.Errorf("importing a damaged export ends with %d and prints %s", code, out)
	}
}

// photosAre wants the photos to be there that are in another suite.
func (s *suite) photosAre(c *demo.Company, other *suite) {
	s.t.Helper()
	folder := func(s *suite) string { return filepath.Join(s.folder, "blobs", "servicerequest", c.Organization) }
	photos, err := os.ReadDir(folder(other))
	if err != nil || len(photos) == 0 {
		s.t.Fatalf("there are no photos: %v", err)
	}
	for _, p := range photos {
		got, err := os.ReadFile(filepath.Join(folder(s), p.Name()))
		want, _ := os.ReadFile(filepath.Join(folder(other), p.Name())) // it was listed
		if err != nil || !bytes.Equal(got, want) {
			s.t.Errorf("photo %s: got %d bytes (%v), want %d", p.Name(), len(got), err, len(want))
		}
	}
}
