package servicerequest

import (
	"context"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/store"
)

func (s *service) CreateComment(ctx context.Context, req *pb.CreateCommentRequest) (*pb.CreateCommentResponse, error) {
	const method = pb.CommentService_CreateComment_FullMethodName
	id := s.newID()
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.CreateCommentResponse, error) {
		caller := authz.Caller(ctx)
		r, err := findRequest(tx, caller, req.GetServiceRequestId())
		if err != nil {
			return nil, err
		}
		if err := requestStates.Apply(ctx, method, r); err != nil {
			return nil, err
		}
		c := &pb.Comment{Id: id, ServiceRequestId: r.GetId(), AuthorId: caller.ID, Text: req.GetText(), Private: req.GetPrivate()}
		return &pb.CreateCommentResponse{Comment: c}, comments.Put(tx, c)
	})
}

func (s *service) ListComments(ctx context.Context, req *pb.ListCommentsRequest) (*pb.ListCommentsResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListCommentsResponse, error) {
		caller := authz.Caller(ctx)
		r, err := findRequest(tx, caller, req.GetServiceRequestId())
		if err != nil {
			return nil, err
		}
		ranges := []store.Range[*pb.Comment]{commentRequest.Range(r.GetId(), false)}
		if caller.Has("ServiceRequests:Comments:Private") {
			ranges = append(ranges, commentRequest.Range(r.GetId(), true))
		}
		page, next, err := store.Page(tx, req, nil, ranges...)
		return &pb.ListCommentsResponse{Comments: page, NextPageToken: next}, err
	})
}
