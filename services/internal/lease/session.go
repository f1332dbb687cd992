package lease

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
)

var (
	errLapsed    = errors.New("no pong came in time")
	errNoConn    = errors.New("there is no connection")
	errWrongPong = errors.New("a pong came without a ping")
	errListed    = errors.New("the source keeps a list of its replicas")
	errNotHe     = errors.New("another replica than the list says is at the address")
)

// session is one stream to a replica of the source.
type session[V any] struct {
	cache  *Cache[V]
	feed   *feed
	stream grpc.BidiStreamingClient[leasepb.WatchRequest, leasepb.WatchResponse]
	cancel context.CancelCauseFunc // of the stream
	ponged chan time.Duration      // one item: how long until the next ping

	// The cache's mu guards these.
	lapse   *time.Timer // looks whether the lease ran out
	granted bool        // some ping was answered in time
	over    bool        // all was dropped, and nothing that still arrives counts

	sending      sync.Mutex // one Send at a time; guards what is below
	ping         uint64     // the newest that was sent
	answered     uint64     // the newest that was answered
	sent         time.Duration
	acknowledged uint64
}

// watch opens a stream and carries out what it brings until it ends. By then
// everything was dropped. It reports whether the stream ever granted a lease.
func (c *Cache[V]) watch(ctx context.Context, f *feed) (granted bool, err error) {
	// The stream outlives ctx by a moment, to release the lease.
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	s := &session[V]{cache: c, feed: f, cancel: cancel, ponged: make(chan time.Duration, 1)}
	s.arm(openTimeout)
	defer s.end()
	opened := context.AfterFunc(ctx, func() { cancel(ctx.Err()) })
	err = s.open(life)
	opened() // from here on the keeper looks at ctx
	if err != nil {
		return false, err
	}
	var keeper sync.WaitGroup
	keeper.Go(func() { s.keep(ctx, life) })
	err = s.receive()
	if cause := context.Cause(life); cause != nil && !errors.Is(err, errListed) {
		err = cause
	}
	cancel(nil)
	keeper.Wait()
	return s.end(), err
}

// open opens the stream and sends the first ping on it.
func (s *session[V]) open(life context.Context) error {
	conn := s.feed.dial()
	if conn == nil {
		return errNoConn
	}
	var err error
	if s.stream, err = leasepb.NewLeaseServiceClient(conn).Watch(life); err != nil {
		return err
	}
	s.sendPing()
	return nil
}

// receive carries out what the stream brings until it ends.
func (s *session[V]) receive() error {
	listed := false
	for {
		res, err := s.stream.Recv()
		switch {
		case err != nil && listed:
			return errListed
		case err != nil:
			return err
		case listed:
			continue // until it hears that nothing is kept by this stream
		}
		s.carryOut(res)
		s.acknowledge(res.GetSequence())
		if list := res.GetReplicas(); list != nil {
			s.cache.learn(listOf(list), s.feed.id == "")
			if listed = s.feed.id == ""; listed {
				s.leave()
				continue
			}
		}
		if res.GetPong() != 0 {
			if err := s.grant(res); err != nil {
				return err
			}
			if res.GetPong() == 1 {
				s.cache.config.Log.Info("lease held")
			}
		}
	}
}

// carryOut drops what a message says is no longer true.
func (s *session[V]) carryOut(res *leasepb.WatchResponse) {
	c := s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	s.feed.term = res.GetTerm()
	if s.over {
		return
	}
	if res.GetEverything() {
		c.dropAll()
	}
	c.invalidate(res.GetTags())
}

// acknowledge tells the hub that everything up to the sequence is carried out.
func (s *session[V]) acknowledge(sequence uint64) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if sequence > s.acknowledged {
		s.acknowledged = sequence
		s.send(&leasepb.WatchRequest{Acknowledged: sequence})
	}
}

