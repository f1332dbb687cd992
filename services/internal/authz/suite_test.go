package authz_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "latchkey.dev/gen/go/latchkey/event/v1"
	_ "latchkey.dev/gen/go/latchkey/identity/v1"
	_ "latchkey.dev/gen/go/latchkey/invoicing/v1"
	_ "latchkey.dev/gen/go/latchkey/lease/v1"
	_ "latchkey.dev/gen/go/latchkey/permissions/v1"
	_ "latchkey.dev/gen/go/latchkey/scheduling/v1"
	_ "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
)

// Every method of the suite has a rule that compiles, so that a mistake in a .proto
// file is found here and not when a server does not start.
func TestCompileTheSuite(t *testing.T) {
	services := map[string]grpc.ServiceInfo{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if name := string(f.Services().Get(i).FullName()); strings.HasPrefix(name, "latchkey.") && !strings.HasPrefix(name, "latchkey.test.") {
				services[name] = grpc.ServiceInfo{}
			}
		}
		return true
	})
	rules, err := authz.Compile(services)
	if err != nil {
		t.Fatal(err)
	}
	if len(rules.Methods()) < 50 {
		t.Errorf("only %d methods were found", len(rules.Methods()))
	}
}
