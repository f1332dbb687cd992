package authz_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
)

// shopServer serves the shop with handlers of a test's own.
type shopServer struct {
	// unary answers a unary call; nil answers with nothing.
	unary func(ctx context.Context, name string, req *dynamicpb.Message) (proto.Message, error)
	// stream handles a streaming call.
	stream func(name string, s grpc.ServerStream) error

	mu     sync.Mutex
	called []string
}

func (s *shopServer) part() server.Part {
	return server.Part{Name: "shop", Start: func(env *server.Env) error {
		env.Registrar.RegisterService(s.desc(), s)
		return nil
	}}
}

func (s *shopServer) desc() *grpc.ServiceDesc {
	d := &grpc.ServiceDesc{ServiceName: shopService, HandlerType: (*any)(nil), Metadata: shop().Path()}
	methods := shop().Services().Get(0).Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		if m.IsStreamingClient() || m.IsStreamingServer() {
			d.Streams = append(d.Streams, grpc.StreamDesc{
				StreamName: string(m.Name()), ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer(),
				Handler: func(_ any, ss grpc.ServerStream) error {
					s.note(string(m.Name()))
					return s.stream(string(m.Name()), ss)
				},
			})
			continue
		}
		d.Methods = append(d.Methods, grpc.MethodDesc{MethodName: string(m.Name()), Handler: s.handler(m)})
	}
	return d
}

func (s *shopServer) handler(m protoreflect.MethodDescriptor) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
		req := dynamicpb.NewMessage(m.Input())
		if err := dec(req); err != nil {
			return nil, err
		}
		return chain(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: method(string(m.Name()))}, func(ctx context.Context, _ any) (any, error) {
			s.note(string(m.Name()))
			if s.unary == nil {
				return dynamicpb.NewMessage(m.Output()), nil
			}
			return s.unary(ctx, string(m.Name()), req)
		})
	}
}

func (s *shopServer) note(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.called = append(s.called, name)
}

// reached returns which methods were reached since the last time.
func (s *shopServer) reached() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	called := slices.Clone(s.called)
	s.called = nil
	return called
}

// invoke makes a unary call.
func invoke(t testing.TB, conn grpc.ClientConnInterface, name, request string) (*dynamicpb.Message, error) {
	t.Helper()
	m := shop().Services().Get(0).Methods().ByName(protoreflect.Name(name))
	resp := dynamicpb.NewMessage(m.Output())
	return resp, conn.Invoke(t.Context(), method(name), input(t, name, request), resp)
}

// raw sends bytes as they are, and drops what comes back.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (raw) Unmarshal(mem.BufferSlice, any) error { return nil }

var _ encoding.CodecV2 = raw{}

// outcome is the code of a call, and the reason if it failed: "NotFound RECORD_NOT_FOUND".
func outcome(err error) string {
	st := status.Convert(err)
	if st.Code() == codes.OK {
		return "OK"
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return st.Code().String() + " " + info.GetReason()
		}
	}
	return fmt.Sprintf("%s without a reason: %s", st.Code(), st.Message())
}

func wantOutcome(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := outcome(err); got != want {
		t.Errorf("%s: got %s (%v), want %s", what, got, err, want)
	}
}

// shopOf starts a server of the shop.
func shopOf(t testing.TB, s *shopServer) *servertest.Server {
	t.Helper()
	return servertest.Start(t, s.part())
}
