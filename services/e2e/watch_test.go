package e2e

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/trial"
)

// shortLease is how long a lease holds in these tests, so that waiting for one to run out is.
const shortLease = 500 * time.Millisecond

// nobodys is an id that no record has.
const nobodys = "00000000-0000-7000-8000-00000000dead"

// probe is a guarded method of a service that is cheap to call. Whoever holds its key is
// told that there is no such record.
type probe struct {
	key  string
	call func(context.Context, grpc.ClientConnInterface) error
}

var probes = map[string]probe{
	"identity": {"Organization: Users", func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := identitypb.NewUserServiceClient(c).GetUser(ctx, &identitypb.GetUserRequest{Id: nobodys})
		return err
	}},
	"permissions": {"Organizations: Roles", func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := permissionspb.NewRoleServiceClient(c).DeleteRole(ctx, &permissionspb.DeleteRoleRequest{Id: nobodys})
		return err
	}},
	"servicerequest": {"Properties", func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := servicerequestpb.NewPropertyServiceClient(c).GetProperty(ctx, &servicerequestpb.GetPropertyRequest{Id: nobodys})
		return err
	}},
	"scheduling": {"Organization: Service Agents", func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := schedulingpb.NewServiceAgentServiceClient(c).UpdateServiceAgent(ctx, &schedulingpb.UpdateServiceAgentRequest{
			ServiceAgent: &schedulingpb.ServiceAgent{Id: nobodys, DisplayName: new("x")},
		})
		return err
	}},
	"invoicing": {"Invoices:Void", func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := invoicingpb.NewInvoiceServiceClient(c).VoidInvoice(ctx, &invoicingpb.VoidInvoiceRequest{Id: nobodys, Reason: "a try"})
		return err
	}},
}

// watch is a suite in five processes in which somebody calls all services all the time,
// while what he may is changed and something goes wrong.
type watch struct {
	*history
	t       *testing.T
	suite   *suite
	company *demo.Company
	random  *rand.Rand
	trial   *trial.Trial
	denial  codes.Code // with which what was taken away is refused
	subject atomic.Pointer[subject]
	asked   []string // what is called: the services, or replicas of them
	// reach is how to call one of those.
	reach func(asked string) (*grpc.ClientConn, probe)
	// asks makes a call. Only a control that must fail asks otherwise than by the probe.
	asks func(ctx context.Context, asked string) error
}

// subject is whose calls are watched.
type subject struct {
	token     string
	registers map[string]*register // by what is asked
}

