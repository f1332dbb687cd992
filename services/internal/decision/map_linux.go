package decision

import (
	"errors"
	"os"
	"strings"
	"syscall"
)

// bootID returns what names the time since the machine was started.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

// mapped makes a part of a file memory that outlives the process.
func mapped(f *os.File, from, size int64) ([]byte, error) {
	return syscall.Mmap(int(f.Fd()), from, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

func unmap(b []byte) error { return syscall.Munmap(b) }

// unlock lets others have the file, which what is mapped of it would keep from them.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// lock reports whether no other process has the file, and keeps it from them while it is open.
func lock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
