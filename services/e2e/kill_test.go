package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/internal/trial"
)

// killsPerStory is how many of them one story sees at most, and storyCalls about how many
// calls it has.
const (
	killsPerStory = 10
	storyCalls    = 100
)

// TestKill tells the working day while processes are killed at random moments, in one
// process and in five. After each kill every record that was acknowledged must be as it
// was answered, and every call that is repeated must be answered as before; the story must
// go on to its end; and the stores must be whole.
func TestKill(t *testing.T) {
	for name, stopped := range map[string]func(*testing.T) *suite{
		"one process":    func(t *testing.T) *suite { return oneStopped(t, nil, "LATCHKEY_LEASE="+shortLease.String()) },
		"five processes": func(t *testing.T) *suite { return fiveStopped(t, "LATCHKEY_LEASE="+shortLease.String()) },
	} {
		t.Run(name, func(t *testing.T) {
			tr := trial.New(t, "kill -9 in a working day, "+name, "bolt")
			random := seeded(t, *seed)
			for left := trial.Times(5, 50); left > 0 && !t.Failed(); left -= killsPerStory {
				killedStory(t, tr, stopped(t), random, min(left, killsPerStory))
			}
		})
	}
}

func killedStory(t *testing.T, tr *trial.Trial, s *suite, random *rand.Rand, kills int) {
	k := &keeper{t: t, trial: tr, suite: s, random: random, left: kills, every: storyCalls / kills, records: map[string]*ack{}, agents: map[string]string{}}
	k.next = k.gap()
	for _, p := range k.processes() {
		s.start(p)
	}
	k.killNow() // on the first start, which makes the stores
	k.revive()
	tl := newTellerOver(t, s, k)
	tl.tell("day.txt")
	for k.left > 0 { // those that the story was too short for
		k.kill(0)()
		k.recover()
	}
	k.recover()
	k.repeat(k.acks)
	k.wantLinks()
	t.Logf("%d calls, %d answers kept, %d records; killed %s", k.calls, len(k.acks), len(k.records), strings.Join(k.killed, "; "))
	k.stop()
	for _, name := range names {
		if err := s.verify(name); err != nil {
			tr.Wrong("%s: %v", name, err)
		}
	}
}

// keeper makes the calls of a story, repeats what was not answered, kills processes
// meanwhile, and keeps what was acknowledged.
type keeper struct {
	t       *testing.T
	trial   *trial.Trial
	suite   *suite
	random  *rand.Rand
	left    int // kills
	every   int // calls on average
	next    int // calls until the next
	calls   int
	killed  []string // when
	acks    []*ack
	records map[string]*ack   // the last of each record, by its type and id
	agents  map[string]string // of users, which permissions notes of each when it is told
}

// ack is a call that was answered.
type ack struct {
	credentials metadata.MD
	method      method
	req, resp   proto.Message
	record      proto.Message // one of the response
}

func (a *ack) ctx(ctx context.Context) context.Context {
	return metadata.NewOutgoingContext(ctx, a.credentials)
}

func (k *keeper) gap() int { return 1 + k.random.IntN(2*k.every) }

