package bolt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
	"latchkey.dev/services/internal/trial"
)

// What a child of these tests is told by its environment.
const (
	writeEnv   = "LATCHKEY_TEST_WRITE_TO" // path of the file that it writes to until it is killed
	noSyncEnv  = "LATCHKEY_TEST_NO_SYNC"  // not to sync: for controls
	limitEnv   = "LATCHKEY_TEST_WRITES"   // how much each of its callers writes; if empty, without end
	failEnv    = "LATCHKEY_TEST_FAIL"     // which of its system calls fails, and with what: "sync 3 5" is the third, with EIO
	patientEnv = "LATCHKEY_TEST_PATIENT"  // to try again what the disk had no room for
	recordsEnv = "LATCHKEY_TEST_RECORDS"  // how many records a half of the log has
	compactEnv = "LATCHKEY_TEST_COMPACT"  // to compact the file all the while
)

func TestMain(m *testing.M) {
	if path := os.Getenv(writeEnv); path != "" {
		write(path)
	}
	goleak.VerifyTestMain(m)
}

var (
	samples  = store.NewCollection("sample", (*storepb.Sample).GetId)
	byNumber = samples.Unique("number", func(v *storepb.Sample) store.Key { return store.Key{v.GetNumber()} })
	byGroup  = samples.Index("group", func(v *storepb.Sample) store.Key { return store.Key{v.GetGroup(), v.GetRank()} })
	schema   = store.NewSchema(samples)
	tenant   = store.WithOrigin(context.Background(), store.Origin{Tenant: "acme", Caller: "ann", Method: "x.S/M"})
)

func open(path string, o bolt.Options) (*store.DB, error) {
	e, err := bolt.Open(path, o)
	if err != nil {
		return nil, err
	}
	return store.Open(tenant, e, schema, store.Config{Now: time.Now})
}

// create stores a new record under a request id of the same name.
func create(db *store.DB, id string, rank int) error {
	_, err := store.Do(tenant, db, &storepb.SaveSampleRequest{RequestId: id}, func(tx *store.Tx) (*storepb.Sample, error) {
		v := &storepb.Sample{Id: id, Number: id, Group: "g", Rank: int64(rank)}
		tx.Emit(v)
		return v, samples.Put(tx, v)
	})
	return err
}

// What the child says on standard output: that it begins to open its file, the id of each
// record when it is stored, and what it was told instead.
const (
	saysOpening = "opening"
	saysUnknown = "unknown"
	saysError   = "error"
	saysFull    = "full"
	saysUnable  = "unable" // to make system calls fail

	saysCompacted = "compacted"
)

const writers = 8

// write is the child.
func write(path string) {
	if text := os.Getenv(failEnv); text != "" {
		failCall(text)
	}
	say(saysOpening)
	o := bolt.Options{NoSync: os.Getenv(noSyncEnv) != ""}
	if text := os.Getenv(recordsEnv); text != "" {
		o = bolt.Hurried(o, number(text))
	}
	db, err := open(path, o)
	if err != nil {
		give(err)
	}
	limit := 1 << 30
	if text := os.Getenv(limitEnv); text != "" {
		limit = number(text)
	}
	if os.Getenv(compactEnv) != "" {
		go func() {
			for {
				if _, err := db.CompactFile(tenant, nil); err != nil {
					give(err)
				}
				say(saysCompacted)
			}
		}()
	}
	var wg sync.WaitGroup
	for c := range writers {
		wg.Go(func() {
			for i := range limit {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), c, i)
				err := create(db, id, i)
				for os.Getenv(patientEnv) != "" && isFull(err) {
					say(saysFull)
					time.Sleep(time.Millisecond)
					err = create(db, id, i)
				}
				if err != nil {
					give(err)
				}
				say(id)
			}
		})
	}
	wg.Wait()
	if err := db.Close(); err != nil {
		give(err)
	}
	os.Exit(0)
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		give(err)
	}
	return n
}

func failCall(text string) {
	var (
		what  string
		n     int
		errno syscall.Errno
	)
	_, err := fmt.Sscan(text, &what, &n, &errno)
	if err == nil {
		err = trial.FailCall(what, n, errno)
	}
	if err != nil {
		say(saysUnable)
		give(err)
	}
}

func isFull(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.ReasonName() == "DISK_FULL"
}

func say(line string) { os.Stdout.WriteString(line + "\n") }

// give ends the child as a server ends itself after a commit that may have failed.
func give(err error) {
	if errors.Is(err, store.ErrUnknownOutcome) {
		say(saysUnknown)
	} else {
		say(saysError)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// writer is a child that writes to a file.
type writer struct {
	t     testing.TB
	cmd   *exec.Cmd
	lines chan string // closed when it has ended
	log   strings.Builder

	acknowledged []string
	said         map[string]int // how often it said something else
}

// startWriter starts a child, by way of another program if its words come before.
func startWriter(t testing.TB, path string, env []string, before ...string) *writer {
	t.Helper()
	if testing.Short() {
		t.Skip("what a child does is not shortened")
	}
	words := append(before, os.Args[0])
	w := &writer{t: t, cmd: exec.Command(words[0], words[1:]...), lines: make(chan string, 1<<16), said: map[string]int{}}
	w.cmd.Env = append(append(os.Environ(), writeEnv+"="+path), env...)
	w.cmd.Stderr = &w.log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.lines <- lines.Text()
		}
	}()
	return w
}

