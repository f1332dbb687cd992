package identity

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"latchkey.dev/services/internal/fault"
)

// hasher hashes passwords, no more at once than there are cores. A few wait; the
// rest are turned away, so that sign-ins never take memory and time from all others.
type hasher struct {
	params params
	random io.Reader
	dummy  hashed        // what an unknown person's password is compared with
	places chan struct{} // one for each hash that runs or waits
	cores  chan struct{} // one for each hash that runs
	done   atomic.Int64  // hashes computed
}

// waitingPerCore is how many wait for each that runs: at 20 to 50 ms a hash, half a
// second for the last.
const waitingPerCore = 16

func newHasher(p params, cores int, random io.Reader) *hasher {
	h := &hasher{
		params: p, random: random,
		places: make(chan struct{}, cores*(1+waitingPerCore)),
		cores:  make(chan struct{}, cores),
	}
	// No password has this key: it is no output of the hash but chance.
	h.dummy = hashed{params: p, salt: h.bytes(saltSize), key: h.bytes(keySize)}
	return h
}

// hash returns the hash of a new password in PHC string format.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	var text string
	err := h.admitted(ctx, func() {
		text = hashPassword(h.params, password, h.bytes(saltSize)).String()
	})
	return text, err
}

// verify tells whether a password belongs to a hash, and whether the hash should be
// made anew because it cost another price than new ones. The empty hash belongs to no
// password.
//
// SECURITY: the work is the same whether or not there is a hash.
func (h *hasher) verify(ctx context.Context, phc, password string) (ok, stale bool, err error) {
	want := h.dummy
	if phc != "" {
		if want, err = parseHash(phc); err != nil {
			return false, false, fmt.Errorf("read password hash: %w", err)
		}
	}
	err = h.admitted(ctx, func() { ok = want.matches(password) && phc != "" })
	return ok, want.params != h.params, err
}

// admitted runs work when a core is free. It fails with fault.Limit if too many wait
// already.
func (h *hasher) admitted(ctx context.Context, work func()) error {
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	default:
		return fault.Limit("passwords checked at the same time", time.Second)
	}
	select {
	case h.cores <- struct{}{}:
		defer func() { <-h.cores }()
	case <-ctx.Done():
		return fmt.Errorf("wait to check a password: %w", ctx.Err())
	}
	h.done.Add(1)
	work()
	return nil
}

func (h *hasher) bytes(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(h.random, b); err != nil {
		panic("identity: no random bytes: " + err.Error())
	}
	return b
}
