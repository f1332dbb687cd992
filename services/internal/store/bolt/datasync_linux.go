package bolt

import (
	"os"
	"syscall"
)

// datasync has a file's bytes on the disk, and of what is known about it what they need.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
