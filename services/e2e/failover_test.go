package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.dev/services/internal/store/postgres/postgrestest"
	"latchkey.dev/services/internal/trial"
)

// TestFailoverUnderLoad kills the primary of the database while clerks work through the
// services, and promotes its standby: what they were acknowledged is there, once, and the
// services go on by themselves. The old primary comes back, and changes nothing.
func TestFailoverUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("a failover is not shortened")
	}
	tr := trial.New(t, "failover under load", "postgres")
	random := seeded(t, *seed)
	primary := postgrestest.New(t)
	standby := primary.Standby(t)
	url := postgrestest.URLs(primary, standby) + "&connect_timeout=2"
	s := one(t, append(inDatabaseAt(t, url), "LATCHKEY_LEASE="+shortLease.String())...)
	b := openBooks(t, tr, s, random.Uint64())
	var away []string
	rounds := trial.Times(1, 10)
	for n := range rounds {
		b.await(50 + random.IntN(50))
		killed := time.Now()
		primary.Kill()
		if err := standby.Promote(); err != nil {
			t.Fatal(err)
		}
		b.await(1)
		away = append(away, fmt.Sprintf("%.1f", time.Since(killed).Seconds()))
		b.await(50)
		tr.Tried()
		if err := primary.Start(); err != nil {
			t.Fatal(err)
		}
		b.await(20)
		b.audit()
		if n < rounds-1 {
			primary.Kill()
			if err := primary.Follow(standby); err != nil {
				t.Fatal(err)
			}
		}
		primary, standby = standby, primary
	}
	b.finish()
	tr.Remark("acknowledged again %s s after the kill", strings.Join(away, ", "))
}

// finish lets the clerks go home, audits, and verifies all stores.
func (b *books) finish() {
	b.t.Helper()
	b.close()
	b.audit()
	b.suite.processes[names[0]].kill()
	for _, name := range names {
		if err := b.suite.verify(name); err != nil {
			b.trial.Wrong("%s: %v", name, err)
		}
	}
}

// The ways to cut a connection over a commit.
const (
	neverSent  = iota // it does not reach the database
	cutAfter          // it is sent, and then the connection ends
	answerLost        // it was done, and the answer reaches nobody
	waysToCut
)

// shears cut connections to a database over a commit, when they are armed, once.
type shears struct {
	mu     sync.Mutex
	commit []byte // what begins a commit: the name of the prepared statement
	way    int
	armed  chan struct{} // closed when it has cut; nil if it is not armed
}

// arm has the next commit cut, and returns what is closed when it was.
func (s *shears) arm(way int) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.way, s.armed = way, make(chan struct{})
	return s.armed
}

var (
	// prepares is the end of the message by which a connection prepares the commit, after its
	// name; and done is how the database says that it has committed.
	prepares = []byte("\x00COMMIT\x00\x00\x00")
	done     = []byte("C\x00\x00\x00\x0bCOMMIT\x00")
)

// look sees all bytes that pass, and says what becomes of them.
func (s *shears) look(direction int, b []byte) fate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := bytes.Index(b, prepares); direction == there && i >= 0 {
		name := b[bytes.LastIndexByte(b[:i], 'P')+5 : i] // after the kind and the length of the message
		s.commit = append(append([]byte{0}, name...), 0)
		return passes
	}
	ours := direction == there && s.way != answerLost && s.commit != nil && bytes.Contains(b, s.commit) ||
		direction == back && s.way == answerLost && bytes.Contains(b, done)
	if !ours || s.armed == nil {
		return passes
	}
	close(s.armed)
	s.armed = nil
	if s.way == cutAfter {
		return passesLast
	}
	return isLost
}

// TestCommitsCutUnderLoad cuts connections to the database over commits while clerks work
// through the services. The services find out what has become of each, and the clerks, and
// who repeats their calls, see one effect.
func TestCommitsCutUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("what it looks for is no race")
	}
	tr := trial.New(t, "connection cut over a commit under load", "postgres")
	random := seeded(t, *seed)
	url := postgrestest.Database(t)
	_, rest, _ := strings.Cut(url, "@")
	database, _, _ := strings.Cut(rest, "/")
	p, cut := newProxy(t, database), &shears{}
	p.look = cut.look
	s := one(t, append(inDatabaseAt(t, strings.Replace(url, database, p.addr(), 1)), "LATCHKEY_LEASE="+shortLease.String())...)
	b := openBooks(t, tr, s, random.Uint64())
	for i := range trial.Times(30, 2000) {
		b.await(1 + rand.IntN(10))
		struck := cut.arm(i % waysToCut)
		select {
		case <-struck:
			tr.Tried()
		case <-time.After(patience):
			t.Fatal("nobody has committed anything")
		}
		if i%50 == 49 {
			b.audit()
		}
	}
	b.await(20)
	b.finish()
}
