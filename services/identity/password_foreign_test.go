package identity

import (
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
)

const horse = "correct horse battery staple"

// foreignHashes are of horse, and made by other programs: PBKDF2 and scrypt by Python's
// hashlib (OpenSSL), bcrypt by libxcrypt; those of argon2 are of "password", from the tests
// of its reference implementation.
var foreignHashes = map[string]string{
	"$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG":                                                                        horse,
	"$2a$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG":                                                                        horse,
	"$2y$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG":                                                                        horse,
	"$pbkdf2-sha1$i=1000$c2l4dGVlbiBieXRlcyAuLg$QzAwMr4/qEE0rV+RQ1TnGuik/TQ":                                                              horse,
	"$pbkdf2$1000$c2l4dGVlbiBieXRlcyAuLg$QzAwMr4/qEE0rV.RQ1TnGuik/TQ":                                                                     horse,
	"$pbkdf2-sha256$i=1000$c2l4dGVlbiBieXRlcyAuLg$wdHL/iRTGtU8FUlC4ZLhwnS9/fmjKZrazvRzbSbf0KY":                                            horse,
	"$pbkdf2-sha256$i=1000,l=32$c2l4dGVlbiBieXRlcyAuLg$wdHL/iRTGtU8FUlC4ZLhwnS9/fmjKZrazvRzbSbf0KY":                                       horse,
	"$pbkdf2-sha512$i=1000$c2l4dGVlbiBieXRlcyAuLg$JrgwkVx6J0dg//ep7dWkP5+ScUxSImG+lwb2TUD1ktKVyNnVq0O4JcZnzgf3e7dtdkhj33CPkLTl223t/D2ZGw": horse,
	"$scrypt$ln=10,r=8,p=1$c2l4dGVlbiBieXRlcyAuLg$Lnzrq4sPh9y5d5ATV9w8UlAPGK6+YV1E0JDlXi2Kcjw":                                            horse,
	"$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8":                                                 "password",
	"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4":                                                "password",
}

func TestForeignHashes(t *testing.T) {
	h := newHasher(cheap, 1, rand.Reader)
	for text, password := range foreignHashes {
		for tried, want := range map[string]bool{password: true, password + "x": false, "": false, strings.ToUpper(password): false} {
			ok, stale, err := h.verify(t.Context(), text, tried)
			if ok != want || !stale || err != nil {
				t.Errorf("verify %q by %q: got %v, %v, %v, want %v, true", tried, text, ok, stale, err, want)
			}
		}
	}
}

// What was hashed as it was typed is known again, and so is what was hashed in NFC.
func TestForeignHashesOfOtherForms(t *testing.T) {
	h := newHasher(cheap, 1, rand.Reader)
	for _, kept := range []string{"Å ﬁne word", "A\u030a ﬁne word"} { // in NFC; as it was typed
		salt := []byte("saltsalt")
		phc := hashed{cheap, salt, argon2.IDKey([]byte(kept), salt, cheap.passes, cheap.memory, cheap.threads, keySize)}.String()
		if ok, _, err := h.verify(t.Context(), phc, "A\u030a ﬁne word"); !ok || err != nil {
			t.Errorf("of %q: got %v, %v, want true", kept, ok, err)
		}
	}
}

// SECURITY: what a hash may cost is bounded, and so is its form.
func TestParsePasswordRefuses(t *testing.T) {
	const salt, key = "$c2l4dGVlbiBieXRlcyAuLg", "$Lnzrq4sPh9y5d5ATV9w8UlAPGK6+YV1E0JDlXi2Kcjw"
	for _, text := range []string{
		"", "$", "password", "5f4dcc3b5aa765d61d8327deb882cf99", "$1$abc$def", "$5$salt$hash", "$argon2d$v=19$m=64,t=1,p=1" + salt + key,
		"$2b$15$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG", "$2b$31$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG",
		"$2b$03$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG", "$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6C",
		"$2x$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG", "$2b$0x$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG",
		"$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG\n",
		"$scrypt$ln=21,r=1,p=1" + salt + key, "$scrypt$ln=20,r=8,p=1" + salt + key, "$scrypt$ln=0,r=8,p=1" + salt + key,
		"$scrypt$ln=15,r=0,p=1" + salt + key, "$scrypt$ln=15,r=8,p=0" + salt + key, "$scrypt$ln=10,r=99999999,p=99999999" + salt + key,
		"$scrypt$ln=15,r=8,p=1" + salt, "$scrypt$r=8,ln=15,p=1" + salt + key, "$scrypt$ln=15,r=8" + salt + key, "$scrypt$ln=15,r=8,p=+1" + salt + key,
		"$pbkdf2-sha256$i=2000001" + salt + key, "$pbkdf2-sha256$i=0" + salt + key, "$pbkdf2-sha256$i=-5" + salt + key,
		"$pbkdf2-sha256$i=99999999999999999999" + salt + key, "$pbkdf2-sha1$i=1000" + salt + key, "$pbkdf2-md5$i=1000" + salt + key,
		"$pbkdf2-sha256$i=1000$" + key, "$pbkdf2-sha256$i=1000" + salt + "$AAAA", "$pbkdf2-sha256$i=1000" + salt + key + "=",
		"$argon2i$v=16$m=64,t=1,p=1" + salt + key, "$argon2i$m=64,t=1,p=1" + salt + key, "$argon2i$v=19$m=262145,t=1,p=1" + salt + key,
		"$argon2i$v=19$m=262144,t=5,p=1" + salt + key, "$argon2i$v=19$m=64,t=17,p=1" + salt + key, "$argon2i$v=19$m=64,t=1,p=17" + salt + key,
		"$argon2id$v=19$m=262144,t=5,p=1" + salt + key, "$argon2id$v=19$m=999999999,t=1,p=1" + salt + key,
		"$pbkdf2-sha256$i=1000$" + strings.Repeat("A", 500) + key,
	} {
		if h, err := parsePassword(text); err == nil || !strings.HasPrefix(err.Error(), "must ") {
			t.Errorf("parsePassword(%q) = %v, %v, want an error that says what it must be", text, h, err)
		}
	}
}

