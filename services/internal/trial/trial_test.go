package trial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// judged is a test that remembers whether it failed.
type judged struct {
	*testing.T
	errors   int
	cleanups []func()
}

func (j *judged) Errorf(string, ...any) { j.errors++ }
func (j *judged) Failed() bool          { return j.errors > 0 }
func (j *judged) Cleanup(f func())      { j.cleanups = append(j.cleanups, f) }

func TestLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lines")
	t.Setenv(fileEnv, file)
	for _, c := range []struct {
		begin  func(testing.TB, string, string) *Trial
		run    func(*Trial)
		want   string // without the seconds
		errors int
	}{
		{New, func(tr *Trial) { tr.Tried(); tr.Tried(); tr.Checked(7) }, "kill\tbolt\t2\t7\t0\t0\t", 0},
		{New, func(tr *Trial) { tr.Tried(); tr.Lost("record %d", 1); tr.Wrong("x"); tr.Wrong("y") }, "kill\tbolt\t1\t0\t1\t2\t", 3},
		{Control, func(tr *Trial) { tr.Tried(); tr.Lost("record %d", 1) }, "kill (control)\tbolt\t1\t0\t1\t0\t", 0},
		{Control, func(tr *Trial) { tr.Tried() }, "kill (control)\tbolt\t1\t0\t0\t0\t", 1},
	} {
		os.Remove(file)
		j := &judged{T: t}
		c.run(c.begin(j, "kill", "bolt"))
		for _, f := range j.cleanups {
			f()
		}
		got, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(got), c.want) || strings.Count(string(got), "\n") != 1 {
			t.Errorf("got line %q, %v, want %q", got, err, c.want)
		}
		if j.errors != c.errors {
			t.Errorf("%s: got %d errors, want %d", c.want, j.errors, c.errors)
		}
	}
}
