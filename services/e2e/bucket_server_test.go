package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// theBucket is the name of the one bucket that there is.
const theBucket = "backups"

// objectServer is a server that keeps objects, and speaks as much of the protocol of one provider
// as its driver needs: to put an object, whole or in parts, to look at it, get it, list and delete it.
type objectServer struct {
	*httptest.Server
	kind    *bucketKind
	mu      sync.Mutex
	objects map[string][]byte
	uploads map[string]map[int][]byte // parts by number
	parts   int                       // that have come
	// refuse is what happens to a part that comes; nil lets it in.
	refuse func(w http.ResponseWriter, r *http.Request, part int) bool
	// fate is what happens to an object that comes in one piece; nil takes it in.
	fate func(name string) fate
}

// bucketKind is one provider.
type bucketKind struct {
	name string
	// url names an object, or with no name the bucket.
	url func(addr, name string) string
	// env is what the programs are given.
	env func(addr string) map[string]string
	// serve answers a request, and fail says that it is refused.
	serve func(b *objectServer, w http.ResponseWriter, r *http.Request, body []byte)
	fail  func(w http.ResponseWriter, status int)
}

// bucketKinds are all that the program knows.
var bucketKinds = []*bucketKind{
	{
		name: "s3", serve: (*objectServer).serveS3, fail: failS3,
		url: func(addr, name string) string {
			return "s3://" + theBucket + "/" + name + "?use_path_style=true&endpoint=http://" + addr
		},
		env: func(string) map[string]string {
			return map[string]string{
				"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
				"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
			}
		},
	},
	{
		name: "gs", serve: (*objectServer).serveGoogle, fail: failGoogle,
		url: func(_, name string) string { return "gs://" + theBucket + "/" + name + "?anonymous=true" },
		env: func(addr string) map[string]string { return map[string]string{"STORAGE_EMULATOR_HOST": addr} },
	},
	{
		name: "azblob", serve: (*objectServer).serveAzure, fail: failAzure,
		url: func(addr, name string) string {
			return "azblob://" + theBucket + "/" + name + "?protocol=http&localemu=true&domain=" + addr
		},
		env: func(string) map[string]string {
			return map[string]string{"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": base64.StdEncoding.EncodeToString([]byte("secret"))}
		},
	},
}

func newObjectServer(t *testing.T, kind *bucketKind) *objectServer {
	t.Helper()
	b := &objectServer{kind: kind, objects: map[string][]byte{}, uploads: map[string]map[int][]byte{}}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	for name, value := range kind.env(b.addr()) {
		t.Setenv(name, value)
	}
	return b
}

func (b *objectServer) addr() string { return strings.TrimPrefix(b.URL, "http://") }

// url names an object.
func (b *objectServer) url(name string) string { return b.kind.url(b.addr(), name) }

// names returns what there is, in order.
func (b *objectServer) names(prefix string) (names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.under(prefix)
}

func (b *objectServer) under(prefix string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(b.objects)) {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

func (b *objectServer) has(name string) bool { return slices.Contains(b.names(""), name) }

// ServeHTTP implements http.Handler.
func (b *objectServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller is gone
	}
	b.kind.serve(b, w, r, body)
}

// put takes an object in, unless it is there and the caller wants that it is not.
func (b *objectServer) put(w http.ResponseWriter, name string, object []byte, ifNotExist bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	becomes := passes
	if b.fate != nil {
		becomes = b.fate(name)
	}
	switch _, there := b.objects[name]; {
	case there && ifNotExist:
		b.kind.fail(w, http.StatusPreconditionFailed)
		return false
	case becomes == isLost:
		b.kind.fail(w, http.StatusForbidden)
		return false
	}
	b.objects[name] = object
	if becomes == passesLast {
		b.kind.fail(w, http.StatusForbidden) // though it is there
	}
	return becomes == passes
}

// will has the objects that come in one piece have a fate.
func (b *objectServer) will(fate func(name string) fate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fate = fate
}

// part takes a part of an upload in.
func (b *objectServer) part(w http.ResponseWriter, r *http.Request, upload string, number int, body []byte) bool {
	if b.refuse != nil && b.refuse(w, r, number) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.uploads[upload] == nil {
		b.uploads[upload] = map[int][]byte{}
	}
	b.uploads[upload][number] = body
	b.parts++
	return true
}

// whole takes the parts of an upload away and returns them as one, if there are so many.
func (b *objectServer) whole(upload string, parts int) (object []byte, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.uploads[upload]
	for _, number := range slices.Sorted(maps.Keys(all)) {
		object = append(object, all[number]...)
	}
	delete(b.uploads, upload)
	return object, len(all) == parts
}

