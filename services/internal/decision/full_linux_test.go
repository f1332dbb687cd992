package decision

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A disk that is full ends no process: calls for whom there is no cell fail, until there is
// room again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprintf("size=%d", 4*unit)); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer syscall.Unmount(folder, syscall.MNT_DETACH)
	l := born(t)
	l.killed(nil)
	l.Counts = filepath.Join(folder, "test.counts")
	l.again()
	const rest = unit / cellBytes // of what the disk has room for
	for n := range 2 * rest {
		l.use(l.session("acme", fmt.Sprint("u", n%10), grants[1]), 1, 0)
	}
	refused := func() bool {
		_, _, err := l.Log.cells.newCell("acme", "ann", grants[1])
		return err != nil && strings.Contains(err.Error(), "there is no room for it")
	}
	for range 2 { // the disk is tried only once
		if !refused() {
			t.Error("there is a cell on a full disk")
		}
	}
	if n := strings.Count(l.said.String(), "no space left"); n != 1 {
		t.Errorf("%d lines of the log say that the disk is full, want 1: %s", n, &l.said)
	}
	l.wantUses("on a full disk") // in the cells that there are
	for _, s := range l.sessions[:10] {
		s.release()
	}
	l.sessions = l.sessions[10:]
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	if refused() {
		t.Error("there is no cell, though some were given back")
	}
	if err := unlock(l.Log.cells.file); err != nil {
		t.Fatal(err)
	}
	l.again()
	l.wantUses("after a kill")
}
