package backup_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

// TestCheckSource looks at stores of which nothing should be taken.
func TestCheckSource(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) store.Engine) {
		e := open(t)
		want := func(part string) {
			t.Helper()
			err := store.CheckSource(t.Context(), store.PagesOf(e))
			if part == "" && err != nil || part != "" && (err == nil || !strings.Contains(err.Error(), part)) {
				t.Errorf("got error %v, want %q", err, part)
			}
		}
		want("nothing in it")
		r, err := store.NewReplay(t.Context(), e)
		if err == nil {
			err = r.Flush(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		want("was interrupted")
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = open(t)
		openDB(t, e)
		want("")
		newer, err := proto.Marshal(&storepb.Schema{Format: 1000})
		if err != nil {
			t.Fatal(err)
		}
		err = e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) {
			return []store.Write{{Key: []byte("\x01s"), Value: newer}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want("newer version")
	})
}
