package servicerequest

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/journal"
	"latchkey.dev/services/internal/store"
)

// showJournal says what the journal shows: to each caller what he may get.
func showJournal(j *journal.Source) {
	journal.Show(j, properties, pb.PropertyService_GetProperty_FullMethodName,
		ofTeam(func(p *pb.Property) string { return p.GetId() }))
	journal.Show(j, units, pb.PropertyService_GetUnit_FullMethodName, ofTeam((*pb.Unit).GetPropertyId))
	journal.Show(j, members, pb.PropertyService_ListPropertyTeam_FullMethodName, ofTeam((*pb.PropertyTeamMember).GetPropertyId))
	journal.Show(j, requests, pb.ServiceRequestService_GetServiceRequest_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.ServiceRequest], error) {
		caller := authz.Caller(ctx)
		return func(tx *store.Tx, r *pb.ServiceRequest) bool { return sightAt(tx, caller, r.GetPropertyId()).sees(r) }, nil
	})
	journal.Show(j, comments, pb.CommentService_ListComments_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.Comment], error) {
		caller := authz.Caller(ctx)
		private := caller.Has("ServiceRequests:Comments:Private")
		return func(tx *store.Tx, c *pb.Comment) bool {
			_, err := findRequest(tx, caller, c.GetServiceRequestId())
			return err == nil && (private || !c.GetPrivate())
		}, nil
	})
	journal.Show(j, attachments, pb.AttachmentService_ListAttachments_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.Attachment], error) {
		caller := authz.Caller(ctx)
		return func(tx *store.Tx, a *pb.Attachment) bool {
			_, err := findRequest(tx, caller, a.GetServiceRequestId())
			return err == nil
		}, nil
	})
}

// ofTeam is the sight of records of a property: they exist for its team.
func ofTeam[T proto.Message](property func(T) string) func(context.Context) (journal.Sight[T], error) {
	return func(ctx context.Context) (journal.Sight[T], error) {
		caller := authz.Caller(ctx).ID
		return func(tx *store.Tx, v T) bool { return onTeam(tx, property(v), caller) }, nil
	}
}
