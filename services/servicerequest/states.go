package servicerequest

import (
	"slices"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/states"
)

const (
	drafted     = pb.ServiceRequestState_SERVICE_REQUEST_STATE_DRAFTED
	requested   = pb.ServiceRequestState_SERVICE_REQUEST_STATE_REQUESTED
	documented  = pb.ServiceRequestState_SERVICE_REQUEST_STATE_DOCUMENTED
	recommended = pb.ServiceRequestState_SERVICE_REQUEST_STATE_RECOMMENDED
	pended      = pb.ServiceRequestState_SERVICE_REQUEST_STATE_PENDED
	declined    = pb.ServiceRequestState_SERVICE_REQUEST_STATE_DECLINED
	denied      = pb.ServiceRequestState_SERVICE_REQUEST_STATE_DENIED
	accepted    = pb.ServiceRequestState_SERVICE_REQUEST_STATE_ACCEPTED
	completed   = pb.ServiceRequestState_SERVICE_REQUEST_STATE_COMPLETED
	onHold      = pb.ServiceRequestState_SERVICE_REQUEST_STATE_ON_HOLD
	archived    = pb.ServiceRequestState_SERVICE_REQUEST_STATE_ARCHIVED
)

type (
	from   = []pb.ServiceRequestState
	action = states.Action[*pb.ServiceRequest, pb.ServiceRequestState]
	check  = func(*authz.Principal, *pb.ServiceRequest) error
)

// notArchived are the states of a request that is not over.
var notArchived = from{drafted, requested, documented, recommended, pended, declined, denied, accepted, completed, onHold}

// requestStates is what can be done with a service request. Resuming leads to the
// state before the hold.
var requestStates = states.New("service_request", (*pb.ServiceRequest).GetId, (*pb.ServiceRequest).GetState, setState,

	action{Method: pb.ServiceRequestService_RequestServiceRequest_FullMethodName, From: from{drafted}, To: requested, Check: live()},
	action{Method: pb.ServiceRequestService_RecommendServiceRequest_FullMethodName, From: from{documented}, To: recommended, Check: live(isAuthor)},
	action{Method: pb.ServiceRequestService_ApproveServiceRequest_FullMethodName, From: from{recommended}, To: requested, Check: live()},
	action{Method: pb.ServiceRequestService_DenyServiceRequest_FullMethodName, From: from{recommended}, To: denied, Check: live()},
	action{Method: pb.ServiceRequestService_ReleaseServiceRequest_FullMethodName, From: from{pended}, To: requested, Check: live()},
	action{Method: pb.ServiceRequestService_AcceptServiceRequest_FullMethodName, From: from{requested}, To: accepted, Check: live(isAssignee)},
	action{Method: pb.ServiceRequestService_ClaimServiceRequest_FullMethodName, From: from{requested}, To: accepted, Check: live(isOffered)},
	action{Method: pb.ServiceRequestService_DeclineServiceRequest_FullMethodName, From: from{requested}, To: declined, Check: live(isAssignee)},
	action{Method: pb.ServiceRequestService_ReassignServiceRequest_FullMethodName, From: from{declined, requested, accepted}, To: requested, Check: live()},
	action{Method: pb.ServiceRequestService_CompleteServiceRequest_FullMethodName, From: from{accepted}, To: completed, Check: live(isAssignee)},
	action{Method: pb.ServiceRequestService_ReopenServiceRequest_FullMethodName, From: from{completed}, To: accepted, Check: live()},
	action{Method: pb.ServiceRequestService_ReviewServiceRequest_FullMethodName, From: from{completed}, To: archived, Check: live(mayReview)},
	action{Method: pb.ServiceRequestService_HoldServiceRequest_FullMethodName, From: from{requested, accepted, completed}, To: onHold, Check: live()},
	action{Method: pb.ServiceRequestService_ResumeServiceRequest_FullMethodName, From: from{onHold}, Check: live()},
	action{Method: pb.ServiceRequestService_CancelServiceRequest_FullMethodName, From: notArchived, To: archived, Check: live()},

	action{Method: pb.ServiceRequestService_UpdateServiceRequest_FullMethodName, From: notArchived, Check: live()},
	action{Method: pb.ServiceRequestService_SetPurchaseOrderNumber_FullMethodName, Check: live()},
	action{Method: pb.ServiceRequestService_DeleteServiceRequest_FullMethodName, Check: live()},
	action{Method: pb.ServiceRequestService_UndeleteServiceRequest_FullMethodName, Check: isDeleted},
	action{Method: pb.CommentService_CreateComment_FullMethodName, Check: live()},
	action{Method: pb.AttachmentService_UploadAttachment_FullMethodName, Check: live()},
)

// setState remembers what a hold is from, and forgets the reason of the state before.
func setState(r *pb.ServiceRequest, state pb.ServiceRequestState) {
	if state == r.GetState() {
		return
	}
	r.Hold = nil
	if state == onHold {
		r.Hold = &pb.Hold{PreviousState: r.GetState()}
	}
	r.State, r.StateReason = state, ""
}

// live returns the check that the request is not deleted, and the others.
func live(others ...check) check {
	return func(c *authz.Principal, r *pb.ServiceRequest) error {
		if r.GetDeleteTime() != nil {
			return fault.Refused("the service request is deleted: restore it first")
		}
		for _, other := range others {
			if err := other(c, r); err != nil {
				return err
			}
		}
		return nil
	}
}

func isDeleted(_ *authz.Principal, r *pb.ServiceRequest) error {
	if r.GetDeleteTime() == nil {
		return fault.Refused("the service request is not deleted")
	}
	return nil
}

func isAuthor(c *authz.Principal, r *pb.ServiceRequest) error {
	if c.ID != r.GetAuthorId() {
		return fault.Relation("the author of the recommendation")
	}
	return nil
}

func isAssignee(c *authz.Principal, r *pb.ServiceRequest) error {
	if c.ID != r.GetAssigneeId() {
		return fault.Relation("the assignee")
	}
	return nil
}

// isOffered does not ask for the team: a request that is open to it exists for nobody
// else.
func isOffered(_ *authz.Principal, r *pb.ServiceRequest) error {
	if !claimable(r) {
		return fault.Refused("the service request must be open to the team and without an assignee")
	}
	return nil
}

// mayReview keeps people from passing their own work, but for those whose grants say
// that they both do work and review it.
func mayReview(c *authz.Principal, r *pb.ServiceRequest) error {
	alone := slices.Equal(r.GetCompleterIds(), []string{c.ID})
	if alone && !(c.Has("ServiceRequests:Work") && c.Has("ServiceRequests:Review")) {
		return fault.Relation("somebody else than the one who completed it")
	}
	return nil
}
