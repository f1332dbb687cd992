package server_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/authz"
)

// command is the test's own program as a process of the suite.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProcess+"=works")
	cmd.Dir = t.TempDir()
	return cmd
}

// fails runs a process that cannot start, and wants one line and the exit code 1.
func fails(t *testing.T, want string, args ...string) {
	t.Helper()
	cmd := command(t, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("got exit code %d (%v), want 1", code, err)
	}
	if got := errOut.String(); !regexp.MustCompile("^latchkey: "+want+"\n$").MatchString(got) || out.Len() > 0 {
		t.Errorf("got  %q and %q on standard output,\nwant one line like %q", got, &out, want)
	}
}

// running is a process that serves.
type running struct {
	*exec.Cmd
	addr  string
	lines *bufio.Reader // of its standard error
	rest  func() string // waits for its end, and returns what it wrote to it
}

// runs starts a process and waits until it listens.
func runs(t *testing.T, args ...string) *running {
	t.Helper()
	return runCommand(t, command(t, append([]string{"--listen=127.0.0.1:0"}, args...)...))
}

func runCommand(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{Cmd: cmd}
	pipe, err := r.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	r.lines = bufio.NewReader(pipe)
	r.rest = sync.OnceValue(func() string {
		text, _ := io.ReadAll(r.lines)
		r.Wait()
		return string(text)
	})
	t.Cleanup(func() { r.Process.Kill(); r.rest() })
	r.addr = r.await(t, `msg=listening address=(\S+)`)
	return r
}

// await waits for a line that matches, and returns what is in the first parentheses, or
// the whole match.
func (r *running) await(t *testing.T, pattern string) string {
	t.Helper()
	for re := regexp.MustCompile(pattern); ; {
		line, err := r.lines.ReadString('\n')
		if m := re.FindStringSubmatch(line); m != nil {
			return m[len(m)-1]
		}
		if err != nil {
			t.Fatalf("the process ended without a line like %s: %v, %s", pattern, err, line)
		}
	}
}

func TestTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	fails(t, fmt.Sprintf(`listen on %s: address already in use \(choose another with --listen\)`, addr), "--listen="+addr)
	fails(t, fmt.Sprintf(`serve metrics on %s: address already in use \(choose another with --metrics-listen\)`, addr), "--listen=127.0.0.1:0", "--metrics-listen="+addr)
}

func TestUnknownHost(t *testing.T) {
	cert, key := selfSigned(t, t.TempDir(), 1)
	fails(t, `listen on nowhere\.invalid:1: .*\(choose another with --listen\)`, "--listen=nowhere.invalid:1", "--tls-cert="+cert, "--tls-key="+key)
}

func TestUnusableFolder(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, `make the folder of the store: mkdir .*/file: not a directory`, "--listen=127.0.0.1:0", "--store=bolt:"+file)
	fails(t, `make the folder of the store: mkdir .*/file: not a directory`, "--listen=127.0.0.1:0", "--store=bolt:"+filepath.Join(file, "below"))
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	if err := os.Chmod(folder, 0o500); err != nil {
		t.Fatal(err)
	}
	fails(t, `.*permission denied`, "--listen=127.0.0.1:0", "--store=bolt:"+folder)
}

func TestLockedFolder(t *testing.T) {
	folder := t.TempDir()
	first := runs(t, "--store=bolt:"+folder)
	fails(t, `open .*/identity\.db: another process has it open`, "--listen=127.0.0.1:0", "--store=bolt:"+folder)
	first.stop(t)
	runs(t, "--store=bolt:"+folder).stop(t)
}

func TestDamagedFile(t *testing.T) {
	folder := t.TempDir()
	for name, content := range map[string]string{"empty": "", "text": strings.Repeat("no database\n", 1000), "cut off": "\x00\x00\x00\x00"} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(folder, "permissions.db"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			fails(t, `open .*/permissions\.db: file is damaged: .*`, "--listen=127.0.0.1:0", "--store=bolt:"+folder)
		})
	}
}