// seeds are printed, and can be given again.
func seeded(t testing.TB, seed uint64) *rand.Rand {
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// newWatch starts five processes, each of which reaches identity and permissions through
// proxies of its own.
func newWatch(t *testing.T, tr *trial.Trial, denial codes.Code) *watch {
	return newWatchOf(t, tr, denial, fiveStopped(t, "LATCHKEY_LEASE="+shortLease.String()))
}

func newWatchOf(t *testing.T, tr *trial.Trial, denial codes.Code, s *suite) *watch {
	for name, p := range s.processes {
		if p.via == nil {
			p.via = map[string]*proxy{}
		}
		for _, source := range []string{"identity", "permissions"} {
			if source != name && p.via[source] == nil {
				p.via[source] = newProxy(t, s.processes[source].addr)
			}
		}
	}
	for _, name := range names {
		s.start(s.processes[name])
	}
	s.ready()
	return watchOver(t, tr, denial, s, s.fill(), names, func(service string) (*grpc.ClientConn, probe) { return s.conn(service), probes[service] })
}

// watchOver watches what runs already.
func watchOver(t *testing.T, tr *trial.Trial, denial codes.Code, s *suite, company *demo.Company, asked []string, reach func(string) (*grpc.ClientConn, probe)) *watch {
	w := &watch{
		history: newHistory(), t: t, suite: s, company: company, random: seeded(t, *seed), trial: tr, denial: denial, asked: asked, reach: reach,
	}
	w.asks = func(ctx context.Context, asked string) error {
		conn, probe := reach(asked)
		return probe.call(ctx, conn)
	}
	return w
}

// as is a context of a call with a session.
func as(ctx context.Context, token string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer "+token))
}

// watched makes the owner of a session the subject from now on.
func (w *watch) watched(token, name string) *subject {
	s := &subject{token: token, registers: map[string]*register{}}
	for _, asked := range w.asked {
		s.registers[asked] = w.register(name, asked, true)
	}
	w.subject.Store(s)
	return s
}

// of returns the subject's registers in some services, or in all.
func (s *subject) of(services ...string) []*register {
	if len(services) == 0 {
		services = names
	}
	rs := make([]*register, len(services))
	for i, service := range services {
		rs[i] = s.registers[service]
	}
	return rs
}

// patiences are how long callers wait for an answer: who gives up soon calls a process
// that hangs again and again, who does not gets its answer when it goes on.
var patiences = []time.Duration{150 * time.Millisecond, time.Second, 4 * time.Second}

// pace is how long a caller pauses between calls, to leave the machine some time.
const pace = 3 * time.Millisecond

// callAlways calls all services until stop is called.
func (w *watch) callAlways() (stop func()) {
	var callers sync.WaitGroup
	ctx, cancel := context.WithCancel(w.t.Context())
	for _, asked := range w.asked {
		for _, patience := range patiences {
			callers.Go(func() {
				for ctx.Err() == nil {
					w.call(ctx, asked, patience)
					time.Sleep(pace)
				}
			})
		}
	}
	return func() {
		cancel()
		callers.Wait()
	}
}

func (w *watch) call(ctx context.Context, service string, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := w.subject.Load()
	start := w.now()
	err := w.asks(as(ctx, s.token), service)
	w.read(s.registers[service], start, w.verdict(service, err))
}

func (w *watch) verdict(service string, err error) verdict {
	switch code := status.Code(err); code {
	case codes.OK, codes.NotFound:
		return allowed
	case w.denial:
		return denied
	case codes.Unavailable:
		return refused
	case codes.DeadlineExceeded, codes.Canceled:
	default:
		w.t.Errorf("%s answered %v: neither allowed nor %s nor out of reach", service, err, w.denial)
	}
	return lost
}

// sent are calls that were sent to a process that does not answer now.
type sent struct {
	stream grpc.ClientStream
	start  time.Duration
	target *register
}

// send sends calls to a service, if it is there, and does not wait for the answers.
func (w *watch) send(ctx context.Context, asked string, n int) []sent {
	s := w.subject.Load()
	conn, probe := w.reach(asked)
	var calls []sent
	for range n {
		c := &capture{conn: conn}
		start := w.now()
		if err := probe.call(as(ctx, s.token), c); err == nil {
			calls = append(calls, sent{c.stream, start, s.registers[asked]})
		}
	}
	return calls
}

// capture is a connection whose calls are sent, and answered to whoever asks the stream.
type capture struct {
	conn   grpc.ClientConnInterface
	stream grpc.ClientStream
}

func (c *capture) Invoke(ctx context.Context, method string, req, _ any, opts ...grpc.CallOption) (err error) {
	if c.stream, err = c.conn.NewStream(ctx, &grpc.StreamDesc{}, method, opts...); err != nil {
		return err
	}
	return c.stream.SendMsg(req)
}

func (c *capture) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	panic("no probe is a stream")
}

// answers takes the answers of calls that were sent.
func (w *watch) answers(service string, calls []sent) {
	for _, c := range calls {
		v := w.verdict(service, c.stream.RecvMsg(&identitypb.GetUserResponse{}))
		w.read(c.target, c.start, v)
	}
}

// verify stops the calls and looks at what was seen.
func (w *watch) verify() {
	w.t.Helper()
	for _, v := range w.violations() {
		w.trial.Wrong("%s", v)
	}
	if w.t.Failed() {
		w.picture(w.t)
	}
	w.trial.Remark("%s", w.counts())
}
