package decision_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/invoicing"
)

// The decision on a mutation takes no commit of its own.
func TestDecisionIsInTheCommitOfTheChange(t *testing.T) {
	folder := t.TempDir()
	const changes = 100
	run := func(n int) *world {
		w := over(t, servertest.StartIn(t, folder, time.Now, invoicing.Part))
		maker := parts(w.As(mayMake))
		for i := range n {
			if _, err := maker.CreatePart(t.Context(), &invoicingpb.CreatePartRequest{Name: fmt.Sprint("part ", i)}); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(w.decisions(&decisionpb.ListDecisionsRequest{Method: create})); got != n {
			t.Errorf("got %d decisions of %d changes", got, n)
		}
		w.Stop()
		return w
	}
	run(0)
	before := commits(t, folder)
	run(changes)
	// Beside the changes only the counts are written, seldom.
	if took := commits(t, folder) - before; took < changes || took > changes*3/2 {
		t.Errorf("%d changes with their decisions took %d commits", changes, took)
	} else {
		t.Logf("%d changes with their decisions took %d commits", changes, took)
	}
}

// commits returns how many commits the store of a stopped server has seen.
func commits(t *testing.T, folder string) (id int) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(folder, source+".db"), 0o600, &bbolt.Options{ReadOnly: true, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}
