package lease

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
)

// patience is how long a test waits for what must happen. Only a test that fails
// waits so long.
const patience = 30 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func background() context.Context { return context.Background() }

// bubble runs a test in a time of its own. It takes one processor: under the race
// detector Go 1.26 crashes when two timers of a bubble run at the same moment on
// two, because they share one context of the detector.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, test)
}

// facts is what a source knows: a version of each key, which only grows.
type facts struct {
	mu       sync.Mutex
	versions map[string]int
	loads    int
	// during is called by a load after it has read and before it returns.
	during func(ctx context.Context, key string) error
}

func newFacts() *facts { return &facts{versions: map[string]int{}} }

func tagOf(key string) string { return "key:" + key }

func (f *facts) change(key string) (version int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.versions[key]++
	return f.versions[key]
}

func (f *facts) load(ctx context.Context, key string) (int, []string, error) {
	f.mu.Lock()
	f.loads++
	version, during := f.versions[key], f.during
	f.mu.Unlock()
	if during != nil {
		if err := during(ctx, key); err != nil {
			return 0, nil, err
		}
	}
	return version, []string{tagOf(key)}, nil
}

func (f *facts) loaded() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loads
}

// newTestHub returns a hub without quarantine that is closed after the test.
func newTestHub(t testing.TB, edit func(*HubConfig)) *Hub {
	config := HubConfig{Source: "permissions", FirstStart: true, Clock: plainClock(), Log: quiet()}
	if edit != nil {
		edit(&config)
	}
	h := NewHub(config)
	t.Cleanup(h.Close)
	return h
}

// plainClock is one that synctest moves.
func plainClock() Clock {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// newTestCache returns a cache over f that runs until the returned function is called
// or the test ends.
func newTestCache(t testing.TB, dial func() grpc.ClientConnInterface, f *facts, edit func(*CacheConfig[int])) (*Cache[int], func()) {
	config := CacheConfig[int]{
		Source: "permissions", Subscriber: t.Name(), Dial: dial, Load: f.load,
		Clock: plainClock(), Log: quiet(),
	}
	if edit != nil {
		edit(&config)
	}
	c := NewCache(config)
	return c, runCache(t, c)
}

func runCache(t testing.TB, c *Cache[int]) (stop func()) {
	ctx, cancel := context.WithCancel(background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// held waits until the cache holds its lease.
func held(t testing.TB, c *Cache[int]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(background(), patience)
	defer cancel()
	if err := c.WaitHeld(ctx); err != nil {
		t.Fatalf("the lease was never held: %v", err)
	}
}

// want fails unless Get returns the version.
func want(t testing.TB, c *Cache[int], key string, version int) *Entry[int] {
	t.Helper()
	e, err := c.Get(background(), key)
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	if e.Value != version {
		t.Fatalf("Get(%q) = version %d, want %d", key, e.Value, version)
	}
	return e
}

// wantLost fails unless Get answers that there is no lease.
func wantLost(t testing.TB, c *Cache[int], key string) {
	t.Helper()
	if e, err := c.Get(background(), key); !errors.Is(err, c.lost) {
		t.Fatalf("Get(%q) = %v, %v, want LEASE_LOST", key, e, err)
	}
}

func wantCode(t testing.TB, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("error is %v, want %v", err, code)
	}
}

// closed reports whether the channel is closed, without waiting.
func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// member returns the only member of the hub.
func (h *Hub) only(t testing.TB) member {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.members) != 1 {
		t.Fatalf("the hub has %d members, want 1", len(h.members))
	}
	return *h.members[0]
}

// peer is a subscriber that a test plays by hand.
type peer struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[leasepb.WatchRequest, leasepb.WatchResponse]
}

// newPeer opens a stream and sends its first message.
func newPeer(t testing.TB, conn grpc.ClientConnInterface, first *leasepb.WatchRequest) *peer {
	t.Helper()
	ctx, cancel := context.WithCancel(background())
	t.Cleanup(cancel)
	stream, err := leasepb.NewLeaseServiceClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t, stream}
	p.send(first)
	return p
}

func (p *peer) send(req *leasepb.WatchRequest) {
	p.t.Helper()
	if err := p.stream.Send(req); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) recv() *leasepb.WatchResponse {
	p.t.Helper()
	res, err := p.stream.Recv()
	if err != nil {
		p.t.Fatalf("the stream ended: %v", err)
	}
	return res
}

// end returns the error that the stream ends with.
func (p *peer) end() error {
	for {
		if _, err := p.stream.Recv(); err != nil {
			return err
		}
	}
}
