package identity

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// Bounds of hashes that were made elsewhere, so that no sign-in takes more than about a
// second of one core, or 256 MiB. Those of argon2 are in password.go.
const (
	maxBcryptCost = 14
	maxScryptWork = 1 << 21 // N*r*p; each is 128 bytes of memory or less
	maxScryptLog  = 20
	maxIterations = 2_000_000
	// maxForeign is how long the text of a hash may be.
	maxForeign = 512
)

// foreign is a hash that another program made.
type foreign struct {
	name      string // the algorithm with its parameters
	salt, key []byte
	derive    func(password, salt []byte, size int) ([]byte, error)
}

func (f foreign) matches(form string) bool {
	key, err := f.derive([]byte(form), f.salt, len(f.key))
	return err == nil && subtle.ConstantTimeCompare(key, f.key) == 1
}

func (f foreign) kind() string { return fmt.Sprintf("%s,l=%d", f.name, len(f.key)) }

// bcrypted is a hash of bcrypt in its modular form.
type bcrypted string

func (b bcrypted) matches(form string) bool {
	return bcrypt.CompareHashAndPassword([]byte(b), []byte(form)) == nil
}

func (b bcrypted) kind() string { return "bcrypt," + string(b[4:6]) }

// parsePassword reads a hash of any kind that this program can check. Its error says what
// is expected of the text.
func parsePassword(text string) (passwordHash, error) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(text, "$"), "$")
	if len(text) > maxForeign || !strings.HasPrefix(text, "$") {
		return nil, errForeign
	}
	switch name {
	case "2a", "2b", "2y":
		return parseBcrypt(text)
	case "argon2id":
		if h, err := parseHash(text); err == nil {
			return h, nil
		}
		return parseArgon2(name, rest)
	case "argon2i":
		return parseArgon2(name, rest)
	case "scrypt":
		return parseScrypt(rest)
	}
	if hash, ok := pbkdf2Hashes[name]; ok {
		return parsePBKDF2(name, hash, rest)
	}
	return nil, errForeign
}

// errForeign is returned for what is the hash of no algorithm known here.
var errForeign = fmt.Errorf("must be a hash of argon2id, argon2i, scrypt or PBKDF2 in PHC string format, "+
	"or of bcrypt as $2a$, $2b$ or $2y$, of at most %d characters", maxForeign)

var bcryptForm = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

func parseBcrypt(text string) (passwordHash, error) {
	if !bcryptForm.MatchString(text) {
		return nil, fmt.Errorf("must be a bcrypt hash of the form $2b$<two digits>$<53 characters>")
	}
	if cost, err := bcrypt.Cost([]byte(text)); err != nil || cost < bcrypt.MinCost || cost > maxBcryptCost {
		return nil, fmt.Errorf("must be a bcrypt hash with a cost of %d to %d", bcrypt.MinCost, maxBcryptCost)
	}
	return bcrypted(text), nil
}

// parseArgon2 reads "v=19$m=65536,t=3,p=4$<salt>$<hash>".
func parseArgon2(name, rest string) (passwordHash, error) {
	version, rest, _ := strings.Cut(rest, "$")
	if version != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, fmt.Errorf("must be an %s hash of version 19, as $%s$v=19$m=65536,t=3,p=4$<salt>$<hash>", name, name)
	}
	n, salt, key, err := foreignParts(rest, "m", "t", "p")
	if err != nil {
		return nil, err
	}
	h := hashed{params{uint32(n[0]), uint32(n[1]), uint8(min(n[2], 255))}, salt, key}
	if !h.inBounds() {
		return nil, fmt.Errorf("must be an %s hash with m up to %d KiB and 8 for each of p, t and p up to %d, and m*t up to %d",
			name, maxMemory, maxPasses, maxFill)
	}
	derive := argon2.IDKey
	if name == "argon2i" {
		derive = argon2.Key
	}
	return foreign{name + strings.TrimPrefix(h.params.kind(), "argon2id"), salt, key, func(password, salt []byte, size int) ([]byte, error) {
		return derive(password, salt, h.passes, h.memory, h.threads, uint32(size)), nil
	}}, nil
}

