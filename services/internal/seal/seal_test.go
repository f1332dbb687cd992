package seal_test

import (
	"bytes"
	"strings"
	"testing"

	"latchkey.dev/services/internal/seal"
)

var (
	first  = strings.Repeat("a", 32)
	second = strings.Repeat("b", 32)
)

func box(t testing.TB, secrets ...string) *seal.Box {
	t.Helper()
	b, err := seal.New(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenReturnsWhatWasSealed(t *testing.T) {
	b := box(t, first)
	for _, secret := range []string{"", "x", strings.Repeat("long ", 1000)} {
		sealed := b.Seal("name", []byte(secret))
		if secret != "" && bytes.Contains(sealed, []byte(secret)) {
			t.Errorf("%.20q can be read in what was sealed", secret)
		}
		got, err := b.Open("name", sealed)
		if err != nil || string(got) != secret {
			t.Errorf("got %.20q, %v, want %.20q", got, err, secret)
		}
		if bytes.Equal(sealed, b.Seal("name", []byte(secret))) {
			t.Errorf("%.20q is sealed alike twice", secret)
		}
	}
}

// SECURITY: neither another name nor a changed byte opens.
func TestOpenRefuses(t *testing.T) {
	b := box(t, first)
	sealed := b.Seal("name", []byte("secret"))
	for name, c := range map[string]struct {
		as     string
		sealed []byte
	}{
		"another name": {"names", sealed}, "nothing": {"name", nil}, "too short": {"name", sealed[:4]},
		"cut": {"name", sealed[:len(sealed)-1]}, "more": {"name", append(bytes.Clone(sealed), 0)},
	} {
		if _, err := b.Open(c.as, c.sealed); err != seal.ErrSealed {
			t.Errorf("%s: got %v, want %v", name, err, seal.ErrSealed)
		}
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := b.Open("name", changed); err != seal.ErrSealed {
			t.Errorf("byte %d changed: got %v, want %v", i, err, seal.ErrSealed)
		}
	}
}

func TestSecretIsReplaced(t *testing.T) {
	old := box(t, first)
	sealed := old.Seal("name", []byte("secret"))
	both, err := seal.Parse("# the new one first\n" + second + "\n\n  " + first + "\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := both.Open("name", sealed)
	if err != nil || string(got) != "secret" {
		t.Fatalf("got %q, %v", got, err)
	}
	if both.Current(sealed) || !old.Current(sealed) || both.Current(nil) {
		t.Error("Current does not tell the first secret from the others")
	}
	if _, err := box(t, second).Open("name", sealed); err != seal.ErrSealed {
		t.Errorf("without the old one: got %v, want %v", err, seal.ErrSealed)
	}
	if again := both.Seal("name", got); !both.Current(again) {
		t.Error("the first secret does not seal")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, text := range []string{"", "\n# nothing\n", first[1:], first + "\nshort"} {
		if _, err := seal.Parse(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
