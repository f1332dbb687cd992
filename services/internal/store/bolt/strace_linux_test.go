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

// effect is what a process did to one of its files, or said that it had done.
type effect struct {
	kind   effectKind
	of     place
	at     int64  // where a write begins; the size of a resize
	data   []byte // of a write
	id     string // of a record that was acknowledged
	thread string // of a sync
}

type effectKind int

const (
	overwrite effectKind = iota
	resize
	rename
	syncing // has begun: what was done before is on the disk when it has ended
	synced
	acknowledgement
)

// place is what an effect is of.
type place int

const (
	theFile place = iota
	theLog
	theFolder
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
	p := &parser{t: t, path: path, begun: map[string]effect{}}
	for line := range strings.Lines(string(text)) {
		p.line(line)
	}
	return p.effects
}

// parser reads the log of strace.
type parser struct {
	t       *testing.T
	path    string
	begun   map[string]effect // by thread: what has not yet ended
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
	if strings.Contains(line, " ???(") { // of a thread that ended before strace saw what it called
		return
	}
	if m := resumed.FindStringSubmatch(line); m != nil {
		if e, ok := p.begun[m[1]]; ok {
			delete(p.begun, m[1])
			p.effects = append(p.effects, e)
		}
		return
	}
	m := begun.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
	if m == nil {
		p.t.Fatalf("a line cannot be read: %.200s", line)
	}
	thread, call, arguments := m[1], m[2], m[3]
	e, ok := p.effect(call, arguments)
	if !ok {
		return
	}
	if e.thread = thread; e.kind == synced {
		e.kind = syncing
		p.effects = append(p.effects, e)
		e.kind = synced
	}
	// What another thread does before it has ended is not after it.
	if strings.HasSuffix(line, "<unfinished ...>\n") {
		p.begun[thread] = e
		return
	}
	p.effects = append(p.effects, e)
}

// effect returns what a call does, if it does something to one of the files.
func (p *parser) effect(call, arguments string) (e effect, ok bool) {
	p.t.Helper()
	if strings.HasPrefix(call, "rename") {
		return effect{kind: rename, of: theFolder}, true
	}
	m := onFile.FindStringSubmatch(arguments)
	if m == nil {
		p.t.Fatalf("a call cannot be read: %s %.200s", call, arguments)
	}
	file, data, rest := string(unescape(m[1])), unescape(m[2]), numbers.FindStringSubmatch(m[3])
	of, ours := map[string]place{
		p.path: theFile, p.path + ".new": theFile, p.path + ".wal": theLog, filepath.Dir(p.path): theFolder,
	}[file]
	switch {
	case call == "write" && !ours:
		id := strings.TrimSpace(string(data))
		return effect{kind: acknowledgement, id: id}, strings.Count(id, "-") == 2
	case call == "pwrite64" && ours:
		return effect{kind: overwrite, of: of, at: digits(rest[2]), data: data}, true
	case call == "ftruncate" && ours:
		return effect{kind: resize, of: of, at: digits(rest[1])}, true
	case strings.HasSuffix(call, "sync") && ours:
		return effect{kind: synced, of: of}, true
	}
	p.t.Fatalf("nobody said what %s does to %s", call, file)
	return effect{}, false
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

func digits(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64) // the pattern is digits
	return n
}
