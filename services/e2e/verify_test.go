package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// TestVerifyFindsPages damages a page of a file, which the suite has open, and which nobody has:
// verify says so, and nobody is harmed by looking.
func TestVerifyFindsPages(t *testing.T) {
	s := one(t)
	s.fill()
	file := filepath.Join(s.folder, "servicerequest.db")
	if out := s.must("verify"); !strings.Contains(out, " pages of files") {
		t.Errorf("verify does not tell of pages: %s", out)
	}
	page := rootPage(t, file)
	// How many pages follow is of no concern to who reads.
	repair := flip(t, file, page*int64(os.Getpagesize())+12)
	if code, out := s.does("verify"); code != 1 || !strings.Contains(out, "servicerequest: page ") {
		t.Errorf("while the suite runs, verify ends with %d and prints %s", code, out)
	}
	repair()
	s.must("verify")
	s.stop()

	repair = flip(t, file, rootPage(t, file)*int64(os.Getpagesize()))
	code, out := s.does("verify")
	if code != 1 || !strings.Contains(out, "is not what it should be") || !strings.Contains(out, "restore a backup") || strings.Contains(out, "goroutine") {
		t.Errorf("verify ends with %d and prints %s", code, out)
	}
	if code, out := s.does("backup", filepath.Join(t.TempDir(), "none")); code != 1 || !strings.Contains(out, "cannot be read") || strings.Contains(out, "goroutine") {
		t.Errorf("backup ends with %d and prints %s", code, out)
	}
	repair()
	s.must("verify")
}

// rootPage returns the number of a page that every reader of a file reads.
func rootPage(t *testing.T, file string) (page int64) {
	t.Helper()
	data, err := os.ReadFile(file)
	copied := filepath.Join(t.TempDir(), "copied.db")
	if err == nil {
		err = os.WriteFile(copied, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(copied, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		page = int64(tx.Bucket([]byte("records")).Root())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// flip changes a bit of a file, until repair.
func flip(t *testing.T, file string, at int64) (repair func()) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	flip := func() {
		var b [1]byte
		_, err := f.ReadAt(b[:], at)
		b[0] ^= 1
		if err == nil {
			_, err = f.WriteAt(b[:], at)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	flip()
	return flip
}
