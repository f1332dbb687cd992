package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.dev/services/demo"
)

// s3 is a server that speaks as much of the protocol of Amazon S3 as the driver needs for
// objects: to put one, whole or in parts, to look at it and to get it.
type s3 struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string][]byte
	uploads map[string]map[int][]byte // parts by number
	parts   int                       // that have come
	// refuse is what happens to a part that comes; nil lets it in.
	refuse func(w http.ResponseWriter, r *http.Request) bool
}

func newS3(t *testing.T) *s3 {
	t.Helper()
	b := &s3{objects: map[string][]byte{}, uploads: map[string]map[int][]byte{}}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
	return b
}

// url names an object.
func (b *s3) url(name string) string {
	return "s3://backups/" + name + "?use_path_style=true&endpoint=" + b.URL
}

func (b *s3) has(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.objects["/backups/"+name]
	return ok
}

// ServeHTTP implements http.Handler.
func (b *s3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller is gone
	}
	q, path := r.URL.Query(), r.URL.Path
	if q.Has("partNumber") && b.refuse != nil && b.refuse(w, r) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	object, there := b.objects[path]
	switch id := q.Get("uploadId"); {
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && !there:
		refuseS3(w, http.StatusNotFound, "NoSuchKey")
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(object))
	case r.Header.Get("If-None-Match") == "*" && there:
		refuseS3(w, http.StatusPreconditionFailed, "PreconditionFailed")
	case q.Has("uploads"):
		id := strconv.Itoa(len(b.uploads) + 1)
		b.uploads[id] = map[int][]byte{}
		fmt.Fprintf(w, `<InitiateMultipartUploadResult><Bucket>backups</Bucket><Key>k</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>`, id)
	case r.Method == http.MethodPut && id != "":
		number, _ := strconv.Atoi(q.Get("partNumber")) // the driver's own
		b.uploads[id][number] = body
		b.parts++
		w.Header().Set("ETag", `"1"`)
	case r.Method == http.MethodPost && id != "":
		b.complete(w, path, id, body)
	case r.Method == http.MethodDelete && id != "":
		delete(b.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut:
		b.objects[path] = body
		w.Header().Set("ETag", `"1"`)
	default:
		refuseS3(w, http.StatusNotImplemented, "NotImplemented")
	}
}

// complete makes an object of the parts that the caller names.
func (b *s3) complete(w http.ResponseWriter, path, id string, body []byte) {
	var named struct {
		Part []struct{ PartNumber int }
	}
	if err := xml.Unmarshal(body, &named); err != nil || len(named.Part) != len(b.uploads[id]) {
		refuseS3(w, http.StatusBadRequest, "InvalidPart")
		return
	}
	var object []byte
	for _, p := range named.Part {
		object = append(object, b.uploads[id][p.PartNumber]...)
	}
	delete(b.uploads, id)
	b.objects[path] = object
	fmt.Fprint(w, `<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>`)
}

func refuseS3(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `<Error><Code>%s</Code><Message>refused</Message></Error>`, code)
}

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

// TestBucket backs up into a bucket, and exports into it. A backup that is cut off in its
// middle leaves no object.
func TestBucket(t *testing.T) {
	b := newS3(t)
	s := one(t)
	c := s.fill()
	want := s.properties(c)
	s.addPhoto(c)

	b.refuse = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") != "2" {
			return false
		}
		refuseS3(w, http.StatusForbidden, "AccessDenied")
		return true
	}
	if code, out := s.does("backup", "--with-blobs", b.url("refused")); code != 1 || b.has("refused") {
		t.Errorf("a backup of which a part is refused ends with %d, and is there: %v\n%s", code, b.has("refused"), out)
	}
	came := make(chan struct{}, 1)
	b.refuse = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") == "2" {
			select {
			case came <- struct{}{}:
			default:
			}
			<-r.Context().Done() // until the caller is killed
			return true
		}
		return false
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

	b.refuse = nil
	s.must("backup", "--with-blobs", b.url("whole"))
	if b.parts < 2 || !b.has("whole") {
		t.Fatalf("%d parts have come, and the backup is there: %v", b.parts, b.has("whole"))
	}
	if code, out := s.does("backup", b.url("whole")); code != 1 || !strings.Contains(out, "never overwritten") {
		t.Errorf("a backup over another ends with %d and prints %s", code, out)
	}
	s.must("verify", "--quick", b.url("whole"))
	s.must("export", c.Organization, b.url("company"))
	there := one(t)
	there.claim()
	there.must("import", "--brand=Tamarisk", b.url("company"))
	if !there.nobodyOrAll(c, want) {
		t.Error("nobody can sign in after the import")
	}
	restored := filepath.Join(t.TempDir(), "restored")
	s.must("restore", b.url("whole"), "--store=bolt:"+restored)
	s.stop()
	s.folder = restored
	s.again()
	if got := s.properties(c); got != want {
		t.Errorf("got properties %s\nwant %s", got, want)
	}
}
