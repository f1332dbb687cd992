package lease

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	"latchkey.dev/services/internal/fault"
)

// Defaults of a CacheConfig.
const (
	DefaultMaxEntries  = 100_000
	DefaultMaxLoads    = 1000
	DefaultLoadTimeout = 5 * time.Second
)

// maxAttempts bounds how often one load is repeated because of invalidations that
// arrived while it ran.
const maxAttempts = 8

// CacheConfig says what a cache holds and from where. Source, Dial and Load must be
// set.
type CacheConfig[V any] struct {
	// Source is the name of the feed, "permissions".
	Source string
	// Subscriber is the name of this process, for the source's logs and metrics.
	Subscriber string
	// Dial returns the connection to the source, and to any of its replicas if it has
	// several. It is called for each stream, and must
	// not block: a *grpc.ClientConn is made at once and connects when it is used. Its own pauses after a failure
	// (grpc.ConnectParams) hold up the lease, and are short: the default grows to two
	// minutes.
	Dial func() grpc.ClientConnInterface
	// DialReplica is Dial for one of the replicas that the source says it has. The lease is
	// held only while each of them grants it. Without it, a source with replicas grants none.
	DialReplica func(address string) grpc.ClientConnInterface
	// Load asks the source for the fact of a key, and returns it with the tags under
	// which its changes are published, at least one. What it returns must reflect every
	// write that was published before Load was called. It is called without the context
	// of any caller of Get, with a deadline, and may be called again at once.
	//
	// A negative answer that may be relied on is a value; an error is no answer, and is
	// handed to those who wait for it and forgotten.
	Load func(ctx context.Context, key string) (value V, tags []string, err error)
	// LoadTimeout bounds a load with its repetitions.
	LoadTimeout time.Duration
	// MaxEntries bounds the cache.
	MaxEntries int
	// MaxLoads bounds the loads under way. Who needs one more waits.
	MaxLoads int
	// Clock is what the lease is counted on. Tests set it.
	Clock Clock
	// Backoff returns how long to wait before the attempt, 0 being the first after a
	// lease was lost. The default is random, at most a second.
	Backoff func(attempt int) time.Duration
	// Log is told when the lease is held and lost.
	Log *slog.Logger
}

func (c CacheConfig[V]) withDefaults() CacheConfig[V] {
	c.LoadTimeout = cmp.Or(c.LoadTimeout, DefaultLoadTimeout)
	c.MaxEntries = cmp.Or(c.MaxEntries, DefaultMaxEntries)
	c.MaxLoads = cmp.Or(c.MaxLoads, DefaultMaxLoads)
	if c.Clock == nil {
		c.Clock = newClock()
	}
	if c.Backoff == nil {
		c.Backoff = backoff
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Log = c.Log.With("lease", c.Source)
	return c
}

// Cache is the subscriber's side: facts that a source said, each usable only while
// it is surely true. Its methods may be called at the same time. It answers nothing
// before Run has obtained the lease.
type Cache[V any] struct {
	config CacheConfig[V]
	hold   *hold
	lost   error         // the answer while there is no lease
	places chan struct{} // one item for each load under way
	loads  sync.WaitGroup

	index index[V]

	mu    sync.Mutex
	feeds map[string]*feed // by id of the replica; the seed's has none
	list  *List            // that the cache goes by; nil while it holds no lease
	next  *List            // the newest that it has heard of
	lapse *time.Timer      // looks whether the lease ran out
	life  context.Context  // of Run, without its end; nil when it is not running
	// running is the ctx of Run, and following counts the feeds.
	running   context.Context
	following sync.WaitGroup
	// epoch ends when everything is dropped, and then another begins. It is the context
	// of the loads that began in it, because they are worthless after it.
	epoch    context.Context
	endEpoch context.CancelFunc
	recent   tagLog // invalidations carried out
	flights  map[string]*flight[V]
	gained   chan struct{} // closed while the lease is held
	missed   chan struct{} // closed while it is not

	// neverLapse is for the test that shows that the other tests can fail: the lease
	// lasts for ever, and nothing is dropped when it ends.
	neverLapse bool
	// neverDrop is for the same: nothing is dropped when it goes by another list.
	neverDrop bool
}

// NewCache returns a cache that holds no lease yet.
func NewCache[V any](config CacheConfig[V]) *Cache[V] {
	c := &Cache[V]{config: config.withDefaults()}
	c.hold = newHold(c.config.Clock)
	c.lost = fault.New(codes.Unavailable, faultpb.Reason_REASON_LEASE_LOST,
		"what this service knows of its callers may be out of date: try again",
		map[string]string{"source": config.Source})
	c.places = make(chan struct{}, c.config.MaxLoads)
	c.index = newIndex[V](c.config.MaxEntries)
	c.recent = newTagLog(logSize)
	c.flights = make(map[string]*flight[V])
	c.gained, c.missed = make(chan struct{}), make(chan struct{})
	close(c.missed)
	return c
}

// Get returns the fact of the key, from memory if it is there, else from the source.
// What it returns was true at some moment of the call. It fails with UNAVAILABLE
// (LEASE_LOST) while the lease is not held or the fact changes faster than it can
// be read, with the error of Load, and with ctx's own when that ends.
func (c *Cache[V]) Get(ctx context.Context, key string) (*Entry[V], error) {
	if e := c.index.get(key); e != nil && e.Valid() {
		e.touch()
		return e, nil
	}
	return c.fetch(ctx, key)
}

// Check returns nil if the entry may be used for a decision now, and UNAVAILABLE
// (LEASE_LOST) if the caller must ask Get again. It counts as a use.
func (c *Cache[V]) Check(e *Entry[V]) error {
	if e.Valid() {
		e.touch()
		return nil
	}
	return c.lost
}

// Held reports whether the lease holds now.
func (c *Cache[V]) Held() bool { return c.hold.held() }

// Ready returns a channel that is closed once the lease is held; it says nothing of
// later.
func (c *Cache[V]) Ready() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gained
}

// Lost returns a channel that is closed once the lease is not held, which is so
// before Ready.
func (c *Cache[V]) Lost() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.missed
}

// WaitHeld waits until the lease is held. It fails with ctx's error.
func (c *Cache[V]) WaitHeld(ctx context.Context) error {
	select {
	case <-c.Ready():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Len returns the number of entries, for metrics.
func (c *Cache[V]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.index.slots)
}

// Drop forgets an entry whose fact has run out by itself, so that the next Get asks
// the source. Another entry that has its place already stays.
func (c *Cache[V]) Drop(e *Entry[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.index.get(e.key) == e {
		c.index.remove(e)
	}
}
