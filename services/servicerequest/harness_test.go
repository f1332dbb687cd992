package servicerequest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	storepb "latchkey.dev/gen/go/latchkey/servicerequest/store/v1"
	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
)

// suite is the service on a real port, with a clock of the test's own and, instead of
// identity, somebody on the wire who knows who is an active member. The real identity
// is asked in peers_test.go.
type suite struct {
	*servertest.Server
	t      testing.TB
	db     *store.DB
	folder string // of the files of attachments
	clock  *clock
	users  *roll
}

// noon is what the clock of a suite shows at first.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func newSuite(t testing.TB) *suite {
	t.Helper()
	s := &suite{t: t, folder: t.TempDir(), clock: &clock{now: noon}, users: &roll{gone: map[string]bool{}}}
	part := Part
	part.Start = func(env *server.Env) error {
		s.db = env.Store
		env.Blobs = func(context.Context) (*blob.Bucket, error) {
			return fileblob.OpenBucket(s.folder, &fileblob.Options{NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
		}
		return start(env)
	}
	identity := server.Part{Name: "identity", Start: func(env *server.Env) error {
		identitypb.RegisterUserServiceServer(env.Registrar, s.users)
		identitypb.RegisterCustomFieldServiceServer(env.Registrar, s.users)
		return nil
	}}
	s.Server = servertest.StartAt(t, s.clock.read, part, identity)
	t.Cleanup(s.Verify)
	return s
}

// clock shows what a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// roll answers as identity does: everybody is an active member but those who are gone, and
// there are these custom fields and labels.
type roll struct {
	identitypb.UnimplementedUserServiceServer
	identitypb.UnimplementedCustomFieldServiceServer
	mu      sync.Mutex
	gone    map[string]bool
	down    bool
	fields  []*identitypb.CustomField
	labels  []*identitypb.Label
	defined int // how often it was asked for them
}

func (r *roll) LookupDefinitions(_ context.Context, req *identitypb.LookupDefinitionsRequest) (*identitypb.LookupDefinitionsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.defined++
	if r.down {
		return nil, fault.Unreachable("identity")
	}
	resp := &identitypb.LookupDefinitionsResponse{}
	if req.GetNoun() == identitypb.CustomFieldNoun_CUSTOM_FIELD_NOUN_SERVICE_REQUEST {
		resp.CustomFields = r.fields
	}
	for _, l := range r.labels {
		if slices.Contains(req.GetLabelIds(), l.GetId()) {
			resp.Labels = append(resp.Labels, l)
			if req.GetBeneath() {
				resp.Labels = append(resp.Labels, r.beneath(l.GetId())...)
			}
		}
	}
	return resp, nil
}

// beneath are the categories beneath one.
func (r *roll) beneath(id string) (all []*identitypb.Label) {
	for _, l := range r.labels {
		if l.GetParentId() == id {
			all = append(append(all, l), r.beneath(l.GetId())...)
		}
	}
	return all
}

func (r *roll) LookupMembers(_ context.Context, req *identitypb.LookupMembersRequest) (*identitypb.LookupMembersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return nil, fault.Unreachable("identity")
	}
	resp := &identitypb.LookupMembersResponse{}
	for _, id := range req.GetUserIds() {
		if !r.gone[id] {
			resp.Members = append(resp.Members, &identitypb.Member{UserId: id})
		}
	}
	return resp, nil
}

