package authz_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
)

// lent are cells of which there is an end.
type lent struct {
	mu    sync.Mutex
	left  int
	given map[*authz.Cell]bool // whether nobody has it any more
}

var errNoCell = errors.New("there is no cell")

func (l *lent) cell(string, string, catalog.Bit) (*authz.Cell, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == 0 {
		return nil, nil, errNoCell
	}
	l.left--
	c := &authz.Cell{}
	l.given[c] = false
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.given[c] = true
	}, nil
}

func (l *lent) back() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, back := range l.given {
		if back {
			n++
		}
	}
	return n
}

func set(t testing.TB, names ...string) catalog.Set {
	t.Helper()
	s, err := catalog.SetOf(names...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A call for which there is no cell fails, and nothing of it is counted.
func TestNoCellNoCall(t *testing.T) {
	l := &lent{left: 1, given: map[*authz.Cell]bool{}}
	m, u := &authz.Meter{NewCell: l.cell}, &authz.Uses{Organization: "org", User: "ann"}
	for range 3 {
		if err := m.Count(u, set(t, "Web", "Invoices:Void")); !errors.Is(err, errNoCell) {
			t.Errorf("got %v, want that there is no cell", err)
		}
	}
	l.left = 1
	if err := m.Count(u, set(t, "Web", "Invoices:Void")); err != nil {
		t.Error(err)
	}
	u.Consult(catalog.MustGrant("Invoices")) // is told of without a cell
	told, reads := 0, 0
	m.Take(func(used authz.Used) {
		told++
		reads += int(used.Reads)
	})
	if told != 3 || reads != 2 {
		t.Errorf("%d uses are told of with %d reads, want 3 with 2", told, reads)
	}
}

// Cells are given back when nobody can count in them any more, and not before.
func TestCellsAreGivenBack(t *testing.T) {
	l := &lent{left: 100, given: map[*authz.Cell]bool{}}
	m, u := &authz.Meter{NewCell: l.cell}, &authz.Uses{Organization: "org", User: "ann"}
	total := 0
	take := func() { m.Take(func(used authz.Used) { total += int(used.Reads) }) }
	count := func() {
		t.Helper()
		if err := m.Count(u, set(t, "Web", "Invoices:Void")); err != nil {
			t.Fatal(err)
		}
		u.Consult(catalog.MustGrant("Invoices"))
	}
	count()
	runtime.GC()
	take()
	count()
	take()
	if n := l.back(); n != 0 {
		t.Fatalf("%d cells are given back of a session that goes on", n)
	}
	take() // it has paused
	for l.back() < 3 {
		runtime.GC()
	}
	count()
	take()
	if total != 6 || l.back() != 3 || len(l.given) != 6 {
		t.Errorf("%d reads, %d of %d cells given back, want 6, 3 and 6", total, l.back(), len(l.given))
	}
	runtime.KeepAlive(u)
}

// BenchmarkCount counts the reads of a session that goes on, as at each call.
func BenchmarkCount(b *testing.B) {
	m, u := &authz.Meter{}, &authz.Uses{Organization: "org", User: "ann"}
	grants := set(b, "Web", "Invoices:Void", "setting:see_pricing")
	consulted := catalog.MustGrant("Invoices")
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Count(u, grants); err != nil {
			b.Fatal(err)
		}
		u.Consult(consulted)
	}
}
