package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/authenticator"
	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/token"
)

// An example is a line of the comment above a method in its .proto file,
//
//	// Example: {"id": "019a0000-0000-7000-8000-000000000004"}
//
// a request in JSON, which must go well when the story in examples.txt comes to it. Of a
// method whose requests are a stream the examples are the messages of one stream. A call
// that can only fail here says so: "Example of FAILED_PRECONDITION: {...}".
//
// Parts of a request stand for others: see docs/examples.md.
type example struct {
	text  string
	fails codes.Code // OK if it does not
}

var (
	exampleLine = regexp.MustCompile(`^\s*// Example(?: of ([A-Z_]+))?: (.*)$`)
	serviceLine = regexp.MustCompile(`^service (\w+) `)
	methodLine  = regexp.MustCompile(`^\s*rpc (\w+)\(`)
	packageLine = regexp.MustCompile(`^package ([\w.]+);`)
)

// readExamples returns the examples of each method, by its path, from the .proto files.
func readExamples(t *testing.T) map[string][]example {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "proto", "latchkey", "*", "v1", "*.proto"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d .proto files were found: %v", len(files), err)
	}
	found := map[string][]example{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var pkg, service string
		var above []example
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSuffix(line, "\n")
			if m := packageLine.FindStringSubmatch(line); m != nil {
				pkg = m[1]
			} else if m := serviceLine.FindStringSubmatch(line); m != nil {
				service, above = m[1], nil
			} else if m := methodLine.FindStringSubmatch(line); m != nil {
				found[fmt.Sprintf("/%s.%s/%s", pkg, service, m[1])], above = above, nil
			} else if m := exampleLine.FindStringSubmatch(line); m != nil {
				above = append(above, example{m[2], codeNamed(m[1])})
			}
		}
	}
	return found
}

// codeNamed returns codes.NotFound for NOT_FOUND, and OK for nothing.
func codeNamed(name string) codes.Code {
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		if codeName(c) == name {
			return c
		}
	}
	return codes.OK
}

// chapter is a line of the story in examples.txt.
type chapter struct {
	line   int
	who    string // role of the company, "nobody", "service", or "Ada", who signed in last
	method string // or empty, and then
	kind   string // a record of this kind is
	is     string // what this says
	number int    // of the example, from 1
	apart  bool   // in a suite of its own, which is empty
}

var (
	callLine = regexp.MustCompile(`^([A-Z]{2}\+?|nobody|service|Ada) (\w+(?:/\w+)?)(?: #(\d))?( in an empty suite)?$`)
	isLine   = regexp.MustCompile(`^(\w+) is ([A-Z]{2}\+?|Ada)$`)
)

