package authz_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/servertest"
)

// open opens a stream of the shop.
func open(t *testing.T, conn grpc.ClientConnInterface, name string) grpc.ClientStream {
	t.Helper()
	m := shop().Services().Get(0).Methods().ByName(protoreflect.Name(name))
	s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer()}, method(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func send(t *testing.T, s grpc.ClientStream, request string) {
	t.Helper()
	if err := s.SendMsg(message(t, "Ask", request)); err != nil && err != io.EOF {
		t.Fatal(err)
	}
}

// receive returns the next answer, or how the stream ended.
func receive(t *testing.T, s grpc.ClientStream) (string, error) {
	t.Helper()
	m := message(t, "Answer", ``)
	err := s.RecvMsg(m)
	return textOf(m), err
}

func wantAnswer(t *testing.T, s grpc.ClientStream, want string) {
	t.Helper()
	if got, err := receive(t, s); err != nil || got != textOf(message(t, "Answer", want)) {
		t.Fatalf("got %q, %v, want %s", got, err, want)
	}
}

func wantEnd(t *testing.T, s grpc.ClientStream, want string) {
	t.Helper()
	got, err := receive(t, s)
	if err == nil {
		t.Fatalf("got %s, want the end of the stream", got)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	wantOutcome(t, "end of the stream", err, want)
}

// readAll reads a caller's messages to their end and answers with how many they were.
func readAll(t testing.TB) func(string, grpc.ServerStream) error {
	return func(_ string, s grpc.ServerStream) error {
		for n := 0; ; n++ {
			err := s.RecvMsg(message(t, "Ask", ``))
			if err == io.EOF {
				return s.SendMsg(message(t, "Answer", `caller: "`+strings.Repeat("x", n)+`"`))
			}
			if err != nil {
				return err
			}
		}
	}
}

func TestStreamChecksEachMessage(t *testing.T) {
	s := shopOf(t, &shopServer{stream: readAll(t)})
	user := s.As("Invoices:Void", "Invoices:Grid:Open")
	for _, c := range []struct {
		name     string
		requests []string
		want     string
	}{
		{"nothing", nil, "OK"},
		{"all allowed", []string{``, `view: VIEW_OPEN`, ``}, "OK"},
		{"the first not", []string{`view: VIEW_ALL`}, "PermissionDenied GRANT_MISSING"},
		{"the last not", []string{``, ``, `item { title: "x" }`}, "PermissionDenied GRANT_MISSING"},
		{"one in between not", []string{``, `view: VIEW_ALL`, ``}, "PermissionDenied GRANT_MISSING"},
		{"one invalid", []string{``, `id: "01234567890"`}, "InvalidArgument FIELD_INVALID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stream := open(t, user, "Upload")
			for _, r := range c.requests {
				send(t, stream, r)
			}
			stream.CloseSend()
			if c.want == "OK" {
				wantAnswer(t, stream, `caller: "`+strings.Repeat("x", len(c.requests))+`"`)
			}
			wantEnd(t, stream, c.want)
		})
	}
}

func TestStreamStart(t *testing.T) {
	shop := &shopServer{stream: readAll(t)}
	s := shopOf(t, shop)
	for name, c := range map[string]struct {
		conn grpc.ClientConnInterface
		want string
	}{
		"nobody":          {s.Anonymous(), "Unauthenticated CREDENTIALS_MISSING"},
		"without the key": {s.As("Invoices:Edit"), "PermissionDenied GRANT_MISSING"},
		"a service":       {s.Service("scheduling"), "PermissionDenied PEOPLE_ONLY"},
	} {
		wantEnd(t, open(t, c.conn, "Upload"), c.want)
		if got := shop.reached(); len(got) > 0 {
			t.Errorf("%s reached %v", name, got)
		}
	}
}

// A handler that makes light of a refused message changes nothing.
func TestStreamRefusalIsFinal(t *testing.T) {
	var second error
	shop := &shopServer{stream: func(_ string, s grpc.ServerStream) error {
		for s.RecvMsg(message(t, "Ask", ``)) == nil {
		}
		second = s.RecvMsg(message(t, "Ask", ``))
		return s.SendMsg(message(t, "Answer", `caller: "done"`))
	}}
	s := shopOf(t, shop)
	stream := open(t, s.As("Invoices:Void"), "Upload")
	send(t, stream, `view: VIEW_ALL`)
	send(t, stream, ``)
	stream.CloseSend()
	wantEnd(t, stream, "PermissionDenied GRANT_MISSING")
	if second == nil || second == io.EOF {
		t.Errorf("the message after the refused one: got %v, want an error", second)
	}
}

func TestStreamMalformed(t *testing.T) {
	s := shopOf(t, &shopServer{stream: readAll(t)})
	for name, c := range map[string]struct{ body, want string }{
		"malformed": {"\xff\xff", "InvalidArgument REQUEST_MALFORMED"},
		"not UTF-8": {"\x0a\x01\xff", "InvalidArgument REQUEST_MALFORMED"},
		// gRPC itself answers, before anybody else can.
		"too long": {strings.Repeat("x", 5<<20), "ResourceExhausted without a reason: grpc: received message larger than max (5242880 vs. 4194304)"},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := s.As("Invoices:Void").NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, method("Upload"), grpc.ForceCodecV2(raw{}))
			if err != nil {
				t.Fatal(err)
			}
			stream.SendMsg([]byte(c.body))
			stream.CloseSend()
			wantOutcome(t, name, stream.RecvMsg(nil), c.want)
		})
	}
}

