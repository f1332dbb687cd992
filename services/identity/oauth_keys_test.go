package identity_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"latchkey.dev/services/identity"
)

// keys fetches what verifies tokens.
func (s *suite) keys() *jose.JSONWebKeySet {
	s.t.Helper()
	r := s.fetch("/oauth2/keys")
	set := &jose.JSONWebKeySet{}
	if err := json.Unmarshal([]byte(r.text), set); r.status != 200 || err != nil {
		s.t.Fatalf("got %d %s, %v", r.status, r.text, err)
	}
	return set
}

// verify returns the claims of a token and the key that signed it.
func (s *suite) verify(text, kind string) (claims map[string]any, kid string) {
	s.t.Helper()
	signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.RS256})
	if err != nil {
		s.t.Fatalf("%q: %v", text, err)
	}
	header := signed.Signatures[0].Header
	if got := header.ExtraHeaders[jose.HeaderType]; got != kind {
		s.t.Errorf("the type is %v, want %s", got, kind)
	}
	keys := s.keys().Key(header.KeyID)
	if len(keys) == 0 {
		s.t.Fatalf("nothing is published as %s", header.KeyID)
	}
	payload, err := signed.Verify(keys[0])
	if err != nil || keys[0].Algorithm != header.Algorithm {
		s.t.Fatalf("%s: %v", header.Algorithm, err)
	}
	mustNot(s.t, json.Unmarshal(payload, &claims))
	return claims, header.KeyID
}

func kids(set *jose.JSONWebKeySet) (ids []string) {
	for _, key := range set.Keys {
		ids = append(ids, key.KeyID)
	}
	slices.Sort(ids)
	return ids
}

// SECURITY: what is published is public, and what is kept is sealed.
func TestPrivateKeysAreSealed(t *testing.T) {
	owner := owned(t)
	set := owner.keys()
	if len(set.Keys) != 3 {
		t.Fatalf("got %d keys, want one for each algorithm", len(set.Keys))
	}
	for _, key := range set.Keys {
		if !key.IsPublic() || !key.Valid() || key.Use != "sig" || key.KeyID == "" {
			t.Errorf("got %+v, want a public key that signs", key)
		}
	}
	again := owner.again()
	if got := kids(again.keys()); !slices.Equal(got, kids(set)) {
		t.Errorf("after a restart the keys are %v, want %v", got, kids(set))
	}
	again.Stop()
	data, err := os.ReadFile(filepath.Join(strings.TrimPrefix(owner.config.Store, "bolt:"), "identity.db"))
	mustNot(t, err)
	for _, mark := range identity.PrivateKeyMarks() {
		if strings.Contains(string(data), mark) {
			t.Errorf("a private key in PKCS #8 is on disk")
		}
	}
}

// A key is published before it signs and after it has, so a verifier that keeps the keys
// as long as it may always has the right one.
func TestKeysRotateWithOverlap(t *testing.T) {
	var offset atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	s := newSuite(t, clock)
	owner := s.claim()
	first := kids(s.keys())
	sign := func() string {
		t.Helper()
		c := owner.signIn("").register(machine("Organization"))
		_, kid := s.verify(s.machineToken(c.GetId(), c.secret).str("access_token"), "at+jwt")
		return kid
	}
	before := sign()
	offset.Add(int64(30 * 24 * time.Hour))
	mustNot(t, identity.Upkeep(t.Context()))
	both := kids(s.keys())
	if len(both) != 6 || sign() != before {
		t.Fatalf("got %v, want the keys of before, which still sign, and their successors", both)
	}
	offset.Add(int64(30 * time.Minute))
	mustNot(t, identity.Upkeep(t.Context()))
	if after := sign(); after == before || !slices.Contains(both, after) {
		t.Errorf("%s signs, want one that was published before", after)
	}
	if got := kids(s.keys()); !slices.Equal(got, both) {
		t.Errorf("got %v, want %v as long as what the first ones signed may be shown", got, both)
	}
	offset.Add(int64(24 * time.Hour))
	mustNot(t, identity.Upkeep(t.Context()))
	last := kids(s.keys())
	if len(last) != 3 || slices.ContainsFunc(last, func(kid string) bool { return slices.Contains(first, kid) }) {
		t.Errorf("got %v, want the successors alone", last)
	}
}

// A key is renewed when it is due, whenever those of other algorithms were made.
func TestKeysOfEachAlgorithmRotate(t *testing.T) {
	var offset atomic.Int64
	s := newSuite(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	c := s.claim().register(machine("Organization"))
	if r := s.machineToken(c.GetId(), c.secret); r.status != 200 { // makes the key of one algorithm
		t.Fatalf("got %d %s", r.status, r.text)
	}
	const day = 24 * time.Hour
	offset.Add(int64(10 * day))
	s.keys() // makes those of the others
	for _, at := range []struct {
		day  int
		want map[string]int
	}{
		{30, map[string]int{"ES256": 2, "EdDSA": 1, "RS256": 1}},
		{40, map[string]int{"ES256": 1, "EdDSA": 2, "RS256": 2}},
	} {
		offset.Store(int64(at.day) * int64(day))
		mustNot(t, identity.Upkeep(t.Context()))
		got := map[string]int{}
		for _, key := range s.keys().Keys {
			got[key.Algorithm]++
		}
		if !maps.Equal(got, at.want) {
			t.Errorf("on day %d: got %v, want %v", at.day, got, at.want)
		}
	}
}
