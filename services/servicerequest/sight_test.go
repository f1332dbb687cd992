package servicerequest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/servertest"
)

// exists says in the words of the specification whether a request exists for a user:
// slowly, and knowing nothing of how the service finds out.
func exists(keys []string, user string, onTeam bool, r *pb.ServiceRequest) bool {
	has := func(key string) bool { return slices.Contains(keys, key) }
	if r.GetDeleteTime() != nil && !has("ServiceRequests:Delete") {
		return false
	}
	state := r.GetState()
	if has("ServiceRequests:View:Assigned") && r.GetAssigneeId() == user && state != drafted {
		return true
	}
	if has("ServiceRequests:Claim") && onTeam && state == requested && r.GetOpenToTeam() && r.GetAssigneeId() == "" {
		return true
	}
	if has("ServiceRequests:View:Property") && onTeam && state != documented {
		switch r.GetOwnerId() {
		case user:
			if has("View:OwnedBy:Me") {
				return true
			}
		case "":
			if has("View:OwnedBy:Nobody") {
				return true
			}
		default:
			if has("View:OwnedBy:Others") {
				return true
			}
		}
	}
	written := state == documented || state == recommended || state == denied
	return has("View:OwnedBy:Me") && r.GetAuthorId() == user && written
}

var viewsByState = map[pb.ServiceRequestState]string{
	drafted: "NEW", requested: "NEW", documented: "NEW", recommended: "NEW", pended: "NEW", declined: "NEW", denied: "NEW",
	accepted: "OPEN", completed: "COMPLETE", onHold: "ON_HOLD", archived: "ARCHIVE",
}

var allViews = []string{"NEW", "OPEN", "COMPLETE", "ON_HOLD", "ARCHIVE", "DELETED"}

func view(name string) pb.ServiceRequestView {
	return pb.ServiceRequestView(pb.ServiceRequestView_value["SERVICE_REQUEST_VIEW_"+name])
}

// list reads all pages of a view and returns the ids, newest first.
func list(t *testing.T, c client, req *pb.ListServiceRequestsRequest) []string {
	t.Helper()
	req = proto.CloneOf(req)
	var ids []string
	for {
		resp, err := c.ListServiceRequests(t.Context(), req)
		if err != nil {
			t.Fatalf("list %v: %v", req, err)
		}
		for _, r := range resp.GetServiceRequests() {
			ids = append(ids, r.GetId())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return ids
		}
	}
}

// sightKeysToDraw are the keys that decide who sees what; the others let everybody in
// to every view.
var sightKeysToDraw = []string{
	"ServiceRequests:View:Assigned", "ServiceRequests:View:Property", "ServiceRequests:Claim",
	"View:OwnedBy:Me", "View:OwnedBy:Others", "View:OwnedBy:Nobody",
}

var viewKeys = []string{
	"ServiceRequests", "ServiceRequests:Grid:New", "ServiceRequests:Grid:Open", "ServiceRequests:Grid:Complete",
	"ServiceRequests:Grid:OnHold", "ServiceRequests:Grid:Archive",
}

type viewer struct {
	client
	keys  []string
	teams []string // ids of properties
}

// world is random requests at random properties, of random users with random keys.
type world struct {
	*suite
	random     *rand.Rand
	viewers    []*viewer
	properties []*pb.Property
	requests   []*pb.ServiceRequest
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{suite: newSuite(t), random: rand.New(rand.NewPCG(seed, 0))}
	for range 8 {
		v := &viewer{keys: slices.Clone(viewKeys)}
		for _, k := range sightKeysToDraw {
			if w.random.IntN(2) == 0 {
				v.keys = append(v.keys, k)
			}
		}
		if w.random.IntN(2) == 0 {
			v.keys = append(v.keys, "ServiceRequests:Delete")
		}
		v.client = w.as(v.keys...)
		w.viewers = append(w.viewers, v)
	}
	for range 4 {
		var team []client
		var members []*viewer
		for _, v := range w.viewers {
			if w.random.IntN(2) == 0 {
				team, members = append(team, v.client), append(members, v)
			}
		}
		p := w.property(team...)
		w.properties = append(w.properties, p)
		for _, v := range members {
			v.teams = append(v.teams, p.GetId())
		}
	}
	for range 120 {
		w.requests = append(w.requests, w.draw())
	}
	w.putAll(w.requests...)
	return w
}

// drawn are the labels that requests of a world have: two categories, and the others.
var drawn = []string{servertest.UUID(71), servertest.UUID(72), servertest.UUID(73), servertest.UUID(74), servertest.UUID(75)}

