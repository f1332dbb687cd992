package authz

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
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
	s := &stream{ServerStream: ss, guard: g, method: m, cancel: cancel}
	who, err := g.admit(ctx, m)
	if err != nil {
		return err
	}
	s.who = who
	s.ctx = g.enter(ctx, m, who.Principal)
	if who.session != nil {
		var watch sync.WaitGroup
		defer watch.Wait()
		defer cancel(nil)
		watch.Go(s.watch)
	}
	if err := handler(srv, s); err != nil {
		if cause := s.denied(); cause != nil {
			return cause
		}
		return err
	}
	return nil
}

// stream is a stream under guard.
type stream struct {
	grpc.ServerStream
	ctx    context.Context
	guard  *Guard
	method *method
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	who  known
	deny error // why the stream was ended, once it was
}

func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg decides on each message that the caller sends.
func (s *stream) RecvMsg(msg any) error {
	if err := s.ServerStream.RecvMsg(msg); err != nil {
		return err
	}
	who, err := s.recheck()
	if err != nil {
		return err
	}
	in, ok := msg.(proto.Message)
	if !ok {
		return nil
	}
	return s.guard.checkRequest(s.method, who.Principal, in)
}

// SendMsg redacts each message that leaves, by what the caller may see now.
func (s *stream) SendMsg(msg any) error {
	who, err := s.recheck()
	if err != nil {
		return err
	}
	if out, ok := msg.(proto.Message); ok {
		s.method.clean(who.Principal, out)
	}
	return s.ServerStream.SendMsg(msg)
}

// recheck returns who calls, decided anew if what was known no longer holds.
func (s *stream) recheck() (known, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deny != nil || s.guard.current(s.who) {
		return s.who, s.deny
	}
	who, err := s.guard.admit(s.ctx, s.method)
	if err != nil {
		s.deny = err
		s.cancel(err)
		return known{}, err
	}
	s.who = who
	return who, nil
}

func (s *stream) denied() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deny
}

// watch ends an idle stream when its caller loses what let him in.
func (s *stream) watch() {
	for {
		s.mu.Lock()
		who := s.who
		s.mu.Unlock()
		select {
		case <-s.ctx.Done():
			return
		case <-who.session.Stale():
		case <-who.grants.Stale():
		}
		if _, err := s.recheck(); err != nil {
			return
		}
	}
}