func TestUnusableFiles(t *testing.T) {
	folder := t.TempDir()
	short := filepath.Join(folder, "short")
	if err := os.WriteFile(short, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := "--listen=127.0.0.1:0"
	fails(t, `read the service key: open nowhere: no such file or directory`, listen, "--service-key-file=nowhere")
	fails(t, `the service key in .*/short is too short: expected at least 32 characters`, listen, "--service-key-file="+short)
	fails(t, `read the TLS certificate: stat nowhere: no such file or directory`, listen, "--tls-cert=nowhere", "--tls-key="+short)
	fails(t, `read the TLS certificate: tls: failed to find any PEM data in certificate input`, listen, "--tls-cert="+short, "--tls-key="+short)
	fails(t, `read --tls-ca: open nowhere: no such file or directory`, listen, "--tls-ca=nowhere")
	fails(t, `read --tls-ca: .*/short holds no PEM certificate`, listen, "--tls-ca="+short)
}

// stop tells the process to stop and wants it to end well.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	text := r.rest()
	if code := r.ProcessState.ExitCode(); code != 0 {
		t.Errorf("got exit code %d, want 0; it wrote:\n%s", code, text)
	}
}

func TestProcess(t *testing.T) {
	r := runs(t, "--log-format=text")
	health := healthpb.NewHealthClient(dial(t, r.addr))
	watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "latchkey.invoicing.v1.PartService"})
	if err != nil {
		t.Fatal(err)
	}
	waitHealth(t, watch, healthpb.HealthCheckResponse_SERVING)
	if out, err := command(t, "--check", "--listen="+r.addr).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("--check: got %v, %q, want nothing", err, out)
	}
	if got := status.Code(getPart(t.Context(), dial(t, r.addr))); got != codes.Unauthenticated {
		t.Errorf("a call: got %v, want Unauthenticated", got)
	}
	r.stop(t)
	fails(t, `no answer from `+r.addr+`: .*`, "--check", "--listen="+r.addr)
}

// A second signal ends a process that drains for too long.
func TestSecondSignal(t *testing.T) {
	key := strings.Repeat("k", 40)
	cmd := command(t, "--listen=127.0.0.1:0", "--drain=1h", "--call-timeout=1h", "--service-key="+key)
	cmd.Env = append(cmd.Env, asProcess+"=hangs")
	r := runCommand(t, cmd)
	conn := dial(t, r.addr)
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	waitHealth(t, watch, healthpb.HealthCheckResponse_SERVING)
	ctx := metadata.AppendToOutgoingContext(t.Context(), authz.ServiceHeader, "scheduling", authz.ServiceKeyHeader, key)
	hangs := inBackground(func() error {
		_, err := invoicingpb.NewPartServiceClient(conn).LookupParts(ctx, &invoicingpb.LookupPartsRequest{})
		return err
	})
	r.await(t, "^hanging")
	r.Process.Signal(syscall.SIGTERM)
	waitHealth(t, watch, healthpb.HealthCheckResponse_NOT_SERVING)
	r.Process.Signal(syscall.SIGTERM)
	r.rest()
	if s := r.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGTERM {
		t.Errorf("got %v, want it to be ended by the signal", r.ProcessState)
	}
	if err := hangs(); err == nil {
		t.Error("the call that hangs went well")
	}
}

// waitHealth waits until a process says how it is.
func waitHealth(t *testing.T, watch healthpb.Health_WatchClient, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	for {
		resp, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetStatus() == want {
			return
		}
	}
}

// Processes that share a folder for their key and start at once have the same one.
func TestServiceKeyRace(t *testing.T) {
	folder := t.TempDir()
	keys := make([]string, 32)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			c := config(t)
			key, err := c.MakeServiceKey(folder)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key != keys[0] || len(key) < 32 {
			t.Fatalf("got the keys %q, want one", keys)
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 1 {
		t.Errorf("the folder holds %v, %v, want the key alone", files, err)
	}
	if info, err := files[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
}