func (w *world) draw() *pb.ServiceRequest {
	somebody := func() string {
		if n := w.random.IntN(len(w.viewers) + 3); n < len(w.viewers) {
			return w.viewers[n].ID
		}
		return ""
	}
	p := w.properties[w.random.IntN(len(w.properties))]
	return w.make(p, allStates[w.random.IntN(len(allStates))], func(r *pb.ServiceRequest) {
		r.CreateTime = stamp(noon.Add(time.Duration(w.random.IntN(80)) * time.Second))
		r.OwnerId, r.AuthorId, r.AssigneeId = somebody(), somebody(), somebody()
		if w.random.IntN(2) == 0 {
			r.CategoryId = &drawn[w.random.IntN(2)]
		}
		for _, label := range drawn[2:] {
			if w.random.IntN(3) == 0 {
				r.LabelIds = append(r.LabelIds, label)
			}
		}
		if r.OpenToTeam = w.random.IntN(3) == 0; r.OpenToTeam {
			r.AssigneeId = ""
		}
		if w.random.IntN(5) == 0 {
			r.DeleteTime, r.PurgeTime = stamp(w.clock.read()), stamp(w.clock.read().Add(retention))
		}
	})
}

// wanted returns the ids that a list should hold: the filter of all records.
func (w *world) wanted(v *viewer, name, property string, labels ...string) []string {
	var found []*pb.ServiceRequest
	for _, r := range w.requests {
		in := viewsByState[r.GetState()]
		if r.GetDeleteTime() != nil {
			in = "DELETED"
		}
		has := append([]string{r.GetCategoryId()}, r.GetLabelIds()...)
		without := func(label string) bool { return !slices.Contains(has, label) }
		if in == name && !slices.ContainsFunc(labels, without) && (property == "" || r.GetPropertyId() == property) &&
			exists(v.keys, v.ID, slices.Contains(v.teams, r.GetPropertyId()), r) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *pb.ServiceRequest) int {
		if c := b.GetCreateTime().AsTime().Compare(a.GetCreateTime().AsTime()); c != 0 {
			return c
		}
		return strings.Compare(b.GetId(), a.GetId())
	})
	var ids []string
	for _, r := range found {
		ids = append(ids, r.GetId())
	}
	return ids
}

func TestListAndGetAgreeWithTheSpecification(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for _, v := range w.viewers {
				for _, name := range allViews {
					if name == "DELETED" && !slices.Contains(v.keys, "ServiceRequests:Delete") {
						continue
					}
					size := int32(1 + w.random.IntN(20))
					got := list(t, v.client, &pb.ListServiceRequestsRequest{View: view(name), PageSize: size})
					if want := w.wanted(v, name, ""); !slices.Equal(got, want) {
						t.Errorf("%v on %v lists %s:\n got %v\nwant %v", v.keys, v.teams, name, got, want)
					}
				}
				for _, labels := range [][]string{drawn[:1], drawn[2:3], drawn[1:4], {drawn[4], drawn[0]}, {servertest.UUID(76)}} {
					got := list(t, v.client, &pb.ListServiceRequestsRequest{View: view("NEW"), LabelIds: labels, PageSize: 3})
					if want := w.wanted(v, "NEW", "", labels...); !slices.Equal(got, want) {
						t.Errorf("%v on %v lists NEW with %v:\n got %v\nwant %v", v.keys, v.teams, labels, got, want)
					}
				}
				for _, property := range v.teams {
					got := list(t, v.client, &pb.ListServiceRequestsRequest{View: view("NEW"), PropertyId: property, PageSize: 7})
					if want := w.wanted(v, "NEW", property); !slices.Equal(got, want) {
						t.Errorf("%v on %v lists NEW of %s:\n got %v\nwant %v", v.keys, v.teams, property, got, want)
					}
				}
				for _, r := range w.requests {
					_, err := v.GetServiceRequest(t.Context(), &pb.GetServiceRequestRequest{Id: r.GetId()})
					want := "NotFound RECORD_NOT_FOUND"
					if exists(v.keys, v.ID, slices.Contains(v.teams, r.GetPropertyId()), r) {
						want = "OK"
					}
					expect(t, fmt.Sprintf("%v on %v gets %v", v.keys, v.teams, r), err, want)
				}
			}
		})
	}
}

