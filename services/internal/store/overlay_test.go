package store

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// collect returns what a walk yields, as "key=value".
func collect(w walk) []string {
	var got []string
	for n := w.next(); n != nil; n = w.next() {
		got = append(got, fmt.Sprintf("%s=%s", n.key, n.value))
	}
	return got
}

func wantWalk(model map[string]string, lo, hi string, reverse bool) []string {
	var want []string
	for _, k := range slices.Sorted(maps.Keys(model)) {
		if lo <= k && k < hi {
			want = append(want, k+"="+model[k])
		}
	}
	if reverse {
		slices.Reverse(want)
	}
	return want
}

// TestOverlay compares with a map, also walks that begin before later writes.
func TestOverlay(t *testing.T) {
	key := rapid.StringMatching(`[a-e]{1,2}`)
	rapid.Check(t, func(t *rapid.T) {
		o := overlay{seed: maphash.MakeSeed()}
		model := map[string]string{}
		type pending struct {
			walk walk
			want []string
		}
		var walks []pending
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), rapid.StringN(1, 3, -1).Draw(t, "value")
				o.set([]byte(k), []byte(v))
				model[k] = v
			},
			"get": func(t *rapid.T) {
				k := key.Draw(t, "key")
				got, ok := o.root.find([]byte(k))
				if want, there := model[k]; ok != there || !bytes.Equal(got, []byte(want)) {
					t.Fatalf("find %q: got %q, %t, want %q, %t", k, got, ok, want, there)
				}
			},
			"begin walk": func(t *rapid.T) {
				lo, hi := key.Draw(t, "lo"), key.Draw(t, "hi")
				reverse := rapid.Bool().Draw(t, "reverse")
				w := o.freeze().walk([]byte(lo), []byte(hi), reverse)
				walks = append(walks, pending{w, wantWalk(model, lo, hi, reverse)})
			},
			"end walk": func(t *rapid.T) {
				if len(walks) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(walks)-1).Draw(t, "walk")
				if got := collect(walks[i].walk); !slices.Equal(got, walks[i].want) {
					t.Fatalf("walk: got %q, want %q", got, walks[i].want)
				}
				walks = slices.Delete(walks, i, i+1)
			},
		})
	})
}
