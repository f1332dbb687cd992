package lease

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	leasepb "latchkey.dev/gen/go/latchkey/lease/v1"
)

// wire is a network between one subscriber and a hub for tests in a synctest bubble,
// where time is exact and costs nothing. It keeps the order of messages, delays them,
// and can be frozen (nobody notices) or cut (both ends notice).
type wire struct {
	life context.Context

	mu    sync.Mutex
	hub   *Hub
	open  chan struct{} // closed while messages pass
	delay func() time.Duration
	calls map[*call]struct{}
	// sending is called with each message of a subscriber before it leaves.
	sending func(*leasepb.WatchRequest)
}

func newWire(t *testing.T, h *Hub) *wire {
	w := &wire{life: t.Context(), hub: h, open: make(chan struct{}), calls: map[*call]struct{}{}}
	w.delay = func() time.Duration { return 0 }
	close(w.open)
	return w
}

func (w *wire) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
		w.open = make(chan struct{})
	default:
	}
}

func (w *wire) thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
	default:
		close(w.open)
	}
}

// cut ends every call at both ends.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.calls {
		c.abort()
	}
}

// connect has new calls answered by another hub, or by none.
func (w *wire) connect(h *Hub) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hub = h
}

// pass waits until the message that was sent at the time has crossed.
func (w *wire) pass(ctx context.Context, due time.Time) error {
	w.mu.Lock()
	open := w.open
	w.mu.Unlock()
	select {
	case <-open:
	case <-ctx.Done():
		return ctx.Err()
	}
	left := time.Until(due)
	if left <= 0 {
		return nil
	}
	select {
	case <-time.After(left):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *wire) due() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.delay())
}

func (w *wire) dial() grpc.ClientConnInterface { return w }

// Invoke implements grpc.ClientConnInterface.
func (w *wire) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return status.Error(codes.Unimplemented, "only streams")
}

// item is one message on its way.
type item struct {
	message proto.Message
	due     time.Time
}

// call is one Watch.
type call struct {
	wire                     *wire
	up, down                 chan item
	client, server           context.Context
	breakClient, breakServer context.CancelFunc
	ended                    chan struct{} // the handler's result has arrived
	err                      error
	grpc.ClientStream
}

// NewStream implements grpc.ClientConnInterface.
func (w *wire) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hub
	if h == nil {
		return nil, status.Error(codes.Unavailable, "nobody there")
	}
	c := &call{
		wire: w, up: make(chan item, 1000), down: make(chan item, 100_000),
		ended: make(chan struct{}),
	}
	c.client, c.breakClient = context.WithCancel(ctx)
	c.server, c.breakServer = context.WithCancel(w.life)
	w.calls[c] = struct{}{}
	go c.serve(h)
	go func() { // the client hangs up: the server hears of it later
		<-c.client.Done()
		if w.pass(c.server, w.due()) == nil {
			c.breakServer()
		}
	}()
	return c, nil
}

func (c *call) serve(h *Hub) {
	server := serverEnd{call: c}
	first, err := server.Recv()
	if err == nil {
		err = h.Serve(server, first)
	}
	c.breakServer()
	due := c.wire.due()
	c.wire.mu.Lock()
	delete(c.wire.calls, c)
	c.wire.mu.Unlock()
	if c.wire.pass(c.client, due) == nil {
		c.err = err
		if err == nil {
			c.err = io.EOF
		}
		close(c.ended)
	}
}

func (c *call) abort() {
	c.breakClient()
	c.breakServer()
}

func (c *call) SendMsg(m any) error {
	if c.client.Err() != nil {
		return io.EOF
	}
	if c.wire.sending != nil {
		c.wire.sending(m.(*leasepb.WatchRequest))
	}
	c.up <- item{proto.Clone(m.(proto.Message)), c.wire.due()}
	return nil
}

func (c *call) CloseSend() error { return nil }

func (c *call) RecvMsg(m any) error {
	it, err := c.receive(c.client, c.down, c.ended)
	if err != nil {
		return status.FromContextError(err).Err()
	}
	if it.message == nil {
		return c.err
	}
	proto.Merge(m.(proto.Message), it.message)
	return nil
}

// receive returns the next message, or one without content when there is no more.
func (c *call) receive(ctx context.Context, from chan item, ended chan struct{}) (item, error) {
	var it item
	select {
	case it = <-from:
	default:
		select {
		case it = <-from:
		case <-ended:
			return item{}, nil
		case <-ctx.Done():
			return item{}, ctx.Err()
		}
	}
	return it, c.wire.pass(ctx, it.due)
}

// serverEnd is a call as the hub sees it.
type serverEnd struct {
	*call
	grpc.ServerStream
}

func (s serverEnd) Context() context.Context { return s.server }

func (s serverEnd) Send(res *leasepb.WatchResponse) error {
	if err := s.server.Err(); err != nil {
		return err
	}
	s.down <- item{proto.Clone(res), s.wire.due()}
	return nil
}

func (s serverEnd) Recv() (*leasepb.WatchRequest, error) {
	it, err := s.receive(s.server, s.up, nil)
	if err != nil {
		return nil, err
	}
	return it.message.(*leasepb.WatchRequest), nil
}

func (s serverEnd) SendMsg(any) error { panic("not used") }
func (s serverEnd) RecvMsg(any) error { panic("not used") }
