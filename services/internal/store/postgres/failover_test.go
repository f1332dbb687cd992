package postgres

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
	"latchkey.dev/services/internal/trial"
)

// load is many callers who save records and add to a counter, and repeat each request until
// it is acknowledged. They stop when stop is closed.
type load struct {
	t       *testing.T
	trial   *trial.Trial
	stop    chan struct{}
	running sync.WaitGroup

	mu           sync.Mutex
	acknowledged map[string]bool
	added        int
	last         time.Time // of the last acknowledgement
}

const loadTenants = 3

// counterTenant has the counter.
const counterTenant = 99

func startLoad(t *testing.T, tr *trial.Trial, e *Engine, db *store.DB) *load {
	l := &load{t: t, trial: tr, stop: make(chan struct{}), acknowledged: map[string]bool{}}
	for w := range 4 {
		l.running.Go(func() {
			l.repeat(func(i int) {
				id := fmt.Sprintf("%d-%d", w, i)
				if l.insist(func() error { return save(as(w%loadTenants), db, id) }) {
					l.note(func() { l.acknowledged[id] = true })
				}
			})
		})
	}
	for range 2 {
		l.running.Go(func() {
			l.repeat(func(int) {
				// An error says that it did not happen, and so it is not repeated.
				if _, err := add(as(counterTenant), e); err == nil {
					l.note(func() { l.added++ })
				} else if errors.Is(err, store.ErrUnknownOutcome) {
					tr.Wrong("add: %v", err)
				}
			})
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) repeat(f func(i int)) {
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return
		default:
			f(i)
		}
	}
}

func (l *load) insist(f func() error) bool {
	for {
		err := f()
		if errors.Is(err, errTwice) || errors.Is(err, store.ErrUnknownOutcome) {
			l.trial.Wrong("save: %v", err)
			return false
		}
		if err == nil {
			return true
		}
	}
}

func (l *load) note(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.last = time.Now()
}

func (l *load) end() {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	l.running.Wait()
}

// await waits for so many more acknowledgements, and returns when the first came.
func (l *load) await(n int) (first time.Time) {
	l.t.Helper()
	before := l.count()
	for deadline := time.Now().Add(2 * time.Minute); l.count() < before+n; <-time.After(time.Millisecond) {
		if first.IsZero() && l.count() > before {
			first = time.Now()
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%d acknowledgements are missing", before+n-l.count())
		}
	}
	return first
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acknowledged) + l.added
}

// check compares what a database has with what was acknowledged, all of it and no more.
// Nobody may write.
func (l *load) check(e *Engine, db *store.DB) {
	l.t.Helper()
	l.trial.Checked(l.count())
	for n := range loadTenants {
		ctx := as(n)
		tenant := store.OriginOf(ctx).Tenant
		if err := errors.Join(db.VerifyJournal(ctx, tenant), db.VerifyRecords(ctx, tenant)); err != nil {
			l.trial.Wrong("%v", err)
		}
		found := map[string]bool{}
		err := db.View(ctx, func(tx *store.Tx) error {
			clear(found)
			for v := range samples.All(tx) {
				found[v.GetId()] = true
			}
			if int64(len(found)) != tx.Revision() {
				l.trial.Wrong("%d records at revision %d", len(found), tx.Revision())
			}
			return nil
		})
		if err != nil {
			l.trial.Wrong("read: %v", err)
		}
		for id := range found {
			if !l.acknowledged[id] {
				l.trial.Wrong("%s is there and was not acknowledged", id)
			}
		}
		for id := range l.acknowledged {
			if tenantOf(id) == n && !found[id] {
				l.trial.Lost("%s", id)
			}
		}
	}
	if n := counter(l.t, e); n < l.added {
		l.trial.Lost("%d additions", l.added-n)
	} else if n > l.added {
		l.trial.Wrong("%d additions count to %d", l.added, n)
	}
}

// tenantOf returns the tenant whose record has the id.
func tenantOf(id string) int {
	var w, i int
	if _, err := fmt.Sscanf(id, "%d-%d", &w, &i); err != nil {
		panic(err)
	}
	return w % loadTenants
}

// TestFailover kills the primary of a database under load and promotes its standby. What
// was acknowledged is there, once; and when the old primary comes back, which still takes
// itself for one, nobody listens to it.
func TestFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("a failover is not shortened")
	}
	tr := trial.New(t, "failover", "postgres")
	primary := postgrestest.New(t)
	standby := primary.Standby(t)
	url := postgrestest.URLs(primary, standby) + "&connect_timeout=2"
	e := mustOpen(t, url, "test")
	db := mustOpenStore(t, e)
	l := startLoad(t, tr, e, db)
	var away []string
	rounds := trial.Times(1, 10)
	for n := range rounds {
		l.await(100)
		killed := time.Now()
		primary.Kill()
		if err := standby.Promote(); err != nil {
			t.Fatal(err)
		}
		promoted := time.Now()
		served := l.await(100)
		tr.Tried()
		away = append(away, fmt.Sprintf("%.1f", served.Sub(killed).Seconds()))
		t.Logf("served again %v after the kill, %v after the promotion", served.Sub(killed), served.Sub(promoted))
		if err := primary.Start(); err != nil {
			t.Fatal(err)
		}
		look(t, tr, url, l)
		if n < rounds-1 {
			primary.Kill()
			if err := primary.Follow(standby); err != nil {
				t.Fatal(err)
			}
		}
		primary, standby = standby, primary
	}
	l.end()
	l.check(e, db)
	tr.Remark("served again %s s after the kill", strings.Join(away, ", "))
}

// look opens the database as a new process would, while the old primary is back. It must
// see what was acknowledged, and what it writes must be what others see.
func look(t *testing.T, tr *trial.Trial, url string, l *load) {
	t.Helper()
	l.mu.Lock()
	added := l.added
	l.mu.Unlock()
	e, _, err := open(t.Context(), url, "test", store.MakeMissing)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if n := counter(t, e); n < added {
		tr.Lost("to a new process: %d of %d additions", added-n, added)
	}
	before, err := add(as(counterTenant), e)
	if err != nil {
		tr.Wrong("add in a new process: %v", err)
		return
	}
	l.note(func() { l.added++ })
	if before < added {
		tr.Wrong("a new process adds to %d, after %d additions", before, added)
	}
}
