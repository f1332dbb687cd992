package invoicing

import (
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	invoicingstorepb "latchkey.dev/gen/go/latchkey/invoicing/store/v1"
	pb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// TestPurge: what was deleted 28 days ago goes, of every organization; the rest and the
// counter stay, so no number comes back.
func TestPurge(t *testing.T) {
	engine, err := bolt.Open(filepath.Join(t.TempDir(), "invoicing.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2027, 1, 29, 0, 0, 0, 0, time.UTC)
	db, err := store.Open(t.Context(), engine, schema, store.Config{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	const many = purgeChunk + 5
	for _, tenant := range []string{"a", "b"} {
		ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: tenant})
		err := db.Update(ctx, func(tx *store.Tx) error {
			for i := range many + 2 {
				v := &pb.Invoice{Id: servertest.UUID(i), State: deleted, PurgeTime: timestamppb.New(now.Add(-time.Second))}
				switch i {
				case many:
					v.PurgeTime = timestamppb.New(now.Add(time.Second))
				case many + 1:
					v.State, v.PurgeTime = open, nil
				}
				if err := invoices.Put(tx, v); err != nil {
					return err
				}
			}
			return counters.Put(tx, &invoicingstorepb.Counter{Id: invoices.Name(), Last: many})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := (&service{db: db}).purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"a", "b"} {
		ctx := store.WithOrigin(t.Context(), store.Origin{Tenant: tenant})
		err := db.View(ctx, func(tx *store.Tx) error {
			for i := range many + 2 {
				if got, want := invoices.Has(tx, servertest.UUID(i)), i >= many; got != want {
					t.Errorf("invoice %d of %s is there: got %v, want %v", i, tenant, got, want)
				}
			}
			if c, _ := counters.Get(tx, invoices.Name()); c.GetLast() != many {
				t.Errorf("counter of %s: got %v, want %d", tenant, c, many)
			}
			for e := range tx.History(invoices.Name(), servertest.UUID(0)) {
				for _, c := range e.GetChanges() {
					if c.GetId() == servertest.UUID(0) && (c.OldValue != nil || c.NewValue != nil) {
						t.Errorf("history of a purged invoice: got %v, want no values", c)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
