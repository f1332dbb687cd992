package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/demo"
)

// TestRandomRequests calls every method with requests of all kinds, as the owner, who
// holds every key, and now and then as somebody else: first to validate only, so that nothing at all may change, then in
// earnest. No call may hang, panic or end in INTERNAL; each error must say what is wrong
// as the API promises; and a call that failed must have changed nothing. Afterwards verify finds nothing.
func TestRandomRequests(t *testing.T) {
	s := one(t)
	tl := newTeller(t, s)
	tl.tell("day.txt") // so that there is one of each kind of record
	f := newFuzzer(t, s, tl.company)
	f.generator.harmless = true
	f.run(times(1500, 50_000))
	f.generator.harmless = false
	f.run(times(1500, 50_000))
	f.finish()
	s.must("verify") // whatever was asked for, the services have kept to what they promise
}

// FuzzRequests is the same for Go's fuzzer, which follows no descriptors but its nose:
//
//	go test ./services/e2e -run - -fuzz FuzzRequests
func FuzzRequests(f *testing.F) {
	s := one(f)
	z := newFuzzer(f, s, s.fill())
	for i, m := range z.methods {
		f.Add(uint16(i), z.wire(m))
	}
	f.Fuzz(func(t *testing.T, method uint16, request []byte) {
		z.t, s.t = t, t // a fuzz target has no use of f
		m := z.methods[int(method)%len(z.methods)]
		if wrong := z.try(m, request); wrong != "" {
			t.Errorf("%s %s: %s", m.path(), z.show(m, request), wrong)
		}
	})
}

// fuzzer calls a suite at random.
type fuzzer struct {
	t         testing.TB
	suite     *suite
	company   *demo.Company
	generator *generator
	methods   []method
	revisions map[string]string // of each service, at the last look
	disturbed map[string]int    // calls for which events may still change a service
	outcomes  map[string]int
	reached   map[string]int // calls that went well, by method
	wrong     int
	caller    string    // role of who calls now
	app       string    // secret of the owner's authenticator app, if he had to set one up
	shown     time.Time // of the last code of it
}

func newFuzzer(t testing.TB, s *suite, c *demo.Company) *fuzzer {
	f := &fuzzer{
		t: t, suite: s, company: c, generator: newGenerator(seeded(t, *seed)),
		caller:    "OW",
		revisions: map[string]string{}, disturbed: map[string]int{}, outcomes: map[string]int{}, reached: map[string]int{},
	}
	f.generator.never[f.company.Person("OW").ID] = true // who makes the calls, and must not be shut out
	f.methods = methods()
	slices.SortFunc(f.methods, func(a, b method) int { return strings.Compare(a.path(), b.path()) })
	for _, service := range names {
		f.revisions[service] = f.revision(service)
	}
	return f
}

func (f *fuzzer) as(role string) (context.Context, context.CancelFunc) {
	return context.WithTimeout(f.company.As(f.t.Context(), role), patience)
}

// run makes calls of methods in turn.
func (f *fuzzer) run(n int) {
	f.t.Helper()
	for i := range n {
		m := f.methods[i%len(f.methods)]
		if (m.Name() == "EndSession" || m.Name() == "ChangePassword") && !f.generator.one(5) {
			continue // they cost the owner his session, and wrong passwords are counted
		}
		if m.Name() == "TransferOrganizationOwnership" {
			continue // it would cost him his keys; who calls for him has tests of its own
		}
		m = f.choose(m)
		request := f.wire(m)
		if wrong := f.try(m, request); wrong != "" {
			f.wrong++
			f.t.Errorf("%s %s %x\n%s: %s", f.caller, m.path(), request[:min(len(request), 500)], f.show(m, request), wrong)
		}
		if f.wrong > 20 {
			f.t.Fatal("that is enough")
		}
	}
}