// TestWhatIsOutOfSightIsUnknown calls each method that takes a request with one that
// does not exist for the caller: the answer is that for an unknown id.
func TestWhatIsOutOfSightIsUnknown(t *testing.T) {
	s := newSuite(t)
	in, out := s.as(everything()...), s.as(everything()...)
	p := s.property(in)
	calls := []row{
		{method: prefixService + "GetServiceRequest", req: &pb.GetServiceRequestRequest{}},
		{method: prefixService + "UndeleteServiceRequest", req: &pb.UndeleteServiceRequestRequest{}},
		{method: pb.CommentService_CreateComment_FullMethodName, req: &pb.CreateCommentRequest{Text: "Hello."}},
		{method: pb.CommentService_ListComments_FullMethodName, req: &pb.ListCommentsRequest{}},
		{method: pb.AttachmentService_ListAttachments_FullMethodName, req: &pb.ListAttachmentsRequest{}},
	}
	for _, r := range rows() {
		r.method = prefixService + r.method
		calls = append(calls, r)
	}
	for _, call := range calls {
		r := s.subject(p, in, requested, "")
		request := func(id string) proto.Message {
			if call.req.ProtoReflect().Descriptor().Fields().ByName("service_request_id") != nil {
				return set(proto.Clone(call.req), "service_request_id", id)
			}
			return call.on(id)
		}
		_, err := invoke(t, out, call.method, request(r.GetId()))
		unknown := newID()
		_, want := invoke(t, out, call.method, request(unknown))
		if outcome(err) != "NotFound RECORD_NOT_FOUND" || strings.ReplaceAll(status.Convert(err).String(), r.GetId(), unknown) != status.Convert(want).String() {
			t.Errorf("%s: got %v, want %v", call.method, err, want)
		}
		equal(t, call.method+" changed the record", s.stored(r.GetId()), r)
	}
}

// TestRoles holds the sight of the built-in roles against the specification.
func TestRoles(t *testing.T) {
	s := newSuite(t)
	pm, sp, plus, us, oa := s.role("PM"), s.role("SP"), s.role("PM+"), s.role("US"), s.role("OA")
	// A regional manager is a PM who may look into the figures of every property.
	regional := s.as(keysOf([]string{"PM"})...)
	mine := s.property(pm, sp, plus, us, oa)
	elsewhere := s.property(regional)
	drafts := s.request(mine, drafted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = pm.ID, sp.ID })
	given := s.request(mine, accepted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = pm.ID, sp.ID })
	offered := s.request(mine, requested, func(r *pb.ServiceRequest) { r.OwnerId, r.OpenToTeam = pm.ID, true })
	notes := s.request(mine, documented, func(r *pb.ServiceRequest) { r.AuthorId = sp.ID })
	advice := s.request(mine, recommended, func(r *pb.ServiceRequest) { r.AuthorId = sp.ID })
	refused := s.request(mine, denied, func(r *pb.ServiceRequest) { r.AuthorId, r.OwnerId = sp.ID, pm.ID })
	far := s.request(elsewhere, requested, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = regional.ID, sp.ID })
	tests := []struct {
		name string
		c    client
		want []*pb.ServiceRequest
	}{
		{"PM", pm, []*pb.ServiceRequest{drafts, given, offered, advice, refused}},
		{"SP", sp, []*pb.ServiceRequest{given, offered, notes, advice, refused, far}},
		{"PM+", plus, []*pb.ServiceRequest{drafts, given, offered, advice, refused}},
		{"US", us, []*pb.ServiceRequest{drafts, given, offered, advice, refused}},
		{"OA", oa, []*pb.ServiceRequest{drafts, given, offered, advice, refused}},
		{"RM", regional, []*pb.ServiceRequest{far}},
	}
	for _, tt := range tests {
		for _, r := range []*pb.ServiceRequest{drafts, given, offered, notes, advice, refused, far} {
			_, err := tt.c.GetServiceRequest(t.Context(), &pb.GetServiceRequestRequest{Id: r.GetId()})
			want := "NotFound RECORD_NOT_FOUND"
			if slices.Contains(tt.want, r) {
				want = "OK"
			}
			expect(t, tt.name+" gets "+r.GetState().String(), err, want)
		}
	}
	_, err := sp.CreateServiceRequest(t.Context(), &pb.CreateServiceRequestRequest{PropertyId: mine.GetId(), Title: "Tap drips"})
	expect(t, "SP creates", err, "PermissionDenied GRANT_MISSING")
	_, err = sp.ReassignServiceRequest(t.Context(), &pb.ReassignServiceRequestRequest{Id: given.GetId(), AssigneeId: pm.ID})
	expect(t, "SP assigns", err, "PermissionDenied GRANT_MISSING")
	_, err = pm.CompleteServiceRequest(t.Context(), &pb.CompleteServiceRequestRequest{Id: given.GetId()})
	expect(t, "PM completes", err, "PermissionDenied GRANT_MISSING")
}

