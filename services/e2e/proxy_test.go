package e2e

import (
	"net"
	"sync"
	"testing"
)

// proxy is a TCP proxy before a process of a suite, with which a test disturbs the
// network between that process and one other.
type proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	look func(direction int, b []byte) fate // at what passes; nil lets all pass, set before anything does

	mu      sync.Mutex
	refuses bool
	held    [2]chan struct{} // by direction, closed while bytes pass
	conns   map[net.Conn]struct{}
	over    chan struct{} // closed when the test has ended
}

// fate is what becomes of bytes, and of the connection that they come over.
type fate int

const (
	passes     fate = iota
	passesLast      // and then the connection ends
	isLost          // and the connection ends
)

// The directions in which bytes go.
const (
	there = iota // to the target
	back
)

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, conns: map[net.Conn]struct{}{}, over: make(chan struct{})}
	for direction := range p.held {
		p.held[direction] = make(chan struct{})
		close(p.held[direction])
	}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		listener.Close()
		close(p.over)
		p.refuse(true)
		p.running.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.connect(near)
	}
}

// connect carries what comes over a connection to the target, and what comes back.
func (p *proxy) connect(near net.Conn) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	far, err := net.Dial("tcp", target)
	if err != nil {
		near.Close()
		return
	}
	p.mu.Lock()
	p.conns[near], p.conns[far] = struct{}{}, struct{}{}
	if p.refuses {
		p.hangUp()
	}
	p.mu.Unlock()
	p.running.Go(func() { p.carry(there, near, far) })
	p.running.Go(func() { p.carry(back, far, near) })
}

// carry copies bytes until one side ends, and then ends both. What is held comes late,
// as in a real network.
func (p *proxy) carry(direction int, from, to net.Conn) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range []net.Conn{from, to} {
			c.Close()
			delete(p.conns, c)
		}
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil || !p.pass(direction) {
			return
		}
		becomes := passes
		if p.look != nil {
			becomes = p.look(direction, buffer[:n])
		}
		if becomes == isLost {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil || becomes == passesLast {
			return
		}
	}
}

func (p *proxy) pass(direction int) bool {
	p.mu.Lock()
	held := p.held[direction]
	p.mu.Unlock()
	select {
	case <-held:
		return true
	case <-p.over:
		return false
	}
}

// hold stops the bytes of some directions, without a word to either side.
func (p *proxy) hold(directions ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range directions {
		p.held[d] = make(chan struct{})
	}
}

// release lets what is held pass.
func (p *proxy) release(directions ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range directions {
		close(p.held[d])
	}
}

// refuse ends all connections and, until told otherwise, each new one.
func (p *proxy) refuse(refuses bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = refuses
	if refuses {
		p.hangUp()
	}
}

// lead ends all connections and leads the next ones to another target.
func (p *proxy) lead(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
	p.hangUp()
}

func (p *proxy) hangUp() {
	for c := range p.conns {
		c.Close()
	}
}