// choose says who makes the next call and for which record: of the method whose turn it
// is, or of one that an answer before has offered.
func (f *fuzzer) choose(m method) method {
	g := f.generator
	f.caller, g.target = "OW", ""
	if g.one(3) {
		f.caller = pick(g.random, f.company.People).Role
	}
	if shutsOut(string(m.Name())) {
		g.target = f.dispensable()
	}
	l, ok := g.lead()
	if !ok || shutsOut(path.Base(l.method)) || g.one(3) {
		return m
	}
	i := slices.IndexFunc(f.methods, func(m method) bool { return m.path() == "/"+l.method })
	if i < 0 {
		f.t.Fatalf("an answer offers the method %q, which there is not", l.method)
	}
	f.caller, g.target = l.caller, l.id
	return f.methods[i]
}

func shutsOut(method string) bool { return method == "DeactivateUser" || method == "EndMembership" }

// dispensable returns the id of a user who makes no calls.
func (f *fuzzer) dispensable() string {
	others := slices.DeleteFunc(slices.Clone(f.generator.ids["user"]), func(id string) bool {
		return slices.ContainsFunc(f.company.People, func(p *demo.Person) bool { return p.ID == id })
	})
	return pick(f.generator.random, append(others, nobodys))
}

func (f *fuzzer) show(m method, request []byte) string {
	req := newMessage(m.Input())
	if err := proto.Unmarshal(request, req); err != nil {
		return err.Error()
	}
	out := fmt.Sprint(req)
	return out[:min(len(out), 1000)]
}

// try makes a call and says what is wrong with how it ended.
func (f *fuzzer) try(m method, request []byte) string {
	resp, err := f.send(m, request)
	f.outcomes[status.Code(err).String()]++
	if err == nil {
		f.reached[string(m.Name())]++
	}
	service := serviceOf(m.path())
	if err == nil {
		f.succeeded(m, service, request, resp)
		return ""
	}
	switch {
	case outcomeOf(err).reason != "CREDENTIALS_INVALID":
	case f.caller == "OW":
		return f.signInAnew()
	default:
		return "" // whom another call has shut out
	}
	if wrong := f.promised(m, err); wrong != "" {
		return fmt.Sprintf("%v %v: %s", err, status.Convert(err).Details(), wrong)
	}
	return f.unchanged(m, service, err)
}

// wire makes a request that is no longer than a message may be. TestBounds
// sends longer ones, which gRPC itself refuses.
func (f *fuzzer) wire(m method) []byte {
	for {
		if request := f.generator.wire(m); len(request) < tooLong {
			return request
		}
	}
}

// send sends a request, of a stream with some more, and returns the first response. What
// goes on as new things come, which a watch does, it leaves then.
func (f *fuzzer) send(m method, request []byte) (resp []byte, err error) {
	ctx, cancel := f.as(f.caller)
	defer cancel()
	conn := f.suite.conn(serviceOf(m.path()))
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return resp, conn.Invoke(ctx, m.path(), &request, &resp, grpc.ForceCodec(frames{}))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, m.path(), grpc.ForceCodec(frames{}))
	if err != nil {
		return nil, err
	}
	err = stream.SendMsg(&request)
	for m.IsStreamingClient() && err == nil && !f.generator.one(3) {
		f.generator.later = true
		more := f.wire(m)
		err = stream.SendMsg(&more)
	}
	f.generator.later = false
	stream.CloseSend()
	for n := 0; ; n++ {
		var next []byte
		if err := stream.RecvMsg(&next); errors.Is(err, io.EOF) {
			return resp, nil
		} else if err != nil {
			return nil, err
		}
		if n == 0 {
			resp = next
		}
		if strings.HasPrefix(string(m.Name()), "Watch") {
			return resp, nil
		}
	}
}

// feeds are the services in which events change something after a call to another.
var feeds = map[string][]string{"scheduling": {"invoicing"}, "servicerequest": {"scheduling", "invoicing"}, "identity": {"permissions"}}

// settled is for how many calls after one that made events they may still change something.
const settled = 300

func (f *fuzzer) succeeded(m method, service string, request, resp []byte) {
	answer := newMessage(m.Output())
	if err := proto.Unmarshal(resp, answer); err != nil {
		f.t.Errorf("%s answers what is no %s: %v", m.path(), m.Output().FullName(), err)
		return
	}
	if !validatesOnly(m, request) { // else it tells of what will not be
		f.generator.learn(f.caller, answer.ProtoReflect())
	}
	if f.generator.harmless {
		return
	}
	f.revisions[service] = f.revision(service)
	for _, other := range feeds[service] {
		f.disturbed[other] = settled
	}
}