// sendPing asks for the lease from now on.
func (s *session[V]) sendPing() {
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.ping != s.answered {
		return // the pong to come will say when
	}
	s.ping++
	req := &leasepb.WatchRequest{Ping: s.ping, Acknowledged: s.acknowledged}
	if s.ping == 1 {
		s.cache.mu.Lock()
		req.FormerTerm = s.feed.term
		s.cache.mu.Unlock()
		req.Source, req.Subscriber = s.cache.config.Source, s.cache.config.Subscriber
		req.FollowsReplicas = s.cache.config.DialReplica != nil
	}
	// SECURITY: the clock is read before the ping leaves, and the hub reads its own
	// after the ping has arrived; so its lease begins later than ours.
	s.sent = s.cache.config.Clock()
	s.send(req)
}

// send sends one message. If it cannot, the stream has ended, and Recv tells why.
func (s *session[V]) send(req *leasepb.WatchRequest) { _ = s.stream.Send(req) }

// grant prolongs the lease by the pong to the newest ping. It fails when the lease
// has run out meanwhile: the hub may have seen that, and nothing revives it.
func (s *session[V]) grant(res *leasepb.WatchResponse) error {
	sent, err := s.match(res.GetPong())
	if err != nil {
		return err
	}
	c := s.cache
	list := alone
	switch {
	case s.feed.id == "":
		c.learn(list, true)
	case res.GetReplicaId() != s.feed.id:
		return errNotHe
	default:
		list = listOf(res.GetReplicas())
	}
	duration := res.GetLeaseDuration().AsDuration()
	until := sent + duration
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.neverLapse {
		until = math.MaxInt64 / 2
	}
	if s.over {
		return nil // released; the hub will hear it
	}
	now := c.config.Clock()
	if now >= until || s.granted && now >= s.feed.newest.until {
		return errLapsed
	}
	c.granted(s.feed, grant{list.Number, until})
	if !s.granted {
		s.granted = true
		s.lapse.Reset(until - now)
	}
	select {
	case <-s.ponged: // of a pong that the keeper has not got round to; only the newest counts
	default:
	}
	s.ponged <- max(0, sent+duration/pingsPerLease-now)
	return nil
}

// match returns when the ping was sent that the pong answers.
func (s *session[V]) match(pong uint64) (sent time.Duration, err error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if pong != s.ping || pong == s.answered {
		return 0, errWrongPong
	}
	s.answered = pong
	return s.sent, nil
}

// keep sends a ping when it is time, and releases the lease when ctx ends.
func (s *session[V]) keep(ctx, life context.Context) {
	next := time.NewTimer(math.MaxInt64) // for the first pong
	defer next.Stop()
	for {
		select {
		case pause := <-s.ponged:
			next.Reset(pause)
		case <-next.C:
			s.sendPing()
		case <-s.feed.soon:
			s.sendPing()
		case <-ctx.Done():
			s.leave()
			return
		case <-life.Done():
			return
		}
	}
}

// leave drops everything and tells the hub so, that no write need wait for the rest
// of the lease. The stream ends when the hub has heard it, or soon.
func (s *session[V]) leave() {
	s.end()
	s.arm(farewellTimeout)
	s.sending.Lock()
	defer s.sending.Unlock()
	s.send(&leasepb.WatchRequest{Released: true})
	_ = s.stream.CloseSend()
}

// arm has expire called after the time.
func (s *session[V]) arm(after time.Duration) {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	s.lapse = time.AfterFunc(after, s.expire)
}

// expire ends the stream if its lease has run out, else looks again when it could
// have. The timer only says when to look; the clock says what is true.
func (s *session[V]) expire() {
	c := s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if left := s.feed.newest.until - c.config.Clock(); s.granted && !s.over && left > 0 {
		s.lapse.Reset(left)
		return
	}
	s.cancel(errLapsed) // and with the stream watch ends, and drops everything
}

// end drops everything unless that was done, stops to look at the lease, and reports
// whether there ever was one.
func (s *session[V]) end() (granted bool) {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	s.lapse.Stop()
	s.drop()
	return s.granted
}

// drop makes what the stream granted count no more, once. If the lease rests on it,
// everything is dropped. The cache's mu is held.
func (s *session[V]) drop() {
	if s.over {
		return
	}
	s.over = true
	if s.cache.neverLapse {
		return
	}
	s.feed.newest = grant{}
	if c := s.cache; c.list != nil && c.list.has(s.feed.id) && c.feeds[s.feed.id] == s.feed {
		c.lose()
	}
}
