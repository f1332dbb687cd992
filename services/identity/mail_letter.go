package identity

import (
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
			organization := ""
			if in, ok := any(e).(interface{ GetOrganizationId() string }); ok {
				if organization = in.GetOrganizationId(); !l.chosen(organization) {
					return false, nil
				}
			}
			l.tongue = tongueFor(l.tx, l.to, organization)
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
	tongue

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

// say adds a paragraph of sentences, of which some may be empty.
func (l *letter) say(sentences ...string) {
	there := slices.DeleteFunc(sentences, func(s string) bool { return s == "" })
	l.paragraphs = append(l.paragraphs, strings.Join(there, " "))
}

// lead adds where to go, in these words, if that is known.
func (l *letter) lead(name string) {
	if l.page != "" {
		l.say(l.text(name, "page", l.page))
	}
}

func (l *letter) message() *mail.Message {
	if l.mail.GetLast() {
		l.say(l.text("last"))
	}
	l.say(l.text("foot", "email", l.to.GetEmail()))
	text := l.text("hello", "name", plain(l.to.GetDisplayName())) + "\n\n" + strings.Join(l.paragraphs, "\n\n") + "\n"
	return &mail.Message{
		ID: l.mail.GetId(), To: l.to.GetEmail(), Subject: l.subject, Language: l.tag.String(), Text: text, Date: l.mail.GetEventTime().AsTime(),
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
	return l.date(t.In(zone))
}

// happened tells when what the message is about has happened.
func (l *letter) happened(organization string) string {
	return l.when(l.mail.GetEventTime().AsTime(), organization)
}

// quotes are what could end the quotation of what a program calls itself.
var quotes = strings.NewReplacer(`"`, "'", "„", "'", "“", "'", "”", "'", "«", "'", "»", "'")

// from tells where something came from; nothing if that is not known.
func (l *letter) from(address, userAgent string) string {
	switch program := quotes.Replace(plain(userAgent)); {
	case address == "":
		return ""
	case program == "":
		return l.text("from", "address", address)
	default:
		return l.text("from program", "address", address, "program", program)
	}
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
func (l *letter) proof(f pb.Factor) string {
	switch f {
	case factorPassword:
		return l.text("password")
	case factorTOTP:
		return l.text("app")
	case factorPasskey:
		return l.text("passkey")
	case factorRecovery:
		return l.text("recovery codes")
	}
	return l.text("outside account")
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
