package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

func openTest(t *testing.T, o Options) *Engine {
	t.Helper()
	e, err := Open(filepath.Join(t.TempDir(), "test.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func one(key, value string) []store.Write {
	return []store.Write{{Key: []byte(key), Value: []byte(value)}}
}

func set(e *Engine, key, value string) error {
	return e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) { return one(key, value), nil })
}

func has(t *testing.T, e *Engine, key string) bool {
	t.Helper()
	return value(t, e, key) != ""
}

// value returns the value of a key, or nothing if there is none.
func value(t *testing.T, e *Engine, key string) (value string) {
	t.Helper()
	err := e.View(context.Background(), func(s store.Snapshot) error {
		b, err := s.Get([]byte(key))
		value = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// commits returns how many transactions bbolt has committed.
func commits(t *testing.T, e *Engine) int {
	t.Helper()
	tx, err := e.file.Load().Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	return tx.ID()
}

func TestGroupCommit(t *testing.T) {
	e := openTest(t, Options{})
	before := commits(t, e)
	const callers, each = 64, 10
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				if err := set(e, fmt.Sprint(c, "-", i), "v"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := commits(t, e) - before; n > callers*each/2 {
		t.Errorf("%d updates took %d commits", callers*each, n)
	} else {
		t.Logf("%d updates took %d commits", callers*each, n)
	}
}

// held runs an Update whose function waits, so that the engine is busy until release.
func held(t *testing.T, e *Engine, key string) (release func()) {
	t.Helper()
	started, go_, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) {
			close(started)
			<-go_
			return one(key, "v"), nil
		})
	}()
	<-started
	return sync.OnceFunc(func() {
		close(go_)
		if err := <-done; err != nil {
			t.Errorf("held update: %v", err)
		}
	})
}

func TestWithdraw(t *testing.T) {
	e := openTest(t, Options{NoSync: true})
	release := held(t, e, "a")
	defer release()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- e.Update(ctx, func(store.Snapshot) ([]store.Write, error) {
			t.Error("a withdrawn update runs")
			return nil, nil
		})
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
}

func TestCloseWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	release := held(t, e, "a")
	closed, refused := make(chan error, 1), make(chan error, 1)
	go func() { refused <- set(e, "b", "v") }() // waits in the line
	go func() { closed <- e.Close() }()
	<-e.closing
	if err := <-refused; !errors.Is(err, store.ErrClosed) {
		t.Errorf("waiting update: got error %v, want ErrClosed", err)
	}
	release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if e, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if !has(t, e, "a") || has(t, e, "b") {
		t.Errorf("update that ran is there: %t, one that was refused: %t", has(t, e, "a"), has(t, e, "b"))
	}
}

func TestGoexitHarmsNobody(t *testing.T) {
	e := openTest(t, Options{NoSync: true})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) {
			runtime.Goexit() // as t.FailNow does
			return nil, nil
		})
	}()
	<-done
	if err := set(e, "a", "v"); err != nil || !has(t, e, "a") {
		t.Errorf("got error %v after a function that ended its goroutine", err)
	}
}

func isDiskFull(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.ReasonName() == "DISK_FULL"
}

// testFull fills the disk, then makes room, and looks what works.
func testFull(t *testing.T, e *Engine, makeRoom func()) {
	t.Helper()
	n := 0
	for ; ; n++ {
		err := set(e, fmt.Sprint("key", n), strings.Repeat("x", 10_000))
		if isDiskFull(err) {
			break
		}
		if err != nil {
			t.Fatalf("got error %v after %d writes, want DISK_FULL", err, n)
		}
	}
	for i := range n + 1 {
		if there := has(t, e, fmt.Sprint("key", i)); there != (i < n) {
			t.Errorf("write %d of %d is there: %t", i, n, there)
		}
	}
	if err := set(e, "big", strings.Repeat("x", 4<<20)); !isDiskFull(err) {
		t.Errorf("got error %v, want DISK_FULL again", err)
	}
	makeRoom()
	if err := set(e, "again", strings.Repeat("x", 100_000)); err != nil || !has(t, e, "again") || !has(t, e, "key0") {
		t.Errorf("got error %v after room was made", err)
	}
}

func TestDiskFull(t *testing.T) {
	e := openTest(t, Options{NoSync: true, MaxBytes: 2 << 20})
	testFull(t, e, func() { e.file.Load().MaxSize = 1 << 30 })
}

// TestDiskFullSeenByOther is of an Update that finds what another wrote just before, and
// answers by it: if the other fails to commit, that answer was never true.
func TestDiskFullSeenByOther(t *testing.T) {
	e := openTest(t, Options{NoSync: true, MaxBytes: 2 << 20})
	seen := errors.New("seen")
	done := make(chan error, 1)
	err := e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) {
		go func() {
			done <- e.Update(context.Background(), func(s store.Snapshot) ([]store.Write, error) {
				if b, err := s.Get([]byte("big")); err != nil || b != nil {
					return nil, seen
				}
				return nil, nil
			})
		}()
		for range 1000 {
			runtime.Gosched()
		}
		return one("big", strings.Repeat("x", 4<<20)), nil
	})
	if !isDiskFull(err) {
		t.Errorf("got error %v, want DISK_FULL", err)
	}
	if err := <-done; errors.Is(err, seen) {
		t.Error("an update saw what never happened")
	}
}

func TestBroken(t *testing.T) {
	var file *os.File
	e := openTest(t, Options{openFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
		f, err = os.OpenFile(name, flag, mode)
		file = f
		return f, err
	}})
	if err := set(e, "a", "v"); err != nil {
		t.Fatal(err)
	}
	other := make(chan error, 1)
	err := e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) {
		go func() { other <- set(e, "c", "v") }()
		return one("b", "v"), file.Close() // the disk is gone
	})
	for _, err := range []error{err, <-other, set(e, "d", "v")} {
		if !errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("update: got error %v, want ErrUnknownOutcome", err)
		}
	}
	err = e.View(context.Background(), func(store.Snapshot) error { return nil })
	if !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("view: got error %v, want ErrUnknownOutcome", err)
	}
	_ = e.Close() // says that the file is closed
}

func TestTooBig(t *testing.T) {
	e := openTest(t, Options{NoSync: true})
	for _, key := range []string{"", strings.Repeat("k", 40_000)} {
		err := e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) {
			return append(one("a", "v"), one(key, "v")...), nil
		})
		if err == nil || has(t, e, "a") {
			t.Errorf("key of %d bytes: got error %v, part of the update is there: %t", len(key), err, has(t, e, "a"))
		}
	}
	if err := set(e, "b", "v"); err != nil {
		t.Error(err)
	}
}
