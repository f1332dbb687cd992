package server

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"
)

// ids makes UUIDs of version 7 (RFC 9562 5.7), each greater than the one before, also
// within a millisecond and when the clock is set back: the 12 bits after the time
// count (RFC 9562 6.2, method 1).
type ids struct {
	now func() time.Time

	mu   sync.Mutex
	last uint64 // milliseconds since 1970, and the count in the lowest 12 bits
}

func (s *ids) next() string {
	var b [16]byte
	rand.Read(b[6:]) // never fails
	stamp := s.stamp(binary.BigEndian.Uint16(b[6:]))
	binary.BigEndian.PutUint64(b[:], stamp>>12<<16|stamp&0xfff)
	b[6] |= 0x70
	b[8] = b[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[0:8], b[0:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:36], b[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// stamp returns the time and a count that begins anywhere in the lower half, so that
// there is room for more in the same millisecond.
func (s *ids) stamp(random uint16) uint64 {
	now := uint64(s.now().UnixMilli())<<12 | uint64(random&0x7ff)
	s.mu.Lock()
	defer s.mu.Unlock()
	if now>>12 <= s.last>>12 {
		now = s.last + 1
	}
	s.last = now
	return now
}

// randomSecret returns 256 random bits as text.
func randomSecret() string { return rand.Text() + rand.Text() }

// NewIDs returns a maker of ids for tests and tools outside a process.
func NewIDs(now func() time.Time) func() string { return (&ids{now: now}).next }
