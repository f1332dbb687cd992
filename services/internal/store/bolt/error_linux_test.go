package bolt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"latchkey.dev/services/internal/store/bolt"
	"latchkey.dev/services/internal/trial"
)

// TestSyncFails lets each of the first syncs of a process fail, from the creation of its
// file on, as a disk that is about to die does. The process ends, and what it had
// acknowledged is in the file.
func TestSyncFails(t *testing.T) {
	tr := trial.New(t, "EIO from the nth sync", "bolt")
	failCalls(t, tr, "sync", syscall.EIO, trial.Times(50, 500))
}

// TestWriteFails does the same with writes.
func TestWriteFails(t *testing.T) {
	tr := trial.New(t, "EIO from the nth write", "bolt")
	failCalls(t, tr, "write", syscall.EIO, trial.Times(50, 500))
}

func failCalls(t *testing.T, tr *trial.Trial, what string, errno syscall.Errno, times int) {
	dir := t.TempDir()
	unknown, unopened := 0, 0
	for n := 1; n <= times; n++ {
		path := filepath.Join(dir, fmt.Sprint(n, ".db"))
		w := startWriter(t, path, []string{fmt.Sprintf("%s=%s %d %d", failEnv, what, n, int(errno)), limitEnv + "=1000"})
		w.end()
		if w.said[saysUnable] > 0 {
			tr.Skip("%s", w.log.String())
		}
		tr.Tried()
		switch {
		case w.said[saysUnknown] > 0:
			unknown++
		case w.said[saysError] > 0 && len(w.acknowledged) == 0:
			unopened++
		default:
			tr.Wrong("%s %d: the process ended with %d acknowledged:\n%s", what, n, len(w.acknowledged), w.log.String())
		}
		verify(tr, path, w.acknowledged, bolt.Options{NoSync: true})
	}
	tr.Remark("%d were told that an outcome is unknown, %d that the file cannot be opened", unknown, unopened)
}

// TestNoRoomForWrite lets each of the first writes of commits find no room. Nothing was
// changed then, and what is tried again succeeds, in the same process.
func TestNoRoomForWrite(t *testing.T) {
	tr := trial.New(t, "ENOSPC from the nth write", "bolt")
	findNoRoom(t, tr, "write", 12)
}

// TestNoRoomForSync does the same with syncs, as some file systems have it. Is it the
// commit's last, the process ends.
func TestNoRoomForSync(t *testing.T) {
	tr := trial.New(t, "ENOSPC from the nth sync", "bolt")
	findNoRoom(t, tr, "sync", 10)
}

// findNoRoom begins with the first call after those that open the store.
func findNoRoom(t *testing.T, tr *trial.Trial, what string, first int) {
	dir := t.TempDir()
	recovered, unknown := 0, 0
	for n := first; n < first+trial.Times(50, 500); n++ {
		path := filepath.Join(dir, fmt.Sprint(n, ".db"))
		w := startWriter(t, path, []string{
			fmt.Sprintf("%s=%s %d %d", failEnv, what, n, int(syscall.ENOSPC)), fmt.Sprint(limitEnv, "=", 10+2*n), patientEnv + "=1",
		})
		w.end()
		if w.said[saysUnable] > 0 {
			tr.Skip("%s", w.log.String())
		}
		tr.Tried()
		switch {
		case w.said[saysUnknown] > 0 && what == "sync":
			unknown++
		case w.said[saysFull] > 0 && len(w.acknowledged) == (10+2*n)*writers:
			recovered++
		default:
			tr.Wrong("%s %d: the process ended with %d acknowledged:\n%s", what, n, len(w.acknowledged), w.log.String())
		}
		verify(tr, path, w.acknowledged, bolt.Options{NoSync: true})
	}
	tr.Remark("%d times callers were told so and tried again, %d times that the outcome is unknown", recovered, unknown)
}

// TestFullDisk fills a disk under a process, which goes on by itself when there is room.
func TestFullDisk(t *testing.T) {
	tr := trial.New(t, "full disk", "bolt")
	d := newDisk(t, tr, 32<<20)
	path, ballast := filepath.Join(d.folder, "test.db"), filepath.Join(d.folder, "ballast")
	w := startWriter(t, path, []string{patientEnv + "=1"})
	defer w.kill()
	for range trial.Times(3, 20) {
		w.hear(len(w.acknowledged) + 20)
		d.fill(ballast)
		for full := w.said[saysFull]; w.said[saysFull] == full; {
			if w.next() {
				t.Fatalf("the writer ended: %s", w.log.String())
			}
		}
		tr.Tried()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		w.hear(len(w.acknowledged) + 20)
	}
	w.kill()
	verify(tr, path, w.acknowledged, bolt.Options{})
}
