package bolt_test

import (
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey.dev/services/internal/store/bolt"
)

var newGolden = flag.String("golden", "", "`name` of a file and its log to write: see .ci/golden")

// golden is where a file and its log stay of each version of the format, as a process left them that was
// killed, to be opened by all later ones.
const golden = "testdata/golden"

// TestGoldenLog opens what each version left, and finds what it had written.
func TestGoldenLog(t *testing.T) {
	want := map[string]string{}
	for n := range 20 {
		want[fmt.Sprintf("key %02d", n)] = strings.Repeat("x", 40*n)
	}
	if *newGolden != "" {
		path := filepath.Join(t.TempDir(), "test.db")
		e := mustOpen(t, path, bolt.Hurried(bolt.Options{}, 8))
		for key := range want {
			if err := put(e, key, want[key]); err != nil {
				t.Fatal(err)
			}
		}
		left := leave(t, path)
		for _, suffix := range []string{"", ".wal"} {
			zip(t, left+suffix, filepath.Join(golden, *newGolden+".db"+suffix+".gz"))
		}
	}
	versions, err := filepath.Glob(filepath.Join(golden, "*.db.gz"))
	if err != nil || len(versions) == 0 {
		t.Fatalf("there is no golden data: %v", err)
	}
	for _, v := range versions {
		path := filepath.Join(t.TempDir(), "test.db")
		unzip(t, v, path)
		unzip(t, strings.TrimSuffix(v, ".gz")+".wal.gz", path+".wal")
		if wantValues(t, path, want); t.Failed() {
			t.Fatal(v)
		}
	}
}

func zip(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) // what is there stays as it is
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := gzip.NewWriter(f)
	if _, err = w.Write(b); err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func unzip(t *testing.T, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