func validatesOnly(m method, request []byte) bool {
	req := newMessage(m.Input())
	_ = proto.Unmarshal(request, req) // of nonsense that was taken, whatever there is
	fd := m.Input().Fields().ByName("validate_only")
	return fd != nil && req.ProtoReflect().Get(fd).Bool()
}

// signInAnew opens another session for the owner, whose own was ended, once his wrong
// passwords of the last minute do not keep him out.
func (f *fuzzer) signInAnew() string {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		owner := f.company.Person("OW")
		resp, err := identitypb.NewSessionServiceClient(f.suite).CreateSession(f.t.Context(), &identitypb.CreateSessionRequest{
			Email: owner.Email, Password: owner.Password, Surface: identitypb.Surface_SURFACE_WEB, OrganizationId: f.company.Organization,
		})
		switch {
		case err == nil && resp.GetChallenge() != nil:
			return f.showApp(resp.GetChallenge())
		case err == nil:
			owner.Token = resp.GetToken()
			f.disturbed["identity"] = 1
			return ""
		case status.Code(err) != codes.ResourceExhausted || time.Now().After(deadline):
			return "the owner cannot sign in any more: " + err.Error()
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// showApp goes on with a sign-in of the owner when a call before has demanded a second factor: with an app,
// which the first such sign-in sets up. No code is shown twice.
func (f *fuzzer) showApp(c *identitypb.Challenge) string {
	if key := c.GetTotpSetup().GetKey(); key != "" {
		f.app = key
	}
	const step = 30 * time.Second
	at := time.Now()
	if next := f.shown.Add(step); at.Before(next) {
		at = next
	}
	for at.After(time.Now().Add(step)) {
		time.Sleep(pace)
	}
	f.shown = at
	answer, err := identitypb.NewSessionServiceClient(f.suite).AnswerChallenge(f.t.Context(), &identitypb.AnswerChallengeRequest{
		Challenge: c.GetSecret(), Proof: &identitypb.Proof{Proof: &identitypb.Proof_TotpCode{TotpCode: totpAt(f.t, f.app, at)}},
	})
	if err != nil {
		return "the owner cannot show his app: " + err.Error()
	}
	f.company.Person("OW").Token = answer.GetToken()
	f.disturbed["identity"] = 1
	return ""
}

// unsayable are the codes that no caller may see, and patient ones that mean it hangs.
var unsayable = []codes.Code{codes.Internal, codes.Unknown, codes.DataLoss, codes.DeadlineExceeded, codes.Canceled}

// unnamed are the reasons for INVALID_ARGUMENT that no field is to blame for.
var unnamed = []string{"REQUEST_MALFORMED", "PAGE_TOKEN_INVALID", "REQUEST_ID_REUSED"}

// promised says what an error lacks of what the API promises of errors.
func (f *fuzzer) promised(m method, err error) string {
	st := status.Convert(err)
	if slices.Contains(unsayable, st.Code()) {
		return "no call may end so"
	}
	var info *errdetails.ErrorInfo
	var bad *errdetails.BadRequest
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.BadRequest:
			bad = d
		}
	}
	switch {
	case info == nil:
		return "it has no ErrorInfo"
	case info.GetDomain() != "latchkey.dev":
		return "its domain is not latchkey.dev"
	case faultpb.Reason_value["REASON_"+info.GetReason()] == 0:
		return "its reason is not of the enum"
	case st.Message() == "":
		return "it says nothing to a person"
	case m.rule.GetInternal() && info.GetReason() != "INTERNAL_ONLY" && info.GetReason() != "OUTSIDE_WORK_HOURS":
		return "no person is a service of the suite"
	case st.Code() != codes.InvalidArgument || slices.Contains(unnamed, info.GetReason()):
		return ""
	case len(bad.GetFieldViolations()) == 0:
		return "it names no field"
	}
	for _, v := range bad.GetFieldViolations() {
		if v.GetField() == "" || v.GetDescription() == "" {
			return "it does not say which field, or what was expected"
		}
	}
	return ""
}

