package e2e

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/trial"
)

// TestOpenStreamsEnd opens a download and an upload, stops in the middle of each, takes
// from the caller what let him in, and checks that neither goes on to its end: also
// in a service that is frozen or cut off meanwhile.
func TestOpenStreamsEnd(t *testing.T) {
	counts := trial.New(t, "open streams end when what let them in is taken: services frozen, cut off", "bolt")
	w := newWatch(t, counts, codes.PermissionDenied)
	s := newStreams(w)
	ofPermissions, _ := troubles("permissions")
	ofIdentity, _ := troubles("identity")
	for _, test := range []struct {
		what     string
		take     func(ctx context.Context, token, requestID string) error
		troubles []trouble
		end      codes.Code
	}{
		{what: "his key", take: s.takeKeys, troubles: ofPermissions, end: codes.PermissionDenied},
		{what: "his session", take: s.endSession, troubles: ofIdentity, end: codes.Unauthenticated},
	} {
		for i, tr := range append([]trouble{nothing}, test.troubles...) {
			if tr.meanwhile || tr.name == "away" {
				continue // a stream does not outlive its process
			}
			if i > 1 && !*long && w.random.IntN(3) > 0 {
				continue
			}
			t.Run(test.what+", "+tr.name, func(t *testing.T) {
				ways := []codes.Code{test.end}
				if tr.name != nothing.name { // without a lease it cannot know why
					ways = append(ways, codes.Unavailable)
				}
				counts.Tried()
				s.run(t, tr, test.take, ways)
			})
		}
	}
}

// streams are those of the property manager, about one request.
type streams struct {
	*watch
	request, attachment string
	file                []byte
}

// fileSize is more than is on its way at a time, with windows of a fixed size.
const (
	fileSize = 4 << 20
	window   = 64 << 10
)

func newStreams(w *watch) *streams {
	w.t.Helper()
	ctx := w.company.As(w.t.Context(), "PM")
	r, err := servicerequestpb.NewServiceRequestServiceClient(w.suite).CreateServiceRequest(ctx, &servicerequestpb.CreateServiceRequestRequest{
		PropertyId: w.company.Properties[0].GetId(), Title: "Radiator stays cold",
	})
	w.must(err)
	s := &streams{watch: w, request: r.GetServiceRequest().GetId(), file: append(photo(), make([]byte, fileSize)...)}
	up, err := servicerequestpb.NewAttachmentServiceClient(w.suite).UploadAttachment(ctx)
	w.must(err)
	w.must(up.Send(s.metadata()))
	for piece := range slices.Chunk(s.file, 1<<20) {
		w.must(up.Send(&servicerequestpb.UploadAttachmentRequest{Part: &servicerequestpb.UploadAttachmentRequest_Chunk{Chunk: piece}}))
	}
	made, err := up.CloseAndRecv()
	w.must(err)
	s.attachment = made.GetAttachment().GetId()
	return s
}

func (s *streams) metadata() *servicerequestpb.UploadAttachmentRequest {
	return &servicerequestpb.UploadAttachmentRequest{Part: &servicerequestpb.UploadAttachmentRequest_Metadata{
		Metadata: &servicerequestpb.UploadMetadata{ServiceRequestId: s.request, FileName: "radiator.png"},
	}}
}

func (s *streams) override(ctx context.Context, key string, effect permissionspb.Effect, requestID string) error {
	_, err := permissionspb.NewAccessServiceClient(s.suite).SetOverride(ctx, &permissionspb.SetOverrideRequest{
		RequestId: requestID, UserId: s.company.Person("PM").ID, Key: key, Effect: effect, Reason: "a try",
	})
	return err
}

// takeKeys takes the key of all service requests, which that of attachments needs.
func (s *streams) takeKeys(ctx context.Context, _, requestID string) error {
	return s.override(ctx, "ServiceRequests", permissionspb.Effect_EFFECT_DENY, requestID)
}

func (s *streams) endSession(ctx context.Context, token, requestID string) error {
	_, err := identitypb.NewSessionServiceClient(s.suite).EndSession(as(ctx, token), &identitypb.EndSessionRequest{})
	return err
}

// run opens both streams, takes something, and looks at how they end.
func (s *streams) run(t *testing.T, tr trouble, take func(context.Context, string, string) error, ways []codes.Code) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.must(s.insist("give back", func(ctx context.Context, id string) error {
		return s.override(ctx, "ServiceRequests", permissionspb.Effect_EFFECT_GRANT, id)
	}))
	manager := *s.company.Person("PM")
	s.must(s.company.SignIn(ctx, &manager))
	ctx = as(ctx, manager.Token)
	client := servicerequestpb.NewAttachmentServiceClient(narrow(t, s.suite.processes["servicerequest"].addr))
	s.must(s.insist("be known again", func(ctx context.Context, _ string) error {
		_, err := client.ListAttachments(as(ctx, manager.Token), &servicerequestpb.ListAttachmentsRequest{ServiceRequestId: s.request})
		return err
	}))
	down, got := s.download(t, ctx, client)
	up := s.upload(t, ctx, client)

	tr.strike(s.watch, "servicerequest")
	err := s.insist("take it away", func(ctx context.Context, id string) error { return take(ctx, manager.Token, id) })
	if tr.mute {
		tr.heal(s.watch, "servicerequest")
	}
	s.must(err)
	rest, end := drain(down)
	if !slices.Contains(ways, status.Code(end)) || got+rest >= len(s.file) {
		t.Errorf("the download ended after %d of %d bytes with %v, want one of %v before the end", got+rest, len(s.file), end, ways)
	}
	// An upload that nothing is sent on ends by itself.
	if err := up.RecvMsg(&servicerequestpb.UploadAttachmentResponse{}); !slices.Contains(ways, status.Code(err)) {
		t.Errorf("the upload ended with %v, want one of %v", err, ways)
	}
	if !tr.mute {
		tr.heal(s.watch, "servicerequest")
	}
}

// narrow is a connection that takes no more at a time than a small window.
func narrow(t *testing.T, addr string) *grpc.ClientConn {
	c, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(16*window))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// download opens a download and takes its first piece.
func (s *streams) download(t *testing.T, ctx context.Context, client servicerequestpb.AttachmentServiceClient) (grpc.ServerStreamingClient[servicerequestpb.DownloadAttachmentResponse], int) {
	t.Helper()
	down, err := client.DownloadAttachment(ctx, &servicerequestpb.DownloadAttachmentRequest{Id: s.attachment})
	s.must(err)
	for {
		m, err := down.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(m.GetChunk()); n > 0 {
			return down, n
		}
	}
}

// upload begins an upload, and returns when the service has seen that.
func (s *streams) upload(t *testing.T, ctx context.Context, client servicerequestpb.AttachmentServiceClient) grpc.ClientStream {
	t.Helper()
	up, err := client.UploadAttachment(ctx)
	s.must(err)
	s.must(up.Send(s.metadata()))
	for range fileSize / window / 2 { // more than the window, so that some of it was read
		chunk := s.file[:window]
		s.must(up.Send(&servicerequestpb.UploadAttachmentRequest{Part: &servicerequestpb.UploadAttachmentRequest_Chunk{Chunk: chunk}}))
	}
	return up
}

// drain reads a download to its end.
func drain(down grpc.ServerStreamingClient[servicerequestpb.DownloadAttachmentResponse]) (n int, end error) {
	for {
		m, err := down.Recv()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += len(m.GetChunk())
	}
}
