package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	gomail "github.com/wneessen/go-mail"
)

const (
	// patience is how long the server may take for one step, with a message as one.
	patience = 30 * time.Second
	// grace is how long a message may still take that is under way when the process stops.
	grace = 2 * time.Second
	// maxText bounds a message in bytes.
	maxText = 64 << 10
)

// Sender hands messages to a server. It can be used by several goroutines at once.
type Sender struct {
	// Counts are kept by whoever sends.
	Counts Counts

	server Server
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	tls    *tls.Config
}

// Counts tell how sending goes.
type Counts struct {
	Sent     Tally        // messages that the server took
	Failed   Tally        // attempts that failed, to send, and of no kind to connect
	GivenUp  Tally        // messages that will not be sent
	HeldBack Tally        // messages that were too many for one person
	Waiting  atomic.Int64 // messages that are to be sent
	Oldest   atomic.Int64 // when the oldest of these was caused, in nanoseconds since 1970; 0 for none
}

// New returns a Sender, if there is a password where one is needed. It connects to nobody.
func New(server Server) (*Sender, error) {
	if server.Password != nil {
		if _, err := server.Password(); err != nil {
			return nil, err
		}
	}
	return &Sender{server: server, dial: (&net.Dialer{}).DialContext, tls: &tls.Config{ServerName: server.Host, MinVersion: tls.VersionTLS12}}, nil
}

// Message is a text for one person.
type Message struct {
	// ID is that of Message-ID before the @ (RFC 5322 3.6.4). A message that is sent again
	// has the same, so that who gets it twice can tell.
	ID string
	// To is an address without a name.
	To      string
	Subject string
	// Language is that of the subject and the text, a tag of BCP 47 (RFC 3282); empty if it
	// is not told.
	Language string
	Text     string
	// Date is when it was written.
	Date time.Time
}

// Refused is the error of a message that the server has refused for good (RFC 5321 4.2.1).
type Refused struct{ text string }

// Error says why, in the server's words.
func (r *Refused) Error() string { return r.text }

// Connection is one to the server. It is not for several goroutines at once.
type Connection struct {
	sender *Sender
	client *gomail.Client
	conn   net.Conn
	stop   func() bool
	cut    *time.Timer // closes the connection of a process that stops
}

// Connect connects to the server and signs in. When ctx ends, a message that is under way
// has 2 seconds more.
func (s *Sender) Connect(ctx context.Context) (*Connection, error) {
	c := &Connection{sender: s}
	options := []gomail.Option{
		gomail.WithPort(s.server.Port), gomail.WithTimeout(patience), gomail.WithHELO(domainOf(s.server.Sender.Address)),
		gomail.WithTLSConfig(s.tls), gomail.WithTLSPolicy(s.policy()), gomail.WithDialContextFunc(c.open),
	}
	if s.server.Password != nil {
		password, err := s.server.Password()
		if err != nil {
			return nil, err
		}
		options = append(options, gomail.WithUsername(s.server.User), gomail.WithPassword(password), gomail.WithOpportunisticSMTPAuth(s.ways()...))
	}
	var err error
	if c.client, err = gomail.NewClient(s.server.Host, options...); err != nil {
		return nil, fmt.Errorf("connect to the mail server: %w", err)
	}
	if err := c.client.DialWithContext(ctx); err != nil {
		if c.conn != nil {
			c.conn.Close()
		}
		return nil, fmt.Errorf("connect to the mail server %s:%d: %w", s.server.Host, s.server.Port, err)
	}
	c.cut = time.AfterFunc(time.Hour, func() { c.conn.Close() })
	c.stop = context.AfterFunc(ctx, func() { c.cut.Reset(grace) })
	return c, nil
}

// policy wants a change to TLS of every connection that has not begun by it, but to this
// machine.
func (s *Sender) policy() gomail.TLSPolicy {
	switch {
	case s.server.TLS: // and sees that it has
		return gomail.TLSOpportunistic
	case s.server.local():
		return gomail.NoTLS
	}
	return gomail.TLSMandatory
}

// ways are those of signing in, the best first.
func (s *Sender) ways() []gomail.SMTPAuthType {
	if s.server.local() && !s.server.TLS {
		return []gomail.SMTPAuthType{gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlainNoEnc, gomail.SMTPAuthLoginNoEnc}
	}
	return []gomail.SMTPAuthType{gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin}
}

func (c *Connection) open(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.sender.dial(ctx, network, address)
	if err == nil && c.sender.server.TLS {
		secure := tls.Client(conn, c.sender.tls)
		if err = secure.HandshakeContext(ctx); err != nil {
			conn.Close()
		}
		conn = secure
	}
	if err != nil {
		return nil, err
	}
	c.conn = conn
	return conn, nil
}

// Send hands in a message. Its error is a Refused if there is no use in trying again. After
// any other the connection may be broken, and is to be closed.
func (c *Connection) Send(m Message) error {
	msg, err := c.sender.compose(m)
	if err != nil {
		return err
	}
	err = c.client.Send(msg)
	if err == nil || msg.IsDelivered() { // whatever went wrong afterwards
		return nil
	}
	text := err.Error()
	if failed, ok := errors.AsType[*gomail.SendError](err); ok {
		text, _, _ = strings.Cut(failed.Error(), ", affected recipient(s)")
		if failed.ErrorCode() >= 500 {
			return &Refused{text}
		}
	}
	return fmt.Errorf("hand in a message: %s", text)
}

// SECURITY: what a text could do to the message beside being its text ends here, whoever
// made it.
func (s *Sender) compose(m Message) (*gomail.Msg, error) {
	switch {
	case !isAddress(m.To):
		return nil, &Refused{"the address is none"}
	case hasControl(m.Subject) || hasControl(m.ID) || hasControl(m.Language):
		return nil, &Refused{"the subject, the id or the language has control characters"}
	case len(m.Subject)+len(m.Text) > maxText:
		return nil, &Refused{"the message is too long"}
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(&s.server.Sender)
	if err := msg.To(m.To); err != nil {
		return nil, &Refused{"the address is none"}
	}
	msg.Subject(m.Subject)
	msg.SetMessageIDWithValue(m.ID + "@" + domainOf(s.server.Sender.Address))
	msg.SetDateWithValue(m.Date)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's holiday answers it
	if m.Language != "" {
		msg.SetGenHeader("Content-Language", m.Language)
	}
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	return msg, nil
}

// Close takes leave of the server.
func (c *Connection) Close() {
	c.stop()
	c.cut.Reset(grace) // if the server is slow to say goodbye
	c.client.Close()
	c.cut.Stop()
	c.conn.Close()
}
