package servicerequest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/store"
)

func TestCreateProperty(t *testing.T) {
	s := newSuite(t)
	oa := s.role("OA")
	gone := newID()
	s.users.change(func(u *roll) { u.gone[gone] = true })
	req := &pb.CreatePropertyRequest{
		RequestId: newID(), Name: "Elm Court", TimeZone: "America/Chicago", DefaultAssigneeId: newID(),
		Address: &typepb.Address{Lines: []string{"1 Elm Street"}, Locality: "Chicago", RegionCode: "US"},
	}
	made := must[*pb.CreatePropertyResponse](t)(oa.CreateProperty(t.Context(), req))
	want := &pb.Property{
		Id: made.GetProperty().GetId(), Etag: made.GetProperty().GetEtag(), CreateTime: stamp(noon), UpdateTime: stamp(noon),
		Name: proto.String("Elm Court"), TimeZone: proto.String("America/Chicago"), Address: req.GetAddress(), DefaultAssigneeId: &req.DefaultAssigneeId,
	}
	equal(t, "created", made.GetProperty(), want)
	again := must[*pb.CreatePropertyResponse](t)(oa.CreateProperty(t.Context(), req))
	equal(t, "again", again, made)
	got := must[*pb.GetPropertyResponse](t)(oa.GetProperty(t.Context(), &pb.GetPropertyRequest{Id: want.GetId()}))
	equal(t, "got", got.GetProperty(), want)
	team := must[*pb.ListPropertyTeamResponse](t)(oa.ListPropertyTeam(t.Context(), &pb.ListPropertyTeamRequest{PropertyId: want.GetId()})).GetMembers()
	if len(team) != 1 || team[0].GetUserId() != oa.ID || team[0].GetPropertyId() != want.GetId() {
		t.Errorf("team: got %v", team)
	}
	before := s.counted()
	refusals := []struct {
		name, want, field string
		change            func(*pb.CreatePropertyRequest)
	}{
		{"no name", "InvalidArgument FIELD_INVALID", "name", func(r *pb.CreatePropertyRequest) { r.Name = "" }},
		{"no zone", "InvalidArgument FIELD_INVALID", "time_zone", func(r *pb.CreatePropertyRequest) { r.TimeZone = "" }},
		{"made-up zone", "InvalidArgument FIELD_INVALID", "time_zone", func(r *pb.CreatePropertyRequest) { r.TimeZone = "Europe/Atlantis" }},
		{"zone of the machine", "InvalidArgument FIELD_INVALID", "time_zone", func(r *pb.CreatePropertyRequest) { r.TimeZone = "Local" }},
		{"zone outside", "InvalidArgument FIELD_INVALID", "time_zone", func(r *pb.CreatePropertyRequest) { r.TimeZone = "../etc/passwd" }},
		{"region", "InvalidArgument FIELD_INVALID", "address.region_code", func(r *pb.CreatePropertyRequest) { r.Address = &typepb.Address{RegionCode: "us"} }},
		{"assignee that is gone", "NotFound RECORD_NOT_FOUND", "", func(r *pb.CreatePropertyRequest) { r.DefaultAssigneeId = gone }},
	}
	for _, tt := range refusals {
		changed := proto.CloneOf(req)
		changed.RequestId = ""
		tt.change(changed)
		_, err := oa.CreateProperty(t.Context(), changed)
		if expect(t, tt.name, err, tt.want); field(err) != tt.field {
			t.Errorf("%s: got field %q, want %q", tt.name, field(err), tt.field)
		}
	}
	_, err := s.role("PM").CreateProperty(t.Context(), req)
	expect(t, "by a PM", err, "PermissionDenied GRANT_MISSING")
	must[*pb.CreatePropertyResponse](t)(oa.CreateProperty(t.Context(), &pb.CreatePropertyRequest{ValidateOnly: true, Name: "x", TimeZone: "UTC"}))
	if after := s.counted(); after != before {
		t.Errorf("refusals changed something: %s, then %s", before, after)
	}
}

