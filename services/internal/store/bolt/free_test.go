package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// unlisted returns a file whose newest state has no list of its free pages, and what is in it.
func unlisted(t *testing.T) (file []byte, want map[string]string) {
	t.Helper()
	e := openTest(t, Options{NoSync: true})
	want = map[string]string{}
	for n := range 50 {
		key, value := fmt.Sprintf("%02d", n%40), strings.Repeat("v", 1+n*200)
		if err := set(e, key, value); err != nil {
			t.Fatal(err)
		}
		want[key] = value
	}
	file, err := os.ReadFile(e.path)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, e.path, false)
	return file, want
}

// wantList fails the test unless the newest state of a file has, or has not, a list of free pages.
func wantList(t *testing.T, path string, want bool) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if m, ok := newest(f); !ok || (m.Freelist != noFreelist) != want {
		t.Errorf("a list of free pages: %t, want %t", !want, want)
	}
}

// TestUnlisted opens a file without a list of its free pages, which is what a full disk can leave. A file
// that was closed has one.
func TestUnlisted(t *testing.T) {
	b, want := unlisted(t)
	path := filepath.Join(t.TempDir(), "test.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for key, v := range want {
		if got := value(t, e, key); got != v {
			t.Errorf("%s has %d bytes, want %d", key, len(got), len(v))
		}
	}
	if err := errors.Join(set(e, "new", "v"), e.Close()); err != nil {
		t.Fatal(err)
	}
	wantList(t, path, true)
}

// TestUnlistedSpoiled changes bytes of such a file: opening may fail, and never panics.
func TestUnlistedSpoiled(t *testing.T) {
	good, _ := unlisted(t)
	path := filepath.Join(t.TempDir(), "test.db")
	rapid.Check(t, func(t *rapid.T) {
		b := append([]byte{}, good...)
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			page := rapid.IntRange(0, len(b)/os.Getpagesize()-1).Draw(t, "page") * os.Getpagesize()
			b[page+rapid.IntRange(0, 255).Draw(t, "byte")] = rapid.Byte().Draw(t, "value")
		}
		if err := os.WriteFile(path, b[:rapid.IntRange(1, len(b)).Draw(t, "size")], 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := Open(path, Options{NoSync: true})
		if err == nil {
			err = e.Close()
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		// Where what is left of it has no bucket nobody can tell that it ever had one.
		if said, ok := strings.CutPrefix(err.Error(), "open "+path+": "); !ok || !strings.HasPrefix(said, "file is damaged: ") && said != "file is of another program" {
			t.Error(err)
		}
	})
}

// TestFullWithoutRoomForList fills the disk until there is no room for a list of free pages either: what is in
// the file is found after a crash then, and as soon as there is room there is a list.
func TestFullWithoutRoomForList(t *testing.T) {
	e := openTest(t, Options{NoSync: true, MaxBytes: 256 << 10})
	want := map[string]string{}
	for n, full := 0, false; !full || e.log.listed; n++ {
		if n > 10_000 {
			t.Fatal("there was always room for a list")
		}
		key, value := fmt.Sprint("key", n), strings.Repeat("x", 10+n*37%3000)
		err := set(e, key, value)
		if full = isDiskFull(err); err == nil {
			want[key] = value
		} else if !full {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(e.path)
	left := filepath.Join(t.TempDir(), "left.db")
	if err == nil {
		err = os.WriteFile(left, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, left, false)
	again, err := Open(left, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	e.file.Load().MaxSize = 1 << 30
	for _, e := range []*Engine{e, again} {
		for key, v := range want {
			if value(t, e, key) != v {
				t.Errorf("%s is not as it was", key)
			}
		}
		if err := set(e, "again", "v"); err != nil {
			t.Error(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	wantList(t, e.path, true)
}
