package bolt_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"latchkey.dev/services/internal/trial"
)

// disk is a file system of its own in a file, whose power can be cut.
type disk struct {
	t      testing.TB
	image  string
	folder string // where it is mounted
}

// newDisk makes one and mounts it. Where that is not possible the trial is skipped.
func newDisk(t testing.TB, tr *trial.Trial, bytes int64) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		tr.Skip("only root can mount a file system")
	}
	dir := t.TempDir()
	d := &disk{t: t, image: filepath.Join(dir, "image"), folder: filepath.Join(dir, "disk")}
	err := os.Mkdir(d.folder, 0o700)
	if err == nil {
		err = os.WriteFile(d.image, nil, 0o600)
	}
	if err == nil {
		err = os.Truncate(d.image, bytes)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", d.image).CombinedOutput(); err != nil {
		tr.Skip("mkfs.ext4: %v %s", err, out)
	}
	if out, err := d.tryMount(); err != nil {
		tr.Skip("mount: %v %s", err, out)
	}
	t.Cleanup(func() { _ = unix.Unmount(d.folder, unix.MNT_DETACH) }) // it is, if the test failed
	return d
}

// tryMount mounts it so that nothing is written to it but what somebody syncs.
func (d *disk) tryMount() ([]byte, error) {
	return exec.Command("mount", "-t", "ext4", "-o", "loop,commit=1000", d.image, d.folder).CombinedOutput()
}

// What the journal of the file system still gets when the power is cut.
const (
	logFlushed = 1
	nothing    = 2
)

// cut cuts the power: what was not synced is gone, and whatever is tried from now on
// fails.
func (d *disk) cut(how uint32) {
	d.t.Helper()
	const shutdown = 0x8004587d // FS_IOC_SHUTDOWN, EXT4_IOC_SHUTDOWN
	fd, err := unix.Open(d.folder, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		d.t.Fatalf("cut the power: %v", error(syscall.Errno(errno)))
	}
}

// restart is the power coming back, when nobody has a file open on it.
func (d *disk) restart() {
	d.t.Helper()
	if err := unix.Unmount(d.folder, 0); err != nil {
		d.t.Fatalf("unmount: %v", err)
	}
	if out, err := d.tryMount(); err != nil {
		d.t.Fatalf("mount again: %v %s", err, out)
	}
}

// fill writes a file until there is no room for more.
func (d *disk) fill(path string) {
	d.t.Helper()
	f, err := os.Create(path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for _, piece := range []int{1 << 20, 1 << 10} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, piece))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.t.Fatal(err)
		}
	}
}
