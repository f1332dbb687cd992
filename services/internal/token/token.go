package token

import (
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"io"
	"math/big"
	"strings"
)

const (
	digits      = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	randomBytes = 32
	bodyLen     = 43 // base 62 digits of 256 bits
	sumLen      = 6  // base 62 digits of 32 bits
	tailLen     = bodyLen + sumLen
	maxPrefix   = 8
)

// ErrMalformed is returned by Hash for what is no token at all.
var ErrMalformed = errors.New("not a well-formed token")

// New makes a token out of 32 bytes of random, and returns it with its hash. The
// prefix is 1 to 7 characters of a to z and 0 to 9, and then "_". New panics on another
// prefix, and if random fails: there is nothing safe to go on with.
func New(prefix string, random io.Reader) (string, [sha256.Size]byte) {
	if !prefixOK(prefix) {
		panic("token: bad prefix " + prefix)
	}
	var raw [randomBytes]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		panic("token: no random bytes: " + err.Error())
	}
	body := new(big.Int).SetBytes(raw[:]).Text(62)
	text := prefix + strings.Repeat("0", bodyLen-len(body)) + body
	sum := checksum([]byte(text))
	text += string(sum[:])
	hash, err := Hash(text)
	if err != nil {
		panic("token: made a malformed token")
	}
	return text, hash
}

// Hash returns the SHA-256 that a token is kept and looked up by, or ErrMalformed
// without any hashing if its shape or its checksum is wrong. It allocates nothing.
func Hash(text string) ([sha256.Size]byte, error) {
	var buf [maxPrefix + tailLen]byte
	n := copy(buf[:], text)
	if n != len(text) || n <= tailLen || !prefixOK(text[:n-tailLen]) {
		return [sha256.Size]byte{}, ErrMalformed
	}
	for i := n - tailLen; i < n-sumLen; i++ {
		if !isDigit(buf[i]) {
			return [sha256.Size]byte{}, ErrMalformed
		}
	}
	if checksum(buf[:n-sumLen]) != [sumLen]byte(buf[n-sumLen:n]) {
		return [sha256.Size]byte{}, ErrMalformed
	}
	return sha256.Sum256(buf[:n]), nil
}

func prefixOK(p string) bool {
	if len(p) < 2 || len(p) > maxPrefix || p[len(p)-1] != '_' {
		return false
	}
	for i := range len(p) - 1 {
		if c := p[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9') {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// checksum is the CRC-32 (IEEE) of text in base 62. It goes over the bytes itself,
// because what is given to crc32.ChecksumIEEE moves to the heap.
func checksum(text []byte) [sumLen]byte {
	sum := ^uint32(0)
	for _, c := range text {
		sum = crc32.IEEETable[byte(sum)^c] ^ sum>>8
	}
	sum = ^sum
	var out [sumLen]byte
	for i := sumLen - 1; i >= 0; i-- {
		out[i] = digits[sum%62]
		sum /= 62
	}
	return out
}

// maxSigned is how long a signed token can be.
const maxSigned = 4096

// HashAny is Hash for tokens of every kind: those that New made, and signed ones in the
// compact form of RFC 7515 3.1, which are looked up by their hash too.
func HashAny(text string) ([sha256.Size]byte, error) {
	hash, err := Hash(text)
	if err == nil || !isSigned(text) {
		return hash, err
	}
	return sha256.Sum256([]byte(text)), nil
}

// isSigned tells whether a text has the shape of a signed token: three parts in base64url
// with dots between, the first of which begins a JSON object.
func isSigned(text string) bool {
	if len(text) > maxSigned || !strings.HasPrefix(text, "eyJ") {
		return false
	}
	dots, last := 0, -1
	for i := range len(text) {
		switch c := text[i]; {
		case c == '.' && i > last+1:
			dots, last = dots+1, i
		case !isDigit(c) && c != '-' && c != '_':
			return false
		}
	}
	return dots == 2 && last < len(text)-1
}
