package server

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// newID returns a UUID of version 7 (RFC 9562 5.7): milliseconds, then random bits.
func newID(now time.Time) string {
	var b [16]byte
	ms := uint64(now.UnixMilli())
	rand.Read(b[6:]) // never fails
	for i := range 6 {
		b[i] = byte(ms >> (8 * (5 - i)))
	}
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:36], b[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// randomSecret returns 256 random bits as text.
func randomSecret() string { return rand.Text() + rand.Text() }

// NewIDs returns a maker of ids for tests and tools outside a process.
func NewIDs(now func() time.Time) func() string { return func() string { return newID(now()) } }
