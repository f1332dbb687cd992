package authenticator

import "encoding/binary"

// What there is of CBOR (RFC 8949) in answers of an authenticator.

func head(major byte, n uint64) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return []byte{major<<5 | 24, byte(n)}
	default:
		return binary.BigEndian.AppendUint16([]byte{major<<5 | 25}, uint16(n))
	}
}

func number(n int) []byte {
	if n < 0 {
		return head(1, uint64(-1-n))
	}
	return head(0, uint64(n))
}

func bytes(b []byte) []byte { return append(head(2, uint64(len(b))), b...) }

func text(s string) []byte { return append(head(3, uint64(len(s))), s...) }

// cborMap is a map of keys and values in turns, which are encoded already.
func cborMap(parts ...[]byte) []byte {
	b := head(5, uint64(len(parts)/2))
	for _, part := range parts {
		b = append(b, part...)
	}
	return b
}
