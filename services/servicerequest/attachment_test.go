package servicerequest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
)

// picture returns the bytes of a real photo.
func picture(t testing.TB, encode func(io.Writer, image.Image) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, image.NewRGBA(image.Rect(0, 0, 40, 30))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jpegPicture(t testing.TB) []byte {
	return picture(t, func(w io.Writer, m image.Image) error { return jpeg.Encode(w, m, nil) })
}

func pngPicture(t testing.TB) []byte { return picture(t, png.Encode) }

// upload sends metadata and a file in pieces.
func (c client) upload(t testing.TB, meta *pb.UploadMetadata, file []byte, size int) (*pb.Attachment, error) {
	t.Helper()
	stream, err := c.UploadAttachment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send := func(m *pb.UploadAttachmentRequest) bool {
		err := stream.Send(m)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return err == nil
	}
	ok := meta == nil || send(&pb.UploadAttachmentRequest{Part: &pb.UploadAttachmentRequest_Metadata{Metadata: meta}})
	for len(file) > 0 && ok {
		n := min(size, len(file))
		ok = send(&pb.UploadAttachmentRequest{Part: &pb.UploadAttachmentRequest_Chunk{Chunk: file[:n]}})
		file = file[n:]
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetAttachment(), err
}

// download returns an attachment and its file.
func (c client) download(t testing.TB, id string) (*pb.Attachment, []byte, error) {
	t.Helper()
	stream, err := c.DownloadAttachment(t.Context(), &pb.DownloadAttachmentRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, nil, err
	}
	var file []byte
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return first.GetAttachment(), file, nil
		}
		if err != nil {
			return nil, nil, err
		}
		file = append(file, piece.GetChunk()...)
	}
}

// files returns the paths of all files in the blob store.
func (s *suite) files() []string {
	s.t.Helper()
	var paths []string
	err := filepath.WalkDir(s.folder, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file that was just renamed
		}
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(s.folder, path)
			paths = append(paths, rel)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return paths
}

func TestAttachmentThereAndBack(t *testing.T) {
	s := newSuite(t)
	pm, sp := s.role("PM"), s.role("SP")
	r := s.request(s.property(pm), accepted, func(r *pb.ServiceRequest) { r.OwnerId, r.AssigneeId = pm.ID, sp.ID })
	long := append(jpegPicture(t), make([]byte, 3<<20)...)
	tests := []struct {
		name, declared, found string
		file                  []byte
		piece                 int
	}{
		{"photo.jpg", "image/jpeg", "image/jpeg", jpegPicture(t), 100},
		{"ein Foto.png", "", "image/png", pngPicture(t), 1},
		{"long.jpg", "Image/JPEG; q=1", "image/jpeg", long, 1 << 20},
	}
	var want []*pb.Attachment
	for _, tt := range tests {
		s.clock.advance(1e9)
		sum := sha256.Sum256(tt.file)
		a, err := sp.upload(t, &pb.UploadMetadata{ServiceRequestId: r.GetId(), FileName: tt.name, ContentType: tt.declared, Sha256: sum[:]}, tt.file, tt.piece)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		now := stamp(s.clock.read())
		equal(t, tt.name, a, &pb.Attachment{
			Id: a.GetId(), Etag: a.GetEtag(), CreateTime: now, UpdateTime: now, ServiceRequestId: r.GetId(), AuthorId: sp.ID,
			FileName: tt.name, ContentType: tt.found, SizeBytes: int64(len(tt.file)), Sha256: sum[:],
		})
		got, file, err := pm.download(t, a.GetId())
		if err != nil || !bytes.Equal(file, tt.file) {
			t.Errorf("%s: downloaded %d bytes and %v, want %d", tt.name, len(file), err, len(tt.file))
		}
		equal(t, tt.name, got, a)
		want = append(want, a)
	}
	listed := must[*pb.ListAttachmentsResponse](t)(pm.ListAttachments(t.Context(), &pb.ListAttachmentsRequest{ServiceRequestId: r.GetId()}))
	equal(t, "list", listed, &pb.ListAttachmentsResponse{Attachments: want})
	_, _, err := s.role("PM").download(t, want[0].GetId())
	expect(t, "download out of sight", err, "NotFound RECORD_NOT_FOUND")
	_, _, err = as(s.InOrganization(newID()).AsRole("PM")).download(t, want[0].GetId())
	expect(t, "download from another organization", err, "NotFound RECORD_NOT_FOUND")
	_, err = s.role("PM").upload(t, &pb.UploadMetadata{ServiceRequestId: r.GetId(), FileName: "x"}, jpegPicture(t), 100)
	expect(t, "upload out of sight", err, "NotFound RECORD_NOT_FOUND")
}

