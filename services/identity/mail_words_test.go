package identity

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var braces = regexp.MustCompile(`\{\w+\}`)

// filledIn returns what a text has in braces, in order.
func filledIn(text string) []string {
	found := braces.FindAllString(text, -1)
	slices.Sort(found)
	return found
}

// Every language has a text of its own of everything that is said, in which the same is
// filled in.
func TestWordsInEveryLanguage(t *testing.T) {
	for _, tongue := range tongues {
		for name, text := range english {
			got, ok := tongue.phrases[name]
			switch {
			case !ok:
				t.Errorf("%s: there is no %q", tongue.tag, name)
			case !slices.Equal(filledIn(got), filledIn(text)):
				t.Errorf("%s: %q has %q filled in, want %q", tongue.tag, name, filledIn(got), filledIn(text))
			case tongue.tag != tongues[0].tag && got == text:
				t.Errorf("%s: %q is the English one", tongue.tag, name)
			case got != strings.TrimSpace(got) || strings.ContainsAny(braces.ReplaceAllString(got, ""), "{}%"):
				t.Errorf("%s: %q is %q", tongue.tag, name, got)
			}
		}
		if len(tongue.phrases) != len(english) {
			t.Errorf("%s has %d texts, and English %d", tongue.tag, len(tongue.phrases), len(english))
		}
		if n := len(strings.Fields(tongue.phrases["months"])); n != 12 {
			t.Errorf("%s has %d months", tongue.tag, n)
		}
	}
}

// Whatever messages say has a text, in which all is filled in that they give, and no text is
// there that none says.
func TestWordsAreSaid(t *testing.T) {
	said := map[string]bool{"months": true, "when": true, "when first": true, "when at one": true, "when first at one": true}
	for _, file := range []string{"mail_kinds.go", "mail_letter.go", "mail_words.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			name := literal(call.Args[0])
			if !ok || name == "" || method.Sel.Name != "text" && method.Sel.Name != "lead" {
				return true
			}
			given := []string{}
			if method.Sel.Name == "lead" {
				given = append(given, "{page}")
			}
			for i := 1; i < len(call.Args); i += 2 {
				given = append(given, "{"+literal(call.Args[i])+"}")
			}
			slices.Sort(given)
			if text, ok := english[name]; !ok || !slices.Equal(given, append([]string{}, filledIn(text)...)) {
				t.Errorf("%s gives %q to %q, which is %q", file, given, name, text)
			}
			said[name] = true
			return true
		})
	}
	for name := range english {
		if !said[name] {
			t.Errorf("nothing says %q", name)
		}
	}
}

// literal returns the text of a literal, "" for another expression.
func literal(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		text, _ := strconv.Unquote(l.Value) // the parser has read it
		return text
	}
	return ""
}

func TestDatesInEveryLanguage(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string][2]string{
		"en": {"1 March 2026 at 01:05 CET", "21 August 2026 at 13:40 CEST"},
		"de": {"1. März 2026 um 01:05 Uhr (CET)", "21. August 2026 um 13:40 Uhr (CEST)"},
		"fr": {"1er mars 2026 à 01\u00a0h\u00a005 (CET)", "21 août 2026 à 13\u00a0h\u00a040 (CEST)"},
		"es": {"1 de marzo de 2026 a la 01:05 (CET)", "21 de agosto de 2026 a las 13:40 (CEST)"},
	} {
		tongue, _ := tongueOf(tag)
		for i, at := range []time.Time{time.Date(2026, 3, 1, 1, 5, 0, 0, berlin), time.Date(2026, 8, 21, 13, 40, 0, 0, berlin)} {
			if got := tongue.date(at); got != want[i] {
				t.Errorf("%s: got %q, want %q", tag, got, want[i])
			}
		}
		if once, often := tongue.times(1), tongue.times(5); strings.Contains(once, "1") || !strings.HasPrefix(often, "5") {
			t.Errorf("%s: got %q and %q", tag, once, often)
		}
	}
}

func TestTongueOf(t *testing.T) {
	for tag, want := range map[string]string{
		"en": "en", "en-GB": "en", "de": "de", "de-AT": "de", "de-CH": "de", "fr-CA": "fr", "fr": "fr", "es-419": "es", "es-MX": "es",
		"": "", "it": "", "ja": "", "pt-BR": "", "no tag": "",
	} {
		tongue, ok := tongueOf(tag)
		if got := tongue.tag.String(); ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %s, %t, want %q", tag, got, ok, want)
		}
	}
}
