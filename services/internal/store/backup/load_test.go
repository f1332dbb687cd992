package backup_test

import (
	"bytes"
	"math/rand/v2"
	"path"
	"testing"
	"time"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
	"latchkey.dev/services/internal/trial"
)

// TestUnderLoad takes a backup while writers run, in pages so small that most rows are
// changed between one and the next, and restores it at revisions chosen at random, 50 or in a long run 500. At
// each the store is what the writers had made of it.
func TestUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("it restores a hundred times")
	}
	onEach(t, func(t *testing.T, open func(t *testing.T) store.Engine) {
		tr := trial.New(t, "a backup taken under load, restored at random revisions", path.Base(t.Name()))
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 99))
		tenants := []string{"acme", "brick", "cedar"}
		m, live := newModel(), open(t)
		db := openDB(t, live)
		for n := range 150 {
			if err := m.write(t.Context(), db, random, tenants[n%3], n); err != nil {
				t.Fatal(err)
			}
		}
		var file bytes.Buffer
		m.load(t, db, seed, tenants, func() {
			taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: small{store.PagesOf(live), random}}}, Now: time.Now}
			// On a fast machine one may be taken before the writers have begun.
			for meanwhile := int64(0); meanwhile == 0 && !t.Failed(); {
				file.Reset()
				counts, err := taking.Take(t.Context(), &file)
				if err != nil {
					t.Error(err)
				}
				t.Logf("%+v", counts)
				meanwhile = counts.Entries
			}
		})
		all, done := restored(t, open(t), backup.Restoring{}, file.Bytes())
		t.Logf("%+v", done)
		for _, tenant := range tenants {
			m.check(t, all, tenant, head(t, all, tenant))
		}
		for i := range trial.Times(50, 500) {
			tenant := tenants[random.IntN(3)]
			revision := 1 + random.Int64N(head(t, all, tenant))
			open := open
			if i%10 > 0 { // what was taken from one kind of database can be restored in another
				open = engines["bolt"]
			}
			part, _ := restored(t, open(t), backup.Restoring{Revisions: map[string]map[string]int64{"test": {tenant: revision}}}, file.Bytes())
			tr.Tried()
			tr.Checked(int(revision))
			if got := head(t, part, tenant); got != revision {
				tr.Wrong("got revision %d, want %d", got, revision)
			}
			m.check(t, part, tenant, revision)
			part.Close()
			if t.Failed() {
				break
			}
		}
	})
}
