package invoicing

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// vendorScope is which vendor invoices exist for a caller.
type vendorScope struct {
	caller string
	own    bool            // those that he made
	teams  map[string]bool // properties of which he sees those of others
	err    error           // why it is not known
}

// vendorScope asks on which teams the caller is, unless it cannot matter. It is asked
// before the transaction, and an error counts in it: a repeated request has its
// answer even when the peer is gone.
func (s *service) vendorScope(ctx context.Context) vendorScope {
	c := authz.Caller(ctx)
	scope := vendorScope{caller: c.ID, own: c.Has("View:OwnedBy:Me"), teams: map[string]bool{}}
	if !c.Has("View:OwnedBy:Others") {
		return scope
	}
	resp, err := s.properties.LookupPropertyTeams(ctx, &servicerequestpb.LookupPropertyTeamsRequest{UserId: c.ID})
	if err != nil {
		scope.err = peerError(ctx, "look up property teams", err)
	}
	for _, id := range resp.GetPropertyIds() {
		scope.teams[id] = true
	}
	return scope
}

func (s vendorScope) sees(v *pb.VendorInvoice) bool {
	if v.GetOwnerId() == s.caller {
		return s.own
	}
	return v.GetState() != vendorDraft && s.teams[v.GetPropertyId()]
}

// ranges returns what a list reads, the latest first: all that the scope sees. Of what
// is beside it the list keeps only what the scope sees.
func (s vendorScope) ranges(closed bool) []store.Range[*pb.VendorInvoice] {
	var ranges []store.Range[*pb.VendorInvoice]
	if s.own {
		ranges = append(ranges, vendorInvoiceOwner.Range(s.caller, closed).Reverse())
	}
	for id := range s.teams {
		ranges = append(ranges, vendorInvoiceProperty.Range(id, closed).Reverse())
	}
	return ranges
}

// find returns the vendor invoice if it exists for the caller.
func (s vendorScope) find(tx *store.Tx, id string) (*pb.VendorInvoice, error) {
	if s.err != nil {
		return nil, s.err
	}
	if v, ok := vendorInvoices.Get(tx, id); ok && s.sees(v) {
		return v, nil
	}
	return nil, fault.NotFound(vendorInvoices.Name(), id)
}

// change finds the vendor invoice of a request and moves it by the row of the method.
func (s vendorScope) change(ctx context.Context, tx *store.Tx, req changeRequest, method string) (*pb.VendorInvoice, error) {
	v, err := s.find(tx, req.GetId())
	if err != nil {
		return nil, err
	}
	if err := vendorInvoices.Match(v, req.GetEtag()); err != nil {
		return nil, err
	}
	return v, vendorStates.Apply(ctx, method, v)
}

// lookupWork returns the service request if it is assigned to the caller and may be
// billed for. One that is not assigned to him is as one that does not exist.
func (s *service) lookupWork(ctx context.Context, id string) (*servicerequestpb.ServiceRequestSummary, error) {
	resp, err := s.requests.LookupServiceRequest(ctx, &servicerequestpb.LookupServiceRequestRequest{Id: id})
	work := resp.GetSummary()
	switch {
	case status.Code(err) == codes.NotFound:
		return nil, fault.NotFound("service_request", id)
	case err != nil:
		return nil, peerError(ctx, "look up service request", err)
	case work.GetAssigneeId() != authz.Caller(ctx).ID:
		return nil, fault.NotFound("service_request", id)
	case work.GetPurchaseOrderNumber() == "" || !work.GetPurchaseOrderBeforeCompletion():
		return nil, fault.Refused("the service request needs a purchase order number that was set before its completion")
	}
	return work, nil
}

// peerError says what an error of the service-request service means here.
func peerError(ctx context.Context, doing string, err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		if ctx.Err() == nil {
			return fault.Unreachable("servicerequest")
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
