package lease

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	"latchkey.dev/services/internal/fault"
)

// Defaults of a HubConfig.
const (
	DefaultDuration       = 3 * time.Second
	DefaultMaxSubscribers = 1000
)

// HubConfig says how a source grants leases. Only Source must be set.
type HubConfig struct {
	// Source is the name under which subscribers ask for the feed, "permissions".
	Source string
	// Duration is how long a subscriber may go on without a word from the hub, and
	// so how long a write waits for one that is cut off. All replicas of a source
	// have the same.
	Duration time.Duration
	// Margin is how much longer the hub counts a lease than the subscriber: what two
	// clocks may drift apart within Duration, and then some. The default is a tenth of
	// Duration and 50 ms, where clocks of real machines drift by less than a thousandth.
	Margin time.Duration
	// Quarantine is how long after NewHub no Wait returns, because subscribers of a
	// former life of the source may hold leases that this one knows nothing of. The
	// default, Duration and Margin, covers them if the former life had the same
	// Duration. Who lowers Duration sets it to the old values for one start.
	Quarantine time.Duration
	// FirstStart says that the data this source serves was created by this process, so
	// that nobody can hold a lease from before, and there is no quarantine.
	FirstStart bool
	// Replicated says that other processes can change the same data. The hub then grants
	// nothing before Join, and no more than it knows of them by Learn.
	Replicated bool
	// MaxSubscribers bounds the subscribers, those included that have gone without
	// releasing their lease and whose lease has not run out.
	MaxSubscribers int
	// Clock is what leases are counted on. Tests set it.
	Clock Clock
	// Log is told of subscribers that come, go and lapse.
	Log *slog.Logger
}

