package store

import (
	"bytes"
	"cmp"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
)

// part is a key part of a random type, one type for each number of kind.
func part(t *rapid.T, kind int) any {
	switch kind {
	case 0:
		return rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.RuneFrom([]rune("\x00\x01\xfe\xffab")), 0, 4, -1)).Draw(t, "string")
	case 1:
		return rapid.OneOf(rapid.Int64(), rapid.Int64Range(-2, 2)).Draw(t, "int")
	case 2:
		return rapid.Bool().Draw(t, "bool")
	case 3:
		return time.Unix(rapid.Int64Range(-1e11, 1e11).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos")).UTC()
	default:
		return Desc(part(t, kind-4))
	}
}

func compareParts(a, b any) int {
	switch a := a.(type) {
	case string:
		return strings.Compare(a, b.(string))
	case int64:
		return cmp.Compare(a, b.(int64))
	case bool:
		if a == b.(bool) {
			return 0
		}
		if a {
			return 1
		}
		return -1
	case time.Time:
		return a.Compare(b.(time.Time))
	default:
		return -compareParts(a.(desc).part, b.(desc).part)
	}
}

func compareKeys(a, b Key) int {
	for i := range min(len(a), len(b)) {
		if c := compareParts(a[i], b[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// twoKeys draws two keys of the same kinds of parts, often with equal ones.
func twoKeys(t *rapid.T) (a, b Key) {
	kinds := rapid.SliceOfN(rapid.IntRange(0, 7), 1, 4).Draw(t, "kinds")
	for _, kind := range kinds {
		a = append(a, part(t, kind))
		if rapid.Bool().Draw(t, "equal") {
			b = append(b, a[len(a)-1])
		} else {
			b = append(b, part(t, kind))
		}
	}
	return a[:rapid.IntRange(1, len(a)).Draw(t, "len a")], b[:rapid.IntRange(1, len(b)).Draw(t, "len b")]
}

func TestKeyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := twoKeys(t)
		ea, eb := a.appendTo(nil), b.appendTo(nil)
		if got, want := bytes.Compare(ea, eb), compareKeys(a, b); got != want {
			t.Fatalf("compare %v (%x) with %v (%x): got %d, want %d", a, ea, b, eb, got, want)
		}
	})
}

func TestKeyPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := twoKeys(t)
		ea, eb := a.appendTo(nil), b.appendTo(nil)
		want := len(a) <= len(b) && compareKeys(a, b[:len(a)]) == 0
		if got := bytes.HasPrefix(eb, ea); got != want {
			t.Fatalf("%v starts with %v: got %t, want %t", b, a, got, want)
		}
		if within := bytes.Compare(eb, ea) >= 0 && bytes.Compare(eb, after(ea)) < 0; within != want {
			t.Fatalf("%v is in the range of %v: got %t, want %t", b, a, within, want)
		}
	})
}

func TestKeyParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, _ := twoKeys(t)
		id := rapid.String().Draw(t, "id")
		b := appendString(k.appendTo(nil), id)
		if got, ok := lastString(b); !ok || got != id {
			t.Fatalf("last part of %x: got %q, %t, want %q", b, got, ok, id)
		}
		for n := range len(b) {
			lastString(b[:n]) // must not panic
		}
	})
}

func TestKeyKinds(t *testing.T) {
	for _, c := range []struct{ part, same any }{
		{faultpb.Reason_REASON_LEASE_LOST, int64(16)},
		{7, int64(7)},
		{uint8(7), int64(7)},
		{int64(math.MinInt64), int64(math.MinInt64)},
		{cmpString("x"), "x"},
		{Desc(Desc("x")), "x"},
	} {
		if got, want := (Key{c.part}).appendTo(nil), (Key{c.same}).appendTo(nil); !bytes.Equal(got, want) {
			t.Errorf("%T %v: got %x, want %x", c.part, c.part, got, want)
		}
	}
	for _, bad := range []any{nil, 1.5, []string{"x"}, uint64(math.MaxUint64), struct{}{}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T can be part of a key", bad)
				}
			}()
			Key{bad}.appendTo(nil)
		}()
	}
}

type cmpString string
