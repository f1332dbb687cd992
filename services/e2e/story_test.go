package e2e

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
)

// TestStories tells each story in one process and in five.
func TestStories(t *testing.T) {
	for _, name := range []string{"day.txt", "access.txt", "fields.txt", "moving.txt"} {
		t.Run(name, func(t *testing.T) {
			topologies(t, func(t *testing.T, s *suite) { newTeller(t, s).tell(name) })
		})
	}
}

// photo is a picture as a phone would send it, but small.
func photo() []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 64))); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// upload sends an attachment: what the request says of it, and a photo.
func upload(ctx context.Context, conn grpc.ClientConnInterface, first proto.Message) (proto.Message, error) {
	stream, err := servicerequestpb.NewAttachmentServiceClient(conn).UploadAttachment(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.SendMsg(first)
	for rest := photo(); err == nil && len(rest) > 0; {
		n := min(len(rest), 50)
		err = stream.Send(&servicerequestpb.UploadAttachmentRequest{Part: &servicerequestpb.UploadAttachmentRequest_Chunk{Chunk: rest[:n]}})
		rest = rest[n:]
	}
	return stream.CloseAndRecv()
}
