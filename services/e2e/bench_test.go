package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.dev/services/demo"
)

var (
	benchSuite   = flag.String("bench-suite", "", "benchmarks to run, with commas between: names, what names begin with before a hyphen, or all; see .ci/bench")
	benchProfile = flag.String("bench-profile", "", "`file` for a profile of the suite's process during the last of the benchmarks")
)

// benchmark is one measurement. Its line says how it compares to something else that
// was measured in the same run, since absolute times say more of the machine.
type benchmark struct {
	name string
	long bool // not among all, unless -long asks for it
	run  func(*bench) finding
}

type finding struct {
	value string // with its unit
	ratio float64
	of    string // what the ratio is to
}

var benchmarks = []benchmark{
	{"echo-1", false, func(b *bench) finding { return b.echoes(1) }},
	{"echo-64", false, func(b *bench) finding { return b.echoes(64) }},
	{"chain-64", false, func(b *bench) finding { return b.calls(64, fixedPart) }},
	{"call-1", false, func(b *bench) finding { return b.calls(1, getPart) }},
	{"call-64", false, func(b *bench) finding { return b.calls(64, getPart) }},
	{"call-signed-64", false, func(b *bench) finding { return b.calls(64, getProfile) }},
	{"permissions-check-1", false, func(b *bench) finding { return b.calls(1, checkGrant) }},
	{"permissions-check-64", false, func(b *bench) finding { return b.calls(64, checkGrant) }},
	{"permissions-batch-1", false, func(b *bench) finding { return b.calls(1, checkBatch) }},
	{"permissions-batch-64", false, func(b *bench) finding { return b.calls(64, checkBatch) }},
	{"permissions-effective-1", false, func(b *bench) finding { return b.calls(1, getEffective) }},
	{"permissions-effective-64", false, func(b *bench) finding { return b.calls(64, getEffective) }},
	{"check", false, (*bench).check},
	{"check-whole", false, (*bench).checkWhole},
	{"redact-20", false, (*bench).redact},
	{"create-1", false, (*bench).createsAlone},
	{"create-16", false, func(b *bench) finding { return b.creates(16) }},
	{"create-64", false, func(b *bench) finding { return b.creates(64) }},
	{"create-256", false, func(b *bench) finding { return b.creates(256) }},
	{"inserts-1", false, func(b *bench) finding { return b.createsBesideInserts(1) }},
	{"inserts-16", false, func(b *bench) finding { return b.createsBesideInserts(16) }},
	{"inserts-64", false, func(b *bench) finding { return b.createsBesideInserts(64) }},
	{"inserts-256", false, func(b *bench) finding { return b.createsBesideInserts(256) }},
	{"tenants-1k", false, func(b *bench) finding { return b.spread(1000, aFile) }},
	{"tenants-postgres-1k", false, func(b *bench) finding { return b.spread(1000, aDatabase) }},
	{"get", false, (*bench).gets},
	{"page", false, (*bench).pages},
	{"list-10k", false, func(b *bench) finding { return b.lists(10_000) }},
	{"list-1m", true, func(b *bench) finding { return b.lists(1_000_000) }},
	{"revoke-5", false, (*bench).revokes},
	{"revoke-replicas-10", false, (*bench).revokesOnReplicas},
	{"revoke-frozen", false, (*bench).revokesFrozen},
	{"revoke-subscribers-5", false, func(b *bench) finding { return b.subscribed(5) }},
	{"revoke-subscribers-50", false, func(b *bench) finding { return b.subscribed(50) }},
	{"role-edit-100k", false, func(b *bench) finding { return b.editsRole(100_000) }},
	{"brand-role-edit-100k", false, func(b *bench) finding { return b.editsBrandRole(100_000) }},
	{"holders-10k", false, func(b *bench) finding { return b.holders(10_000) }},
	{"holders-1m", true, func(b *bench) finding { return b.holders(1_000_000) }},
	{"unused-keys-10k", false, func(b *bench) finding { return b.unused(10_000) }},
	{"unused-keys-100k", true, func(b *bench) finding { return b.unused(100_000) }},
	{"memory-50k", false, func(b *bench) finding { return b.remembers(50_000) }},
	{"memory-1m", true, func(b *bench) finding { return b.remembers(1_000_000) }},
	{"cold-start-10k", false, func(b *bench) finding { return b.starts(10_000) }},
	{"backup-10k", false, func(b *bench) finding { return b.backups(10_000) }},
	{"backup-1m", true, func(b *bench) finding { return b.backups(1_000_000) }},
	{"restore-10k", false, func(b *bench) finding { return b.restores(10_000) }},
	{"restore-1m", true, func(b *bench) finding { return b.restores(1_000_000) }},
	{"churn", false, func(b *bench) finding { return b.churn(false) }},
	{"churn-compacted", false, func(b *bench) finding { return b.churn(true) }},
	{"identity-sign-in", false, (*bench).signIns},
	{"identity-unknown", false, (*bench).unknowns},
	{"identity-storm", false, (*bench).storms},
	{"identity-session-cached", false, func(b *bench) finding { return b.sessions(true) }},
	{"identity-session-uncached", false, func(b *bench) finding { return b.sessions(false) }},
	{"identity-introspect-grpc", false, func(b *bench) finding { return b.calls(1, introspect) }},
	{"identity-introspect-http", false, (*bench).introspectsHTTP},
	{"identity-verify-cached", false, func(b *bench) finding { return b.verifies(true) }},
	{"identity-verify-uncached", false, func(b *bench) finding { return b.verifies(false) }},
	{"cold-start-1m", true, func(b *bench) finding { return b.starts(1_000_000) }},
}