func (c HubConfig) withDefaults() HubConfig {
	c.Duration = cmp.Or(c.Duration, DefaultDuration)
	c.Margin = cmp.Or(c.Margin, c.Duration/10+50*time.Millisecond)
	c.Quarantine = cmp.Or(c.Quarantine, c.Duration+c.Margin)
	c.MaxSubscribers = cmp.Or(c.MaxSubscribers, DefaultMaxSubscribers)
	if c.Clock == nil {
		c.Clock = newClock()
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Log = c.Log.With("lease", c.Source)
	return c
}

// Hub is the source's side: it knows who caches what the source said, and tells
// them what is no longer true. Its methods may be called at the same time.
type Hub struct {
	config HubConfig
	closed chan struct{}
	// streams counts the goroutines that Serve starts; Close waits for them.
	streams sync.WaitGroup

	mu       sync.Mutex
	ended    bool // closed is closed
	sequence uint64
	log      tagLog
	members  []*member // who may hold a lease: streaming, or gone without a release
	waiters  []*waiter
	writes   map[*write]struct{} // begun and not ended

	// Of a source with replicas.
	id     string        // of this one
	list   List          // the newest that was read
	read   time.Duration // when the reading of it began
	empty  chan struct{} // closed once nobody has a stream; nil until somebody asks
	former *member       // holds up every Wait until the quarantine of Join has ended
}

// waiter is one call of Wait.
type waiter struct {
	sequence uint64
	done     chan struct{} // closed when everybody has carried the sequence out
}

// write is what Begin announced.
type write struct {
	done chan struct{} // closed when it ended
}

// NewHub returns a hub that grants leases at once, and whose Wait first returns
// after the quarantine. Close it after the last handler that waits has returned.
func NewHub(config HubConfig) *Hub {
	h := &Hub{
		config: config.withDefaults(),
		closed: make(chan struct{}),
		// Sequence 1 stands for all that former lives published, so that a Barrier
		// before the first Publish also waits for the quarantine to end.
		sequence: 1,
		log:      newTagLog(logSize),
		writes:   make(map[*write]struct{}),
	}
	switch {
	case config.Replicated:
		h.quarantine(forever)
	case !config.FirstStart:
		h.quarantine(h.config.Clock() + h.config.Quarantine)
	}
	return h
}

// forever is no time that the clock reaches.
const forever = time.Duration(math.MaxInt64 / 2)

// quarantine adds the unknown subscriber of a former life. It never acknowledges
// anything, so every Wait ends no sooner than its lease.
func (h *Hub) quarantine(until time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.former = &member{name: "unknown subscribers of a former life", until: until}
	h.add(h.former)
}

// Publish says that every fact with one of the tags is no longer true, and returns
// the number to Wait for. It never blocks. Call it right after the commit and after
// dropping what the source itself keeps in memory, before anything else: a
// subscriber asks again at once, and must be told the new truth.
//
// It takes effect whether or not anybody waits.
func (h *Hub) Publish(tags ...string) (sequence uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(tags) > len(h.log.ring) {
		h.log.forget()
		tags = nil
	}
	for _, tag := range tags {
		if !utf8.ValidString(tag) {
			// It would not pass the wire, and a subscriber cannot have been told it either.
			h.log.forget()
			continue
		}
		h.log.add(tag)
	}
	return h.announce()
}

// PublishEverything says that no fact can be relied on, as after a restore from
// backup, and returns the number to Wait for.
func (h *Hub) PublishEverything() (sequence uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log.forget()
	return h.announce()
}

// announce counts one publication and wakes the streams. h.mu is held.
func (h *Hub) announce() uint64 {
	h.sequence++
	for _, m := range h.members {
		m.nudge()
	}
	return h.sequence
}

// Begin announces a commit that Publish will follow. Call the returned function when
// both are done or will not happen; defer it. Without Begin, a Barrier that falls
// between the commit and its Publish does not wait for it.
func (h *Hub) Begin() (end func()) {
	w := &write{done: make(chan struct{})}
	h.mu.Lock()
	h.writes[w] = struct{}{}
	h.mu.Unlock()
	return sync.OnceFunc(func() {
		h.mu.Lock()
		delete(h.writes, w)
		h.mu.Unlock()
		close(w.done)
	})
}

// Barrier waits for all that was published before it was called, by writes that had
// begun before it was called, and by former lives of the source. A repeated request
// that is answered from memory calls it, and so promises as much as the first.
func (h *Hub) Barrier(ctx context.Context) error {
	h.mu.Lock()
	begun := make([]*write, 0, len(h.writes))
	for w := range h.writes {
		begun = append(begun, w)
	}
	h.mu.Unlock()
	for _, w := range begun {
		select {
		case <-w.done:
		case <-ctx.Done():
			return fmt.Errorf("wait for a write to be published: %w", ctx.Err())
		}
	}
	h.mu.Lock()
	sequence := h.sequence
	h.mu.Unlock()
	return h.Wait(ctx, sequence)
}

// Wait returns nil once no subscriber can still use what the sequence's Publish made
// untrue: each has acknowledged it, or its lease has surely run out. It fails with
// the context's error when that ends first, and with UNAVAILABLE when the hub is
// closed; the publication takes effect all the same, only unconfirmed.
func (h *Hub) Wait(ctx context.Context, sequence uint64) error {
	w, err := h.enlist(sequence)
	if err != nil {
		return err
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		err = fmt.Errorf("wait until %s is carried out: %w", h.config.Source, ctx.Err())
	case <-h.closed:
		err = h.closing()
	}
	h.delist(w)
	return err
}

// enlist returns a waiter for the sequence. Its channel is closed already if there
// is nothing to wait for.
func (h *Hub) enlist(sequence uint64) (*waiter, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sequence > h.sequence {
		return nil, fmt.Errorf("wait for publication %d of %s: there are only %d", sequence, h.config.Source, h.sequence)
	}
	// What a former life of the source numbered, and 0, count as what it published.
	w := &waiter{sequence: max(sequence, 1), done: make(chan struct{})}
	if h.carriedOut() >= w.sequence {
		close(w.done)
		return w, nil
	}
	if h.ended {
		return nil, h.closing()
	}
	h.waiters = append(h.waiters, w)
	return w, nil
}

func (h *Hub) delist(gone *waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, w := range h.waiters {
		if w == gone {
			last := len(h.waiters) - 1
			h.waiters[i], h.waiters[last] = h.waiters[last], nil
			h.waiters = h.waiters[:last]
			return
		}
	}
}

// carriedOut returns the highest sequence that nobody who may hold a lease has yet
// to acknowledge. h.mu is held.
func (h *Hub) carriedOut() uint64 {
	low := h.sequence
	for _, m := range h.members {
		low = min(low, m.acknowledged)
	}
	return low
}

// settle releases the waiters whose sequence is carried out. h.mu is held.
func (h *Hub) settle() {
	if len(h.waiters) == 0 {
		return
	}
	low := h.carriedOut()
	rest := h.waiters[:0]
	for _, w := range h.waiters {
		if w.sequence <= low {
			close(w.done)
		} else {
			rest = append(rest, w)
		}
	}
	clear(h.waiters[len(rest):])
	h.waiters = rest
}

// Close ends every stream and every Wait, and waits for the streams' goroutines.
// Leases are not taken back by it: the quarantine of the next life covers them.
func (h *Hub) Close() {
	h.mu.Lock()
	if !h.ended {
		h.ended = true
		close(h.closed)
		for _, m := range h.members {
			m.timer.Stop()
		}
	}
	h.mu.Unlock()
	h.streams.Wait()
}

// closing is the answer to whoever needs the hub after Close.
func (h *Hub) closing() error {
	return fault.New(codes.Unavailable, faultpb.Reason_REASON_LEASE_LOST,
		"the "+h.config.Source+" feed is shutting down: try again",
		map[string]string{"source": h.config.Source})
}
