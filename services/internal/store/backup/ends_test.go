package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
)

// chased is a store to whose journal is written before each row that is read.
type chased struct {
	store.Pages
	write func(n int)
	read  int
}

func (c *chased) Page(ctx context.Context, lo, hi []byte) ([]store.Pair, error) {
	c.read++
	c.write(c.read)
	page, err := c.Pages.Page(ctx, lo, hi)
	return page[:min(len(page), 1)], err
}

// TestBackupEnds takes a backup whose reader gets one row in the time of a write.
func TestBackupEnds(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) store.Engine) {
		live := open(t)
		db := openDB(t, live)
		at := store.WithOrigin(t.Context(), store.Origin{Tenant: "acme", Caller: "ann", Method: "latchkey.store.v1.SampleService/SaveSample"})
		pages := &chased{Pages: store.PagesOf(live), write: func(n int) {
			if n > 1000 {
				t.Fatal("the end is not in sight")
			}
			err := db.Update(at, func(tx *store.Tx) error {
				tx.Emit(&storepb.Sample{Note: "happened"})
				return samples.Put(tx, &storepb.Sample{Id: fmt.Sprint(n * 7919 % 1000), Rank: int64(n)})
			})
			if err != nil {
				t.Fatal(err)
			}
		}}
		pages.write(1)
		var file bytes.Buffer
		taking := backup.Taking{Stores: []backup.Store{{Service: "test", Pages: pages}}, Now: time.Now}
		if _, err := taking.Take(t.Context(), &file); err != nil {
			t.Fatal(err)
		}
		whole, _ := restored(t, open(t), backup.Restoring{}, file.Bytes())
		if got := len(contents(t, whole, "acme")); got < 10 {
			t.Errorf("got %d records: little of what was written meanwhile is in it", got)
		}
		for _, err := range []error{whole.VerifyJournal(t.Context(), "acme"), whole.VerifyRecords(t.Context(), "acme")} {
			if err != nil {
				t.Error(err)
			}
		}
	})
}
