package decision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

var (
	today  = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	grants = []catalog.Bit{authz.NoGrant, catalog.MustGrant("Web"), catalog.MustGrant("Invoices:Void")}
)

var errKilled = errors.New("killed")

// moments is an engine that shows a test the moments before and after it commits.
type moments struct {
	store.Engine
	before func() error // what fails the commit
	after  func()
}

func (m *moments) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	if m.before != nil {
		if err := m.before(); err != nil {
			return err
		}
	}
	err := m.Engine.Update(ctx, f)
	if m.after != nil {
		m.after()
	}
	return err
}

// life is the lives of a process that counts in a file, over one store.
type life struct {
	*Log
	t        *testing.T
	engine   *moments
	said     bytes.Buffer
	sessions []*using
	ids      int
	want     map[string]int64 // reads and changes, by organization, user and grant
}

// using is a session that uses a grant. It tells the log of it as a meter does.
type using struct {
	authz.Used
	release func()
	taken   [2]uint64
}

func born(t *testing.T) *life {
	t.Helper()
	if _, err := bootID(); err != nil {
		t.Skip(err)
	}
	e, err := bolt.Open(filepath.Join(t.TempDir(), "test.db"), bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	m := &moments{Engine: e}
	db, err := store.Open(t.Context(), m, store.NewSchema(), store.Config{Now: func() time.Time { return today }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	l := &life{t: t, engine: m, want: map[string]int64{}}
	l.Log = &Log{Config: Config{Store: db, Counts: filepath.Join(t.TempDir(), "test.counts")}}
	l.again()
	return l
}

// again begins another life, with the file as it is.
func (l *life) again() {
	l.t.Helper()
	log, err := Open(l.t.Context(), Config{
		Store: l.Store, Counts: l.Counts, Now: func() time.Time { return today },
		NewID: func() string { l.ids++; return fmt.Sprint("file-", l.ids) },
		Log:   slog.New(slog.NewTextHandler(&l.said, nil)),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.Log, l.sessions = log, nil
}

// file returns the file as somebody finds it now.
func (l *life) file() []byte {
	l.t.Helper()
	b, err := os.ReadFile(l.Counts)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// killed ends a life that leaves a file.
func (l *life) killed(file []byte) {
	l.t.Helper()
	l.engine.before, l.engine.after = nil, nil
	if err := errors.Join(l.Log.cells.file.Close(), os.Remove(l.Counts), os.WriteFile(l.Counts, file, 0o600)); err != nil {
		l.t.Fatal(err)
	}
}

// session begins to use a grant.
func (l *life) session(organization, user string, grant catalog.Bit) *using {
	l.t.Helper()
	c, release, err := l.Log.cells.newCell(organization, user, grant)
	if err != nil {
		l.t.Fatal(err)
	}
	s := &using{authz.Used{Organization: organization, User: user, Grant: grant, Cell: c}, release, [2]uint64{}}
	l.sessions = append(l.sessions, s)
	return s
}

func (l *life) use(s *using, reads, changes uint64) {
	s.Cell.Reads.Add(reads)
	s.Cell.Changes.Add(changes)
	l.want[fmt.Sprint(s.Organization, " ", s.User, " ", nameOf(s.Grant), " reads")] += int64(reads)
	l.want[fmt.Sprint(s.Organization, " ", s.User, " ", nameOf(s.Grant), " changes")] += int64(changes)
}

// flush takes what was counted and writes it.
func (l *life) flush() error {
	l.mu.Lock()
	for _, s := range l.sessions {
		u := s.Used
		u.Reads, u.Changes = s.Cell.Reads.Load()-s.taken[0], s.Cell.Changes.Load()-s.taken[1]
		s.taken = [2]uint64{s.Cell.Reads.Load(), s.Cell.Changes.Load()}
		if u.Reads+u.Changes > 0 {
			l.wait(store.DayOf(today), u)
		}
	}
	l.mu.Unlock()
	return l.Flush(l.t.Context())
}

// wantUses compares the store with what was counted, once that was written.
func (l *life) wantUses(what string) {
	l.t.Helper()
	if err := l.flush(); err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
	got := map[string]int64{}
	for _, organization := range []string{"acme", "beta"} {
		err := l.Store.View(store.WithOrigin(l.t.Context(), store.Origin{Tenant: organization}), func(tx *store.Tx) error {
			for u := range tx.Uses("", 0, store.DayOf(today)) {
				got[fmt.Sprint(organization, " ", u.User, " ", u.Grant, " reads")] = u.Reads
				got[fmt.Sprint(organization, " ", u.User, " ", u.Grant, " changes")] = u.Changes
			}
			return nil
		})
		if err != nil {
			l.t.Fatal(err)
		}
	}
	maps.DeleteFunc(got, func(_ string, n int64) bool { return n == 0 })
	maps.DeleteFunc(l.want, func(_ string, n int64) bool { return n == 0 })
	if !maps.Equal(got, l.want) {
		l.t.Fatalf("%s: got the uses %v, want %v; said:\n%s", what, got, l.want, &l.said)
	}
}

// comeAndGo lets some sessions begin, and some of them end.
func (l *life) comeAndGo(random *rand.Rand) {
	l.t.Helper()
	for range random.IntN(5) {
		s := l.session([]string{"acme", "beta"}[random.IntN(2)], fmt.Sprint("u", random.IntN(3)), grants[random.IntN(len(grants))])
		if random.IntN(4) > 0 {
			continue
		}
		l.use(s, 1, 0)
		if err := l.flush(); err != nil {
			l.t.Fatal(err)
		}
		l.sessions = slices.DeleteFunc(l.sessions, func(other *using) bool { return other == s })
		s.release()
	}
}

// Whenever a process is killed, the next one writes what it had counted, once; also one that
// is killed while it does.
func TestKilledBetweenAnySteps(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	l := born(t)
	for n := range 300 {
		l.comeAndGo(random)
		for _, s := range l.sessions {
			l.use(s, random.Uint64N(3), random.Uint64N(2))
		}
		var left []byte
		look := func() { left = l.file() }
		step := random.IntN(6)
		switch step {
		case 0: // before anything is written
		case 1: // before a commit, of which there are two at most
			l.engine.before = func() error { look(); return errKilled }
		case 2: // after a commit that the process did not hear of
			l.engine.after = func() {
				look()
				l.engine.before = func() error { return errKilled }
			}
		case 3: // after a commit that failed
			l.engine.before = func() error { return errKilled }
			_ = l.flush()
			l.engine.before = nil
			for _, s := range l.sessions {
				l.use(s, 1, 1)
			}
			if random.IntN(2) == 0 {
				_ = l.flush()
			}
		case 4: // after all was written
		case 5: // not yet
			l.wantUses(fmt.Sprint("round ", n))
			continue
		}
		if step > 0 && step != 3 {
			_ = l.flush()
		}
		if left == nil {
			left = l.file()
		}
		l.killed(left)
		l.again()
		if random.IntN(2) == 0 {
			l.wantUses(fmt.Sprintf("round %d, step %d", n, step))
		}
	}
	l.wantUses("in the end")
	if size := len(l.file()); size > 4*unit {
		t.Errorf("the file has grown to %d bytes", size)
	}
	if err := l.end(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.Counts); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a clean stop leaves a file: %v", err)
	}
	if n, err := l.Store.Counted(t.Context(), l.Log.cells.id); n != 0 || err != nil {
		t.Errorf("a clean stop leaves a row of %d transactions, %v", n, err)
	}
}

// What is consulted is told of after a kill too.
func TestKilledAfterConsulting(t *testing.T) {
	l := born(t)
	s := l.session("acme", "ann", grants[1])
	s.Cell.Consulted.Add(1)
	l.killed(l.file())
	l.again()
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	err := l.Store.View(store.WithOrigin(t.Context(), store.Origin{Tenant: "acme"}), func(tx *store.Tx) error {
		got := slices.Collect(tx.Uses("", 0, store.DayOf(today)))
		if want := []store.Use{{Day: store.DayOf(today), User: "ann", Grant: "Web", Consulted: true}}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A file left by a version whose catalog has a grant that this one does not know is counted as
// it was used, and what is known goes on in its cells.
func TestFileOfAnotherCatalog(t *testing.T) {
	l := born(t)
	another := l.session("acme", "ann", catalog.MustGrant("Invoices:Void"))
	l.Log.cells.of(another.Cell).open(identity{"acme", "ann", "Invoices:Burn"})
	l.use(another, 3, 1)
	l.use(l.session("acme", "ann", grants[1]), 2, 0)
	l.want = map[string]int64{"acme ann Invoices:Burn reads": 3, "acme ann Invoices:Burn changes": 1, "acme ann Web reads": 2}
	l.killed(l.file())
	l.again()
	l.use(l.session("acme", "ann", grants[1]), 5, 0)
	l.use(l.session("acme", "ann", catalog.MustGrant("Invoices:Void")), 1, 0)
	l.wantUses("after the file of another catalog")
	l.killed(l.file())
	l.again()
	l.wantUses("after one more life")
}

// A file of which it cannot be told what of it is in the store is not believed, nor is one
// that is damaged, and the log says so.
func TestFilesThatAreNotBelieved(t *testing.T) {
	boot, err := bootID()
	if err != nil {
		t.Skip(err)
	}
	replace := func(old, with string) func(*life, []byte) []byte {
		return func(_ *life, b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(with), 1) }
	}
	const cut = unit + 3*cellBytes + 100 // in the middle of a cell
	for name, c := range map[string]struct {
		change func(*life, []byte) []byte
		says   string
		lost   bool // what was not in the store
	}{
		"nothing is wrong":      {func(_ *life, b []byte) []byte { return b }, "had counted is written now", false},
		"another boot":          {replace(boot, strings.Repeat("x", len(boot))), "the machine was restarted", true},
		"another version":       {replace(title, "latchkey counts 2"), "no file of counts of this version", true},
		"no file of counts":     {func(*life, []byte) []byte { return bytes.Repeat([]byte("junk"), unit) }, "no file of counts", true},
		"cut in the head":       {func(_ *life, b []byte) []byte { return b[:100] }, "no file of counts", true},
		"cut after the head":    {func(_ *life, b []byte) []byte { return b[:unit] }, "", true},
		"cut in a cell":         {func(_ *life, b []byte) []byte { return b[:cut] }, "", true},
		"zeros":                 {func(_ *life, b []byte) []byte { clear(b); return b }, "no file of counts", true},
		"garbled cells":         {func(_ *life, b []byte) []byte { garble(b[unit:], 0x5a); return b }, "cannot be read", true},
		"cells of ones":         {func(_ *life, b []byte) []byte { garble(b[unit:], 0xff); return b }, "cannot be read", true},
		"a file of before":      {(*life).older, "the store is of another time", false},
		"another store":         {(*life).moved, "that of another store", false},
		"the store as restored": {(*life).restored, "the store is of another time", true},
	} {
		t.Run(name, func(t *testing.T) {
			l := born(t)
			s := l.session("acme", "ann", grants[1])
			l.use(s, 7, 0)
			l.wantUses("before")
			written := maps.Clone(l.want)
			l.use(s, 5, 0)
			l.killed(c.change(l, l.file()))
			if c.lost {
				l.want = written
			}
			l.again()
			l.wantUses("after")
			if !strings.Contains(l.said.String(), c.says) {
				t.Errorf("said %q, want %q", &l.said, c.says)
			}
			s = l.session("acme", "ann", grants[1])
			l.use(s, 3, 0)
			l.killed(l.file())
			l.again()
			l.wantUses("after another kill")
		})
	}
}

func garble(b []byte, with byte) {
	for i := range b {
		b[i] ^= with
	}
}

// older has the store go on for a while, and returns the file of before.
func (l *life) older(file []byte) []byte {
	for range 2 {
		l.use(l.sessions[0], 1, 0)
		l.wantUses("meanwhile")
	}
	return file
}

// moved puts another store in the place of the one that the file is of.
func (l *life) moved(file []byte) []byte {
	other := born(l.t)
	l.Store, l.engine, l.want = other.Store, other.engine, map[string]int64{}
	return file
}

// restored has the store forget how far the file had come, as one does that is put back.
func (l *life) restored(file []byte) []byte {
	if err := l.Store.DropCounted(l.t.Context(), func(string, int64) bool { return true }); err != nil {
		l.t.Fatal(err)
	}
	return file
}

// Cells are used again, however many sessions come and go.
func TestCellsAreUsedAgain(t *testing.T) {
	l := born(t)
	for n := range 5 * unit / cellBytes {
		s := l.session("acme", fmt.Sprint("u", n%7), grants[n%len(grants)])
		l.use(s, 1, 0)
		if n%100 == 99 {
			s := l.sessions
			l.wantUses("while sessions come and go")
			for _, s := range s {
				s.release()
			}
			l.sessions = nil
			if err := l.flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if size := len(l.file()); size != 2*unit {
		t.Errorf("the file has %d bytes, want %d", size, 2*unit)
	}
}

// Every grant fits into a cell with ids as they are.
func TestEveryGrantFits(t *testing.T) {
	id := strings.Repeat("x", 36)
	for _, k := range catalog.Keys() {
		if !(identity{id, id, nameOf(k.Bit())}).fits() {
			t.Errorf("%v does not fit", k.Bit())
		}
	}
	l := born(t)
	if c, _, err := l.Log.cells.newCell(strings.Repeat("x", 200), id, grants[1]); err != nil || l.Log.cells.of(c) != nil {
		t.Errorf("a longer name: got %v in the file %t, want one in memory", err, l.Log.cells.of(c) != nil)
	}
}

// A second process does not count in a file that one has.
func TestOneProcessOneFile(t *testing.T) {
	l := born(t)
	_, err := Open(t.Context(), Config{Store: l.Store, Counts: l.Counts, Now: func() time.Time { return today }, NewID: func() string { return "x" }})
	if err == nil || !strings.Contains(err.Error(), "another process counts in") {
		t.Errorf("got %v, want that another process has it", err)
	}
}
