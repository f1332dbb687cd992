package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
)

const (
	form     = 1
	nameSize = 4
	// leastSecret is how many characters a secret has at least.
	leastSecret = 32
)

// ErrSealed is returned by Open for what no secret of the box has sealed under that
// name, or what was changed since.
var ErrSealed = errors.New("sealed under another secret or another name, or damaged")

// Box seals and opens. It may be used by many at once.
type Box struct{ keys []key }

type key struct {
	name []byte
	aead cipher.AEAD
}

// New makes a box of the secrets, each of at least 32 characters. The first one seals.
func New(secrets ...string) (*Box, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no secret to seal with")
	}
	b := &Box{}
	for _, secret := range secrets {
		if len(secret) < leastSecret {
			return nil, fmt.Errorf("a secret to seal with is too short: expected at least %d characters", leastSecret)
		}
		k, err := newKey(secret)
		if err != nil {
			return nil, err
		}
		b.keys = append(b.keys, k)
	}
	return b, nil
}

// Parse makes a box of a text with one secret a line. Blank lines, and those that begin
// with #, do not count.
func Parse(text string) (*Box, error) {
	var secrets []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			secrets = append(secrets, line)
		}
	}
	return New(secrets...)
}

func newKey(secret string) (key, error) {
	derived, err := hkdf.Key(sha256.New, []byte(secret), nil, "latchkey seal", 32+nameSize)
	if err != nil {
		return key{}, fmt.Errorf("derive the key to seal with: %w", err)
	}
	block, err := aes.NewCipher(derived[:32])
	if err != nil {
		return key{}, fmt.Errorf("make the key to seal with: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return key{derived[32:], aead}, err
}

// Seal returns the secret as it may be kept. Name says what it is and whose, for example
// "totp/<user>".
func (b *Box) Seal(name string, secret []byte) []byte {
	k := b.keys[0]
	head := append([]byte{form}, k.name...)
	return k.aead.Seal(head, nil, secret, additional(head, name))
}

// Open returns what was sealed under the name, or ErrSealed.
func (b *Box) Open(name string, sealed []byte) ([]byte, error) {
	if len(sealed) < 1+nameSize || sealed[0] != form {
		return nil, ErrSealed
	}
	head, rest := sealed[:1+nameSize], sealed[1+nameSize:]
	for _, k := range b.keys {
		if !bytes.Equal(k.name, head[1:]) {
			continue
		}
		if secret, err := k.aead.Open(nil, nil, rest, additional(head, name)); err == nil {
			return secret, nil
		}
	}
	return nil, ErrSealed
}

// Current tells whether something was sealed with the first secret. If not it should be
// sealed anew.
func (b *Box) Current(sealed []byte) bool {
	return len(sealed) > nameSize && sealed[0] == form && bytes.Equal(sealed[1:1+nameSize], b.keys[0].name)
}

func additional(head []byte, name string) []byte { return append(bytes.Clone(head), name...) }