// get answers with an object.
func (b *objectServer) get(w http.ResponseWriter, r *http.Request, name string) {
	b.mu.Lock()
	object, there := b.objects[name]
	b.mu.Unlock()
	if !there {
		b.kind.fail(w, http.StatusNotFound)
		return
	}
	w.Header().Set("ETag", `"1"`)
	w.Header().Set("x-ms-creation-time", time.Now().UTC().Format(http.TimeFormat)) // of Azure
	http.ServeContent(w, r, "", time.Now(), bytes.NewReader(object))
}

func (b *objectServer) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, name)
}

// list answers with a page of all objects, each as format says it.
func (b *objectServer) list(w http.ResponseWriter, prefix, before, format, between, after string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, name := range b.under(prefix) {
		all = append(all, fmt.Sprintf(format, name, len(b.objects[name])))
	}
	fmt.Fprint(w, before, strings.Join(all, between), after)
}

// serveS3 is of Amazon S3: https://docs.aws.amazon.com/AmazonS3/latest/API/.
func (b *objectServer) serveS3(w http.ResponseWriter, r *http.Request, body []byte) {
	q, name := r.URL.Query(), strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/"+theBucket), "/")
	id, ifNotExist := q.Get("uploadId"), r.Header.Get("If-None-Match") == "*"
	w.Header().Set("ETag", `"1"`)
	switch {
	case r.Method == http.MethodGet && q.Get("list-type") == "2":
		b.list(w, q.Get("prefix"), "<ListBucketResult><IsTruncated>false</IsTruncated>",
			"<Contents><Key>%s</Key><Size>%d</Size><LastModified>2030-01-01T00:00:00Z</LastModified></Contents>", "", "</ListBucketResult>")
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		b.get(w, r, name)
	case q.Has("uploads"):
		fmt.Fprintf(w, `<InitiateMultipartUploadResult><Bucket>backups</Bucket><Key>k</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>`, name)
	case r.Method == http.MethodPut && id != "":
		number, _ := strconv.Atoi(q.Get("partNumber")) // the driver's own
		b.part(w, r, id, number, body)
	case r.Method == http.MethodPost && id != "":
		var named struct {
			Part []struct{ PartNumber int }
		}
		err := xml.Unmarshal(body, &named)
		if object, ok := b.whole(id, len(named.Part)); err != nil || !ok {
			failS3(w, http.StatusBadRequest)
		} else if b.put(w, name, object, ifNotExist) {
			fmt.Fprint(w, `<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>`)
		}
	case r.Method == http.MethodDelete && id != "":
		b.whole(id, 0)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodDelete:
		b.remove(name)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut:
		b.put(w, name, body, ifNotExist)
	default:
		failS3(w, http.StatusNotImplemented)
	}
}

func failS3(w http.ResponseWriter, status int) {
	code := map[int]string{http.StatusNotFound: "NoSuchKey", http.StatusPreconditionFailed: "PreconditionFailed", http.StatusForbidden: "AccessDenied"}[status]
	w.WriteHeader(status)
	fmt.Fprintf(w, `<Error><Code>%s</Code><Message>refused</Message></Error>`, code)
}

// serveGoogle is of Google Cloud Storage: https://cloud.google.com/storage/docs/json_api, and for
// what is read its XML API.
func (b *objectServer) serveGoogle(w http.ResponseWriter, r *http.Request, body []byte) {
	const objects, uploads = "/storage/v1/b/" + theBucket + "/o", "/upload/storage/v1/b/" + theBucket + "/o"
	q, ifNotExist := r.URL.Query(), r.URL.Query().Get("ifGenerationMatch") == "0"
	named, ofObject := strings.CutPrefix(r.URL.Path, objects+"/")
	switch {
	case r.URL.Path == objects:
		w.Header().Set("Content-Type", "application/json")
		b.list(w, q.Get("prefix"), `{"items": [`, `{"name": %q, "size": "%d"}`, ", ", "]}")
	case ofObject && r.Method == http.MethodDelete:
		b.remove(named)
		w.WriteHeader(http.StatusNoContent)
	case ofObject && b.has(named):
		writeGoogle(w, named)
	case ofObject:
		failGoogle(w, http.StatusNotFound)
	case r.URL.Path == uploads && q.Get("uploadType") == "multipart":
		if name, object, ok := related(r, body); !ok {
			failGoogle(w, http.StatusBadRequest)
		} else if b.put(w, name, object, ifNotExist) {
			writeGoogle(w, name)
		}
	case r.URL.Path == uploads && q.Get("upload_id") == "":
		q.Set("upload_id", q.Get("name"))
		w.Header().Set("Location", b.URL+uploads+"?"+q.Encode())
	case r.URL.Path == uploads && r.Method == http.MethodDelete:
		b.whole(q.Get("upload_id"), 0)
	case r.URL.Path == uploads:
		b.continueGoogle(w, r, q.Get("upload_id"), body, ifNotExist)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		b.get(w, r, strings.TrimPrefix(r.URL.Path, "/"+theBucket+"/"))
	default:
		failGoogle(w, http.StatusNotImplemented)
	}
}

