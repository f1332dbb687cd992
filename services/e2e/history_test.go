package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// register is what a test saw of one thing that is either allowed or not, in one
// service: when it was changed, and how calls went that depend on it. Calls that were
// not answered say nothing and are not in it.
type register struct {
	name    string
	service string
	initial bool
	writes  []span // one after the other
	reads   []span // in the order of their ends
	refused []span // UNAVAILABLE, which is neither
}

// verdict is how a call ended.
type verdict int

const (
	lost    verdict = iota // not answered in time
	refused                // UNAVAILABLE
	denied
	allowed
)

// span is a change or a call, from before it was sent until after its answer came.
type span struct {
	start, end time.Duration
	allowed    bool
}

func (s span) String() string {
	return fmt.Sprintf("%v from %s to %s", s.allowed, s.start, s.end)
}

// check looks for moments at which the changes can have taken effect, each between its
// start and its end, so that every call was answered by what was so at one moment
// between the call's start and end. It returns what cannot have been so, or "".
//
// Epoch k is the time between the k-th change and the next. A call belongs to an epoch
// that had begun before the call ended and had not surely ended when it started; not to an
// earlier one than a call that ended before it started; and its answer is what
// the epoch allows. Taking the earliest such epoch for each call, in the order of their
// starts, finds an arrangement if there is one.
func (r *register) check() string {
	reads := slices.Clone(r.reads)
	slices.SortFunc(reads, func(a, b span) int { return int(a.start - b.start) })
	ended := &byEnd{}
	for _, read := range reads {
		first, last := r.epochs(read)
		latest := ended.before(read.start)
		k := max(first, latest)
		for k <= last && r.value(k) != read.allowed {
			k++
		}
		if k > last {
			return fmt.Sprintf("%s: a call answered %v, but %s", r.name, read, r.explain(first, last, latest))
		}
		ended.add(read.end, k)
	}
	return ""
}

// epochs returns the first and the last epoch that a call can have seen.
func (r *register) epochs(read span) (first, last int) {
	for _, w := range r.writes {
		if w.end < read.start {
			first++
		}
		if w.start <= read.end {
			last++
		}
	}
	return first, last
}

// value is what an epoch allows.
func (r *register) value(epoch int) bool {
	if epoch == 0 {
		return r.initial
	}
	return r.writes[epoch-1].allowed
}

func (r *register) explain(first, last, latest int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "it was %v before", r.value(first))
	for k := first; k <= last; k++ {
		if k > 0 {
			fmt.Fprintf(&b, "; changed to %v", r.writes[k-1])
		}
	}
	if latest > first {
		fmt.Fprintf(&b, "; and a call that ended before this one started had seen change %d", latest)
	}
	return b.String()
}

// byEnd tells the latest epoch of the calls that ended before a moment. Moments are
// asked for in order.
type byEnd struct {
	open   []seen
	latest int
}

type seen struct {
	end   time.Duration
	epoch int
}

func (e *byEnd) add(end time.Duration, epoch int) { e.open = append(e.open, seen{end, epoch}) }

func (e *byEnd) before(moment time.Duration) int {
	e.open = slices.DeleteFunc(e.open, func(s seen) bool {
		if s.end < moment {
			e.latest = max(e.latest, s.epoch)
		}
		return s.end < moment
	})
	return e.latest
}

// history gathers registers while calls run, and lets a test wait for what it saw.
type history struct {
	began time.Time

	mu        sync.Mutex
	registers []*register
	changed   chan struct{} // closed and replaced with each answer
}

func newHistory() *history { return &history{began: time.Now(), changed: make(chan struct{})} }

func (h *history) now() time.Duration { return time.Since(h.began) }

func (h *history) register(name, service string, allowed bool) *register {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &register{name: name + " in " + service, service: service, initial: allowed}
	h.registers = append(h.registers, r)
	return r
}