// processes of the suite, each once.
func (k *keeper) processes() []*process {
	var all []*process
	for _, name := range names {
		if p := k.suite.processes[name]; !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// Invoke and NewStream make a keeper a connection, for what fills in the company.
func (k *keeper) Invoke(ctx context.Context, name string, req, resp any, _ ...grpc.CallOption) error {
	m := methodByName(k.t, name[strings.LastIndex(name, ".")+1:])
	got, err := k.call(ctx, m, req.(proto.Message))
	if err == nil {
		proto.Merge(resp.(proto.Message), got)
	}
	return err
}

func (k *keeper) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return k.suite.NewStream(ctx, desc, method, opts...)
}

// call makes a call until it is answered, under one request id, and maybe kills
// something while it runs.
func (k *keeper) call(ctx context.Context, m method, req proto.Message) (proto.Message, error) {
	req = proto.Clone(req)
	mutates := setRequestID(req.ProtoReflect())
	k.calls++
	if k.next--; k.next <= 0 && k.left > 0 {
		k.next = k.gap()
		defer k.recover()
		// Most calls take a few milliseconds, those with a password more.
		moment := pick(k.random, []time.Duration{5 * time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond})
		defer k.kill(time.Duration(k.random.Int64N(int64(moment))))()
	}
	resp, err := k.insist(ctx, m, req)
	if err == nil && mutates {
		k.keep(ctx, m, req, resp)
	}
	return resp, err
}

// setRequestID gives a request an id, if it is of a method that changes something.
func setRequestID(m protoreflect.Message) bool {
	if fd := m.Descriptor().Fields().ByName("metadata"); fd != nil && fd.Message() != nil {
		m = m.Mutable(fd).Message()
	}
	fd := m.Descriptor().Fields().ByName("request_id")
	if fd == nil {
		return false
	}
	if m.Get(fd).String() == "" {
		m.Set(fd, protoreflect.ValueOfString(uuid.NewString()))
	}
	return true
}

func (k *keeper) insist(ctx context.Context, m method, req proto.Message) (proto.Message, error) {
	for deadline := time.Now().Add(time.Minute); ; {
		k.revive()
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		resp, err := k.suite.call(attempt, m, req)
		cancel()
		code := status.Code(err)
		if code != codes.Unavailable && code != codes.DeadlineExceeded || time.Now().After(deadline) {
			return resp, err
		}
		time.Sleep(pace)
	}
}

// keep remembers an answer and the records in it.
func (k *keeper) keep(ctx context.Context, m method, req, resp proto.Message) {
	credentials, _ := metadata.FromOutgoingContext(ctx)
	k.acks = append(k.acks, &ack{credentials, m, req, resp, nil})
	resp.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() != nil && !fd.IsList() && !fd.IsMap() && fd.Message().Fields().ByName("etag") != nil {
			record := v.Message().Interface()
			k.records[recordKey(record)] = &ack{credentials, m, req, resp, record}
			if agent, ok := record.(*schedulingpb.ServiceAgent); ok {
				k.agents[agent.GetUserId()] = agent.GetId()
			}
		}
		return true
	})
}

func recordKey(record proto.Message) string {
	d := record.ProtoReflect().Descriptor()
	return string(d.Name()) + " " + textOf(record, "id")
}

// textOf returns a field that is text.
func textOf(m proto.Message, name protoreflect.Name) string {
	return m.ProtoReflect().Get(m.ProtoReflect().Descriptor().Fields().ByName(name)).String()
}

// kill kills a process, or all, after some time, and returns what waits for that.
func (k *keeper) kill(after time.Duration) (wait func()) {
	k.left--
	k.trial.Tried()
	victims := k.processes()
	if len(victims) > 1 && k.random.IntN(4) > 0 {
		victims = []*process{pick(k.random, victims)}
	}
	var commands []process // as they are now
	var parts []string
	for _, p := range victims {
		commands = append(commands, *p)
		parts = append(parts, p.parts...)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(after)
		for _, p := range commands {
			p.cmd.Process.Kill()
			<-p.done
		}
	}()
	k.killed = append(k.killed, fmt.Sprintf("%s %s after call %d began", strings.Join(parts, " "), after, k.calls))
	return func() { <-done }
}

// revive starts what is dead, and sometimes kills it once more while it starts.
func (k *keeper) revive() {
	for _, p := range k.processes() {
		select {
		case <-p.done:
			k.suite.start(p)
			if k.random.IntN(5) == 0 {
				time.Sleep(time.Duration(k.random.Int64N(int64(60 * time.Millisecond))))
				p.kill()
				k.suite.start(p)
			}
		default:
		}
	}
}

// killNow kills all processes in the middle of their start.
func (k *keeper) killNow() {
	time.Sleep(time.Duration(k.random.Int64N(int64(100 * time.Millisecond))))
	for _, p := range k.processes() {
		p.kill()
	}
}