func TestUpdateProperty(t *testing.T) {
	s := newSuite(t)
	pm := s.role("PM")
	gone, usual := newID(), newID()
	s.users.change(func(u *roll) { u.gone[gone] = true })
	tests := []struct {
		name   string
		change *pb.Property
		mask   []string
		want   string
		after  func(*pb.Property)
	}{
		{"name", &pb.Property{Name: proto.String("New")}, nil, "OK", func(p *pb.Property) { p.Name = proto.String("New") }},
		{"zone and address", &pb.Property{TimeZone: proto.String("UTC"), Address: &typepb.Address{Locality: "Ulm"}}, []string{"time_zone", "address"}, "OK", func(p *pb.Property) {
			p.TimeZone, p.Address = proto.String("UTC"), &typepb.Address{Locality: "Ulm"}
		}},
		{"assignee", &pb.Property{DefaultAssigneeId: &usual}, []string{"default_assignee_id"}, "OK", func(p *pb.Property) { p.DefaultAssigneeId = &usual }},
		{"no assignee", &pb.Property{}, []string{"default_assignee_id"}, "OK", func(p *pb.Property) { p.DefaultAssigneeId = nil }},
		{"the assignee it has", &pb.Property{DefaultAssigneeId: &gone}, []string{"default_assignee_id"}, "OK", func(*pb.Property) {}},
		{"assignee that is gone", &pb.Property{DefaultAssigneeId: proto.String("00000000-0000-7000-8000-00000000dead")}, nil, "NotFound RECORD_NOT_FOUND", nil},
		{"zone", &pb.Property{TimeZone: proto.String("Mars/Olympus")}, nil, "InvalidArgument FIELD_INVALID", nil},
		{"no zone", &pb.Property{}, []string{"time_zone"}, "InvalidArgument FIELD_INVALID", nil},
		{"no name", &pb.Property{}, []string{"name"}, "InvalidArgument FIELD_INVALID", nil},
		{"id", &pb.Property{}, []string{"id"}, "InvalidArgument FIELD_INVALID", nil},
		{"unknown field", &pb.Property{}, []string{"colour"}, "InvalidArgument FIELD_INVALID", nil},
		{"etag", &pb.Property{Etag: "0", Name: proto.String("New")}, nil, "Aborted ETAG_STALE", nil},
	}
	s.users.change(func(u *roll) { u.gone["00000000-0000-7000-8000-00000000dead"] = true })
	for _, tt := range tests {
		p := s.property(pm)
		p.DefaultAssigneeId = &gone // who was active when he was named
		s.put(func(tx *store.Tx) error { return properties.Put(tx, p) })
		tt.change.Id = p.GetId()
		req := &pb.UpdatePropertyRequest{Property: tt.change}
		if tt.mask != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: tt.mask}
		}
		_, err := pm.UpdateProperty(t.Context(), req)
		expect(t, tt.name, err, tt.want)
		if tt.after != nil {
			tt.after(p)
		}
		got := must[*pb.GetPropertyResponse](t)(pm.GetProperty(t.Context(), &pb.GetPropertyRequest{Id: p.GetId()})).GetProperty()
		p.Etag, p.UpdateTime = got.GetEtag(), got.GetUpdateTime()
		equal(t, tt.name, got, p)
	}
}

