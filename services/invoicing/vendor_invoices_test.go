package invoicing_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/servertest"
)

const (
	draft     = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_DRAFT
	submitted = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_SUBMITTED
	inReview  = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_IN_REVIEW
	hold      = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_HOLD
	approved  = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_APPROVED
	declined  = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_DECLINED
	paid      = pb.VendorInvoiceState_VENDOR_INVOICE_STATE_PAID
)

var (
	gridKeys    = []string{"VendorInvoices", "VendorInvoices:Grid:Submitted", "VendorInvoices:Grid:Closed", pricing}
	vendorKeys  = append([]string{"VendorInvoices:Create", "VendorInvoices:Submit", "View:OwnedBy:Me"}, gridKeys...)
	managerKeys = append([]string{"VendorInvoices:Review", "VendorInvoices:Approve", "VendorInvoices:MarkPaid", "View:OwnedBy:Me", "View:OwnedBy:Others"}, gridKeys...)
	bothKeys    = append(slices.Clone(managerKeys), "VendorInvoices:Create", "VendorInvoices:Submit")
)

const property, request = 31, 41 // numbers of ids

// manager is on the team of the property.
func (s *suite) manager(grants ...string) *user {
	s.t.Helper()
	u := s.as(grants...)
	s.peers.change(func(p *peers) { p.teams[u.ID] = append(p.teams[u.ID], servertest.UUID(property)) })
	return u
}

// assign makes the service request one that the user may bill for.
func (s *suite) assign(u *user) {
	s.peers.change(func(p *peers) {
		p.work[servertest.UUID(request)] = &servicerequestpb.ServiceRequestSummary{
			Id: servertest.UUID(request), PropertyId: servertest.UUID(property), UnitId: servertest.UUID(32),
			AssigneeId: u.ID, PurchaseOrderNumber: "PO-7", PurchaseOrderBeforeCompletion: true,
		}
	})
}

// bill makes a draft of the service request.
func (u *user) bill(t testing.TB) *pb.VendorInvoice {
	t.Helper()
	return must(u.vendors.CreateVendorInvoice(t.Context(), &pb.CreateVendorInvoiceRequest{
		ServiceRequestId: servertest.UUID(request), Reference: "2026-1", Description: "Valve", Total: eur(24000),
	}))(t).GetVendorInvoice()
}

func (u *user) getBill(t testing.TB, id string) *pb.VendorInvoice {
	t.Helper()
	return must(u.vendors.GetVendorInvoice(t.Context(), &pb.GetVendorInvoiceRequest{Id: id}))(t).GetVendorInvoice()
}

