package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
)

// A folder of a continuous backup has a file for each backup, named by when it was begun,
// and one for each segment, named by its backup and its place.
const (
	baseName    = "20060102T150405.000000000Z"
	baseSuffix  = ".backup"
	segmentForm = "%s.%09d.segment"
)

// followed is the outcome of backup --follow.
type followed struct {
	Folder   string    `json:"folder"`
	Cut      time.Time `json:"cut"`
	Segments int       `json:"segments"`
	Entries  int64     `json:"entries"`
}

func (f *followed) String() string {
	return fmt.Sprintf("stopped; %s is complete to %s, with %d segments of %d journal entries", f.Folder, f.Cut.UTC().Format(time.RFC3339Nano), f.Segments, f.Entries)
}

// follow takes a backup into a folder, and then segments, until it is told to stop.
func (in *invocation) follow(ctx context.Context, folder string, every time.Duration) (report, error) {
	s, err := in.openStores(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	changed, stop, err := watchStores(ctx, s)
	if err != nil {
		return nil, err
	}
	defer stop()
	t := &backup.Taking{Stores: s.sources(), Now: time.Now, Progress: in.counting("read")}
	name := time.Now().UTC().Format(baseName)
	err = in.writeTo(ctx, filepath.Join(folder, name+baseSuffix), func(w io.Writer) error {
		_, err := t.Take(ctx, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	in.note("the backup of %s is there; its segments follow", t.Cut().UTC().Format(time.RFC3339))
	f := &followed{Folder: folder, Cut: t.Cut()}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return f, in.followLast(ctx, t, f, name, s)
		case <-tick.C:
		}
		tenants := changed.take()
		if err := in.segment(ctx, t, f, name, tenants); err != nil && ctx.Err() == nil {
			changed.give(tenants)
			in.note("no segment now, trying again: %v", err)
		}
	}
}

// lastTime bounds the last segment of a command that was told to stop.
const lastTime = 10 * time.Second

// followLast writes a segment with all that there is until now.
func (in *invocation) followLast(ctx context.Context, t *backup.Taking, f *followed, name string, s *stores) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
	defer cancel()
	all := map[string][]string{}
	for _, o := range s.all {
		tenants, err := store.ReadTenants(ctx, o.Pages())
		if err != nil {
			return fmt.Errorf("the last segment was not written: %w", err)
		}
		all[o.service] = tenants
	}
	return in.segment(ctx, t, f, name, all)
}

// segment writes a segment of the backup called name, if tenants have changed.
func (in *invocation) segment(ctx context.Context, t *backup.Taking, f *followed, name string, changed map[string][]string) error {
	if len(changed) == 0 {
		return nil
	}
	var counts backup.Counts
	err := in.writeTo(ctx, filepath.Join(f.Folder, fmt.Sprintf(segmentForm, name, f.Segments+1)), func(w io.Writer) (err error) {
		counts, err = t.TakeMore(ctx, w, changed)
		return err
	})
	if err != nil {
		return err
	}
	f.Segments++
	f.Entries += counts.Entries
	f.Cut = t.Cut()
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

// chosen returns the files of a continuous backup in a folder that are needed to go to an
// instant, zero being the end: the last backup that was begun before it, or the first, and its
// segments.
func chosen(folder string, at time.Time) (files []string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var base string
	for _, e := range entries { // in the order of their names
		name, ok := strings.CutSuffix(e.Name(), baseSuffix)
		begun, err := time.Parse(baseName, name)
		if ok && err == nil && (base == "" || at.IsZero() || begun.Before(at)) {
			base = name
		}
	}
	if base == "" {
		return nil, fmt.Errorf("there is no backup in %s: %w", folder, fs.ErrNotExist)
	}
	files = append(files, filepath.Join(folder, base+baseSuffix))
	for i := 1; ; i++ {
		name := filepath.Join(folder, fmt.Sprintf(segmentForm, base, i))
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return files, nil
		}
		files = append(files, name)
	}
}

// lazy is a file that is opened when it is read, and closed at its end.
type lazy struct {
	open func() (io.ReadCloser, error)
	file io.ReadCloser
}

func (l *lazy) Read(b []byte) (n int, err error) {
	if l.file == nil {
		if l.file, err = l.open(); err != nil {
			l.file = nil
			return 0, err
		}
	}
	if n, err = l.file.Read(b); err != nil {
		l.file.Close()
	}
	return n, err
}

// readAll returns the files that a command was told to read: one, or those of a continuous
// backup.
func (in *invocation) readAll(ctx context.Context, name string, at time.Time) (files []io.Reader, done func() error, err error) {
	path, ok := local(name)
	if info, err := os.Stat(path); ok && name != "-" && err == nil && info.IsDir() {
		names, err := chosen(path, at)
		for _, name := range names {
			files = append(files, &lazy{open: func() (io.ReadCloser, error) { return in.readFrom(ctx, name) }})
		}
		return files, func() error { return nil }, err
	}
	f, err := in.readFrom(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return []io.Reader{f}, f.Close, nil
}
