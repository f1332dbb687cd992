package bolt_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// childVariable holds the path of the file if this process is the one to be killed.
const childVariable = "LATCHKEY_TEST_WRITE_TO"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		writeUntilKilled(path)
	}
	goleak.VerifyTestMain(m)
}

var (
	samples  = store.NewCollection("sample", (*storepb.Sample).GetId)
	byNumber = samples.Unique("number", func(v *storepb.Sample) store.Key { return store.Key{v.GetNumber()} })
	byGroup  = samples.Index("group", func(v *storepb.Sample) store.Key { return store.Key{v.GetGroup(), v.GetRank()} })
	schema   = store.NewSchema(samples)
	tenant   = store.WithOrigin(context.Background(), store.Origin{Tenant: "acme", Caller: "ann", Method: "x.S/M"})
)

func openStore(t testing.TB, path string, o bolt.Options) *store.DB {
	t.Helper()
	e, err := bolt.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(tenant, e, schema, store.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// create stores a new record under a request id of the same name.
func create(db *store.DB, id string, rank int) error {
	_, err := store.Do(tenant, db, &storepb.SaveSampleRequest{RequestId: id}, func(tx *store.Tx) (*storepb.Sample, error) {
		v := &storepb.Sample{Id: id, Number: id, Group: "g", Rank: int64(rank)}
		tx.Emit(v)
		return v, samples.Put(tx, v)
	})
	return err
}

// writeUntilKilled tells the id of each record on standard output when it is stored.
func writeUntilKilled(path string) {
	e, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	db, err := store.Open(tenant, e, schema, store.Config{Now: time.Now})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), c, i)
				if err := create(db, id, i); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				os.Stdout.WriteString(id + "\n")
			}
		})
	}
	wg.Wait()
}

// TestKill kills a process in the middle of its writes, three times over the same file.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	var acknowledged []string
	for round := range 3 {
		acknowledged = append(acknowledged, killWriter(t, path, 50+100*round)...)
		verifyKilled(t, path, acknowledged)
	}
}

// killWriter runs a writer, kills it after some writes, and returns those it told of.
func killWriter(t *testing.T, path string, writes int) (acknowledged []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		acknowledged = append(acknowledged, lines.Text())
		if len(acknowledged) == writes {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if len(acknowledged) < writes {
		t.Fatalf("the writer ended after %d writes", len(acknowledged))
	}
	return acknowledged
}

func verifyKilled(t *testing.T, path string, acknowledged []string) {
	t.Helper()
	db := openStore(t, path, bolt.Options{})
	defer db.Close()
	if err := db.VerifyJournal(tenant, "acme"); err != nil {
		t.Error(err)
	}
	err := db.View(tenant, func(tx *store.Tx) error {
		for _, id := range acknowledged {
			if v, ok := samples.Get(tx, id); !ok || v.GetId() != id {
				t.Errorf("%s was acknowledged and is lost", id)
			}
			if v, ok := byNumber.First(tx, id); !ok || v.GetId() != id {
				t.Errorf("%s has lost its index entry", id)
			}
		}
		all := samples.Count(tx, samples.Range())
		indexed := byGroup.Count(tx, byGroup.Range("g"))
		if int64(all) != tx.Revision() || indexed != all || all < len(acknowledged) {
			t.Errorf("got %d records, %d entries, revision %d, %d acknowledged", all, indexed, tx.Revision(), len(acknowledged))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// A repeat of any of them, as after a lost connection, changes nothing.
	for _, id := range acknowledged[:10] {
		if err := create(db, id, 0); err != nil {
			t.Errorf("repeat %s: %v", id, err)
		}
	}
	events, err := db.Events(tenant, "acme", 0, 1<<30)
	if err != nil || len(events) < len(acknowledged) {
		t.Errorf("got %d events, %v, want at least %d", len(events), err, len(acknowledged))
	}
}