// A connection that is gone is not the suite's fault, even if its stream's context does not know yet.
func TestStreamLosesConnection(t *testing.T) {
	gone := authz.Untransported(status.Error(codes.Unavailable, "transport is closing"))
	sealed, broken := fault.Seal(t.Context(), gone, "")
	if broken != nil || status.Code(sealed) != codes.Canceled {
		t.Errorf("got %v, to log: %v, want Canceled and nothing to log", sealed, broken)
	}
	if ours := status.Error(codes.Internal, "a message that cannot be encoded"); authz.Untransported(ours) != ours || authz.Untransported(nil) != nil {
		t.Error("another error is changed")
	}
}

// talk answers each message with the guarded fields and what the caller holds; and
// says one thing of itself for each token in go.
func talk(t testing.TB, next <-chan struct{}) func(string, grpc.ServerStream) error {
	return func(_ string, s grpc.ServerStream) error {
		for {
			select {
			case <-next:
			case <-s.Context().Done():
				return nil // as handlers do, who think that the caller went away
			}
			caller := "sees nothing"
			if authz.Caller(s.Context()).Has("setting:see_pricing") {
				caller = "sees"
			}
			if err := s.SendMsg(message(t, "Answer", `item { id: "1" unit_price { minor_units: 7 } } caller: "`+caller+`"`)); err != nil {
				return err
			}
		}
	}
}

// watch opens an idle Watch whose handler speaks when next is sent to.
func watch(t *testing.T, grants ...string) (*servertest.Server, *servertest.User, grpc.ClientStream, chan<- struct{}) {
	next := make(chan struct{})
	s := shopOf(t, &shopServer{stream: func(name string, ss grpc.ServerStream) error {
		if err := ss.RecvMsg(message(t, "Ask", ``)); err != nil {
			return err
		}
		return talk(t, next)(name, ss)
	}})
	user := s.As(grants...)
	stream := open(t, user, "Watch")
	send(t, stream, `view: VIEW_OPEN`)
	stream.CloseSend()
	return s, user, stream, next
}

const (
	hidden  = `item { id: "1" } caller: "sees nothing"`
	visible = `item { id: "1" unit_price { minor_units: 7 } } caller: "sees"`
)

func TestStreamRedactsEachMessage(t *testing.T) {
	_, user, stream, next := watch(t, "Invoices:Grid:Open")
	next <- struct{}{}
	wantAnswer(t, stream, hidden)
	user.Grant("Web", "Invoices:Grid:Open", "setting:see_pricing")
	next <- struct{}{}
	wantAnswer(t, stream, visible)
	user.Grant("Web", "Invoices:Grid:Open")
	next <- struct{}{}
	wantAnswer(t, stream, hidden)
}

func TestIdleStreamEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(*servertest.User)
		want string
	}{
		{"the grant of what was chosen is revoked", func(u *servertest.User) { u.Grant("Web", "Invoices:Grid:All") }, "PermissionDenied GRANT_MISSING"},
		{"the surface is closed", func(u *servertest.User) { u.Grant("Invoices:Grid:Open") }, "PermissionDenied SURFACE_CLOSED"},
		{"the session ends", (*servertest.User).End, "Unauthenticated CREDENTIALS_INVALID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, user, stream, next := watch(t, "Invoices:Grid:Open")
			next <- struct{}{}
			wantAnswer(t, stream, hidden)
			c.lose(user)
			wantEnd(t, stream, c.want)
		})
	}
}

func TestIdleStreamGoesOn(t *testing.T) {
	s, user, stream, next := watch(t, "Invoices:Grid:Open", "Invoices:Void")
	next <- struct{}{}
	wantAnswer(t, stream, hidden)
	s.As("Invoices:Grid:Open").Grant() // another user's
	user.Grant("Web", "Invoices:Grid:Open")
	user.Set("search_scope", "SEARCH_SCOPE_OWN")
	next <- struct{}{}
	wantAnswer(t, stream, hidden)
}

// A handler that waits for a caller who says nothing is woken too.
func TestWaitingStreamEnds(t *testing.T) {
	for _, name := range []string{"Upload", "Chat"} {
		t.Run(name, func(t *testing.T) {
			received := make(chan struct{}, 1)
			s := shopOf(t, &shopServer{stream: func(_ string, ss grpc.ServerStream) error {
				for {
					if err := ss.RecvMsg(message(t, "Ask", ``)); err != nil {
						return err
					}
					received <- struct{}{}
				}
			}})
			user := s.As("Invoices:Void")
			stream := open(t, user, name)
			send(t, stream, ``)
			<-received
			user.Grant("Web")
			wantEnd(t, stream, "PermissionDenied GRANT_MISSING")
		})
	}
}

