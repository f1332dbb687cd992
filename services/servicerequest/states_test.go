package servicerequest

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"
)

// row is a row of the table in the specification of service requests: a method, from
// where it may be called, and to where it leads (0: the state stays).
type row struct {
	method string
	from   []pb.ServiceRequestState
	to     pb.ServiceRequestState
	req    proto.Message // but for its id
}

const prefixService = "/latchkey.servicerequest.v1.ServiceRequestService/"

var allStates = []pb.ServiceRequestState{
	drafted, requested, documented, recommended, pended, declined, denied, accepted, completed, onHold, archived,
}

var openStates = allStates[:10]

func rows() []row {
	someday := &typepb.Date{Year: 2026, Month: 12, Day: 24}
	return []row{
		{"RequestServiceRequest", from{drafted}, requested, &pb.RequestServiceRequestRequest{}},
		{"RecommendServiceRequest", from{documented}, recommended, &pb.RecommendServiceRequestRequest{}},
		{"ApproveServiceRequest", from{recommended}, requested, &pb.ApproveServiceRequestRequest{}},
		{"DenyServiceRequest", from{recommended}, denied, &pb.DenyServiceRequestRequest{Reason: "No."}},
		{"ReleaseServiceRequest", from{pended}, requested, &pb.ReleaseServiceRequestRequest{}},
		{"AcceptServiceRequest", from{requested}, accepted, &pb.AcceptServiceRequestRequest{TargetDate: someday}},
		{"ClaimServiceRequest", from{requested}, accepted, &pb.ClaimServiceRequestRequest{}},
		{"DeclineServiceRequest", from{requested}, declined, &pb.DeclineServiceRequestRequest{Reason: "No."}},
		{"ReassignServiceRequest", from{declined, requested, accepted}, requested, &pb.ReassignServiceRequestRequest{OpenToTeam: true}},
		{"CompleteServiceRequest", from{accepted}, completed, &pb.CompleteServiceRequestRequest{}},
		{"ReopenServiceRequest", from{completed}, accepted, &pb.ReopenServiceRequestRequest{Reason: "It drips."}},
		{"ReviewServiceRequest", from{completed}, archived, &pb.ReviewServiceRequestRequest{}},
		{"HoldServiceRequest", from{requested, accepted, completed}, onHold, &pb.HoldServiceRequestRequest{Reason: "Waits."}},
		{"ResumeServiceRequest", from{onHold}, accepted, &pb.ResumeServiceRequestRequest{}},
		{"CancelServiceRequest", openStates, archived, &pb.CancelServiceRequestRequest{Reason: "Not needed."}},
		{"SetPurchaseOrderNumber", allStates, 0, &pb.SetPurchaseOrderNumberRequest{PurchaseOrderNumber: "PO-1"}},
		{"DeleteServiceRequest", allStates, 0, &pb.DeleteServiceRequestRequest{}},
		{"UpdateServiceRequest", openStates, 0, &pb.UpdateServiceRequestRequest{}},
	}
}

// on returns the request of a row for a service request.
func (r row) on(id string) proto.Message {
	req := proto.Clone(r.req)
	if update, ok := req.(*pb.UpdateServiceRequestRequest); ok {
		update.ServiceRequest = &pb.ServiceRequest{Id: id, Title: proto.String("Both taps drip")}
		return update
	}
	return set(req, "id", id)
}

// withEtag sets the etag that a row's request asks for.
func withEtag(req proto.Message, etag string) proto.Message {
	if update, ok := req.(*pb.UpdateServiceRequestRequest); ok {
		update.ServiceRequest.Etag = etag
		return req
	}
	return set(req, "etag", etag)
}

// subject puts a request of a state into the store to which the user stands in every
// relation, so that but for the state he could do everything with it. Claiming is
// for requests that nobody has.
func (s *suite) subject(p *pb.Property, c client, state pb.ServiceRequestState, method string) *pb.ServiceRequest {
	s.t.Helper()
	return s.request(p, state, related(c, state, method))
}

func related(c client, state pb.ServiceRequestState, method string) func(*pb.ServiceRequest) {
	return func(r *pb.ServiceRequest) {
		r.OwnerId, r.AuthorId, r.AssigneeId = c.ID, c.ID, c.ID
		if method == "ClaimServiceRequest" && state == requested {
			r.AssigneeId, r.OpenToTeam = "", true
		}
	}
}

func result(resp proto.Message) *pb.ServiceRequest {
	return resp.(interface{ GetServiceRequest() *pb.ServiceRequest }).GetServiceRequest()
}

