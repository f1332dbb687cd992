package e2e

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"latchkey.dev/services/internal/trial"
)

// failEnv tells a child which sync of its disk fails, counted from when it gets SIGUSR2.
const failEnv = "LATCHKEY_E2E_FAIL_SYNC"

func failOnSignal(number string) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR2)
	<-told
	var n int
	_, err := fmt.Sscan(number, &n)
	if err == nil {
		err = trial.FailCall("sync", n, syscall.EIO)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fail a sync:", err)
		os.Exit(unableCode)
	}
}

// unableCode is how a child exits that cannot let a sync fail.
const unableCode = 77

// TestDiskErrorUnderLoad lets a sync of the disk fail while clerks work. The process of
// all services must end by itself; when it is started again, what was acknowledged must be
// there, and nothing half done.
func TestDiskErrorUnderLoad(t *testing.T) {
	tr := trial.New(t, "EIO from a sync under load", "bolt")
	random := seeded(t, *seed)
	for range trial.Times(3, 50) {
		s := one(t, "LATCHKEY_LEASE="+shortLease.String(), fmt.Sprint(failEnv, "=", 1+random.IntN(20)))
		b := openBooks(t, tr, s, random.Uint64())
		p := s.processes[names[0]]
		b.await(1 + random.IntN(40))
		p.signal(syscall.SIGUSR2)
		select {
		case <-p.done:
		case <-time.After(patience):
			t.Fatalf("the process goes on after an error of its disk:\n%s", p.log)
		}
		switch code := p.cmd.ProcessState.ExitCode(); code {
		case 1:
		case unableCode:
			tr.Skip("%s", p.log)
		default:
			tr.Wrong("the process ended with code %d", code)
		}
		tr.Tried()
		for _, name := range names {
			if err := s.verify(name); err != nil {
				tr.Wrong("%s: %v", name, err)
			}
		}
		s.start(p)
		s.ready()
		b.audit()
		b.close()
		p.kill()
	}
}
