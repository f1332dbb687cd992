package trial

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Calls that [FailCall] can let fail, by the name of what they do.
var calls = map[string][]uint32{
	"sync":  {unix.SYS_FDATASYNC, unix.SYS_FSYNC},
	"write": {unix.SYS_PWRITE64},
}

// FailCall lets one of this process's later system calls fail with the error: the nth of
// those that sync, or of those that write at a place, counted over all threads, from 1. It
// cannot be undone, so it is for the children of tests.
func FailCall(what string, n int, with syscall.Errno) error {
	if calls[what] == nil || n < 1 {
		return fmt.Errorf("there is no %s number %d", what, n)
	}
	listener, err := listen(calls[what])
	if err != nil {
		return fmt.Errorf("listen to system calls: %w", err)
	}
	go answer(listener, n, with)
	return nil
}

// listen makes those calls wait for an answer, in all threads, and returns where they
// are announced.
func listen(numbers []uint32) (listener uintptr, err error) {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the number of the call
	for i, number := range numbers {
		toEnd := uint8(len(numbers) - i)
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jt: toEnd})
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	program := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(program)))
	if errno != 0 {
		return 0, errno
	}
	return listener, nil
}

// announced is the kernel's struct seccomp_notif, and answered its struct
// seccomp_notif_resp.
type (
	announced struct {
		id         uint64
		pid, flags uint32
		data       [64]byte
	}
	answered struct {
		id    uint64
		value int64
		err   int32
		flags uint32
	}
)

// answer lets all calls go on but the nth.
func answer(listener uintptr, n int, with syscall.Errno) {
	for {
		in := announced{}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, listener, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&in)))
		if errno == unix.EINTR || errno == unix.ENOENT { // who called has ended
			continue
		}
		if errno != 0 {
			fmt.Fprintln(os.Stderr, "hear of system calls:", errno)
			os.Exit(2)
		}
		out := answered{id: in.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if n--; n == 0 {
			out.flags, out.err = 0, -int32(with)
		}
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, listener, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&out)))
		if errno != 0 && errno != unix.EINTR && errno != unix.ENOENT {
			fmt.Fprintln(os.Stderr, "answer a system call:", errno)
			os.Exit(2)
		}
	}
}
