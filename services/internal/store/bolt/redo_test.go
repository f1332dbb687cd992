package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestRedoneByOther lets another process open a file that was left with a log, write to it and end, between
// the moment in which this one reads the log and that in which it gets the lock to write. What the
// log had is not done again over what the other wrote.
func TestRedoneByOther(t *testing.T) {
	from, path := filepath.Join(t.TempDir(), "test.db"), filepath.Join(t.TempDir(), "test.db")
	e, err := Open(from, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := set(e, "a", "old"); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", walSuffix} {
		b, err := os.ReadFile(from + suffix)
		if err == nil {
			err = os.WriteFile(path+suffix, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = Open(path, Options{openFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
		other, err := Open(name, Options{})
		if err == nil {
			err = errors.Join(set(other, "a", "new"), other.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return os.OpenFile(name, flag, mode)
	}})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("got error %v, want ErrInUse", err)
	}
	e, err = Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if value(t, e, "a") != "new" {
		t.Errorf("got %q, want what the other wrote", value(t, e, "a"))
	}
}
