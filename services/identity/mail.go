package identity

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"

	"latchkey.dev/services/internal/mail"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// mailTenant is the tenant of what is to be sent.
//
// SECURITY: it is not the directory, whose revisions organizations see. One that is taken
// because a message is sent would tell that an address is known for which a code was asked.
const mailTenant = "mail"

const (
	// mailSource is the source of events whose position is kept.
	mailSource = "identity"
	// mailEvery is how often what waits is looked at, if nothing happens.
	mailEvery = time.Second
	// mailPause is the first pause of a message that could not be sent, and longestMailPause
	// the longest. mailDown and longestMailDown are those of a server that cannot be reached.
	mailPause, longestMailPause = 10 * time.Second, 30 * time.Minute
	mailDown, longestMailDown   = time.Second, time.Minute
	// maxRefusals is how often a message is tried that the server refuses for good: that may
	// be about how the server is set up, and end.
	maxRefusals = 6
)

// mailKept is how long the journal of what was sent is kept. It has no addresses or texts.
var mailKept = store.Retention{Values: day, Entries: 7 * day}

// mailer writes to people of what happens, by the events of the directory. An event becomes
// a Mail in the transaction that moves the position, and a Mail goes when the server has
// taken it: so none is lost, and one that was sent right before a crash is sent again, with
// the same Message-ID.
type mailer struct {
	*service
	sender *mail.Sender
	page   string // where people sign in, if that is known

	down  int       // how often in a row the server could not be reached
	until time.Time // when it is tried again
}