// related returns the name and the bytes of an object that comes in one request, in MIME parts.
func related(r *http.Request, body []byte) (name string, object []byte, ok bool) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return "", nil, false
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	var about struct{ Name string }
	first, err := parts.NextPart()
	if err != nil || json.NewDecoder(first).Decode(&about) != nil {
		return "", nil, false
	}
	second, err := parts.NextPart()
	if err != nil {
		return "", nil, false
	}
	object, err = io.ReadAll(second)
	return about.Name, object, err == nil
}

// continueGoogle takes the next part of an object, whose length is known from the last on.
func (b *objectServer) continueGoogle(w http.ResponseWriter, r *http.Request, upload string, body []byte, ifNotExist bool) {
	b.mu.Lock()
	number := len(b.uploads[upload]) + 1
	b.mu.Unlock()
	if !b.part(w, r, upload, number, body) {
		return
	}
	if strings.HasSuffix(r.Header.Get("Content-Range"), "/*") {
		w.Header().Set("X-Http-Status-Code-Override", "308")
		return
	}
	object, ok := b.whole(upload, number)
	if !ok || !strings.HasSuffix(r.Header.Get("Content-Range"), "/"+strconv.Itoa(len(object))) {
		failGoogle(w, http.StatusBadRequest)
	} else if b.put(w, upload, object, ifNotExist) {
		writeGoogle(w, upload)
	}
}

func writeGoogle(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"bucket": %q, "name": %q, "generation": "1"}`, theBucket, name)
}

func failGoogle(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error": {"code": %d, "message": "refused"}}`, status)
}

// serveAzure is of Azure Blob Storage: https://learn.microsoft.com/rest/api/storageservices.
func (b *objectServer) serveAzure(w http.ResponseWriter, r *http.Request, body []byte) {
	q, name := r.URL.Query(), strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/account/"+theBucket), "/")
	ifNotExist := r.Header.Get("If-None-Match") == "*"
	if from := r.Header.Get("x-ms-range"); from != "" {
		r.Header.Set("Range", from)
	}
	switch {
	case q.Get("comp") == "list":
		w.Header().Set("Content-Type", "application/xml")
		b.list(w, q.Get("prefix"), "<EnumerationResults><Blobs>",
			"<Blob><Name>%s</Name><Properties><Content-Length>%d</Content-Length><Last-Modified>Tue, 01 Jan 2030 00:00:00 GMT</Last-Modified></Properties></Blob>",
			"", "</Blobs><NextMarker/></EnumerationResults>")
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		b.get(w, r, name)
	case r.Method == http.MethodDelete:
		b.remove(name)
		w.WriteHeader(http.StatusAccepted)
	case q.Get("comp") == "block":
		id, err := base64.StdEncoding.DecodeString(q.Get("blockid"))
		if err != nil || len(id) < 20 {
			failAzure(w, http.StatusBadRequest)
		} else if b.part(w, r, name, int(binary.BigEndian.Uint32(id[16:]))+1, body) { // as the driver numbers them
			w.WriteHeader(http.StatusCreated)
		}
	case q.Get("comp") == "blocklist":
		var named struct{ Latest []string }
		err := xml.Unmarshal(body, &named)
		if object, ok := b.whole(name, len(named.Latest)); err != nil || !ok {
			failAzure(w, http.StatusBadRequest)
		} else if b.put(w, name, object, ifNotExist) {
			w.WriteHeader(http.StatusCreated)
		}
	case r.Method == http.MethodPut:
		if b.put(w, name, body, ifNotExist) {
			w.WriteHeader(http.StatusCreated)
		}
	default:
		failAzure(w, http.StatusNotImplemented)
	}
}

func failAzure(w http.ResponseWriter, status int) {
	code := map[int]string{http.StatusNotFound: "BlobNotFound", http.StatusPreconditionFailed: "ConditionNotMet", http.StatusForbidden: "AuthorizationFailure"}[status]
	w.Header().Set("x-ms-error-code", code)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<Error><Code>%s</Code><Message>refused</Message></Error>`, code)
}
