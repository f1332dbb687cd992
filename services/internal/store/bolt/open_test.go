package bolt_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// wantLine fails the test unless err is one line that names the file and has the part.
func wantLine(t interface{ Errorf(string, ...any) }, err error, path, part string) {
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), part) {
		t.Errorf("got error %q, want one line that names %s and tells %q", err, path, part)
	}
}

func mustOpen(t testing.TB, path string, o bolt.Options) *bolt.Engine {
	t.Helper()
	e, err := bolt.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func put(e store.Engine, pairs ...string) error {
	return e.Update(context.Background(), func(store.Snapshot) (writes []store.Write, _ error) {
		for i := 0; i < len(pairs); i += 2 {
			writes = append(writes, store.Write{Key: []byte(pairs[i]), Value: []byte(pairs[i+1])})
		}
		return writes, nil
	})
}

func get(t testing.TB, e store.Engine, key string) (value string) {
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

func TestOpenLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	mustOpen(t, path, bolt.Options{})
	_, err := bolt.Open(path, bolt.Options{})
	wantLine(t, err, path, "another process has it open")
}

func TestOpenFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new", "folder", "test.db")
	e := mustOpen(t, path, bolt.Options{})
	if err := put(e, "a", "1"); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(path + "?*"); err != nil || left != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(file, "test.db")
	_, err := bolt.Open(path, bolt.Options{})
	wantLine(t, err, path, "not a directory")
}

// TestOpenAfterCrash finds what a process left that died while it created the file.
func TestOpenAfterCrash(t *testing.T) {
	good := filled(t)
	lefts := [][]byte{{}, good[:100], good[:8192], bytes.Repeat([]byte("x"), 32768), append(bytes.Clone(good[:8192]), make([]byte, 8192)...)}
	for empty := barely(t); len(empty) > 0; empty = empty[:len(empty)-512] {
		lefts = append(lefts, empty)
	}
	for _, left := range lefts {
		path := filepath.Join(t.TempDir(), "test.db")
		if err := os.WriteFile(path+".new", left, 0o600); err != nil {
			t.Fatal(err)
		}
		e := mustOpen(t, path, bolt.Options{})
		if err := put(e, "a", "1"); err != nil || get(t, e, "a") != "1" {
			t.Errorf("after a crash that left %d bytes: %v", len(left), err)
		}
	}
}

// barely returns the bytes of a file that bbolt has made and nobody has written to.
func barely(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[:4*os.Getpagesize()]
}

func TestOpenUnwritable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db")
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := bolt.Open(path, bolt.Options{})
	wantLine(t, err, path, "permission denied")
}

// TestOpenTogether creates a file many times at the same time: one wins, and what it
// wrote is there whoever opens the file next.
func TestOpenTogether(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			e, err := bolt.Open(path, bolt.Options{})
			if err != nil {
				return // locked, or another was renamed first
			}
			err = e.Update(context.Background(), func(s store.Snapshot) ([]store.Write, error) {
				n, err := s.Get([]byte("n"))
				return []store.Write{{Key: []byte("n"), Value: append(bytes.Clone(n), 'x')}}, err
			})
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	e := mustOpen(t, path, bolt.Options{})
	if n := len(get(t, e, "n")); n < 1 || n > 4 {
		t.Errorf("got %d writes", n)
	}
}

// filled returns the bytes of a file with some pages of data.
func filled(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.db")
	e, err := bolt.Open(path, bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		if err := put(e, k, strings.Repeat(k, 3000), k+k, k); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[:bytes.LastIndexFunc(b, func(r rune) bool { return r != 0 })/4096*4096+4096]
}

func TestOpenDamaged(t *testing.T) {
	good := filled(t)
	page := os.Getpagesize()
	zero := func(from, to int) []byte {
		b := bytes.Clone(good)
		clear(b[from:to])
		return b
	}
	for name, b := range map[string][]byte{
		"empty":            {},
		"text":             []byte("this is no database\n"),
		"long text":        bytes.Repeat([]byte("this is no database\n"), 10000),
		"one page":         good[:page],
		"two pages":        good[:2*page],
		"half":             good[:len(good)/2],
		"without its end":  good[:len(good)-2*page],
		"meta pages empty": zero(0, 2*page),
		"pages empty":      zero(2*page, len(good)),
	} {
		path := filepath.Join(t.TempDir(), "test.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := bolt.Open(path, bolt.Options{})
		if err == nil {
			e.Close()
		}
		if wantLine(t, err, path, "damaged"); t.Failed() {
			t.Fatal(name)
		}
	}
	// Of the two meta pages one is enough.
	for at := range 2 {
		path := filepath.Join(t.TempDir(), "test.db")
		if err := os.WriteFile(path, zero(at*page, (at+1)*page), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := bolt.Open(path, bolt.Options{})
		if err != nil {
			t.Errorf("meta page %d is empty: %v", at, err)
			continue
		}
		e.Close()
	}
}

// TestOpenSpoiled changes bytes where it hurts: opening may fail, and never panics.
func TestOpenSpoiled(t *testing.T) {
	good := filled(t)
	path := filepath.Join(t.TempDir(), "test.db")
	rapid.Check(t, func(t *rapid.T) {
		b := bytes.Clone(good)
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			at := rapid.IntRange(0, len(b)/64).Draw(t, "line")*64 + rapid.IntRange(0, 63).Draw(t, "byte")
			if at < len(b) {
				b[at] = rapid.Byte().Draw(t, "value")
			}
		}
		if err := os.WriteFile(path, b[:rapid.IntRange(1, len(b)).Draw(t, "size")], 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := bolt.Open(path, bolt.Options{NoSync: true})
		if err == nil {
			err = e.Close()
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		wantLine(t, err, path, "damaged")
	})
}