// asked tells whether a name asks for the benchmark.
func (m *benchmark) asked(name string) bool {
	return name == m.name || strings.HasPrefix(m.name, name+"-") && (!m.long || *long) || name == "all" && (!m.long || *long)
}

// bench is a run of benchmarks. What several of them need is started once.
type bench struct {
	t       testing.TB
	suite   *suite // in one process, with the company
	company *demo.Company
}

// findings is where the lines go. Nothing else does: see TestMain.
var findings io.Writer = os.Stdout

// TestBench runs the benchmarks that -bench-suite names, and prints a line for each:
// name, value, ratio, what the ratio is to, with tabs between.
func TestBench(t *testing.T) {
	if *benchSuite == "" {
		t.Skip("no benchmark was asked for: .ci/bench runs them")
	}
	names := strings.Split(*benchSuite, ",")
	for _, name := range names {
		if !slices.ContainsFunc(benchmarks, func(m benchmark) bool { return m.asked(name) }) {
			t.Fatalf("there is no benchmark %q", name)
		}
	}
	b := &bench{t: t}
	for _, m := range benchmarks {
		if slices.ContainsFunc(names, m.asked) {
			f := b.profiled(m.run)
			fmt.Fprintf(findings, "%s\t%s\t%.3g\t%s\n", m.name, f.value, f.ratio, f.of)
		}
	}
}

// TestBenchmarksHaveNames keeps a name from asking for another benchmark too.
func TestBenchmarksHaveNames(t *testing.T) {
	for i, m := range benchmarks {
		for _, other := range benchmarks[i+1:] {
			if m.name == other.name {
				t.Errorf("two benchmarks are called %s", m.name)
			}
		}
	}
}

// one returns the suite that the benchmarks share.
func (b *bench) one() *suite {
	if b.suite == nil {
		b.suite = oneWith(b.t, []string{fixed.Name}, b.environment()...)
		b.company = b.suite.fill()
	}
	return b.suite
}

// Rounds alternate between a thing and what it is compared with, so that whatever
// else the machine does meanwhile weighs on both.
const (
	rounds    = 15
	roundTime = 300 * time.Millisecond
)

// beside measures a thing between two measurements of its reference, again and again. It
// returns the medians of the thing and of its ratio to the reference.
func beside(rounds int, thing, reference func() float64) (value, ratio float64) {
	var values, ratios []float64
	thing() // warms up
	before := reference()
	for range rounds {
		v := thing()
		after := reference()
		values, ratios = append(values, v), append(ratios, 2*v/(before+after))
		before = after
	}
	return median(values), median(ratios)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// percentile returns the value that p of 100 do not exceed. It sorts the values.
func percentile(v []time.Duration, p int) time.Duration {
	slices.Sort(v)
	return v[(len(v)-1)*p/100]
}

// rate returns how many calls a second some callers get done for a while, each calling
// again as soon as it has its answer.
func (b *bench) rate(callers int, call func(context.Context) error) float64 {
	var (
		done   sync.WaitGroup
		mu     sync.Mutex
		total  int
		failed error
	)
	start := time.Now()
	for range callers {
		done.Go(func() {
			n := 0
			var err error
			for ; err == nil && time.Since(start) < roundTime; n++ {
				err = call(b.t.Context())
			}
			mu.Lock()
			defer mu.Unlock()
			total += n
			if err != nil {
				failed = err
			}
		})
	}
	done.Wait()
	if failed != nil {
		b.t.Fatal(failed)
	}
	return float64(total) / time.Since(start).Seconds()
}

// took returns how long a call takes.
func (b *bench) took(call func(context.Context) error) time.Duration {
	start := time.Now()
	if err := call(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return time.Since(start)
}

// perSecond writes a rate.
func perSecond(rate float64, of string) string { return fmt.Sprintf("%.0f %s/s", rate, of) }

// milliseconds writes what takes long enough to be told in them.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
}
