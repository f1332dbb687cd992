package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Answers of the client in TypeScript.
const (
	allow       = "allow"
	deny        = "deny"
	unavailable = "unavailable"
)

// clientFolder has the client in TypeScript.
var clientFolder = filepath.Join(root, "clients", "typescript")

// feedClient is the client in TypeScript in a process of its own, which enforces
// with the feed of a suite.
type feedClient struct {
	t     *testing.T
	cmd   *exec.Cmd
	input io.Writer
	log   *tail
	done  chan struct{} // closed when it has ended

	mu      sync.Mutex
	next    int
	waiting map[int]chan string
}

// newFeedClient starts a client that reaches the services at the addresses.
func newFeedClient(t *testing.T, s *suite, identity, permissions string) *feedClient {
	t.Helper()
	c := &feedClient{t: t, log: &tail{}, done: make(chan struct{}), waiting: map[int]chan string{}}
	c.cmd = exec.Command("node", filepath.Join(clientFolder, "dist", "main.js"))
	c.cmd.Env = append(os.Environ(), "LATCHKEY_SERVICE_KEY="+s.serviceKey(),
		"LATCHKEY_IDENTITY="+identity, "LATCHKEY_PERMISSIONS="+permissions)
	c.cmd.Stderr = c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	input, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.input = input
	go c.read(output)
	t.Cleanup(func() { c.stop(input) })
	return c
}

// serviceKey returns the secret that the suite's processes share.
func (s *suite) serviceKey() string {
	s.t.Helper()
	for _, v := range s.env {
		if key, ok := strings.CutPrefix(v, "LATCHKEY_SERVICE_KEY="); ok {
			return key
		}
	}
	key, err := os.ReadFile(filepath.Join(s.folder, "service.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(key))
}

// read hands the answers to those who wait for them.
func (c *feedClient) read(output io.Reader) {
	defer close(c.done)
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		var id int
		text := lines.Text()
		number, answer, _ := strings.Cut(text, " ")
		if _, err := fmt.Sscan(number, &id); err != nil {
			c.log.Write([]byte("no answer: " + text + "\n"))
			continue
		}
		c.mu.Lock()
		ch := c.waiting[id]
		delete(c.waiting, id)
		c.mu.Unlock()
		if ch != nil {
			ch <- answer
		}
	}
	c.cmd.Wait()
}

// stop closes the client's input, upon which it gives its leases back and ends.
func (c *feedClient) stop(input io.Closer) {
	c.cmd.Process.Signal(syscall.SIGCONT)
	input.Close()
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		c.t.Error("the client does not end when its input does")
		c.cmd.Process.Kill()
		<-c.done
	}
	if c.t.Failed() {
		c.t.Logf("last lines of the client:\n%s", c.log)
	}
}

// ask sends a check and returns where its answer will be.
func (c *feedClient) ask(token, key string) <-chan string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	ch := make(chan string, 1)
	c.waiting[c.next] = ch
	fmt.Fprintf(c.input, "%d %s %s\n", c.next, token, key)
	return ch
}

// wait returns the answer to a check.
func (c *feedClient) wait(ch <-chan string) string {
	select {
	case answer := <-ch:
		return answer
	case <-c.done:
		return "the client ended"
	case <-time.After(30 * time.Second):
		return "no answer"
	}
}

func (c *feedClient) check(token, key string) string { return c.wait(c.ask(token, key)) }

// mustAnswer wants an answer, as soon as the client can give any.
func (c *feedClient) mustAnswer(what, token, key, want string) {
	c.t.Helper()
	for end := time.Now().Add(patience); ; {
		got := c.check(token, key)
		if got == want {
			return
		}
		if got != unavailable || time.Now().After(end) {
			c.t.Fatalf("%s: the client says %q of %s, want %q", what, got, key, want)
		}
	}
}

// build makes the client runnable, once for all tests.
var build = sync.OnceValues(func() (skip string, err error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "there is no " + program + " to run the client in TypeScript with", nil
		}
	}
	if _, err := os.Stat(filepath.Join(root, ".tools", "protovalidate")); err != nil {
		return "run .ci/tools first: the client in TypeScript reads the .proto files that it links", nil
	}
	if skip, err := installPackages(); skip != "" || err != nil {
		return skip, err
	}
	if out, err := npm(time.Minute, "run", "build"); err != nil {
		return "", fmt.Errorf("build the client: %w\n%s", err, out)
	}
	return "", nil
})

// installPackages installs what the client's lock file says, unless it is there.
func installPackages() (skip string, err error) {
	lock, err := os.ReadFile(filepath.Join(clientFolder, "package-lock.json"))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(lock)
	installed := filepath.Join(clientFolder, "node_modules", ".installed")
	if text, err := os.ReadFile(installed); err == nil && string(text) == hex.EncodeToString(sum[:]) {
		return "", nil
	}
	out, err := npm(90*time.Second, "ci", "--prefer-offline", "--fetch-retries=1", "--fetch-timeout=20000")
	if errors.Is(err, context.DeadlineExceeded) || err != nil && noNetwork.Match(out) {
		return fmt.Sprintf("the packages of the client in TypeScript cannot be fetched: %v", err), nil
	}
	if err != nil {
		return "", fmt.Errorf("install the packages of the client: %w\n%s", err, out)
	}
	return "", os.WriteFile(installed, []byte(hex.EncodeToString(sum[:])), 0o644)
}

// noNetwork is what npm says where it cannot reach its registry.
var noNetwork = regexp.MustCompile(`ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT|network`)

func npm(limit time.Duration, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", args...)
	cmd.Dir, cmd.WaitDelay = clientFolder, time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.Bytes(), err
}

// needFeedClient skips a test where there is no Node, or no way to get the packages that
// the client is made of.
func needFeedClient(t *testing.T) {
	t.Helper()
	skip, err := build()
	if err != nil {
		t.Fatal(err)
	}
	if skip != "" {
		t.Skip(skip)
	}
}
