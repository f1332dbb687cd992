package bolt_test

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"latchkey.dev/services/internal/trial"
)

// effect is what a process did to its file, or said that it had done.
type effect struct {
	kind effectKind
	at   int64  // where a write begins; the size of a resize
	data []byte // of a write
	id   string // of a record that was acknowledged
}

type effectKind int

const (
	overwrite effectKind = iota
	resize
	rename
	synced // has ended: what was done before is on the disk
	acknowledgement
)

// tracer returns the words before a command that let strace see its system calls.
func tracer(tr *trial.Trial, log string, options ...string) []string {
	if out, err := exec.Command("strace", "-f", "-qq", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		tr.Skip("strace: %v %s", err, out)
	}
	return append([]string{"strace", "-f", "-y", "-xx", "-s", "10000000", "-qq", "-e", "signal=none", "-o", log}, options...)
}

// record runs a writer to its end and returns what it did, in order.
func record(t *testing.T, tr *trial.Trial, path string, env []string) []effect {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	calls := "trace=write,pwrite64,ftruncate,fsync,fdatasync,?rename,renameat,renameat2,msync,pwritev,?fallocate"
	w := startWriter(t, path, env, tracer(tr, log, "-e", calls)...)
	w.end()
	if w.cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("the writer failed: %s", w.log.String())
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	p := &parser{t: t, path: path, syncing: map[string]bool{}}
	for line := range strings.Lines(string(text)) {
		p.line(line)
	}
	return p.effects
}

// parser reads the log of strace.
type parser struct {
	t       *testing.T
	path    string
	syncing map[string]bool // threads that are in a sync of the file or of its folder
	effects []effect
}

var (
	begun   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>`)
	onFile  = regexp.MustCompile(`^\d+<([^>]*)>(?:, "([^"]*)")?(.*)$`)
	numbers = regexp.MustCompile(`^, (\d+)(?:, (\d+))?`)
	escape  = regexp.MustCompile(`\\x([0-9a-f]{2})`)
)

func (p *parser) line(line string) {
	p.t.Helper()
	if strings.Contains(line, " = -1 ") {
		p.t.Fatalf("a call failed: %.200s", line)
	}
	if m := resumed.FindStringSubmatch(line); m != nil {
		if p.syncing[m[1]] {
			delete(p.syncing, m[1])
			p.effects = append(p.effects, effect{kind: synced})
		}
		return
	}
	m := begun.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
	if m == nil {
		p.t.Fatalf("a line cannot be read: %.200s", line)
	}
	thread, call, arguments := m[1], m[2], m[3]
	if strings.HasPrefix(call, "rename") {
		p.effects = append(p.effects, effect{kind: rename})
		return
	}
	m = onFile.FindStringSubmatch(arguments)
	if m == nil {
		p.t.Fatalf("a call cannot be read: %.200s", line)
	}
	file, data, rest := string(unescape(m[1])), unescape(m[2]), numbers.FindStringSubmatch(m[3])
	ofFile := file == p.path || file == p.path+".new"
	switch {
	case call == "write" && !ofFile:
		if id := strings.TrimSpace(string(data)); strings.Count(id, "-") == 2 {
			p.effects = append(p.effects, effect{kind: acknowledgement, id: id})
		}
	case call == "pwrite64" && ofFile:
		p.effects = append(p.effects, effect{kind: overwrite, at: number(rest[2]), data: data})
	case call == "ftruncate" && ofFile:
		p.effects = append(p.effects, effect{kind: resize, at: number(rest[1])})
	case strings.HasSuffix(call, "sync") && (ofFile || file == filepath.Dir(p.path)):
		if strings.HasSuffix(line, "<unfinished ...>\n") {
			p.syncing[thread] = true
			return
		}
		p.effects = append(p.effects, effect{kind: synced})
	default:
		p.t.Fatalf("nobody said what %s does to %s", call, file)
	}
}

// unescape returns the bytes of a text that strace wrote.
func unescape(text string) []byte {
	if strings.Count(text, `\x`)*4 == len(text) {
		b, err := hex.DecodeString(strings.ReplaceAll(text, `\x`, ""))
		if err == nil {
			return b
		}
	}
	return []byte(escape.ReplaceAllStringFunc(text, func(s string) string {
		b, _ := hex.DecodeString(s[2:]) // it matches
		return string(b)
	}))
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64) // the pattern is digits
	return n
}
