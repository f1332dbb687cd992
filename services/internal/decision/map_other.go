//go:build !linux

package decision

import (
	"errors"
	"os"
)

// bootID is known on Linux only. Elsewhere one could not tell whether a file is whole, and
// counts stay in memory.
func bootID() (string, error) { return "", errors.ErrUnsupported }

func mapped(*os.File, int64, int64) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmap([]byte) error { return nil }

func unlock(*os.File) error { return nil }

func lock(*os.File) (bool, error) { return false, errors.ErrUnsupported }
