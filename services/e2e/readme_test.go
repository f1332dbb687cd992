package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.dev/services/demo"
)

// root is the top of the repository, as tests of this package see it.
const root = "../.."

// TestReadmeTour runs the tour of the README as it stands, against a suite that was
// started with --demo.
func TestReadmeTour(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash to run the tour with")
	}
	blocks := tour(t)
	s := newSuite(t, []string{"LATCHKEY_DEMO=true"})
	p := s.newProcess(slices.Concat(names, []string{demo.Part.Name}))
	for _, name := range names {
		s.processes[name] = p
	}
	s.start(p)
	s.ready()
	shell := newShell(t, bash)
	shell.run(block{line: 1, text: strings.Join(printed(t, p), "\n")})
	if got, _ := shell.run(block{line: 1, text: `echo "$LATCHKEY"`}); got != p.addr+"\n" {
		t.Fatalf("the suite at %s says that it is at %s", p.addr, got)
	}
	for i, b := range blocks {
		if b.kind == "text" {
			continue
		}
		out, status := shell.run(b)
		if i+1 < len(blocks) && blocks[i+1].kind == "text" {
			shell.mustPrint(blocks[i+1], out)
		} else {
			shell.mustSucceed(b, out, status)
		}
	}
}

// mustPrint holds what a block of commands printed against the block after it.
func (s *shell) mustPrint(want block, got string) {
	s.t.Helper()
	if !strings.Contains(got, want.text) {
		s.t.Errorf("README.md:%d: the commands before print\n%s\nwant in it\n%s", want.line, got, want.text)
	}
}

var assigned = regexp.MustCompile(`(?m)^(\w+)=`)

// mustSucceed wants every call of a block answered and every variable to hold something.
func (s *shell) mustSucceed(b block, out, status string) {
	s.t.Helper()
	if status != "0" || strings.Contains(out, "ERROR:") || strings.Contains(out, "exit status") {
		s.t.Fatalf("README.md:%d: the commands end with %s and print\n%s", b.line, status, out)
	}
	for _, m := range assigned.FindAllStringSubmatch(b.text, -1) {
		if value, _ := s.run(block{line: b.line, text: `echo "$` + m[1] + `"`}); value == "\n" {
			s.t.Errorf("README.md:%d: %s is empty", b.line, m[1])
		}
	}
}

// printed returns the lines to paste, once the suite has printed them.
func printed(t *testing.T, p *process) []string {
	t.Helper()
	export := regexp.MustCompile(`(?m)^ *export .*$`)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if lines := export.FindAllString(p.log.String(), -1); len(lines) == 4 {
			return lines
		}
	}
	t.Fatalf("the suite does not print what to paste:\n%s", p.log)
	return nil
}

// block is one of the README's blocks of commands, or of what they print.
type block struct {
	kind string // sh or text
	line int
	text string
}

// tour returns the blocks between the README's marks.
func tour(t *testing.T) []block {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	var inTour, inBlock bool
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case line == "<!-- tour -->" || line == "<!-- /tour -->":
			inTour = !inTour
		case !inTour:
		case inBlock && line == "```":
			inBlock = false
		case inBlock:
			blocks[len(blocks)-1].text += line + "\n"
		case strings.HasPrefix(line, "```"):
			inBlock = true
			blocks = append(blocks, block{kind: strings.TrimPrefix(line, "```"), line: i + 2})
		}
	}
	count := map[string]int{}
	for _, b := range blocks {
		count[b.kind]++
	}
	if len(count) != 2 || count["sh"] < 3 || count["text"] < 1 || inTour || inBlock {
		t.Fatalf("the README's tour has %v, want several blocks of sh and some of text, and nothing else", count)
	}
	return blocks
}

// shell is a shell into which a person pastes.
type shell struct {
	t    *testing.T
	in   *os.File
	file *os.File // what out reads
	out  *bufio.Reader
}

func newShell(t *testing.T, bash string) *shell {
	t.Helper()
	in, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	output, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bash)
	cmd.Dir = root
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, out
	err = cmd.Start()
	in.Close()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		cmd.Wait()
		output.Close()
	})
	return &shell{t: t, in: input, file: output, out: bufio.NewReader(output)}
}

// blockTime bounds a block of commands. The first use of grpcurl compiles it.
const blockTime = 3 * time.Minute

// end follows what a block prints, and its status.
const end = "end of block "

// run pastes a block and returns what it printed, and the status that it ended with.
func (s *shell) run(b block) (out, status string) {
	s.t.Helper()
	s.file.SetReadDeadline(time.Now().Add(blockTime))
	fmt.Fprintf(s.in, "%s\necho \"%s$?\"\n", b.text, end)
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("README.md:%d: %v after\n%s", b.line, err, out)
		}
		if status, ok := strings.CutPrefix(line, end); ok {
			return out, strings.TrimSpace(status)
		}
		out += line
	}
}