func TestEveryStateAndMethod(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	for _, row := range rows() {
		for _, state := range allStates {
			r := s.subject(p, c, state, row.method)
			before := s.stored(r.GetId())
			resp, err := invoke(t, c, prefixService+row.method, row.on(r.GetId()))
			what := row.method + " from " + state.String()
			after := s.stored(r.GetId())
			if !slices.Contains(row.from, state) {
				expect(t, what, err, "FailedPrecondition STATE_FORBIDS")
				equal(t, what+" changed the record", after, before)
				continue
			}
			want := row.to
			if want == 0 {
				want = state
			}
			if expect(t, what, err, "OK"); after.GetState() != want {
				t.Errorf("%s: got %s, want %s", what, after.GetState(), want)
			}
			if err == nil && result(resp).GetState() != want {
				t.Errorf("%s: answered %s, want %s", what, result(resp).GetState(), want)
			}
			if running := after.GetCycleTimer().GetRunningSince() != nil; running != busy(after) {
				t.Errorf("%s: timer runs: got %t, want %t", what, running, busy(after))
			}
		}
	}
}

// TestAvailableActions compares what a request says that can be done with it to what
// happens when it is done.
func TestAvailableActions(t *testing.T) {
	s := newSuite(t)
	users := map[string]client{"PM": s.role("PM"), "SP": s.role("SP"), "PM+": s.role("PM+")}
	p := s.property(users["PM"], users["SP"], users["PM+"])
	for name, c := range users {
		whose := c
		if name == "PM" {
			whose = users["PM+"]
		}
		for _, state := range allStates {
			var all []*pb.ServiceRequest
			for _, row := range rows() {
				all = append(all, s.make(p, state, related(whose, state, row.method)))
			}
			s.putAll(all...)
			for i, row := range rows() {
				got, err := c.GetServiceRequest(t.Context(), &pb.GetServiceRequestRequest{Id: all[i].GetId()})
				if outcome(err) == "NotFound RECORD_NOT_FOUND" {
					break
				}
				_, err = invoke(t, c, prefixService+row.method, row.on(all[i].GetId()))
				checkAction(t, name, got.GetServiceRequest(), row.method, err)
			}
		}
	}
}

// checkAction compares what a request says of a method to what the call answered.
func checkAction(t *testing.T, who string, r *pb.ServiceRequest, method string, err error) {
	t.Helper()
	_, want, _ := strings.Cut(outcome(err), " ")
	for _, a := range r.GetAvailableActions() {
		if a.GetMethod() != prefixService[1:]+method {
			continue
		}
		if a.GetReason() != want || a.GetAllowed() != (want == "") || (a.GetExplanation() == "") != (want == "") {
			t.Errorf("%s, %s, %s: got %v, but the call answers %v", who, r.GetState(), method, a, err)
		}
		return
	}
	t.Errorf("%s: %s is not among the actions", r.GetState(), method)
}

func TestRelations(t *testing.T) {
	s := newSuite(t)
	c, other := s.as(everything()...), s.as(everything()...)
	p := s.property(c, other)
	for _, row := range rows() {
		switch row.method {
		case "RecommendServiceRequest":
			// Nobody but its author sees a documented request, so this is refused before.
			r := s.subject(p, c, documented, row.method)
			_, err := invoke(t, other, prefixService+row.method, row.on(r.GetId()))
			expect(t, row.method, err, "NotFound RECORD_NOT_FOUND")
		case "AcceptServiceRequest", "DeclineServiceRequest", "CompleteServiceRequest":
			r := s.subject(p, c, row.from[0], row.method)
			_, err := invoke(t, other, prefixService+row.method, row.on(r.GetId()))
			expect(t, row.method, err, "PermissionDenied RELATION_MISSING")
			equal(t, row.method+" changed the record", s.stored(r.GetId()), r)
		}
	}
}

func TestReviewOfOwnWork(t *testing.T) {
	s := newSuite(t)
	plus := s.role("PM+")
	noWork := s.as(keysOf([]string{"PM+"}, "-ServiceRequests:Work")...)
	p := s.property(plus, noWork)
	tests := []struct {
		name       string
		reviewer   client
		completers []string
		want       string
	}{
		{"by somebody else", noWork, []string{plus.ID}, "OK"},
		{"by one of two", noWork, []string{plus.ID, noWork.ID}, "OK"},
		{"alone, without the right to work", noWork, []string{noWork.ID}, "PermissionDenied RELATION_MISSING"},
		{"alone, with the rights to work and to review", plus, []string{plus.ID}, "OK"},
	}
	for _, tt := range tests {
		r := s.request(p, completed, func(r *pb.ServiceRequest) { r.OwnerId, r.CompleterIds = plus.ID, tt.completers })
		_, err := tt.reviewer.ReviewServiceRequest(t.Context(), &pb.ReviewServiceRequestRequest{Id: r.GetId()})
		expect(t, tt.name, err, tt.want)
	}
}

