package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Key is an ordered list of key parts. Each part is a string, a bool, a
// time.Time, an integer of any type (an enum too), or one of these in [Desc].
// Encoded keys compare byte by byte as their parts compare one by one, and the
// encoding of a key starts with that of another only if its parts do.
type Key []any

type desc struct{ part any }

// Desc is a key part that sorts from the greatest to the least.
func Desc(part any) any { return desc{part} }

// Every part starts with one of these tags, or with its complement if it
// descends. 0x00 and 0xff are never tags, so that appending 0xff to the encoding
// of a key gives a bound above every key that starts with it.
const (
	tagString = 0x02 // the bytes, each 0x00 followed by 0xff; then 0x00 0x01
	tagFalse  = 0x03
	tagTrue   = 0x04
	tagInt    = 0x05 // 8 bytes, big endian, the sign flipped
	tagTime   = 0x06 // seconds since 1970 as an int, then nanoseconds in 4 bytes
	aboveAll  = 0xff
)

const (
	escape     = 0x00
	escapedNUL = 0xff
	terminator = 0x01
)

// appendTo appends the encoding of k to b.
func (k Key) appendTo(b []byte) []byte {
	for _, part := range k {
		b = appendPart(b, part)
	}
	return b
}

func appendPart(b []byte, part any) []byte {
	switch p := part.(type) {
	case string:
		return appendString(b, p)
	case int64:
		return appendInt(b, p)
	case time.Time:
		b = binary.BigEndian.AppendUint64(append(b, tagTime), uint64(p.Unix())^1<<63)
		return binary.BigEndian.AppendUint32(b, uint32(p.Nanosecond()))
	case bool:
		if p {
			return append(b, tagTrue)
		}
		return append(b, tagFalse)
	case desc:
		start := len(b)
		b = appendPart(b, p.part)
		for i := start; i < len(b); i++ {
			b[i] = ^b[i]
		}
		return b
	}
	return appendKind(b, part)
}

// appendKind appends a part whose type has a name of its own, such as an enum.
func appendKind(b []byte, part any) []byte {
	switch v := reflect.ValueOf(part); {
	case v.CanInt():
		return appendInt(b, v.Int())
	case v.CanUint() && v.Uint() < 1<<63:
		return appendInt(b, int64(v.Uint()))
	case v.Kind() == reflect.String:
		return appendString(b, v.String())
	}
	panic(fmt.Sprintf("store: %T cannot be part of a key", part))
}

func appendInt(b []byte, i int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, tagInt), uint64(i)^1<<63)
}

func appendString(b []byte, s string) []byte {
	b = append(b, tagString)
	for {
		i := strings.IndexByte(s, escape)
		if i < 0 {
			break
		}
		b = append(append(b, s[:i]...), escape, escapedNUL)
		s = s[i+1:]
	}
	return append(append(b, s...), escape, terminator)
}

// partLen returns the length of the encoded part that b starts with, or 0 if b
// starts with none.
func partLen(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	n, flip := 0, byte(0)
	if b[0] >= 0x80 {
		flip = 0xff
	}
	switch b[0] ^ flip {
	case tagString:
		return stringLen(b, flip)
	case tagFalse, tagTrue:
		n = 1
	case tagInt:
		n = 9
	case tagTime:
		n = 13
	}
	if len(b) < n {
		return 0
	}
	return n
}

func stringLen(b []byte, flip byte) int {
	for n := 1; ; n += 2 {
		i := bytes.IndexByte(b[n:], escape^flip)
		if n += i; i < 0 || n+1 >= len(b) {
			return 0
		}
		if b[n+1] == terminator^flip {
			return n + 2
		}
	}
}

// cutString decodes the string that b starts with and returns what follows it.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	n := partLen(b)
	if n == 0 || b[0] != tagString {
		return "", nil, false
	}
	body := b[1 : n-2]
	if bytes.IndexByte(body, escape) >= 0 {
		body = bytes.ReplaceAll(body, []byte{escape, escapedNUL}, []byte{escape})
	}
	return string(body), b[n:], true
}

// cutInt decodes the integer that b starts with and returns what follows it.
func cutInt(b []byte) (i int64, rest []byte, ok bool) {
	if len(b) < 9 || b[0] != tagInt {
		return 0, nil, false
	}
	return int64(binary.BigEndian.Uint64(b[1:]) ^ 1<<63), b[9:], true
}

// lastString decodes the last part of an encoded key, which must be a string.
func lastString(b []byte) (s string, ok bool) {
	for {
		n := partLen(b)
		if n == 0 {
			return "", false
		}
		if n == len(b) {
			s, _, ok = cutString(b)
			return s, ok
		}
		b = b[n:]
	}
}

// after returns the least key above every key that starts with b.
func after(b []byte) []byte {
	return append(bytes.Clone(b), aboveAll)
}
