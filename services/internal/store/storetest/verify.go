package storetest

import (
	"bytes"
	"context"
	"slices"

	"latchkey.dev/services/internal/store"
)

var verifyTests = map[string]func(*test){
	"records and indexes agree":             recordsAgree,
	"damage to a record or index is found":  damageFound,
	"records are verified in many pieces":   manyVerified,
	"records are verified while some write": verifiedMeanwhile,
}

func (t *test) wantVerified(want bool, what string) {
	t.Helper()
	if err := t.db.VerifyRecords(t.ctx, "acme"); (err == nil) != want {
		t.Errorf("%s: got error %v, want none: %v", what, err, want)
	}
}

// changed writes three records, changes one and deletes one.
func (t *test) changed() {
	t.Helper()
	for i := range 3 {
		v := sample("g", i)
		v.Tags = []string{"red", "round"}
		t.put(t.ctx, v)
	}
	t.put(t.ctx, sample("g", 1))
	t.update(t.ctx, func(tx *store.Tx) error {
		samples.Delete(tx, "g-002")
		return nil
	})
}

func recordsAgree(t *test) {
	t.wantVerified(true, "empty")
	t.changed()
	t.wantVerified(true, "changed and deleted")
	t.update(t.ctx, func(tx *store.Tx) error {
		tx.EraseHistory("sample", "g-001")
		return nil
	})
	t.wantVerified(true, "erased")
}

// damageFound removes and changes each row of records and indexes behind the store's
// back, and adds some.
func damageFound(t *test) {
	t.changed()
	t.close()
	damaged := func(what string, w ...store.Write) {
		t.Helper()
		var repair []store.Write
		e := t.open()
		for _, one := range w {
			repair = append(repair, store.Write{Key: one.Key, Value: value(t, e, one.Key)})
		}
		write(t, e, w...)
		t.openOver(e, schema)
		t.wantVerified(false, what)
		write(t, e, repair...)
		t.wantVerified(true, what+", and repaired")
		t.close()
	}
	e := t.open()
	records, entries := rows(t, e, 'r'), rows(t, e, 'i')
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if len(records) != 2 || len(entries) < 6 {
		t.Fatalf("found %d records and %d entries", len(records), len(entries))
	}
	for _, row := range slices.Concat(records, entries) {
		damaged("removed "+string(row.Key), store.Write{Key: row.Key})
		damaged("doubled "+string(row.Key), store.Write{Key: append(bytes.Clone(row.Key), "\x02x\x00\x01"...), Value: row.Value})
	}
	damaged("exchanged", store.Write{Key: records[0].Key, Value: records[1].Value})
	damaged("older", store.Write{Key: records[1].Key, Value: records[0].Value})
	for _, row := range entries {
		if len(row.Value) > 0 {
			damaged("another's "+string(row.Key), store.Write{Key: row.Key, Value: []byte("g-009")})
		}
	}
	gone := []store.Write{{Key: records[0].Key}}
	for _, row := range entries {
		if bytes.HasSuffix(row.Key, []byte("g-000\x00\x01")) || string(row.Value) == "g-000" {
			gone = append(gone, store.Write{Key: row.Key})
		}
	}
	damaged("removed with all its entries", gone...)
}

// rows returns the rows of a space of the tenant acme.
func rows(t *test, e store.Engine, space byte) (found []store.Pair) {
	t.Helper()
	prefix := append([]byte("\x02acme\x00\x01"), space)
	err := e.View(context.Background(), func(s store.Snapshot) error {
		for p, err := range s.Scan(prefix, append(bytes.Clone(prefix), 0xff), false) {
			if err != nil {
				return err
			}
			found = append(found, store.Pair{Key: bytes.Clone(p.Key), Value: append([]byte{}, p.Value...)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func value(t *test, e store.Engine, key []byte) (v []byte) {
	t.Helper()
	err := e.View(context.Background(), func(s store.Snapshot) error {
		b, err := s.Get(key)
		if b != nil {
			v = append([]byte{}, b...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func manyVerified(t *test) {
	const n = 1200
	t.update(t.ctx, func(tx *store.Tx) error {
		for i := range n {
			if err := samples.Put(tx, sample("g", i)); err != nil {
				return err
			}
		}
		return nil
	})
	t.wantVerified(true, "many")
	e := t.engineWithout("g-1111")
	t.openOver(e, schema)
	t.wantVerified(false, "many without one entry")
}

// engineWithout closes the store and removes the record's entry in the index by rank.
func (t *test) engineWithout(id string) store.Engine {
	t.Helper()
	t.close()
	e := t.open()
	for _, row := range rows(t, e, 'i') {
		if bytes.Contains(row.Key, []byte("sample/rank")) && bytes.HasSuffix(row.Key, []byte(id+"\x00\x01")) {
			write(t, e, store.Write{Key: row.Key})
			return e
		}
	}
	t.Fatalf("there is no entry for %s", id)
	return nil
}

func verifiedMeanwhile(t *test) {
	for i := range 50 {
		t.put(t.ctx, sample("g", i))
	}
	done := make(chan error, 1)
	go func() {
		for i := range 200 {
			v := sample("g", i%50)
			v.Rank = int64(1000 - i)
			if err := t.db.Update(t.ctx, func(tx *store.Tx) error { return samples.Put(tx, v) }); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		t.wantVerified(true, "while some write")
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
