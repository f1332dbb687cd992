package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey.dev/services/internal/trial"
)

// TestKilledCommands kills backup and restore at moments chosen at random: what they were
// to make is there and whole, or it is not there.
func TestKilledCommands(t *testing.T) {
	tr := trial.New(t, "kill -9 of backup and restore", "bolt")
	s := one(t)
	s.fill()
	s.stop()
	for i := range times(5, 200) {
		tr.Tried()
		file, folder := filepath.Join(t.TempDir(), "a.backup"), filepath.Join(t.TempDir(), "restored")
		s.killed("backup", file)
		if _, err := os.Stat(file); err != nil {
			s.must("backup", file)
		}
		s.must("verify", "--quick", file)
		s.killed("restore", file, "--store=bolt:"+folder)
		if _, err := os.Stat(folder); err != nil {
			s.must("restore", file, "--store=bolt:"+folder)
		}
		if out := s.must("verify", "--store=bolt:"+folder); !strings.Contains(out, "0 problems in ") {
			tr.Wrong("run %d: what was restored: %s", i, out)
		}
	}
}

// killed starts a command and kills it within the time that it takes.
func (s *suite) killed(args ...string) {
	s.t.Helper()
	cmd := s.command(args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-time.After(time.Duration(rand.Int64N(int64(300 * time.Millisecond)))):
	case <-s.t.Context().Done():
	}
	cmd.Process.Kill() // if it has ended, so much the better
	cmd.Wait()
}
