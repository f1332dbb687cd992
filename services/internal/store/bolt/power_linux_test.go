package bolt_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"latchkey.dev/services/internal/store/bolt"
	"latchkey.dev/services/internal/trial"
)

const diskSize = 256 << 20

// TestPowerCut cuts the power of the disk while a process writes to it, again and again.
func TestPowerCut(t *testing.T) {
	tr := trial.New(t, "power cut", "bolt")
	d := newDisk(t, tr, diskSize)
	cutPower(t, tr, d, trial.Times(20, 200), nil)
}

// TestPowerCutWhileCompacting cuts it while the process compacts the file all the while.
func TestPowerCutWhileCompacting(t *testing.T) {
	tr := trial.New(t, "power cut while compacting", "bolt")
	d := newDisk(t, tr, diskSize)
	cutPower(t, tr, d, trial.Times(10, 100), []string{compactEnv + "=1"})
}

// TestPowerCutWithoutSync is its control.
func TestPowerCutWithoutSync(t *testing.T) {
	tr := trial.Control(t, "power cut without sync", "bolt")
	d := newDisk(t, tr, diskSize)
	cutPower(t, tr, d, trial.Times(3, 20), []string{noSyncEnv + "=1"})
}

func cutPower(t *testing.T, tr *trial.Trial, d *disk, times int, env []string) {
	path := filepath.Join(d.folder, "test.db")
	var acknowledged []string
	for n := range times {
		if n%20 == 0 { // or it takes ever longer to look at all
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			acknowledged = nil
		}
		before := tr.Found()
		w := startWriter(t, path, env)
		w.hear(1 + rand.IntN(60))
		<-time.After(rand.N(20 * time.Millisecond))
		d.cut(moment())
		w.kill()
		d.restart()
		tr.Tried()
		acknowledged = append(acknowledged, w.acknowledged...)
		verify(tr, path, acknowledged, bolt.Options{})
		if tr.Found() > before { // what follows would find the same again
			acknowledged = nil
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// moment chooses what is left of what was not synced: now and then names and sizes of files.
func moment() uint32 {
	if rand.IntN(5) == 0 {
		return logFlushed
	}
	return nothing
}

// TestPowerCutAtCreation cuts the power within the first moments of a file: it is
// whole or not there, and can be used or made.
func TestPowerCutAtCreation(t *testing.T) {
	tr := trial.New(t, "power cut at the first creation", "bolt")
	d := newDisk(t, tr, diskSize)
	path := filepath.Join(d.folder, "folder", "test.db")
	there := 0
	for range trial.Times(20, 200) {
		w := startWriter(t, path, nil)
		<-w.lines // that it begins
		<-time.After(rand.N(50 * time.Millisecond))
		d.cut(moment())
		w.kill()
		d.restart()
		tr.Tried()
		if _, err := os.Stat(path); err == nil {
			there++
		}
		verify(tr, path, w.acknowledged, bolt.Options{})
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	}
	tr.Remark("the file was there after %d", there)
}