// next hears what the child says, until it has ended.
func (w *writer) next() (ended bool) {
	line, ok := <-w.lines
	if strings.Contains(line, "-") {
		w.acknowledged = append(w.acknowledged, line)
	} else {
		w.said[line]++
	}
	return !ok
}

// hear waits until so many writes were acknowledged.
func (w *writer) hear(writes int) {
	w.t.Helper()
	for len(w.acknowledged) < writes {
		if w.next() {
			_ = w.cmd.Wait() // the log says it
			w.t.Fatalf("the writer ended after %d writes:\n%s", len(w.acknowledged), w.log.String())
		}
	}
}

// end hears the rest and waits for the child.
func (w *writer) end() {
	for !w.next() {
	}
	_ = w.cmd.Wait() // it was killed, or said what failed
}

// kill ends the child at once.
func (w *writer) kill() {
	w.t.Helper()
	if err := w.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		w.t.Fatal(err)
	}
	w.end()
}

// TestKill kills a process in the middle of its writes, again and again over one file.
func TestKill(t *testing.T) {
	tr := trial.New(t, "kill -9 of a writer", "bolt")
	path := filepath.Join(t.TempDir(), "test.db")
	var acknowledged []string
	for round := range trial.Times(5, 50) {
		w := startWriter(t, path, nil)
		w.hear(50 + 10*round)
		w.kill()
		acknowledged = append(acknowledged, w.acknowledged...)
		tr.Tried()
		verify(tr, path, acknowledged, bolt.Options{})
	}
}

// TestKillWhileCompacting kills a process that compacts its file all the while.
func TestKillWhileCompacting(t *testing.T) {
	tr := trial.New(t, "kill -9 while compacting", "bolt")
	path := filepath.Join(t.TempDir(), "test.db")
	var acknowledged []string
	compacted := 0
	for range trial.Times(5, 50) {
		w := startWriter(t, path, []string{compactEnv + "=1"})
		w.hear(1 + rand.IntN(60))
		w.kill()
		acknowledged = append(acknowledged, w.acknowledged...)
		compacted += w.said[saysCompacted]
		tr.Tried()
		verify(tr, path, acknowledged, bolt.Options{})
	}
	tr.Remark("%d compactions had ended", compacted)
}

// verify opens a file and looks whether it is whole and holds what was acknowledged.
func verify(tr *trial.Trial, path string, acknowledged []string, o bolt.Options) {
	db, err := open(path, o)
	if err != nil {
		tr.Wrong("open: %v", err)
		return
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil { // bbolt's, at a page that is none
			tr.Wrong("panic: %v", p)
		}
	}()
	defer db.Close()
	verifyStore(tr, db, acknowledged)
}

func verifyStore(tr *trial.Trial, db *store.DB, acknowledged []string) {
	if err := errors.Join(db.VerifyJournal(tenant, "acme"), db.VerifyRecords(tenant, "acme")); err != nil {
		tr.Wrong("%v", err)
	}
	tr.Checked(len(acknowledged))
	// A repeat, as after a lost connection, changes nothing.
	for _, id := range acknowledged[max(0, len(acknowledged)-10):] {
		if err := create(db, id, 0); err != nil {
			tr.Wrong("repeat %s: %v", id, err)
		}
	}
	for len(acknowledged) > 0 {
		n := min(len(acknowledged), 1000) // a read has a second
		if err := db.View(tenant, func(tx *store.Tx) error { return look(tr, tx, acknowledged[:n]) }); err != nil {
			tr.Wrong("read: %v", err)
		}
		acknowledged = acknowledged[n:]
	}
	var records, revision int
	err := db.View(tenant, func(tx *store.Tx) error {
		records, revision = samples.Count(tx, samples.Range()), int(tx.Revision())
		if indexed := byGroup.Count(tx, byGroup.Range("g")); records != revision || indexed != records {
			tr.Wrong("%d records and %d entries of an index at revision %d", records, indexed, revision)
		}
		return nil
	})
	if err != nil {
		tr.Wrong("count: %v", err)
	}
	if events, err := db.Events(tenant, "acme", 0, 1<<30); err != nil || len(events) != records {
		tr.Wrong("%d events of %d records, %v", len(events), records, err)
	}
}

// look finds the records, by their ids and by their numbers.
func look(tr *trial.Trial, tx *store.Tx, ids []string) error {
	for _, id := range ids {
		if v, ok := samples.Get(tx, id); !ok || v.GetId() != id {
			tr.Lost("%s", id)
		} else if v, ok := byNumber.First(tx, id); !ok || v.GetId() != id {
			tr.Wrong("%s is not in the index", id)
		}
	}
	return nil
}
