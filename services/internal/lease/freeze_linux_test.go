package lease

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The tests here stop another process with SIGSTOP in the midst of its reads: the
// hardest case, because nothing in it runs until it goes on, and then everything does.

// frozenEnv tells the test's binary to be the subscriber: the address of the source,
// the file of the shared board, and whether it looks at its lease.
const frozenEnv = "LEASE_TEST_SUBSCRIBER"

// board is memory that both processes see, so that what one knows the other knows in
// the same nanosecond.
type board struct {
	version atomic.Int64 // what the source says
	floor   atomic.Int64 // what may still be read
	reads   atomic.Int64 // answers that the subscriber has checked
	old     atomic.Int64 // answers that were older than the floor
}

func openBoard(path string) (*board, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size := int(unsafe.Sizeof(board{}))
	if err := file.Truncate(int64(size)); err != nil {
		return nil, err
	}
	memory, err := syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*board)(unsafe.Pointer(&memory[0])), nil
}

// beSubscriber is main of the other process. It reads all the time. It says "held"
// when it holds the lease, "read" after each line of input when it has been answered a
// hundred times more, and "done" when the input has ended.
func beSubscriber() int {
	addr, rest, _ := strings.Cut(os.Getenv(frozenEnv), " ")
	path, careless, _ := strings.Cut(rest, " ")
	b, err := openBoard(path)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	c := NewCache(CacheConfig[int]{
		Source: "permissions", Subscriber: "other process", Log: quiet(),
		Dial: func() grpc.ClientConnInterface { return conn },
		Load: func(context.Context, string) (int, []string, error) {
			return int(b.version.Load()), []string{tagOf("a")}, nil
		},
	})
	c.neverLapse = careless == "careless"
	ctx, cancel := context.WithCancel(background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	for range 2 {
		running.Go(func() { b.read(ctx, c, math.MaxInt) })
	}
	_ = c.WaitHeld(ctx)
	fmt.Println("held")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		b.read(ctx, c, 100)
		fmt.Println("read")
	}
	cancel()
	running.Wait()
	fmt.Println("done")
	return 0
}

// read asks the cache until it was answered that often, or ctx ends.
func (b *board) read(ctx context.Context, c *Cache[int], answers int) {
	for ctx.Err() == nil && answers > 0 {
		floor := b.floor.Load()
		e, err := c.Get(ctx, "a")
		if err != nil {
			_ = c.WaitHeld(ctx)
			runtime.Gosched()
			continue
		}
		if int64(e.Value) < floor {
			b.old.Add(1)
		}
		b.reads.Add(1)
		answers--
	}
}

// other is the process of a subscriber.
type other struct {
	*board
	t      *testing.T
	cmd    *exec.Cmd
	output *bufio.Reader
	input  io.WriteCloser
}

func newOther(t *testing.T, addr, care string) *other {
	t.Helper()
	path := filepath.Join(t.TempDir(), "board")
	b, err := openBoard(path)
	if err != nil {
		t.Fatal(err)
	}
	o := &other{board: b, t: t, cmd: exec.Command(os.Args[0])}
	o.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", frozenEnv, addr, path, care))
	o.cmd.Stderr = os.Stderr
	output, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	o.output = bufio.NewReader(output)
	if o.input, err = o.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.cmd.Process.Kill(); _ = o.cmd.Wait() })
	o.expect("held")
	return o
}

func (o *other) expect(word string) {
	o.t.Helper()
	if line, err := o.output.ReadString('\n'); strings.TrimSpace(line) != word {
		o.t.Fatalf("the other process said %q, %v, want %q", line, err, word)
	}
}

func (o *other) signal(s syscall.Signal) {
	o.t.Helper()
	if err := o.cmd.Process.Signal(s); err != nil {
		o.t.Fatal(err)
	}
	if s == syscall.SIGSTOP {
		// The signal takes effect in its own time; wait until it has.
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(o.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
			o.t.Fatalf("the other process did not stop: %v, %v", status, err)
		}
	}
}

// more waits until the other process has checked more answers.
func (o *other) more() {
	o.t.Helper()
	if _, err := fmt.Fprintln(o.input); err != nil {
		o.t.Fatal(err)
	}
	o.expect("read")
}

// write changes the value, as the source does.
func (o *other) write(s *source) {
	o.t.Helper()
	version := o.version.Add(1)
	ctx, cancel := context.WithTimeout(background(), patience)
	defer cancel()
	if err := s.hub.Wait(ctx, s.hub.Publish(tagOf("a"))); err != nil {
		o.t.Fatal(err)
	}
	o.floor.Store(version)
}

func (o *other) end() {
	o.t.Helper()
	if err := o.input.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.expect("done")
}

func TestFrozenProcessNeverUsesWhatWasRevoked(t *testing.T) {
	s := newSource(t, shortLease)
	o := newOther(t, s.addr, "careful")
	for range 3 {
		o.more()
		o.signal(syscall.SIGSTOP)
		o.write(s) // returns when the lease of the frozen process has surely run out
		o.signal(syscall.SIGCONT)
		o.more()
		o.write(s)
	}
	o.end()
	if old := o.old.Load(); old != 0 {
		t.Fatalf("of %d answers %d were older than a write that had returned", o.reads.Load(), old)
	}
}

// TestFrozenProcessThatIsCareless is the proof that the test above can fail.
func TestFrozenProcessThatIsCareless(t *testing.T) {
	s := newSource(t, shortLease)
	p := newProxy(t, s.addr)
	o := newOther(t, p.addr(), "careless")
	o.more()
	o.signal(syscall.SIGSTOP)
	p.freeze() // else the invalidation may be the first that it sees when it goes on
	defer p.thaw()
	o.write(s)
	o.signal(syscall.SIGCONT)
	o.more()
	o.cmd.Process.Kill()
	if o.old.Load() == 0 {
		t.Fatal("no old answer was found though the lease was ignored")
	}
}

// A process that is killed says nothing more, and writes go on when its lease has
// run out.
func TestKilledProcess(t *testing.T) {
	s := newSource(t, shortLease)
	o := newOther(t, s.addr, "careful")
	o.signal(syscall.SIGKILL)
	o.write(s)
}
