package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
)

// TestOperations runs the commands of the page for operators as they stand, in an empty
// folder, beside a suite that runs.
func TestOperations(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash to run the commands with")
	}
	s := one(t)
	s.fill()
	shell := newShell(t, bash)
	env := `export LATCHKEY_STORE=bolt:` + s.folder + ` LATCHKEY_LISTEN=` + s.processes[names[0]].addr
	shell.run(block{text: env + "\ncd " + t.TempDir() + "\nlatchkey() { " + partsEnv + "=" + strings.Join(names, ",") + " " + os.Args[0] + ` "$@"; }`})
	shell.run(block{text: "set -o pipefail"})
	for _, b := range commandsOf(t, "docs/operations.md") {
		if out, status := shell.run(block{line: b.line, text: "( set -e; " + b.text + ")"}); status != "0" {
			t.Fatalf("docs/operations.md:%d: the commands end with %s and print\n%s", b.line, status, out)
		}
	}
}

// commandsOf returns the blocks of commands of a page for operators.
func commandsOf(t *testing.T, page string) (blocks []block) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	rest, line := string(data), 1
	for {
		before, after, ok := strings.Cut(rest, "```sh\n")
		if !ok {
			break
		}
		text, next, _ := strings.Cut(after, "```\n")
		line += strings.Count(before, "\n") + 1
		blocks = append(blocks, block{kind: "sh", line: line, text: text})
		line += strings.Count(text, "\n") + 1
		rest = next
	}
	if len(blocks) < 5 {
		t.Fatalf("%s has %d blocks of commands, want at least 5", page, len(blocks))
	}
	return blocks
}

// command returns a call of the suite's program that is yet to be started.
func (s *suite) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), partsEnv+"="+strings.Join(names, ","),
		"LATCHKEY_STORE=bolt:"+s.folder, "LATCHKEY_LISTEN="+s.processes[names[0]].addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// does runs a command of the program and returns its exit code and what it printed.
func (s *suite) does(args ...string) (code int, out string) {
	s.t.Helper()
	var b bytes.Buffer
	cmd := s.command(args...)
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), b.String()
}

// must runs a command that has to succeed.
func (s *suite) must(args ...string) string {
	s.t.Helper()
	code, out := s.does(args...)
	if code != 0 {
		s.t.Fatalf("%q ends with %d and prints\n%s", args, code, out)
	}
	return out
}

// TestCopyThere copies a suite from files into a database and back, and finds the same
// company with its people in each.
func TestCopyThere(t *testing.T) {
	database := postgrestest.Database(t)
	s := one(t)
	company := s.fill()
	want := s.properties(company)
	s.stop()
	back := filepath.Join(t.TempDir(), "back")
	for _, args := range [][]string{
		{"backup", filepath.Join(t.TempDir(), "nothing")}, {"verify"}, {"export", company.Organization, filepath.Join(t.TempDir(), "nobody")},
	} {
		for range 2 { // the first makes nothing that the second finds
			if code, out := s.does(append(args, "--store="+database)...); code != 1 || !strings.Contains(out, "there is no store of identity in the database (--store says where it is)") {
				t.Errorf("%s over a database without a store ends with %d and prints %s", args[0], code, out)
			}
		}
	}
	s.must("copy", "--to="+database)
	if code, out := s.does("copy", "--to="+database); code != 1 || !strings.Contains(out, "never overwritten") {
		t.Errorf("copying over a copy ends with %d and prints %s", code, out)
	}
	s.must("verify", "--store="+database)
	s.must("copy", "--store="+database, "--to=bolt:"+back)
	s.must("verify", "--store=bolt:"+back)
	s.folder = back
	s.again()
	if got := s.properties(company); got != want {
		t.Errorf("after the copy there and back: got properties %s\nwant %s", got, want)
	}
}

// properties returns the properties of a company, as its manager sees them.
func (s *suite) properties(c *demo.Company) string {
	s.t.Helper()
	resp, err := servicerequestpb.NewPropertyServiceClient(s).ListProperties(c.As(s.t.Context(), "PM"), &servicerequestpb.ListPropertiesRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(resp.GetProperties()) == 0 {
		s.t.Fatal("the company has no properties")
	}
	var all []string
	for _, p := range resp.GetProperties() {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%x", b))
	}
	return strings.Join(all, " ")
}

// TestFollow has a continuous backup follow a suite, and starts another one from it.
func TestFollow(t *testing.T) {
	t.Run("in the open", func(t *testing.T) { follows(t, one(t), nil, nil) })
	t.Run("encrypted", func(t *testing.T) {
		s, key := one(t), filepath.Join(t.TempDir(), "key")
		recipient := strings.TrimSpace(s.must("keygen", key))
		follows(t, s, []string{"--recipient=" + recipient}, []string{"--identity-file=" + key})
	})
}

// follows has a backup written and read with further flags.
func follows(t *testing.T, s *suite, writing, reading []string) {
	t.Helper()
	company := s.fill()
	folder := filepath.Join(t.TempDir(), "continuous")
	call := s.followInto(t, append(writing, folder)...)
	is := func(suffix string) func() bool { return func() bool { return named(namesIn(t, folder), suffix) > 0 } }
	call.await("backup", is(".backup"))
	s.renames(company, "House of the first segment")
	call.await("segment", is(".segment"))
	s.renames(company, "House of the last segment")
	want := s.properties(company)
	call.stop()
	if code, _ := s.does("verify", folder); (code == 0) != (len(reading) == 0) {
		t.Errorf("verifying it without a key ends with %d", code)
	}
	s.must(append([]string{"verify", folder}, reading...)...)
	restored := filepath.Join(t.TempDir(), "restored")
	s.must(append([]string{"restore", folder, "--store=bolt:" + restored}, reading...)...)
	s.stop()
	s.folder = restored
	s.again()
	if got := s.properties(company); got != want {
		t.Errorf("got properties %s\nwant %s", got, want)
	}
}