// read notes how a call ended that was sent at start.
func (h *history) read(r *register, start time.Duration, v verdict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch s := (span{start, h.now(), v == allowed}); v {
	case lost:
		return
	case refused:
		r.refused = append(r.refused, s)
	default:
		r.reads = append(r.reads, s)
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// write makes a change to registers and notes how long it took.
func (h *history) write(allowed bool, rs []*register, change func() error) error {
	start := h.now()
	err := change()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range rs {
		r.writes = append(r.writes, span{start, h.now(), allowed})
	}
	return err
}

// wait waits until in each of the registers there is a call that started after a moment
// and ended in one of the ways.
func (h *history) wait(t testing.TB, since time.Duration, rs []*register, ways ...verdict) {
	t.Helper()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		changed := h.changed
		i := slices.IndexFunc(rs, func(r *register) bool { return !r.saw(since, ways) })
		h.mu.Unlock()
		if i < 0 {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: no call that started after %s ended in one of the ways %v\n%s", rs[i].name, since, ways, strings.Join(h.violations(), "\n"))
		}
	}
}

func (r *register) saw(since time.Duration, ways []verdict) bool {
	ended := func(in []span, fits func(span) bool) bool {
		for _, s := range slices.Backward(in) {
			if s.end <= since {
				return false
			}
			if s.start > since && fits(s) {
				return true
			}
		}
		return false
	}
	return ended(r.reads, func(s span) bool {
		return slices.Contains(ways, allowed) && s.allowed || slices.Contains(ways, denied) && !s.allowed
	}) ||
		ended(r.refused, func(span) bool { return slices.Contains(ways, refused) })
}

// violations returns what cannot have been as it was seen.
func (h *history) violations() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []string
	for _, r := range h.registers {
		if v := r.check(); v != "" {
			found = append(found, v)
		}
	}
	return found
}

// counts says how much the history holds.
func (h *history) counts() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	writes, yes, no, unavailable := 0, 0, 0, 0
	for _, r := range h.registers {
		writes += len(r.writes)
		unavailable += len(r.refused)
		for _, s := range r.reads {
			if s.allowed {
				yes++
			} else {
				no++
			}
		}
	}
	return fmt.Sprintf("%d changes; calls: %d allowed, %d denied, %d UNAVAILABLE", writes, yes, no, unavailable)
}

// TestHistoryCheck holds the check itself against histories of which we know whether
// they can have been.
func TestHistoryCheck(t *testing.T) {
	const yes, no = true, false
	revoke, grant := span{10, 20, no}, span{30, 40, yes}
	for name, test := range map[string]struct {
		writes, reads []span
		fine          bool
	}{
		"nothing happened":                         {nil, nil, true},
		"allowed before":                           {[]span{revoke}, []span{{1, 2, yes}}, true},
		"denied before":                            {[]span{revoke}, []span{{1, 9, no}}, false},
		"allowed after a returned revoke":          {[]span{revoke}, []span{{21, 22, yes}}, false},
		"denied after a returned revoke":           {[]span{revoke}, []span{{21, 22, no}}, true},
		"either during a revoke":                   {[]span{revoke}, []span{{11, 19, yes}, {12, 19, no}}, true},
		"allowed, started before it returned":      {[]span{revoke}, []span{{19, 25, yes}}, true},
		"denied, ended after it began":             {[]span{revoke}, []span{{1, 11, no}}, true},
		"a long call may see either":               {[]span{revoke}, []span{{1, 99, no}, {1, 99, yes}}, true},
		"denied after a returned grant":            {[]span{revoke, grant}, []span{{41, 42, no}}, false},
		"allowed after a returned grant":           {[]span{revoke, grant}, []span{{41, 42, yes}}, true},
		"either during a grant":                    {[]span{revoke, grant}, []span{{31, 32, no}, {33, 34, yes}}, true},
		"back to what was during a revoke":         {[]span{revoke}, []span{{11, 12, no}, {13, 14, yes}}, false},
		"back, seen by calls at once":              {[]span{revoke}, []span{{11, 13, no}, {12, 14, yes}}, true},
		"over both changes":                        {[]span{revoke, grant}, []span{{15, 35, no}, {15, 35, yes}}, true},
		"allowed between, started after":           {[]span{revoke, grant}, []span{{21, 29, yes}}, false},
		"allowed between, ended in the grant":      {[]span{revoke, grant}, []span{{21, 31, yes}}, true},
		"denied after one who saw the grant":       {[]span{revoke, grant}, []span{{21, 31, yes}, {32, 33, no}}, false},
		"the same, written down in another order":  {[]span{revoke, grant}, []span{{32, 33, no}, {21, 31, yes}}, false},
		"one wrong among many right, the last one": {[]span{revoke, grant}, []span{{1, 2, yes}, {22, 23, no}, {41, 42, yes}, {50, 51, no}}, false},
	} {
		r := &register{name: name, initial: true, writes: test.writes, reads: test.reads}
		if got := r.check(); (got == "") != test.fine {
			t.Errorf("%s: got %q, want fine: %v", name, got, test.fine)
		}
	}
}
