package authz_test

import (
	"cmp"
	"os"
	"strings"
	"sync"
	"testing"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate" // shop.proto uses it
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
)

const shopService = "latchkey.test.shop.v1.ShopService"

// shop registers testdata/shop.txtpb once.
var shop = sync.OnceValue(func() protoreflect.FileDescriptor {
	text, err := os.ReadFile("testdata/shop.txtpb")
	if err != nil {
		panic(err)
	}
	return register(string(text))
})

// register makes the types of a file, a FileDescriptorProto as text, known to the
// process, as generated code does.
func register(text string) protoreflect.FileDescriptor {
	file := &descriptorpb.FileDescriptorProto{}
	if err := prototext.Unmarshal([]byte(text), file); err != nil {
		panic(err)
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err == nil {
		err = protoregistry.GlobalFiles.RegisterFile(fd)
	}
	if err != nil {
		panic(err)
	}
	return fd
}

// shopRules returns the compiled rules of the shop.
func shopRules(t testing.TB) *authz.Rules {
	t.Helper()
	shop()
	rules, err := authz.Compile(map[string]grpc.ServiceInfo{shopService: {}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// method returns the full name of a method of the shop.
func method(name string) string { return "/" + shopService + "/" + name }

// message returns a message of the shop, read from its text form.
func message(t testing.TB, name, text string) *dynamicpb.Message {
	t.Helper()
	shop()
	return messageIn(t, "latchkey.test.shop.v1."+name, text)
}

// messageIn returns a message of a registered type, read from its text form.
func messageIn(t testing.TB, name, text string) *dynamicpb.Message {
	t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(d.(protoreflect.MessageDescriptor))
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatalf("%s %q: %v", name, text, err)
	}
	return m
}

// input returns the request of a method of the shop, read from its text form.
func input(t testing.TB, method, text string) *dynamicpb.Message {
	t.Helper()
	return message(t, string(shop().Services().Get(0).Methods().ByName(protoreflect.Name(method)).Input().Name()), text)
}

// short are names, for these tests, of the grants that the shop asks for.
var short = map[string]string{
	"general": "ControlPanel:Parts:Edit:General", "pricing": "ControlPanel:Parts:Edit:Pricing", "see": "setting:see_pricing",
	"all": "Invoices:Grid:All", "open": "Invoices:Grid:Open", "void": "Invoices:Void", "edit": "Invoices:Edit",
	"delete": "Invoices:Delete", "parts": "Organization:Parts", "routing": "Routing", "campaigns": "Campaigns", "drips": "Drips",
	"act": "User: Impersonation",
}

// grantsOf returns the set of grants named by short names with blanks between.
func grantsOf(t testing.TB, names string) catalog.Set {
	t.Helper()
	set, err := catalog.SetOf(longNames(names)...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func longNames(names string) []string {
	var long []string
	for _, name := range strings.Fields(names) {
		long = append(long, cmp.Or(short[name], name))
	}
	return long
}

// holder returns a caller who signed in without a surface and holds the grants.
func holder(t testing.TB, names string) *authz.Principal {
	t.Helper()
	return &authz.Principal{ID: "somebody", Organization: "somewhere", Grants: grantsOf(t, names)}
}

func textOf(m proto.Message) string {
	return prototext.MarshalOptions{Multiline: false}.Format(m)
}

func replace(text string, oldNew ...string) string {
	return strings.NewReplacer(oldNew...).Replace(text)
}

var invoicing = map[string]grpc.ServiceInfo{"latchkey.invoicing.v1.InvoiceService": {}}
