package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/internal/server"
)

// What a child process can be beside the services.
const (
	echoPart  = "echo"  // a bare server and nothing of the suite
	fixedName = "fixed" // a part whose one method has its answer in hand
)

const (
	echoEnv    = "LATCHKEY_E2E_ECHO"    // METHOD=FILE, with the answer
	profileEnv = "LATCHKEY_E2E_PROFILE" // a file
)

// fixedPath is a method with the rule, the request and the response of GetPart.
const fixedPath = "/latchkey.bench.v1.FixedService/GetPart"

// fixed is in the suite that the benchmarks share. Its API is made here, and only in that
// process, so that no test takes it for a part of the suite's.
var fixed = server.Part{Name: fixedName, Start: func(env *server.Env) error {
	if err := registerFixed(); err != nil {
		return err
	}
	price := &typepb.Money{MinorUnits: 48_17, CurrencyCode: "EUR"}
	return answering(env.Registrar, fixedPath, &invoicingpb.GetPartResponse{Part: &invoicingpb.Part{
		Id: env.NewID(), Etag: "17", Name: new("Thermostat valve"), Sku: new("VLV-15"), Category: new("Stock"),
		Active: new(true), Price: price, Cost: price, TaxBasisPoints: new(int32(1900)),
	}})
}}

func registerFixed() error {
	fd := &descriptorpb.FileDescriptorProto{}
	err := prototext.Unmarshal([]byte(`
		name: "latchkey/bench/v1/fixed.proto" package: "latchkey.bench.v1" syntax: "proto3"
		dependency: ["latchkey/authz/v1/authz.proto", "latchkey/invoicing/v1/part.proto"]
		service {
			name: "FixedService"
			method {
				name: "GetPart" input_type: ".latchkey.invoicing.v1.GetPartRequest" output_type: ".latchkey.invoicing.v1.GetPartResponse"
				options { [latchkey.authz.v1.rule] { any: ["Organization:Parts", "ControlPanel:Parts:Index"] } }
			}
		}`), fd)
	if err != nil {
		return err
	}
	file, err := protodesc.NewFile(fd, protoregistry.GlobalFiles)
	if err != nil {
		return err
	}
	return protoregistry.GlobalFiles.RegisterFile(file)
}

// answering registers the one method of a service, which always gives the same answer.
func answering(r grpc.ServiceRegistrar, fullMethod string, answer proto.Message) error {
	m, err := methodAt(fullMethod)
	if err != nil {
		return err
	}
	handler := func(context.Context, any) (any, error) { return answer, nil }
	r.RegisterService(&grpc.ServiceDesc{ServiceName: string(m.Parent().FullName()), Metadata: m.ParentFile().Path(), Methods: []grpc.MethodDesc{{
		MethodName: string(m.Name()),
		Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			req := newMessage(m.Input())
			if err := decode(req); err != nil {
				return nil, err
			}
			if intercept == nil {
				return handler(ctx, req)
			}
			return intercept(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: fullMethod}, handler)
		},
	}}}, nil)
	return nil
}

func methodAt(fullMethod string) (protoreflect.MethodDescriptor, error) {
	service, name := path.Split(strings.TrimPrefix(fullMethod, "/"))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.TrimSuffix(service, "/")))
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", fullMethod, err)
	}
	return d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name)), nil
}

// echo is all of a bare server, until it is told to stop.
func echo() error {
	fullMethod, file, _ := strings.Cut(os.Getenv(echoEnv), "=")
	if fullMethod == fixedPath {
		if err := registerFixed(); err != nil {
			return err
		}
	}
	m, err := methodAt(fullMethod)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	answer := newMessage(m.Output())
	if err := proto.Unmarshal(data, answer); err != nil {
		return err
	}
	l, err := net.Listen("tcp", os.Getenv("LATCHKEY_LISTEN"))
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	if err := answering(s, fullMethod, answer); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		s.Stop()
	}()
	return s.Serve(l)
}

// profileOnSignal writes a profile of the processor from one SIGUSR1 to the next.
func profileOnSignal(file string) {
	next := make(chan os.Signal, 1)
	signal.Notify(next, syscall.SIGUSR1)
	for {
		<-next
		f, err := os.Create(file)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		<-next
		pprof.StopCPUProfile()
		if err = errors.Join(err, f.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "profile:", err)
		}
	}
}

// profiled runs a benchmark, with a profile of the shared suite if one was asked for.
func (b *bench) profiled(run func(*bench) finding) finding {
	if *benchProfile == "" {
		return run(b)
	}
	p := b.one().processes[names[0]]
	os.Remove(*benchProfile)
	p.signal(syscall.SIGUSR1)
	f := run(b)
	p.signal(syscall.SIGUSR1)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if info, err := os.Stat(*benchProfile); err == nil && info.Size() > 0 {
			return f
		}
	}
	b.t.Fatalf("there is no profile:\n%s", p.log)
	return f
}

// environment is that of the suite which the benchmarks share.
func (b *bench) environment() []string {
	if *benchProfile == "" {
		return nil
	}
	file, err := filepath.Abs(*benchProfile)
	if err != nil {
		b.t.Fatal(err)
	}
	return []string{profileEnv + "=" + file}
}
