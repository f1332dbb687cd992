package e2e

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// moved is a company in a file, which is imported.
type moved struct {
	*demo.Company
	file       string
	properties string
}

func exported(t *testing.T) *moved {
	t.Helper()
	s := one(t)
	c := s.fill()
	m := &moved{c, filepath.Join(t.TempDir(), "company.export"), s.properties(c)}
	s.must("export", c.Organization, m.file)
	s.stop()
	return m
}

// destinations runs a test of imports into files and into a database, with the arguments that
// name it.
func destinations(t *testing.T, test func(t *testing.T, there *suite, args ...string)) {
	t.Run("files", func(t *testing.T) { test(t, one(t)) })
	t.Run("a database", func(t *testing.T) {
		database := postgrestest.Database(t)
		test(t, one(t, inDatabaseAt(t, database)...), "--store="+database, "--blobs=file://"+t.TempDir())
	})
}

// isThereOnce wants the company to be there, and nothing to be wrong.
func (m *moved) isThereOnce(there *suite, args []string) {
	there.t.Helper()
	if !there.nobodyOrAll(m.Company, m.properties) {
		there.t.Error("nobody of the company can sign in")
	}
	if len(args) > 0 {
		args = args[:1] // --store
	}
	if out := there.must(append([]string{"verify"}, args...)...); !strings.Contains(out, "0 problems in ") {
		there.t.Error(out)
	}
}

// turnedAway are what a call of import may say that another one was before.
var turnedAway = []string{"is bringing the organization at the moment", "has taken the organization over", "is there already", "or is done"}

func wasTurnedAway(out string) bool {
	for _, text := range turnedAway {
		if strings.Contains(out, text) {
			return true
		}
	}
	return false
}

