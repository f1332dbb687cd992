package identity

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// forms returns the forms of a text in which somebody's password may have been hashed: here
// in NFKC, the same for all ways in which a keyboard can write the same characters;
// elsewhere in NFC, or as it was typed. As a rule that is one and the same.
func forms(text string) []string {
	found := []string{normalPassword(text)}
	for _, other := range []string{norm.NFC.String(text), text} {
		if !slices.Contains(found, other) {
			found = append(found, other)
		}
	}
	return found
}

// normalPassword returns the form in which a password is hashed.
func normalPassword(text string) string { return norm.NFKC.String(text) }

// passwordHash is a kept hash of a password, made here or elsewhere.
type passwordHash interface {
	// matches repeats the work for one form of a password and compares in constant time.
	matches(form string) bool
	// kind names the algorithm with what it costs: hashes of a kind cost the same.
	kind() string
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

func (h hashed) matches(form string) bool {
	key := argon2.IDKey([]byte(form), h.salt, h.passes, h.memory, h.threads, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

func (h hashed) kind() string { return h.params.kind() }

func (p params) kind() string {
	return fmt.Sprintf("argon2id,m=%d,t=%d,p=%d", p.memory, p.passes, p.threads)
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
	maxMemory  = 1 << 18 // KiB: 256 MiB
	maxPasses  = 16
	maxFill    = 1 << 20 // KiB times passes
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
		h.memory >= 8*uint32(h.threads) && h.memory <= maxMemory && uint64(h.memory)*uint64(h.passes) <= maxFill &&
		len(h.salt) >= minSalt && len(h.salt) <= maxSalt && len(h.key) >= minKey && len(h.key) <= maxKey
}
