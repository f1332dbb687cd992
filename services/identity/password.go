package identity

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"latchkey.dev/services/internal/fault"
)

// The length of a password in characters, after normalization. There are no rules of
// composition: NIST SP 800-63B-4, 3.1.1.2.
const (
	minPassword = 12
	maxPassword = 256
)

// normalPassword returns the form in which a password is hashed: the same for all
// ways in which a keyboard can write the same characters.
func normalPassword(text string) string { return norm.NFKC.String(text) }

// checkPassword says what is wrong with a new password.
func checkPassword(field, text string) error {
	if n := utf8.RuneCountInString(normalPassword(text)); n < minPassword || n > maxPassword {
		return fault.Invalid(field, "must have %d to %d characters, not %d", minPassword, maxPassword, n)
	}
	return nil
}

// params are what argon2id costs.
type params struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
}

// currentParams are the second choice of the OWASP password storage cheat sheet.
var currentParams = params{memory: 19456, passes: 2, threads: 1}

// Sizes of what this program makes, in bytes.
const (
	saltSize = 16
	keySize  = 32
)

// hashed is a password's hash with all that is needed to repeat it.
type hashed struct {
	params
	salt, key []byte
}

// hashPassword does the expensive work; see hasher for who may.
func hashPassword(p params, password string, salt []byte) hashed {
	return hashed{p, salt, argon2.IDKey([]byte(normalPassword(password)), salt, p.passes, p.memory, p.threads, keySize)}
}

// matches repeats the work and compares in constant time.
func (h hashed) matches(password string) bool {
	key := argon2.IDKey([]byte(normalPassword(password)), h.salt, h.passes, h.memory, h.threads, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

// String returns the hash in PHC string format.
func (h hashed) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// errPHC is returned for what is not a hash that this program can check.
var errPHC = errors.New("not an argon2id hash in PHC string format within bounds")

// Bounds of what parseHash accepts: of a hash that was made elsewhere, too much would
// let one sign-in use up the machine.
const (
	maxMemory  = 1 << 20 // KiB: 1 GiB
	maxPasses  = 16
	maxThreads = 16
	minSalt    = 8
	maxSalt    = 64
	minKey     = 16
	maxKey     = 64
)

// parseHash reads what String writes, and nothing that String would write otherwise.
func parseHash(text string) (hashed, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || len(text) > 512 {
		return hashed{}, errPHC
	}
	var h hashed
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.threads); err != nil {
		return hashed{}, errPHC
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(parts[4]); err != nil {
		return hashed{}, errPHC
	}
	if h.key, err = base64.RawStdEncoding.Strict().DecodeString(parts[5]); err != nil {
		return hashed{}, errPHC
	}
	if !h.inBounds() || h.String() != text {
		return hashed{}, errPHC
	}
	return h, nil
}

func (h hashed) inBounds() bool {
	return h.threads >= 1 && h.threads <= maxThreads && h.passes >= 1 && h.passes <= maxPasses &&
		h.memory >= 8*uint32(h.threads) && h.memory <= maxMemory &&
		len(h.salt) >= minSalt && len(h.salt) <= maxSalt && len(h.key) >= minKey && len(h.key) <= maxKey
}