// TestPropertyIsForItsTeam calls each method on a property by who is not on its team,
// and by somebody of another organization.
func TestPropertyIsForItsTeam(t *testing.T) {
	s := newSuite(t)
	oa, outsider := s.role("OA"), s.role("OA")
	stranger := as(s.InOrganization(newID()).AsRole("OA"))
	p := s.property(oa)
	unit := must[*pb.CreateUnitResponse](t)(oa.CreateUnit(t.Context(), &pb.CreateUnitRequest{PropertyId: p.GetId(), Name: "4B"})).GetUnit()
	const service = "/latchkey.servicerequest.v1.PropertyService/"
	calls := map[string]func(property, unit string) proto.Message{
		"GetProperty":    func(p, _ string) proto.Message { return &pb.GetPropertyRequest{Id: p} },
		"UpdateProperty": func(p, _ string) proto.Message { return &pb.UpdatePropertyRequest{Property: &pb.Property{Id: p}} },
		"CreateUnit":     func(p, _ string) proto.Message { return &pb.CreateUnitRequest{PropertyId: p, Name: "5"} },
		"ListUnits":      func(p, _ string) proto.Message { return &pb.ListUnitsRequest{PropertyId: p} },
		"GetUnit":        func(_, u string) proto.Message { return &pb.GetUnitRequest{Id: u} },
		"UpdateUnit":     func(_, u string) proto.Message { return &pb.UpdateUnitRequest{Unit: &pb.Unit{Id: u}} },
		"AddUnitFlag":    func(_, u string) proto.Message { return &pb.AddUnitFlagRequest{Id: u, Flag: "dog"} },
		"RemoveUnitFlag": func(_, u string) proto.Message { return &pb.RemoveUnitFlagRequest{Id: u, Flag: "dog"} },
		"AddUserToProperty": func(p, _ string) proto.Message {
			return &pb.AddUserToPropertyRequest{PropertyId: p, UserId: outsider.ID}
		},
		"RemoveUserFromProperty": func(p, _ string) proto.Message {
			return &pb.RemoveUserFromPropertyRequest{PropertyId: p, UserId: oa.ID}
		},
		"ListPropertyTeam": func(p, _ string) proto.Message { return &pb.ListPropertyTeamRequest{PropertyId: p} },
	}
	for method, req := range calls {
		for _, c := range []client{outsider, stranger} {
			_, err := invoke(t, c, service+method, req(p.GetId(), unit.GetId()))
			noProperty, noUnit := newID(), newID()
			_, want := invoke(t, oa, service+method, req(noProperty, noUnit))
			got := strings.NewReplacer(p.GetId(), noProperty, unit.GetId(), noUnit).Replace(fmt.Sprint(err))
			if outcome(err) != "NotFound RECORD_NOT_FOUND" || got != want.Error() {
				t.Errorf("%s: got %v, want %v", method, err, want)
			}
		}
	}
	for name, c := range map[string]client{"outsider": outsider, "stranger": stranger} {
		if got := must[*pb.ListPropertiesResponse](t)(c.ListProperties(t.Context(), &pb.ListPropertiesRequest{})).GetProperties(); len(got) != 0 {
			t.Errorf("%s lists %v", name, got)
		}
	}
}

func TestListProperties(t *testing.T) {
	s := newSuite(t)
	pm := s.role("PM")
	var want []string
	for range 5 {
		s.clock.advance(1e9)
		want = append(want, s.property(pm).GetId())
		s.property(s.role("PM"))
	}
	var got []string
	req := &pb.ListPropertiesRequest{PageSize: 2}
	for {
		resp := must[*pb.ListPropertiesResponse](t)(pm.ListProperties(t.Context(), req))
		for _, p := range resp.GetProperties() {
			got = append(got, p.GetId())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	_, err := pm.ListProperties(t.Context(), &pb.ListPropertiesRequest{PageToken: "x"})
	expect(t, "token", err, "InvalidArgument PAGE_TOKEN_INVALID")
}

func TestUnits(t *testing.T) {
	s := newSuite(t)
	pm := s.role("PM")
	p := s.property(pm)
	create := func(name string) (*pb.CreateUnitResponse, error) {
		return pm.CreateUnit(t.Context(), &pb.CreateUnitRequest{PropertyId: p.GetId(), Name: name})
	}
	var all []*pb.Unit
	for _, name := range []string{"1A", "1B", "2A"} {
		all = append(all, must[*pb.CreateUnitResponse](t)(create(name)).GetUnit())
	}
	_, err := create("1B")
	expect(t, "the same name", err, "AlreadyExists RECORD_EXISTS")
	must[*pb.CreateUnitResponse](t)(pm.CreateUnit(t.Context(), &pb.CreateUnitRequest{PropertyId: s.property(pm).GetId(), Name: "1B"}))
	first := must[*pb.ListUnitsResponse](t)(pm.ListUnits(t.Context(), &pb.ListUnitsRequest{PropertyId: p.GetId(), PageSize: 2}))
	second := must[*pb.ListUnitsResponse](t)(pm.ListUnits(t.Context(), &pb.ListUnitsRequest{PropertyId: p.GetId(), PageSize: 2, PageToken: first.GetNextPageToken()}))
	equal(t, "list", &pb.ListUnitsResponse{Units: append(first.GetUnits(), second.GetUnits()...)}, &pb.ListUnitsResponse{Units: all})
	updates := []struct {
		name string
		unit *pb.Unit
		want string
	}{
		{"rename", &pb.Unit{Name: proto.String("1C")}, "OK"},
		{"taken", &pb.Unit{Name: proto.String("2A")}, "AlreadyExists RECORD_EXISTS"},
		{"stale", &pb.Unit{Etag: "0", Name: proto.String("3")}, "Aborted ETAG_STALE"},
		{"empty", &pb.Unit{Name: proto.String("")}, "InvalidArgument FIELD_INVALID"},
	}
	for _, tt := range updates {
		tt.unit.Id = all[1].GetId()
		_, err := pm.UpdateUnit(t.Context(), &pb.UpdateUnitRequest{Unit: tt.unit})
		expect(t, tt.name, err, tt.want)
	}
	_, err = pm.UpdateUnit(t.Context(), &pb.UpdateUnitRequest{Unit: &pb.Unit{Id: all[1].GetId()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}}})
	expect(t, "cleared", err, "InvalidArgument FIELD_INVALID")
	_, err = pm.UpdateUnit(t.Context(), &pb.UpdateUnitRequest{Unit: &pb.Unit{Id: all[1].GetId()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"flags"}}})
	expect(t, "flags", err, "InvalidArgument FIELD_INVALID")
	got := must[*pb.GetUnitResponse](t)(pm.GetUnit(t.Context(), &pb.GetUnitRequest{Id: all[1].GetId()})).GetUnit()
	if got.GetName() != "1C" {
		t.Errorf("got %v", got)
	}
}

