//go:build !linux

package trial

import (
	"errors"
	"syscall"
)

// FailCall needs Linux.
func FailCall(string, int, syscall.Errno) error { return errors.ErrUnsupported }
