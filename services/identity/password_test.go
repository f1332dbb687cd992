package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"latchkey.dev/services/internal/fault"
)

// cheap makes tests fast; what it costs is no part of what they look at.
var cheap = params{memory: 64, passes: 1, threads: 1}

func TestPasswordRoundTrip(t *testing.T) {
	ctx := t.Context()
	h := newHasher(currentParams, 1, rand.Reader)
	phc, err := h.hash(ctx, "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	if want := "$argon2id$v=19$m=19456,t=2,p=1$"; !strings.HasPrefix(phc, want) {
		t.Errorf("got %q, want it to start with %q", phc, want)
	}
	parsed, err := parseHash(phc)
	if err != nil || parsed.String() != phc || len(parsed.salt) != 16 || len(parsed.key) != 32 {
		t.Errorf("parseHash(%q) = %+v, %v", phc, parsed, err)
	}
	for password, want := range map[string]bool{
		"correct horse battery staple": true, "correct horse battery stapl": false, "": false,
		"correct horse battery staple ": false, "Correct horse battery staple": false,
	} {
		if ok, stale, err := h.verify(ctx, phc, password); ok != want || stale || err != nil {
			t.Errorf("verify %q: got %v, %v, %v, want %v", password, ok, stale, err, want)
		}
	}
	again, err := h.hash(ctx, "correct horse battery staple")
	if err != nil || again == phc {
		t.Errorf("the same password twice has the same hash %q, %v: its salt is not random", again, err)
	}
}

// The example of the reference implementation's tests, argon2id v19 with t=2, m=256, p=1.
func TestPasswordOfTheReference(t *testing.T) {
	const phc = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	h := newHasher(cheap, 1, rand.Reader)
	if ok, stale, err := h.verify(t.Context(), phc, "password"); !ok || !stale || err != nil {
		t.Errorf("got %v, %v, %v, want true, true, nil", ok, stale, err)
	}
}

func TestPasswordIsNormalized(t *testing.T) {
	h := newHasher(cheap, 1, rand.Reader)
	phc, err := h.hash(t.Context(), "Åﬁ12345678901") // precomposed, with a ligature
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := h.verify(t.Context(), phc, "A\u030afi12345678901"); !ok || err != nil {
		t.Errorf("the same characters typed otherwise: got %v, %v, want true", ok, err)
	}
}

func TestParseHashRefuses(t *testing.T) {
	const good = "$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	if _, err := parseHash(good); err != nil {
		t.Fatalf("parseHash(%q): %v", good, err)
	}
	for _, change := range [][2]string{
		{"argon2id", "argon2i"}, {"v=19", "v=16"}, {"v=19$", ""}, {"m=64", "m=7"}, {"m=64", "m=2000000"}, {"m=64,t=1", "m=262144,t=5"},
		{"m=64", "m=99999999999"}, {"m=64", "m=-64"}, {"m=64", "m=+64"}, {"m=64", "m=064"}, {"m=64", "m= 64"},
		{"t=1", "t=0"}, {"t=1", "t=17"}, {"p=1", "p=0"}, {"p=1", "p=300"}, {"p=1", "p=1,x=2"}, {"m=64,t=1", "t=1,m=64"},
		{"$AAAAAAAAAAAAAAAAAAAAAA$", "$AAAA$"}, {"$AAAAAAAAAAAAAAAAAAAAAA$", "$AAAAAAAAAAAAAAAAAAAAAB$"},
		{"$AAAAAAAAAAAAAAAAAAAAAA$", "$AAAAAAAAAAAAAAAAAAAAAA==$"}, {"$AAAAAAAAAAAAAAAAAAAAAA$", "$AAAAAAAAAAA\nAAAAAAAAAAA$"},
		{"$argon2id", "argon2id"}, {"$argon2id", "x$argon2id"}, {"1$A", "1$$A"},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if text == good {
			t.Fatalf("%q does not change %q", change, good)
		}
		if _, err := parseHash(text); !errors.Is(err, errPHC) {
			t.Errorf("parseHash(%q): got %v, want %v", text, err, errPHC)
		}
	}
}

