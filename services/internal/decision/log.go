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
	"latchkey.dev/services/internal/catalog"
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
	// Counts is the file that what is used is counted in, so that a process that is killed
	// loses none; empty for memory.
	Counts string
}

// Log keeps the decisions and the uses of one service.
type Log struct {
	Config
	meter authz.Meter
	cells *cells // nil if they are in memory

	mu      sync.Mutex // held by who flushes
	waiting map[string]map[*authz.Cell]*owed
	full    bool
	broken  error // the outcome of a transaction is unknown
}

// owed is what was counted in a cell and is not in the store.
type owed struct {
	uses      []store.Use // of one user and grant, by day
	consulted uint64      // what the cell has of it
}

var _ authz.Log = (*Log)(nil)

// Open returns a log. What a process that was killed counted is written with what this one
// does.
func Open(ctx context.Context, c Config) (*Log, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{Config: c, waiting: map[string]map[*authz.Cell]*owed{}}
	if c.Counts == "" {
		return l, nil
	}
	var found []left
	var err error
	if l.cells, found, err = openCells(ctx, l); err != nil || l.cells == nil {
		return l, err
	}
	l.meter.NewCell = l.cells.newCell
	for _, f := range found {
		if today := store.DayOf(l.Now()); f.use.Day < today-store.KeepDays || f.use.Day > today {
			f.use.Day = today
		}
		l.of(f.organization, &f.Cell).uses = []store.Use{f.use}
		l.of(f.organization, &f.Cell).consulted = f.Consulted.Load()
	}
	if len(found) > 0 {
		l.Log.InfoContext(ctx, "what a process that was killed had counted is written now", "file", c.Counts, "counts", len(found))
	}
	return l, nil
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
	if err := l.end(last); err != nil {
		l.Log.ErrorContext(last, "the last counts of uses were not written, and are lost unless there is a file of them", "file", l.Counts, "error", err)
	}
	return nil
}

// end writes what is left. Only if that fails a file stays.
func (l *Log) end(ctx context.Context) error {
	err := l.Flush(ctx)
	if l.cells == nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take()
	return errors.Join(err, l.cells.close(ctx, l.Store, len(l.waiting) > 0))
}

// Flush writes what was counted. What cannot be written waits for the next time.
func (l *Log) Flush(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take()
	err := l.write(ctx)
	l.bound()
	if l.cells == nil {
		return err
	}
	l.cells.sweep(l.owes)
	if err == nil {
		l.cells.head.day.Store(store.DayOf(l.Now()))
	}
	return err
}

// take has what was counted wait.
func (l *Log) take() {
	today := store.DayOf(l.Now())
	l.meter.Take(func(u authz.Used) { l.wait(today, u) })
}

// of returns what is owed of a cell of an organization.
func (l *Log) of(organization string, cell *authz.Cell) *owed {
	of := l.waiting[organization]
	if of == nil {
		of = map[*authz.Cell]*owed{}
		l.waiting[organization] = of
	}
	o := of[cell]
	if o == nil {
		o = &owed{}
		of[cell] = o
	}
	return o
}

func (l *Log) owes(x *cell) bool {
	id, _ := x.identity()
	return l.waiting[id.organization][&x.Cell] != nil
}

// nameOf returns the name that uses of a grant are kept under.
func nameOf(grant catalog.Bit) string {
	if grant == authz.NoGrant {
		return ""
	}
	return grant.String()
}

func (l *Log) wait(day int64, u authz.Used) {
	if u.Cell == nil {
		u.Cell = &authz.Cell{}
	}
	o := l.of(u.Organization, u.Cell)
	if n := len(o.uses); n == 0 || o.uses[n-1].Day != day {
		o.uses = append(o.uses, store.Use{Day: day, User: u.User, Grant: nameOf(u.Grant)})
	}
	use := &o.uses[len(o.uses)-1]
	use.Reads += int64(u.Reads)
	use.Changes += int64(u.Changes)
	if u.Consulted {
		use.Consulted = true
		o.consulted = u.Cell.Consulted.Load()
	}
}

func (l *Log) write(ctx context.Context) error {
	if l.broken != nil {
		return l.broken
	}
	for organization, of := range l.waiting {
		inside := store.WithFence(store.WithOrigin(ctx, store.Origin{Tenant: organization}), "")
		for some := range slices.Chunk(slices.Collect(maps.Keys(of)), batch) {
			if err := l.writeSome(inside, of, some); err != nil {
				return fmt.Errorf("write uses of %s: %w", organization, err)
			}
			for _, cell := range some {
				delete(of, cell)
			}
		}
		delete(l.waiting, organization)
	}
	return nil
}

// writeSome writes what is owed of some cells, and with it that it is not owed any more.
func (l *Log) writeSome(ctx context.Context, of map[*authz.Cell]*owed, some []*authz.Cell) error {
	type row struct {
		day         int64
		user, grant string
	}
	sums := map[row]*store.Use{}
	for _, cell := range some {
		for _, u := range of[cell].uses {
			key := row{u.Day, u.User, u.Grant}
			if sums[key] == nil {
				sums[key] = &store.Use{Day: u.Day, User: u.User, Grant: u.Grant}
			}
			sums[key].Reads += u.Reads
			sums[key].Changes += u.Changes
			sums[key].Consulted = sums[key].Consulted || u.Consulted
		}
	}
	uses := make([]store.Use, 0, len(sums))
	for _, u := range sums {
		uses = append(uses, *u)
	}
	generation := l.cells.mark(of, some)
	err := l.Store.Update(ctx, func(tx *store.Tx) error {
		tx.AddUses(uses...)
		if generation > 0 {
			tx.SetCounted(l.cells.id, generation)
		}
		return nil
	})
	if errors.Is(err, store.ErrUnknownOutcome) {
		l.broken = err // the next process finds out
		return err
	}
	l.cells.settle(some, generation, err == nil)
	return err
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
