package servicerequest

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/store"
)

// bare returns a request without what the server gives it.
func bare(r *pb.ServiceRequest) *pb.ServiceRequest {
	r = proto.CloneOf(r)
	r.Id, r.Etag, r.CreateTime, r.UpdateTime, r.AvailableActions = "", "", nil, nil, nil
	return r
}

func TestCreate(t *testing.T) {
	s := newSuite(t)
	pm, sp := s.role("PM"), s.role("SP")
	p, other := s.property(pm, sp), s.property(sp)
	unit := must[*pb.CreateUnitResponse](t)(pm.CreateUnit(t.Context(), &pb.CreateUnitRequest{PropertyId: p.GetId(), Name: "4B"})).GetUnit()
	req := &pb.CreateServiceRequestRequest{
		PropertyId: p.GetId(), UnitId: unit.GetId(), Title: "Tap drips", Description: "In the kitchen.",
		AssigneeId: proto.String(sp.ID), PurchaseOrderNumber: proto.String("PO-1"),
	}
	r := must[*pb.CreateServiceRequestResponse](t)(pm.CreateServiceRequest(t.Context(), req)).GetServiceRequest()
	equal(t, "created", bare(r), &pb.ServiceRequest{
		OwnerId: pm.ID, PropertyId: p.GetId(), UnitId: proto.String(unit.GetId()), Title: proto.String("Tap drips"),
		Description: proto.String("In the kitchen."), State: drafted, AssigneeId: sp.ID,
		PurchaseOrderNumber: "PO-1", PurchaseOrderTime: stamp(noon),
	})
	got := must[*pb.GetServiceRequestResponse](t)(pm.GetServiceRequest(t.Context(), &pb.GetServiceRequestRequest{Id: r.GetId()})).GetServiceRequest()
	equal(t, "got", got, r)
	_, err := sp.GetServiceRequest(t.Context(), &pb.GetServiceRequestRequest{Id: r.GetId()})
	expect(t, "the assignee of a draft", err, "NotFound RECORD_NOT_FOUND")

	gone := newID()
	s.users.change(func(u *roll) { u.gone[gone] = true })
	before := s.counted()
	refusals := []struct {
		name, want string
		c          client
		change     func(*pb.CreateServiceRequestRequest)
	}{
		{"property of others", "NotFound RECORD_NOT_FOUND", pm, func(r *pb.CreateServiceRequestRequest) { r.PropertyId, r.UnitId = other.GetId(), "" }},
		{"unit of another property", "NotFound RECORD_NOT_FOUND", pm, func(r *pb.CreateServiceRequestRequest) { r.UnitId = newID() }},
		{"unknown assignee", "NotFound RECORD_NOT_FOUND", pm, func(r *pb.CreateServiceRequestRequest) { r.AssigneeId = &gone }},
		{"assignee and open", "InvalidArgument FIELD_INVALID", pm, func(r *pb.CreateServiceRequestRequest) { r.OpenToTeam = proto.Bool(true) }},
		{"no title", "InvalidArgument FIELD_INVALID", pm, func(r *pb.CreateServiceRequestRequest) { r.Title = "" }},
		{"malformed property", "InvalidArgument FIELD_INVALID", pm, func(r *pb.CreateServiceRequestRequest) { r.PropertyId = "x" }},
		{"not by SP", "PermissionDenied GRANT_MISSING", sp, func(*pb.CreateServiceRequestRequest) {}},
		{"assignee without Assign", "PermissionDenied GRANT_MISSING", s.as(keysOf([]string{"PM"}, "-ServiceRequests:Assign")...), func(r *pb.CreateServiceRequestRequest) { r.PurchaseOrderNumber = nil }},
		{"order without PurchaseOrder", "PermissionDenied GRANT_MISSING", s.as(keysOf([]string{"PM"}, "-ServiceRequests:PurchaseOrder")...), func(r *pb.CreateServiceRequestRequest) { r.AssigneeId = nil }},
	}
	for _, tt := range refusals {
		changed := proto.CloneOf(req)
		tt.change(changed)
		_, err := tt.c.CreateServiceRequest(t.Context(), changed)
		expect(t, tt.name, err, tt.want)
	}
	if _, err := pm.CreateServiceRequest(t.Context(), set(proto.CloneOf(req), "validate_only", true)); err != nil {
		t.Errorf("validate only: %v", err)
	}
	s.users.change(func(u *roll) { u.down = true })
	_, err = pm.CreateServiceRequest(t.Context(), req)
	expect(t, "identity is away", err, "Unavailable SERVICE_UNREACHABLE")
	if after := s.counted(); after != before {
		t.Errorf("refusals changed something: %s, then %s", before, after)
	}
}