// TestTwoImports imports an organization twice at once. One call brings it, and the other
// is told so.
func TestTwoImports(t *testing.T) {
	m := exported(t)
	destinations(t, func(t *testing.T, there *suite, args ...string) {
		there.claim()
		var calls [2]*exec.Cmd
		var out [2]bytes.Buffer
		for i := range calls {
			calls[i] = there.command(append([]string{"import", "--brand=Tamarisk"}, append(args, m.file)...)...)
			calls[i].Stdout, calls[i].Stderr = &out[i], &out[i]
			if err := calls[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		first, second := calls[0].Wait() == nil, calls[1].Wait() == nil
		if first == second || !first && !wasTurnedAway(out[0].String()) || !second && !wasTurnedAway(out[1].String()) {
			t.Errorf("the calls succeed: %v and %v; they print\n%s\n%s", first, second, &out[0], &out[1])
		}
		m.isThereOnce(there, args)
	})
}

// TestFrozenImport freezes a call of import at a moment chosen at random, for so long that
// another one takes it for dead and brings the organization. When it goes on, it changes nothing,
// whether it is told why or finds that its time to reach the database is over.
func TestFrozenImport(t *testing.T) {
	m := exported(t)
	destinations(t, func(t *testing.T, there *suite, args ...string) {
		there.claim()
		args = append([]string{"import", "--brand=Tamarisk"}, args...)
		frozen := there.command(append(args, m.file)...)
		said, err := frozen.StderrPipe()
		if err == nil {
			err = frozen.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(said)
		line, err := lines.ReadString('\n') // it has begun
		if err != nil {
			t.Fatalf("it prints %q: %v", line, err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
		if err := frozen.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		code, out := there.does(append(args, m.file)...)
		if code != 0 && !strings.Contains(out, "is there already") {
			t.Errorf("the second call ends with %d and prints %s", code, out)
		}
		m.isThereOnce(there, args[2:])
		if err := frozen.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(lines) // to its end
		told := wasTurnedAway(string(rest)) || strings.Contains(string(rest), "cannot be reached: try again")
		if err := frozen.Wait(); err != nil && !told || err == nil && code == 0 {
			t.Errorf("the frozen call ends with %v and prints %s", err, rest)
		}
		m.isThereOnce(there, args[2:])
	})
}

// TestImportOfAnother has somebody else be at work on an import, who says so again and again,
// until he dies.
func TestImportOfAnother(t *testing.T) {
	m := exported(t)
	key := strings.Repeat("k", 40)
	there := one(t, "LATCHKEY_SERVICE_KEY="+key)
	t.Setenv("LATCHKEY_SERVICE_KEY", key)
	there.claim()
	ctx := metadata.AppendToOutgoingContext(t.Context(), authz.ServiceHeader, "latchkey", authz.ServiceKeyHeader, key)
	step := func(step operatorpb.ImportStep, claim int64) (*operatorpb.ImportOrganizationResponse, error) {
		stream, err := operatorpb.NewOperatorServiceClient(there.conn("identity")).ImportOrganization(ctx)
		if err == nil {
			err = stream.Send(&operatorpb.ImportOrganizationRequest{Kind: &operatorpb.ImportOrganizationRequest_Begin{Begin: &operatorpb.ImportBegin{
				Service: "identity", Step: step, Organization: m.Organization, Checksum: make([]byte, 32), Claim: claim,
			}}})
		}
		if err != nil {
			return nil, err
		}
		return stream.CloseAndRecv()
	}
	held, err := step(operatorpb.ImportStep_IMPORT_STEP_CLAIM, 0)
	if err != nil || !held.GetClaimed() {
		t.Fatalf("claiming it: got %v, %v", held, err)
	}
	alive, die := context.WithCancel(ctx)
	dead := make(chan error)
	go func() {
		var err error
		for err == nil && alive.Err() == nil {
			_, err = step(operatorpb.ImportStep_IMPORT_STEP_BEAT, held.GetClaim())
		}
		dead <- err
	}()
	if code, out := there.does("import", "--brand=Tamarisk", m.file); code != 1 || !strings.Contains(out, turnedAway[0]) {
		t.Errorf("importing beside somebody who is at work ends with %d and prints %s", code, out)
	}
	die()
	if err := <-dead; err != nil {
		t.Fatal(err)
	}
	there.must("import", "--brand=Tamarisk", m.file)
	m.isThereOnce(there, nil)
	if _, err := step(operatorpb.ImportStep_IMPORT_STEP_BEAT, held.GetClaim()); err == nil {
		t.Error("who was taken for dead is not told")
	}
}

// TestImportAfterErasure closes an organization, and when it was erased for good brings it
// back from an export: in place of what it has left, and only while the services do not run.
func TestImportAfterErasure(t *testing.T) {
	config := servertest.Config(t)
	config.BootstrapCode, config.ServiceKey = code, strings.Repeat("k", 40)
	t.Setenv("LATCHKEY_SERVICE_KEY", config.ServiceKey)
	s := newSuite(t, nil)
	s.folder = strings.TrimPrefix(config.Store, "bolt:")
	run := func(now func() time.Time) (stop func()) {
		p, _ := inProcess(t, config, now)
		for _, name := range names {
			s.processes[name] = &process{suite: s, addr: p.Addr()}
		}
		return p.Stop
	}
	stop := run(time.Now)
	c := s.fill()
	attachPhoto(t, s.conn("servicerequest"), c)
	n := s.addNeighbour(c)
	want := s.properties(c)
	file := filepath.Join(t.TempDir(), "company.export")
	s.must("export", "--with-blobs", c.Organization, file)
	if _, err := identitypb.NewOrganizationServiceClient(s).DeleteOrganization(n.ctx, &identitypb.DeleteOrganizationRequest{Id: c.Organization}); err != nil {
		t.Fatal(err)
	}
	stop()

	later := func() time.Time { return time.Now().Add(29 * 24 * time.Hour) }
	stop = run(later)
	left := []string{""}
	for deadline := time.Now().Add(time.Minute); len(left) > 0 && time.Now().Before(deadline); time.Sleep(10 * pace) {
		left = rowsOf(t, s.conn("identity"), config.ServiceKey, c.Organization)
	}
	if len(left) > 0 {
		t.Fatalf("%d rows are left, such as %q", len(left), left[0])
	}
	if s.nobodyOrAll(c, want) {
		t.Fatal("somebody signs in at an organization that was erased")
	}
	if code, out := s.does("import", "--brand=Harbour Lane", file); code != 1 || !strings.Contains(out, "only while the services do not run") {
		t.Errorf("importing over what it has left, while the services run, ends with %d and prints %s", code, out)
	}
	stop()
	out := s.must("import", "--brand=Harbour Lane", file)
	if !strings.Contains(out, "1 who were here, 1 blobs") { // its owner, who has the other company, too
		t.Errorf("the import prints %s", out)
	}
	if out := s.must("verify"); !strings.Contains(out, "0 problems in ") {
		t.Error(out)
	}
	stop = run(later)
	defer stop()
	if !s.nobodyOrAll(c, want) {
		t.Error("nobody can sign in after the import")
	}
	if len(rowsOf(t, s.conn("identity"), config.ServiceKey, c.Organization)) < 100 || photos(t, s.folder) != 1 {
		t.Error("not all of it has come back")
	}
}
