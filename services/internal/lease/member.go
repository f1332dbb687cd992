package lease

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
	"latchkey.dev/services/internal/fault"
)

// maxTagBytes bounds the tags of one message, well within the 4 MiB that a gRPC
// client accepts.
const maxTagBytes = 1 << 20

// member is one who may hold a lease, as the hub knows him. The hub's mu guards it.
type member struct {
	name         string
	term         uint64
	until        time.Duration // the hub's end of the lease, margin included
	timer        *time.Timer   // looks whether the lease ended
	acknowledged uint64
	link         *link // nil when he left without a release
}

// link is the part of a member that lasts as long as his stream. The hub's mu
// guards it, except for the channels.
type link struct {
	wake  chan struct{} // holds one item while there is something to send
	gone  chan struct{} // closed when the member is removed: nothing more is due to him
	cause error         // why he was removed, nil if he released; readable once gone is closed

	sent   uint64 // sequence of the newest message taken for sending
	read   uint64 // position in the log up to which he was told
	ping   uint64 // the newest ping that was heard
	ponged uint64 // the newest ping whose pong was taken for sending
	owed   uint64 // sequence of that pong, which the next ping must acknowledge
	listed uint64 // number of the newest list that he was told
}

func (m *member) nudge() {
	if m.link == nil {
		return
	}
	select {
	case m.link.wake <- struct{}{}:
	default: // he is awake
	}
}

// SubscriberInfo tells of one subscriber, for metrics.
type SubscriberInfo struct {
	Name      string
	Connected bool          // else it went without a word and may still hold its lease
	Behind    uint64        // publications it has yet to acknowledge
	Remaining time.Duration // until its lease has surely run out
}

// Subscribers tells of all who may hold a lease, in no order; during the quarantine
// also of the unknown ones of a former life.
func (h *Hub) Subscribers() []SubscriberInfo {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.config.Clock()
	infos := make([]SubscriberInfo, 0, len(h.members))
	for _, m := range h.members {
		infos = append(infos, SubscriberInfo{
			Name:      m.name,
			Connected: m.link != nil,
			Behind:    h.sequence - m.acknowledged,
			Remaining: max(0, m.until-now),
		})
	}
	return infos
}

// join makes the sender of a stream's first message a member before he is sent
// anything, so that whatever is published from now on reaches him.
func (h *Hub) join(first *leasepb.WatchRequest) (*member, *link, error) {
	if first.GetPing() != 1 {
		return nil, nil, fault.Invalid("ping", "must be 1 in the first message")
	}
	if h.config.Replicated && !first.GetFollowsReplicas() {
		return nil, nil, fault.Refused("a subscriber that watches every replica of " + h.config.Source)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return nil, nil, h.closing()
	}
	h.replace(first.GetFormerTerm())
	if len(h.members) >= h.config.MaxSubscribers {
		return nil, nil, fault.Limit("subscribers of "+h.config.Source, h.config.Duration)
	}
	l := &link{
		wake: make(chan struct{}, 1),
		gone: make(chan struct{}),
		sent: h.sequence,
		read: h.log.next,
		ping: 1,
	}
	m := &member{
		name:         first.GetSubscriber(),
		term:         newTerm(),
		until:        h.lease(),
		acknowledged: h.sequence, // he begins with nothing
		link:         l,
	}
	h.add(m)
	m.nudge()
	h.streams.Add(2) // under mu, so that Close cannot have begun to wait
	return m, l, nil
}

// lease returns when a lease that is granted or renewed now has surely run out.
func (h *Hub) lease() time.Duration {
	return h.config.Clock() + h.config.Duration + h.config.Margin
}

// newTerm returns a number that nobody can guess and that is not 0. Whoever knows
// it can make the hub forget the member.
func newTerm() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails: it ends the process instead
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// add makes m a member until his lease runs out. h.mu is held.
func (h *Hub) add(m *member) {
	h.members = append(h.members, m)
	m.timer = time.AfterFunc(m.until-h.config.Clock(), func() { h.expire(m) })
}

// expire removes m if his lease has run out, else looks again when it could have.
// The timer only says when to look; the clock says what is true.
func (h *Hub) expire(m *member) {
	h.mu.Lock()
	behind, ranOut := h.sequence-m.acknowledged, false
	if !h.ended && slices.Contains(h.members, m) {
		if left := m.until - h.config.Clock(); left > 0 {
			m.timer.Reset(left)
		} else {
			h.remove(m, h.lapsed())
			ranOut = true
		}
	}
	h.mu.Unlock()
	if ranOut {
		h.config.Log.Warn("lease ran out", "subscriber", m.name, "behind", behind)
	}
}

// remove forgets m, who can use nothing any more. From here on nothing revives his
// lease: his stream ends with the cause, and he must join anew. h.mu is held.
func (h *Hub) remove(m *member, cause error) {
	i := slices.Index(h.members, m)
	if i < 0 {
		return
	}
	h.members = slices.Delete(h.members, i, i+1)
	m.timer.Stop()
	if m.link != nil {
		m.link.cause = cause
		close(m.link.gone)
	}
	h.settle()
}

// replace removes the member of a term who says that he dropped everything. h.mu
// is held.
func (h *Hub) replace(term uint64) {
	if term == 0 {
		return
	}
	for _, m := range h.members {
		if m.term == term {
			h.remove(m, h.replaced())
			return
		}
	}
}

// leave notes that m's stream ended. Unless he was removed before, he may hold his
// lease still, so he stays a member until it runs out; but a member to whom no pong
// was ever handed never held one.
func (h *Hub) leave(m *member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.link.ponged == 0 {
		h.remove(m, nil)
	}
	m.link = nil
	h.checkEmpty()
}

// over reports whether the member was removed, after which he is neither heard nor
// answered. h.mu is held.
func (l *link) over() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// take returns what is to be sent to m now: the answer to his ping, and every tag
// that he was not told; nil if he was removed.
func (h *Hub) take(m *member, l *link) *leasepb.WatchResponse {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.over() {
		return nil
	}
	res := &leasepb.WatchResponse{Sequence: h.sequence, Term: m.term}
	res.Tags, res.Everything = h.untold(l)
	l.read, l.sent = h.log.next, h.sequence
	pause := h.grantable()
	if l.ping != l.ponged && pause > 0 {
		res.Pong = l.ping
		res.LeaseDuration = durationpb.New(pause)
		l.ponged, l.owed = l.ping, l.sent
	}
	if h.list.Number != 0 && (res.Pong != 0 || l.listed != h.list.Number) {
		res.Replicas, res.ReplicaId = h.list.message(), h.id
		l.listed = h.list.Number
	}
	return res
}

// untold returns each tag once that was published since the link was last told, or
// everything if they are too many to tell. h.mu is held.
func (h *Hub) untold(l *link) (tags []string, everything bool) {
	if !h.log.knows(l.read) {
		return nil, true
	}
	seen := make(map[string]struct{}, h.log.next-l.read)
	size := 0
	for tag := range h.log.since(l.read) {
		if _, twice := seen[tag]; twice {
			continue
		}
		seen[tag] = struct{}{}
		tags = append(tags, tag)
		if size += len(tag); size > maxTagBytes {
			return nil, true
		}
	}
	return tags, false
}