// recover starts what was killed and looks whether everything is as it was answered.
func (k *keeper) recover() {
	k.t.Helper()
	k.revive()
	k.suite.ready()
	k.trial.Checked(len(k.records))
	for key, a := range k.records {
		k.reread(key, a)
	}
	k.repeat(k.acks[max(0, len(k.acks)-5):])
}

// rereads say how a record is read again: by which method, and by which of its fields. A
// method that lists finds it among others.
var rereads = map[protoreflect.Name]struct {
	method, request, record string
}{
	"Brand": {"GetBrand", "", ""}, "Organization": {"GetOrganization", "id", "id"}, "User": {"GetUser", "id", "id"},
	"Profile": {"GetProfile", "", ""}, "Session": {"ListMySessions", "", ""},
	"UserAccess": {"GetUserAccess", "user_id", "id"}, "Role": {"GetRole", "id", "id"}, "Group": {"GetGroup", "id", "id"},
	"Property": {"GetProperty", "id", "id"}, "Unit": {"GetUnit", "id", "id"},
	"PropertyTeamMember": {"ListPropertyTeam", "property_id", "property_id"},
	"ServiceRequest":     {"GetServiceRequest", "id", "id"},
	"Comment":            {"ListComments", "service_request_id", "service_request_id"},
	"Attachment":         {"ListAttachments", "service_request_id", "service_request_id"},
	"ServiceAgent":       {"GetServiceAgent", "id", "id"}, "Appointment": {"GetAppointment", "id", "id"},
	"Part": {"GetPart", "id", "id"}, "Invoice": {"GetInvoice", "id", "id"},
	"Payment": {"ListPayments", "invoice_id", "invoice_id"}, "VendorInvoice": {"GetVendorInvoice", "id", "id"},
}

// reread reads a record again and compares it with the last answer that had it.
func (k *keeper) reread(key string, a *ack) {
	k.t.Helper()
	how, ok := rereads[a.record.ProtoReflect().Descriptor().Name()]
	if !ok {
		k.t.Fatalf("nobody said how a %s is read again", key)
	}
	m := methodByName(k.t, how.method)
	req := newMessage(m.Input())
	if how.request != "" {
		fd := m.Input().Fields().ByName(protoreflect.Name(how.request))
		req.ProtoReflect().Set(fd, protoreflect.ValueOfString(textOf(a.record, protoreflect.Name(how.record))))
	}
	ctx := a.ctx(k.t.Context())
	if len(a.credentials) == 0 {
		return // nobody can read it as who made it
	}
	resp, err := k.insist(ctx, m, req)
	if err != nil {
		k.t.Fatalf("read %s again: %v", key, err)
	}
	found := find(resp.ProtoReflect(), key)
	if found == nil || !proto.Equal(lasting(found), lasting(a.record)) && !k.linked(found, a.record) {
		k.trial.Lost("%s, answered by %s\ngot  %v\nwant %v", key, a.method.Name(), found, a.record)
	}
}

// linked reports whether somebody's access is as it was answered, but that permissions has noted since that
// he was made a service agent.
func (k *keeper) linked(now, answered proto.Message) bool {
	a, ok := now.(*permissionspb.UserAccess)
	if !ok || a.GetServiceAgentId() == "" || a.GetServiceAgentId() != k.agents[a.GetId()] {
		return false
	}
	before := proto.CloneOf(answered.(*permissionspb.UserAccess))
	before.ServiceAgentId, before.ChangeReason = a.ServiceAgentId, a.ChangeReason
	before.Etag, before.UpdateTime = a.Etag, a.UpdateTime
	return proto.Equal(before, a)
}

