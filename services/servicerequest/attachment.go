package servicerequest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// pieceSize is how much of a file one message of a download carries.
const pieceSize = 256 << 10

func (s *service) DownloadAttachment(req *pb.DownloadAttachmentRequest, stream grpc.ServerStreamingServer[pb.DownloadAttachmentResponse]) error {
	ctx := stream.Context()
	a, err := store.Read(ctx, s.db, func(tx *store.Tx) (*pb.Attachment, error) {
		a, _, err := findAttachment(ctx, tx, req.GetId())
		if err == nil && a.GetDeleteTime() != nil {
			return nil, fault.NotFound(attachments.Name(), req.GetId())
		}
		return a, err
	})
	if err != nil {
		return err
	}
	file, err := s.blobs.NewReader(ctx, blobKey(store.OriginOf(ctx).Tenant, a.GetId()), nil)
	if err != nil {
		return fmt.Errorf("open the file of attachment %s: %w", a.GetId(), err)
	}
	defer file.Close()
	if err := stream.Send(&pb.DownloadAttachmentResponse{Part: &pb.DownloadAttachmentResponse_Attachment{Attachment: a}}); err != nil {
		return err
	}
	piece := make([]byte, pieceSize)
	for {
		n, err := io.ReadFull(file, piece)
		if n > 0 {
			if err := stream.Send(&pb.DownloadAttachmentResponse{Part: &pb.DownloadAttachmentResponse_Chunk{Chunk: piece[:n]}}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the file of attachment %s: %w", a.GetId(), err)
		}
	}
}

func (s *service) ListAttachments(ctx context.Context, req *pb.ListAttachmentsRequest) (*pb.ListAttachmentsResponse, error) {
	return store.Read(ctx, s.db, func(tx *store.Tx) (*pb.ListAttachmentsResponse, error) {
		r, err := findRequest(tx, authz.Caller(ctx), req.GetServiceRequestId())
		if err != nil {
			return nil, err
		}
		page, next, err := store.Page(tx, req, nil, attachmentRequest.Range(r.GetId(), false))
		return &pb.ListAttachmentsResponse{Attachments: page, NextPageToken: next}, err
	})
}

func (s *service) DeleteAttachment(ctx context.Context, req *pb.DeleteAttachmentRequest) (*pb.DeleteAttachmentResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.DeleteAttachmentResponse, error) {
		a, err := changeAttachment(ctx, tx, req, func(a *pb.Attachment) error {
			if a.GetDeleteTime() != nil {
				return fault.Refused("the attachment is deleted already")
			}
			a.DeleteTime = timestamppb.New(tx.Now())
			a.PurgeTime = timestamppb.New(tx.Now().Add(retention))
			return nil
		})
		return &pb.DeleteAttachmentResponse{Attachment: a}, err
	})
}

func (s *service) UndeleteAttachment(ctx context.Context, req *pb.UndeleteAttachmentRequest) (*pb.UndeleteAttachmentResponse, error) {
	return store.Do(ctx, s.db, req, func(tx *store.Tx) (*pb.UndeleteAttachmentResponse, error) {
		a, err := changeAttachment(ctx, tx, req, func(a *pb.Attachment) error {
			if a.GetDeleteTime() == nil {
				return fault.Refused("the attachment is not deleted")
			}
			a.DeleteTime, a.PurgeTime = nil, nil
			return nil
		})
		return &pb.UndeleteAttachmentResponse{Attachment: a}, err
	})
}

// findAttachment returns the attachment, and the request it belongs to, if that
// exists for the caller.
func findAttachment(ctx context.Context, tx *store.Tx, id string) (*pb.Attachment, *pb.ServiceRequest, error) {
	a, ok := attachments.Get(tx, id)
	if !ok {
		return nil, nil, fault.NotFound(attachments.Name(), id)
	}
	r, err := findRequest(tx, authz.Caller(ctx), a.GetServiceRequestId())
	if err != nil {
		return nil, nil, fault.NotFound(attachments.Name(), id)
	}
	return a, r, nil
}

// changeAttachment changes an attachment that is the caller's to change.
func changeAttachment(ctx context.Context, tx *store.Tx, t target, change func(*pb.Attachment) error) (*pb.Attachment, error) {
	a, r, err := findAttachment(ctx, tx, t.GetId())
	if err != nil {
		return nil, err
	}
	caller := authz.Caller(ctx)
	if a.GetAuthorId() != caller.ID && !caller.Has("ServiceRequests:Edit") {
		return nil, fault.Relation("the user who added it")
	}
	if err := attachments.Match(a, t.GetEtag()); err != nil {
		return nil, err
	}
	if err := live()(caller, r); err != nil {
		return nil, err
	}
	if err := change(a); err != nil {
		return nil, err
	}
	return a, attachments.Put(tx, a)
}

// blobKey is where the file of an attachment is.
func blobKey(tenant, attachment string) string { return tenant + "/" + attachment }
