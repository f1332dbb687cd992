package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health" // by which a client stays away from who does not serve
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/trial"
)

// doubled is a suite in which each service runs several times over one PostgreSQL. It is a
// connection to all of them, as a client has it who uses the configuration that we ship.
type doubled struct {
	*suite
	all      []*process
	replicas map[string][]*process // by service
	clients  map[string]*grpc.ClientConn
	company  *demo.Company
}

// double runs each service in two processes of its own.
func double(t testing.TB) *doubled {
	t.Helper()
	d := &doubled{suite: newSuite(t, inDatabase(t))}
	var groups [][]string
	for _, name := range names {
		groups = append(groups, []string{name})
	}
	d.run(2, groups)
	return d
}

// run starts so many processes of each group of services, and fills in the company.
func (d *doubled) run(count int, groups [][]string) {
	d.t.Helper()
	d.plan(count, groups)
	d.begin()
}

// plan is run before anything is started.
func (d *doubled) plan(count int, groups [][]string) {
	if d.replicas == nil {
		d.replicas = map[string][]*process{}
	}
	for _, group := range groups {
		for range count {
			p := d.newProcess(group)
			d.all = append(d.all, p)
			for _, name := range group {
				d.replicas[name] = append(d.replicas[name], p)
				d.processes[name] = d.replicas[name][0]
			}
		}
	}
}

// begin starts what was planned.
func (d *doubled) begin() {
	t := d.t
	t.Helper()
	var peers []string
	for _, p := range d.all {
		addr := p.addr
		if p.fork != nil {
			addr = p.fork.addr()
		}
		for _, name := range p.parts {
			peers = append(peers, name+"="+addr)
		}
	}
	d.env = append(d.env, "LATCHKEY_PEERS="+strings.Join(peers, ","))
	for _, p := range d.all {
		d.start(p)
	}
	for _, p := range d.all {
		d.serves(p)
	}
	d.clients = map[string]*grpc.ClientConn{}
	for _, name := range names {
		d.clients[name] = d.client(name)
	}
	var err error
	if d.company, err = demo.Fill(t.Context(), d, code); err != nil {
		t.Fatal(err)
	}
}

// client connects to all replicas of a service.
func (d *doubled) client(service string) *grpc.ClientConn {
	config, err := os.ReadFile("../../clients/service_config.json")
	if err != nil {
		d.t.Fatal(err)
	}
	all := manual.NewBuilderWithScheme("replicas")
	var state resolver.State
	for _, p := range d.replicas[service] {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: p.addr})
	}
	all.InitialState(state)
	c, err := grpc.NewClient("replicas:///"+service, grpc.WithResolvers(all), grpc.WithDefaultServiceConfig(string(config)),
		grpc.WithTransportCredentials(d.creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: time.Second}))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// Invoke and NewStream call the service of the method.
func (d *doubled) Invoke(ctx context.Context, method string, req, resp any, opts ...grpc.CallOption) error {
	return d.clients[serviceOf(method)].Invoke(ctx, method, req, resp, opts...)
}

func (d *doubled) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return d.clients[serviceOf(method)].NewStream(ctx, desc, method, opts...)
}

// traffic is calls to all services, and those that failed.
type traffic struct {
	calls  atomic.Int64
	mu     sync.Mutex
	failed []string
}

// run calls all services until ctx ends, reading and writing.
func (l *traffic) run(ctx context.Context, d *doubled, random *rand.Rand) {
	owner := func() context.Context { return d.company.As(context.WithoutCancel(ctx), "OW") }
	user, granted := d.company.Person("SP").ID, false
	calls := []func() error{
		func() error {
			_, err := invoicingpb.NewPartServiceClient(d).CreatePart(owner(), &invoicingpb.CreatePartRequest{
				RequestId: uuid.NewString(), Name: "Valve",
			})
			return err
		},
		func() error {
			_, err := servicerequestpb.NewPropertyServiceClient(d).ListProperties(owner(), &servicerequestpb.ListPropertiesRequest{})
			return err
		},
		func() error {
			_, err := permissionspb.NewRoleServiceClient(d).ListRoles(owner(), &permissionspb.ListRolesRequest{})
			return err
		},
		func() error {
			granted = !granted
			access := permissionspb.NewAccessServiceClient(d)
			if granted {
				_, err := access.SetOverride(owner(), &permissionspb.SetOverrideRequest{
					RequestId: uuid.NewString(), UserId: user, Key: "Invoices:Void", Effect: permissionspb.Effect_EFFECT_GRANT, Reason: "stands in",
				})
				return err
			}
			_, err := access.ClearOverride(owner(), &permissionspb.ClearOverrideRequest{RequestId: uuid.NewString(), UserId: user, Key: "Invoices:Void"})
			return err
		},
	}
	for _, p := range probes {
		calls = append(calls, func() error { return p.call(owner(), d) })
	}
	for ctx.Err() == nil {
		n := random.IntN(len(calls))
		err := calls[n]()
		l.calls.Add(1)
		if c := status.Code(err); c != codes.OK && c != codes.NotFound {
			l.mu.Lock()
			l.failed = append(l.failed, fmt.Sprintf("call %d: %v", n, err))
			l.mu.Unlock()
		}
		time.Sleep(pace)
	}
}