// What a stream's messages asked for must hold until it ends: it takes effect then.
func TestUploadNeedsItsGrantsToTheEnd(t *testing.T) {
	received := make(chan struct{}, 1)
	s := shopOf(t, &shopServer{stream: func(name string, ss grpc.ServerStream) error {
		if err := ss.RecvMsg(message(t, "Ask", ``)); err != nil {
			return err
		}
		received <- struct{}{}
		return readAll(t)(name, ss)
	}})
	user := s.As("Invoices:Void", "Invoices:Grid:Open")
	stream := open(t, user, "Upload")
	send(t, stream, `view: VIEW_OPEN`)
	<-received
	user.Grant("Web", "Invoices:Void")
	stream.CloseSend()
	wantEnd(t, stream, "PermissionDenied GRANT_MISSING")
}

// What takes effect is not denied afterwards.
func TestWholeUploadIsNotDenied(t *testing.T) {
	whole, revoked := make(chan struct{}), make(chan struct{})
	s := shopOf(t, &shopServer{stream: func(_ string, ss grpc.ServerStream) error {
		for ss.RecvMsg(message(t, "Ask", ``)) == nil {
		}
		close(whole)
		<-revoked
		if err := ss.Context().Err(); err != nil {
			return err
		}
		return ss.SendMsg(message(t, "Answer", `caller: "done"`))
	}})
	user := s.As("Invoices:Void")
	stream := open(t, user, "Upload")
	stream.CloseSend()
	<-whole
	user.Grant("Web")
	close(revoked)
	wantAnswer(t, stream, `caller: "done"`)
	wantEnd(t, stream, "OK")
}

func TestStreamOfAnUnknownMethod(t *testing.T) {
	d := newDesk(t)
	ss := &serverStream{ctx: asService(t.Context(), "scheduling", serviceKey)}
	err := d.Stream(nil, ss, &grpc.StreamServerInfo{FullMethod: method("nothing")}, func(any, grpc.ServerStream) error { t.Error("reached"); return nil })
	if reasonOf(err) != "METHOD_UNKNOWN" {
		t.Errorf("got %v, want METHOD_UNKNOWN", err)
	}
}

// An idle stream ends when its caller's session runs out, or his grants do, of which
// nobody sends news.
func TestIdleStreamRunsOut(t *testing.T) {
	for _, c := range []struct {
		name, want string
		grants     authz.Grants
	}{
		{"the session", "CREDENTIALS_INVALID", authz.Grants{Set: grantsOf(t, "void")}},
		{"the grants", "GRANT_MISSING", authz.Grants{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			ctx := d.signIn(t, "ann", "void")
			d.mu.Lock()
			if c.want == "GRANT_MISSING" {
				g := d.grants["org/ann"]
				g.Expires = d.now.Add(time.Millisecond)
				d.grants["org/ann"] = g
			} else {
				for hash, s := range d.sessions {
					s.Expires = d.now.Add(time.Millisecond)
					d.sessions[hash] = s
				}
			}
			d.mu.Unlock()
			started := make(chan struct{})
			result := inBackground(func() (any, error) {
				return nil, d.Stream(nil, &serverStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: method("Chat"), IsClientStream: true, IsServerStream: true},
					func(_ any, s grpc.ServerStream) error {
						close(started)
						<-s.Context().Done()
						return nil
					})
			})
			<-started
			d.mu.Lock()
			d.grants["org/ann"] = c.grants
			d.now = d.now.Add(time.Millisecond)
			d.mu.Unlock()
			if _, err := result(); reasonOf(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// A lease that is lost for a moment does not end an open stream.
func TestStreamSurvivesALostLease(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void")
	started, checked := make(chan struct{}), make(chan struct{})
	result := inBackground(func() (any, error) {
		return nil, d.Stream(nil, &serverStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: method("Chat"), IsClientStream: true, IsServerStream: true},
			func(_ any, s grpc.ServerStream) error {
				close(started)
				<-checked
				return s.SendMsg(message(t, "Answer", ``))
			})
	})
	<-started
	d.close("permissions")
	waitLost(t, d, "permissions")
	d.open("permissions")
	close(checked)
	if _, err := result(); err != nil {
		t.Errorf("got %v, want the stream to go on", err)
	}
}

// serverStream is the end of a stream on which nothing comes and goes.
type serverStream struct{ ctx context.Context }

func (s *serverStream) Context() context.Context     { return s.ctx }
func (s *serverStream) SetHeader(metadata.MD) error  { return nil }
func (s *serverStream) SendHeader(metadata.MD) error { return nil }
func (s *serverStream) SetTrailer(metadata.MD)       {}
func (s *serverStream) SendMsg(any) error            { return nil }
func (s *serverStream) RecvMsg(m any) error {
	proto.Reset(m.(*dynamicpb.Message))
	<-s.ctx.Done()
	return s.ctx.Err()
}
