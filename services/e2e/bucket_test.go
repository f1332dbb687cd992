package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/demo"
)

// addPhoto gives the company a photo that is larger than a part of an object.
func (s *suite) addPhoto(c *demo.Company) {
	s.t.Helper()
	photo := make([]byte, 36<<20)
	rand.Read(photo) // it never fails
	folder := filepath.Join(s.folder, "blobs", "servicerequest", c.Organization)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "0197a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a6b"), photo, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// TestBucket backs up into a bucket of each kind, and exports into it. A backup that is cut off
// in its middle leaves no object. Photos are kept there, too.
func TestBucket(t *testing.T) {
	s := one(t)
	c := s.fill()
	want := s.properties(c)
	attachPhoto(t, s.conn("servicerequest"), c)
	s.addPhoto(c)
	for _, kind := range bucketKinds {
		t.Run(kind.name, func(t *testing.T) {
			b := newObjectServer(t, kind)
			cutBackups(t, s, b)
			s.must("backup", "--with-blobs", b.url("whole"))
			if b.parts < 2 || !b.has("whole") {
				t.Fatalf("%d parts have come, and the backup is there: %v", b.parts, b.has("whole"))
			}
			if code, out := s.does("backup", b.url("whole")); code != 1 || !strings.Contains(out, "never overwritten") {
				t.Errorf("a backup over another ends with %d and prints %s", code, out)
			}
			s.must("verify", "--quick", b.url("whole"))
			s.must("export", "--with-blobs", c.Organization, b.url("company"))

			there := one(t, "LATCHKEY_BLOBS="+b.url("")+"&prefix=photos/")
			there.claim()
			there.must("import", "--brand=Tamarisk", "--blobs="+b.url("")+"&prefix=photos/", b.url("company"))
			if !there.nobodyOrAll(c, want) {
				t.Error("nobody can sign in after the import")
			}
			there.keepsPhotos(c, b)
			restored := filepath.Join(t.TempDir(), "restored")
			s.must("restore", b.url("whole"), "--store=bolt:"+restored)
			s.must("verify", "--store=bolt:"+restored)
		})
	}
}

// cutBackups makes backups of which a part is refused, or that are killed over one.
func cutBackups(t *testing.T, s *suite, b *objectServer) {
	t.Helper()
	refused := false
	b.refuse = func(w http.ResponseWriter, _ *http.Request, part int) bool {
		if part == 2 {
			refused = true
			b.kind.fail(w, http.StatusForbidden)
		}
		return part == 2
	}
	if code, out := s.does("backup", "--with-blobs", b.url("refused")); code != 1 || !refused || b.has("refused") {
		t.Fatalf("a backup of which a part is refused (%v) ends with %d, and is there: %v\n%s", refused, code, b.has("refused"), out)
	}
	came := make(chan struct{}, 1)
	b.refuse = func(_ http.ResponseWriter, r *http.Request, part int) bool {
		if part != 2 {
			return false
		}
		select {
		case came <- struct{}{}:
		default:
		}
		<-r.Context().Done() // until the caller is killed
		return true
	}
	cmd := s.command("backup", "--with-blobs", b.url("killed"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-came
	cmd.Process.Kill()
	cmd.Wait()
	if b.has("killed") {
		t.Error("a backup that was killed in its middle is there")
	}
	if code, out := s.does("restore", b.url("killed"), "--store=bolt:"+filepath.Join(t.TempDir(), "none")); code != 1 {
		t.Errorf("restoring it ends with %d and prints %s", code, out)
	}
	b.refuse, b.parts = nil, 0
}

// keepsPhotos wants a suite to show the photo that came with the company, to keep a new one
// in the bucket, and nothing of an upload that was done before.
func (s *suite) keepsPhotos(c *demo.Company, b *objectServer) {
	s.t.Helper()
	ctx := s.signIn(c.Person("OW").Email, c.Person("OW").Password, c.Organization)
	client := servicerequestpb.NewAttachmentServiceClient(s)
	var requests []*servicerequestpb.ServiceRequest
	for view := range servicerequestpb.ServiceRequestView_name {
		resp, err := servicerequestpb.NewServiceRequestServiceClient(s).ListServiceRequests(ctx, &servicerequestpb.ListServiceRequestsRequest{
			View: servicerequestpb.ServiceRequestView(view),
		})
		if err == nil { // one is no view
			requests = append(requests, resp.GetServiceRequests()...)
		}
	}
	if len(requests) == 0 {
		s.t.Fatal("there are no requests")
	}
	shown := 0
	for _, r := range requests {
		all, err := client.ListAttachments(ctx, &servicerequestpb.ListAttachmentsRequest{ServiceRequestId: r.GetId()})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, a := range all.GetAttachments() {
			shown++
			s.shows(ctx, a.GetId())
		}
	}
	if shown == 0 {
		s.t.Error("the photo has not come along")
	}
	photo := &servicerequestpb.UploadAttachmentRequest{Part: &servicerequestpb.UploadAttachmentRequest_Metadata{
		Metadata: &servicerequestpb.UploadMetadata{
			RequestId: "0197a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a6c", ServiceRequestId: requests[0].GetId(), FileName: "hall.png",
		},
	}}
	before := b.names("photos/servicerequest/" + c.Organization + "/")
	for range 2 {
		got, err := upload(ctx, s, photo)
		if err != nil {
			s.t.Fatal(err)
		}
		s.shows(ctx, got.(*servicerequestpb.UploadAttachmentResponse).GetAttachment().GetId())
	}
	now := b.names("photos/servicerequest/" + c.Organization + "/")
	if len(before) < 2 || len(now) != len(before)+1 {
		s.t.Errorf("a photo was uploaded, and again: the bucket had %q and has %q", before, now)
	}
	out := s.must("backup", "--with-blobs", "--blobs="+b.url("")+"&prefix=photos/", b.url("photos-too"))
	if !strings.Contains(out, fmt.Sprintf(" %d blobs", len(now))) {
		s.t.Errorf("the bucket has %d photos, and a backup of it prints %s", len(now), out)
	}
}

// shows wants the file of an attachment to be the photo.
func (s *suite) shows(ctx context.Context, id string) {
	s.t.Helper()
	stream, err := servicerequestpb.NewAttachmentServiceClient(s).DownloadAttachment(ctx, &servicerequestpb.DownloadAttachmentRequest{Id: id})
	var got []byte
	for err == nil {
		var m *servicerequestpb.DownloadAttachmentResponse
		m, err = stream.Recv()
		got = append(got, m.GetChunk()...)
	}
	if !errors.Is(err, io.EOF) || !bytes.Equal(got, photo()) {
		s.t.Errorf("attachment %s has %d bytes (%v), want the photo of %d", id, len(got), err, len(photo()))
	}
}