func TestRefusedUploadsLeaveNothing(t *testing.T) {
	s := newSuite(t)
	sp := s.role("SP")
	r := s.request(s.property(s.role("PM")), accepted, func(r *pb.ServiceRequest) { r.AssigneeId = sp.ID })
	photo := jpegPicture(t)
	huge := make([]byte, maxPhoto+1)
	copy(huge, photo)
	meta := func(change func(*pb.UploadMetadata)) *pb.UploadMetadata {
		m := &pb.UploadMetadata{ServiceRequestId: r.GetId(), FileName: "photo.jpg"}
		if change != nil {
			change(m)
		}
		return m
	}
	tests := []struct {
		name        string
		meta        *pb.UploadMetadata
		file        []byte
		want, field string
	}{
		{"no metadata", nil, photo, "InvalidArgument FIELD_INVALID", "metadata"},
		{"nothing", nil, nil, "InvalidArgument FIELD_INVALID", "metadata"},
		{"empty file", meta(nil), nil, "InvalidArgument FIELD_INVALID", "chunk"},
		{"text", meta(func(m *pb.UploadMetadata) { m.ContentType = "image/jpeg" }), []byte("<html>no photo</html>"), "InvalidArgument FIELD_INVALID", "chunk"},
		{"another type", meta(func(m *pb.UploadMetadata) { m.ContentType = "image/png" }), photo, "InvalidArgument FIELD_INVALID", "metadata.content_type"},
		{"another hash", meta(func(m *pb.UploadMetadata) { m.Sha256 = make([]byte, 32) }), photo, "InvalidArgument FIELD_INVALID", "metadata.sha256"},
		{"too large", meta(nil), huge, "InvalidArgument FIELD_INVALID", "chunk"},
		{"path", meta(func(m *pb.UploadMetadata) { m.FileName = "../photo.jpg" }), photo, "InvalidArgument FIELD_INVALID", "metadata.file_name"},
		{"control character", meta(func(m *pb.UploadMetadata) { m.FileName = "a\nb" }), photo, "InvalidArgument FIELD_INVALID", "metadata.file_name"},
		{"unknown request", meta(func(m *pb.UploadMetadata) { m.ServiceRequestId = newID() }), photo, "NotFound RECORD_NOT_FOUND", ""},
		{"validate only", meta(func(m *pb.UploadMetadata) { m.ValidateOnly = true }), photo, "OK", ""},
	}
	before := s.counted()
	for _, tt := range tests {
		_, err := sp.upload(t, tt.meta, tt.file, 1<<20)
		if expect(t, tt.name, err, tt.want); field(err) != tt.field {
			t.Errorf("%s: got field %q, want %q", tt.name, field(err), tt.field)
		}
		if got := s.files(); len(got) > 0 {
			t.Errorf("%s: left %v", tt.name, got)
		}
		if after := s.counted(); after != before {
			t.Errorf("%s: %s, then %s", tt.name, before, after)
		}
	}
	noKey := as(s.AsUser(sp.ID, 0, keysOf([]string{"SP"}, "-ServiceRequests:Attachments")...))
	_, err := noKey.upload(t, meta(nil), photo, 100)
	expect(t, "without the key", err, "PermissionDenied GRANT_MISSING")
}

