package postgres

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/store"
)

func mustEnter(t *testing.T, db *store.DB, id string) store.Replicas {
	t.Helper()
	now, err := db.Enter(t.Context(), store.Replica{ID: id, Address: id + ":1"})
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func mustRemove(t *testing.T, db *store.DB, id string) {
	t.Helper()
	if _, err := db.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func wantTakenOff(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, store.ErrTakenOff) {
		t.Fatalf("got %v, want ErrTakenOff", err)
	}
}

// TestReplicaList follows the list through everything that changes it.
func TestReplicaList(t *testing.T) {
	dbs := replicas(t, 2)
	if now := mustEnter(t, dbs[0], "a"); now.Number != 1 || !now.Has("a") || len(now.List) != 1 {
		t.Fatalf("after the first came the list is %v", now)
	}
	if now := mustEnter(t, dbs[1], "b"); now.Number != 2 || !now.Has("a") || !now.Has("b") {
		t.Fatalf("after the second came the list is %v", now)
	}
	for range 2 {
		if _, err := dbs[0].Beat(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	now, err := dbs[1].Beat(t.Context(), "b")
	if err != nil || now.List[0].Beats != 3 || now.List[1].Beats != 1 || now.List[1].Address != "b:1" {
		t.Fatalf("b sees %v, %v", now, err)
	}
	mustRemove(t, dbs[1], "a")
	mustRemove(t, dbs[1], "a")
	_, err = dbs[0].Beat(t.Context(), "a")
	wantTakenOff(t, err)
	if now, err = dbs[1].Beat(t.Context(), "b"); err != nil || now.Number != 3 || now.Has("a") {
		t.Fatalf("after a was removed twice the list is %v, %v", now, err)
	}
	// The next life of a process has its address.
	now, err = dbs[0].Enter(t.Context(), store.Replica{ID: "c", Address: "b:1"})
	if err != nil || now.Number != 4 || now.Has("b") || !now.Has("c") {
		t.Fatalf("after the next life of b came the list is %v, %v", now, err)
	}
	_, err = dbs[1].Beat(t.Context(), "b")
	wantTakenOff(t, err)
}

// TestClaims has the replicas want the same work: one gets it, and another only after
// that one is off the list.
func TestClaims(t *testing.T) {
	dbs := replicas(t, 3)
	var mu sync.Mutex
	var holders []int
	var wg sync.WaitGroup
	for n, db := range dbs {
		mustEnter(t, db, fmt.Sprint(n))
	}
	for n, db := range dbs {
		wg.Go(func() {
			mine, err := db.Claim(t.Context(), "purge", fmt.Sprint(n))
			if err != nil {
				t.Error(err)
			}
			if mine {
				mu.Lock()
				holders = append(holders, n)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(holders) != 1 {
		t.Fatalf("the claim was given to %v", holders)
	}
	holder, other := holders[0], (holders[0]+1)%3
	if mine, err := dbs[holder].Claim(t.Context(), "purge", fmt.Sprint(holder)); !mine || err != nil {
		t.Fatalf("the holder asks again: %v, %v", mine, err)
	}
	if mine, err := dbs[other].Claim(t.Context(), "mail", fmt.Sprint(other)); !mine || err != nil {
		t.Fatalf("other work: %v, %v", mine, err)
	}
	now, err := dbs[other].Beat(t.Context(), fmt.Sprint(other))
	if err != nil || now.Claims["purge"] != fmt.Sprint(holder) || now.Claims["mail"] != fmt.Sprint(other) {
		t.Fatalf("the claims are %v, %v", now.Claims, err)
	}
	mustRemove(t, dbs[other], fmt.Sprint(holder))
	if mine, err := dbs[other].Claim(t.Context(), "purge", fmt.Sprint(other)); !mine || err != nil {
		t.Fatalf("after the holder was removed: %v, %v", mine, err)
	}
	mine, err := dbs[holder].Claim(t.Context(), "purge", fmt.Sprint(holder))
	if mine {
		t.Fatal("who was removed got the claim")
	}
	wantTakenOff(t, err)
}

// TestFence lets a replica write only while it is on the list, whatever it had begun.
func TestFence(t *testing.T) {
	dbs := replicas(t, 2)
	mustEnter(t, dbs[0], "a")
	fenced := store.WithFence(as(0), "a")
	if err := save(fenced, dbs[0], "one"); err != nil {
		t.Fatal(err)
	}
	// It is removed while its function runs, after it has read.
	runs := 0
	err := dbs[0].Update(fenced, func(tx *store.Tx) error {
		if _, ok := samples.Get(tx, "one"); !ok {
			t.Error("the record is not there")
		}
		if runs++; runs == 1 {
			mustRemove(t, dbs[1], "a")
		}
		return samples.Put(tx, &storepb.Sample{Id: "two", Number: "two"})
	})
	wantTakenOff(t, err)
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the caller gets %v", err)
	}
	if v := get(t, dbs[1], "two"); v != nil {
		t.Fatal("who was removed has written")
	}
	// Who changes nothing is told as well, and so is who repeats.
	wantTakenOff(t, dbs[0].Update(fenced, func(tx *store.Tx) error { return nil }))
	req := &storepb.SaveSampleRequest{RequestId: "r"}
	do := func(*store.Tx) (*storepb.Sample, error) { return &storepb.Sample{Id: "x"}, nil }
	if _, err := store.Do(as(0), dbs[1], proto.CloneOf(req), do); err != nil {
		t.Fatal(err)
	}
	_, err = store.Do(fenced, dbs[0], req, do)
	wantTakenOff(t, err)
	// A store can be fenced as a whole, but for what says otherwise.
	dbs[0].Fence("a")
	wantTakenOff(t, save(as(0), dbs[0], "three"))
	if err := save(store.WithFence(as(0), ""), dbs[0], "four"); err != nil {
		t.Fatal(err)
	}
}

// TestFenceUnderLoad removes a replica while it writes with many callers: what reads after
// the removal sees all that it ever committed.
func TestFenceUnderLoad(t *testing.T) {
	dbs := replicas(t, 2)
	for round := range 5 {
		id := fmt.Sprint("a", round)
		mustEnter(t, dbs[0], id)
		written := make([]int, 8)
		var began, wg sync.WaitGroup
		began.Add(len(written))
		for n := range written {
			wg.Go(func() {
				for {
					err := save(store.WithFence(as(n), id), dbs[0], fmt.Sprintf("%s-%d", id, written[n]))
					if err != nil {
						if !errors.Is(err, store.ErrTakenOff) {
							t.Error(err)
						}
						return
					}
					if written[n]++; written[n] == 1 {
						began.Done()
					}
				}
			})
		}
		began.Wait()
		mustRemove(t, dbs[1], id)
		revisions := make([]int64, len(written))
		read := func() (all []int64) {
			for n := range written {
				err := dbs[1].View(as(n), func(tx *store.Tx) error {
					all = append(all, tx.Revision())
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			return all
		}
		copy(revisions, read())
		wg.Wait()
		for n, r := range read() {
			if r != revisions[n] {
				t.Errorf("tenant %d went on from revision %d to %d after the removal", n, revisions[n], r)
			}
		}
	}
}
