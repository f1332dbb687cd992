package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"latchkey.dev/services/internal/store"
)

var engineTests = map[string]func(*testing.T, func() store.Engine){
	"get and scan":                 engineGetAndScan,
	"values are kept as they are":  engineValues,
	"an update is all or nothing":  engineAllOrNothing,
	"updates follow one another":   engineSerial,
	"a panic harms nobody":         enginePanic,
	"what was written stays":       engineDurable,
	"closed":                       engineClosed,
	"random updates against a map": engineRandom, // in random.go
	"ended context":                engineContext,
}

func runEngine(t *testing.T, place func(t *testing.T) func() store.Engine) {
	for name, f := range engineTests {
		t.Run(name, func(t *testing.T) { f(t, place(t)) })
	}
}

func mustOpen(t *testing.T, open func() store.Engine) store.Engine {
	t.Helper()
	e := open()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

// set writes pairs of keys and values.
func set(t *testing.T, e store.Engine, pairs ...string) {
	t.Helper()
	var writes []store.Write
	for i := 0; i < len(pairs); i += 2 {
		writes = append(writes, store.Write{Key: []byte(pairs[i]), Value: []byte(pairs[i+1])})
	}
	if err := e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) { return writes, nil }); err != nil {
		t.Fatalf("update: %v", err)
	}
}

// scanned returns the pairs of a scan as "key=value".
func scanned(t interface{ Fatal(...any) }, s store.Snapshot, lo, hi string, reverse bool) (got []string) {
	for p, err := range s.Scan([]byte(lo), []byte(hi), reverse) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s=%s", p.Key, p.Value))
	}
	return got
}

func view(t interface{ Fatal(...any) }, e store.Engine, f func(store.Snapshot)) {
	err := e.View(context.Background(), func(s store.Snapshot) error {
		f(s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func engineGetAndScan(t *testing.T, open func() store.Engine) {
	e := mustOpen(t, open)
	view(t, e, func(s store.Snapshot) {
		if got := scanned(t, s, "\x00", "\xff", false); got != nil {
			t.Errorf("a new engine holds %q", got)
		}
	})
	set(t, e, "b", "2", "d", "4", "a", "1", "c", "3")
	for _, c := range []struct {
		lo, hi  string
		reverse bool
		want    []string
	}{
		{"\x00", "\xff", false, []string{"a=1", "b=2", "c=3", "d=4"}},
		{"\x00", "\xff", true, []string{"d=4", "c=3", "b=2", "a=1"}},
		{"b", "d", false, []string{"b=2", "c=3"}},
		{"b", "d", true, []string{"c=3", "b=2"}},
		{"aa", "cc", false, []string{"b=2", "c=3"}},
		{"aa", "cc", true, []string{"c=3", "b=2"}},
		{"d", "e", true, []string{"d=4"}},
		{"e", "f", false, nil},
		{"e", "f", true, nil},
		{"\x00", "a", true, nil},
		{"b", "b", false, nil},
	} {
		view(t, e, func(s store.Snapshot) {
			if got := scanned(t, s, c.lo, c.hi, c.reverse); !slices.Equal(got, c.want) {
				t.Errorf("scan %q to %q, reverse %t: got %q, want %q", c.lo, c.hi, c.reverse, got, c.want)
			}
		})
	}
	view(t, e, func(s store.Snapshot) {
		for key, want := range map[string][]byte{"b": []byte("2"), "bb": nil} {
			if got, err := s.Get([]byte(key)); err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("get %q: got %q, %v, want %q", key, got, err, want)
			}
		}
	})
}

func engineValues(t *testing.T, open func() store.Engine) {
	e := mustOpen(t, open)
	big := bytes.Repeat([]byte("x"), 1<<20)
	key := bytes.Repeat([]byte("k"), 3000)
	set(t, e, "empty", "", "big", string(big), string(key), "long key", "zero\x00", "\x00")
	view(t, e, func(s store.Snapshot) {
		for k, want := range map[string]string{"empty": "", "big": string(big), string(key): "long key", "zero\x00": "\x00"} {
			if got, err := s.Get([]byte(k)); err != nil || got == nil || string(got) != want {
				t.Errorf("get a key of %d bytes: got %d bytes, %v, want %d", len(k), len(got), err, len(want))
			}
		}
	})
	// The bytes written may be used for something else afterwards.
	k, v := []byte("mine"), []byte("value")
	err := e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) {
		return []store.Write{{Key: k, Value: v}}, nil
	})
	copy(k, "XXXX")
	copy(v, "XXXXX")
	view(t, e, func(s store.Snapshot) {
		if got, _ := s.Get([]byte("mine")); err != nil || string(got) != "value" {
			t.Errorf("got %q, %v, want what was written", got, err)
		}
	})
}

func engineAllOrNothing(t *testing.T, open func() store.Engine) {
	e := mustOpen(t, open)
	set(t, e, "a", "1")
	err := e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) {
		return []store.Write{{Key: []byte("a")}, {Key: []byte("b"), Value: []byte("2")}}, errBoom
	})
	if err != errBoom {
		t.Errorf("got error %v, want the function's", err)
	}
	err = e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) {
		return []store.Write{{Key: []byte("b"), Value: []byte("2")}, {Key: nil, Value: []byte("x")}}, nil
	})
	if err == nil {
		t.Error("an empty key was written")
	}
	view(t, e, func(s store.Snapshot) {
		if got := scanned(t, s, "\x00", "\xff", false); !slices.Equal(got, []string{"a=1"}) {
			t.Errorf("got %q after failed updates", got)
		}
	})
}

