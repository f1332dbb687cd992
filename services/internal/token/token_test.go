package token

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"hash/crc32"
	"strings"
	"testing"
)

func TestNewIsWellFormedAndHashedAsItStands(t *testing.T) {
	sources := map[string][]byte{
		"zero": make([]byte, 32),
		"ones": bytes.Repeat([]byte{0xff}, 32),
		"one":  append(make([]byte, 31), 1),
	}
	for name, raw := range sources {
		text, hash := New("lk_", bytes.NewReader(raw))
		if len(text) != 3+43+6 || !strings.HasPrefix(text, "lk_") {
			t.Errorf("%s: %q has %d characters, want lk_ and 49 more", name, text, len(text))
		}
		if want := sha256.Sum256([]byte(text)); hash != want {
			t.Errorf("%s: hash is %x, want %x", name, hash, want)
		}
		got, err := Hash(text)
		if err != nil || got != hash {
			t.Errorf("%s: Hash(%q) = %x, %v, want %x", name, text, got, err, hash)
		}
	}
}

func TestTokensDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		text, _ := New("lk_", rand.Reader)
		if seen[text] {
			t.Fatalf("%q came twice", text)
		}
		seen[text] = true
	}
}

// SECURITY: a wrong character anywhere is found without a look-up.
func TestHashFindsEveryWrongCharacter(t *testing.T) {
	text, _ := New("lk_", rand.Reader)
	for i := range text {
		for _, c := range []byte("0aZ_ \x00\xff") {
			wrong := []byte(text)
			if wrong[i] == c {
				continue
			}
			wrong[i] = c
			if _, err := Hash(string(wrong)); err != ErrMalformed {
				t.Errorf("character %d as %q: got %v, want %v", i, c, err, ErrMalformed)
			}
		}
	}
}

func TestHashRefusesWrongShapes(t *testing.T) {
	text, _ := New("lk_", rand.Reader)
	for _, wrong := range []string{
		"", "lk_", text[:len(text)-1], text + "0", text[1:], "x" + text, strings.ToUpper(text),
		text[3:], "_" + text[3:], strings.Repeat("a", 1<<16), " " + text, text + "\n",
	} {
		if _, err := Hash(wrong); err != ErrMalformed {
			t.Errorf("Hash(%.80q): got %v, want %v", wrong, err, ErrMalformed)
		}
	}
}

func TestNewRefusesPrefix(t *testing.T) {
	for _, prefix := range []string{"", "_", "lk", "LK_", "l k_", "abcdefgh_"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%q) did not panic", prefix)
				}
			}()
			New(prefix, rand.Reader)
		}()
	}
}

// Every call of the suite hashes its token.
func TestHashAllocatesNothing(t *testing.T) {
	text, _ := New("lk_", rand.Reader)
	if n := testing.AllocsPerRun(100, func() { _, _ = Hash(text) }); n != 0 {
		t.Errorf("Hash allocates %v times, want 0", n)
	}
}

func TestChecksumIsCRC32(t *testing.T) {
	text := []byte("lk_000")
	var want [sumLen]byte
	sum := crc32.ChecksumIEEE(text)
	for i := range want {
		want[sumLen-1-i] = digits[sum%62]
		sum /= 62
	}
	if got := checksum(text); got != want {
		t.Errorf("checksum(%q) = %q, want %q", text, got, want)
	}
}

func FuzzHash(f *testing.F) {
	good, _ := New("lk_", bytes.NewReader(make([]byte, 32)))
	for _, seed := range []string{"", "lk_", good, good[:51], "a_" + good[3:], strings.Repeat("lk_", 30), "lk_\xff\xfe"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		hash, err := Hash(text)
		if err != nil {
			if err != ErrMalformed || hash != [32]byte{} {
				t.Errorf("Hash(%q) = %x, %v", text, hash, err)
			}
			return
		}
		if want := sha256.Sum256([]byte(text)); hash != want {
			t.Errorf("Hash(%q) = %x, want %x", text, hash, want)
		}
		sum := checksum([]byte(text[:len(text)-sumLen]))
		if !strings.HasSuffix(text, string(sum[:])) {
			t.Errorf("%q was accepted with a wrong checksum", text)
		}
	})
}

func BenchmarkHash(b *testing.B) {
	text, _ := New("lk_", rand.Reader)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = Hash(text)
	}
}

func TestHashAny(t *testing.T) {
	opaque, want := New("lk_", rand.Reader)
	if got, err := HashAny(opaque); err != nil || got != want {
		t.Errorf("HashAny(%q) = %x, %v, want %x", opaque, got, err, want)
	}
	const signed = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln-bmF0_dXJl"
	if got, err := HashAny(signed); err != nil || got != sha256.Sum256([]byte(signed)) {
		t.Errorf("HashAny(%q) = %x, %v, want its SHA-256", signed, got, err)
	}
	for _, wrong := range []string{
		"", "eyJ", "eyJ.e.", "eyJ..e", ".eyJ.e", "eyJ.e.e.e", "eyJ.e.e ", "eyJ.e.=", "e.e.e", "eyJ." + strings.Repeat("e", 4096) + ".e",
	} {
		if _, err := HashAny(wrong); err != ErrMalformed {
			t.Errorf("HashAny(%.80q): got %v, want %v", wrong, err, ErrMalformed)
		}
	}
}
