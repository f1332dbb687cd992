package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	authzpb "latchkey.dev/gen/go/latchkey/authz/v1"
)

// method is a method of the suite's API, as its descriptor says it.
type method struct {
	protoreflect.MethodDescriptor
	rule *authzpb.Rule
}

// path is what is called, "/latchkey.invoicing.v1.InvoiceService/VoidInvoice".
func (m method) path() string { return fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()) }

// methods returns every method of the suite's own services.
func methods() []method {
	var found []method
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(f.Package()), "latchkey.") {
			return true
		}
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				d := f.Services().Get(i).Methods().Get(j)
				rule, _ := proto.GetExtension(d.Options(), authzpb.E_Rule).(*authzpb.Rule)
				found = append(found, method{d, rule})
			}
		}
		return true
	})
	return found
}

// methodByName finds a method by its own name, or by "Service/Method" where two
// services have it.
func methodByName(t testing.TB, name string) method {
	t.Helper()
	var found []method
	for _, m := range methods() {
		if string(m.Name()) == name || strings.HasSuffix(m.path(), "."+name) {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d methods are called %q, want 1", len(found), name)
	}
	return found[0]
}

// call calls a method with one request and returns its one or first response. It
// serves unary methods and streams alike.
func (m method) call(ctx context.Context, conn grpc.ClientConnInterface, req proto.Message) (proto.Message, error) {
	resp := newMessage(m.Output())
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return resp, conn.Invoke(ctx, m.path(), req, resp)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	desc := &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer()}
	stream, err := conn.NewStream(ctx, desc, m.path())
	if err != nil {
		return resp, err
	}
	// An error of sending is told in full by receiving.
	if err := stream.SendMsg(req); err == nil {
		stream.CloseSend()
	}
	return resp, stream.RecvMsg(resp)
}

// newMessage returns an empty message of a type, of its generated Go type.
func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return dynamicpb.NewMessage(d)
	}
	return t.New().Interface()
}