// eachChange runs a check for each method that changes a request, from a state where
// it is allowed.
func eachChange(t *testing.T, check func(t *testing.T, s *suite, c client, row row, r *pb.ServiceRequest)) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	for _, row := range rows() {
		check(t, s, c, row, s.subject(p, c, row.from[0], row.method))
	}
	deleted := s.request(p, accepted, func(r *pb.ServiceRequest) {
		r.OwnerId = c.ID
		r.DeleteTime, r.PurgeTime = stamp(noon), stamp(noon.Add(retention))
	})
	check(t, s, c, row{"UndeleteServiceRequest", allStates, 0, &pb.UndeleteServiceRequestRequest{}}, deleted)
}

func TestRepeatGetsTheFirstAnswer(t *testing.T) {
	eachChange(t, func(t *testing.T, s *suite, c client, row row, r *pb.ServiceRequest) {
		id := newID()
		req := set(row.on(r.GetId()), "request_id", id)
		first := must[proto.Message](t)(invoke(t, c, prefixService+row.method, req))
		again, err := invoke(t, c, prefixService+row.method, req)
		expect(t, row.method+" again", err, "OK")
		equal(t, row.method+" again", again, first)
		other := set(row.on(newID()), "request_id", id)
		_, err = invoke(t, c, prefixService+row.method, other)
		expect(t, row.method+" with another request", err, "InvalidArgument REQUEST_ID_REUSED")
	})
}

func TestStaleEtag(t *testing.T) {
	eachChange(t, func(t *testing.T, s *suite, c client, row row, r *pb.ServiceRequest) {
		before := s.stored(r.GetId())
		_, err := invoke(t, c, prefixService+row.method, withEtag(row.on(r.GetId()), "0"))
		expect(t, row.method, err, "Aborted ETAG_STALE")
		equal(t, row.method+" changed the record", s.stored(r.GetId()), before)
		_, err = invoke(t, c, prefixService+row.method, withEtag(row.on(r.GetId()), before.GetEtag()))
		expect(t, row.method+" with the etag", err, "OK")
	})
}

func TestValidateOnly(t *testing.T) {
	eachChange(t, func(t *testing.T, s *suite, c client, row row, r *pb.ServiceRequest) {
		before := s.stored(r.GetId())
		resp, err := invoke(t, c, prefixService+row.method, set(row.on(r.GetId()), "validate_only", true))
		expect(t, row.method, err, "OK")
		if result(resp).GetEtag() == before.GetEtag() {
			t.Errorf("%s: answered the record before the change", row.method)
		}
		equal(t, row.method+" changed the record", s.stored(r.GetId()), before)
	})
}

func TestDeletedRequestsRest(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	for _, row := range rows() {
		r := s.subject(p, c, row.from[0], row.method)
		must[*pb.DeleteServiceRequestResponse](t)(c.DeleteServiceRequest(t.Context(), &pb.DeleteServiceRequestRequest{Id: r.GetId()}))
		before := s.stored(r.GetId())
		_, err := invoke(t, c, prefixService+row.method, row.on(r.GetId()))
		expect(t, row.method, err, "FailedPrecondition PRECONDITION_FAILED")
		equal(t, row.method+" changed the record", s.stored(r.GetId()), before)
	}
}

// TestOtherOrganization calls each method with an id of another organization and
// with one that there is not, by callers with the same keys.
func TestOtherOrganization(t *testing.T) {
	eachChange(t, func(t *testing.T, s *suite, c client, row row, r *pb.ServiceRequest) {
		stranger := as(s.InOrganization(newID()).As(everything()...))
		before := s.stored(r.GetId())
		_, err := invoke(t, stranger, prefixService+row.method, row.on(r.GetId()))
		unknown := newID()
		_, want := invoke(t, c, prefixService+row.method, row.on(unknown))
		if outcome(err) != "NotFound RECORD_NOT_FOUND" || strings.ReplaceAll(err.Error(), r.GetId(), unknown) != want.Error() {
			t.Errorf("%s: got %v, want %v", row.method, err, want)
		}
		equal(t, row.method+" changed the record", s.stored(r.GetId()), before)
	})
}
