package catalog

import (
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// anySet draws any set at all, with bits that name nothing among them.
var anySet = rapid.Custom(func(t *rapid.T) Set {
	var s Set
	for i := range s {
		s[i] = rapid.Uint64().Draw(t, "word")
	}
	return s
})

var anyBit = rapid.Map(rapid.IntRange(0, setBits-1), func(n int) Bit { return Bit(n) })

// number is the model of a set: a big integer with the same bits.
func number(s Set) *big.Int {
	n := new(big.Int)
	for b := range Bit(setBits) {
		if s.Has(b) {
			n.SetBit(n, int(b), 1)
		}
	}
	return n
}

func TestSetAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, u := anySet.Draw(t, "s"), anySet.Draw(t, "u")
		if rapid.Bool().Draw(t, "make u a part of s") {
			u = s.Without(u)
		}
		a, b := number(s), number(u)
		same := func(what string, got Set, want *big.Int) {
			if number(got).Cmp(want) != 0 {
				t.Errorf("%s: got %x, want %x", what, number(got), want)
			}
		}
		same("union", s.Union(u), new(big.Int).Or(a, b))
		same("without", s.Without(u), new(big.Int).AndNot(a, b))
		same("only keys", s.OnlyKeys(), new(big.Int).And(a, number(allBelow(settingBase))))
		if got, want := s.Contains(u), new(big.Int).AndNot(b, a).Sign() == 0; got != want {
			t.Errorf("contains: got %v, want %v", got, want)
		}
		if got, want := s.Intersects(u), new(big.Int).And(a, b).Sign() != 0; got != want {
			t.Errorf("intersects: got %v, want %v", got, want)
		}
		if got, want := s.Empty(), a.Sign() == 0; got != want {
			t.Errorf("empty: got %v, want %v", got, want)
		}
	})
}

func allBelow(end Bit) Set {
	var s Set
	for b := range end {
		s.Add(b)
	}
	return s
}

// Contains must look at every word, which random sets seldom show.
func TestContainsSeesEachBit(t *testing.T) {
	full := allBelow(setBits)
	for b := range Bit(setBits) {
		var one Set
		one.Add(b)
		rest := full.Without(one)
		if rest.Contains(one) || rest.Contains(full) || !full.Contains(one) || rest.Intersects(one) || one.Empty() {
			t.Errorf("bit %d is not seen", b)
		}
	}
}

func TestAddAndRemove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, b, other := anySet.Draw(t, "s"), anyBit.Draw(t, "b"), anyBit.Draw(t, "other")
		before := s.Has(other)
		s.Add(b)
		if !s.Has(b) || s.Empty() {
			t.Errorf("%d was added and is not there", b)
		}
		n := s.Len()
		s.Remove(b)
		if s.Has(b) || s.Len() != n-1 {
			t.Errorf("%d was removed and is there, or more than it went", b)
		}
		if other != b && s.Has(other) != before {
			t.Errorf("adding and removing %d changed %d", b, other)
		}
	})
}

func TestAllYieldsEachOnceInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anySet.Draw(t, "s")
		all := slices.Collect(s.All())
		var again Set
		for _, b := range all {
			again.Add(b)
		}
		if again != s || len(all) != s.Len() || !slices.IsSorted(all) {
			t.Errorf("All of %x gave %v", s, all)
		}
		for b := range s.All() {
			if b != all[0] {
				t.Errorf("the first is %d, not %d", b, all[0])
			}
			break
		}
	})
}

func TestWireForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anySet.Draw(t, "s")
		got, err := SetFromBytes(s.Bytes())
		if err != nil || got != s {
			t.Errorf("%x came back as %x, %v", s, got, err)
		}
		p := rapid.SliceOfN(rapid.Byte(), 0, 2*setBytes).Draw(t, "bytes")
		if _, err := SetFromBytes(p); (err == nil) != (len(p) == setBytes) {
			t.Errorf("%d bytes: error %v", len(p), err)
		}
	})
	if _, err := SetFromBytes(nil); err == nil {
		t.Error("an absent field was taken for an empty set")
	}
}

// The wire form is stored by other versions: bit n is bit n%8 of byte n/8.
func TestWireFormIsStable(t *testing.T) {
	for b := range Bit(setBits) {
		var s Set
		s.Add(b)
		want := make([]byte, 40)
		want[b/8] = 1 << (b % 8)
		if got := s.Bytes(); !slices.Equal(got, want) {
			t.Errorf("bit %d is sent as %x, want %x", b, got, want)
		}
	}
	for name, want := range map[string]Bit{
		"Appointments:Email": 1, "Web": 112, "ServiceRequests": 201, "EndOfPeriod:Submit": 259,
		"setting:see_pricing": 265, "setting:hide_future_on_details": 279,
		"feature:campaigns": 289, "feature:texting": 295,
	} {
		if got := MustGrant(name); got != want {
			t.Errorf("%s is bit %d, want %d", name, got, want)
		}
	}
}

func TestBitOutOfRangePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a bit beyond the set was looked up")
		}
	}()
	new(Set).Has(setBits)
}

func TestSetOf(t *testing.T) {
	s, err := SetOf("Invoices:Void", "setting:see_pricing", "feature:routing")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for b := range s.All() {
		got = append(got, b.String())
	}
	if want := []string{"Invoices:Void", "setting:see_pricing", "feature:routing"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if s, err := SetOf("Invoices", "invoices:void"); err == nil || !s.Empty() {
		t.Errorf("a misspelled grant gave %v, %v", s, err)
	}
}

func TestChecksDoNotAllocate(t *testing.T) {
	s, need := fullSet(), mustSet([]string{"Invoices", "Invoices:Void"})
	n := testing.AllocsPerRun(100, func() {
		if !s.Contains(need) || !s.Intersects(need) || !s.Has(web) || Gate(s).Empty() {
			t.Error("the full set lacks something")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// fullSet is the set of every grant there is.
func fullSet() Set {
	var s Set
	for _, b := range data.grants {
		s.Add(b)
	}
	return s
}

func BenchmarkContains(b *testing.B) {
	s, need := fullSet(), mustSet([]string{"Invoices", "Invoices:Void"})
	b.ReportAllocs()
	held := 0
	for b.Loop() {
		if s.Contains(need) {
			held++
		}
	}
	if held == 0 {
		b.Error("never held")
	}
}

func BenchmarkEffective(b *testing.B) {
	s := fullSet()
	b.ReportAllocs()
	for b.Loop() {
		s = Effective(s)
	}
}