func TestReassignTakesSightAway(t *testing.T) {
	s := newSuite(t)
	pm, first, second := s.role("PM"), s.role("SP"), s.role("SP")
	p := s.property(pm)
	id := s.request(p, accepted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = pm.ID, first.ID }).GetId()
	open := &pb.ListServiceRequestsRequest{View: view("OPEN")}
	if got := list(t, first, open); !slices.Equal(got, []string{id}) {
		t.Errorf("before: got %v", got)
	}
	resp := must[*pb.ReassignServiceRequestResponse](t)(pm.ReassignServiceRequest(t.Context(), &pb.ReassignServiceRequestRequest{
		Id: id, AssigneeId: second.ID, PurchaseOrderNumber: proto.String("PO-7"),
	}))
	if r := resp.GetServiceRequest(); r.GetAcceptTime() != nil || r.GetTargetDate() != nil || r.GetPurchaseOrderNumber() != "PO-7" {
		t.Errorf("got %v", r)
	}
	_, err := first.GetServiceRequest(t.Context(), &pb.GetServiceRequestRequest{Id: id})
	expect(t, "the old assignee", err, "NotFound RECORD_NOT_FOUND")
	if got := list(t, first, open); len(got) > 0 {
		t.Errorf("the old assignee lists %v", got)
	}
	if got := list(t, second, &pb.ListServiceRequestsRequest{View: view("NEW")}); !slices.Equal(got, []string{id}) {
		t.Errorf("the new assignee lists %v", got)
	}
}

func TestListRefusals(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	for range 3 {
		s.request(p, requested, func(r *pb.ServiceRequest) { r.OwnerId = c.ID })
	}
	page := must[*pb.ListServiceRequestsResponse](t)(c.ListServiceRequests(t.Context(), &pb.ListServiceRequestsRequest{View: view("NEW"), PageSize: 2}))
	token := page.GetNextPageToken()
	tests := []struct {
		name string
		c    client
		req  *pb.ListServiceRequestsRequest
		want string
	}{
		{"no view", c, &pb.ListServiceRequestsRequest{}, "InvalidArgument FIELD_INVALID"},
		{"unknown view", c, &pb.ListServiceRequestsRequest{View: 99}, "InvalidArgument FIELD_INVALID"},
		{"another view's token", c, &pb.ListServiceRequestsRequest{View: view("OPEN"), PageToken: token}, "InvalidArgument PAGE_TOKEN_INVALID"},
		{"another caller's token", s.as(everything()...), &pb.ListServiceRequestsRequest{View: view("NEW"), PageToken: token}, "InvalidArgument PAGE_TOKEN_INVALID"},
		{"no token", c, &pb.ListServiceRequestsRequest{View: view("NEW"), PageToken: "x"}, "InvalidArgument PAGE_TOKEN_INVALID"},
		{"negative size", c, &pb.ListServiceRequestsRequest{View: view("NEW"), PageSize: -1}, "InvalidArgument FIELD_INVALID"},
		{"a label that is none", c, &pb.ListServiceRequestsRequest{View: view("NEW"), LabelIds: []string{"urgent"}}, "InvalidArgument FIELD_INVALID"},
		{"other labels' token", c, &pb.ListServiceRequestsRequest{View: view("NEW"), LabelIds: drawn[:1], PageToken: token}, "InvalidArgument PAGE_TOKEN_INVALID"},
		{"malformed filter", c, &pb.ListServiceRequestsRequest{View: view("NEW"), Filter: "title ="}, "InvalidArgument FIELD_INVALID"},
		{"unknown property", c, &pb.ListServiceRequestsRequest{View: view("NEW"), PropertyId: servertest.UUID(99999999)}, "NotFound RECORD_NOT_FOUND"},
		{"another's property", s.as(everything()...), &pb.ListServiceRequestsRequest{View: view("NEW"), PropertyId: p.GetId()}, "NotFound RECORD_NOT_FOUND"},
		{"without the view's key", s.as(keysOf([]string{"PM"}, "-ServiceRequests:Grid:New")...), &pb.ListServiceRequestsRequest{View: view("NEW")}, "PermissionDenied GRANT_MISSING"},
		{"deleted ones", s.role("PM"), &pb.ListServiceRequestsRequest{View: view("DELETED")}, "PermissionDenied GRANT_MISSING"},
	}
	for _, tt := range tests {
		_, err := tt.c.ListServiceRequests(t.Context(), tt.req)
		expect(t, tt.name, err, tt.want)
	}
	found := list(t, c, &pb.ListServiceRequestsRequest{View: view("NEW"), Filter: `title : "DRIPS" AND state = REQUESTED`})
	if none := list(t, c, &pb.ListServiceRequestsRequest{View: view("NEW"), Filter: `title : "roof"`}); len(found) != 3 || len(none) != 0 {
		t.Errorf("filtered: got %v and %v", found, none)
	}
}