// find returns the record in a response.
func find(m protoreflect.Message, key string) (found proto.Message) {
	if m.Descriptor().Fields().ByName("etag") != nil && recordKey(m.Interface()) == key {
		return m.Interface()
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case found != nil || fd.Message() == nil || fd.IsMap():
		case fd.IsList():
			for i := range v.List().Len() {
				if found == nil {
					found = find(v.List().Get(i).Message(), key)
				}
			}
		default:
			found = find(v.Message(), key)
		}
		return found == nil
	})
	return found
}

// lasting returns a copy without what is computed when it is read, and without what
// proves a session, which is told once.
func lasting(m proto.Message) proto.Message {
	m = proto.Clone(m)
	clearComputed(m.ProtoReflect())
	return m
}

func clearComputed(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch name := fd.Name(); {
		case name == "available_actions" || name == "cycle_time" || name == "elapsed" || name == "last_seen_time" ||
			name == "token" || name == "token_expire_time" || name == "device_token" || name == "refresh_token":
			m.Clear(fd)
		case fd.Message() == nil || fd.IsMap():
		case fd.IsList():
			for i := range v.List().Len() {
				clearComputed(v.List().Get(i).Message())
			}
		default:
			clearComputed(v.Message())
		}
		return true
	})
}

// wantLinks waits until permissions has noted of all who were made service agents that they were.
func (k *keeper) wantLinks() {
	k.t.Helper()
	for key, a := range k.records {
		access, ok := a.record.(*permissionspb.UserAccess)
		if !ok || k.agents[access.GetId()] == "" {
			continue
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(pace) {
			resp, err := k.insist(a.ctx(k.t.Context()), methodByName(k.t, "GetUserAccess"), &permissionspb.GetUserAccessRequest{UserId: access.GetId()})
			if err != nil {
				k.t.Fatal(err)
			}
			if resp.(*permissionspb.GetUserAccessResponse).GetUserAccess().GetServiceAgentId() == k.agents[access.GetId()] {
				break
			}
			if time.Now().After(deadline) {
				k.trial.Lost("%s does not tell that he is the service agent %s", key, k.agents[access.GetId()])
				break
			}
		}
	}
}

// repeat makes calls again, which must be answered as before.
func (k *keeper) repeat(acks []*ack) {
	k.t.Helper()
	for _, a := range acks {
		resp, err := k.insist(a.ctx(k.t.Context()), a.method, a.req)
		if err != nil || !proto.Equal(lasting(resp), lasting(a.resp)) {
			k.trial.Wrong("repeat of %s %v\ngot  %v, %v\nwant %v", a.method.Name(), a.req, resp, err, a.resp)
		}
	}
}

// stop ends all processes, in order or not.
func (k *keeper) stop() {
	sig := pick(k.random, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL})
	for _, p := range k.processes() {
		p.signal(sig)
	}
	for _, p := range k.processes() {
		<-p.done
	}
}

// verify opens the store of a service and checks that it is whole, and that its records are what the
// service promises. A file must have been closed by its process.
func (s *suite) verify(service string) error {
	engine, err := s.engine(service)
	if err != nil {
		return err
	}
	db, err := store.Open(s.t.Context(), engine, services[service].Schema, store.Config{Now: time.Now})
	if err != nil {
		return err
	}
	defer db.Close()
	tenants, err := db.Tenants(s.t.Context())
	if err != nil || len(tenants) == 0 {
		return fmt.Errorf("got tenants %q, error %v", tenants, err)
	}
	_, stopped := db.Verify(s.t.Context(), func(problem string) { err = errors.Join(err, errors.New(problem)) }, func(store.Verified) error { return nil })
	return errors.Join(err, stopped)
}

// engine opens where the suite keeps the records of a service.
func (s *suite) engine(service string) (store.Engine, error) {
	for _, v := range s.env {
		if url, ok := strings.CutPrefix(v, "LATCHKEY_STORE=postgres:"); ok {
			e, _, err := postgres.Open(s.t.Context(), "postgres:"+url, service, store.MakeMissing)
			return e, err
		}
	}
	return bolt.Open(filepath.Join(s.folder, service+".db"), bolt.Options{})
}
