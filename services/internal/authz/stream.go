package authz

import (
	"context"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// Stream enforces the rules on streams: at the start, on each message that comes and
// goes, and again whenever the caller's session or grants change while it is open.
func (g *Guard) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	m, ok := g.Rules.methods[info.FullMethod]
	if !ok {
		return unknownMethod(info.FullMethod)
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	who, err := g.admit(ctx, m)
	if err != nil {
		return g.denies(ctx, m, who, catalog.Set{}, err)
	}
	e, err := g.enters(ctx, m, who, catalog.Set{})
	if err != nil {
		return err
	}
	s := &stream{ServerStream: ss, guard: g, method: m, info: info, cancel: cancel, who: who}
	var note *store.Note
	if e != nil {
		note = e.note
	}
	s.ctx = enter(ctx, m, &call{rules: g.Rules, stream: s}, who.Principal, note)
	if who.session != nil {
		var watch sync.WaitGroup
		defer watch.Wait()
		defer cancel(nil)
		watch.Go(s.watch)
	}
	if e != nil {
		return g.logged(ctx, m, who, e, func() error {
			err := s.outcome(handler(srv, s))
			e.ask(s.needed())
			return err
		})
	}
	err = s.outcome(handler(srv, s))
	return g.denies(ctx, m, s.known(), s.needed(), err)
}

// stream is a stream under guard.
type stream struct {
	grpc.ServerStream
	ctx    context.Context
	guard  *Guard
	method *method
	info   *grpc.StreamServerInfo
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	who   *known
	needs catalog.Set // all that the messages of the caller asked for
	end   error       // why the stream was ended, once it was
	// whole tells that all has come of a stream that is answered once. From then on it
	// is like a unary call that was let in: it takes effect, and is not denied after.
	whole bool
}

// Context returns the context of the handler. It ends when the stream is ended.
func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg decides on each message that the caller sends. The first that is refused
// ends the stream.
func (s *stream) RecvMsg(msg any) error {
	received := s.receive(msg)
	if received != nil && received != io.EOF {
		return unreadable(received)
	}
	// At the end of what the caller sends too: now it will take effect.
	who, err := s.recheck()
	if err != nil {
		return err
	}
	if received == io.EOF {
		s.complete()
		return received
	}
	needs, err := s.guard.checkRequest(s.method, who.Principal, msg)
	s.mu.Lock()
	s.needs = s.needs.Union(needs)
	s.mu.Unlock()
	if err != nil {
		return s.refuse(err)
	}
	return s.method.counts(who.Principal, needs)
}

// counts notes the use of what a message of a stream asked for.
func (m *method) counts(p *Principal, needs catalog.Set) error {
	if p.uses == nil || m.log == nil || needs.Empty() {
		return nil
	}
	return m.meter.count(p.uses, needs, m.changes)
}

func (s *stream) needed() catalog.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.needs
}

// receive is RecvMsg of the connection, which also ends when the stream does: else
// a handler that waits for a caller who says nothing would not notice. The goroutine
// then ends with the call, as soon as the handler has returned.
func (s *stream) receive(msg any) error {
	if !s.info.IsClientStream || s.known().session == nil {
		return s.ServerStream.RecvMsg(msg)
	}
	received := make(chan error, 1)
	go func() { received <- s.ServerStream.RecvMsg(msg) }()
	select {
	case err := <-received:
		return err
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// SendMsg redacts each message that leaves, by what the caller may see now.
func (s *stream) SendMsg(msg any) error {
	who, err := s.recheck()
	if err != nil {
		return err
	}
	s.method.clean(who.Principal, msg)
	return untransported(s.ServerStream.SendMsg(msg))
}

func (s *stream) complete() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whole = !s.info.IsServerStream
}

func (s *stream) known() *known {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.who
}

// recheck returns who calls, decided anew if what was known no longer holds.
func (s *stream) recheck() (*known, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil || s.whole || s.guard.current(s.who) {
		return s.who, s.end
	}
	who, err := s.guard.admit(s.ctx, s.method)
	if err == nil {
		err = s.method.permitsAgain(who.Principal, s.needs)
	}
	if err != nil {
		s.end = err
		s.cancel(err)
		return nil, err
	}
	s.who = who
	return who, nil
}

// permitsAgain tells whether a caller still holds what his messages asked for.
func (m *method) permitsAgain(p *Principal, needs catalog.Set) error {
	for bit := range needs.Without(p.Grants).All() {
		return m.lacks(p, bit, "")
	}
	return nil
}

// refuse ends the stream, unless it was ended before, and returns why.
func (s *stream) refuse(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end == nil {
		s.end = err
		s.cancel(err)
	}
	return s.end
}

// outcome returns how the stream ended. Why it was ended counts, whatever its handler
// made of that.
func (s *stream) outcome(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return s.end
	}
	return err
}

// watch ends an idle stream when its caller loses what let him in.
func (s *stream) watch() {
	for {
		who := s.known()
		expired := time.NewTimer(s.guard.pause(who))
		select {
		case <-s.ctx.Done():
		case <-who.session.Stale():
		case <-who.grants.Stale():
		case <-who.actorStale():
		case <-expired.C:
		}
		expired.Stop()
		if s.ctx.Err() != nil {
			return
		}
		if s.isWhole() {
			return
		}
		if _, err := s.recheck(); err != nil {
			return
		}
	}
}

func (s *stream) isWhole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.whole
}

// pause returns when to look at the caller again if nothing is heard. Grants that
// have run out by our clock alone are looked at every second.
func (g *Guard) pause(who *known) time.Duration {
	if d := g.expires(who); d > 0 {
		return d
	}
	return time.Second
}

// unreadable says what it means that no message could be read from a connection.
func unreadable(err error) error {
	switch status.Code(err) {
	case codes.ResourceExhausted:
		return fault.Limit("the message is longer than this server takes", 0)
	case codes.Internal, codes.Unimplemented:
		return fault.New(codes.InvalidArgument, faultpb.Reason_REASON_REQUEST_MALFORMED,
			"the stream is not a well-formed row of messages: check its encoding and compression", nil)
	}
	return untransported(err)
}

// untransported says what it means that a connection passed no message on: it is gone, and with
// it the caller. The stream's context ends for that, too, but maybe only in a moment.
func untransported(err error) error {
	if status.Code(err) == codes.Unavailable {
		return fault.Cancelled()
	}
	return err
}
