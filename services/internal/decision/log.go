package decision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	decisionpb "latchkey.dev/gen/go/latchkey/decision/v1"
	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	// FlushTime is how often what was counted is written.
	FlushTime = time.Second
	// MaxWaiting is how many counts may wait for a store that does not take them.
	MaxWaiting = 100_000
	// batch is how many counts one transaction writes.
	batch = 1000
	// lastTime bounds the last flush of a process.
	lastTime = 5 * time.Second
)

// Config is what a Log needs.
type Config struct {
	Store *store.DB
	Now   func() time.Time
	NewID func() string
	Log   *slog.Logger
}

// Log keeps the decisions and the uses of one service.
type Log struct {
	Config
	meter authz.Meter

	mu      sync.Mutex // held by who flushes
	waiting map[string]map[used]*store.Use
	full    bool
}

// used is what is counted of an organization.
type used struct {
	day   int64
	user  string
	grant string
}

var _ authz.Log = (*Log)(nil)

// New returns a log.
func New(c Config) *Log {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Log{Config: c, waiting: map[string]map[used]*store.Use{}}
}

// Meter counts the calls to the service.
func (l *Log) Meter() *authz.Meter { return &l.meter }

// Note returns the note that keeps a decision.
func (l *Log) Note(d *authz.Decision) (*store.Note, error) {
	if d.ID == "" {
		d.ID, d.Time = l.NewID(), l.Now()
	}
	m := &decisionpb.Decision{
		Id: d.ID, DecideTime: timestamppb.New(d.Time), Outcome: decisionpb.Outcome_OUTCOME_ALLOWED,
		OrganizationId: d.Organization, UserId: d.User, ActorId: d.Actor, SessionId: d.Session, Service: d.Service,
		Method: d.Method, Grants: d.Grants, PermissionsRevision: d.Revision,
		RequestId: d.RequestID, Code: d.Code.String(), Limited: d.Limited,
	}
	if d.Surface != authz.SurfaceNone {
		m.Surface = d.Surface.String()
	}
	if d.Denied {
		m.Outcome, m.Reason = decisionpb.Outcome_OUTCOME_DENIED, fault.ReasonName(d.Reason)
		m.MissingGrant, m.Field = d.Missing, d.Field
	}
	return store.NewNote(d.Organization, d.Time, d.ID, m)
}

// Write commits a note alone.
func (l *Log) Write(ctx context.Context, n *store.Note) error {
	err := l.Store.WriteNote(ctx, n)
	if _, told := errors.AsType[*fault.Error](err); err != nil && !told {
		l.Log.ErrorContext(ctx, "a decision was not kept, so its call fails", "id", n.ID, "error", err)
	}
	return err
}

// Run writes what was counted until ctx ends, and then what is left.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(FlushTime)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			if err := l.Flush(ctx); err != nil && ctx.Err() == nil {
				l.Log.ErrorContext(ctx, "counts of uses wait, because they were not written", "error", err)
			}
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
	defer cancel()
	if err := l.Flush(last); err != nil {
		l.Log.ErrorContext(last, "the last counts of uses are lost", "error", err)
	}
	return nil
}

// Flush writes what was counted. What cannot be written waits for the next time.
func (l *Log) Flush(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	today := store.DayOf(l.Now())
	l.meter.Take(func(u authz.Used) { l.wait(today, u) })
	err := l.write(ctx)
	l.bound()
	return err
}

func (l *Log) wait(day int64, u authz.Used) {
	of := l.waiting[u.Organization]
	if of == nil {
		of = map[used]*store.Use{}
		l.waiting[u.Organization] = of
	}
	key := used{day: day, user: u.User}
	if u.Grant != authz.NoGrant {
		key.grant = u.Grant.String()
	}
	use := of[key]
	if use == nil {
		use = &store.Use{Day: day, User: u.User, Grant: key.grant}
		of[key] = use
	}
	use.Reads += int64(u.Reads)
	use.Changes += int64(u.Changes)
	use.Consulted = use.Consulted || u.Consulted
}

func (l *Log) write(ctx context.Context) error {
	for organization, of := range l.waiting {
		inside := store.WithOrigin(ctx, store.Origin{Tenant: organization})
		for some := range slices.Chunk(slices.Collect(maps.Keys(of)), batch) {
			err := l.Store.Update(store.WithFence(inside, ""), func(tx *store.Tx) error {
				for _, key := range some {
					tx.AddUse(*of[key])
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("write uses of %s: %w", organization, err)
			}
			for _, key := range some {
				delete(of, key)
			}
		}
		delete(l.waiting, organization)
	}
	return nil
}

// bound makes calls fail when too many counts wait.
func (l *Log) bound() {
	n := 0
	for _, of := range l.waiting {
		n += len(of)
	}
	switch full := n >= MaxWaiting; {
	case full && !l.full:
		l.meter.Refuse(fault.New(codes.Unavailable, faultpb.Reason_REASON_DECISION_UNWRITTEN,
			"what is used can no longer be counted: the store takes nothing", nil))
		l.full = true
	case !full && l.full:
		l.meter.Refuse(nil)
		l.full = false
	}
}
