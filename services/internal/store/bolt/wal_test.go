package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// leave copies a file and its log as they are in the middle of things: what a process leaves
// that is killed.
func leave(t testing.TB, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "left.db")
	for _, suffix := range []string{"", ".wal"} {
		b, err := os.ReadFile(path + suffix)
		if suffix != "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+suffix, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// wantValues fails the test unless the file has these values.
func wantValues(t testing.TB, path string, want map[string]string) {
	t.Helper()
	e, err := bolt.Open(path, bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	n := 0
	err = e.View(context.Background(), func(s store.Snapshot) error {
		for p, err := range s.Scan([]byte{0}, []byte{0xff}, false) {
			if err != nil {
				return err
			}
			if n++; want[string(p.Key)] != string(p.Value) {
				t.Errorf("%s is %.20q, want %.20q", p.Key, p.Value, want[string(p.Key)])
			}
		}
		return nil
	})
	if err != nil || n != len(want) {
		t.Errorf("%d values, want %d, %v", n, len(want), err)
	}
}

// TestLog writes, overwrites and deletes while the log changes its halves, with groups that are too
// great for it in between, and opens what is left after each step.
func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e := mustOpen(t, path, bolt.Hurried(bolt.Options{NoSync: true}, 3))
	model := map[string]string{}
	for n := range 40 {
		writes := []store.Write{
			{Key: fmt.Appendf(nil, "new %d", n), Value: []byte(strings.Repeat("x", n*100))},
			{Key: []byte("old"), Value: fmt.Append(nil, n)},
			{Key: fmt.Appendf(nil, "new %d", n/2)},
		}
		if n%13 == 12 {
			writes[0].Value = make([]byte, 9<<20)
		}
		if n%13 == 7 {
			writes[0].Value = make([]byte, 5<<20) // of which not two go into a half
		}
		err := e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) { return writes, nil })
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range writes {
			if w.Value == nil {
				delete(model, string(w.Key))
			} else {
				model[string(w.Key)] = string(w.Value)
			}
		}
		left := leave(t, path)
		wantValues(t, left, model)
		wantValues(t, left, model) // it was closed, and has no log
		if t.Failed() {
			t.Fatalf("after %d updates", n+1)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the log of a file that was closed: %v", err)
	}
	wantValues(t, path, model)
}

// TestLogWhileChecked has a file looked at again and again while it is written to, which needs states with a list of
// free pages of which no record tells.
func TestLogWhileChecked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e := mustOpen(t, path, bolt.Options{NoSync: true})
	want := map[string]string{}
	for n := range 6 {
		key := fmt.Sprint(n)
		if err := put(e, key, "v"); err != nil {
			t.Fatal(err)
		}
		want[key] = "v"
		if _, err := e.Check(t.Context(), func(problem string) { t.Error(problem) }); err != nil {
			t.Fatal(err)
		}
		wantValues(t, leave(t, path), want)
	}
}

// TestLogOfOther puts another file in the place of one that has a log, an older or a newer one: it is
// refused, and neither is changed.
func TestLogOfOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e := mustOpen(t, path, bolt.Options{NoSync: true})
	put3 := func(value string) {
		for _, key := range []string{"a", "b", "c"} {
			if err := put(e, key, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	reopen := func() {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = mustOpen(t, path, bolt.Options{NoSync: true})
	}
	older := leave(t, path)
	put3("old")
	reopen()
	put3("middle")
	left := leave(t, path)
	put3("new")
	reopen()
	put3("newest")
	reopen()
	for _, other := range []string{older, path} { // the newer one stays
		b, err := os.ReadFile(other)
		if err == nil {
			err = os.WriteFile(left, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = bolt.Open(left, bolt.Options{})
		if wantLine(t, err, left+".wal", "does not fit"); t.Failed() {
			t.Fatal(other)
		}
		if now, err := os.ReadFile(left); err != nil || !bytes.Equal(now, b) {
			t.Errorf("with %s: the file was changed, %v", other, err)
		}
	}
	if err := os.Remove(left + ".wal"); err != nil {
		t.Fatal(err)
	}
	wantValues(t, left, map[string]string{"a": "newest", "b": "newest", "c": "newest"})
}

// TestLogOfNarrowFile lets the file outgrow the address space that it began with, which must
// not wait for the pages that are pinned.
func TestLogOfNarrowFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e := mustOpen(t, path, bolt.Narrow(bolt.Hurried(bolt.Options{NoSync: true}, 3), 128<<20))
	want := map[string]string{}
	for n := range 30 {
		key, value := fmt.Sprint(n), strings.Repeat("x", 6<<20)
		if err := put(e, key, value); err != nil {
			t.Fatal(err)
		}
		want[key] = value
	}
	wantValues(t, leave(t, path), want)
}

// TestLogSpoiled changes bytes of a log: what is whole before them counts, and nothing panics.
func TestLogSpoiled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e := mustOpen(t, path, bolt.Hurried(bolt.Options{NoSync: true}, 20))
	for n := range 30 {
		if err := put(e, fmt.Sprintf("%02d", n), strings.Repeat("v", n)); err != nil {
			t.Fatal(err)
		}
	}
	good := leave(t, path)
	file, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(good + ".wal")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := bytes.Clone(log)
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			at := rapid.OneOf(rapid.IntRange(0, 8<<10), rapid.IntRange(8<<20, 8<<20+8<<10)).Draw(t, "at")
			if at < len(b) {
				b[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
			}
		}
		left := filepath.Join(filepath.Dir(good), "spoiled.db")
		err := errors.Join(os.WriteFile(left, file, 0o600), os.WriteFile(left+".wal", b[:rapid.IntRange(0, len(b)).Draw(t, "size")], 0o600))
		if err != nil {
			t.Fatal(err)
		}
		e, err := bolt.Open(left, bolt.Options{NoSync: true})
		if err != nil {
			wantLine(t, err, left, "does not fit")
			return
		}
		defer e.Close()
		err = e.View(context.Background(), func(s store.Snapshot) error {
			n := 0
			for p, err := range s.Scan([]byte{0}, []byte{0xff}, false) {
				if err != nil || string(p.Key) != fmt.Sprintf("%02d", n) || len(p.Value) != n {
					t.Errorf("pair %d is %s, of %d bytes, %v", n, p.Key, len(p.Value), err)
				}
				n++
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
