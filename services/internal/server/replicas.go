package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/store"
)

// beatsPerLease is how often within a lease a replica shows that it is alive. One that
// the others do not hear of for so many beats of their own is taken off the list.
const beatsPerLease = 6

// replica is this process as one of those that share the store of a part. It keeps itself on
// the list, takes off those who are gone, and does the work that it has claimed.
//
// A replica that finds itself taken off was frozen or cut off for a while. It ends its
// work, and comes back under another id, as one that was never there.
type replica struct {
	db    *store.DB
	log   *slog.Logger
	newID func() string
	addr  string        // where the others reach this process
	every time.Duration // between two beats
	hub   *lease.Hub    // of a source of leases; else nil
	works []*work       // not changed once run was called

	mu      sync.Mutex
	ended   bool // by leave
	id      string
	endLife context.CancelFunc
	lives   sync.WaitGroup
}

// work is a piece of background work that one replica does at a time.
type work struct {
	name string
	run  func(context.Context) error
	fail func(error) // the process

	running bool
	done    bool // for good
}

// run keeps the process on the list until ctx ends or leave was called.
func (r *replica) run(ctx context.Context) error {
	for failures := 0; ; failures++ {
		id := r.newID()
		life, ok := r.begin(ctx, id)
		if !ok {
			return nil
		}
		now, err := r.enter(life, id)
		if err == nil {
			r.log.Info("on the list of replicas", "replica", id, "number", now.Number, "replicas", len(now.List))
			err = r.live(life, id)
			failures = 0
		}
		over := life.Err() != nil
		r.end()
		if over {
			return nil
		}
		r.log.Warn("not on the list of replicas", "replica", id, "error", err)
		select {
		case <-time.After(growing(failures)):
		case <-ctx.Done():
		}
	}
}

// prepare sees to it that a source changes nothing before it is on the list.
func (r *replica) prepare() {
	if r.hub != nil {
		r.db.Fence("none yet")
	}
}

// enter puts the process on the list. What a source writes is then fenced with its id: what
// it writes without being on the list would reach nobody.
func (r *replica) enter(ctx context.Context, id string) (now store.Replicas, err error) {
	me := store.Replica{ID: id, Address: r.addr}
	if r.hub == nil {
		return r.db.Enter(ctx, me)
	}
	err = r.hub.Join(id, func() (lease.List, error) {
		now, err = r.db.Enter(ctx, me)
		return listOf(now), err
	})
	if err == nil {
		r.db.Fence(id)
	}
	return now, err
}

// listOf returns a list as the subscribers of a source are told it.
func listOf(now store.Replicas) lease.List {
	l := lease.List{Number: now.Number}
	for _, r := range now.List {
		l.Replicas = append(l.Replicas, lease.Replica{ID: r.ID, Address: r.Address})
	}
	return l
}

// beat shows that the replica is alive, and tells its hub who else is.
func (r *replica) beat(ctx context.Context, id string) (now store.Replicas, err error) {
	if r.hub == nil {
		return r.db.Beat(ctx, id)
	}
	read := r.hub.Now()
	if now, err = r.db.Beat(ctx, id); err == nil {
		r.hub.Learn(listOf(now), read)
	}
	return now, err
}

// begin begins a life on the list, unless there is to be none any more.
func (r *replica) begin(ctx context.Context, id string) (life context.Context, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || ctx.Err() != nil {
		return nil, false
	}
	life, r.endLife = context.WithCancel(ctx)
	r.id = id
	r.lives.Add(1)
	return life, true
}

func (r *replica) end() {
	r.endLife()
	r.lives.Done()
}

// live shows that the replica is alive, until ctx ends or it was taken off the list. Its
// work has ended when it returns.
func (r *replica) live(ctx context.Context, id string) error {
	fenced, stop := context.WithCancel(store.WithFence(ctx, id))
	var working sync.WaitGroup
	defer func() {
		stop()
		working.Wait()
		for _, w := range r.works {
			w.running = w.done
		}
	}()
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	silent := silence{}
	for {
		now, err := r.beat(ctx, id)
		switch {
		case errors.Is(err, store.ErrTakenOff):
			return err
		case err == nil:
			r.removeSilent(ctx, silent.listen(id, now))
			r.claim(fenced, &working, id, now)
		case ctx.Err() == nil:
			r.log.Warn("the other replicas cannot see this one", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// silence is how many beats of this replica each other one has been silent for.
type silence map[string]heard

type heard struct {
	beats uint64
	ago   int
}

// listen returns who has been silent for too long. Only beats of one's own count, which a
// database that hangs stops for all.
func (s silence) listen(id string, now store.Replicas) (gone []string) {
	for known := range s {
		if !now.Has(known) {
			delete(s, known)
		}
	}
	for _, other := range now.List {
		last, ok := s[other.ID]
		if !ok || last.beats != other.Beats {
			s[other.ID] = heard{beats: other.Beats}
			continue
		}
		last.ago++
		s[other.ID] = last
		if last.ago >= beatsPerLease && other.ID != id {
			gone = append(gone, other.ID)
		}
	}
	return gone
}

func (r *replica) removeSilent(ctx context.Context, gone []string) {
	for _, id := range gone {
		_, err := r.db.Remove(ctx, id)
		if err != nil && ctx.Err() == nil {
			r.log.Error("a replica that is gone was not taken off the list", "replica", id, "error", err)
			continue
		}
		r.log.Warn("took a replica off the list that shows no sign of life", "replica", id)
	}
}

// claim begins the work that nobody on the list does.
func (r *replica) claim(ctx context.Context, working *sync.WaitGroup, id string, now store.Replicas) {
	for _, w := range r.works {
		holder, held := now.Claims[w.name]
		if w.running || held && holder != id && now.Has(holder) {
			continue
		}
		mine, err := r.db.Claim(ctx, w.name, id)
		switch {
		case err != nil && ctx.Err() == nil:
			r.log.Warn("work could not be claimed", "work", w.name, "error", err)
		case mine:
			r.log.Info("claimed", "work", w.name)
			w.running = true
			working.Go(func() { w.do(ctx) })
		}
	}
}

// do does the work until ctx ends or it is done.
func (w *work) do(ctx context.Context) {
	err := w.run(ctx)
	if ctx.Err() != nil {
		return
	}
	if w.done = true; err != nil {
		w.fail(fmt.Errorf("%s: %w", w.name, err))
	}
}

// leave ends the work and takes the process off the list, so that the others need not wait
// until they miss it. The hub of a source goes on for those who have yet to hear of it.
func (r *replica) leave(ctx context.Context) {
	r.mu.Lock()
	first := !r.ended
	r.ended = true
	id, endLife := r.id, r.endLife
	r.mu.Unlock()
	if !first || id == "" {
		return
	}
	endLife()
	r.lives.Wait()
	if r.hub == nil {
		_, err := r.db.Remove(ctx, id)
		r.left(err)
		return
	}
	read := r.hub.Now()
	now, err := r.db.Remove(ctx, id)
	if r.left(err); err != nil || len(now.List) == 0 {
		return
	}
	r.hub.Learn(listOf(now), read)
	select {
	case <-r.hub.Empty(): // the subscribers go by the others
	case <-ctx.Done():
	}
}

func (r *replica) left(err error) {
	if err != nil {
		r.log.Warn("still on the list of replicas, until the others take this one off", "error", err)
	}
}