func TestMessagesOfAnUpload(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	r := s.request(s.property(c), accepted, func(r *pb.ServiceRequest) { r.OwnerId = c.ID })
	meta := &pb.UploadAttachmentRequest{Part: &pb.UploadAttachmentRequest_Metadata{
		Metadata: &pb.UploadMetadata{ServiceRequestId: r.GetId(), FileName: "photo.jpg"},
	}}
	chunk := func(b []byte) *pb.UploadAttachmentRequest {
		return &pb.UploadAttachmentRequest{Part: &pb.UploadAttachmentRequest_Chunk{Chunk: b}}
	}
	for name, messages := range map[string][]*pb.UploadAttachmentRequest{
		"metadata twice": {meta, chunk(jpegPicture(t)), meta},
		"empty piece":    {meta, chunk(jpegPicture(t)), chunk(nil)},
		"no part":        {meta, {}},
		"long piece":     {meta, chunk(make([]byte, 1<<20+1))},
	} {
		stream := must[pb.AttachmentService_UploadAttachmentClient](t)(c.UploadAttachment(t.Context()))
		for _, m := range messages {
			if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		_, err := stream.CloseAndRecv()
		expect(t, name, err, "InvalidArgument FIELD_INVALID")
	}
	if got := s.files(); len(got) > 0 {
		t.Errorf("left %v", got)
	}
}

// TestBrokenUpload breaks uploads off on their way.
func TestBrokenUpload(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	r := s.request(s.property(c), accepted, func(r *pb.ServiceRequest) { r.OwnerId = c.ID })
	before := s.counted()
	for range 3 {
		ctx, cancel := contextWithCancel(t)
		stream := must[pb.AttachmentService_UploadAttachmentClient](t)(c.UploadAttachment(ctx))
		messages := []*pb.UploadAttachmentRequest{
			{Part: &pb.UploadAttachmentRequest_Metadata{Metadata: &pb.UploadMetadata{ServiceRequestId: r.GetId(), FileName: "photo.jpg"}}},
			{Part: &pb.UploadAttachmentRequest_Chunk{Chunk: append(jpegPicture(t), make([]byte, 100_000)...)}},
		}
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the upload has begun", func() bool { return len(s.files()) > 0 })
		cancel()
		eventually(t, "nothing is left", func() bool { return len(s.files()) == 0 && s.counted() == before })
	}
}

func TestRepeatedUpload(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	r := s.request(s.property(c), accepted, func(r *pb.ServiceRequest) { r.OwnerId = c.ID })
	meta := &pb.UploadMetadata{RequestId: newID(), ServiceRequestId: r.GetId(), FileName: "photo.jpg"}
	first := must[*pb.Attachment](t)(c.upload(t, meta, jpegPicture(t), 100))
	again := must[*pb.Attachment](t)(c.upload(t, meta, jpegPicture(t), 200))
	equal(t, "again", again, first)
	_, err := c.upload(t, meta, append(jpegPicture(t), 0), 100)
	expect(t, "with another file", err, "InvalidArgument REQUEST_ID_REUSED")
	if got := s.files(); len(got) != 1 || filepath.Base(got[0]) != first.GetId() {
		t.Errorf("files: got %v", got)
	}
}

func TestDeleteAttachment(t *testing.T) {
	s := newSuite(t)
	pm, sp, rival := s.role("PM"), s.role("SP"), s.role("SP")
	r := s.request(s.property(pm, sp, rival), requested, func(r *pb.ServiceRequest) { r.OwnerId, r.OpenToTeam = pm.ID, true })
	a := must[*pb.Attachment](t)(sp.upload(t, &pb.UploadMetadata{ServiceRequestId: r.GetId(), FileName: "photo.jpg"}, jpegPicture(t), 100))
	del := func(c client, etag string) error {
		_, err := c.DeleteAttachment(t.Context(), &pb.DeleteAttachmentRequest{Id: a.GetId(), Etag: etag})
		return err
	}
	undel := func(c client, etag string) error {
		_, err := c.UndeleteAttachment(t.Context(), &pb.UndeleteAttachmentRequest{Id: a.GetId(), Etag: etag})
		return err
	}
	list := func() int {
		return len(must[*pb.ListAttachmentsResponse](t)(pm.ListAttachments(t.Context(), &pb.ListAttachmentsRequest{ServiceRequestId: r.GetId()})).GetAttachments())
	}
	expect(t, "by another technician", del(rival, ""), "PermissionDenied RELATION_MISSING")
	expect(t, "out of sight", del(s.role("PM"), ""), "NotFound RECORD_NOT_FOUND")
	expect(t, "stale", del(sp, "0"), "Aborted ETAG_STALE")
	expect(t, "undelete what is there", undel(sp, ""), "FailedPrecondition PRECONDITION_FAILED")
	must[*pb.DeleteAttachmentResponse](t)(sp.DeleteAttachment(t.Context(), &pb.DeleteAttachmentRequest{Id: a.GetId(), ValidateOnly: true}))
	if got := list(); got != 1 {
		t.Errorf("before: got %d", got)
	}
	expect(t, "by its author", del(sp, a.GetEtag()), "OK")
	expect(t, "again", del(sp, ""), "FailedPrecondition PRECONDITION_FAILED")
	_, _, err := sp.download(t, a.GetId())
	if expect(t, "download", err, "NotFound RECORD_NOT_FOUND"); list() != 0 {
		t.Errorf("after: got %d", list())
	}
	expect(t, "undelete by another technician", undel(rival, ""), "PermissionDenied RELATION_MISSING")
	expect(t, "undelete by who may edit", undel(pm, ""), "OK")
	if _, file, err := sp.download(t, a.GetId()); err != nil || !bytes.Equal(file, jpegPicture(t)) {
		t.Errorf("restored: got %d bytes and %v", len(file), err)
	}
	expect(t, "by who may edit", del(pm, ""), "OK")
}

func TestTypeOf(t *testing.T) {
	box := func(brand string) []byte { return []byte("\x00\x00\x00\x18ftyp" + brand + "\x00\x00\x00\x00") }
	tests := []struct {
		name string
		head []byte
		want string
	}{
		{"jpeg", jpegPicture(t), "image/jpeg"},
		{"png", pngPicture(t), "image/png"},
		{"gif", []byte("GIF89a...."), "image/gif"},
		{"webp", []byte("RIFF\x10\x00\x00\x00WEBPVP8 "), "image/webp"},
		{"wave", []byte("RIFF\x10\x00\x00\x00WAVEfmt "), ""},
		{"heic", box("heic"), "image/heic"},
		{"heif", box("mif1"), "image/heif"},
		{"mp4", box("isom"), "video/mp4"},
		{"mov", box("qt  "), "video/quicktime"},
		{"unknown brand", box("zzzz"), ""},
		{"webm", []byte("\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm"), "video/webm"},
		{"matroska", []byte("\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x88matroska"), ""},
		{"html", []byte("<html>"), ""},
		{"short", []byte("\xff\xd8"), ""},
		{"nothing", nil, ""},
	}
	for _, tt := range tests {
		if got := typeOf(tt.head); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if limitOf("video/mp4") != 500<<20 || limitOf("image/png") != 25<<20 {
		t.Error("limits differ")
	}
	if !sameType("image/heif", "image/heic") || sameType("image/heif", "image/png") {
		t.Error("HEIC and HEIF are called by both names, and nothing else is")
	}
}

func TestPurge(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	p := s.property(c)
	keep := s.request(p, accepted, func(r *pb.ServiceRequest) { r.OwnerId = c.ID })
	r := s.request(p, accepted, func(r *pb.ServiceRequest) { r.OwnerId = c.ID })
	photo := jpegPicture(t)
	for range batch + 5 {
		must[*pb.CreateCommentResponse](t)(c.CreateComment(t.Context(), &pb.CreateCommentRequest{ServiceRequestId: r.GetId(), Text: "Hello."}))
	}
	attach := func(r *pb.ServiceRequest) *pb.Attachment {
		return must[*pb.Attachment](t)(c.upload(t, &pb.UploadMetadata{ServiceRequestId: r.GetId(), FileName: "photo.jpg"}, photo, 1000))
	}
	attach(r)
	attach(r)
	stays, goes := attach(keep), attach(keep)
	must[*pb.DeleteAttachmentResponse](t)(c.DeleteAttachment(t.Context(), &pb.DeleteAttachmentRequest{Id: goes.GetId()}))
	whole := s.counted()
	must[*pb.DeleteServiceRequestResponse](t)(c.DeleteServiceRequest(t.Context(), &pb.DeleteServiceRequestRequest{Id: r.GetId()}))

	s.clock.advance(retention - 1)
	must[*pb.UndeleteServiceRequestResponse](t)(c.UndeleteServiceRequest(t.Context(), &pb.UndeleteServiceRequestRequest{Id: r.GetId()}))
	want := proto.CloneOf(r)
	got := s.stored(r.GetId())
	want.Etag, want.UpdateTime, want.CycleTimer = got.GetEtag(), got.GetUpdateTime(), got.GetCycleTimer()
	if equal(t, "restored", got, want); s.counted() != whole {
		t.Errorf("restored: got %s, want %s", s.counted(), whole)
	}

	must[*pb.DeleteServiceRequestResponse](t)(c.DeleteServiceRequest(t.Context(), &pb.DeleteServiceRequestRequest{Id: r.GetId()}))
	s.clock.advance(retention)
	s.property(c) // a commit makes the upkeep look at the clock again
	eventually(t, "only what was not deleted is left", func() bool {
		return s.counted() == "map[attachments:1 properties:2 requests:1]" && len(s.files()) == 1
	})
	if file := s.files()[0]; filepath.Base(file) != stays.GetId() {
		t.Errorf("kept %s, want %s", file, stays.GetId())
	}
	_, err := c.UndeleteServiceRequest(t.Context(), &pb.UndeleteServiceRequestRequest{Id: r.GetId()})
	expect(t, "undelete", err, "NotFound RECORD_NOT_FOUND")
	if err := s.db.VerifyJournal(s.tenant(), s.Organization); err != nil {
		t.Errorf("journal: %v", err)
	}
}

// TestSweep leaves files behind as a process does that dies in the middle of an upload.
func TestSweep(t *testing.T) {
	s := newSuite(t)
	c := s.as(everything()...)
	id := newID()
	if err := os.MkdirAll(filepath.Join(s.folder, s.Organization), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.folder, s.Organization, id), []byte("half a photo"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.orphan(id)
	s.property(c)
	s.clock.advance(orphanTime - 1)
	s.property(c)
	if got := s.files(); len(got) != 1 {
		t.Errorf("swept too early: got %v", got)
	}
	s.clock.advance(2)
	s.property(c)
	eventually(t, "the file is gone", func() bool { return len(s.files()) == 0 && s.counted() == "map[properties:3]" })
}