func TestUnitFlags(t *testing.T) {
	s := newSuite(t)
	pm := s.role("PM")
	p := s.property(pm)
	id := must[*pb.CreateUnitResponse](t)(pm.CreateUnit(t.Context(), &pb.CreateUnitRequest{PropertyId: p.GetId(), Name: "1"})).GetUnit().GetId()
	add := func(flag string) (*pb.AddUnitFlagResponse, error) {
		return pm.AddUnitFlag(t.Context(), &pb.AddUnitFlagRequest{Id: id, Flag: flag})
	}
	must[*pb.AddUnitFlagResponse](t)(add("dog"))
	two := must[*pb.AddUnitFlagResponse](t)(add("alarm")).GetUnit()
	same := must[*pb.AddUnitFlagResponse](t)(add("dog")).GetUnit()
	if equal(t, "added again", same, two); !slices.Equal(same.GetFlags(), []string{"dog", "alarm"}) {
		t.Errorf("got %v", same)
	}
	less := must[*pb.RemoveUnitFlagResponse](t)(pm.RemoveUnitFlag(t.Context(), &pb.RemoveUnitFlagRequest{Id: id, Flag: "dog"})).GetUnit()
	still := must[*pb.RemoveUnitFlagResponse](t)(pm.RemoveUnitFlag(t.Context(), &pb.RemoveUnitFlagRequest{Id: id, Flag: "cat"})).GetUnit()
	if equal(t, "removed what is not there", still, less); !slices.Equal(less.GetFlags(), []string{"alarm"}) {
		t.Errorf("got %v", less)
	}
	_, err := pm.RemoveUnitFlag(t.Context(), &pb.RemoveUnitFlagRequest{Id: id, Flag: "alarm", Etag: two.GetEtag()})
	expect(t, "stale", err, "Aborted ETAG_STALE")
	for i := range maxFlags - 1 {
		must[*pb.AddUnitFlagResponse](t)(add(fmt.Sprint("flag ", i)))
	}
	_, err = add("one more")
	expect(t, "too many", err, "FailedPrecondition PRECONDITION_FAILED")
	_, err = add("")
	expect(t, "empty", err, "InvalidArgument FIELD_INVALID")
	noFlags := s.as(keysOf([]string{"PM"}, "-Properties:Units:Flags")...)
	_, err = noFlags.AddUnitFlag(t.Context(), &pb.AddUnitFlagRequest{Id: id, Flag: "x"})
	expect(t, "without the key", err, "PermissionDenied GRANT_MISSING")
}

