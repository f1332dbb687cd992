package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
	"latchkey.dev/services/internal/trial"
)

func mustOpen(t testing.TB, url, service string) *Engine {
	t.Helper()
	e, _, err := open(t.Context(), url, service, store.MakeMissing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func mustOpenStore(t testing.TB, e store.Engine) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), e, schema, store.Config{Now: time.Now, MaxRead: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// marker is in the value that an add writes, so that a proxy knows the commit.
const marker = "here is a commit"

// add adds one to a counter, and returns what it was before.
func add(ctx context.Context, e *Engine) (before int, err error) {
	err = e.Update(ctx, func(s store.Snapshot) ([]store.Write, error) {
		b, err := s.Get([]byte("n"))
		if err != nil {
			return nil, err
		}
		before = count(b)
		return []store.Write{{Key: []byte("n"), Value: []byte(marker + strconv.Itoa(before+1))}}, nil
	})
	return before, err
}

func count(b []byte) int {
	n, _ := strconv.Atoi(string(bytes.TrimPrefix(b, []byte(marker)))) // nothing is 0
	return n
}

func counter(t testing.TB, e *Engine) (n int) {
	t.Helper()
	err := e.View(t.Context(), func(s store.Snapshot) error {
		b, err := s.Get([]byte("n"))
		n = count(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCommitCut loses the connection over a commit: before it is sent, when it was done
// and before its answer comes, and so that it comes to the database only after the
// engine has asked what became of it. Each Update takes effect exactly once.
func TestCommitCut(t *testing.T) {
	url := postgrestest.URL(t)
	for _, c := range []struct {
		name string
		arm  func(p *proxy) (late func())
	}{{"never sent", loseCommit}, {"answer lost", loseAnswer}, {"sent late", holdCommit}} {
		t.Run(c.name, func(t *testing.T) {
			tr := trial.New(t, "connection lost over a commit, "+c.name, "postgres")
			p := newProxy(t, hostOf(url))
			e := mustOpen(t, p.url(url), newService())
			for i := range trial.Times(20, 500) {
				tr.Tried()
				tr.Checked(1)
				late := c.arm(p)
				if before, err := add(t.Context(), e); err != nil || before != i {
					t.Fatalf("update %d found %d and got error %v", i, before, err)
				}
				late()
				if n := counter(t, e); n != i+1 {
					t.Fatalf("%d updates count to %d", i+1, n)
				}
				if got := putBlind(t, e, c.arm, p); got != "" {
					t.Fatal(got)
				}
			}
		})
	}
}

// putBlind is an Update that reads nothing, so that no snapshot keeps its first run from
// being committed after its second.
func putBlind(t *testing.T, e *Engine, arm func(p *proxy) (late func()), p *proxy) (wrong string) {
	t.Helper()
	late := arm(p)
	run := 0
	err := e.Update(t.Context(), func(store.Snapshot) ([]store.Write, error) {
		run++
		return []store.Write{{Key: []byte("blind"), Value: []byte(marker + strconv.Itoa(run))}}, nil
	})
	if err != nil {
		return err.Error()
	}
	late()
	var got int
	err = e.View(t.Context(), func(s store.Snapshot) error {
		b, err := s.Get([]byte("blind"))
		got = count(b)
		return err
	})
	if err != nil || got != run {
		return fmt.Sprintf("the value is that of run %d of %d, %v", got, run, err)
	}
	return ""
}

func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "@")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

func disarm(p *proxy) func() { return func() { p.watch(nil, nil) } }

// first calls f with the passage of the next commit.
func first(f func(c *passage) verdict) watcher {
	done := false
	return func(c *passage, b []byte) verdict {
		if done || !bytes.Contains(b, []byte(marker)) {
			return pass
		}
		done = true
		return f(c)
	}
}

// loseCommit lets the next commit not reach the database.
func loseCommit(p *proxy) (late func()) {
	p.watch(first(func(*passage) verdict { return drop }), nil)
	return disarm(p)
}

// loseAnswer lets the next commit reach the database, and its answer nobody.
func loseAnswer(p *proxy) (late func()) {
	mark := func(c *passage) verdict {
		c.marked = true
		return pass
	}
	p.watch(first(mark), func(c *passage, _ []byte) verdict {
		if c.marked {
			return drop
		}
		return pass
	})
	return disarm(p)
}

// holdCommit lets the next commit reach the database only when late is called.
func holdCommit(p *proxy) (late func()) {
	held := make(chan *passage, 1)
	p.watch(first(func(c *passage) verdict {
		held <- c
		return hold
	}), nil)
	return func() {
		c := <-held
		close(c.release)
		<-c.over
		p.watch(nil, nil)
	}
}

// TestUnknown cannot learn what became of a commit.
func TestUnknown(t *testing.T) {
	url := postgrestest.URL(t)
	p := newProxy(t, hostOf(url))
	e := mustOpen(t, p.url(url), newService())
	e.resolveLimit = 200 * time.Millisecond
	if _, err := add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	gone := false
	p.watch(func(_ *passage, b []byte) verdict {
		if gone = gone || bytes.Contains(b, []byte(marker)); gone {
			return drop
		}
		return pass
	}, nil)
	for range 2 {
		if _, err := add(t.Context(), e); !errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("update: got error %v, want ErrUnknownOutcome", err)
		}
	}
	err := e.View(t.Context(), func(store.Snapshot) error { return nil })
	if !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("view: got error %v, want ErrUnknownOutcome", err)
	}
}

// TestUnreachable has a database that goes away and comes back.
func TestUnreachable(t *testing.T) {
	c := postgrestest.New(t)
	e := mustOpen(t, c.URL(), "test")
	if _, err := add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	c.Kill()
	_, err := add(t.Context(), e)
	wantReason(t, err, "SERVICE_UNREACHABLE")
	err = e.View(t.Context(), func(s store.Snapshot) error {
		_, err := s.Get([]byte("n"))
		return err
	})
	wantReason(t, err, "SERVICE_UNREACHABLE")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if before, err := add(t.Context(), e); err != nil || before != 1 {
		t.Errorf("after the database came back: found %d, got error %v", before, err)
	}
}

func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.ReasonName() != reason {
		t.Errorf("got error %v, want a fault with reason %s", err, reason)
	}
}

// TestServerKilled kills the server in the middle of writes, several times. What was
// acknowledged is there, and what was tried took effect once, or not at all.
func TestServerKilled(t *testing.T) {
	tr := trial.New(t, "kill -9 of the database", "postgres")
	c := postgrestest.New(t)
	e := mustOpen(t, c.URL(), "test")
	db := mustOpenStore(t, e)
	l := startLoad(t, tr, e, db)
	for range trial.Times(3, 50) {
		l.await(50)
		c.Kill()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		tr.Tried()
	}
	l.end()
	l.check(e, db)
}

var errTwice = errors.New("saved twice")

// save creates a record; doing it twice would fail.
func save(ctx context.Context, db *store.DB, id string) error {
	_, err := store.Do(ctx, db, &storepb.SaveSampleRequest{RequestId: id}, func(tx *store.Tx) (*storepb.Sample, error) {
		if samples.Has(tx, id) {
			return nil, errTwice
		}
		v := &storepb.Sample{Id: id, Number: id, Group: "g"}
		tx.Emit(v)
		return v, samples.Put(tx, v)
	})
	return err
}

// TestSessionEnded is of a process that hangs inside a transaction: the server ends its
// session, so that others need not wait, and it runs its transaction again.
func TestSessionEnded(t *testing.T) {
	url := postgrestest.URL(t)
	service := newService()
	slow := mustOpen(t, url+"?idle_in_transaction_session_timeout=50ms", service)
	other := mustOpen(t, url, service)
	runs := 0
	err := slow.Update(t.Context(), func(s store.Snapshot) ([]store.Write, error) {
		b, err := s.Get([]byte("n"))
		if err != nil {
			return nil, err
		}
		if runs++; runs == 1 {
			if _, err := add(t.Context(), other); err != nil {
				t.Error(err)
			}
			<-time.After(200 * time.Millisecond) // it hangs
		}
		return []store.Write{{Key: []byte("n"), Value: []byte(marker + strconv.Itoa(count(b)+1))}}, nil
	})
	if n := counter(t, other); err != nil || n != 2 || runs < 2 {
		t.Errorf("two updates count to %d, in %d runs, with error %v", n, runs, err)
	}
}

// TestFrozen freezes the server before the reads of an Update and before its commit, for
// longer than the engine waits. Each takes effect once, though the engine does not know
// at first whether it has.
func TestFrozen(t *testing.T) {
	tr := trial.New(t, "frozen database", "postgres")
	c := postgrestest.New(t)
	e := mustOpen(t, c.URL()+"?connect_timeout=1", "test")
	e.patience = 100 * time.Millisecond
	want := 0
	for i := range 6 {
		tr.Tried()
		if _, err := add(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		thawed := make(chan struct{})
		freeze := sync.OnceFunc(func() {
			if err := c.Signal(syscall.SIGSTOP); err != nil {
				t.Error(err)
			}
			go func() {
				defer close(thawed)
				<-time.After(time.Duration(i+1) * 100 * time.Millisecond)
				if err := c.Signal(syscall.SIGCONT); err != nil {
					t.Error(err)
				}
			}()
		})
		if i%2 == 0 {
			freeze()
		}
		err := e.Update(t.Context(), func(s store.Snapshot) ([]store.Write, error) {
			b, err := s.Get([]byte("n"))
			if err != nil {
				return nil, err
			}
			freeze()
			return []store.Write{{Key: []byte("n"), Value: []byte(marker + strconv.Itoa(count(b)+1))}}, nil
		})
		<-thawed
		if errors.Is(err, store.ErrUnknownOutcome) {
			t.Fatal(err)
		}
		if want++; err == nil {
			want++
		}
		tr.Checked(want)
		if n := counter(t, e); n != want {
			t.Fatalf("%d updates count to %d, the last with error %v", want, n, err)
		}
	}
}
