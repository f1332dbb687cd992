package permissions

import (
	"fmt"
	"testing"
	"time"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/store"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// TestNoChangeOfAccessIsMissing makes random edits, and looks for each that changed what
// somebody may do in the list of the changes of his access.
func TestNoChangeOfAccessIsMissing(t *testing.T) {
	for seed := range uint64(5) {
		a := newArchive(t, 100+seed)
		type step struct {
			user     string
			revision int64
		}
		want := map[step][2]catalog.Set{} // lost and gained
		for range 40 {
			a.now = a.now.Add(time.Duration(1+a.IntN(90)) * time.Minute)
			var before, after map[string]catalog.Set
			a.view(func(tx *store.Tx) { before = newLoader(tx).everybody(a.users) })
			a.anyEdit()
			a.view(func(tx *store.Tx) {
				after = newLoader(tx).everybody(a.users)
				for _, user := range a.users {
					if was, is := before[user].Without(allFeatures), after[user].Without(allFeatures); was != is {
						want[step{user, tx.Revision()}] = [2]catalog.Set{was.Without(is), is.Without(was)}
					}
				}
			})
		}
		if len(want) < 5 {
			t.Errorf("seed %d: only %d changes of access: it shows little", seed, len(want))
		}
		for _, user := range a.users {
			for _, c := range a.changes(user) {
				s := step{user, c.GetProvenance().GetRevision()}
				if s.revision == 1 {
					continue // the first owner's, before the first edit
				}
				got := fmt.Sprint(c.GetLost(), c.GetGained())
				if w := want[s]; got != fmt.Sprint(keyNames(w[0]), keyNames(w[1])) {
					t.Errorf("seed %d: %v is told as %s, but was %v %v", seed, s, got, keyNames(w[0]), keyNames(w[1]))
				}
				delete(want, s)
			}
		}
		for s := range want {
			t.Errorf("seed %d: %v is missing", seed, s)
		}
	}
}

// changes pages through the changes of a user's access, and checks their order.
func (a *archive) changes(user string) (all []*pb.AccessChange) {
	a.t.Helper()
	req := &pb.ListAccessChangesRequest{PageSize: 7}
	for last := int64(1 << 60); ; {
		a.view(func(tx *store.Tx) {
			resp, err := listChanges(tx, user, req)
			if err != nil {
				a.t.Fatal(err)
			}
			for _, c := range resp.GetChanges() {
				if r := c.GetProvenance().GetRevision(); r >= last {
					a.t.Errorf("%s: revision %d comes after %d", user, r, last)
				} else {
					last = r
				}
				all = append(all, c)
			}
			req.PageToken = resp.GetNextPageToken()
		})
		if req.PageToken == "" {
			return all
		}
	}
}
