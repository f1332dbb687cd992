package catalog

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
)

// Where the three kinds of grant lie in a Set. These are part of the wire form
// and never change.
const (
	settingBase = 264 // setting n is bit 264+n, n at most 23
	featureBase = 288 // feature n is bit 288+n, n at most 31
	setBits     = 320
	setBytes    = setBits / 8
)

// Bit is the place of one grant in a Set. Bits come from this package; one of
// 320 or more makes the methods of Set panic.
type Bit uint16

// String returns the name of the grant: "Invoices:Void", "setting:see_pricing",
// "feature:routing". A bit that names nothing is "unknown:" and its number.
func (b Bit) String() string {
	if b < setBits && data.names[b] != "" {
		return data.names[b]
	}
	return fmt.Sprintf("unknown:%d", uint16(b))
}

// Set is a set of grants. The zero Set is empty. It is a value: it can be
// copied, compared with == and used as a key of a map.
type Set [setBits / 64]uint64

// SetOf returns the set of the grants with these names, spelled exactly.
func SetOf(names ...string) (Set, error) {
	var s Set
	for _, name := range names {
		b, ok := Grant(name)
		if !ok {
			return Set{}, fmt.Errorf("%q is not a grant", name)
		}
		s.Add(b)
	}
	return s, nil
}

// SetFromBytes reads the wire form that Bytes makes. Anything of another length
// is an error, so that an absent field is not taken for an empty set. Bits that
// this version cannot name are kept: a newer process may have sent them, and a
// comparison of two sets must not lose them. Gate drops them.
func SetFromBytes(p []byte) (Set, error) {
	if len(p) != setBytes {
		return Set{}, fmt.Errorf("a set of grants has %d bytes, not %d", setBytes, len(p))
	}
	var s Set
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(p[8*i:])
	}
	return s, nil
}

// Bytes returns the wire form of the set: 40 bytes, bit n at bit n%8 of byte n/8.
func (s Set) Bytes() []byte {
	p := make([]byte, 0, setBytes)
	for _, w := range s {
		p = binary.LittleEndian.AppendUint64(p, w)
	}
	return p
}

// Has reports whether b is in the set.
func (s Set) Has(b Bit) bool { return s[b/64]>>(b%64)&1 != 0 }

// Add puts b into the set.
func (s *Set) Add(b Bit) { s[b/64] |= 1 << (b % 64) }

// Remove takes b out of the set.
func (s *Set) Remove(b Bit) { s[b/64] &^= 1 << (b % 64) }

// Contains reports whether every grant of t is in s. It is what each call of
// the suite is checked with, so it has one branch and allocates nothing.
func (s Set) Contains(t Set) bool {
	return t[0]&^s[0]|t[1]&^s[1]|t[2]&^s[2]|t[3]&^s[3]|t[4]&^s[4] == 0
}

// Intersects reports whether s and t have a grant in common.
func (s Set) Intersects(t Set) bool {
	return s[0]&t[0]|s[1]&t[1]|s[2]&t[2]|s[3]&t[3]|s[4]&t[4] != 0
}

// Intersection returns the grants that are in s and in t.
func (s Set) Intersection(t Set) Set {
	return Set{s[0] & t[0], s[1] & t[1], s[2] & t[2], s[3] & t[3], s[4] & t[4]}
}

// Union returns the grants that are in s or in t.
func (s Set) Union(t Set) Set {
	return Set{s[0] | t[0], s[1] | t[1], s[2] | t[2], s[3] | t[3], s[4] | t[4]}
}

// Without returns the grants of s that are not in t.
func (s Set) Without(t Set) Set {
	return Set{s[0] &^ t[0], s[1] &^ t[1], s[2] &^ t[2], s[3] &^ t[3], s[4] &^ t[4]}
}

// OnlyKeys returns the keys of s, without its settings and features. The rule of
// delegation compares keys alone: a technician who may pull from the queue does
// not stand above an owner who has no queue.
func (s Set) OnlyKeys() Set {
	s[settingBase/64] &= 1<<(settingBase%64) - 1
	return s
}

// Empty reports whether the set has no grant.
func (s Set) Empty() bool { return s == Set{} }

// Len returns the number of grants in the set.
func (s Set) Len() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// All yields the grants of the set in rising order: keys, settings, features.
func (s Set) All() iter.Seq[Bit] {
	return func(yield func(Bit) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(Bit(64*i + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}