func TestCreateRepeated(t *testing.T) {
	s := newSuite(t)
	pm := s.role("PM")
	p := s.property(pm)
	req := &pb.CreateServiceRequestRequest{RequestId: newID(), PropertyId: p.GetId(), Title: "Tap drips"}
	first := must[*pb.CreateServiceRequestResponse](t)(pm.CreateServiceRequest(t.Context(), req))
	again := must[*pb.CreateServiceRequestResponse](t)(pm.CreateServiceRequest(t.Context(), req))
	equal(t, "again", again, first)
	_, err := pm.CreateServiceRequest(t.Context(), set(proto.CloneOf(req), "title", "Roof leaks"))
	expect(t, "another request", err, "InvalidArgument REQUEST_ID_REUSED")
	if got := list(t, pm, &pb.ListServiceRequestsRequest{View: view("NEW")}); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// TestRecommendation leads a recommendation from a technician to the managers.
func TestRecommendation(t *testing.T) {
	s := newSuite(t)
	pm, sp, rival := s.role("PM"), s.role("SP"), s.role("SP")
	p := s.property(pm, sp, rival)
	r := must[*pb.DocumentServiceRequestResponse](t)(sp.DocumentServiceRequest(t.Context(), &pb.DocumentServiceRequestRequest{
		PropertyId: p.GetId(), Title: "Gutter is loose",
	})).GetServiceRequest()
	equal(t, "documented", bare(r), &pb.ServiceRequest{AuthorId: sp.ID, PropertyId: p.GetId(), Title: proto.String("Gutter is loose"), State: documented})
	get := &pb.GetServiceRequestRequest{Id: r.GetId()}
	for name, c := range map[string]client{"PM": pm, "another SP": rival} {
		_, err := c.GetServiceRequest(t.Context(), get)
		expect(t, name+" before it is recommended", err, "NotFound RECORD_NOT_FOUND")
	}
	must[*pb.RecommendServiceRequestResponse](t)(sp.RecommendServiceRequest(t.Context(), &pb.RecommendServiceRequestRequest{Id: r.GetId()}))
	_, err := pm.GetServiceRequest(t.Context(), get)
	expect(t, "PM after", err, "OK")
	_, err = rival.GetServiceRequest(t.Context(), get)
	expect(t, "another SP after", err, "NotFound RECORD_NOT_FOUND")

	noEdit := s.as(keysOf([]string{"PM"}, "-ServiceRequests:Edit")...)
	_, err = noEdit.ApproveServiceRequest(t.Context(), &pb.ApproveServiceRequestRequest{Id: r.GetId(), Title: proto.String("x")})
	expect(t, "editing on approval without Edit", err, "PermissionDenied GRANT_MISSING")
	approved := must[*pb.ApproveServiceRequestResponse](t)(pm.ApproveServiceRequest(t.Context(), &pb.ApproveServiceRequestRequest{
		Id: r.GetId(), Title: proto.String("Fix the gutter"), Description: proto.String("East side."), OpenToTeam: proto.Bool(true),
	})).GetServiceRequest()
	want := bare(r)
	want.Title, want.Description = proto.String("Fix the gutter"), proto.String("East side.")
	want.State, want.OwnerId, want.OpenToTeam, want.RequestTime = requested, pm.ID, true, stamp(noon)
	want.CycleTimer, want.CycleTime = approved.GetCycleTimer(), approved.GetCycleTime()
	equal(t, "approved", bare(approved), want)

	second := must[*pb.DocumentServiceRequestResponse](t)(sp.DocumentServiceRequest(t.Context(), &pb.DocumentServiceRequestRequest{PropertyId: p.GetId(), Title: "Paint"})).GetServiceRequest()
	must[*pb.RecommendServiceRequestResponse](t)(sp.RecommendServiceRequest(t.Context(), &pb.RecommendServiceRequestRequest{Id: second.GetId()}))
	must[*pb.DenyServiceRequestResponse](t)(pm.DenyServiceRequest(t.Context(), &pb.DenyServiceRequestRequest{Id: second.GetId(), Reason: "In May."}))
	seen := must[*pb.GetServiceRequestResponse](t)(sp.GetServiceRequest(t.Context(), &pb.GetServiceRequestRequest{Id: second.GetId()})).GetServiceRequest()
	if seen.GetStateReason() != "In May." || seen.GetOwnerId() != pm.ID {
		t.Errorf("denied: got %v", seen)
	}
	_, err = s.role("PM").DocumentServiceRequest(t.Context(), &pb.DocumentServiceRequestRequest{PropertyId: p.GetId(), Title: "x"})
	expect(t, "documenting by a PM", err, "PermissionDenied GRANT_MISSING")
}

func TestWhoGetsTheWork(t *testing.T) {
	s := newSuite(t)
	pm, usual, chosen, gone := s.role("PM"), newID(), newID(), newID()
	s.users.change(func(u *roll) { u.gone[gone] = true })
	p := s.property(pm)
	tests := []struct {
		name           string
		fallback       string
		draft          func(*pb.ServiceRequest)
		assignee       *string
		open           *bool
		wantErr, wants string // assignee, or "open"
	}{
		{"nobody", "", nil, nil, nil, "OK", ""},
		{"the default", usual, nil, nil, nil, "OK", usual},
		{"a default that is gone", gone, nil, nil, nil, "OK", ""},
		{"the call's", usual, nil, &chosen, nil, "OK", chosen},
		{"the draft's", usual, func(r *pb.ServiceRequest) { r.AssigneeId = chosen }, nil, nil, "OK", chosen},
		{"the call's before the draft's", usual, func(r *pb.ServiceRequest) { r.AssigneeId = usual }, &chosen, nil, "OK", chosen},
		{"the call's before the draft's team", "", func(r *pb.ServiceRequest) { r.OpenToTeam = true }, &chosen, nil, "OK", chosen},
		{"the team", usual, nil, nil, proto.Bool(true), "OK", "open"},
		{"the draft's team", usual, func(r *pb.ServiceRequest) { r.OpenToTeam = true }, nil, nil, "OK", "open"},
		{"not the draft's team", usual, func(r *pb.ServiceRequest) { r.OpenToTeam = true }, nil, proto.Bool(false), "OK", usual},
		{"the team before the draft's", usual, func(r *pb.ServiceRequest) { r.AssigneeId = chosen }, nil, proto.Bool(true), "OK", "open"},
		{"one that is gone", usual, nil, &gone, nil, "NotFound RECORD_NOT_FOUND", ""},
		{"both", usual, nil, &chosen, proto.Bool(true), "InvalidArgument FIELD_INVALID", ""},
	}
	for _, tt := range tests {
		p.DefaultAssigneeId = &tt.fallback
		s.put(func(tx *store.Tx) error { return properties.Put(tx, p) })
		r := s.request(p, drafted, func(r *pb.ServiceRequest) {
			r.OwnerId = pm.ID
			if tt.draft != nil {
				tt.draft(r)
			}
		})
		_, err := pm.RequestServiceRequest(t.Context(), &pb.RequestServiceRequestRequest{Id: r.GetId(), AssigneeId: tt.assignee, OpenToTeam: tt.open})
		expect(t, tt.name, err, tt.wantErr)
		after := s.stored(r.GetId())
		if err != nil {
			equal(t, tt.name, after, r)
			continue
		}
		got := after.GetAssigneeId()
		if after.GetOpenToTeam() {
			got += "open"
		}
		if got != tt.wants || !after.GetRequestTime().AsTime().Equal(noon) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.wants)
		}
	}
	noAssign := s.as(keysOf([]string{"PM"}, "-ServiceRequests:Assign")...)
	_, err := noAssign.RequestServiceRequest(t.Context(), &pb.RequestServiceRequestRequest{Id: newID(), AssigneeId: &chosen})
	expect(t, "without Assign", err, "PermissionDenied GRANT_MISSING")
	r := s.request(p, accepted, func(r *pb.ServiceRequest) { r.OwnerId = pm.ID })
	_, err = pm.ReassignServiceRequest(t.Context(), &pb.ReassignServiceRequestRequest{Id: r.GetId()})
	if expect(t, "reassign to nobody", err, "InvalidArgument FIELD_INVALID"); field(err) != "assignee_id" {
		t.Errorf("got field %q", field(err))
	}
	_, err = pm.ReassignServiceRequest(t.Context(), &pb.ReassignServiceRequestRequest{Id: r.GetId(), AssigneeId: gone})
	expect(t, "reassign to one that is gone", err, "NotFound RECORD_NOT_FOUND")
	noOrder := s.as(keysOf([]string{"PM"}, "-ServiceRequests:PurchaseOrder")...)
	_, err = noOrder.ReassignServiceRequest(t.Context(), &pb.ReassignServiceRequestRequest{Id: r.GetId(), AssigneeId: chosen, PurchaseOrderNumber: proto.String("")})
	expect(t, "order without PurchaseOrder", err, "PermissionDenied GRANT_MISSING")
}

