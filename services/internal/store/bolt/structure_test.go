package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"latchkey.dev/services/internal/store"
)

// problems returns what Check finds.
func problems(t *testing.T, e *Engine) (all []string) {
	t.Helper()
	pages, err := e.Check(t.Context(), func(problem string) { all = append(all, problem) })
	if err != nil {
		t.Fatal(err)
	}
	if pages < 4 {
		t.Errorf("%d pages were looked at", pages)
	}
	return all
}

func wantSound(t *testing.T, e *Engine, when string) {
	t.Helper()
	if found := problems(t, e); len(found) > 0 {
		t.Errorf("%s: %s", when, strings.Join(found, "; "))
	}
}

// TestCheck finds nothing wrong with a file that somebody writes to all the while, and compacts,
// nor with what a crash leaves.
func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e, err := Open(path, Hurried(Options{}, 8))
	if err != nil {
		t.Fatal(err)
	}
	wantSound(t, e, "new")
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	c := &churner{"a", rand.New(rand.NewPCG(1, 2)), map[string]string{}}
	c.forever(ctx, t, e, &work)
	for i := range 30 {
		wantSound(t, e, fmt.Sprintf("%d, while somebody writes", i))
		if i%10 == 9 {
			if _, err := e.Compact(t.Context(), nil); err != nil {
				t.Error(err)
			}
		}
	}
	cancel()
	work.Wait()
	left := filepath.Join(t.TempDir(), "left.db") // as a process that is killed leaves it
	for _, suffix := range []string{"", walSuffix} {
		b, err := os.ReadFile(path + suffix)
		if err == nil {
			err = os.WriteFile(left+suffix, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, left} {
		e, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		wantSound(t, e, "opened again")
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckFindsDamage damages each page of a file in several ways: opening it fails, or Check
// finds it.
func TestCheckFindsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	e, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	c := &churner{"a", rand.New(rand.NewPCG(3, 4)), map[string]string{}}
	for n := range 60 {
		if err := c.step(t.Context(), e, n); err != nil {
			t.Fatal(err)
		}
	}
	wantSound(t, e, "before")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	free, kinds := freeOf(t, path), map[uint16]int{}
	for at := 2 * os.Getpagesize(); at < len(good); at += os.Getpagesize() {
		var h header
		if _, err := binary.Decode(good[at:], binary.NativeEndian, &h); err != nil {
			t.Fatal(err)
		}
		if h.ID != uint64(at/os.Getpagesize()) || free[h.ID] || kinds[h.Flags] == 12 {
			continue
		}
		kinds[h.Flags]++
		for what, change := range damages(h) {
			b := bytes.Clone(good)
			change(b[at:])
			if bytes.Equal(b, good) {
				continue
			}
			if found := checkBytes(t, b); found == nil {
				t.Errorf("%s of page %d, of the kind %d, is damaged, and nobody noticed", what, h.ID, h.Flags)
			}
		}
	}
	if kinds[branchFlag] == 0 || kinds[leafFlag] < 10 || kinds[freelistFlag] != 1 {
		t.Errorf("the file has pages of the kinds %v", kinds)
	}
}

// freeOf returns which pages of a file are free.
func freeOf(t *testing.T, path string) map[uint64]bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, _ := newest(f)
	h, err := m.page(f, m.Freelist, freelistFlag)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := m.freePages(f, h)
	if err != nil {
		t.Fatal(err)
	}
	free := map[uint64]bool{}
	for _, id := range ids {
		free[id] = true
	}
	return free
}

// damages are what can be changed in a page.
func damages(h header) map[string]func(page []byte) {
	all := map[string]func(page []byte){
		"the number":         func(b []byte) { b[0] ^= 1 },
		"the kind":           func(b []byte) { b[8] ^= 8 },
		"how many follow it": func(b []byte) { b[12] ^= 1 },
	}
	if h.Flags == freelistFlag {
		all["an entry"] = func(b []byte) { b[headerSize] ^= 1 }
		return all
	}
	first := func(b []byte) int { // where its first key is
		e, _ := elementAt(b, 0, h.Flags == branchFlag)
		return bytes.Index(b, e.key)
	}
	if h.Count > 1 {
		all["the order of its keys"] = func(b []byte) { b[first(b)] = 0xff }
		all["the size of its last element"] = func(b []byte) { b[headerSize+(int(h.Count)-1)*elementSize+7] = 0xff }
	}
	if h.Flags == branchFlag {
		all["the page below"] = func(b []byte) { b[headerSize+8] ^= 1 }
	}
	return all
}

// checkBytes returns what is found to be wrong with a file.
func checkBytes(t *testing.T, b []byte) (found []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "damaged.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Open(path, Options{NoSync: true})
	if err != nil {
		return []string{err.Error()}
	}
	found = problems(t, e)
	if err := e.Close(); err != nil {
		t.Log(err)
	}
	return found
}

var _ store.Checker = (*Engine)(nil)
