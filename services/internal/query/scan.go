package query

import (
	"strings"
	"unicode/utf8"
)

// token is one piece of a text.
type token struct {
	kind kind
	text string // a word as it stands; of a quoted text, what the quotes hold
	at   int    // byte offset, for messages
}

type kind int

const (
	end kind = iota
	word
	quoted
	operator
	comma
	wrong
)

// maxLength bounds the text, in bytes. It is looked at before the bounds of the
// request are, since who may not see what it names is not told that it is too long.
const maxLength = 10_000

// scan cuts a text into tokens; the last is end or wrong.
func scan(s string) []token {
	if len(s) > maxLength {
		return []token{{kind: wrong, text: s[:maxLength]}}
	}
	var tokens []token
	for at := 0; ; {
		at += len(s[at:]) - len(strings.TrimLeft(s[at:], " \t\r\n"))
		t, size := next(s[at:])
		t.at = at
		tokens = append(tokens, t)
		if t.kind == end || t.kind == wrong {
			return tokens
		}
		at += size
	}
}

func next(s string) (token, int) {
	if s == "" {
		return token{kind: end}, 0
	}
	for _, op := range []string{"!=", "<=", ">=", "=", "<", ">", ":"} {
		if strings.HasPrefix(s, op) {
			return token{kind: operator, text: op}, len(op)
		}
	}
	switch {
	case s[0] == ',':
		return token{kind: comma, text: ","}, 1
	case s[0] == '"':
		return nextQuoted(s)
	}
	size := strings.IndexFunc(s, func(r rune) bool { return !inWord(r) })
	if size < 0 {
		size = len(s)
	}
	if size == 0 {
		_, size = utf8.DecodeRuneInString(s)
		return token{kind: wrong, text: s[:size]}, size
	}
	return token{kind: word, text: s[:size]}, size
}

func inWord(r rune) bool {
	return r == '_' || r == '.' || r == '-' || r == '+' || r == '*' ||
		'0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

func nextQuoted(s string) (token, int) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return token{kind: quoted, text: b.String()}, i + 1
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return token{kind: wrong, text: s}, len(s)
}

// Paths returns every dotted path that a filter or an order could name: each word in
// it, so that no way of writing a field escapes the check of who may see it.
func Paths(s string) [][]string {
	var paths [][]string
	for _, t := range scan(s) {
		if t.kind == word {
			paths = append(paths, strings.Split(t.text, "."))
		}
	}
	return paths
}
