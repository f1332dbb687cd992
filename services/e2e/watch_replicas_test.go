package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/internal/trial"
)

// testWatchJournal follows the journal of invoicing by calls to its replicas, one after the
// other, while others write through all of them and replicas are disturbed: every part that
// somebody was acknowledged comes once, in the order of revisions.
func (a *apart) testWatchJournal(t *testing.T) {
	tr := trial.New(t, "watch by a call, resumed on another replica: replicas killed, frozen, cut off", "postgres")
	random := seeded(t, *seed)
	w := &follower{apart: a, t: t, trial: tr, made: map[string]bool{}, seen: map[string]int64{}}
	ctx, stop := context.WithCancel(t.Context())
	var writing, following sync.WaitGroup
	t.Cleanup(following.Wait) // where the test ends before it says so
	t.Cleanup(writing.Wait)
	for n := range 4 {
		writing.Go(func() { w.write(ctx, n) })
	}
	followed, end := context.WithCancel(t.Context())
	seed := random.Uint64()
	following.Go(func() { w.follow(followed, rand.New(rand.NewPCG(seed, 0))) })
	for range trial.Times(4, 200) {
		w.await(20)
		tr.Tried()
		t.Log(a.trouble(random))
	}
	w.await(20)
	stop()
	writing.Wait()
	w.awaitAll()
	end()
	following.Wait()
	w.judge()
}

// follower is who follows a journal, and what is written in it.
type follower struct {
	*apart
	t     *testing.T
	trial *trial.Trial

	mu      sync.Mutex
	made    map[string]bool  // parts whose making was acknowledged
	seen    map[string]int64 // revision with which the making of a part came
	at      int64            // position
	resumed int              // how often it went on at another replica
}

// write makes parts, each until it is acknowledged.
func (w *follower) write(ctx context.Context, n int) {
	parts := invoicingpb.NewPartServiceClient(w.doubled)
	for i := 0; ctx.Err() == nil; i++ {
		req := &invoicingpb.CreatePartRequest{RequestId: uuid.NewString(), Name: fmt.Sprintf("Part %d of writer %d", i, n)}
		for limit := time.Now().Add(patience); ; time.Sleep(pace) {
			one, cancel := context.WithTimeout(w.company.As(w.t.Context(), "OW"), 5*time.Second)
			resp, err := parts.CreatePart(one, req)
			cancel()
			if err == nil {
				w.mu.Lock()
				w.made[resp.GetPart().GetId()] = true
				w.mu.Unlock()
				break
			}
			if w.t.Context().Err() != nil {
				return
			}
			if c := status.Code(err); c != codes.Unavailable && c != codes.DeadlineExceeded || time.Now().After(limit) {
				w.trial.Wrong("make a part: %v", err)
				return
			}
		}
	}
}

// silence is how long a follower waits for the next entry before it asks another replica.
const silence = 3 * time.Second

// follow watches at one replica after the other: until the watch ends, or is silent though
// everybody writes, or for so many entries. Sometimes it has the service keep its position.
func (w *follower) follow(ctx context.Context, random *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		replicas := w.replicas["invoicing"]
		p := replicas[n%len(replicas)]
		err := w.watch(ctx, journalpb.NewJournalServiceClient(w.only(p)), 1+random.IntN(60), random.IntN(2) == 0)
		switch status.Code(err) {
		case codes.OK, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
			time.Sleep(pace)
		default:
			w.trial.Wrong("watch at %s after %d: %v", w.number(p), w.at, err)
			return
		}
	}
}

// watch receives so many messages.
func (w *follower) watch(ctx context.Context, journal journalpb.JournalServiceClient, most int, named bool) error {
	ctx, cancel := context.WithCancel(w.company.As(ctx, "OW"))
	defer cancel()
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	const source, consumer = "invoicing", "follower"
	req := &journalpb.WatchJournalRequest{Source: source, Start: &journalpb.WatchJournalRequest_AfterRevision{AfterRevision: w.at}}
	if named && w.at > 0 {
		_, err := journal.AcknowledgeJournal(ctx, &journalpb.AcknowledgeJournalRequest{Source: source, Consumer: consumer, Revision: w.at})
		if err != nil {
			return err
		}
		req.Start = &journalpb.WatchJournalRequest_Consumer{Consumer: consumer}
	}
	stream, err := journal.WatchJournal(ctx, req)
	for n := 0; err == nil && n < most; n++ {
		var m *journalpb.WatchJournalResponse
		if m, err = stream.Recv(); err == nil {
			quiet.Reset(silence)
			w.take(m, n == 0)
		}
	}
	return err
}

// take notes a message.
func (w *follower) take(m *journalpb.WatchJournalResponse, first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if first && w.at > 0 {
		w.resumed++
	}
	if m.GetPreviousRevision() != w.at || m.GetRevision() < w.at || m.GetEntry() != nil && m.GetRevision() == w.at {
		w.trial.Wrong("after revision %d comes %d after %d", w.at, m.GetRevision(), m.GetPreviousRevision())
	}
	w.at = m.GetRevision()
	for _, c := range m.GetEntry().GetChanges() {
		if c.GetCollection() != "part" || c.GetOldValue() != nil {
			continue
		}
		if before, twice := w.seen[c.GetId()]; twice {
			w.trial.Wrong("part %s is made with revision %d and again with %d", c.GetId(), before, w.at)
		}
		w.seen[c.GetId()] = w.at
	}
}

// count returns how many parts were made, and how many of them have come.
func (w *follower) count() (made, come int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.made {
		if _, ok := w.seen[id]; ok {
			come++
		}
	}
	return len(w.made), come
}

// await waits until so many more parts have come.
func (w *follower) await(n int) {
	w.t.Helper()
	_, before := w.count()
	w.until(func(_, come int) bool { return come >= before+n })
}

// awaitAll waits until all have come.
func (w *follower) awaitAll() {
	w.t.Helper()
	w.until(func(made, come int) bool { return come == made })
}

func (w *follower) until(done func(made, come int) bool) {
	w.t.Helper()
	for limit := time.Now().Add(patience); !done(w.count()); time.Sleep(pace) {
		if time.Now().After(limit) || w.t.Failed() {
			return // judge finds what is missing
		}
	}
}

func (w *follower) judge() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trial.Checked(len(w.made))
	w.trial.Remark("resumed %d times", w.resumed)
	if w.resumed == 0 {
		w.trial.Wrong("the watch was never resumed")
	}
	for id := range w.made {
		if w.seen[id] == 0 {
			w.trial.Lost("part %s never came", id)
		}
	}
}
