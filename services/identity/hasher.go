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
		h.done.Add(1)
		text = hashPassword(h.params, password, h.bytes(saltSize)).String()
	})
	return text, err
}

// verify tells whether a password belongs to a hash, and whether the hash should be
// made anew because it is of another kind than new ones. The empty hash belongs to no
// password.
//
// SECURITY: a password that is not the right one costs the same work whether or not there
// is a hash, and of whichever kind that is: one hash as they are made here, and one of each
// other kind that there is.
func (h *hasher) verify(ctx context.Context, phc, password string, others ...passwordHash) (ok, stale bool, err error) {
	var want passwordHash = h.dummy
	if phc != "" {
		if want, err = parsePassword(phc); err != nil {
			return false, false, fmt.Errorf("read password hash: %w", err)
		}
	}
	err = h.admitted(ctx, func() {
		if ok = h.matches(want, password) && phc != ""; ok {
			return
		}
		for _, other := range append(others, h.dummy) {
			if other.kind() != want.kind() {
				h.matches(other, password)
			}
		}
	})
	return ok, want.kind() != h.params.kind(), err
}

// matches tries each form of a password, to the last one, so that the work says nothing.
func (h *hasher) matches(want passwordHash, password string) (ok bool) {
	for _, form := range forms(password) {
		h.done.Add(1)
		ok = want.matches(form) || ok
	}
	return ok
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
