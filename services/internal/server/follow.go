package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
)

// followOptions are the flags of backup --follow.
type followOptions struct {
	every time.Duration // between two segments
	renew time.Duration // between two backups; 0 for none but the first
	keep  time.Duration // how far back one can go; 0 is for ever
}

// check returns what is wrong with them.
func (o *followOptions) check() error {
	switch {
	case o.every <= 0:
		return usageError("--every: expected more than 0s")
	case o.renew < 0:
		return usageError("--renew: expected 0s or more")
	case o.keep < 0:
		return usageError("--keep: expected 0s or more")
	}
	return nil
}

// followed is the outcome of backup --follow.
type followed struct {
	Folder   string    `json:"folder"`
	Cut      time.Time `json:"cut"`
	Backups  int       `json:"backups"`
	Segments int       `json:"segments"`
	Entries  int64     `json:"entries"`
	Removed  int       `json:"removed"` // files
}

func (f *followed) String() string {
	return fmt.Sprintf("stopped; %s is complete to %s, with %d backups, and %d segments of %d journal entries",
		f.Folder, f.Cut.UTC().Format(time.RFC3339Nano), f.Backups, f.Segments, f.Entries)
}

// following is a call of backup --follow.
type following struct {
	followOptions
	in    *invocation
	shelf *shelf
	work  sync.WaitGroup
	done  followed
}

// follow takes a backup into a shelf, and then segments, until it is told to stop.
func (in *invocation) follow(ctx context.Context, name string, o followOptions) (report, error) {
	s, err := openShelf(ctx, name)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.prepare(); err != nil {
		return nil, err
	}
	f := &following{followOptions: o, in: in, shelf: s, done: followed{Folder: name}}
	first, err := f.begin(ctx, in.counting("read"))
	if err != nil {
		return nil, err
	}
	return &f.done, f.run(ctx, first)
}

// chain is a backup that is being continued. It has the stores open for itself, as it hears
// of changes for itself.
type chain struct {
	name     string
	stores   *stores
	changed  *dirty
	stop     func() // hearing of changes
	taking   *backup.Taking
	segments int
	tries    int // to write the next one
}

// begin takes a backup.
func (f *following) begin(ctx context.Context, progress func(backup.Counts)) (c *chain, err error) {
	c = &chain{name: time.Now().UTC().Format(seriesName)}
	if c.stores, err = f.in.openSources(ctx); err != nil {
		return nil, err
	}
	if c.changed, c.stop, err = watchStores(ctx, c.stores); err != nil {
		return nil, errors.Join(err, c.stores.close())
	}
	c.taking = &backup.Taking{Stores: c.stores.sources(), Now: time.Now, Progress: progress}
	err = f.write(ctx, backupName(c.name), func(w io.Writer) error {
		_, err := c.taking.Take(ctx, w)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *chain) close() error {
	c.stop()
	return c.stores.close()
}

// write writes a file of the shelf, encrypted if that was asked for.
func (f *following) write(ctx context.Context, name string, write func(io.Writer) error) error {
	return f.shelf.write(ctx, name, f.in.encrypted(write))
}

// renewal is a chain that is to take the place of another, or why there is none.
type renewal struct {
	chain *chain
	err   error
}

// renewAgain is after how long a backup that has failed is tried again, at most.
const renewAgain = time.Minute

// run continues a chain, and now and then begins another, until it is told to stop.
func (f *following) run(ctx context.Context, now *chain) error {
	f.began(ctx, now)
	renewed := f.renewAfter(ctx, f.renew)
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.next(ctx, now)
		case r := <-renewed:
			if r.err != nil {
				if ctx.Err() == nil {
					f.in.note("no new backup now, going on with the one before, and trying again: %v", r.err)
				}
				renewed = f.renewAfter(ctx, min(f.renew, renewAgain))
				continue
			}
			if err := f.end(ctx, now); err != nil {
				f.in.note("%v; the new backup has what is missing", err)
			}
			now = r.chain
			f.began(ctx, now)
			renewed = f.renewAfter(ctx, f.renew)
		case <-ctx.Done():
			err := f.end(ctx, now)
			f.work.Wait()
			select {
			case r := <-renewed:
				if r.chain != nil {
					err = errors.Join(err, r.chain.close())
				}
			default:
			}
			return err
		}
	}
}

// renewAfter begins another chain after a while, while the one before goes on.
func (f *following) renewAfter(ctx context.Context, after time.Duration) <-chan renewal {
	if f.renew == 0 {
		return nil
	}
	done := make(chan renewal, 1)
	f.work.Go(func() {
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return
		}
		c, err := f.begin(ctx, nil)
		done <- renewal{c, err}
	})
	return done
}

// began tells of a chain whose backup is there, and removes what is now too old.
func (f *following) began(ctx context.Context, c *chain) {
	f.done.Backups++
	f.done.Cut = c.taking.Cut()
	f.in.note("the backup of %s is there; its segments follow", f.done.Cut.UTC().Format(time.RFC3339))
	if f.keep == 0 {
		return
	}
	removed, err := f.shelf.removeOld(ctx, time.Now().Add(-f.keep))
	f.done.Removed += removed
	if removed > 0 {
		f.in.note("removed %d files that nothing of the last %v needs", removed, f.keep)
	}
	if err != nil && ctx.Err() == nil {
		f.in.note("not all that is too old was removed, trying again after the next backup: %v", err)
	}
}

