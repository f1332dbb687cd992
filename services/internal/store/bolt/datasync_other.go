//go:build !linux

package bolt

import "os"

// datasync has a file on the disk.
func datasync(f *os.File) error { return f.Sync() }
