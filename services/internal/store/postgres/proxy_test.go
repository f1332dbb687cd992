package postgres

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// proxy is a TCP proxy before a database, that can lose or hold what passes.
type proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	out   watcher // of what goes to the database
	in    watcher // of what comes from it
}

// watcher decides about each piece that passes; it is called by one goroutine at a time.
type watcher func(c *passage, b []byte) verdict

type verdict int

const (
	pass verdict = iota
	drop         // and end the connection on both sides
	hold         // end it on the near side, and send the piece on when it is released
)

// passage is a connection through the proxy.
type passage struct {
	near, far net.Conn
	marked    bool          // for watchers
	release   chan struct{} // closed by the test to let go what is held
	over      chan struct{} // closed when the database has answered, or ended the connection
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.running.Wait()
	})
	return p
}

// url returns the URL of a database as it is reached through the proxy.
func (p *proxy) url(direct string) string {
	return strings.Replace(direct, p.target, p.listener.Addr().String(), 1)
}

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			near.Close()
			continue
		}
		c := &passage{near: near, far: far, release: make(chan struct{}), over: make(chan struct{})}
		p.mu.Lock()
		p.conns[near], p.conns[far] = true, true
		p.mu.Unlock()
		p.running.Go(func() { p.carry(c, near, far, &p.out) })
		p.running.Go(func() {
			defer close(c.over)
			p.carry(c, far, near, &p.in)
		})
	}
}

func (p *proxy) carry(c *passage, from, to net.Conn, w *watcher) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 1<<20)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		switch p.ask(c, b[:n], w) {
		case drop:
			return
		case hold:
			c.near.Close()
			<-c.release
			_, _ = to.Write(b[:n]) // it may be gone
			<-c.over
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) ask(c *passage, b []byte, w *watcher) verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *w == nil {
		return pass
	}
	return (*w)(c, b)
}

// watch sets the watchers; nil lets everything pass.
func (p *proxy) watch(out, in watcher) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out, p.in = out, in
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
}
