package identity

import (
	_ "embed"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// The length of a password in characters, after normalization. There are no rules of
// composition, and no password has to be changed because of its age: NIST SP 800-63B-4,
// 3.1.1.2.
const (
	minAlone    = 15 // where nothing else is proven
	minBeside   = 8  // where a second factor is
	maxPassword = 256
)

// maxFree is how many digits and signs that are no run of anything do not yet make a
// password of common words a good one: as many as a date between dashes has.
const maxFree = 10

// serviceName is what the suite is called.
const serviceName = "latchkey"

// checkPassword says what is wrong with a new password, which has least characters or more,
// for somebody around whom these names are known.
func checkPassword(field, text string, least int, names ...string) error {
	normal := normalPassword(text)
	if n := utf8.RuneCountInString(normal); n < least || n > maxPassword {
		return fault.Invalid(field, "must have %d to %d characters, not %d", least, maxPassword, n)
	}
	plain := plainText(normal)
	switch common := commonWords(); {
	case repeats(plain, least):
		return guessable(field, "REPEATED", "must not be something shorter again and again")
	case common.make(plain):
		return guessable(field, "COMMON", "must not be made of common words, runs of keys and a few digits: many would guess it")
	case common.with(names).make(plain):
		return guessable(field, "CONTEXT", "must not be made of names around you, common words and a few digits: many would guess it")
	}
	return nil
}

func guessable(field, why, expected string) error {
	return &fault.Error{
		Code: codes.InvalidArgument, Reason: faultpb.Reason_REASON_PASSWORD_GUESSABLE, Message: field + ": " + expected,
		Metadata: map[string]string{"field": field, "why": why}, Violations: []fault.Violation{{Field: field, Expected: expected}},
	}
}

// isShort tells of a password that lets nobody in without a second factor.
func isShort(password string) bool {
	return utf8.RuneCountInString(normalPassword(password)) < minAlone
}

// plainText returns a text without what makes no guess harder: case, and marks on letters.
func plainText(text string) []rune {
	var plain []rune
	for _, r := range norm.NFKD.String(strings.ToLower(text)) {
		if !unicode.Is(unicode.Mn, r) {
			plain = append(plain, r)
		}
	}
	return plain
}

// repeats tells of a text that is a beginning of less than least characters, over and over.
func repeats(text []rune, least int) bool {
	for n := 1; n < least && 2*n <= len(text); n++ {
		i := n
		for i < len(text) && text[i] == text[i-n] {
			i++
		}
		if i == len(text) {
			return true
		}
	}
	return false
}

//go:embed blocklist.txt
var blocklist string

// rows are the keys beside each other of three keyboards, their columns as they are walked
// down, and the alphabet.
var rows = strings.Fields(`1234567890 qwertyuiop asdfghjkl zxcvbnm qwertzuiop yxcvbnm azertyuiop qsdfghjklm wxcvbn
	abcdefghijklmnopqrstuvwxyz 1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol qazwsxedcrfvtgbyhnujmikolp !@#$%^&*() 0123456789`)

// minRun is how long a run of keys is at least.
const minRun = 3

// words are what passwords are commonly made of.
type words struct {
	byFirst map[rune][][]rune // lower case, by their first letters
	runs    []string
}

var commonWords = sync.OnceValue(func() words {
	w := words{byFirst: map[rune][][]rune{}}
	for line := range strings.Lines(blocklist) {
		text, _, _ := strings.Cut(line, "#")
		for _, word := range strings.Fields(text) {
			w.add(word)
		}
	}
	w.add(serviceName)
	for _, row := range rows {
		w.runs = append(w.runs, row, reversed(row))
	}
	return w
})

func reversed(text string) string {
	r := []rune(text)
	for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
		r[i], r[j] = r[j], r[i]
	}
	return string(r)
}

// add adds a word, forwards and backwards.
func (w words) add(word string) {
	for _, text := range []string{word, reversed(word)} {
		letters := plainText(text)
		if len(letters) >= minRun {
			w.byFirst[letters[0]] = append(w.byFirst[letters[0]], letters)
		}
	}
}