func TestOfManyClaimsOneWins(t *testing.T) {
	s := newSuite(t)
	pm, plus := s.role("PM"), s.role("PM+")
	team := []client{pm, plus}
	for range 6 {
		team = append(team, s.role("SP"))
	}
	p := s.property(team...)
	r := s.request(p, requested, func(r *pb.ServiceRequest) { r.OwnerId, r.OpenToTeam = pm.ID, true })
	claim := &pb.ClaimServiceRequestRequest{Id: r.GetId()}
	var wg sync.WaitGroup
	outcomes := make([]string, len(team))
	for i, c := range team[1:] {
		wg.Go(func() {
			_, err := c.ClaimServiceRequest(t.Context(), claim)
			outcomes[i+1] = outcome(err)
		})
	}
	wg.Wait()
	winner := slices.Index(outcomes, "OK")
	if winner < 0 {
		t.Fatalf("nobody won: %v", outcomes)
	}
	for i, got := range outcomes[1:] {
		if want := "Aborted RACE_LOST"; i+1 != winner && got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	after := s.stored(r.GetId())
	if after.GetAssigneeId() != team[winner].ID || after.GetState() != accepted || !after.GetAcceptTime().AsTime().Equal(noon) {
		t.Errorf("got %v", after)
	}
	_, err := team[winner].ClaimServiceRequest(t.Context(), claim)
	expect(t, "the winner again", err, "FailedPrecondition STATE_FORBIDS")
	_, err = s.role("SP").ClaimServiceRequest(t.Context(), claim)
	expect(t, "not on the team", err, "NotFound RECORD_NOT_FOUND")
	_, err = pm.ClaimServiceRequest(t.Context(), claim)
	expect(t, "without the key", err, "PermissionDenied GRANT_MISSING")
	assigned := s.request(p, requested, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = pm.ID, pm.ID })
	_, err = plus.ClaimServiceRequest(t.Context(), &pb.ClaimServiceRequestRequest{Id: assigned.GetId()})
	expect(t, "somebody has it", err, "FailedPrecondition PRECONDITION_FAILED")
}

