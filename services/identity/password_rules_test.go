package identity

import (
	"errors"
	"strings"
	"testing"

	"latchkey.dev/services/internal/fault"
)

var around = []string{"ada@lovelace.example", "Ada Byron", "Harbour Homes Ltd", "Harbour Group"}

// verdict is "" for a password that does, else what is wrong with it.
func verdict(t *testing.T, password string, least int) string {
	t.Helper()
	err := checkPassword("p", password, least, around...)
	if err == nil {
		return ""
	}
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || len(e.Violations) != 1 || e.Violations[0].Field != "p" {
		t.Fatalf("%q: got %v, want an error of the field", password, err)
	}
	if e.ReasonName() == "FIELD_INVALID" {
		return "LENGTH"
	}
	if e.ReasonName() != "PASSWORD_GUESSABLE" || e.Metadata["field"] != "p" {
		t.Fatalf("%q: got %s %v", password, e.ReasonName(), e.Metadata)
	}
	return e.Metadata["why"]
}

func TestPasswordLength(t *testing.T) {
	const good = "we saw nine owls"                                     // 16
	long := strings.Repeat("how I wonder: ", 17) + "what you are then!" // 256
	for _, c := range []struct {
		password string
		least    int
		want     string
	}{
		{"", minAlone, "LENGTH"},
		{"fourteen chars", minAlone, "LENGTH"},
		{"fifteen signs..", minAlone, ""},
		{good, minAlone, ""},
		{"9 owls?", minBeside, "LENGTH"},
		{"9 owls!?", minBeside, ""},
		{"a\u030au\u0308 vous dites!", minAlone, "LENGTH"}, // 16 as typed, 14 normalized
		{"äöü über den wö", minAlone, ""},
		{"🔑 und 🐎 im 🌧", minAlone, "LENGTH"},
		{"🔑 und 🐎 im 🌧 da", minAlone, ""},
		{strings.Repeat("ﬃ", 86), minAlone, "LENGTH"}, // 258 normalized
		{"tell me:" + strings.Repeat(" la", 18) + " 64", minAlone, ""},
		{long, minAlone, ""},
		{long + "!", minAlone, "LENGTH"},
		{"horses\x00and something", minAlone, ""},
		// No rules of composition.
		{"onlysmallletterswithoutend", minAlone, ""},
		{"839201748201938475", minAlone, ""},
		{"ALL IN CAPITALS, ALAS", minAlone, ""},
	} {
		if got := verdict(t, c.password, c.least); got != c.want {
			t.Errorf("%q of at least %d: got %q, want %q", c.password, c.least, got, c.want)
		}
	}
}

func TestPasswordIsNotGuessable(t *testing.T) {
	for password, want := range map[string]string{
		"passwordpassword":         "REPEATED",
		"aaaaaaaaaaaaaaa":          "REPEATED",
		"               ":          "REPEATED",
		"owl 7 owl 7 owl 7 ":       "REPEATED",
		"password12345678":         "COMMON",
		"P@ssw0rd20261231":         "COMMON",
		"Pässwörd!Pässwörd":        "COMMON",
		"drowssapdrowssap1":        "COMMON",
		"qwertyuiopasdfgh":         "COMMON",
		"1qaz2wsx3edc4rfv":         "COMMON",
		"zyxwvutsrqponml":          "COMMON",
		"123456789012345":          "COMMON",
		"111111222222333333":       "COMMON",
		"Summer2026!Summer2026":    "COMMON",
		"iloveyou-monkey-2026":     "COMMON",
		"welcome to password":      "", // "to" is of no list
		"LatchkeyLatchkey1":        "COMMON",
		"Latchkey.Password.1":      "COMMON",
		"ada.byron.2026-11":        "CONTEXT",
		"HarbourHomesLtd2026":      "CONTEXT",
		"harbour-password-1":       "CONTEXT",
		"4da_l0vel4ce_1815":        "CONTEXT",
		"monkey dragon tiger owls": "",
		"monkey dragon football":   "", // three words
		"password 8392017480":      "", // more than a date
		"a long harbour sentence":  "",
		"xkqzjwvbnqmfhtr":          "",
	} {
		if got := verdict(t, password, minAlone); got != want {
			t.Errorf("%q: got %q, want %q", password, got, want)
		}
	}
}

// The shorter a password may be, the shorter what must not be repeated.
func TestRepeatedPasswords(t *testing.T) {
	if got := verdict(t, "we owls! we owls! ", minBeside); got != "" {
		t.Errorf("something long enough twice: got %q", got)
	}
	if got := verdict(t, "we owls! we owls! ", minAlone); got != "REPEATED" {
		t.Errorf("something too short twice: got %q", got)
	}
}

func TestBlocklist(t *testing.T) {
	w := commonWords()
	n := 0
	for first, some := range w.byFirst {
		for _, word := range some {
			n++
			if word[0] != first || len(word) < minRun {
				t.Errorf("the word %q is under %q", string(word), first)
			}
		}
	}
	if n < 1000 {
		t.Errorf("the list has %d words, forwards and backwards", n)
	}
}

func FuzzCheckPassword(f *testing.F) {
	for _, seed := range []string{"", horse, "password12345678", "qwertyuiopasdfgh", "ﬃ\u030a🔑", "\xff\x00", strings.Repeat("monkey1dragon2", 18)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, password string) {
		first := checkPassword("p", password, minAlone, around...)
		if again := checkPassword("p", password, minAlone, around...); (first == nil) != (again == nil) {
			t.Errorf("%q: %v, and then %v", password, first, again)
		}
	})
}