// offerMail sends messages from now on, where that is on. The first time it begins with what
// happens from then on.
func (s *service) offerMail(env *server.Env) error {
	if env.Mail == nil {
		return nil
	}
	ctx := context.Background()
	now, err := read(ctx, s, func(tx *store.Tx) (int64, error) { return tx.Revision(), nil })
	if err == nil {
		err = s.db.Update(inTenant(ctx, mailTenant), func(tx *store.Tx) error {
			if tx.Position(mailSource) == 0 {
				tx.SetPosition(mailSource, now)
			}
			if tx.Retention() != mailKept {
				tx.SetRetention(mailKept)
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("begin to send messages: %w", err)
	}
	m := &mailer{service: s, sender: env.Mail, page: env.SignInPage}
	counts := &m.sender.Counts
	counts.Failed.Add("", 0)
	for event := range mailKinds {
		for _, t := range []*mail.Tally{&counts.Sent, &counts.Failed, &counts.GivenUp, &counts.HeldBack} {
			t.Add(kindName(event), 0)
		}
	}
	env.GoAlone("mail", m.run)
	return nil
}

// run sends until ctx ends.
func (m *mailer) run(ctx context.Context) error {
	defer m.waiting(0, time.Time{}) // here: another process may go on
	none := func(context.Context) ([]string, error) { return nil, nil }
	err := m.db.Follow(ctx, mailEvery, none, func(ctx context.Context, _ []string) error {
		err := m.take(ctx)
		if err == nil {
			err = m.send(ctx)
		}
		if err != nil && ctx.Err() == nil {
			m.log.WarnContext(ctx, "messages wait", "error", err)
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// take keeps what is to be sent of the events that there are.
func (m *mailer) take(ctx context.Context) error {
	for {
		n, err := m.takeSome(ctx)
		if err != nil || n < batch {
			return err
		}
	}
}

// takeSome is take for a number of events, and returns how many there were.
func (m *mailer) takeSome(ctx context.Context) (int, error) {
	mine := inTenant(ctx, mailTenant)
	position, err := store.Read(mine, m.db, func(tx *store.Tx) (int64, error) { return tx.Position(mailSource), nil })
	if err != nil {
		return 0, err
	}
	events, err := m.db.Events(ctx, directory, position, batch)
	if err != nil || len(events) == 0 {
		return 0, err
	}
	wanted := m.mailsOf(ctx, events)
	err = m.db.Update(mine, func(tx *store.Tx) error {
		if tx.Position(mailSource) != position {
			return nil // another process was here
		}
		for _, w := range wanted {
			if err := m.keep(tx, w); err != nil {
				return err
			}
		}
		tx.SetPosition(mailSource, events[len(events)-1].Revision)
		return nil
	})
	return len(events), err
}

// mailsOf returns what is to be sent of events: of those of a revision that tell each
// organization of a person the same, one.
func (m *mailer) mailsOf(ctx context.Context, events []store.Event) (wanted []*identitystorepb.Mail) {
	for _, e := range events {
		kind, ok := mailKinds[e.Type]
		expires := e.CommitTime.Add(kind.life)
		if !ok || !expires.After(m.now()) {
			continue
		}
		user, err := kind.user(e.Payload)
		if err != nil {
			m.log.ErrorContext(ctx, "no message is sent of an event", "type", e.Type, "revision", e.Revision, "error", err)
		}
		same := func(w *identitystorepb.Mail) bool {
			return w.GetRevision() == e.Revision && w.GetEventType() == e.Type && w.GetUserId() == user
		}
		if user == "" || slices.ContainsFunc(wanted, same) {
			continue
		}
		wanted = append(wanted, &identitystorepb.Mail{
			Id: m.newPersonID(), Revision: e.Revision, Index: int32(e.Index), EventType: e.Type, UserId: user,
			EventTime: timestamppb.New(e.CommitTime), ExpireTime: timestamppb.New(expires),
		})
	}
	return wanted
}

// keep keeps what is to be sent, unless the person has got too many of its kind lately.
func (m *mailer) keep(tx *store.Tx, w *identitystorepb.Mail) error {
	most := int32(mailKinds[w.GetEventType()].most)
	id := w.GetUserId() + "/" + w.GetEventType()
	c, ok := mailCounts.Get(tx, id)
	if !ok || !c.GetEndTime().AsTime().After(tx.Now()) {
		c = &identitystorepb.MailCount{Id: id, EndTime: timestamppb.New(tx.Now().Add(time.Hour))}
	}
	if c.GetCount() >= most {
		m.sender.Counts.HeldBack.Add(kindName(w.GetEventType()), 1)
		m.log.Warn("a message is held back: the person has got enough of its kind within the hour", "type", w.GetEventType(), "user", w.GetUserId())
		return nil
	}
	c.Count++
	w.Last, w.NextTime = c.GetCount() == most, timestamppb.New(tx.Now())
	if err := mailCounts.Put(tx, c); err != nil {
		return err
	}
	return mails.Put(tx, w)
}

// send sends what is due, over one connection.
func (m *mailer) send(ctx context.Context) error {
	var due []*identitystorepb.Mail
	err := m.db.View(inTenant(ctx, mailTenant), func(tx *store.Tx) error {
		due = take(mailsDue.Scan(tx, mailsDue.Range().To(tx.Now())))
		oldest, _ := mailsSince.First(tx)
		m.waiting(mailsDue.Count(tx, mailsDue.Range()), oldest.GetEventTime().AsTime())
		return nil
	})
	if err != nil {
		return err
	}
	var c *mail.Connection
	defer func() { closeConnection(c) }()
	for _, w := range due {
		if ctx.Err() != nil {
			return nil
		}
		if c, err = m.sendOne(ctx, c, w); err != nil {
			return err
		}
	}
	return nil
}

// waiting shows how many messages wait, and since when the first of them.
func (m *mailer) waiting(n int, oldest time.Time) {
	m.sender.Counts.Waiting.Store(int64(n))
	if n == 0 {
		m.sender.Counts.Oldest.Store(0)
		return
	}
	m.sender.Counts.Oldest.Store(oldest.UnixNano())
}

func closeConnection(c *mail.Connection) {
	if c != nil {
		c.Close()
	}
}

// sendOne sends one message over a connection, which it makes if there is none, and returns
// the connection if it is still good. Its error is one of the store.
func (m *mailer) sendOne(ctx context.Context, c *mail.Connection, w *identitystorepb.Mail) (*mail.Connection, error) {
	if !w.GetExpireTime().AsTime().After(m.now()) {
		return c, m.giveUp(ctx, w, "it is too old")
	}
	msg, err := m.compose(ctx, w)
	switch {
	case err != nil:
		return c, m.postpone(ctx, w, err)
	case msg == nil: // there is nothing to tell any more
		return c, m.remove(ctx, w)
	}
	if c == nil {
		if c = m.connect(ctx); c == nil {
			return nil, nil // it waits for the server
		}
	}
	if err := c.Send(*msg); err != nil {
		if _, refused := err.(*mail.Refused); !refused {
			c.Close()
			c = nil
		}
		return c, m.postpone(ctx, w, err)
	}
	m.sender.Counts.Sent.Add(kindName(w.GetEventType()), 1)
	m.log.InfoContext(ctx, "message sent", "type", w.GetEventType(), "user", w.GetUserId(), "message", w.GetId(), "tries", w.GetTries()+1)
	return c, m.remove(ctx, w)
}

// connect connects to the server, or returns nil. One that could not be reached is left in
// peace for a while.
func (m *mailer) connect(ctx context.Context) *mail.Connection {
	if m.now().Before(m.until) {
		return nil
	}
	c, err := m.sender.Connect(ctx)
	if err != nil {
		pause := min(mailDown<<min(m.down, 20), longestMailDown)
		m.down, m.until = m.down+1, m.now().Add(pause)
		m.sender.Counts.Failed.Add("", 1)
		if ctx.Err() == nil {
			m.log.WarnContext(ctx, "messages wait for the mail server", "error", err, "failures", m.down, "again_in", pause)
		}
		return nil
	}
	m.down = 0
	return c
}

// postpone keeps a message that could not be sent for later, or gives it up.
func (m *mailer) postpone(ctx context.Context, w *identitystorepb.Mail, why error) error {
	m.sender.Counts.Failed.Add(kindName(w.GetEventType()), 1)
	pause := min(mailPause<<min(w.GetTries(), 20), longestMailPause)
	w.Tries++
	if _, refused := why.(*mail.Refused); refused {
		w.Refusals++
	}
	if w.GetRefusals() >= maxRefusals {
		return m.giveUp(ctx, w, why.Error())
	}
	w.NextTime = timestamppb.New(m.now().Add(pause))
	m.log.WarnContext(ctx, "a message could not be sent", "type", w.GetEventType(), "user", w.GetUserId(), "message", w.GetId(),
		"tries", w.GetTries(), "again_in", pause, "error", why)
	return m.change(ctx, func(tx *store.Tx) error { return mails.Put(tx, w) })
}

func (m *mailer) giveUp(ctx context.Context, w *identitystorepb.Mail, why string) error {
	m.sender.Counts.GivenUp.Add(kindName(w.GetEventType()), 1)
	m.log.ErrorContext(ctx, "a message is given up", "type", w.GetEventType(), "user", w.GetUserId(), "message", w.GetId(),
		"tries", w.GetTries(), "why", why)
	return m.remove(ctx, w)
}

func (m *mailer) remove(ctx context.Context, w *identitystorepb.Mail) error {
	return m.change(ctx, func(tx *store.Tx) error {
		mails.Delete(tx, w.GetId())
		return nil
	})
}

// change changes what is to be sent. It does so in a process that stops too, so that what
// was sent is not sent again.
func (m *mailer) change(ctx context.Context, change func(*store.Tx) error) error {
	return m.db.Update(inTenant(context.WithoutCancel(ctx), mailTenant), change)
}

// compose writes a message, or nothing if there is nothing to tell any more. A panic is an
// error: it would come again, and others wait.
func (m *mailer) compose(ctx context.Context, w *identitystorepb.Mail) (msg *mail.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	events, err := m.db.Events(ctx, directory, w.GetRevision()-1, 1)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(events, func(e store.Event) bool { return e.Revision == w.GetRevision() && e.Index == int(w.GetIndex()) })
	if at < 0 {
		return nil, nil
	}
	return read(ctx, m.service, func(tx *store.Tx) (*mail.Message, error) { return m.write(tx, w, events[at].Payload) })
}

// purgeMailCounts forgets what was counted in hours that are over.
func (s *service) purgeMailCounts(ctx context.Context) (n int, err error) {
	err = s.db.Update(inTenant(ctx, mailTenant), func(tx *store.Tx) error {
		n = deleteDue(tx, mailCounts, mailCountsByEnd)
		return nil
	})
	return n, err
}