func TestTargetDate(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)              // in Chicago
	s.clock.advance(14 * time.Hour) // 02:00 UTC of the fifth, 20:00 of the fourth in Chicago
	tests := []struct {
		date *typepb.Date
		want string
	}{
		{&typepb.Date{Year: 2026, Month: 3, Day: 3}, "InvalidArgument FIELD_INVALID"},
		{&typepb.Date{Year: 2026, Month: 3, Day: 4}, "OK"},
		{&typepb.Date{Year: 2026, Month: 6, Day: 31}, "InvalidArgument FIELD_INVALID"},
		{&typepb.Date{Year: 2027, Month: 2, Day: 29}, "InvalidArgument FIELD_INVALID"},
		{&typepb.Date{Year: 2028, Month: 2, Day: 29}, "OK"},
		{&typepb.Date{Year: 2026, Month: 13, Day: 1}, "InvalidArgument FIELD_INVALID"},
		{nil, "InvalidArgument FIELD_INVALID"},
	}
	for _, tt := range tests {
		r := s.request(p, requested, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = c.ID, c.ID })
		_, err := c.AcceptServiceRequest(t.Context(), &pb.AcceptServiceRequestRequest{Id: r.GetId(), TargetDate: tt.date})
		expect(t, tt.date.String(), err, tt.want)
		if tt.want == "OK" {
			equal(t, "target date", s.stored(r.GetId()).GetTargetDate(), tt.date)
		} else if !strings.HasPrefix(field(err), "target_date") {
			t.Errorf("%v: got field %q", tt.date, field(err))
		}
	}
	open := s.request(p, requested, func(r *pb.ServiceRequest) { r.OwnerId, r.OpenToTeam = c.ID, true })
	_, err := c.ClaimServiceRequest(t.Context(), &pb.ClaimServiceRequestRequest{Id: open.GetId(), TargetDate: tests[0].date})
	expect(t, "claim for a day that is over", err, "InvalidArgument FIELD_INVALID")
}

