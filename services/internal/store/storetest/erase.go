package storetest

import (
	"fmt"
	"slices"
	"time"

	"latchkey.dev/services/internal/store"
)

var eraseTests = map[string]func(*test){
	"erased tenant":       erasedTenant,
	"erase finds nothing": eraseFindsNothing,
}

// eraseStep erases some of acme, of which everything that is there verifies afterwards.
func (t *test) eraseStep() (more bool) {
	t.Helper()
	more, err := t.db.EraseTenant(t.ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	problem := func(p string) { t.Errorf("while it is erased: %s", p) }
	if _, err := t.db.Verify(t.ctx, problem, func(store.Verified) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return more
}

func erasedTenant(t *test) {
	t.putMany("g", 450)
	if _, err := t.save(t.ctx, "r1", "a", false); err != nil {
		t.Fatal(err)
	}
	t.emit(t.ctx, "told")
	t.addUses(store.Use{Day: 20_000, User: "ann", Grant: "Web", Reads: 3})
	ctx, _ := t.noting(t.ctx, "acme", "n1")
	t.put(ctx, noted("x", "with a note"))
	t.update(t.ctx, func(tx *store.Tx) error {
		tx.SetPosition("source", 7)
		return nil
	})
	beta := as("beta", "ann")
	t.put(beta, sample("g", 1))
	t.emit(beta, "told")

	steps := 1
	for ; t.eraseStep(); steps++ {
		if steps%2 == 0 {
			t.reopen() // as after a crash
		}
	}
	if steps < 5 {
		t.Errorf("erasing took %d steps, so each may do much", steps)
	}
	t.wantErased()
	if n, events := t.count(beta), t.events("beta", 0, 10); n != 1 || len(events) != 1 {
		t.Errorf("another tenant has %d records and the events %v", n, events)
	}
	t.liveAgain()
}

func (t *test) wantErased() {
	t.Helper()
	if n, entries, events := t.count(t.ctx), t.journal("acme", 0), t.events("acme", 0, 10); n > 0 || len(entries) > 0 || len(events) > 0 {
		t.Errorf("%d records, the entries %v and the events %v are left", n, entries, events)
	}
	t.wantNotes("acme")
	if uses := t.uses("", 0, 1<<40); len(uses) > 0 {
		t.Errorf("the uses %v are left", uses)
	}
	positions, err := t.db.Positions(t.ctx, "source")
	if err != nil || positions["acme"] != 7 {
		t.Errorf("the events of others were handled up to %v, %v, want 7", positions, err)
	}
}

// liveAgain repeats a call whose answer is gone, which goes on with the revisions.
func (t *test) liveAgain() {
	t.Helper()
	var last int64
	t.view(t.ctx, func(tx *store.Tx) { last = tx.Revision() })
	if last < 450/100 {
		t.Errorf("the journal ends with revision %d", last)
	}
	again, err := t.save(t.ctx, "r1", "a", false)
	if want := fmt.Sprintf("a-%d", last+1); err != nil || again.GetId() != want {
		t.Errorf("got %v, %v, want %s", again, err, want)
	}
	if n := len(t.journal("acme", last)); n != 1 {
		t.Errorf("the journal has %d entries after its end", n)
	}
}

// eraseFindsNothing erases what never was, which is not there afterwards.
func eraseFindsNothing(t *test) {
	if more, err := t.db.EraseTenant(t.ctx, "nobody"); more || err != nil {
		t.Errorf("got %v, %v", more, err)
	}
	if tenants, err := t.db.Tenants(t.ctx); err != nil || slices.Contains(tenants, "nobody") {
		t.Errorf("got tenants %v, %v", tenants, err)
	}
	t.put(t.ctx, sample("g", 1))
	t.clock.advance(time.Hour)
	for t.eraseStep() {
	}
	if t.eraseStep() {
		t.Error("there is something left to erase")
	}
}