func TestVendorInvoiceToPaid(t *testing.T) {
	s := start(t)
	vendor, manager := s.as(vendorKeys...), s.manager(managerKeys...)
	s.assign(vendor)
	req := &pb.CreateVendorInvoiceRequest{RequestId: servertest.UUID(1), ServiceRequestId: servertest.UUID(request), Reference: "2026-1"}
	v := must(vendor.vendors.CreateVendorInvoice(t.Context(), req))(t).GetVendorInvoice()
	want := &pb.VendorInvoice{
		Id: v.GetId(), Etag: v.GetEtag(), CreateTime: v.GetCreateTime(), UpdateTime: v.GetUpdateTime(), AvailableActions: v.GetAvailableActions(),
		OwnerId: vendor.ID, State: draft, ServiceRequestId: servertest.UUID(request), PropertyId: servertest.UUID(property), UnitId: servertest.UUID(32),
		PurchaseOrderNumber: "PO-7", Reference: proto.String("2026-1"),
	}
	equal(t, "create", v, want)
	equal(t, "get", vendor.getBill(t, v.GetId()), want)
	s.assign(manager)
	equal(t, "repeat after the request went to another", must(vendor.vendors.CreateVendorInvoice(t.Context(), req))(t).GetVendorInvoice(), want)

	id := v.GetId()
	_, err := vendor.vendors.SubmitVendorInvoice(t.Context(), &pb.SubmitVendorInvoiceRequest{Id: id})
	fails(t, "submitting without a total", err, codes.FailedPrecondition, "PRECONDITION_FAILED", "")
	_, err = vendor.vendors.UpdateVendorInvoice(t.Context(), &pb.UpdateVendorInvoiceRequest{VendorInvoice: &pb.VendorInvoice{Id: id, Total: eur(-5)}})
	fails(t, "negative total", err, codes.InvalidArgument, "FIELD_INVALID", "vendor_invoice.total")
	must(vendor.vendors.UpdateVendorInvoice(t.Context(), &pb.UpdateVendorInvoiceRequest{VendorInvoice: &pb.VendorInvoice{Id: id, Total: eur(24000)}}))(t)
	must(vendor.vendors.SubmitVendorInvoice(t.Context(), &pb.SubmitVendorInvoiceRequest{Id: id}))(t)
	must(manager.vendors.StartVendorInvoiceReview(t.Context(), &pb.StartVendorInvoiceReviewRequest{Id: id}))(t)
	held := must(manager.vendors.HoldVendorInvoice(t.Context(), &pb.HoldVendorInvoiceRequest{Id: id, Note: "Hours?"}))(t).GetVendorInvoice()
	if held.GetHoldNote() != "Hours?" || held.GetReviewedBy() != manager.ID {
		t.Errorf("held: got %v, want the note and the reviewer", held)
	}
	must(vendor.vendors.UpdateVendorInvoice(t.Context(), &pb.UpdateVendorInvoiceRequest{
		VendorInvoice: &pb.VendorInvoice{Id: id, Description: proto.String("Three hours")}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}},
	}))(t)
	must(vendor.vendors.SubmitVendorInvoice(t.Context(), &pb.SubmitVendorInvoiceRequest{Id: id}))(t)
	must(manager.vendors.ApproveVendorInvoice(t.Context(), &pb.ApproveVendorInvoiceRequest{Id: id}))(t)
	v = must(manager.vendors.MarkVendorInvoicePaid(t.Context(), &pb.MarkVendorInvoicePaidRequest{Id: id}))(t).GetVendorInvoice()
	want = &pb.VendorInvoice{
		Id: id, Etag: v.GetEtag(), CreateTime: want.GetCreateTime(), UpdateTime: v.GetUpdateTime(), AvailableActions: v.GetAvailableActions(),
		OwnerId: vendor.ID, State: paid, ServiceRequestId: servertest.UUID(request), PropertyId: servertest.UUID(property), UnitId: servertest.UUID(32),
		PurchaseOrderNumber: "PO-7", Reference: proto.String("2026-1"), Description: proto.String("Three hours"), Total: eur(24000),
		SubmitTime: v.GetSubmitTime(), ReviewedBy: manager.ID, DecidedBy: manager.ID, DecideTime: v.GetDecideTime(), PaidBy: manager.ID, PayTime: v.GetPayTime(),
	}
	equal(t, "paid", v, want)
	if v.GetSubmitTime() == nil || v.GetDecideTime() == nil || v.GetPayTime() == nil {
		t.Errorf("paid: got %v, want the times of each step", v)
	}
}

func TestVendorInvoiceNeedsAPurchaseOrder(t *testing.T) {
	s := start(t)
	vendor := s.as(vendorKeys...)
	req := &pb.CreateVendorInvoiceRequest{ServiceRequestId: servertest.UUID(request)}
	try := func(doing string, code codes.Code, reason string) {
		t.Helper()
		_, err := vendor.vendors.CreateVendorInvoice(t.Context(), req)
		fails(t, doing, err, code, reason, "")
	}
	try("no such service request", codes.NotFound, "RECORD_NOT_FOUND")
	s.assign(s.as())
	try("assigned to another", codes.NotFound, "RECORD_NOT_FOUND")
	s.assign(vendor)
	s.peers.change(func(p *peers) { p.work[servertest.UUID(request)].PurchaseOrderBeforeCompletion = false })
	try("number set too late", codes.FailedPrecondition, "PRECONDITION_FAILED")
	s.peers.change(func(p *peers) { p.work[servertest.UUID(request)].PurchaseOrderNumber = "" })
	try("no number", codes.FailedPrecondition, "PRECONDITION_FAILED")
	s.assign(vendor)
	req.Total = eur(-1)
	try("negative total", codes.InvalidArgument, "FIELD_INVALID")
	req.Total = nil
	s.peers.change(func(p *peers) { p.broken = fault.Unreachable("identity") })
	try("peer that does not answer", codes.Unavailable, "SERVICE_UNREACHABLE")
	s.peers.change(func(p *peers) { p.broken = fault.Refused("something") })
	try("peer that is at fault", codes.Internal, "INTERNAL")
}