// An unknown person costs exactly as many hashes as a known one.
func TestVerifyWithoutAHashDoesTheSameWork(t *testing.T) {
	h := newHasher(cheap, 1, rand.Reader)
	phc, err := h.hash(t.Context(), "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	work := func(phc, password string) (int64, bool) {
		before := h.done.Load()
		ok, _, err := h.verify(t.Context(), phc, password)
		if err != nil {
			t.Fatal(err)
		}
		return h.done.Load() - before, ok
	}
	if n, ok := work(phc, "correct horse battery staple"); n != 1 || !ok {
		t.Errorf("known and right: %d hashes, %v, want 1, true", n, ok)
	}
	if n, ok := work(phc, "wrong"); n != 1 || ok {
		t.Errorf("known and wrong: %d hashes, %v, want 1, false", n, ok)
	}
	if n, ok := work("", "correct horse battery staple"); n != 1 || ok {
		t.Errorf("unknown: %d hashes, %v, want 1, false", n, ok)
	}
	if got := h.dummy.params; got != h.params {
		t.Errorf("the dummy costs %+v, new hashes %+v", got, h.params)
	}
}

func TestHashersAdmitNoMoreThanTheyMay(t *testing.T) {
	const cores = 2
	h := newHasher(cheap, cores, rand.Reader)
	var mu sync.Mutex
	running, most := 0, 0
	release := make(chan struct{})
	started := make(chan struct{}, cap(h.places))
	work := func() {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		started <- struct{}{}
		<-release
		mu.Lock()
		running--
		mu.Unlock()
	}
	var all sync.WaitGroup
	results := make(chan error, cap(h.places))
	for range cap(h.places) {
		all.Go(func() { results <- h.admitted(t.Context(), work) })
	}
	for range cores {
		<-started
	}
	// Everybody has a place only when the last one is taken.
	for len(h.places) < cap(h.places) {
		runtime.Gosched()
	}
	err := h.admitted(t.Context(), func() { t.Error("one too many was let in") })
	checkLimit(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	close(release)
	all.Wait()
	for range cap(h.places) {
		if err := <-results; err != nil {
			t.Errorf("a place was promised, got %v", err)
		}
	}
	if most != cores {
		t.Errorf("%d hashes ran at once, want %d", most, cores)
	}
	// Afterwards there is room again, but not for who has gone away.
	if err := h.admitted(t.Context(), func() {}); err != nil {
		t.Errorf("after the storm: %v", err)
	}
	h.cores <- struct{}{}
	h.cores <- struct{}{}
	if err := h.admitted(ctx, func() { t.Error("worked for nobody") }); !errors.Is(err, context.Canceled) {
		t.Errorf("who went away: got %v, want %v", err, context.Canceled)
	}
}

func checkLimit(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Code != codes.ResourceExhausted || e.RetryAfter <= 0 {
		t.Errorf("got %v, want RESOURCE_EXHAUSTED with a time to try again", err)
		return
	}
	if details := status.Convert(e.GRPCStatus().Err()).Details(); len(details) != 2 {
		t.Errorf("got details %v, want ErrorInfo and RetryInfo", details)
	}
}

func TestLimiter(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	l := newLimiter("x", 3, time.Minute, func() time.Time { return now })
	for i := range 3 {
		if _, err := l.try("a"); err != nil {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	_, err := l.try("a")
	checkLimit(t, err)
	forgive, err := l.try("b")
	if err != nil {
		t.Fatalf("another key: %v", err)
	}
	forgive()
	if n := len(l.counts); n != 1 {
		t.Errorf("%d keys are remembered, want 1", n)
	}
	now = now.Add(time.Minute)
	if _, err := l.try("a"); err != nil {
		t.Errorf("a minute later: %v", err)
	}
	forgive() // of the window before: must not count
	if l.counts["b"] != 0 || l.counts["a"] != 1 {
		t.Errorf("got %v, want a: 1", l.counts)
	}
	now = now.Add(-time.Hour)
	for range 3 {
		if _, err := l.try("a"); err != nil {
			t.Errorf("after the clock was set back: %v", err)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add("")
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")
	f.Add("$argon2id$v=19$m=4294967296,t=2,p=257$$")
	f.Add("$2b$10$abcdefghijklmnopqrstuv")
	f.Add("$$$$$")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parseHash(text)
		switch {
		case err != nil && (!errors.Is(err, errPHC) || h.salt != nil || h.key != nil):
			t.Errorf("parseHash(%q) = %+v, %v", text, h, err)
		case err == nil && (h.String() != text || !h.inBounds()):
			t.Errorf("parseHash(%q) = %+v, which is %q", text, h, h)
		}
	})
}

func TestHashPasswordUsesItsSalt(t *testing.T) {
	a := hashPassword(cheap, "x", bytes.Repeat([]byte{1}, saltSize))
	b := hashPassword(cheap, "x", bytes.Repeat([]byte{2}, saltSize))
	if bytes.Equal(a.key, b.key) {
		t.Error("two salts give the same key")
	}
}
