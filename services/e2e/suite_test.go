package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/identity"
	_ "latchkey.dev/services/internal/bucket" // as cmd/latchkey has it
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
	"latchkey.dev/services/invoicing"
	"latchkey.dev/services/permissions"
	"latchkey.dev/services/scheduling"
	"latchkey.dev/services/servicerequest"
)

// services are the parts by name.
var services = map[string]server.Part{
	"identity": identity.Part, "permissions": permissions.Part, "servicerequest": servicerequest.Part,
	"scheduling": scheduling.Part, "invoicing": invoicing.Part,
}

// names of the services, in order.
var names = slices.Sorted(maps.Keys(services))

// partsEnv tells a child process of the tests which services to be, with commas between.
const partsEnv = "LATCHKEY_E2E_PARTS"

// TestMain lets the test binary be the suite's processes too: a child of a test runs
// as the services that its environment names.
func TestMain(m *testing.M) {
	if text := os.Getenv(partsEnv); text != "" {
		os.Unsetenv(partsEnv)
		be(strings.Split(text, ","))
	}
	flag.Parse()
	if *benchSuite != "" {
		os.Stdout = os.Stderr // what the tests print beside the findings
	}
	code := m.Run()
	postgrestest.Stop()
	os.Exit(code)
}

// be makes this process a child: services, and what a test wants beside them.
func be(wanted []string) {
	if file := os.Getenv(profileEnv); file != "" {
		go profileOnSignal(file)
	}
	if number := os.Getenv(failEnv); number != "" {
		go failOnSignal(number)
	}
	var parts []server.Part
	for _, name := range wanted {
		switch name {
		case echoPart:
			if err := echo(); err != nil {
				fmt.Fprintln(os.Stderr, "echo:", err)
				os.Exit(1)
			}
			os.Exit(0)
		case fixed.Name:
			parts = append(parts, fixed)
		case demo.Part.Name:
			parts = append(parts, demo.Part)
		default:
			parts = append(parts, services[name])
		}
	}
	server.Main(server.Engines{"postgres": postgres.Open}, parts...)
}

// code is the one-time code of every suite that a test starts.
const code = "setup-code-of-the-tests"

// suite is a running suite, in one process or in several.
type suite struct {
	t         testing.TB
	folder    string
	processes map[string]*process              // by service; one process may be several services'
	env       []string                         // of every process
	creds     credentials.TransportCredentials // of the test's own connections

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn // by address
}

// one starts all services in one process of its own.
func one(t testing.TB, env ...string) *suite {
	t.Helper()
	return oneWith(t, nil, env...)
}

// oneWith is one with further parts in the process.
func oneWith(t testing.TB, further []string, env ...string) *suite {
	t.Helper()
	s := oneStopped(t, further, env...)
	s.start(s.processes[names[0]])
	s.ready()
	return s
}

// oneStopped is oneWith before anything is started.
func oneStopped(t testing.TB, further []string, env ...string) *suite {
	s := newSuite(t, env)
	p := s.newProcess(slices.Concat(names, further))
	for _, name := range names {
		s.processes[name] = p
	}
	return s
}

// five starts each service in a process of its own.
func five(t testing.TB, env ...string) *suite {
	t.Helper()
	s := fiveStopped(t, env...)
	for _, name := range names {
		s.start(s.processes[name])
	}
	s.ready()
	return s
}

// fiveStopped is five before anything is started.
func fiveStopped(t testing.TB, env ...string) *suite {
	s := newSuite(t, env)
	for _, name := range names {
		s.processes[name] = s.newProcess([]string{name})
	}
	return s
}

// topologies runs a test over both, with files and with PostgreSQL.
func topologies(t *testing.T, test func(t *testing.T, s *suite)) {
	t.Run("one process", func(t *testing.T) { test(t, one(t)) })
	t.Run("five processes", func(t *testing.T) { test(t, five(t)) })
	t.Run("one process over PostgreSQL", func(t *testing.T) { test(t, one(t, inDatabase(t)...)) })
	t.Run("five processes over PostgreSQL", func(t *testing.T) { test(t, five(t, inDatabase(t)...)) })
}

// inDatabase returns the environment of processes that keep everything in a database of
// their own.
func inDatabase(t testing.TB) []string {
	t.Helper()
	return inDatabaseAt(t, postgrestest.Database(t))
}

func inDatabaseAt(t testing.TB, url string) []string {
	return []string{
		"LATCHKEY_STORE=" + url, "LATCHKEY_BLOBS=file://" + t.TempDir(),
		"LATCHKEY_SERVICE_KEY=" + strings.Repeat("k", 32),
	}
}

func newSuite(t testing.TB, env []string) *suite {
	return &suite{t: t, folder: t.TempDir(), processes: map[string]*process{}, conns: map[string]*grpc.ClientConn{}, env: env, creds: insecure.NewCredentials()}
}

// process is one process of a suite. It can be killed and started again.
type process struct {
	suite *suite
	parts []string
	addr  string
	via   map[string]*proxy // by service that this process reaches through one
	env   []string          // beside the suite's
	fork  *fork             // by which the other processes reach this one, if any
	cmd   *exec.Cmd
	log   *tail
	done  chan struct{} // closed when it has ended
}

func (s *suite) newProcess(parts []string) *process {
	return &process{suite: s, parts: parts, addr: freeAddr(s.t), log: &tail{}}
}