// vendorMove is one call of the table, by the vendor or by a manager.
type vendorMove struct {
	method   string
	req      func(id, etag string) proto.Message
	resp     func() proto.Message
	from     []pb.VendorInvoiceState
	to       pb.VendorInvoiceState // 0: it stays
	byVendor bool
}

var vendorMoves = []vendorMove{
	{pb.VendorInvoiceService_UpdateVendorInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.UpdateVendorInvoiceRequest{VendorInvoice: &pb.VendorInvoice{Id: id, Etag: etag, Description: proto.String("New")}}
	}, func() proto.Message { return &pb.UpdateVendorInvoiceResponse{} }, []pb.VendorInvoiceState{draft, hold}, 0, true},
	{pb.VendorInvoiceService_SubmitVendorInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.SubmitVendorInvoiceRequest{Id: id, Etag: etag}
	}, func() proto.Message { return &pb.SubmitVendorInvoiceResponse{} }, []pb.VendorInvoiceState{draft, hold}, submitted, true},
	{pb.VendorInvoiceService_StartVendorInvoiceReview_FullMethodName, func(id, etag string) proto.Message {
		return &pb.StartVendorInvoiceReviewRequest{Id: id, Etag: etag}
	}, func() proto.Message { return &pb.StartVendorInvoiceReviewResponse{} }, []pb.VendorInvoiceState{submitted}, inReview, false},
	{pb.VendorInvoiceService_HoldVendorInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.HoldVendorInvoiceRequest{Id: id, Etag: etag, Note: "x"}
	}, func() proto.Message { return &pb.HoldVendorInvoiceResponse{} }, []pb.VendorInvoiceState{submitted, inReview}, hold, false},
	{pb.VendorInvoiceService_ApproveVendorInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.ApproveVendorInvoiceRequest{Id: id, Etag: etag}
	}, func() proto.Message { return &pb.ApproveVendorInvoiceResponse{} }, []pb.VendorInvoiceState{submitted, inReview}, approved, false},
	{pb.VendorInvoiceService_DeclineVendorInvoice_FullMethodName, func(id, etag string) proto.Message {
		return &pb.DeclineVendorInvoiceRequest{Id: id, Etag: etag, Reason: "x"}
	}, func() proto.Message { return &pb.DeclineVendorInvoiceResponse{} }, []pb.VendorInvoiceState{submitted, inReview, hold}, declined, false},
	{pb.VendorInvoiceService_MarkVendorInvoicePaid_FullMethodName, func(id, etag string) proto.Message {
		return &pb.MarkVendorInvoicePaidRequest{Id: id, Etag: etag}
	}, func() proto.Message { return &pb.MarkVendorInvoicePaidResponse{} }, []pb.VendorInvoiceState{approved}, paid, false},
}

// ways are how a draft gets to each state.
var ways = map[pb.VendorInvoiceState][]string{
	draft: {}, submitted: {"Submit"}, inReview: {"Submit", "Start"}, hold: {"Submit", "Hold"},
	approved: {"Submit", "Approve"}, declined: {"Submit", "Decline"}, paid: {"Submit", "Approve", "Mark"},
}

func billIn(t *testing.T, vendor, manager *user, state pb.VendorInvoiceState) *pb.VendorInvoice {
	t.Helper()
	v := vendor.bill(t)
	for _, step := range ways[state] {
		i := slices.IndexFunc(vendorMoves, func(m vendorMove) bool { return short(m.method)[:len(step)] == step })
		m := vendorMoves[i]
		by := manager
		if m.byVendor {
			by = vendor
		}
		if err := call(t, by, m.method, m.req(v.GetId(), ""), m.resp()); err != nil {
			t.Fatal(err)
		}
	}
	return vendor.getBill(t, v.GetId())
}

