package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/trial"
)

// readerGrant is what the readers use.
const readerGrant = "Organization:Parts"

// TestKillOfWhoCountsReads kills a service at random moments while people read from it. In
// the end it has counted every read that was answered, once: those that were not answered may
// be counted or not.
func TestKillOfWhoCountsReads(t *testing.T) {
	for name, c := range map[string]struct {
		engine  string
		control string
		env     func(*testing.T) []string
		killed  func(*suite) // done after each kill
	}{
		"bolt": {engine: "bolt"},
		"postgres": {engine: "postgres", env: func(t *testing.T) []string {
			return append(inDatabase(t), "LATCHKEY_COUNTS="+t.TempDir())
		}},
		"in memory":        {engine: "postgres", control: " in memory", env: func(t *testing.T) []string { return inDatabase(t) }},
		"without its file": {engine: "bolt", control: " and loses its file", killed: (*suite).loseCounts},
	} {
		t.Run(name, func(t *testing.T) {
			if c.killed != nil && !*long {
				t.Skip("one control is enough")
			}
			begin := trial.New
			if c.control != "" {
				begin = trial.Control
			}
			tr := begin(t, "kill -9 of who counts reads"+c.control, c.engine)
			env := []string{"LATCHKEY_LEASE=" + shortLease.String()}
			if c.env != nil {
				env = append(env, c.env(t)...)
			}
			killReaders(t, tr, five(t, env...), seeded(t, *seed), c.killed)
		})
	}
}

func (s *suite) loseCounts() {
	if err := os.Remove(filepath.Join(s.folder, "invoicing.counts")); err != nil {
		s.t.Error(err)
	}
}

func killReaders(t *testing.T, tr *trial.Trial, s *suite, random *rand.Rand, killed func(*suite)) {
	company := s.fill()
	owner := company.As(t.Context(), "OW")
	before := s.reads(owner)
	r := &crowd{t: t, conn: s.conn("invoicing"), of: map[string]*reader{}}
	for _, p := range company.People {
		if ctx := company.As(t.Context(), p.Role); r.read(ctx) == nil {
			r.of[p.ID] = &reader{ctx: ctx, answered: 1}
		}
	}
	if len(r.of) < 3 {
		t.Fatalf("only %d people may read", len(r.of))
	}
	stop := r.start()
	p := s.processes["invoicing"]
	kill := func() {
		p.kill()
		tr.Tried()
		if killed != nil {
			killed(s)
		}
		s.start(p)
		s.readyOne("invoicing")
	}
	for range trial.Times(3, 100) {
		r.await(int64(1 + random.IntN(300)))
		time.Sleep(time.Duration(random.Int64N(int64(5 * time.Millisecond))))
		kill()
		if random.IntN(3) == 0 { // and while it writes what was left
			kill()
		}
	}
	stop()
	kill()
	after := s.reads(owner)
	for id, reader := range r.of {
		got := after[id] - before[id]
		tr.Checked(int(reader.answered))
		for range reader.answered - got {
			tr.Lost("a read of %s: %d were answered, %d counted", id, reader.answered, got)
		}
		if most := reader.answered + reader.failed; got > most {
			tr.Wrong("%s: %d reads are counted of at most %d", id, got, most)
		}
	}
}

// reads returns how often each user has used the grant.
func (s *suite) reads(ctx context.Context) map[string]int64 {
	s.t.Helper()
	client, all := decisionpb.NewDecisionServiceClient(s.conn("invoicing")), map[string]int64{}
	for req := (&decisionpb.ListUsageRequest{Source: "invoicing"}); ; {
		resp, err := client.ListUsage(ctx, req)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, u := range resp.GetUsage() {
			if u.GetGrant() == readerGrant {
				all[u.GetUserId()] += u.GetReads()
			}
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return all
		}
	}
}

// crowd is people who read, each as fast as he is answered.
type crowd struct {
	t        *testing.T
	conn     grpc.ClientConnInterface
	of       map[string]*reader
	answered atomic.Int64
}

type reader struct {
	ctx              context.Context
	answered, failed int64
}

func (r *crowd) read(ctx context.Context) error {
	_, err := invoicingpb.NewPartServiceClient(r.conn).ListParts(ctx,
		&invoicingpb.ListPartsRequest{View: invoicingpb.PartView_PART_VIEW_PICKER, PageSize: 1}, grpc.WaitForReady(true))
	return err
}

func (r *crowd) start() (stop func()) {
	var all sync.WaitGroup
	stopped := make(chan struct{})
	for _, reader := range r.of {
		all.Go(func() {
			for {
				select {
				case <-stopped:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(reader.ctx, time.Minute)
				err := r.read(ctx)
				cancel()
				if err == nil {
					reader.answered++
					r.answered.Add(1)
					continue
				}
				reader.failed++
				if status.Code(err) != codes.Unavailable {
					r.t.Error(err)
					return
				}
			}
		})
	}
	return func() {
		close(stopped)
		all.Wait()
	}
}

// await waits for more answers.
func (r *crowd) await(n int64) {
	r.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for target := r.answered.Load() + n; r.answered.Load() < target; time.Sleep(pace) {
		if time.Now().After(deadline) {
			r.t.Fatalf("readers get no answers any more")
		}
	}
}
