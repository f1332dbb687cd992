package e2e

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
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

// model is a register as porcupine knows it: a change has an input, what it allows; a
// call an output, what it was answered.
var model = porcupine.Model{
	Partition: calm,
	Init:      func() any { return nil },
	Step: func(state, change, answer any) (bool, any) {
		if change != nil {
			return true, change
		}
		return answer == state, state
	},
	DescribeOperation: func(change, answer any) string {
		if change != nil {
			return fmt.Sprintf("changed to %v", change)
		}
		return fmt.Sprintf("answered %v", answer)
	},
}

// checking is how long porcupine may take for one register.
const checking = time.Minute

// operations are the changes and calls of a register, before which it was made what it
// was at first.
func (r *register) operations() []porcupine.Operation {
	all := []porcupine.Operation{{Input: r.initial, Call: -1, Return: -1}}
	for _, w := range r.writes {
		all = append(all, porcupine.Operation{Input: w.allowed, Call: int64(w.start), Return: int64(w.end)})
	}
	for i, read := range r.reads {
		all = append(all, porcupine.Operation{
			ClientId: 1 + i%lanes, Output: read.allowed, Call: int64(read.start), Return: int64(read.end),
		})
	}
	return all
}

// lanes is over how many rows a picture of a history spreads its calls.
const lanes = 12

// calm cuts a history where nothing is under way. There the register is what the last
// change made it, as its changes come one after the other; so each piece begins with
// that, and can be looked at alone.
func calm(history []porcupine.Operation) [][]porcupine.Operation {
	slices.SortStableFunc(history, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var pieces [][]porcupine.Operation
	var piece []porcupine.Operation
	var is any
	end := int64(math.MinInt64)
	for _, op := range history {
		if op.Call > end && len(piece) > 0 {
			pieces, piece = append(pieces, piece), []porcupine.Operation{{Input: is, Call: end, Return: end}}
		}
		if op.Input != nil {
			is = op.Input
		}
		piece, end = append(piece, op), max(end, op.Return)
	}
	return append(pieces, piece)
}

// check returns why what was seen cannot have been, or "": whether there are moments at
// which the changes can have taken effect, each between its start and its end, so
// that every call was answered by what was so at one moment between the call's start
// and end. That is that the history is linearizable, which porcupine decides.
func (r *register) check() string {
	switch porcupine.CheckOperationsTimeout(model, r.operations(), checking) {
	case porcupine.Ok:
		return ""
	case porcupine.Unknown:
		return r.name + ": the history could not be checked in time"
	}
	_, info := porcupine.CheckOperationsVerbose(model, r.operations(), checking)
	for i, orders := range info.PartialLinearizationsOperations() {
		if piece := calm(r.operations())[i]; !slices.ContainsFunc(orders, func(o []porcupine.Operation) bool { return len(o) == len(piece) }) {
			return r.name + ": " + explain(piece, orders)
		}
	}
	return r.name + ": not linearizable"
}

// explain says which call of a piece fits into none of the longest orders that were
// found, and the changes of the piece.
func explain(piece []porcupine.Operation, orders [][]porcupine.Operation) string {
	placed := map[porcupine.Operation]bool{}
	longest := slices.MaxFunc(append(orders, nil), func(a, b []porcupine.Operation) int { return len(a) - len(b) })
	for _, op := range longest {
		placed[op] = true
	}
	var b strings.Builder
	slices.SortStableFunc(piece, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	for _, op := range piece {
		if op.Input == nil && !placed[op] {
			fmt.Fprintf(&b, "a call answered %v, but", span{time.Duration(op.Call), time.Duration(op.Return), op.Output.(bool)})
			break
		}
	}
	slices.SortStableFunc(piece, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	fmt.Fprintf(&b, " it was %v before;", piece[0].Input)
	for _, op := range piece[1:] {
		if op.Input != nil {
			fmt.Fprintf(&b, " it was made %v;", span{time.Duration(op.Call), time.Duration(op.Return), op.Input.(bool)})
		}
	}
	return strings.TrimSuffix(b.String(), ";")
}

// picture draws the histories that cannot have been into files, for "go test -artifacts"
// to keep.
func (h *history) picture(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.registers {
		if porcupine.CheckOperationsTimeout(model, r.operations(), checking) == porcupine.Ok {
			continue
		}
		_, info := porcupine.CheckOperationsVerbose(model, r.operations(), checking)
		file := filepath.Join(t.ArtifactDir(), r.service+".html")
		if err := porcupine.VisualizePath(model, info, file); err != nil {
			t.Errorf("draw the history of %s: %v", r.name, err)
		}
		t.Logf("%s: its history is drawn in %s", r.name, file)
	}
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

// TestHistoryPieces holds the cutting of histories against the check of the whole, over
// short random ones, of which some can have been and some not.
func TestHistoryPieces(t *testing.T) {
	random, whole := seeded(t, *seed), model
	whole.Partition = nil
	var fine, cut int
	const histories = 3000
	for range histories {
		r := &register{initial: random.IntN(2) == 0}
		at := time.Duration(0)
		for range random.IntN(4) {
			at += time.Duration(1 + random.IntN(10))
			end := at + time.Duration(random.IntN(10))
			r.writes = append(r.writes, span{at, end, random.IntN(2) == 0})
			at = end
		}
		for range random.IntN(6) {
			start := time.Duration(random.IntN(40))
			r.reads = append(r.reads, span{start, start + time.Duration(random.IntN(8)), random.IntN(2) == 0})
		}
		want := porcupine.CheckOperations(whole, r.operations())
		if got := porcupine.CheckOperations(model, r.operations()); got != want {
			t.Fatalf("in pieces: %v, as a whole: %v: %+v", got, want, r)
		}
		if want {
			fine++
		}
		if len(calm(r.operations())) > 2 {
			cut++
		}
	}
	if fine < histories/10 || fine > histories*9/10 || cut < histories/10 {
		t.Errorf("%d of %d histories can have been, and %d were cut: too much alike to prove anything", fine, histories, cut)
	}
}