// counted are the methods whose wrong proofs are counted, although they change nothing else.
var counted = map[string]bool{"CreateSession": true, "AnswerChallenge": true, "ChangePassword": true, "ConfirmTotp": true, "ResetPassword": true, "CompleteOutsideSignIn": true, "CompleteOutsideLink": true}

// unchanged says so if a call that failed has changed what its service keeps.
func (f *fuzzer) unchanged(m method, service string, err error) string {
	mutates := setRequestID(newMessage(m.Input()).ProtoReflect())
	if !mutates && !f.generator.one(10) {
		return ""
	}
	before, now := f.revisions[service], f.revision(service)
	f.revisions[service] = now
	disturbed := f.disturbed[service] > 0
	f.disturbed[service] = max(0, f.disturbed[service]-1)
	if before == now || disturbed || counted[string(m.Name())] || m.Name() == "UploadAttachment" {
		return "" // an upload is noted before its file comes, so that it can be swept
	}
	return fmt.Sprintf("it failed with %v, but the journal went from %s to %s", err, before, now)
}

// revision returns the revision that the next change of a service would have: the etag
// of a change that is validated only.
func (f *fuzzer) revision(service string) string {
	ctx, cancel := f.as("OW")
	defer cancel()
	name := fmt.Sprint("Not to be ", f.generator.random.Uint64())
	etag, err := nextRevision(ctx, f, service, name)
	if status.Code(err) == codes.Unauthenticated {
		if wrong := f.signInAnew(); wrong != "" {
			f.t.Fatal(wrong)
		}
		return f.revision(service)
	}
	if err != nil {
		f.t.Fatalf("look at the revision of %s: %v", service, err)
	}
	return etag
}

func nextRevision(ctx context.Context, f *fuzzer, service, name string) (string, error) {
	c := f.suite.conn(service)
	switch service {
	case "identity":
		r, err := identitypb.NewProfileServiceClient(c).UpdateProfile(ctx, &identitypb.UpdateProfileRequest{
			ValidateOnly: true, Profile: &identitypb.Profile{DisplayName: name},
		})
		return r.GetProfile().GetEtag(), err
	case "permissions":
		r, err := permissionspb.NewRoleServiceClient(c).CreateRole(ctx, &permissionspb.CreateRoleRequest{ValidateOnly: true, Name: name})
		return r.GetRole().GetEtag(), err
	case "servicerequest":
		r, err := servicerequestpb.NewPropertyServiceClient(c).CreateProperty(ctx, &servicerequestpb.CreatePropertyRequest{
			ValidateOnly: true, Name: name, TimeZone: "UTC",
		})
		return r.GetProperty().GetEtag(), err
	case "scheduling":
		r, err := schedulingpb.NewServiceAgentServiceClient(c).UpdateServiceAgent(ctx, &schedulingpb.UpdateServiceAgentRequest{
			ValidateOnly: true, ServiceAgent: &schedulingpb.ServiceAgent{Id: f.company.Agent.GetId(), DisplayName: &name},
		})
		return r.GetServiceAgent().GetEtag(), err
	}
	r, err := invoicingpb.NewPartServiceClient(c).CreatePart(ctx, &invoicingpb.CreatePartRequest{ValidateOnly: true, Name: name})
	return r.GetPart().GetEtag(), err
}

// finish looks whether the process is well, and has logged nothing that is broken.
func (f *fuzzer) finish() {
	f.t.Helper()
	f.suite.ready()
	for _, line := range f.suite.processes[names[0]].log.alarms() {
		f.t.Errorf("the log has %s", line)
	}
	var never []string
	for _, m := range f.methods {
		if f.reached[string(m.Name())] == 0 && !m.rule.GetInternal() {
			never = append(never, string(m.Name()))
		}
	}
	f.t.Logf("%d methods; the calls ended in %v; never went well: %q", len(f.methods), f.outcomes, never)
}