// with returns the words and those of names: each of their parts, and all of a name as one.
func (w words) with(names []string) words {
	more := words{byFirst: map[rune][][]rune{}, runs: w.runs}
	for first, some := range w.byFirst {
		more.byFirst[first] = some[:len(some):len(some)]
	}
	for _, name := range names {
		parts := strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		for _, part := range append(parts, strings.Join(parts, "")) {
			more.add(part)
		}
	}
	return more
}

// written are the letters that a sign is often typed for.
var written = map[rune]string{
	'0': "o", '1': "il", '2': "z", '3': "e", '4': "a", '5': "s", '6': "g", '7': "t", '8': "b", '9': "g",
	'@': "a", '$': "s", '!': "i", '|': "l", '+': "t", '(': "c",
}

// begins returns how many characters a text begins with that are the word, also with signs
// for letters, or 0.
func begins(text, word []rune) int {
	if len(text) < len(word) {
		return 0
	}
	for i, letter := range word {
		if text[i] != letter && !strings.ContainsRune(written[text[i]], letter) {
			return 0
		}
	}
	return len(word)
}

// reading is how far a text was read, and which two words it had so far.
type reading struct {
	at       int
	one, two string
}

// make tells whether a whole text is made of no more than two different words, runs of
// keys, one character again and again, and maxFree other digits and signs.
func (w words) make(text []rune) bool {
	least := map[reading]int{{}: 0} // free characters on the way there
	for todo := []reading{{}}; len(todo) > 0; {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p.at == len(text) {
			return true
		}
		free := least[p]
		w.steps(text[p.at:], func(n int, word string, costs int) {
			next, ok := p.after(n, word)
			if !ok || free+costs > maxFree {
				return
			}
			if known, seen := least[next]; !seen || free+costs < known {
				least[next] = free + costs
				todo = append(todo, next)
			}
		})
	}
	return false
}

// after is n characters further, over a word unless that is empty.
func (p reading) after(n int, word string) (reading, bool) {
	p.at += n
	switch {
	case word == "" || word == p.one || word == p.two:
	case p.one == "":
		p.one = word
	case p.two == "":
		p.two = word
	default:
		return p, false
	}
	return p, true
}

// steps tells how a text can begin: with a word, a run, or a free character.
func (w words) steps(text []rune, step func(n int, word string, costs int)) {
	first := text[0]
	for _, letter := range string(first) + written[first] {
		for _, word := range w.byFirst[letter] {
			if n := begins(text, word); n > 0 {
				step(n, string(word), 0)
			}
		}
	}
	for n := minRun; n <= len(text) && w.isRun(string(text[:n])); n++ {
		step(n, "", 0)
	}
	for n := 1; n < len(text) && text[n] == first; n++ {
		if n+1 >= minRun {
			step(n+1, "", 0)
		}
	}
	if !unicode.IsLetter(first) {
		step(1, "", 1)
	}
}

func (w words) isRun(text string) bool {
	for _, run := range w.runs {
		if strings.Contains(run, text) {
			return true
		}
	}
	return false
}

// namesAround are what somebody's password must not be made of: what the person is called
// and signs in with, and what the organization and its brand are called.
func namesAround(tx *store.Tx, p *pb.Profile, organization string) []string {
	o, _ := organizations.Get(tx, organization)
	b, _ := brands.Get(tx, o.GetBrandId())
	return []string{p.GetEmail(), p.GetDisplayName(), o.GetName(), b.GetName()}
}

// leastLength is how long a person's password is at least in an organization.
func leastLength(tx *store.Tx, person, organization string) int {
	if demandsSecondFactor(tx, organization) || hasSecondFactor(tx, person) {
		return minBeside
	}
	return minAlone
}

// shortAlone is told to whoever would be left with nothing but a short password.
func shortAlone() error {
	return fault.Refused("a password of less than %d characters does not do without a second factor: change it first", minAlone)
}