func readChapters(t *testing.T) []chapter {
	t.Helper()
	data, err := os.ReadFile("examples.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []chapter
	for i, line := range strings.Split(string(data), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		c := chapter{line: i + 1, number: 1}
		if m := callLine.FindStringSubmatch(line); m != nil {
			c.who, c.method, c.apart = m[1], m[2], m[4] != ""
			if m[3] != "" {
				c.number, _ = strconv.Atoi(m[3])
			}
		} else if m := isLine.FindStringSubmatch(line); m != nil {
			c.kind, c.is = m[1], m[2]
		} else {
			t.Fatalf(`examples.txt:%d: got %q, want "WHO METHOD [#NUMBER]" or "KIND is WHO"`, i+1, line)
		}
		all = append(all, c)
	}
	return all
}

// TestExamples makes the call of every example of every .proto file.
func TestExamples(t *testing.T) {
	x := newExampler(t)
	for _, c := range readChapters(t) {
		x.play(c)
	}
	for _, m := range methods() {
		examples := x.examples[m.path()]
		if len(examples) == 0 {
			t.Errorf("%s has no example: write the line \"// Example: {...}\" above it in its .proto file, see docs/examples.md", m.path())
		}
		for i := range examples {
			if !x.ran[fmt.Sprint(m.path(), i+1)] {
				t.Errorf("example %d of %s was not run: write a line with %s into services/e2e/examples.txt where what it needs is there", i+1, m.path(), m.Name())
			}
		}
	}
}

// exampler tells the story of the examples.
type exampler struct {
	t        *testing.T
	suite    *suite
	company  *demo.Company
	key      string // by which services know each other
	examples map[string][]example
	ran      map[string]bool   // by path and number
	records  map[string]string // ids of what is current, by kind
	secrets  map[string]string // what answers said last, by the name of the field
	people   map[string]string // ids by name
	browser  *authenticator.Device
}

func newExampler(t *testing.T) *exampler {
	s := one(t, "LATCHKEY_PASSKEY_DOMAIN=example.com")
	key, err := os.ReadFile(filepath.Join(s.folder, "service.key"))
	if err != nil {
		t.Fatal(err)
	}
	x := &exampler{
		t: t, suite: s, company: s.fill(), key: strings.TrimSpace(string(key)), examples: readExamples(t),
		ran: map[string]bool{}, records: map[string]string{}, secrets: map[string]string{}, people: map[string]string{},
		browser: authenticator.New("https://example.com"),
	}
	x.records["organization"] = x.company.Organization
	for _, p := range x.company.People {
		x.people[p.Role] = p.ID
	}
	return x
}

func (x *exampler) play(c chapter) {
	x.t.Helper()
	if c.method == "" {
		x.records[c.kind] = x.people[c.is]
		return
	}
	m := methodByName(x.t, c.method)
	where := fmt.Sprintf("examples.txt:%d: %s, %s", c.line, c.who, m.path())
	examples := x.examples[m.path()]
	if c.number > len(examples) {
		x.t.Errorf("%s: there is no example %d in its .proto file", where, c.number)
		return
	}
	if !m.IsStreamingClient() {
		examples = examples[c.number-1 : c.number]
	}
	var requests []proto.Message
	for i, e := range examples {
		x.ran[fmt.Sprint(m.path(), c.number+i)] = true
		req := newMessage(m.Input())
		if err := protojson.Unmarshal([]byte(e.text), req); err != nil {
			x.t.Errorf("%s: its example %s is no such request: %v", where, e.text, err)
			return
		}
		x.settle(m, req.ProtoReflect())
		requests = append(requests, req)
	}
	over, ctx := x.suite, x.as(c.who)
	if c.apart {
		over = one(x.t)
	}
	resp, err := exchange(ctx, over, m, requests)
	want := examples[len(examples)-1].fails
	switch got := status.Code(err); {
	case got != want && want == codes.OK:
		x.t.Errorf("%s: its example fails: %s\nrequest %s", where, showError(err, &teller{}), text(requests[0]))
	case got != want:
		x.t.Errorf("%s: its example ends with %v, and says that it is one of %s", where, err, codeName(want))
	case err == nil && !c.apart:
		x.learn(m, resp)
	}
}

// as returns a context of somebody's.
func (x *exampler) as(who string) context.Context {
	ctx := x.t.Context()
	switch who {
	case "nobody":
		return ctx
	case "Ada":
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+x.secrets["token"])
	case "service":
		return metadata.AppendToOutgoingContext(ctx, authz.ServiceHeader, "scheduling", authz.ServiceKeyHeader, x.key,
			authz.TenantHeader, x.company.Organization)
	}
	return x.company.As(ctx, who)
}

// exchange sends requests to a method and returns its one or first response.
func exchange(ctx context.Context, conn grpc.ClientConnInterface, m method, requests []proto.Message) (proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !m.IsStreamingClient() {
		return m.call(ctx, conn, requests[0])
	}
	resp := newMessage(m.Output())
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: m.IsStreamingServer()}
	stream, err := conn.NewStream(ctx, desc, m.path())
	if err != nil {
		return resp, err
	}
	for _, req := range requests {
		if stream.SendMsg(req) != nil {
			break // receiving tells why
		}
	}
	if !m.IsStreamingServer() {
		stream.CloseSend()
	}
	return resp, stream.RecvMsg(resp)
}

// settle puts what is there in the place of what stands for it in a request, or in a
// message of it.
func (x *exampler) settle(m method, msg protoreflect.Message) {
	msg.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				x.settle(m, v.List().Get(i).Message())
			}
		case fd.IsList() && fd.Kind() == protoreflect.StringKind:
			for i := range v.List().Len() {
				v.List().Set(i, protoreflect.ValueOfString(x.settled(m, fd, v.List().Get(i).String())))
			}
		case fd.Message() != nil:
			x.settle(m, v.Message())
		case fd.Name() == "token_hash":
			if hash, err := token.Hash(x.secrets["token"]); err == nil {
				msg.Set(fd, protoreflect.ValueOfBytes(hash[:]))
			}
		case fd.Name() == "id" && collectionOf(msg) != "":
			msg.Set(fd, protoreflect.ValueOfString(x.current(m, collectionOf(msg), v.String())))
		case fd.Kind() == protoreflect.StringKind:
			msg.Set(fd, protoreflect.ValueOfString(x.settled(m, fd, v.String())))
		}
		return true
	})
}