// parseScrypt reads "ln=15,r=8,p=1$<salt>$<hash>".
func parseScrypt(rest string) (passwordHash, error) {
	n, salt, key, err := foreignParts(rest, "ln", "r", "p")
	if err != nil {
		return nil, err
	}
	log, r, p := n[0], n[1], n[2]
	if log < 1 || log > maxScryptLog || r < 1 || p < 1 || r > maxScryptWork || p > maxScryptWork || r*p > maxScryptWork>>log {
		return nil, fmt.Errorf("must be a scrypt hash with ln of 1 to %d, r and p of at least 1, and 2^ln*r*p up to %d", maxScryptLog, maxScryptWork)
	}
	name := fmt.Sprintf("scrypt,ln=%d,r=%d,p=%d", log, r, p)
	return foreign{name, salt, key, func(password, salt []byte, size int) ([]byte, error) {
		return scrypt.Key(password, salt, 1<<log, r, p, size)
	}}, nil
}

var pbkdf2Hashes = map[string]func() hash.Hash{
	"pbkdf2": sha1.New, "pbkdf2-sha1": sha1.New, "pbkdf2-sha256": sha256.New, "pbkdf2-sha512": sha512.New,
}

var (
	bareCount = regexp.MustCompile(`^[0-9]+\$`)
	keyLength = regexp.MustCompile(`^(i=[0-9]+),l=[0-9]+\$`)
)

// parsePBKDF2 reads "i=600000$<salt>$<hash>", "i=600000,l=32$...", and "600000$..." as
// Python's passlib writes it.
func parsePBKDF2(name string, hash func() hash.Hash, rest string) (passwordHash, error) {
	if bareCount.MatchString(rest) {
		rest = "i=" + rest
	}
	n, salt, key, err := foreignParts(keyLength.ReplaceAllString(rest, "$1$$"), "i")
	if err != nil {
		return nil, err
	}
	if n[0] < 1 || n[0] > maxIterations {
		return nil, fmt.Errorf("must be a PBKDF2 hash of 1 to %d iterations", maxIterations)
	}
	if len(key) > hash().Size() {
		return nil, fmt.Errorf("must be a PBKDF2 hash no longer than %d bytes, which its function gives", hash().Size())
	}
	return foreign{fmt.Sprintf("%s,i=%d", name, n[0]), salt, key, func(password, salt []byte, size int) ([]byte, error) {
		return pbkdf2.Key(hash, string(password), salt, n[0], size)
	}}, nil
}

var plainNumber = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})$`)

// foreignParts reads the named numbers of a hash, its salt and its key.
func foreignParts(text string, names ...string) (numbers []int, salt, key []byte, err error) {
	parts := strings.Split(text, "$")
	if len(parts) != 3 {
		return nil, nil, nil, errForeign
	}
	values := strings.Split(parts[0], ",")
	if len(values) != len(names) {
		return nil, nil, nil, fmt.Errorf("must have the parameters %s in this order", strings.Join(names, ", "))
	}
	for i, name := range names {
		value, ok := strings.CutPrefix(values[i], name+"=")
		if !ok || !plainNumber.MatchString(value) {
			return nil, nil, nil, fmt.Errorf("must have the parameters %s in this order, each a number without sign or zeros before it", strings.Join(names, ", "))
		}
		n, _ := strconv.Atoi(value)
		numbers = append(numbers, n)
	}
	if salt, err = foreignBytes(parts[1]); err != nil || len(salt) < 1 || len(salt) > maxSalt {
		return nil, nil, nil, fmt.Errorf("must have a salt of 1 to %d bytes in base64 without padding", maxSalt)
	}
	if key, err = foreignBytes(parts[2]); err != nil || len(key) < minKey || len(key) > maxKey {
		return nil, nil, nil, fmt.Errorf("must have a hash of %d to %d bytes in base64 without padding", minKey, maxKey)
	}
	return numbers, salt, key, nil
}

// foreignBytes reads base64 without padding, also with the dot that some write for a plus.
func foreignBytes(text string) ([]byte, error) {
	return base64.RawStdEncoding.Strict().DecodeString(strings.ReplaceAll(text, ".", "+"))
}

var bcryptBase64 = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

// exampleOf returns a hash of the same kind that belongs to no password: of salt and key
// alike only chance remains.
func exampleOf(text string, random func(int) []byte) string {
	parts := strings.Split(text, "$")
	last := len(parts) - 1
	if bcryptForm.MatchString(text) {
		parts[last] = bcryptBase64.EncodeToString(random(16)) + bcryptBase64.EncodeToString(random(23))
		return strings.Join(parts, "$")
	}
	for _, i := range []int{last - 1, last} {
		b, _ := foreignBytes(parts[i])
		parts[i] = base64.RawStdEncoding.EncodeToString(random(len(b)))
	}
	return strings.Join(parts, "$")
}
