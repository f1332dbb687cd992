//go:build !linux

package lease

import "time"

// sinceBoot is known on Linux only. Elsewhere a lease may outlast a suspension.
func sinceBoot() (since time.Duration, ok bool) { return 0, false }
