package scheduling

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/fault"
)

// peers are the services that scheduling asks. They are asked before a transaction
// and judged within it, so that a repeated request gets its first answer whatever
// they say by then.
type peers struct {
	users      identitypb.UserServiceClient
	parts      invoicingpb.PartServiceClient
	properties servicerequestpb.PropertyServiceClient
	requests   servicerequestpb.ServiceRequestServiceClient
}

// member returns the display name of an active user of the organization.
func (p *peers) member(ctx context.Context, userID string) (displayName string, err error) {
	found, err := p.users.LookupMembers(ctx, &identitypb.LookupMembersRequest{UserIds: []string{userID}})
	if err != nil {
		return "", unanswered("identity", err)
	}
	if len(found.GetMembers()) == 0 {
		return "", fault.NotFound("user", userID)
	}
	return found.GetMembers()[0].GetDisplayName(), nil
}

// checkParts returns nil if all of the parts exist and are active.
func (p *peers) checkParts(ctx context.Context, parts []*pb.UsedPart) error {
	if len(parts) == 0 {
		return nil
	}
	var ids []string
	for i, part := range parts {
		if slices.Contains(ids, part.GetPartId()) {
			return fault.Invalid(fmt.Sprintf("parts[%d].part_id", i), "must not be named twice: add up the quantities")
		}
		ids = append(ids, part.GetPartId())
	}
	found, err := p.parts.LookupParts(ctx, &invoicingpb.LookupPartsRequest{Ids: ids})
	if err != nil {
		return unanswered("invoicing", err)
	}
	for _, id := range ids {
		if !slices.Contains(found.GetIds(), id) {
			return fault.NotFound("part", id)
		}
	}
	return nil
}

// place is where an appointment is.
type place struct{ propertyID, unitID string }

// placeOf finds out where an appointment for the service request, at the property,
// in the unit would be; each may be empty.
func (p *peers) placeOf(ctx context.Context, requestID string, asked place) (place, error) {
	if requestID == "" {
		return p.checkPlace(ctx, asked)
	}
	found, err := p.requests.LookupServiceRequest(ctx, &servicerequestpb.LookupServiceRequestRequest{Id: requestID})
	if status.Code(err) == codes.NotFound {
		return place{}, fault.NotFound("service_request", requestID)
	}
	if err != nil {
		return place{}, unanswered("servicerequest", err)
	}
	request := found.GetSummary()
	if request.GetState() == servicerequestpb.ServiceRequestState_SERVICE_REQUEST_STATE_ARCHIVED {
		return place{}, requestOver()
	}
	if asked.propertyID != "" && asked.propertyID != request.GetPropertyId() {
		return place{}, fault.Invalid("property_id", "must be the property of the service request, or left out")
	}
	if asked.unitID == "" || asked.unitID == request.GetUnitId() {
		return place{request.GetPropertyId(), request.GetUnitId()}, nil
	}
	if request.GetUnitId() != "" {
		return place{}, fault.Invalid("unit_id", "must be the unit of the service request, or left out")
	}
	return p.checkPlace(ctx, place{request.GetPropertyId(), asked.unitID})
}

// checkPlace returns the place if it exists.
func (p *peers) checkPlace(ctx context.Context, asked place) (place, error) {
	if asked.propertyID == "" {
		if asked.unitID != "" {
			return place{}, fault.Invalid("unit_id", "must come with the property that it belongs to")
		}
		return place{}, nil
	}
	_, err := p.properties.LookupProperty(ctx, &servicerequestpb.LookupPropertyRequest{Id: asked.propertyID, UnitId: asked.unitID})
	switch {
	case err == nil:
		return asked, nil
	case status.Code(err) != codes.NotFound:
		return place{}, unanswered("servicerequest", err)
	case asked.unitID != "":
		return place{}, fault.NotFound("unit", asked.unitID)
	}
	return place{}, fault.NotFound("property", asked.propertyID)
}

// unanswered says what it means that a service did not answer a question that
// always has an answer.
func unanswered(service string, err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return fault.Unreachable(service)
	}
	return fmt.Errorf("ask %s: %w", service, err)
}

// requestOver says that nothing more can be planned for the service request.
func requestOver() error {
	return fault.Refused("the service request is over: make the appointment for another one, or for none")
}