// An example is of the same kind, and of no password.
func TestExampleOf(t *testing.T) {
	h := newHasher(cheap, 1, rand.Reader)
	for text, password := range foreignHashes {
		example := exampleOf(text, h.bytes)
		of, err := parsePassword(text)
		if err != nil {
			t.Fatal(err)
		}
		like, err := parsePassword(example)
		if err != nil || like.kind() != of.kind() || like.matches(password) || example == exampleOf(text, h.bytes) {
			t.Errorf("exampleOf(%q) = %q, %v", text, example, err)
		}
	}
}

// SECURITY: a wrong password costs one hash of each kind that there is, whether the person
// is unknown, has a hash of this program's, or an imported one of any kind.
func TestWrongPasswordsCostTheSame(t *testing.T) {
	h := newHasher(cheap, 1, rand.Reader)
	own, err := h.hash(t.Context(), horse)
	if err != nil {
		t.Fatal(err)
	}
	kept := []string{"", own}
	var others []passwordHash
	for _, text := range []string{
		"$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG",
		"$scrypt$ln=10,r=8,p=1$c2l4dGVlbiBieXRlcyAuLg$Lnzrq4sPh9y5d5ATV9w8UlAPGK6+YV1E0JDlXi2Kcjw",
	} {
		example, err := parsePassword(exampleOf(text, h.bytes))
		if err != nil {
			t.Fatal(err)
		}
		kept, others = append(kept, text), append(others, &counting{passwordHash: example})
	}
	for _, wrong := range []string{"wrong", "wrong ﬁ\u030a"} {
		for _, text := range kept {
			before := h.done.Load()
			if ok, _, err := h.verify(t.Context(), text, wrong, others...); ok || err != nil {
				t.Fatalf("verify %q: %v, %v", text, ok, err)
			}
			if got, want := h.done.Load()-before, int64(3*len(forms(wrong))); got != want {
				t.Errorf("%q by %q: %d hashes, want %d", wrong, text, got, want)
			}
		}
	}
	for _, c := range others {
		// Of each kind: for the two that have none of it, and for that of the other kind.
		if got, want := c.(*counting).times, 3*(len(forms("wrong"))+len(forms("wrong ﬁ\u030a"))); got != want {
			t.Errorf("%s: the example was hashed with %d times, want %d", c.kind(), got, want)
		}
	}
}

// counting is a hash that counts its work.
type counting struct {
	passwordHash
	times int
}

func (c *counting) matches(form string) bool {
	c.times++
	return c.passwordHash.matches(form)
}

func FuzzParsePassword(f *testing.F) {
	for text := range foreignHashes {
		f.Add(text)
	}
	f.Add("$scrypt$ln=10,r=99999999,p=99999999$AAAA$AAAA")
	f.Add("$pbkdf2-sha256$9$$")
	f.Add("$2b$$")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parsePassword(text)
		if err != nil {
			if h != nil || !strings.HasPrefix(err.Error(), "must ") {
				t.Errorf("parsePassword(%q) = %v, %v", text, h, err)
			}
			return
		}
		again, err := parsePassword(exampleOf(text, func(n int) []byte { return make([]byte, n) }))
		if err != nil || again.kind() != h.kind() {
			t.Errorf("the example of %q: %v, %v", text, again, err)
		}
	})
}
