// Package postgrestest runs a PostgreSQL server for tests: a cluster of their own in a
// temporary folder, on a free loopback port, with the programs that the machine has.
//
// Where there are none, a test that asks for one is skipped, and says so.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Cluster is a running PostgreSQL server.
type Cluster struct {
	bin    string // folder of the programs
	folder string
	port   int
	extra  []string // settings
	server *exec.Cmd
	log    *bytes.Buffer
	ended  chan struct{} // closed when the server has
}

// startWait is for a machine that has much else to do.
const startWait = time.Minute

// New starts a cluster that ends with the test. Settings, "fsync=on", go before those
// that make tests fast.
func New(t testing.TB, settings ...string) *Cluster {
	t.Helper()
	bin := Programs(t)
	c, err := create(bin, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.remove)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

var shared struct {
	sync.Mutex
	cluster *Cluster
}

// URL returns the URL of a cluster that all tests of the process share. It is started
// by the first; TestMain must call Stop when all have ended.
func URL(t testing.TB) string {
	t.Helper()
	return common(t).URL()
}

// Database returns the URL of an empty database in that cluster.
func Database(t testing.TB) string {
	t.Helper()
	c := common(t)
	name := fmt.Sprint("test", databases.Add(1))
	if err := c.run("createdb", "-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", "latchkey", name); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(c.URL(), "postgres") + name
}

var databases atomic.Int64

// common returns the shared cluster.
func common(t testing.TB) *Cluster {
	t.Helper()
	bin := Programs(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil {
		c, err := create(bin, nil)
		if err == nil {
			shared.cluster = c
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return shared.cluster
}

// Stop ends the shared cluster, if there is one.
func Stop() {
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster != nil {
		shared.cluster.remove()
		shared.cluster = nil
	}
}

// Programs returns the folder of the newest PostgreSQL of the machine, and skips the test
// if there is none.
func Programs(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is well-formed
	if path, err := exec.LookPath("postgres"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed: not tested over it (apt-get install postgresql)")
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return major(a) - major(b) })
	return filepath.Dir(newest)
}

// major returns 15 for "/usr/lib/postgresql/15/bin/postgres", and 0 if it cannot tell.
func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 is the answer
	return n
}

// create returns a new cluster that does not run.
func create(bin string, settings []string) (*Cluster, error) {
	c, err := place(bin, settings)
	if err != nil {
		return nil, err
	}
	err = c.run("initdb", "--pgdata="+c.data(), "--username=latchkey", "--auth=trust", "--no-locale", "--encoding=UTF8", "--no-sync", "--no-instructions")
	if err != nil {
		c.remove()
		return nil, fmt.Errorf("create a PostgreSQL cluster: %w", err)
	}
	return c, nil
}

// place returns a cluster that has a folder and a port, and no data.
func place(bin string, settings []string) (*Cluster, error) {
	folder, err := os.MkdirTemp("", "latchkey-postgres-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, folder: folder, extra: settings}
	who, err := unprivileged()
	if err == nil && who != nil {
		err = os.Chown(folder, int(who.Uid), int(who.Gid))
	}
	if err == nil {
		c.port, err = freePort()
	}
	if err != nil {
		c.remove()
		return nil, fmt.Errorf("place a PostgreSQL cluster: %w", err)
	}
	return c, nil
}

func (c *Cluster) data() string { return filepath.Join(c.folder, "data") }

// unprivileged returns as whom the server runs if this process is root, as whom it
// refuses to run; nil otherwise.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var errs []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err, gidErr)
	}
	return nil, errors.Join(errs...)
}

// freePort returns a loopback port that was free just now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// command returns a command of PostgreSQL's that is yet to be started.
func (c *Cluster) command(program string, args ...string) (*exec.Cmd, error) {
	who, err := unprivileged()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(c.bin, program), args...)
	cmd.Dir = c.folder
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	return cmd, nil
}

func (c *Cluster) run(program string, args ...string) error {
	cmd, err := c.command(program, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// Start starts the server, also again after Kill, and waits until it can be connected to.
func (c *Cluster) Start() error {
	args := []string{
		"-D", c.data(), "-k", c.folder, "-h", "127.0.0.1", "-p", strconv.Itoa(c.port),
		// What makes tests fast. A killed server loses nothing by it, as long as the
		// machine stays up.
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=64MB", "-c", "max_connections=200",
		"-c", "autovacuum=off", "-c", "log_min_messages=warning",
	}
	for _, s := range c.extra {
		args = append(args, "-c", s)
	}
	cmd, err := c.command("postgres", args...)
	if err != nil {
		return err
	}
	c.log, c.ended, c.server = &bytes.Buffer{}, make(chan struct{}), cmd
	cmd.Stdout, cmd.Stderr = c.log, c.log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // ends at once, and its children with it
	started := make(chan error)
	go func() {
		runtime.LockOSThread()         // the signal comes when the thread ends that has started it
		defer runtime.UnlockOSThread() // or the thread ends too, and with it what else it has started
		defer close(c.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it ends by a signal
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	return c.wait()
}

// wait waits until the server takes connections.
func (c *Cluster) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	for ctx.Err() == nil {
		if c.run("pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(c.port)) == nil {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("the PostgreSQL server has ended:\n%s", c.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("the PostgreSQL server did not start in %v", startWait)
}

// Kill ends the server and all its processes at once, as a power cut would end them.
func (c *Cluster) Kill() {
	for _, pid := range append(children(c.server.Process.Pid), c.server.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended just now
	}
	<-c.ended
}

// children returns the ids of the processes that a process has started.
func children(pid int) (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well-formed
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		for word := range strings.FieldsSeq(string(text)) {
			if id, err := strconv.Atoi(word); err == nil {
				pids = append(pids, id)
			}
		}
	}
	return pids
}

// Signal sends a signal to the server and its processes: SIGSTOP freezes it.
func (c *Cluster) Signal(sig syscall.Signal) error {
	err := syscall.Kill(c.server.Process.Pid, sig)
	for _, pid := range children(c.server.Process.Pid) {
		_ = syscall.Kill(pid, sig) // it may have ended just now
	}
	return err
}

// Addr returns the address that the server listens on.
func (c *Cluster) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)) }

// URL returns the URL of the server's one database.
func (c *Cluster) URL() string { return "postgres://latchkey@" + c.Addr() + "/postgres" }

func (c *Cluster) remove() {
	if c.server != nil && c.server.Process != nil {
		_ = c.Signal(syscall.SIGCONT)
		_ = c.server.Process.Signal(syscall.SIGQUIT)
		<-c.ended
	}
	_ = os.RemoveAll(c.folder) // what stays is in the folder for temporary files
}
