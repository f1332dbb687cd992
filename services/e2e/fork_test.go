package e2e

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// fork is a listener before a process of a suite. Each other process comes through a proxy of
// its own, so that a test can disturb the network between two processes and no others.
type fork struct {
	listener net.Listener
	suite    *suite
	ways     map[*process]*proxy
	running  sync.WaitGroup
}

// newFork puts a fork before a process.
func newFork(t testing.TB, p *process, from []*process) *fork {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fork{listener: listener, suite: p.suite, ways: map[*process]*proxy{}}
	for _, other := range from {
		if other != p {
			f.ways[other] = newProxy(t, p.addr)
		}
	}
	f.running.Go(f.accept)
	t.Cleanup(func() {
		listener.Close()
		f.running.Wait()
	})
	return f
}

func (f *fork) addr() string { return f.listener.Addr().String() }

func (f *fork) accept() {
	for {
		near, err := f.listener.Accept()
		if err != nil {
			return
		}
		if way := f.ways[f.owner(near.RemoteAddr())]; way != nil {
			way.connect(near)
		} else {
			near.Close() // who opened it has ended
		}
	}
}

// owner returns the process that has a connection from an address of this machine.
func (f *fork) owner(addr net.Addr) *process {
	socket := socketAt(addr.(*net.TCPAddr))
	f.suite.mu.Lock()
	defer f.suite.mu.Unlock()
	for p := range f.ways {
		if p.cmd == nil || p.cmd.Process == nil {
			continue
		}
		open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid)) // the pattern is well-formed
		for _, file := range open {
			if to, err := os.Readlink(file); err == nil && to == socket {
				return p
			}
		}
	}
	return nil
}

// socketAt returns how the system calls a connection's end at an address of this machine.
func socketAt(addr *net.TCPAddr) string {
	ip := slices.Clone(addr.IP.To4())
	slices.Reverse(ip)
	local := strings.ToUpper(fmt.Sprintf("%s:%04x", hex.EncodeToString(ip), addr.Port))
	table, _ := os.ReadFile("/proc/net/tcp") // whose is not found there is nobody's
	for line := range strings.Lines(string(table)) {
		if words := strings.Fields(line); len(words) > 9 && words[1] == local {
			return "socket:[" + words[9] + "]"
		}
	}
	return ""
}

// apart is a suite of replicas in which the network between any two of them, and between each and the
// database, can be disturbed. It is not started yet.
type apart struct {
	*doubled
	toDatabase map[*process]*proxy
}

// apartLease is long enough for so many processes not to lose theirs on a machine that is busy.
const apartLease = 2 * shortLease

// The groups of services of such a suite.
var (
	sources = []string{"identity", "permissions"}
	leaves  = []string{"invoicing", "scheduling", "servicerequest"}
)

// An outsider is a process beside the suite, which reaches the replicas by their forks too.
func newApart(t *testing.T, count int, outsider *process, groups ...[]string) *apart {
	t.Helper()
	env := append(inDatabase(t), "LATCHKEY_LEASE="+apartLease.String())
	a := &apart{&doubled{suite: newSuite(t, env)}, map[*process]*proxy{}}
	a.plan(count, groups)
	from := a.all
	if outsider != nil {
		outsider.suite, from = a.suite, append(slices.Clone(a.all), outsider)
	}
	_, rest, _ := strings.Cut(env[0], "@")
	database, _, _ := strings.Cut(rest, "/")
	for _, p := range a.all {
		p.fork = newFork(t, p, from)
		way := newProxy(t, database)
		a.toDatabase[p] = way
		p.env = []string{"LATCHKEY_ADVERTISE=" + p.fork.addr(), strings.Replace(env[0], database, way.addr(), 1)}
	}
	return a
}

// number tells the replicas of a group apart.
func (a *apart) number(p *process) string {
	return fmt.Sprint(p.parts[0], " ", 1+slices.Index(a.replicas[p.parts[0]], p))
}

// disturbance is something that goes wrong with one replica, and ends.
type disturbance struct {
	what         string
	victim       *process
	strike, heal func()
	mute         bool // it cannot answer meanwhile, not even that it does not know
}

// disturbances are all that can go wrong with a replica.
func (a *apart) disturbances(p *process) []disturbance {
	all := []disturbance{
		{a.number(p) + " killed", p, p.kill, func() { a.start(p) }, true},
		{a.number(p) + " frozen", p, func() { p.signal(syscall.SIGSTOP) }, func() { p.signal(syscall.SIGCONT) }, true},
	}
	ofDatabase := a.onTheWay(p, "the database", true, a.toDatabase[p])
	for i, d := range ofDatabase {
		var before int
		ofDatabase[i].strike = func() {
			before = p.log.stops()
			d.strike()
		}
		ofDatabase[i].heal = func() {
			d.heal()
			if p.log.stops() > before {
				<-p.done
				a.start(p) // as a supervisor does
			}
		}
	}
	return slices.Concat(all, ofDatabase, a.fromSources(p))
}

// fromSources are what can go wrong between a process and the replicas of identity and
// permissions.
func (a *apart) fromSources(p *process) (all []disturbance) {
	for _, source := range a.replicas[sources[0]] {
		if way := source.fork.ways[p]; way != nil {
			all = append(all, a.onTheWay(p, a.number(source), false, way)...)
		}
	}
	return all
}

func (a *apart) onTheWay(p *process, to string, mute bool, way *proxy) []disturbance {
	held := func(how string, directions ...int) disturbance {
		return disturbance{a.number(p) + how + to, p, func() { way.hold(directions...) }, func() { way.release(directions...) }, mute}
	}
	return []disturbance{
		{a.number(p) + " cut off from " + to, p, func() { way.refuse(true) }, func() { way.refuse(false) }, false},
		held(" not heard by ", there), held(" not told by ", back), held(" without a network to ", there, back),
	}
}