// TestVendorInvoiceTable tries every call in every state by the vendor and by a
// manager, each with all keys, and compares what happens with available_actions.
func TestVendorInvoiceTable(t *testing.T) {
	s := start(t)
	vendor, manager := s.manager(bothKeys...), s.manager(bothKeys...)
	s.assign(vendor)
	for state := range ways {
		for _, m := range vendorMoves {
			for name, by := range map[string]*user{"vendor": vendor, "manager": manager} {
				v := billIn(t, vendor, manager, state)
				doing := fmt.Sprintf("%s in %v by the %s", short(m.method), state, name)
				if state == draft && by == manager {
					err := call(t, by, m.method, m.req(v.GetId(), ""), m.resp())
					fails(t, doing, err, codes.NotFound, "RECORD_NOT_FOUND", "")
					continue
				}
				action := actionOf(t, by.getBill(t, v.GetId()).GetAvailableActions(), m.method)
				err := call(t, by, m.method, m.req(v.GetId(), "1000000"), m.resp())
				fails(t, doing+" with a stale etag", err, codes.Aborted, "ETAG_STALE", "")
				err = call(t, by, m.method, m.req(v.GetId(), v.GetEtag()), m.resp())
				got := vendor.getBill(t, v.GetId())
				code, reason := codes.OK, ""
				switch {
				case !slices.Contains(m.from, state):
					code, reason = codes.FailedPrecondition, "STATE_FORBIDS"
				case m.byVendor && by == manager, m.to == approved && by == vendor:
					code, reason = codes.PermissionDenied, "RELATION_MISSING"
				}
				if action.GetAllowed() != (code == codes.OK) || action.GetReason() != reason {
					t.Errorf("%s: got action %v, want reason %q", doing, action, reason)
				}
				if code != codes.OK {
					fails(t, doing, err, code, reason, "")
					equal(t, doing, got, v)
					continue
				}
				want := m.to
				if want == 0 {
					want = state
				}
				if err != nil || got.GetState() != want || got.GetEtag() == v.GetEtag() {
					t.Errorf("%s: got %v, %v, want state %v", doing, got, err, want)
				}
			}
		}
	}
}

