package bolt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"latchkey.dev/services/internal/store"
)

func noNew(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path + compactSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unfinished file is there: %v", err)
	}
}

// contents returns all pairs.
func contents(t *testing.T, e *Engine) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := e.View(t.Context(), func(s store.Snapshot) error {
		for p, err := range s.Scan([]byte{0}, []byte{0xff}, false) {
			if err != nil {
				return err
			}
			found[string(p.Key)] = string(p.Value)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return found
}

// churner writes and deletes keys of its own, and one that says how often it did, twice.
type churner struct {
	name    string
	random  *rand.Rand
	written map[string]string
}

func (c *churner) step(ctx context.Context, e *Engine, n int) error {
	var writes []store.Write
	changed := map[string]string{}
	for range 1 + c.random.IntN(20) {
		key := fmt.Sprintf("%s-%04d", c.name, c.random.IntN(2000))
		changed[key] = "" // deleted
		if c.random.IntN(3) > 0 {
			changed[key] = strings.Repeat(fmt.Sprint(c.random.Uint64()), 1+c.random.IntN(150))
		}
	}
	for key, value := range changed {
		w := store.Write{Key: []byte(key)}
		if value != "" {
			w.Value = []byte(value)
		}
		writes = append(writes, w)
	}
	count := fmt.Sprint(n)
	for _, key := range []string{"a" + c.name, "z" + c.name} {
		changed[key] = count
		writes = append(writes, store.Write{Key: []byte(key), Value: []byte(count)})
	}
	err := e.Update(ctx, func(store.Snapshot) ([]store.Write, error) { return writes, nil })
	if err != nil {
		return err
	}
	for key, value := range changed {
		if c.written[key] = value; value == "" {
			delete(c.written, key)
		}
	}
	return nil
}

// forever has the churner write, and somebody read, until ctx ends.
func (c *churner) forever(ctx context.Context, t *testing.T, e *Engine, work *sync.WaitGroup) {
	work.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			if err := c.step(t.Context(), e, n); err != nil {
				t.Error(err)
				return
			}
		}
	})
	work.Go(func() {
		for ctx.Err() == nil {
			err := e.View(t.Context(), func(s store.Snapshot) error {
				first, err1 := s.Get([]byte("a" + c.name))
				last, err2 := s.Get([]byte("z" + c.name))
				if string(first) != string(last) {
					t.Errorf("a reader saw %s and %s of one Update", first, last)
				}
				return errors.Join(err1, err2)
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
}

// TestCompact compacts again and again under writers and readers: nothing is lost, what
// was written before is read after, and no reader sees half an Update.
func TestCompact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	churners := make([]*churner, 4)
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for i := range churners {
		churners[i] = &churner{name: fmt.Sprint("c", i), random: rand.New(rand.NewPCG(seed, uint64(i))), written: map[string]string{}}
		churners[i].forever(ctx, t, e, &work)
	}
	for range 6 {
		done, err := e.Compact(t.Context(), nil)
		if err != nil {
			t.Error(err)
		}
		t.Logf("%+v", done)
		noNew(t, path)
	}
	stop()
	work.Wait()
	want := map[string]string{}
	for _, c := range churners {
		maps.Copy(want, c.written)
	}
	for range 2 { // as it is, and after another start
		if got := contents(t, e); !maps.Equal(got, want) {
			t.Errorf("%d pairs are there, and %d were written, or some are old", len(got), len(want))
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if e, err = Open(path, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCompactShrinks fills a file, deletes most of it, and compacts while somebody reads
// what was there before.
func TestCompactShrinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	write := func(value []byte) {
		for i := range 60 {
			if err := e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) {
				return []store.Write{{Key: fmt.Append(nil, "key", i), Value: value}}, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(make([]byte, 1<<20))
	var done store.Compacted
	err = e.View(t.Context(), func(s store.Snapshot) error {
		if b, err := s.Get([]byte("key7")); err != nil || len(b) != 1<<20 {
			t.Errorf("got %d bytes, %v", len(b), err)
		}
		write([]byte{1})
		if done, err = e.Compact(t.Context(), nil); err != nil {
			t.Error(err)
		}
		b, err := s.Get([]byte("key9"))
		if len(b) != 1<<20 {
			t.Errorf("got %d bytes of a snapshot, %v", len(b), err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, e); len(got) != 60 || got["key9"] != "\x01" {
		t.Errorf("got %d pairs", len(got))
	}
	if size, err := fileSize(path); err != nil || size != done.After || done.Before < 60<<20 || done.After > done.Before/3 {
		t.Errorf("got %+v, and %d bytes, %v", done, size, err)
	}
}

// TestCompactGivesUp ends a compaction in its midst: nothing has changed, and nothing of
// it is left.
func TestCompactGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := set(e, "a", "v"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := e.Compact(ctx, func(store.Compacted) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
	noNew(t, path)
	closed := make(chan error, 1)
	_, err = e.Compact(t.Context(), func(store.Compacted) {
		if _, err := e.Compact(t.Context(), nil); err == nil {
			t.Error("two at once")
		}
		if err := set(e, "b", "v"); err != nil {
			t.Error(err)
		}
		go func() { closed <- e.Close() }()
		<-e.closing
	})
	if !errors.Is(err, store.ErrClosed) {
		t.Errorf("got error %v, want ErrClosed", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	noNew(t, path)
	// A process died over it.
	if err := os.WriteFile(path+compactSuffix, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	noNew(t, path)
	if !has(t, e, "a") || !has(t, e, "b") {
		t.Error("something is lost")
	}
}

// TestCompactKeepsTheLock has another process wait for the lock of a file that is replaced
// meanwhile: it must not get the file that was.
func TestCompactKeepsTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	done := make(chan error)
	go func() {
		other, err := Open(path, Options{NoSync: true})
		if err == nil {
			other.Close()
		}
		done <- err
	}()
	for {
		if _, err := e.Compact(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if !errors.Is(err, ErrInUse) {
				t.Errorf("got error %v, want ErrInUse", err)
			}
			return
		default:
		}
	}
}