func TestUpdate(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	unit := must[*pb.CreateUnitResponse](t)(c.CreateUnit(t.Context(), &pb.CreateUnitRequest{PropertyId: p.GetId(), Name: "4B"})).GetUnit()
	far := must[*pb.CreateUnitResponse](t)(c.CreateUnit(t.Context(), &pb.CreateUnitRequest{PropertyId: s.property(c).GetId(), Name: "4B"})).GetUnit()
	tests := []struct {
		name   string
		change *pb.ServiceRequest
		mask   []string
		want   string
		after  func(*pb.ServiceRequest)
	}{
		{"what is there", &pb.ServiceRequest{Description: proto.String("Now."), State: archived}, nil, "OK", func(r *pb.ServiceRequest) { r.Description = proto.String("Now.") }},
		{"unit", &pb.ServiceRequest{UnitId: proto.String(unit.GetId())}, []string{"unit_id"}, "OK", func(r *pb.ServiceRequest) { r.UnitId = proto.String(unit.GetId()) }},
		{"masked", &pb.ServiceRequest{Title: proto.String("New"), Description: proto.String("No.")}, []string{"title"}, "OK", func(r *pb.ServiceRequest) { r.Title = proto.String("New") }},
		{"state", &pb.ServiceRequest{State: archived}, []string{"state"}, "InvalidArgument FIELD_INVALID", nil},
		{"assignee", &pb.ServiceRequest{AssigneeId: c.ID}, []string{"title", "assignee_id"}, "InvalidArgument FIELD_INVALID", nil},
		{"order", &pb.ServiceRequest{PurchaseOrderNumber: "x"}, []string{"purchase_order_number"}, "InvalidArgument FIELD_INVALID", nil},
		{"clear the title", &pb.ServiceRequest{}, []string{"title"}, "InvalidArgument FIELD_INVALID", nil},
		{"empty title", &pb.ServiceRequest{Title: proto.String("")}, nil, "InvalidArgument FIELD_INVALID", nil},
		{"unit of another property", &pb.ServiceRequest{UnitId: proto.String(far.GetId())}, nil, "NotFound RECORD_NOT_FOUND", nil},
	}
	for _, tt := range tests {
		r := s.request(p, accepted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = newID(), newID() })
		tt.change.Id = r.GetId()
		req := &pb.UpdateServiceRequestRequest{ServiceRequest: tt.change}
		if tt.mask != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: tt.mask}
		}
		_, err := c.UpdateServiceRequest(t.Context(), req)
		expect(t, tt.name, err, tt.want)
		want := proto.CloneOf(r)
		if tt.after != nil {
			tt.after(want)
		}
		equal(t, tt.name, bare(s.stored(r.GetId())), bare(want))
	}
}

