package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	skipWriters = 16
	skipEach    = 12
	skipFirst   = 3 // before anybody follows
	skipTotal   = skipWriters*skipEach + skipFirst
)

// follower reads a journal to its end and notes what is wrong with what it gets.
type follower struct {
	name     string
	dbs      []*store.DB // the replicas that it reads at, one after the other
	frozen   <-chan struct{}
	slow     bool
	newest   bool // asks for what is new at the end only, and so skips
	position int64
	told     int // how often it was told where to go on
	wrong    error
}

// NeverSkips lets writers that pause in their transactions write to one journal of a
// store, into samples, at all of its replicas, while it is compacted, and followers of all kinds read.
// Each gets every entry once and in order, but for what it was told is no longer there.
// As a control, one that goes by the newest entry is found to skip. It returns how many
// entries there were.
func NeverSkips(t *testing.T, samples *store.Collection[*storepb.Sample], dbs ...*store.DB) int {
	ctx, cancel := context.WithTimeout(as("skips", "ann"), 5*time.Minute)
	defer cancel()
	for i := range skipFirst {
		if err := dbs[0].Update(ctx, func(tx *store.Tx) error { return samples.Put(tx, numbered("first", i)) }); err != nil {
			t.Fatal(err)
		}
	}
	written := make(chan struct{})
	var followers []*follower
	for i := range dbs {
		own := append(dbs[i:len(dbs):len(dbs)], dbs[:i]...)
		followers = append(followers, &follower{name: fmt.Sprint("fast ", i), dbs: own[:1]}, &follower{name: fmt.Sprint("moving ", i), dbs: own})
	}
	frozen := &follower{name: "frozen", dbs: dbs[:1], frozen: written}
	control := &follower{name: "control", dbs: dbs[:1], newest: true}
	followers = append(followers, &follower{name: "slow", dbs: dbs[len(dbs)-1:], slow: true}, frozen, control)
	var reading, writing sync.WaitGroup
	for _, f := range followers {
		reading.Go(func() { f.run(ctx) })
	}
	for w := range skipWriters {
		writing.Go(func() {
			if err := writeSlowly(ctx, samples, dbs[w%len(dbs)], w); err != nil {
				t.Errorf("writer %d: %v", w, err)
				cancel() // or the followers would wait for the rest
			}
		})
	}
	writing.Wait()
	// What is there goes, but for the last entry, before the frozen one wakes.
	if _, err := dbs[0].CompactTo(ctx, "skips", skipTotal-1); err != nil {
		t.Error(err)
	}
	close(written)
	reading.Wait()
	for _, f := range followers {
		if (f.wrong != nil) != f.newest {
			t.Errorf("%s: got %v", f.name, f.wrong)
		}
	}
	if frozen.told == 0 {
		t.Error("the frozen follower was not told that the journal was compacted")
	}
	if err := dbs[0].VerifyJournal(ctx, "skips"); err != nil {
		t.Error(err)
	}
	return skipTotal
}

// numbered returns a record with a number of its own, which is unique in some schemas.
func numbered(id string, version int) *storepb.Sample {
	return &storepb.Sample{Id: id, Number: id, Note: fmt.Sprint(version)}
}

// pause waits for less than so many microseconds, each time for another time.
func pause(most, n int) { time.Sleep(time.Duration(n*7919%most) * time.Microsecond) }

// writeSlowly writes, and pauses between reading and writing, so that transactions overlap.
// Every third writer compacts what most have read.
func writeSlowly(ctx context.Context, samples *store.Collection[*storepb.Sample], db *store.DB, writer int) error {
	for i := range skipEach {
		err := db.Update(ctx, func(tx *store.Tx) error {
			id := fmt.Sprint("s", writer)
			samples.Get(tx, id)
			pause(1000, writer*skipEach+i)
			return samples.Put(tx, numbered(id, i))
		})
		if err == nil && writer%3 == 0 && i%4 == 3 {
			_, err = db.CompactTo(ctx, "skips", int64(skipFirst+i*skipWriters/2))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// run reads until the end of what will be written.
func (f *follower) run(ctx context.Context) {
	if f.frozen != nil {
		<-f.frozen
	}
	errEnd := errors.New("the end")
	for n := 0; f.wrong == nil && f.position < skipTotal; n++ {
		db := f.dbs[n%len(f.dbs)]
		first := func(context.Context) ([]string, error) { return []string{"skips"}, nil }
		err := db.Follow(ctx, 0, first, func(ctx context.Context, _ []string) error {
			for {
				entries, upTo, err := db.EntriesAfter(ctx, "skips", "", f.position)
				if err != nil {
					return err
				}
				if f.newest && len(entries) > 1 {
					entries = entries[len(entries)-1:]
				}
				for i, e := range entries {
					if f.take(e.GetRevision()); f.wrong != nil || f.position == skipTotal {
						return errEnd
					}
					if len(f.dbs) > 1 && i == 6 {
						return errEnd // goes on at another replica
					}
				}
				if len(entries) == 0 && upTo == f.position {
					return nil
				}
			}
		})
		if ok := f.resume(err); !ok && !errors.Is(err, errEnd) {
			f.wrong = err
		}
	}
}

// take notes the next entry.
func (f *follower) take(revision int64) {
	if f.slow {
		pause(2000, int(revision))
	}
	if revision != f.position+1 {
		f.wrong = fmt.Errorf("revision %d came after %d", revision, f.position)
	}
	f.position = revision
}

// resume goes on from where the error of a compacted journal says.
func (f *follower) resume(err error) bool {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.ReasonName() != "JOURNAL_COMPACTED" {
		return false
	}
	base, err := strconv.ParseInt(e.Metadata["base_revision"], 10, 64)
	if err != nil || base <= f.position {
		f.wrong = fmt.Errorf("told to go on from %d, being at %d", base, f.position)
	}
	f.position = base
	f.told++
	return true
}