// TestRollingRestart restarts each of two replicas of each service, as the compose file of
// replicas has them, one after the other, while all are called: no call fails.
func TestRollingRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("it restarts ten processes")
	}
	tr := trial.New(t, "rolling restart of all replicas under load: failed calls", "postgres")
	d := compose(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var l traffic
	var callers sync.WaitGroup
	for n := range 4 {
		callers.Go(func() { l.run(ctx, d, rand.New(rand.NewPCG(1, uint64(n)))) })
	}
	for _, name := range names {
		for _, p := range d.replicas[name] {
			before := l.calls.Load()
			tr.Tried()
			p.signal(syscall.SIGTERM)
			<-p.done
			d.start(p)
			d.serves(p)
			t.Logf("%s restarted: %d calls meanwhile", name, l.calls.Load()-before)
		}
	}
	stop()
	callers.Wait()
	tr.Remark("%d calls", l.calls.Load())
	for _, f := range l.failed {
		tr.Wrong("%s", f)
	}
	for _, name := range names {
		for _, p := range d.replicas[name] {
			if alarms := p.log.alarms(); len(alarms) > 0 {
				t.Errorf("%s: %s", name, slices.Compact(alarms))
			}
		}
	}
}

// testRevoke takes a permission away through one replica of permissions while the other is
// frozen or killed: whoever asks any replica of invoicing after that is not let in. A repeat
// of the call at the other replica gets the first answer.
func (d *doubled) testRevoke(t *testing.T) {
	user, owner := d.company.Person("SP"), d.company.As(t.Context(), "OW")
	alive, other := d.replicas["permissions"][0], d.replicas["permissions"][1]
	access := permissionspb.NewAccessServiceClient(d.only(alive))
	for name, trouble := range map[string]struct{ begin, end func() }{
		"frozen": {func() { other.signal(syscall.SIGSTOP) }, func() { other.signal(syscall.SIGCONT) }},
		"killed": {other.kill, func() { d.start(other) }},
	} {
		t.Run(name, func(t *testing.T) {
			d.letVoid(owner, user.ID)
			var calls []func() codes.Code
			for _, p := range d.replicas["invoicing"] {
				conn := d.only(p)
				calls = append(calls, func() codes.Code {
					return status.Code(probes["invoicing"].call(d.company.As(t.Context(), "SP"), conn))
				})
			}
			for _, call := range calls {
				c := codes.Unavailable
				for limit := time.Now().Add(time.Minute); c == codes.Unavailable && time.Now().Before(limit); time.Sleep(pace) {
					c = call()
				}
				if c != codes.NotFound { // he is let in, and there is no such invoice
					t.Fatalf("he who may is answered %v", c)
				}
			}
			trouble.begin()
			var returned atomic.Bool
			var callers sync.WaitGroup
			for _, call := range calls {
				callers.Go(func() {
					for refused := 0; refused < 50; {
						before := returned.Load()
						c := call()
						if before && c == codes.NotFound {
							t.Error("let in after the revoke had returned")
							return
						}
						if before && c == codes.PermissionDenied {
							refused++
						}
						time.Sleep(pace)
					}
				})
			}
			req := &permissionspb.SetOverrideRequest{
				RequestId: uuid.NewString(), UserId: user.ID, Key: "Invoices:Void", Effect: permissionspb.Effect_EFFECT_DENY, Reason: "no longer",
			}
			first := untilAnswered(t, func() (*permissionspb.SetOverrideResponse, error) { return access.SetOverride(owner, req) })
			returned.Store(true)
			callers.Wait()
			trouble.end()
			there := permissionspb.NewAccessServiceClient(d.only(other))
			again := untilAnswered(t, func() (*permissionspb.SetOverrideResponse, error) { return there.SetOverride(owner, req) })
			if !proto.Equal(first, again) {
				t.Errorf("the repeat at the other replica got %v, the first %v", again, first)
			}
			d.serves(other)
		})
	}
}

// letVoid lets a user void invoices.
func (d *doubled) letVoid(owner context.Context, user string) {
	d.t.Helper()
	for _, key := range []string{"Web", "Invoices", "Invoices:Void"} {
		_, err := permissionspb.NewAccessServiceClient(d).SetOverride(owner, &permissionspb.SetOverrideRequest{
			UserId: user, Key: key, Effect: permissionspb.Effect_EFFECT_GRANT, Reason: "stands in",
		})
		if err != nil {
			d.t.Fatal(err)
		}
	}
}

// untilAnswered repeats a call until it is answered.
func untilAnswered[R any](t *testing.T, call func() (R, error)) R {
	t.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(pace) {
		resp, err := call()
		if err == nil {
			return resp
		}
		if c := status.Code(err); c != codes.Unavailable && c != codes.DeadlineExceeded || time.Now().After(limit) {
			t.Fatal(err)
		}
	}
}