func engineSerial(t *testing.T, open func() store.Engine) {
	e := mustOpen(t, open)
	const callers, each = 16, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				err := e.Update(context.Background(), func(s store.Snapshot) ([]store.Write, error) {
					n, err := s.Get([]byte("n"))
					if err != nil || i%5 == 4 {
						return nil, errBoom
					}
					return []store.Write{
						{Key: []byte("n"), Value: append(bytes.Clone(n), 'x')},
						{Key: fmt.Appendf(nil, "key%d-%d", c, i), Value: fmt.Append(nil, len(n))},
					}, nil
				})
				if err != nil && err != errBoom {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	view(t, e, func(s store.Snapshot) {
		n, _ := s.Get([]byte("n"))
		seen := map[string]bool{}
		for p := range s.Scan([]byte("key"), []byte("kez"), false) {
			seen[string(p.Value)] = true
		}
		if want := callers * each * 4 / 5; len(n) != want || len(seen) != want {
			t.Errorf("%d updates counted to %d and saw %d different states", want, len(n), len(seen))
		}
	})
}

func enginePanic(t *testing.T, open func() store.Engine) {
	e := mustOpen(t, open)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			f := func(store.Snapshot) ([]store.Write, error) {
				if i%2 == 0 {
					panic("bug")
				}
				return []store.Write{{Key: fmt.Append(nil, "k", i), Value: []byte("v")}}, nil
			}
			p := panics(func() {
				if err := e.Update(context.Background(), f); err != nil {
					t.Error(err)
				}
			})
			if (p == "bug") != (i%2 == 0) {
				t.Errorf("caller %d got panic %v", i, p)
			}
		})
	}
	wg.Wait()
	view(t, e, func(s store.Snapshot) {
		if got := scanned(t, s, "\x00", "\xff", false); len(got) != 10 {
			t.Errorf("got %d pairs, want 10", len(got))
		}
	})
}

func engineDurable(t *testing.T, open func() store.Engine) {
	e := open()
	set(t, e, "a", "1", "b", "2")
	set(t, e, "a", "3")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, open)
	view(t, e, func(s store.Snapshot) {
		if got := scanned(t, s, "\x00", "\xff", false); !slices.Equal(got, []string{"a=3", "b=2"}) {
			t.Errorf("got %q after reopening", got)
		}
	})
}

func engineClosed(t *testing.T, open func() store.Engine) {
	e := open()
	for range 2 {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	err := e.View(context.Background(), func(store.Snapshot) error { return nil })
	if !errors.Is(err, store.ErrClosed) {
		t.Errorf("view: got error %v, want ErrClosed", err)
	}
	err = e.Update(context.Background(), func(store.Snapshot) ([]store.Write, error) { return nil, nil })
	if !errors.Is(err, store.ErrClosed) {
		t.Errorf("update: got error %v, want ErrClosed", err)
	}
}

func engineContext(t *testing.T, open func() store.Engine) {
	e := mustOpen(t, open)
	ctx, cancel := context.WithCancel(context.Background())
	// Once the function has run, the outcome is told whatever happens to the context.
	err := e.Update(ctx, func(store.Snapshot) ([]store.Write, error) {
		cancel()
		return []store.Write{{Key: []byte("a"), Value: []byte("1")}}, nil
	})
	var got []byte
	view(t, e, func(s store.Snapshot) {
		b, _ := s.Get([]byte("a"))
		got = bytes.Clone(b)
	})
	if (err == nil) != (got != nil) {
		t.Errorf("got error %v, and what was written is %q", err, got)
	}
	err = e.Update(ctx, func(store.Snapshot) ([]store.Write, error) {
		t.Error("an update runs although its context has ended")
		return nil, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
	if err := e.View(ctx, func(store.Snapshot) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
}
