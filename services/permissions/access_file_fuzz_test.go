package permissions

import (
	"errors"
	"math/rand/v2"
	"testing"

	"buf.build/go/protovalidate"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/fault"
)

// TestNoFileBreaksTheReader reads files that are damaged in many ways: each is read, or
// refused as the caller's mistake.
func TestNoFileBreaksTheReader(t *testing.T) {
	v, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	const file = `roles:
  - {name: Desk, keys: [Web], settings: {see_pricing: true, login_restrictions: {before_minutes: 5}}}
groups:
  - name: "Night"
    role: Desk
    description: |-
      two
      lines
users:
  - user: u@example.com
    grants: [{key: Web, expire_time: "2199-01-01T00:00:00Z"}]
    settings: {search_scope: SEARCH_SCOPE_ALL, future_visibility: 0x1f}
`
	pieces := []string{"&a ", "*a", "!!binary ", "<<: ", "? ", "- ", "---\n", "...\n", "null", "~", "{", "}", "[", "]", "\t", "\x00", "\xff",
		"'", "\"", ": ", "|", ">", "#", "%", "!", "@", "1e999", ".inf", "-0", "2019-01-01", "users:", "\n\n", "\u2028", "\ufeff", "!<x>"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 4000 {
		data := []byte(file)
		for range 1 + r.IntN(4) {
			at, n := r.IntN(len(data)), r.IntN(8)
			piece := pieces[r.IntN(len(pieces))]
			if r.IntN(2) == 0 {
				n = 0
			}
			data = append(data[:at:at], append([]byte(piece), data[min(at+n, len(data)):]...)...)
		}
		f, err := readFile(data, v)
		if err == nil {
			f.reject("users[0].grants[0].key", "must be read")
			continue
		}
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Reason != faultpb.Reason_REASON_FIELD_INVALID {
			t.Fatalf("the file\n%s\nfails with %v", data, err)
		}
	}
}