func TestTeam(t *testing.T) {
	s := newSuite(t)
	pm, sp := s.role("PM"), s.role("SP")
	p := s.property(pm)
	gone := newID()
	s.users.change(func(u *roll) { u.gone[gone] = true })
	add := func(user string) (*pb.AddUserToPropertyResponse, error) {
		return pm.AddUserToProperty(t.Context(), &pb.AddUserToPropertyRequest{PropertyId: p.GetId(), UserId: user})
	}
	remove := func(user string) error {
		_, err := pm.RemoveUserFromProperty(t.Context(), &pb.RemoveUserFromPropertyRequest{PropertyId: p.GetId(), UserId: user})
		return err
	}
	expect(t, "the last one", remove(pm.ID), "FailedPrecondition PRECONDITION_FAILED")
	m := must[*pb.AddUserToPropertyResponse](t)(add(sp.ID)).GetMember()
	if m.GetUserId() != sp.ID || m.GetPropertyId() != p.GetId() || m.GetId() == "" {
		t.Errorf("got %v", m)
	}
	_, err := add(sp.ID)
	expect(t, "again", err, "AlreadyExists RECORD_EXISTS")
	_, err = add(gone)
	expect(t, "one who is gone", err, "NotFound RECORD_NOT_FOUND")
	_, err = sp.GetProperty(t.Context(), &pb.GetPropertyRequest{Id: p.GetId()})
	expect(t, "the new member", err, "OK")
	teams := pb.NewPropertyServiceClient(s.Service("scheduling"))
	of := func(user string) []string {
		return must[*pb.LookupPropertyTeamsResponse](t)(teams.LookupPropertyTeams(t.Context(), &pb.LookupPropertyTeamsRequest{UserId: user})).GetPropertyIds()
	}
	if got := of(sp.ID); !slices.Equal(got, []string{p.GetId()}) {
		t.Errorf("teams: got %v", got)
	}
	expect(t, "not on the team", remove(newID()), "NotFound RECORD_NOT_FOUND")
	expect(t, "the member", remove(sp.ID), "OK")
	_, err = sp.GetProperty(t.Context(), &pb.GetPropertyRequest{Id: p.GetId()})
	expect(t, "the old member", err, "NotFound RECORD_NOT_FOUND")
	if got := of(sp.ID); len(got) != 0 {
		t.Errorf("teams: got %v", got)
	}
	_, err = pm.LookupPropertyTeams(t.Context(), &pb.LookupPropertyTeamsRequest{UserId: pm.ID})
	expect(t, "by a user", err, "PermissionDenied INTERNAL_ONLY")

	s.put(func(tx *store.Tx) error {
		for range maxTeams {
			p := &pb.Property{Id: newID()}
			if err := properties.Put(tx, p); err != nil {
				return err
			}
			if _, err := join(tx, newID(), p.GetId(), sp.ID); err != nil {
				return err
			}
		}
		return nil
	})
	_, err = add(sp.ID)
	expect(t, "too many teams", err, "FailedPrecondition PRECONDITION_FAILED")
}

func TestLookupProperty(t *testing.T) {
	s := newSuite(t)
	pm := s.role("PM")
	p, other := s.property(pm), s.property(pm)
	unit := must[*pb.CreateUnitResponse](t)(pm.CreateUnit(t.Context(), &pb.CreateUnitRequest{PropertyId: p.GetId(), Name: "1"})).GetUnit()
	services := pb.NewPropertyServiceClient(s.Service("scheduling"))
	got := must[*pb.LookupPropertyResponse](t)(services.LookupProperty(t.Context(), &pb.LookupPropertyRequest{Id: p.GetId(), UnitId: unit.GetId()}))
	equal(t, "found", got, &pb.LookupPropertyResponse{PropertyId: p.GetId(), UnitId: unit.GetId(), Name: "Elm Court", TimeZone: "America/Chicago"})
	_, err := services.LookupProperty(t.Context(), &pb.LookupPropertyRequest{Id: other.GetId(), UnitId: unit.GetId()})
	expect(t, "unit of another property", err, "NotFound RECORD_NOT_FOUND")
	_, err = services.LookupProperty(t.Context(), &pb.LookupPropertyRequest{Id: newID()})
	expect(t, "unknown", err, "NotFound RECORD_NOT_FOUND")
}
