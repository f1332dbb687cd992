package storetest

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

var pastTests = map[string]func(*test){"past": past}

// past makes changes and holds what was there after each against what is found
// afterwards as of then.
func past(t *test) {
	type state = map[string]*storepb.Sample
	was := []state{{}}
	start := t.clock.Now()
	for i, id := range []string{"a", "b", "a", "a\x00", "-a", "b", "a", "-b", "b", "c"} {
		t.clock.advance(time.Minute)
		t.update(t.ctx, func(tx *store.Tx) error {
			if id[0] == '-' {
				samples.Delete(tx, id[1:])
				return nil
			}
			return samples.Put(tx, &storepb.Sample{Id: id, Note: fmt.Sprint(i)})
		})
		now := state{}
		t.view(t.ctx, func(tx *store.Tx) {
			for v := range samples.All(tx) {
				now[v.GetId()] = v
			}
		})
		was = append(was, now)
	}
	t.view(t.ctx, func(tx *store.Tx) {
		ids := slices.Collect(samples.IDs(tx, ""))
		if want := []string{"a", "a\x00", "b", "c"}; !slices.Equal(ids, want) {
			t.Errorf("got ids %q, want %q", ids, want)
		}
		if got, want := slices.Collect(samples.IDs(tx, "a")), ids[1:]; !slices.Equal(got, want) {
			t.Errorf("after a: got ids %q, want %q", got, want)
		}
		for revision, want := range was {
			at := start.Add(time.Duration(revision)*time.Minute + time.Second)
			if got := tx.RevisionAt(at); got != int64(revision) {
				t.Errorf("at %s: got revision %d, want %d", at, got, revision)
			}
			for _, id := range ids {
				got, ok := samples.At(tx, id, int64(revision))
				if w, there := want[id]; ok != there || ok && !proto.Equal(got, w) {
					t.Errorf("%q after revision %d: got %v, want %v", id, revision, got, w)
				}
			}
		}
		if got := slices.Collect(tx.Revisions("sample", "a", 6)); !slices.Equal(got, []int64{5, 3, 1}) {
			t.Errorf("got revisions %v of a up to 6", got)
		}
	})
}
