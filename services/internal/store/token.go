package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	"latchkey.dev/services/internal/fault"
)

// A page token is, in base64url: a version byte, a 16 byte tag, and the place where
// to go on, encrypted. The tag is an HMAC over the place and over what the token is
// bound to, and the start value of the encryption (the scheme of RFC 5297, SIV).
//
// SECURITY: a place has parts of keys, perhaps those of a record that the caller may
// not see or of a field that is guarded from him, so a token must not be readable.
const (
	tokenVersion = 1
	tagSize      = aes.BlockSize
)

// sealer seals page tokens with a secret that is kept in the store.
type sealer struct {
	mac   []byte
	block cipher.Block
}

const secretSize = 64

func newSealer(secret []byte) (*sealer, error) {
	if len(secret) != secretSize {
		return nil, fmt.Errorf("secret has %d bytes instead of %d", len(secret), secretSize)
	}
	block, err := aes.NewCipher(secret[secretSize/2:])
	return &sealer{mac: secret[:secretSize/2], block: block}, err
}

func (s *sealer) tag(binding, place []byte) []byte {
	h := hmac.New(sha256.New, s.mac)
	h.Write(binding)
	h.Write(place)
	return h.Sum(nil)[:tagSize]
}

func (s *sealer) seal(binding, place []byte) string {
	tag := s.tag(binding, place)
	b := append([]byte{tokenVersion}, tag...)
	b = append(b, place...)
	s.crypt(tag, b[1+tagSize:])
	return base64.RawURLEncoding.EncodeToString(b)
}

func (s *sealer) open(binding []byte, token string) (place []byte, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 1+tagSize || b[0] != tokenVersion {
		return nil, false
	}
	tag, place := b[1:1+tagSize], b[1+tagSize:]
	s.crypt(tag, place)
	return place, hmac.Equal(tag, s.tag(binding, place))
}

func (s *sealer) crypt(tag, b []byte) { cipher.NewCTR(s.block, tag).XORKeyStream(b, b) }

// wrongToken is the answer to a token that is none of the list.
func wrongToken() error {
	return fault.New(codes.InvalidArgument, faultpb.Reason_REASON_PAGE_TOKEN_INVALID,
		"the page token was not made for an equal request by the same caller", nil)
}

func (tx *Tx) sealToken(place []byte, req PageRequest) (string, error) {
	binding, err := tx.binding(req)
	if err != nil {
		return "", err
	}
	return tx.db.sealer.seal(binding, place), nil
}

func (tx *Tx) openToken(token string, req PageRequest) ([]byte, error) {
	binding, err := tx.binding(req)
	if err != nil {
		return nil, err
	}
	place, ok := tx.db.sealer.open(binding, token)
	if !ok {
		return nil, wrongToken()
	}
	return place, nil
}

// binding returns a hash of what a token is good for: a tenant, a caller, and a
// request but for its page's size and token.
func (tx *Tx) binding(req PageRequest) ([]byte, error) {
	m := req.ProtoReflect()
	rest := m.New()
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if n := fd.Name(); n != "page_size" && n != "page_token" {
			rest.Set(fd, v)
		}
		return true
	})
	b, err := encode(rest.Interface())
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	h := hasher{Hash: sha256.New()}
	h.string(tx.origin.Tenant)
	h.string(tx.origin.Caller)
	h.string(string(m.Descriptor().FullName()))
	h.bytes(b)
	return h.Sum(nil), nil
}
