package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// counter bounds how often in a row something may be proven wrongly. Together those of a
// person's password let in fewer than 100 (NIST SP 800-63B-4 3.2.2).
type counter struct {
	id   string
	what string // "wrong passwords"
	free int    // so many cost no delay
	most int    // so many, and none is looked at any more
	base time.Duration
}

const (
	// longestDelay is how long at most somebody waits after a wrong proof.
	longestDelay = time.Hour
	// failuresLife is how long wrong proofs are remembered after the last one.
	failuresLife = 30 * 24 * time.Hour
	// unknownAccounts is how many counters all the addresses share that nobody has, so
	// that guessing fills no disk.
	unknownAccounts = 1 << 16
)

// passwordFailures counts at sign-in. An account is a person's id, or what
// unknownAccount returns.
func passwordFailures(account string) counter {
	return counter{id: "password/" + account, what: "wrong passwords", free: 20, most: 50, base: time.Second}
}

// sourceFailures counts those of one place alone, and sooner: whoever guesses from there
// is slowed down before the account is, which others sign in to.
func sourceFailures(account, source string) counter {
	return counter{id: "password/" + account + "/" + source, what: "wrong passwords", free: 5, most: 50, base: time.Second}
}

// deviceFailures counts what comes from a known device.
func deviceFailures(device string) counter {
	return counter{id: "password on device/" + device, what: "wrong passwords", free: 5, most: 5, base: time.Second}
}

// totpGuesses counts the codes that answer a challenge: those from a known device apart,
// so that nobody is kept out by others who know the password.
func totpGuesses(c *identitystorepb.Challenge) counter {
	if c.GetDeviceId() == "" {
		return totpFailures(c.GetUserId())
	}
	return deviceCodes(c.GetDeviceId())
}

func deviceCodes(device string) counter {
	return counter{id: "totp on device/" + device, what: "wrong codes", free: 5, most: 10, base: 2 * time.Second}
}

// sessionFailures counts the password that somebody signed in shows again.
func sessionFailures(user string) counter {
	return counter{id: "password in session/" + user, what: "wrong passwords", free: 10, most: 20, base: 30 * time.Second}
}

func totpFailures(user string) counter {
	return counter{id: "totp/" + user, what: "wrong codes", free: 5, most: 50, base: 2 * time.Second}
}

// passkeyFailures counts the wrong answers of passkeys, to be told of them. Nobody guesses
// one, so they keep nobody out.
func passkeyFailures(account string) counter {
	return counter{id: "passkey/" + account, what: "wrong passkeys", free: math.MaxInt32, most: math.MaxInt32}
}

// recoveryFailures is apart from totpFailures: whoever guesses codes of an app must not
// take away what is written down.
func recoveryFailures(user string) counter {
	return counter{id: "recovery code/" + user, what: "wrong codes", free: 5, most: 50, base: 2 * time.Second}
}

// delay is how long nothing is looked at after so many wrong proofs.
func (c counter) delay(count int) time.Duration {
	n := count - c.free
	if n < 0 {
		return 0
	}
	return min(c.base<<min(n, 20), longestDelay)
}

// countFailure counts a proof as wrong before it is looked at, so that many at once
// cannot be more than allowed. The right one clears it. Its error is a fault.Limit.
func (s *service) countFailure(ctx context.Context, counters ...counter) error {
	return s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		for _, c := range counters {
			if err := c.count(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c counter) count(tx *store.Tx) error {
	kept, ok := failures.Get(tx, c.id)
	if !ok {
		kept = &identitystorepb.Failures{Id: c.id}
	}
	if wait := kept.GetUntilTime().AsTime().Sub(tx.Now()); kept.GetUntilTime() != nil && wait > 0 {
		return fault.Limit(c.what, wait)
	}
	if int(kept.GetCount()) >= c.most {
		return fault.Limit(c.what, longestDelay)
	}
	kept.Count++
	kept.UntilTime = nil
	if d := c.delay(int(kept.GetCount())); d > 0 {
		kept.UntilTime = timestamppb.New(tx.Now().Add(d))
	}
	kept.PurgeTime = timestamppb.New(tx.Now().Add(failuresLife))
	return failures.Put(tx, kept)
}

// uncount takes back a failure of a proof that was not looked at after all, since the
// machine was too busy.
func (s *service) uncount(ctx context.Context, counters ...counter) error {
	return s.db.Update(inDirectory(context.WithoutCancel(ctx)), func(tx *store.Tx) error {
		for _, c := range counters {
			kept, ok := failures.Get(tx, c.id)
			if !ok {
				continue
			}
			if kept.Count--; kept.Count <= 0 {
				failures.Delete(tx, c.id)
				continue
			}
			kept.UntilTime = nil
			if err := failures.Put(tx, kept); err != nil {
				return err
			}
		}
		return nil
	})
}

// clearFailures forgets wrong proofs after a right one.
func clearFailures(tx *store.Tx, counters ...counter) {
	for _, c := range counters {
		if failures.Has(tx, c.id) {
			failures.Delete(tx, c.id)
		}
	}
}

const unknownSalt = "unknown"

// saltUnknown makes the salt by which unknown addresses share counters, unless there is
// one.
func (s *service) saltUnknown(ctx context.Context) error {
	fresh := s.hasher.bytes(sha256.Size)
	err := s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		if kept, ok := salts.Get(tx, unknownSalt); ok {
			s.salt = kept.GetSalt()
			return nil
		}
		s.salt = fresh
		return salts.Put(tx, &identitystorepb.Salt{Id: unknownSalt, Salt: fresh})
	})
	if err != nil {
		return fmt.Errorf("make the salt of unknown addresses: %w", err)
	}
	return nil
}

// unknownAccount is what the failures of an address are counted under that nobody has.
//
// SECURITY: which addresses share a counter nobody can find out, or one could fill it by
// an address of one's own, and see by another whether it is known.
func (s *service) unknownAccount(email string) string {
	mac := hmac.New(sha256.New, s.salt)
	mac.Write([]byte(email))
	n := binary.BigEndian.Uint32(mac.Sum(nil)) % unknownAccounts
	return fmt.Sprintf("unknown/%04x", n)
}
