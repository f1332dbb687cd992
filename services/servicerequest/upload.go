package servicerequest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"syscall"
	"time"

	"gocloud.dev/blob"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	storepb "latchkey.dev/gen/go/latchkey/servicerequest/store/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// maxAttachments is how many attachments a request can have, deleted ones included.
const maxAttachments = 200

type uploadStream = grpc.ClientStreamingServer[pb.UploadAttachmentRequest, pb.UploadAttachmentResponse]

// UploadAttachment first writes the file, which an orphan names until the record of
// the attachment does.
func (s *service) UploadAttachment(stream uploadStream) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	meta := first.GetMetadata()
	if meta == nil {
		return fault.Invalid("metadata", "must be the first message")
	}
	id := s.newID()
	if err := s.expect(ctx, id, meta); err != nil {
		return err
	}
	resp, err := s.upload(ctx, id, meta, &pieces{stream: stream})
	if kept := err == nil && resp.GetAttachment().GetId() == id; !kept && !meta.GetValidateOnly() {
		s.forget(ctx, id)
	}
	if err != nil {
		return err
	}
	return stream.SendAndClose(resp)
}

// expect checks that the caller may add an attachment, before he sends the whole of
// it, and makes an orphan of the file that is to come.
func (s *service) expect(ctx context.Context, id string, meta *pb.UploadMetadata) error {
	if meta.GetValidateOnly() {
		return s.db.View(ctx, func(tx *store.Tx) error {
			_, err := attachable(ctx, tx, meta.GetServiceRequestId())
			return err
		})
	}
	return s.db.Update(ctx, func(tx *store.Tx) error {
		if _, err := attachable(ctx, tx, meta.GetServiceRequestId()); err != nil {
			return err
		}
		return orphans.Put(tx, &storepb.Orphan{Id: id, SweepTime: timestamppb.New(tx.Now().Add(orphanTime))})
	})
}

// upload writes a file and then the record of its attachment. A repeat of an upload
// gets the record of the first.
func (s *service) upload(ctx context.Context, id string, meta *pb.UploadMetadata, in io.Reader) (*pb.UploadAttachmentResponse, error) {
	f, err := s.receive(ctx, id, meta, in)
	if err != nil {
		return nil, err
	}
	// So that a repeat with another file is a different request.
	meta.Sha256 = f.sha256
	return store.Do(ctx, s.db, meta, func(tx *store.Tx) (*pb.UploadAttachmentResponse, error) {
		r, err := attachable(ctx, tx, meta.GetServiceRequestId())
		if err != nil {
			return nil, err
		}
		if err := adopt(tx, id, meta.GetValidateOnly()); err != nil {
			return nil, err
		}
		a := &pb.Attachment{
			Id: id, ServiceRequestId: r.GetId(), AuthorId: authz.Caller(ctx).ID, FileName: meta.GetFileName(),
			ContentType: f.contentType, SizeBytes: f.size, Sha256: f.sha256,
		}
		return &pb.UploadAttachmentResponse{Attachment: a}, attachments.Put(tx, a)
	})
}

// adopt takes the orphan of a file away, which is about to get an attachment.
func adopt(tx *store.Tx, id string, validateOnly bool) error {
	if validateOnly {
		return nil
	}
	o, ok := orphans.Get(tx, id)
	if !ok || tx.Now().After(o.GetCreateTime().AsTime().Add(uploadTime)) {
		return fault.Refused("an upload must be done within %s: begin again", uploadTime)
	}
	orphans.Delete(tx, id)
	return nil
}

// forget deletes the file of an upload that came to nothing, unless an attachment
// names it after all. What it cannot delete is swept later.
func (s *service) forget(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	orphan, err := store.Read(ctx, s.db, func(tx *store.Tx) (bool, error) { return orphans.Has(tx, id), nil })
	if orphan && err == nil {
		err = s.discard(ctx, id)
	}
	if err != nil {
		s.log.WarnContext(ctx, "file of a failed upload stays until it is swept", "id", id, "error", err)
	}
}