// next writes a segment with what has changed.
func (f *following) next(ctx context.Context, c *chain) {
	tenants := c.changed.take()
	if err := f.segment(ctx, c, tenants); err != nil && ctx.Err() == nil {
		c.changed.give(tenants)
		f.in.note("no segment now, trying again: %v", err)
	}
}

// lastTime bounds the last segment of a chain.
const lastTime = 10 * time.Second

// end writes a segment with all that there is until now, and closes the chain.
func (f *following) end(ctx context.Context, c *chain) (err error) {
	defer func() { err = errors.Join(err, c.close()) }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
	defer cancel()
	all := map[string][]string{}
	for _, o := range c.stores.all {
		tenants, err := store.ReadTenants(ctx, o.Pages())
		if err != nil {
			return fmt.Errorf("the last segment was not written: %w", err)
		}
		all[o.service] = tenants
	}
	if err := f.segment(ctx, c, all); err != nil {
		return fmt.Errorf("the last segment was not written: %w", err)
	}
	return nil
}

// segment writes a segment, if tenants have changed. One that was tried before may be there
// though it was not said so; its file is left alone, and the next try has a name of its own.
func (f *following) segment(ctx context.Context, c *chain, changed map[string][]string) error {
	if len(changed) == 0 {
		return nil
	}
	c.tries++
	var counts backup.Counts
	err := f.write(ctx, segmentName(c.name, c.segments+1, c.tries), func(w io.Writer) (err error) {
		counts, err = c.taking.TakeMore(ctx, w, changed)
		return err
	})
	if err != nil {
		c.taking.Forget()
		return err
	}
	c.segments, c.tries = c.segments+1, 0
	f.done.Segments++
	f.done.Entries += counts.Entries
	f.done.Cut = c.taking.Cut()
	return nil
}

// dirty are the tenants that have changed, by service.
type dirty struct {
	mu      sync.Mutex
	tenants map[string]map[string]bool
}

func (d *dirty) add(service string, tenants ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tenants == nil {
		d.tenants = map[string]map[string]bool{}
	}
	for _, tenant := range tenants {
		if d.tenants[service] == nil {
			d.tenants[service] = map[string]bool{}
		}
		d.tenants[service][tenant] = true
	}
}

func (d *dirty) give(all map[string][]string) {
	for service, tenants := range all {
		d.add(service, tenants...)
	}
}

func (d *dirty) take() map[string][]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string][]string{}
	for service, tenants := range d.tenants {
		for tenant := range tenants {
			all[service] = append(all[service], tenant)
		}
		slices.Sort(all[service])
	}
	d.tenants = nil
	return all
}

// otherEvery is how often a database is asked what has changed.
const otherEvery = 500 * time.Millisecond

// watchStores gathers which tenants change from now on.
func watchStores(ctx context.Context, s *stores) (changed *dirty, stop func(), err error) {
	changed = &dirty{}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	stop = func() {
		cancel()
		work.Wait()
	}
	for _, o := range s.all {
		shared, inDatabase := o.engine.(store.Shared)
		switch {
		case o.engine == nil:
			ready := make(chan struct{})
			work.Go(func() { watchRemote(ctx, o, changed, sync.OnceFunc(func() { close(ready) })) })
			select {
			case <-ready:
			case <-ctx.Done():
			}
		case inDatabase:
			if _, err := shared.Others(ctx); err != nil {
				stop()
				return nil, nil, err
			}
			work.Go(func() { watchOthers(ctx, o.service, shared, changed) })
		default:
			stop()
			return nil, nil, fmt.Errorf("nobody has the store of %s open, so there is nothing to follow: start the suite", o.service)
		}
	}
	return changed, stop, nil
}

// watchRemote hears of changes from the process that has the store open. What it may have
// missed while that was away, it takes for changed.
func watchRemote(ctx context.Context, o *opened, changed *dirty, ready func()) {
	for first := true; ctx.Err() == nil; first = false {
		stream, err := o.remote.WatchTenants(ctx, &operatorpb.WatchTenantsRequest{Service: o.service})
		if err == nil {
			_, err = stream.Recv() // it listens from now on
		}
		if err == nil && !first {
			var all []string
			all, err = store.ReadTenants(ctx, o.Pages())
			changed.add(o.service, all...)
		}
		for err == nil {
			ready()
			var m *operatorpb.WatchTenantsResponse
			if m, err = stream.Recv(); err == nil {
				changed.add(o.service, m.GetTenants()...)
			}
		}
		select {
		case <-time.After(otherEvery):
		case <-ctx.Done():
		}
	}
}

// watchOthers asks a database what has changed.
func watchOthers(ctx context.Context, service string, shared store.Shared, changed *dirty) {
	tick := time.NewTicker(otherEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if tenants, err := shared.Others(ctx); err == nil {
			changed.add(service, tenants...)
		}
	}
}
