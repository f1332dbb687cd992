package postgres

import (
	"context"
	"errors"
	"runtime"
	"slices"

	"latchkey.dev/services/internal/store"
)

// A transaction has no more members, and takes no more when it has this many bytes.
const (
	maxMembers = 128
	maxBytes   = 8 << 20
)

// line is where the Updates of one tenant wait while a transaction of theirs runs. All
// who wait when it has ended are the members of the next.
type line struct {
	waiting    []*update
	committing bool // the database may have a commit that this process has yet to note
}

// update is one call of Update, on its way from its caller to its line and back.
type update struct {
	turn    chan *reader  // gets what the function may read, each time that it is to run
	ran     chan struct{} // gets a token when it has
	outcome chan error    // gets the outcome; nil if it is what the function returned

	writes []store.Write // of the last run
	err    error
	gone   bool // the function ended its goroutine, or panicked
}

// Update implements store.Engine.
func (e *Engine) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	u := &update{turn: make(chan *reader, 1), ran: make(chan struct{}, 1), outcome: make(chan error, 1)}
	tenant := store.OriginOf(ctx).Tenant
	if err := e.queue(ctx, tenant, u); err != nil {
		return err
	}
	ended := ctx.Done()
	for {
		select {
		case r := <-u.turn:
			u.run(r, f)
		case err := <-u.outcome:
			if err == nil {
				err = u.err
			}
			return err
		case <-ended:
			if e.withdraw(tenant, u) {
				return ctx.Err()
			}
			ended = nil // it is the engine's turn to say
		}
	}
}

// run calls f and says when it is done, even if f panics or ends the goroutine.
func (u *update) run(r *reader, f func(store.Snapshot) ([]store.Write, error)) {
	u.writes, u.err, u.gone = nil, nil, true
	defer func() { u.ran <- struct{}{} }()
	writes, err := f(r)
	if err == nil {
		err = valid(writes)
	}
	if err == nil {
		u.writes = writes
	}
	u.err, u.gone = err, false
}

// queue puts the Update into the line of its tenant.
func (e *Engine) queue(ctx context.Context, tenant string, u *update) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.refusal(ctx); err != nil {
		return err
	}
	l := e.lines[tenant]
	if l == nil {
		l = &line{}
		e.lines[tenant] = l
		e.work.Go(func() { e.conduct(tenant, l) })
	}
	l.waiting = append(l.waiting, u)
	return nil
}

// withdraw takes the Update out of the line if it still waits there.
func (e *Engine) withdraw(tenant string, u *update) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lines[tenant]
	if l == nil {
		return false
	}
	i := slices.Index(l.waiting, u)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return true
}

// conduct runs the Updates of a line until nobody waits there.
func (e *Engine) conduct(tenant string, l *line) {
	for {
		members := e.members(tenant, l)
		if len(members) == 0 {
			return
		}
		e.settle(tenant, members)
	}
}

// members takes those who wait out of the line, and ends the line if there are none. Who
// comes later must not join them: what he was told of before may be younger than their
// snapshot.
func (e *Engine) members(tenant string, l *line) []*update {
	runtime.Gosched() // lets those come who were told of the last commit
	e.mu.Lock()
	defer e.mu.Unlock()
	n := min(len(l.waiting), maxMembers)
	members := slices.Clone(l.waiting[:n])
	l.waiting = slices.Delete(l.waiting, 0, n)
	if n == 0 {
		delete(e.lines, tenant)
	}
	return members
}

// settle runs the members in one transaction, again after a conflict, until each was told
// its outcome. If the database refuses what they write, each is run alone, so that
// only the one who is guilty has to do with it.
func (e *Engine) settle(tenant string, members []*update) {
	ctx, cancel := context.WithTimeout(context.Background(), retryLimit)
	defer cancel()
	for n := 0; len(members) > 0; n++ {
		left, err := e.attempt(ctx, tenant, members, n > 0)
		members = left
		switch {
		case err == nil:
			n = -1 // what had no room is a transaction of its own
		case errors.Is(err, store.ErrUnknownOutcome):
			tellAll(members, err)
			return
		case (conflict(err) || lost(err)) && n+1 < tries && pause(ctx, n) == nil:
		case len(members) > 1 && !lost(err):
			for _, u := range members {
				e.settle(tenant, []*update{u})
			}
			return
		default:
			tellAll(members, tell(err))
			return
		}
	}
}

func tellAll(members []*update, err error) {
	for _, u := range members {
		u.outcome <- err
	}
}

// attempt runs the members' functions one after the other in one SQL transaction, each
// over what those before it wrote, and commits. It returns the members who were not told
// their outcome: after an error all who are to be run again.
func (e *Engine) attempt(ctx context.Context, tenant string, members []*update, again bool) (left []*update, err error) {
	r := &reader{e: e, ctx: context.WithoutCancel(ctx), slots: e.writers, begin: beginWriteSQL, tenant: []byte(tenant), updating: true}
	if again {
		r.begin, r.takesTurn = beginTurnSQL, true
	}
	defer r.end()
	var sharing []*update // who share the commit
	for i, u := range members {
		if r.size > maxBytes {
			left = members[i:]
			break
		}
		u.turn <- r
		<-u.ran
		switch {
		case r.err != nil:
			sharing = append(sharing, members[i:]...)
			return slices.DeleteFunc(sharing, func(u *update) bool { return u.gone }), r.err
		case u.gone:
		case len(u.writes) == 0 && len(r.own) == 0:
			u.outcome <- nil // it saw nothing that may yet come undone
		default:
			sharing = append(sharing, u)
			r.write(u.writes)
		}
	}
	if len(sharing) == 0 {
		return left, nil
	}
	if err := r.commit(); err != nil {
		return append(sharing, left...), err
	}
	tellAll(sharing, nil)
	return left, nil
}