// settled returns what a text of a field stands for, itself if for nothing.
func (x *exampler) settled(m method, fd protoreflect.FieldDescriptor, value string) string {
	name := string(fd.Name())
	if strings.HasSuffix(value, "of the app...") {
		return x.app()
	}
	if strings.HasSuffix(value, "of the passkey...") {
		return x.passkey(name)
	}
	if strings.HasSuffix(value, "...") {
		if name == "code" && x.secrets[name] == "" {
			return code
		}
		return x.secrets[name]
	}
	if !idForm.MatchString(value) || name == "request_id" || name == "tenant" {
		return value
	}
	kind := strings.TrimSuffix(strings.TrimSuffix(name, "s"), "_id")
	if kind == "id" {
		kind = kindOfID(m, fd.ContainingMessage())
	}
	if alias, ok := aliases[kind]; ok {
		kind = alias
	}
	return x.current(m, kind, value)
}

// collectionOf returns of which collection the id of a request is, if it says so.
func collectionOf(msg protoreflect.Message) string {
	fd := msg.Descriptor().Fields().ByName("collection")
	if fd == nil {
		return ""
	}
	return msg.Get(fd).String()
}

// current returns the id of the current record of a kind.
func (x *exampler) current(m method, kind, value string) string {
	if id, ok := x.records[kind]; ok {
		return id
	}
	x.t.Errorf("the example of %s names a %s, and the story has none yet: have one made before in examples.txt; there are %q",
		m.path(), kind, slices.Sorted(maps.Keys(x.records)))
	return value
}

// kindOfID returns which kind of record the id of a message in a method's request is of.
func kindOfID(m method, d protoreflect.MessageDescriptor) string {
	if d != m.Input() {
		return snake(string(d.Name()))
	}
	if kind := kindOf(m); kind != "" {
		return kind
	}
	name := snake(string(m.Name()))
	return strings.TrimSuffix(name[strings.Index(name, "_")+1:], "s")
}

// learn makes what was answered current. What is listed is so only if there is nothing
// of its kind.
func (x *exampler) learn(m method, resp proto.Message) {
	listed := strings.HasPrefix(string(m.Name()), "List")
	resp.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Kind() == protoreflect.StringKind && !fd.IsList():
			x.secrets[string(fd.Name())] = v.String()
		case fd.Name() == "recovery_codes" && v.List().Len() > 0:
			x.secrets["recovery_code"] = v.List().Get(0).String()
		case fd.Name() == "challenge" || fd.Name() == "totp_setup":
			first := v.Message().Descriptor().Fields().ByNumber(1) // its secret, or its key
			x.secrets[string(fd.Name())] = v.Message().Get(first).String()
			if options := v.Message().Descriptor().Fields().ByName("passkey_options"); options != nil {
				x.secrets["passkey_options"] = v.Message().Get(options).String()
			}
		case fd.Message() == nil || fd.IsMap():
		case fd.IsList() && v.List().Len() > 0:
			x.learnRecord(v.List().Get(0).Message(), true)
		case !fd.IsList():
			x.learnRecord(v.Message(), listed)
		}
		return true
	})
	if m.Name() == "CreateUser" {
		x.people["Ada"] = x.records["user"]
	}
}

// app returns what the authenticator app shows that was set up last (RFC 6238).
func (x *exampler) app() string {
	key, err := base32.StdEncoding.DecodeString(x.secrets["totp_setup"])
	if err != nil {
		x.t.Fatal(err)
	}
	mac := hmac.New(sha1.New, key)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix()/30)))
	sum := mac.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[19]&15:]) & 0x7fffffff
	return fmt.Sprintf("%06d", n%1_000_000)
}

// passkey returns what a browser answers to the options that were shown last, of a setup
// or of a challenge.
func (x *exampler) passkey(field string) string {
	act, options := x.browser.Get, x.secrets["passkey_options"]
	if field == "response" {
		act, options = x.browser.Create, x.secrets["creation_options"]
	}
	answer, err := act(options)
	if err != nil {
		x.t.Fatal(err)
	}
	return answer
}

func (x *exampler) learnRecord(record protoreflect.Message, listed bool) {
	id := record.Descriptor().Fields().ByName("id")
	kind := snake(string(record.Descriptor().Name()))
	if id == nil || aliases[kind] != "" || listed && x.records[kind] != "" {
		return
	}
	x.records[kind] = record.Get(id).String()
}
