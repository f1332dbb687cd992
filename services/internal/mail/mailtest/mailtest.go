// Package mailtest is an SMTP server on loopback for tests (RFC 5321), with STARTTLS and
// signing in. It keeps what it is handed.
package mailtest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options are what a server wants of who comes. The zero value is one that wants nothing.
type Options struct {
	// TLS is offered by STARTTLS, and demanded before anything else is done.
	TLS *tls.Config
	// FromBeginning speaks TLS from the beginning of a connection instead.
	FromBeginning bool
	// User and Password let in; everybody comes in without.
	User, Password string
}

// Message is one that the server took.
type Message struct {
	From, To string // of the envelope
	Header   netmail.Header
	Subject  string // decoded
	Text     string // decoded
	Raw      []byte // as it came
}

// Server is a running server.
type Server struct {
	o       Options
	t       testing.TB
	address string

	mu       sync.Mutex
	changed  *sync.Cond
	listener net.Listener // nil while it is down
	conns    map[net.Conn]bool
	taken    []Message
	refuse   func(to string) string
	lost     int // answers to messages that are still to be kept back
	tries    int // commands RCPT
	work     sync.WaitGroup
}

// Start starts a server that ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{o: o, t: t, address: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	s.changed = sync.NewCond(&s.mu)
	s.Up()
	t.Cleanup(s.Down)
	return s
}

// Address returns where the server is, HOST:PORT.
func (s *Server) Address() string { return s.address }

// URL returns it for --smtp.
func (s *Server) URL() string { return "smtp://" + s.address }

// Up makes the server listen, where it did before.
func (s *Server) Up() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address, s.listener = l.Addr().String(), l
	s.work.Go(func() { s.accept(l) })
}

// Down ends the server with all connections, until Up.
func (s *Server) Down() {
	s.mu.Lock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

// Refuse lets a function answer for each recipient, "550 5.1.1 unknown"; with "" he is
// taken.
func (s *Server) Refuse(answer func(to string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = answer
}

// LoseAnswers takes the next messages and ends their connections in place of an answer.
func (s *Server) LoseAnswers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = n
}

// Taken returns the messages that the server took, in order.
func (s *Server) Taken() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.taken...)
}

// patience is for a machine that has much else to do.
const patience = 2 * time.Minute

// Wait waits until the server has taken so many messages with a subject, and returns all
// of them. Without a subject it is any.
func (s *Server) Wait(n int, subject string) []Message {
	s.t.Helper()
	var found []Message
	s.await(fmt.Sprintf("%d messages %q", n, subject), func() bool {
		found = nil
		for _, m := range s.taken {
			if subject == "" || m.Subject == subject {
				found = append(found, m)
			}
		}
		return len(found) >= n
	})
	return found
}

// WaitTries waits until recipients were named so many times, taken or not.
func (s *Server) WaitTries(n int) {
	s.t.Helper()
	s.await(fmt.Sprintf("%d recipients", n), func() bool { return s.tries >= n })
}

func (s *Server) await(what string, there func() bool) {
	s.t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.changed.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !there() {
		if late {
			s.t.Errorf("waited for %s: %d were taken, and %d named", what, len(s.taken), s.tries)
			s.mu.Unlock()
			defer s.mu.Lock()
			s.t.FailNow()
		}
		s.changed.Wait()
	}
}

func (s *Server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		up := s.listener == l
		if up {
			s.conns[c] = true
			s.work.Go(func() { s.serve(c) })
		}
		s.mu.Unlock()
		if !up {
			c.Close()
		}
	}
}

func (s *Server) serve(raw net.Conn) {
	defer func() {
		raw.Close()
		s.mu.Lock()
		delete(s.conns, raw)
		s.mu.Unlock()
	}()
	cut := time.AfterFunc(patience, func() { raw.Close() })
	defer cut.Stop()
	c := &dialogue{s: s}
	if c.use(raw); s.o.FromBeginning {
		c.secure(raw)
	}
	c.say("220 mailtest ESMTP")
	for {
		line, err := c.in.ReadLine()
		if err != nil || !c.answer(raw, line) {
			return
		}
	}
}

