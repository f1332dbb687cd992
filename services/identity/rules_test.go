package identity

import (
	"strings"
	"testing"
)

func TestNormalEmail(t *testing.T) {
	long := strings.Repeat("a", 60)
	for text, want := range map[string]string{
		"ada@example.com":                      "ada@example.com",
		"  Ada@Example.COM\n":                  "ada@example.com",
		"a.b+c_d@sub.example.co.uk":            "a.b+c_d@sub.example.co.uk",
		"o'neil@example.com":                   "o'neil@example.com",
		"a@xn--mnchen-3ya.example":             "a@xn--mnchen-3ya.example",
		"":                                     "",
		"ada":                                  "",
		"@example.com":                         "",
		"ada@":                                 "",
		"ada@example":                          "",
		"ada@@example.com":                     "",
		"ada@exa mple.com":                     "",
		"ada@-example.com":                     "",
		"ada@example-.com":                     "",
		"ada@example..com":                     "",
		"ada@example.com.":                     "",
		"аda@example.com":                      "", // a Cyrillic a
		"ada@exämple.com":                      "",
		"ada\x00@example.com":                  "",
		"Ada <ada@example.com>":                "",
		long + "aaaaa@example.com":             "",
		"a@" + strings.Repeat("b.", 126) + "c": "",
	} {
		if got, ok := normalEmail(text); ok != (want != "") || ok && got != want {
			t.Errorf("normalEmail(%q) = %q, %v, want %q", text, got, ok, want)
		}
	}
}

func TestIsZone(t *testing.T) {
	for name, want := range map[string]bool{
		"Europe/Berlin": true, "America/New_York": true, "Australia/Lord_Howe": true, "UTC": true,
		"": false, "Local": false, "Europe/Nowhere": false, "../etc/passwd": false, "/etc/localtime": false, "europe/berlin\x00": false,
	} {
		if got := isZone(name); got != want {
			t.Errorf("isZone(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestIsCurrency(t *testing.T) {
	for code, want := range map[string]bool{
		"EUR": true, "USD": true, "JPY": true, "CHF": true,
		"": false, "eur": false, "XXX": false, "XTS": false, "ZZZ": false, "EURO": false, "€": false,
	} {
		if got := isCurrency(code); got != want {
			t.Errorf("isCurrency(%q) = %v, want %v", code, got, want)
		}
	}
}
