package bolt

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestDiskReallyFull needs a small file system, which only root can make.
func TestDiskReallyFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Open(filepath.Join(dir, "test.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	testFull(t, e, func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	})
}