// dialogue is one connection.
type dialogue struct {
	s         *Server
	in        *textproto.Reader
	out       io.Writer
	encrypted bool
	known     bool
	from, to  string
}

func (c *dialogue) use(conn net.Conn) {
	c.in, c.out = textproto.NewReader(bufio.NewReader(conn)), conn
}

func (c *dialogue) secure(raw net.Conn) {
	c.use(tls.Server(raw, c.s.o.TLS))
	c.encrypted = true
}

func (c *dialogue) say(line string) { fmt.Fprintf(c.out, "%s\r\n", line) }

// answer answers a command, and tells whether the connection goes on.
func (c *dialogue) answer(raw net.Conn, line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb = strings.ToUpper(verb); {
	case verb == "EHLO" || verb == "HELO":
		c.greet()
	case verb == "NOOP" || verb == "RSET":
		c.say("250 2.0.0 fine")
	case verb == "QUIT":
		c.say("221 2.0.0 goodbye")
		return false
	case verb == "STARTTLS" && c.s.o.TLS != nil && !c.encrypted:
		c.say("220 2.0.0 go on")
		c.secure(raw)
	case c.s.o.TLS != nil && !c.encrypted:
		c.say("530 5.7.0 STARTTLS first")
	case verb == "AUTH":
		c.signIn(rest)
	case c.s.o.User != "" && !c.known:
		c.say("530 5.7.0 sign in first")
	case verb == "MAIL":
		c.from = between(rest)
		c.say("250 2.1.0 fine")
	case verb == "RCPT":
		c.recipient(between(rest))
	case verb == "DATA":
		return c.take()
	default:
		c.say("500 5.5.1 what?")
	}
	return true
}

func (c *dialogue) greet() {
	lines := []string{"mailtest", "8BITMIME", "ENHANCEDSTATUSCODES"}
	if c.s.o.TLS != nil && !c.encrypted {
		lines = append(lines, "STARTTLS")
	} else if c.s.o.User != "" {
		lines = append(lines, "AUTH PLAIN LOGIN")
	}
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		c.say("250" + sep + l)
	}
}

// signIn takes AUTH PLAIN with its answer in the same line (RFC 4954 4).
func (c *dialogue) signIn(rest string) {
	way, text, _ := strings.Cut(rest, " ")
	proof, err := base64.StdEncoding.DecodeString(text)
	if c.known = err == nil && way == "PLAIN" && string(proof) == "\x00"+c.s.o.User+"\x00"+c.s.o.Password; !c.known {
		c.say("535 5.7.8 no")
		return
	}
	c.say("235 2.7.0 welcome")
}

// between returns the address of FROM:<...> and TO:<...>.
func between(text string) string {
	_, text, _ = strings.Cut(text, "<")
	text, _, _ = strings.Cut(text, ">")
	return text
}

func (c *dialogue) recipient(to string) {
	s := c.s
	s.mu.Lock()
	refuse := s.refuse
	s.tries++
	s.changed.Broadcast()
	s.mu.Unlock()
	if refuse != nil {
		if answer := refuse(to); answer != "" {
			c.say(answer)
			return
		}
	}
	c.to = to
	c.say("250 2.1.5 fine")
}

// take reads a message, and tells whether the connection goes on.
func (c *dialogue) take() bool {
	c.say("354 go ahead")
	raw, err := c.in.ReadDotBytes()
	if err != nil {
		return false
	}
	m := Message{From: c.from, To: c.to, Raw: raw}
	if parsed, err := netmail.ReadMessage(bytes.NewReader(raw)); err == nil {
		m.Header = parsed.Header
		m.Subject, _ = (&mime.WordDecoder{}).DecodeHeader(parsed.Header.Get("Subject"))
		text, _ := io.ReadAll(quotedprintable.NewReader(parsed.Body))
		m.Text = strings.ReplaceAll(string(text), "\r\n", "\n")
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = append(s.taken, m)
	s.changed.Broadcast()
	if s.lost > 0 {
		s.lost--
		return false
	}
	c.say("250 2.0.0 taken")
	return true
}