// attachable returns the request if the caller may add an attachment to it now.
func attachable(ctx context.Context, tx *store.Tx, id string) (*pb.ServiceRequest, error) {
	r, err := findRequest(tx, authz.Caller(ctx), id)
	if err != nil {
		return nil, err
	}
	if err := requestStates.Apply(ctx, pb.AttachmentService_UploadAttachment_FullMethodName, r); err != nil {
		return nil, err
	}
	if attachmentRequest.Count(tx, attachmentRequest.Range(id)) >= maxAttachments {
		return nil, fault.Refused("a service request has at most %d attachments, deleted ones included", maxAttachments)
	}
	return r, nil
}

// file is what a file was found to be.
type file struct {
	contentType string
	size        int64
	sha256      []byte
}

// receive writes a file, and nothing at all if it is not what it should be.
func (s *service) receive(ctx context.Context, id string, meta *pb.UploadMetadata, in io.Reader) (file, error) {
	head := make([]byte, sniffed)
	n, err := io.ReadFull(in, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return file{}, err
	}
	f := file{contentType: typeOf(head[:n])}
	if f.contentType == "" {
		return f, fault.Invalid("chunk", "must begin as a photo (JPEG, PNG, GIF, WEBP, HEIC) or a video (MP4, MOV, WEBM) does")
	}
	if declared := meta.GetContentType(); declared != "" && !sameType(declared, f.contentType) {
		return f, fault.Invalid("metadata.content_type", "must be %s, which the file is, or empty", f.contentType)
	}
	in = io.MultiReader(bytes.NewReader(head[:n]), in)
	if meta.GetValidateOnly() {
		return f, f.copy(io.Discard, in, meta)
	}
	// Cancelling keeps what was written so far from becoming a blob.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, err := s.blobs.NewWriter(ctx, blobKey(store.OriginOf(ctx).Tenant, id), &blob.WriterOptions{ContentType: f.contentType})
	if err != nil {
		return f, storing(err)
	}
	if err := f.copy(out, in, meta); err != nil {
		cancel()
		_ = out.Close() // says that it was cancelled
		return f, err
	}
	return f, storing(out.Close())
}

// copy copies a file of its type to out, and finds its size and hash.
func (f *file) copy(out io.Writer, in io.Reader, meta *pb.UploadMetadata) error {
	sum := sha256.New()
	limit := limitOf(f.contentType)
	var err error
	f.size, err = io.Copy(&tee{out, sum}, io.LimitReader(in, limit+1))
	if err != nil {
		return err
	}
	if f.size > limit {
		return fault.Invalid("chunk", "must not make the file longer than %d bytes, the most for %s", limit, f.contentType)
	}
	f.sha256 = sum.Sum(nil)
	if declared := meta.GetSha256(); len(declared) > 0 && !bytes.Equal(declared, f.sha256) {
		return fault.Invalid("metadata.sha256", "must be that of the file, %x", f.sha256)
	}
	return nil
}

// tee writes to a blob and a hash, and says which errors are of the blob store.
type tee struct {
	out io.Writer
	sum hash.Hash
}

func (t *tee) Write(p []byte) (int, error) {
	t.sum.Write(p) // never fails
	n, err := t.out.Write(p)
	return n, storing(err)
}

// storing says what an error of the blob store means.
func storing(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return fault.New(codes.ResourceExhausted, faultpb.Reason_REASON_DISK_FULL, "the disk is full", nil)
	}
	return fmt.Errorf("store the file: %w", err)
}

// pieces reads the file of an upload from its stream.
type pieces struct {
	stream uploadStream
	rest   []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		msg, err := p.stream.Recv()
		if err != nil {
			return 0, err // io.EOF at the end of the file
		}
		if msg.GetMetadata() != nil {
			return 0, fault.Invalid("metadata", "must be the first message only")
		}
		p.rest = msg.GetChunk()
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
