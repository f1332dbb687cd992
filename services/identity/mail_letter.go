package identity

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/mail"
	"latchkey.dev/services/internal/store"
)

// mailKind is what is sent of one kind of event.
type mailKind struct {
	event string        // full name of its message
	life  time.Duration // after which it is not worth sending
	most  int           // of them to one person within an hour
	user  func(payload []byte) (string, error)
	// write returns false if there is nothing to tell any more.
	write func(l *letter, payload []byte) (bool, error)
}

// kindName is what metrics call the kind of an event: its message, without the package.
func kindName(event string) string { return event[strings.LastIndexByte(event, '.')+1:] }

// about is an event about a person.
type about interface {
	proto.Message
	GetUserId() string
}

// mailOf makes the kind of the events of a type.
func mailOf[E about](life time.Duration, most int, write func(*letter, E) (bool, error)) mailKind {
	var none E
	message := none.ProtoReflect().Type()
	decode := func(payload []byte) (E, error) {
		e := message.New().Interface().(E)
		return e, proto.Unmarshal(payload, e)
	}
	return mailKind{
		event: string(message.Descriptor().FullName()), life: life, most: most,
		user: func(payload []byte) (string, error) {
			e, err := decode(payload)
			return e.GetUserId(), err
		},
		write: func(l *letter, payload []byte) (bool, error) {
			e, err := decode(payload)
			if err != nil {
				return false, err
			}
			if in, ok := any(e).(interface{ GetOrganizationId() string }); ok && !l.chosen(in.GetOrganizationId()) {
				return false, nil
			}
			return write(l, e)
		},
	}
}

// letter is a message that is being written.
type letter struct {
	*mailer
	tx   *store.Tx
	mail *identitystorepb.Mail
	to   *pb.Profile

	subject    string
	paragraphs []string
}

// write writes a message, or nothing if there is nothing to tell any more: nor is there if
// the person is gone, or has chosen not to be told.
func (m *mailer) write(tx *store.Tx, w *identitystorepb.Mail, payload []byte) (*mail.Message, error) {
	p, known := profiles.Get(tx, w.GetUserId())
	kind, ok := mailKinds[w.GetEventType()]
	if !known || !ok {
		return nil, nil
	}
	l := &letter{mailer: m, tx: tx, mail: w, to: p}
	if ok, err := kind.write(l, payload); err != nil || !ok {
		return nil, err
	}
	return l.message(), nil
}

// say adds a paragraph.
func (l *letter) say(format string, args ...any) {
	l.paragraphs = append(l.paragraphs, fmt.Sprintf(format, args...))
}

// lead adds where to go, if that is known.
func (l *letter) lead(doing string) {
	if l.page != "" {
		l.say("%s:\n\n    %s", doing, l.page)
	}
}

func (l *letter) message() *mail.Message {
	if l.mail.GetLast() {
		l.say("You have got several messages like this one within an hour. More of them are held back until it is over.")
	}
	l.say("This message is about your account (%s) and was sent by a program. Nobody reads answers to it.", l.to.GetEmail())
	text := fmt.Sprintf("Hello %s,\n\n%s\n", plain(l.to.GetDisplayName()), strings.Join(l.paragraphs, "\n\n"))
	return &mail.Message{
		ID: l.mail.GetId(), To: l.to.GetEmail(), Subject: l.subject, Text: text, Date: l.mail.GetEventTime().AsTime(),
	}
}

// maxPlain is how much of a text is told that somebody else chose.
const maxPlain = 80

// plain returns what somebody is called, or what a program calls itself, as one can tell it.
//
// SECURITY: others choose these texts: whoever founds an organization could have the suite
// send his own words to anybody. So it is one short line, in which no program finds a link.
func plain(text string) string {
	var b strings.Builder
	runes := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " "))
	for i, r := range runes {
		switch {
		case i == maxPlain:
			b.WriteString("...")
			return b.String()
		case !unicode.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r):
			continue
		}
		b.WriteRune(r)
		if i+1 < len(runes) && strings.ContainsRune(".:@\u3002\uff0e\uff61", r) && runes[i+1] != ' ' && !unicode.IsDigit(runes[i+1]) {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// when tells a time as the person's organization shows it, or else in UTC.
func (l *letter) when(t time.Time, organization string) string {
	zone := time.UTC
	if o, ok := organizations.Get(l.tx, organization); ok {
		if found, err := time.LoadLocation(o.GetTimeZone()); err == nil {
			zone = found
		}
	}
	return t.In(zone).Format("2 January 2006 at 15:04 MST")
}

// happened tells when what the message is about has happened.
func (l *letter) happened(organization string) string {
	return "on " + l.when(l.mail.GetEventTime().AsTime(), organization)
}

// from tells where something came from, in a sentence that goes on after another.
func from(address, userAgent string) string {
	switch program := plain(userAgent); {
	case address == "":
		return ""
	case program == "":
		return fmt.Sprintf(" It came from the address %s.", address)
	default:
		return fmt.Sprintf(" It came from the address %s, by a program that calls itself %q.", address, program)
	}
}

func (l *letter) ifNotYou() {
	l.say("If it was not you, set a new password now, end your other sessions, and tell your administrator.")
}

func (l *letter) organization(id string) string {
	o, _ := organizations.Get(l.tx, id)
	return plain(o.GetName())
}

// person is what an organization calls one of its users.
func (l *letter) person(organization, id string) string {
	u, _ := users.Get(l.tx, userKey(organization, id))
	return plain(u.GetDisplayName())
}

func (l *letter) provider(id string) string {
	p, _ := providers.Get(l.tx, id)
	return plain(p.GetDisplayName())
}

// proof is what a person would call a factor.
func proof(f pb.Factor) string {
	switch f {
	case factorPassword:
		return "a password"
	case factorTOTP:
		return "an authenticator app"
	case factorPasskey:
		return "a passkey"
	case factorRecovery:
		return "recovery codes"
	}
	return "an account at another provider"
}

// chosen tells whether the person wants to be told by e-mail of what happened in an
// organization.
func (l *letter) chosen(organization string) bool {
	for event, name := range notifiable {
		if name == l.mail.GetEventType() {
			o := outcome(event, defaultsOf(l.tx, organization).GetChoices(), choicesOf(l.tx, organization, l.to.GetId()).GetChoices())
			return slices.Contains(o.GetChannels(), byEmail)
		}
	}
	return true
}
