// Package trial counts what the tests of faults tried and what they found, and tells it in
// one line each:
//
//	fault, engine, times tried, acknowledged writes checked, lost, wrong, seconds
//
// with tabs between. The lines go to the test's log, and are added to the file that
// LATCHKEY_FAULTS names; .ci/faults makes a table of them.
package trial

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// fileEnv names the file that the lines are added to.
const fileEnv = "LATCHKEY_FAULTS"

// Long asks the tests that are bounded by default for all of it.
var Long = flag.Bool("long", false, "run what takes minutes in full: more kills, more power cuts, more seeds, a million records")

// Times is how often something is done: few times in every run, many in a long one.
func Times(few, many int) int {
	if *Long {
		return many
	}
	return few
}

// Trial is one fault, tried on one engine by one test.
type Trial struct {
	t             testing.TB
	fault, engine string
	control       bool
	start         time.Time

	mu                          sync.Mutex
	tried, checked, lost, wrong int
	remark                      string
}

// New returns a trial that is told of when the test ends.
func New(t testing.TB, fault, engine string) *Trial {
	tr := &Trial{t: t, fault: fault, engine: engine, start: time.Now()}
	t.Cleanup(tr.tell)
	return tr
}

// Control returns a trial of something that is known to be broken: what is lost or wrong
// is no error, and that nothing is found is one.
func Control(t testing.TB, fault, engine string) *Trial {
	tr := New(t, fault, engine)
	tr.control = true
	return tr
}

// Tried counts one more time that the fault was tried.
func (tr *Trial) Tried() { tr.add(&tr.tried, 1) }

// Checked counts acknowledged writes that were looked for.
func (tr *Trial) Checked(n int) { tr.add(&tr.checked, n) }

func (tr *Trial) add(to *int, n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	*to += n
}

// Lost counts an acknowledged write that is not there, and says which.
func (tr *Trial) Lost(format string, args ...any) {
	tr.t.Helper()
	tr.found(&tr.lost, "lost: "+format, args)
}

// Wrong counts anything else that must not be, and says what.
func (tr *Trial) Wrong(format string, args ...any) {
	tr.t.Helper()
	tr.found(&tr.wrong, "wrong: "+format, args)
}

// foundLimit is how much of what was found is said.
const foundLimit = 20

func (tr *Trial) found(to *int, format string, args []any) {
	tr.t.Helper()
	tr.add(to, 1)
	if tr.control {
		return
	}
	if tr.Found() <= foundLimit {
		tr.t.Errorf(tr.fault+" on "+tr.engine+": "+format, args...)
	}
}

// Found returns how much was lost or wrong until now.
func (tr *Trial) Found() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.lost + tr.wrong
}

// Remark sets what stands behind the line's numbers.
func (tr *Trial) Remark(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.remark = fmt.Sprintf(format, args...)
}

// Skip skips the test, and says why in its line.
func (tr *Trial) Skip(format string, args ...any) {
	tr.t.Helper()
	tr.control = false
	tr.Remark("not tried here: "+format, args...)
	tr.t.Skipf(format, args...)
}

func (tr *Trial) tell() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	fault := tr.fault
	if tr.control {
		fault += " (control)"
		if tr.lost+tr.wrong == 0 && !tr.t.Failed() && !tr.t.Skipped() {
			tr.t.Errorf("%s on %s: found nothing in %d tries, so the test would find nothing either", fault, tr.engine, tr.tried)
		}
	}
	line := fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%d\t%.1f", fault, tr.engine, tr.tried, tr.checked, tr.lost, tr.wrong, time.Since(tr.start).Seconds())
	if tr.remark != "" {
		line += "\t" + tr.remark
	}
	tr.t.Log(line)
	if err := write(os.Getenv(fileEnv), line); err != nil {
		tr.t.Errorf("tell of the fault: %v", err)
	}
}

// write adds a line to the file, if there is one. Several processes do so at once.
func write(file, line string) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
