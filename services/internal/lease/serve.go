package lease

import (
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
	"latchkey.dev/services/internal/fault"
)

// watchServer is a call of Watch as the source sees it.
type watchServer = grpc.BidiStreamingServer[leasepb.WatchRequest, leasepb.WatchResponse]

// Serve feeds one subscriber until its stream ends; first is the message that was
// read from it to know which source it asks for. It returns nil when the
// subscriber released its lease.
//
// Receiving and sending have goroutines of their own, so that a subscriber which
// does not read cannot keep its own stream from being ended. They end with the
// stream, soon after Serve returned.
func (h *Hub) Serve(stream watchServer, first *leasepb.WatchRequest) error {
	m, l, err := h.join(first)
	if err != nil {
		return err
	}
	h.config.Log.Info("subscriber joined", "subscriber", m.name)
	ends := make(chan error, 2)
	go func() {
		defer h.streams.Done()
		ends <- h.receive(stream, m, l)
	}()
	go func() {
		defer h.streams.Done()
		ends <- h.send(stream, m, l)
	}()
	select {
	case err = <-ends:
	case <-l.gone:
		err = l.cause
	case <-h.closed:
		err = h.closing()
	}
	h.leave(m)
	h.config.Log.Info("subscriber left", "subscriber", m.name, "cause", err)
	return err
}

// receive hears the subscriber until the stream ends.
func (h *Hub) receive(stream watchServer, m *member, l *link) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil // he will say no more, without having released
		}
		if err != nil {
			return err
		}
		if over, err := h.hear(m, l, req); over {
			return err
		}
	}
}

// send tells the subscriber what it must know until the stream ends.
func (h *Hub) send(stream watchServer, m *member, l *link) error {
	for {
		select {
		case <-l.wake:
		case <-l.gone:
			return l.cause
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		res := h.take(m, l)
		if res == nil {
			return l.cause
		}
		if err := stream.Send(res); err != nil {
			return err
		}
	}
}

// hear carries out one message of m, and reports whether the stream is over.
func (h *Hub) hear(m *member, l *link, req *leasepb.WatchRequest) (over bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.over() {
		return true, l.cause
	}
	if req.GetAcknowledged() > l.sent {
		return true, fault.Invalid("acknowledged", "must be at most %d, the newest that was sent", l.sent)
	}
	m.acknowledged = max(m.acknowledged, req.GetAcknowledged())
	if req.GetReleased() {
		h.remove(m, nil)
		return true, nil
	}
	if req.GetPing() != 0 {
		if err := h.renew(m, l, req); err != nil {
			return true, err
		}
	}
	h.settle()
	return false, nil
}

// renew prolongs the lease of m by his ping, if it has not run out. h.mu is held.
func (h *Hub) renew(m *member, l *link, req *leasepb.WatchRequest) error {
	switch {
	case req.GetPing() <= l.ping:
		return fault.Invalid("ping", "must be more than %d, the one before", l.ping)
	case l.ping != l.ponged:
		return fault.Invalid("ping", "must come after the pong to the one before")
	case req.GetAcknowledged() < l.owed:
		return fault.Invalid("acknowledged", "must be at least %d, as in the pong before", l.owed)
	}
	if h.config.Clock() >= m.until {
		h.remove(m, h.lapsed())
		return l.cause
	}
	l.ping = req.GetPing()
	m.until = h.lease()
	m.nudge()
	return nil
}

// lapsed is the end of a stream whose subscriber may use nothing any more.
func (h *Hub) lapsed() error {
	return fault.New(codes.Aborted, faultpb.Reason_REASON_LEASE_LOST,
		"your lease ran out: drop everything and watch again",
		map[string]string{"source": h.config.Source})
}

// replaced is the end of a stream whose subscriber has opened another.
func (h *Hub) replaced() error {
	return fault.New(codes.Aborted, faultpb.Reason_REASON_LEASE_LOST,
		"you said on another stream that this one is over",
		map[string]string{"source": h.config.Source})
}
