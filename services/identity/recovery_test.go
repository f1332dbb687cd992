package identity

import (
	"crypto/rand"
	"regexp"
	"testing"
)

// Codes that people type have 120 bits, so that a fast hash does (OWASP ASVS 5.0, 6.5.2),
// and no two are alike.
func TestCodesAreLongEnough(t *testing.T) {
	s := &service{hasher: newHasher(cheap, 1, rand.Reader)}
	form := regexp.MustCompile(`^[0-9a-hjkmnp-tv-z]{4}(-[0-9a-hjkmnp-tv-z]{4}){5}$`)
	seen := map[string]bool{}
	for range 1000 {
		code := s.newCode()
		if !form.MatchString(code) || seen[code] || plainCode(code) == code {
			t.Fatalf("got the code %q", code)
		}
		seen[code] = true
	}
}