func (r *roll) change(f func(*roll)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// client is somebody who is signed in.
type client struct {
	*servertest.User
	pb.PropertyServiceClient
	pb.ServiceRequestServiceClient
	pb.CommentServiceClient
	pb.AttachmentServiceClient
}

func as(u *servertest.User) client {
	return client{u, pb.NewPropertyServiceClient(u), pb.NewServiceRequestServiceClient(u), pb.NewCommentServiceClient(u), pb.NewAttachmentServiceClient(u)}
}

func (s *suite) as(grants ...string) client { return as(s.As(grants...)) }

// role is a user with the keys of a built-in role.
func (s *suite) role(code string) client { return as(s.AsRole(code)) }

// keysOf returns the keys of roles and some more, without those that are named with a
// minus.
func keysOf(roles []string, change ...string) []string {
	set := map[string]bool{}
	for _, code := range roles {
		role, _ := catalog.LookupRole(code)
		for _, k := range role.Keys {
			set[k] = true
		}
	}
	for _, k := range change {
		if less, ok := strings.CutPrefix(k, "-"); ok {
			delete(set, less)
		} else {
			set[k] = true
		}
	}
	var keys []string
	for k := range set {
		keys = append(keys, k)
	}
	return keys
}

// everything are the keys of all that this service guards.
func everything() []string { return keysOf([]string{"OW", "PM+"}) }

func (s *suite) tenant() context.Context {
	return store.WithOrigin(s.t.Context(), store.Origin{Tenant: s.Organization, Method: "test"})
}

// put writes records as they are.
func (s *suite) put(f func(*store.Tx) error) {
	s.t.Helper()
	if err := s.db.Update(s.tenant(), f); err != nil {
		s.t.Fatal(err)
	}
}

// stored returns a request as it is on disk, or nil.
func (s *suite) stored(id string) *pb.ServiceRequest {
	s.t.Helper()
	r, err := store.Read(s.tenant(), s.db, func(tx *store.Tx) (*pb.ServiceRequest, error) {
		r, _ := requests.Get(tx, id)
		return r, nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// counted returns how many records there are, by collection.
func (s *suite) counted() string {
	s.t.Helper()
	text, err := store.Read(s.tenant(), s.db, func(tx *store.Tx) (string, error) {
		n := map[string]int{}
		for range properties.All(tx) {
			n["properties"]++
		}
		for range requests.All(tx) {
			n["requests"]++
		}
		for range comments.All(tx) {
			n["comments"]++
		}
		for range attachments.All(tx) {
			n["attachments"]++
		}
		for range orphans.All(tx) {
			n["orphans"]++
		}
		return fmt.Sprint(n), nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// orphan puts an orphan into the store, as an upload does that has just begun.
func (s *suite) orphan(id string) {
	s.t.Helper()
	s.put(func(tx *store.Tx) error {
		return orphans.Put(tx, &storepb.Orphan{Id: id, SweepTime: stamp(tx.Now().Add(orphanTime))})
	})
}

func contextWithCancel(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

var (
	idMu   sync.Mutex
	idLast int
)

// newID returns an id that no other record of the test has.
func newID() string {
	idMu.Lock()
	defer idMu.Unlock()
	idLast++
	return servertest.UUID(idLast)
}

// property creates a property on whose team the users are, the first as its creator.
func (s *suite) property(team ...client) *pb.Property {
	s.t.Helper()
	p := &pb.Property{Id: newID(), Name: proto.String("Elm Court"), TimeZone: proto.String("America/Chicago")}
	s.put(func(tx *store.Tx) error {
		for _, c := range team {
			if _, err := join(tx, newID(), p.GetId(), c.ID); err != nil {
				return err
			}
		}
		return properties.Put(tx, p)
	})
	return p
}

// request puts a request of a state into the store.
func (s *suite) request(p *pb.Property, state pb.ServiceRequestState, change func(*pb.ServiceRequest)) *pb.ServiceRequest {
	s.t.Helper()
	r := s.make(p, state, change)
	s.putAll(r)
	return r
}

// make returns a request that is not yet in the store.
func (s *suite) make(p *pb.Property, state pb.ServiceRequestState, change func(*pb.ServiceRequest)) *pb.ServiceRequest {
	r := &pb.ServiceRequest{Id: newID(), PropertyId: p.GetId(), Title: proto.String("Tap drips"), State: state}
	if state == onHold {
		r.Hold = &pb.Hold{PreviousState: accepted, Reason: "Waits for a part."}
	}
	if change != nil {
		change(r)
	}
	s.complete(r)
	r.CycleTimer = turned(r.GetCycleTimer(), busy(r), s.clock.read())
	return r
}

// complete gives a request what it has in its state for having come there.
func (s *suite) complete(r *pb.ServiceRequest) {
	state, now := r.GetState(), timestamppb.New(s.clock.read())
	if state == onHold {
		state = r.GetHold().GetPreviousState()
	}
	set := func(at **timestamppb.Timestamp) {
		if *at == nil {
			*at = now
		}
	}
	switch state {
	case completed:
		set(&r.CompleteTime)
		fallthrough
	case accepted:
		set(&r.AcceptTime)
		if r.GetAssigneeId() == "" {
			r.AssigneeId = "somebody"
		}
		fallthrough
	case requested, declined:
		set(&r.RequestTime)
	case archived:
		r.ArchiveReason = pb.ArchiveReason_ARCHIVE_REASON_CANCELLED
	}
}

func (s *suite) putAll(all ...*pb.ServiceRequest) {
	s.t.Helper()
	s.put(func(tx *store.Tx) error {
		for _, r := range all {
			if err := requests.Put(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// invoke calls a method by its full name.
func invoke(t testing.TB, c grpc.ClientConnInterface, method string, req proto.Message) (proto.Message, error) {
	t.Helper()
	resp := responseOf(t, method)
	err := c.Invoke(t.Context(), method, req, resp)
	return resp, err
}

func responseOf(t testing.TB, method string) proto.Message {
	t.Helper()
	name := protoreflect.FullName(strings.ReplaceAll(method[1:], "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		t.Fatal(err)
	}
	typ, err := protoregistry.GlobalTypes.FindMessageByName(d.(protoreflect.MethodDescriptor).Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	return typ.New().Interface()
}

// set sets a field of a message by its name and returns the message.
func set[M proto.Message](m M, field string, value any) M {
	r := m.ProtoReflect()
	r.Set(r.Descriptor().Fields().ByName(protoreflect.Name(field)), protoreflect.ValueOf(value))
	return m
}

// outcome returns "OK", or the code and the reason of an error.
func outcome(err error) string {
	if err == nil {
		return "OK"
	}
	return status.Code(err).String() + " " + info(err).GetReason()
}

func info(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return i
		}
	}
	return nil
}

// field returns the first field that an error is about.
func field(err error) string {
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			return bad.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

func expect(t testing.TB, what string, err error, want string) {
	t.Helper()
	if got := outcome(err); got != want {
		t.Errorf("%s: got %s (%v), want %s", what, got, err, want)
	}
}

func must[R any](t testing.TB) func(R, error) R {
	return func(r R, err error) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func equal(t testing.TB, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: did not come true", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