func TestPurchaseOrderBeforeCompletion(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	id := s.request(p, accepted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = c.ID, c.ID }).GetId()
	services := pb.NewServiceRequestServiceClient(s.Service("invoicing"))
	check := func(what, number string, before bool) {
		t.Helper()
		s.clock.advance(time.Minute)
		got := must[*pb.LookupServiceRequestResponse](t)(services.LookupServiceRequest(t.Context(), &pb.LookupServiceRequestRequest{Id: id})).GetSummary()
		if got.GetPurchaseOrderNumber() != number || got.GetPurchaseOrderBeforeCompletion() != before {
			t.Errorf("%s: got %v", what, got)
		}
	}
	order := func(number string) {
		t.Helper()
		must[*pb.SetPurchaseOrderNumberResponse](t)(c.SetPurchaseOrderNumber(t.Context(), &pb.SetPurchaseOrderNumberRequest{Id: id, PurchaseOrderNumber: number}))
	}
	complete := func() {
		t.Helper()
		must[*pb.CompleteServiceRequestResponse](t)(c.CompleteServiceRequest(t.Context(), &pb.CompleteServiceRequestRequest{Id: id}))
	}
	reopen := func() {
		t.Helper()
		must[*pb.ReopenServiceRequestResponse](t)(c.ReopenServiceRequest(t.Context(), &pb.ReopenServiceRequestRequest{Id: id, Reason: "It drips."}))
	}
	check("none", "", false)
	complete()
	check("completed without", "", false)
	order("PO-1")
	check("ordered late", "PO-1", false)
	reopen()
	check("reopened", "PO-1", true)
	complete()
	check("completed with", "PO-1", true)
	order("PO-2")
	check("corrected", "PO-2", true)
	order("")
	check("cleared", "", false)
	order("PO-3")
	check("ordered late again", "PO-3", false)
}

func TestLookupServiceRequest(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	unit := &pb.Unit{Id: newID(), PropertyId: p.GetId(), Name: proto.String("1A")}
	s.put(func(tx *store.Tx) error { return units.Put(tx, unit) })
	r := s.request(p, accepted, func(r *pb.ServiceRequest) {
		r.OwnerId, r.AssigneeId, r.UnitId = c.ID, newID(), proto.String(unit.GetId())
		r.PurchaseOrderNumber, r.PurchaseOrderTime = "PO-1", timestamppb.New(s.clock.read())
	})
	services := pb.NewServiceRequestServiceClient(s.Service("invoicing"))
	req := &pb.LookupServiceRequestRequest{Id: r.GetId()}
	got := must[*pb.LookupServiceRequestResponse](t)(services.LookupServiceRequest(t.Context(), req))
	equal(t, "summary", got.GetSummary(), &pb.ServiceRequestSummary{
		Id: r.GetId(), PropertyId: p.GetId(), UnitId: r.GetUnitId(), AssigneeId: r.GetAssigneeId(), OwnerId: c.ID,
		State: accepted, PurchaseOrderNumber: "PO-1", PurchaseOrderBeforeCompletion: true, Title: "Tap drips",
	})
	_, err := c.LookupServiceRequest(t.Context(), req)
	expect(t, "by a user", err, "PermissionDenied INTERNAL_ONLY")
	elsewhere := pb.NewServiceRequestServiceClient(s.InOrganization(newID()).Service("invoicing"))
	_, err = elsewhere.LookupServiceRequest(t.Context(), req)
	expect(t, "for another organization", err, "NotFound RECORD_NOT_FOUND")
	must[*pb.DeleteServiceRequestResponse](t)(c.DeleteServiceRequest(t.Context(), &pb.DeleteServiceRequestRequest{Id: r.GetId()}))
	_, err = services.LookupServiceRequest(t.Context(), req)
	expect(t, "deleted", err, "NotFound RECORD_NOT_FOUND")
}

func TestCancelTellsOthers(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	r := s.request(s.property(c), onHold, func(r *pb.ServiceRequest) { r.OwnerId = c.ID })
	req := &pb.CancelServiceRequestRequest{RequestId: newID(), Id: r.GetId(), Reason: "Not needed."}
	for range 2 {
		must[*pb.CancelServiceRequestResponse](t)(c.CancelServiceRequest(t.Context(), req))
	}
	after := s.stored(r.GetId())
	if after.GetArchiveReason() != pb.ArchiveReason_ARCHIVE_REASON_CANCELLED || after.GetStateReason() != "Not needed." || after.GetHold() != nil {
		t.Errorf("got %v", after)
	}
	events, err := s.db.Events(s.tenant(), s.Organization, 0, 10)
	if err != nil || len(events) != 1 {
		t.Fatalf("got %v, %v, want one event", events, err)
	}
	got := &pb.ServiceRequestCancelled{}
	if err := proto.Unmarshal(events[0].Payload, got); err != nil {
		t.Fatal(err)
	}
	equal(t, events[0].Type, got, &pb.ServiceRequestCancelled{ServiceRequestId: r.GetId()})
}
