package e2e

import (
	"math/rand/v2"
	"testing"
	"time"

	"latchkey.dev/services/internal/trial"
)

// engines runs a test of a fault over both engines. New suites have their stores in the
// environment that env makes for each.
func engines(t *testing.T, fault string, test func(t *testing.T, tr *trial.Trial, env func() []string)) {
	lease := "LATCHKEY_LEASE=" + shortLease.String()
	t.Run("bolt", func(t *testing.T) {
		test(t, trial.New(t, fault, "bolt"), func() []string { return []string{lease} })
	})
	t.Run("postgres", func(t *testing.T) {
		test(t, trial.New(t, fault, "postgres"), func() []string { return append(inDatabase(t), lease) })
	})
}

// killsPerSuite is how many of them one suite sees at most: then it has grown.
const killsPerSuite = 25

// TestKillUnderLoad kills the process of all services at random moments while clerks work.
// After each kill the clerks' store must be whole, what was acknowledged must be there, and
// nothing half done; in the end so must all others.
func TestKillUnderLoad(t *testing.T) {
	engines(t, "kill -9 under load", func(t *testing.T, tr *trial.Trial, env func() []string) {
		random := seeded(t, *seed)
		for left := trial.Times(25, 500); left > 0 && !t.Failed(); left -= killsPerSuite {
			killUnderLoad(t, tr, one(t, env()...), random, min(left, killsPerSuite))
		}
	})
}

func killUnderLoad(t *testing.T, tr *trial.Trial, s *suite, random *rand.Rand, kills int) {
	b := openBooks(t, tr, s, random.Uint64())
	p := s.processes[names[0]]
	for range kills {
		b.await(1 + random.IntN(40))
		time.Sleep(time.Duration(random.Int64N(int64(5 * time.Millisecond))))
		p.kill()
		tr.Tried()
		if err := s.verify("invoicing"); err != nil {
			tr.Wrong("%v", err)
		}
		s.start(p)
		if random.IntN(5) == 0 { // and while it starts
			time.Sleep(time.Duration(random.Int64N(int64(60 * time.Millisecond))))
			p.kill()
			s.start(p)
		}
		s.ready()
		b.audit()
	}
	b.close()
	p.kill()
	for _, name := range names {
		if err := s.verify(name); err != nil {
			tr.Wrong("%s: %v", name, err)
		}
	}
}