// TestWhoSeesVendorInvoices: get, every change and the lists agree.
func TestWhoSeesVendorInvoices(t *testing.T) {
	s := start(t)
	vendor, manager := s.as(vendorKeys...), s.manager(managerKeys...)
	s.assign(vendor)
	states := []pb.VendorInvoiceState{draft, submitted, inReview, hold, approved, declined, paid}
	bills := map[pb.VendorInvoiceState]string{}
	for _, state := range states {
		bills[state] = billIn(t, vendor, manager, state).GetId()
	}
	elsewhere := s.as(managerKeys...)
	s.peers.change(func(p *peers) { p.teams[elsewhere.ID] = []string{servertest.UUID(33)} })
	all := func(pb.VendorInvoiceState) bool { return true }
	none := func(pb.VendorInvoiceState) bool { return false }
	notDrafts := func(state pb.VendorInvoiceState) bool { return state != draft }
	two := s.manager(managerKeys...)
	s.peers.change(func(p *peers) { p.teams[two.ID] = append(p.teams[two.ID], servertest.UUID(34)) })
	away := clients(s.InOrganization(servertest.UUID(9)).AsUser(manager.ID, authz.SurfaceWeb, "Web"))
	for _, c := range []struct {
		who    string
		as     *user
		grants []string
		sees   func(pb.VendorInvoiceState) bool
	}{
		{"vendor", vendor, vendorKeys, all},
		{"vendor without View:OwnedBy:Me", vendor, without(vendorKeys, "View:OwnedBy:Me"), none},
		{"manager", manager, managerKeys, notDrafts},
		{"manager without View:OwnedBy:Me", manager, without(managerKeys, "View:OwnedBy:Me"), notDrafts},
		{"manager without View:OwnedBy:Others", manager, without(managerKeys, "View:OwnedBy:Others"), none},
		{"manager of another property", elsewhere, managerKeys, none},
		{"manager of two properties", two, managerKeys, notDrafts},
		{"somebody on no team", s.as(), managerKeys, none},
		{"somebody of another organization", away, managerKeys, none},
	} {
		c.as.Grant(append(c.grants, "Web")...)
		var want []string // the latest first, those under way before the others
		for _, done := range []bool{false, true} {
			for _, state := range slices.Backward(states) {
				if (state == declined || state == paid) == done && c.sees(state) {
					want = append(want, bills[state])
				}
			}
		}
		var got []string
		for _, view := range []pb.VendorInvoiceView{pb.VendorInvoiceView_VENDOR_INVOICE_VIEW_SUBMITTED, pb.VendorInvoiceView_VENDOR_INVOICE_VIEW_CLOSED} {
			got = append(got, c.as.listBills(t, view, "")...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("list by %s: got %v, want %v", c.who, got, want)
		}
		for state, id := range bills {
			_, err := c.as.vendors.GetVendorInvoice(t.Context(), &pb.GetVendorInvoiceRequest{Id: id})
			if c.sees(state) && err != nil {
				t.Errorf("get of %v by %s: got %v", state, c.who, err)
			}
			if !c.sees(state) {
				fails(t, fmt.Sprintf("get of %v by %s", state, c.who), err, codes.NotFound, "RECORD_NOT_FOUND", "")
			}
		}
	}
}

// listBills returns the ids of all pages of a list.
func (u *user) listBills(t testing.TB, view pb.VendorInvoiceView, filter string) (ids []string) {
	t.Helper()
	req := &pb.ListVendorInvoicesRequest{View: view, Filter: filter, PageSize: 2}
	for {
		page := must(u.vendors.ListVendorInvoices(t.Context(), req))(t)
		for _, v := range page.GetVendorInvoices() {
			ids = append(ids, v.GetId())
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			return ids
		}
	}
}

func TestListVendorInvoices(t *testing.T) {
	s := start(t)
	// Vendor and manager in one: each invoice is found in two ways and comes once.
	both := s.manager(bothKeys...)
	s.assign(both)
	var want []string
	for range 5 {
		v := both.bill(t)
		must(both.vendors.SubmitVendorInvoice(t.Context(), &pb.SubmitVendorInvoiceRequest{Id: v.GetId()}))(t)
		want = append([]string{v.GetId()}, want...)
	}
	const view = pb.VendorInvoiceView_VENDOR_INVOICE_VIEW_SUBMITTED
	if got := both.listBills(t, view, "total.minor_units = 24000 AND state = SUBMITTED"); !slices.Equal(got, want) {
		t.Errorf("list by vendor and manager in one: got %v, want %v", got, want)
	}
	if got := both.listBills(t, view, "total.minor_units < 24000"); len(got) != 0 {
		t.Errorf("filter: got %v, want none", got)
	}
	for view, key := range map[pb.VendorInvoiceView]string{view: "VendorInvoices:Grid:Submitted", pb.VendorInvoiceView_VENDOR_INVOICE_VIEW_CLOSED: "VendorInvoices:Grid:Closed"} {
		_, err := s.as(without(bothKeys, key)...).vendors.ListVendorInvoices(t.Context(), &pb.ListVendorInvoicesRequest{View: view})
		fails(t, view.String()+" without its key", err, codes.PermissionDenied, "GRANT_MISSING", "view")
	}
	_, err := s.as(without(bothKeys, pricing)...).vendors.ListVendorInvoices(t.Context(), &pb.ListVendorInvoicesRequest{View: view, Filter: "total.minor_units > 0"})
	fails(t, "filter by a hidden amount", err, codes.PermissionDenied, "GRANT_MISSING", "filter")
	first := must(both.vendors.ListVendorInvoices(t.Context(), &pb.ListVendorInvoicesRequest{View: view, PageSize: 1}))(t)
	_, err = both.vendors.ListVendorInvoices(t.Context(), &pb.ListVendorInvoicesRequest{View: pb.VendorInvoiceView_VENDOR_INVOICE_VIEW_CLOSED, PageSize: 1, PageToken: first.GetNextPageToken()})
	fails(t, "token of another request", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID", "")

	s.peers.change(func(p *peers) { p.broken = fault.Unreachable("identity") })
	_, err = both.vendors.ListVendorInvoices(t.Context(), &pb.ListVendorInvoicesRequest{View: view})
	fails(t, "list while teams are not known", err, codes.Unavailable, "SERVICE_UNREACHABLE", "")
	_, err = both.vendors.GetVendorInvoice(t.Context(), &pb.GetVendorInvoiceRequest{Id: want[0]})
	fails(t, "get while teams are not known", err, codes.Unavailable, "SERVICE_UNREACHABLE", "")
}