// given are the addresses that were handed out, each once: a process that is started
// again comes back at its own.
var given sync.Map

// freeAddr returns an address that nothing else takes, now or while the process that
// it is for is away. So it is on a loopback address of this test's own, where the
// machine has more than one: there no outgoing connection takes a port by chance.
func freeAddr(t testing.TB) string {
	pid := os.Getpid()
	own := net.IPv4(127, byte(pid>>16), byte(pid>>8), byte(pid)).String()
	for {
		l, err := net.Listen("tcp", own+":0")
		if err != nil {
			l, err = net.Listen("tcp", "127.0.0.1:0")
		}
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		l.Close()
		if _, taken := given.LoadOrStore(addr, true); !taken {
			return addr
		}
	}
}

// start starts a process, which ends with the test at the latest.
func (s *suite) start(p *process) {
	s.t.Helper()
	var peers []string
	for _, name := range names {
		switch {
		case slices.Contains(p.parts, name):
		case p.via[name] != nil:
			peers = append(peers, name+"="+p.via[name].addr())
		default:
			peers = append(peers, name+"="+s.processes[name].addr)
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), partsEnv+"="+strings.Join(p.parts, ","),
		"LATCHKEY_LISTEN="+p.addr, "LATCHKEY_STORE=bolt:"+s.folder, "LATCHKEY_BOOTSTRAP_CODE="+code, "LATCHKEY_LOG_LEVEL=warn")
	if len(peers) > 0 {
		cmd.Env = append(cmd.Env, "LATCHKEY_PEERS="+strings.Join(peers, ","))
	}
	cmd.Env = slices.Concat(cmd.Env, s.env, p.env)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := make(chan struct{})
	s.mu.Lock() // a fork asks whose a connection is
	p.cmd, p.done = cmd, done
	err := cmd.Start()
	s.mu.Unlock()
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(done)
		cmd.Wait()
	}()
	s.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGCONT)
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-done
		}
		if s.t.Failed() && p.cmd == cmd {
			s.t.Logf("last lines of %s:\n%s", strings.Join(p.parts, ", "), p.log)
		}
	})
}

// signal sends a signal to the process.
func (p *process) signal(sig os.Signal) {
	p.suite.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.suite.t.Fatal(err)
	}
}

// kill ends the process at once, as a power cut of its program would.
func (p *process) kill() {
	p.suite.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.done
}

// ready waits until every service says that it serves.
func (s *suite) ready() {
	s.t.Helper()
	for _, name := range names {
		s.readyOne(name)
	}
}

func (s *suite) readyOne(name string) {
	s.t.Helper()
	s.serves(s.processes[name])
}

// serves waits until a process serves.
func (s *suite) serves(p *process) {
	s.t.Helper()
	client := healthpb.NewHealthClient(s.only(p))
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		resp, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err == nil && resp.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return
		}
		select {
		case <-p.done:
			s.t.Fatalf("%v ended before it served:\n%s", p.parts, p.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
	s.t.Fatalf("%v does not serve:\n%s", p.parts, p.log)
}

// conn returns a connection to the process of a service, without credentials.
func (s *suite) conn(service string) *grpc.ClientConn {
	s.t.Helper()
	return s.only(s.processes[service])
}

// only is a connection to one process.
func (s *suite) only(p *process) *grpc.ClientConn {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.conns[p.addr]; ok {
		return c
	}
	c, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(s.creds),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: time.Second}))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	s.conns[p.addr] = c
	return c
}

// Invoke and NewStream make the suite a connection to all of its services: a call
// goes to the process of the service that its method's name says.
func (s *suite) Invoke(ctx context.Context, method string, req, resp any, opts ...grpc.CallOption) error {
	return s.conn(serviceOf(method)).Invoke(ctx, method, req, resp, opts...)
}

func (s *suite) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return s.conn(serviceOf(method)).NewStream(ctx, desc, method, opts...)
}

// serviceOf returns "invoicing" for "/latchkey.invoicing.v1.InvoiceService/VoidInvoice".
func serviceOf(method string) string {
	part := strings.Split(method, ".")
	if len(part) < 2 || services[part[1]].Name == "" {
		return names[0]
	}
	return part[1]
}

// fill makes the demonstration company in the suite.
func (s *suite) fill() *demo.Company {
	s.t.Helper()
	c, err := demo.Fill(s.t.Context(), s, code)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// tail keeps the last lines that a process printed.
type tail struct {
	mu     sync.Mutex
	lines  []string
	broken []string // those that tell of a fault of the suite
}

const tailLines = 60

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		l.lines = append(l.lines, line)
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") || strings.Contains(line, "fatal error") {
			l.broken = append(l.broken, line)
		}
	}
	l.lines = l.lines[max(0, len(l.lines)-tailLines):]
	return len(p), nil
}

// alarms returns the lines that tell of a fault of the suite.
func (l *tail) alarms() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.broken)
}

// stops returns how often the process has said that it ends by itself, because it could not
// learn the outcome of a commit.
func (l *tail) stops() (n int) {
	for _, line := range l.alarms() {
		if strings.Contains(line, "on a write of unknown outcome") {
			n++
		}
	}
	return n
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

// quick lets a connection come back soon after its process did.
var quick = backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}
