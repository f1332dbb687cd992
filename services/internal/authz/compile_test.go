package authz_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health/grpc_health_v1"

	"latchkey.dev/services/internal/authz"
)

// TestCompileRefuses compiles services with a mistake, and wants to be told which and
// where. Each case is the body of a file; M is its only method.
func TestCompileRefuses(t *testing.T) {
	const (
		empty = `message_type { name: "Req" } message_type { name: "Resp" } `
		money = `message_type { name: "Money" field { name: "units" number: 1 type: TYPE_INT64 } } `
		mask  = `field { name: "update_mask" number: 9 type: TYPE_MESSAGE type_name: ".google.protobuf.FieldMask" } `
	)
	method := func(rule string) string {
		return fmt.Sprintf(`service { name: "S" method { name: "M" input_type: "Req" output_type: "Resp" options { %s } } } `, rule)
	}
	rule := func(text string) string { return method("[latchkey.authz.v1.rule] { " + text + " }") }
	signedIn := rule("signed_in: true")
	for _, c := range []struct{ name, file, want string }{
		{"no rule", empty + method(``), `FILE: method PKG.S.M: it has no rule: add option (latchkey.authz.v1.rule)`},
		{"a rule that says nothing", empty + rule(``), `FILE: method PKG.S.M: it has no rule: add option (latchkey.authz.v1.rule)`},
		{"two rules", empty + rule(`signed_in: true anyone: true`),
			`FILE: method PKG.S.M: its rule sets more than one of all, any, by_content, signed_in, internal and anyone`},
		{"all and any", empty + rule(`all: "Web" any: "App"`),
			`FILE: method PKG.S.M: its rule sets more than one of all, any, by_content, signed_in, internal and anyone`},
		{"an unknown grant", empty + rule(`all: "Web" all: "Invoices:void"`),
			`FILE: method PKG.S.M: its rule: the catalog holds no grant "Invoices:void" (spelling, case and blanks count)`},
		{"an unknown grant of any", empty + rule(`any: "Web " any: "App"`),
			`FILE: method PKG.S.M: its rule: the catalog holds no grant "Web " (spelling, case and blanks count)`},
		{"a setting that is no grant", empty + rule(`all: "setting:search_scope"`),
			`FILE: method PKG.S.M: its rule: the catalog holds no grant "setting:search_scope" (spelling, case and blanks count)`},
		{"an unknown grant in a guard", `message_type { name: "Resp" } message_type { name: "Req" field { name: "x" number: 1 type: TYPE_STRING options { [latchkey.authz.v1.guard] { write: "Wob" } } } } ` + signedIn,
			`FILE: the guard of field PKG.Req.x: the catalog holds no grant "Wob" (spelling, case and blanks count)`},
		{"an unknown grant in a guard deep in a response", `message_type { name: "Req" } message_type { name: "Resp" field { name: "in" number: 1 type: TYPE_MESSAGE type_name: "In" label: LABEL_REPEATED } } ` +
			`message_type { name: "In" field { name: "x" number: 1 type: TYPE_STRING options { [latchkey.authz.v1.guard] { read: "setting:see" } } } } ` + signedIn,
			`FILE: the guard of field PKG.In.x: the catalog holds no grant "setting:see" (spelling, case and blanks count)`},
		{"an empty guard", `message_type { name: "Resp" } message_type { name: "Req" field { name: "x" number: 1 type: TYPE_STRING options { [latchkey.authz.v1.guard] {} } } } ` + signedIn,
			`FILE: the guard of field PKG.Req.x says neither read nor write`},
		{"a guarded scalar without presence", `message_type { name: "Resp" } message_type { name: "Req" field { name: "x" number: 1 type: TYPE_STRING options { features { field_presence: IMPLICIT } [latchkey.authz.v1.guard] { read: "Web" } } } } ` + signedIn,
			`FILE: field PKG.Req.x is guarded and must have presence: make it optional`},
		{"a guarded scalar without presence in a response", `message_type { name: "Req" } message_type { name: "Resp" field { name: "x" number: 1 type: TYPE_INT64 options { features { field_presence: IMPLICIT } [latchkey.authz.v1.guard] { read: "Web" } } } } ` + signedIn,
			`FILE: field PKG.Resp.x is guarded and must have presence: make it optional`},
		{"an unknown grant in a choice", `message_type { name: "Resp" } message_type { name: "Req" field { name: "x" number: 1 type: TYPE_ENUM type_name: "E" } } ` +
			`enum_type { name: "E" value { name: "A" number: 0 } value { name: "B" number: 1 options { [latchkey.authz.v1.choose]: "Bee" } } } ` + signedIn,
			`FILE: the choose option of value PKG.B: the catalog holds no grant "Bee" (spelling, case and blanks count)`},
		{"a choice of 0", `message_type { name: "Resp" } message_type { name: "Req" field { name: "x" number: 1 type: TYPE_ENUM type_name: "E" } } ` +
			`enum_type { name: "E" value { name: "A" number: 0 options { [latchkey.authz.v1.choose]: "Web" } } } ` + signedIn,
			`FILE: value PKG.A is 0, which is not sent, and cannot have a choose option`},
		{"by content of nothing", empty + rule(`by_content: true`),
			`FILE: method PKG.S.M: its rule is by_content, but nothing in its request has a choose option or a guard with write`},
		{"by content of what may only be seen", money + `message_type { name: "Resp" } message_type { name: "Req" field { name: "x" number: 1 type: TYPE_MESSAGE type_name: "Money" options { [latchkey.authz.v1.guard] { read: "Web" } } } } ` + rule(`by_content: true`),
			`FILE: method PKG.S.M: its rule is by_content, but nothing in its request has a choose option or a guard with write`},
		{"a mask without a record", `message_type { name: "Resp" } message_type { name: "Req" ` + mask + `} ` + signedIn,
			`FILE: message PKG.Req has an update_mask, and must have exactly one record that it can be about`},
		{"a mask with two records", `message_type { name: "Resp" } message_type { name: "Rec" field { name: "id" number: 1 type: TYPE_STRING } } ` +
			`message_type { name: "Req" ` + mask + `field { name: "a" number: 1 type: TYPE_MESSAGE type_name: "Rec" } field { name: "b" number: 2 type: TYPE_MESSAGE type_name: "Rec" } } ` + signedIn,
			`FILE: message PKG.Req has an update_mask, and must have exactly one record that it can be about`},
		{"a mask in a message inside", `message_type { name: "Resp" } message_type { name: "Req" field { name: "in" number: 1 type: TYPE_MESSAGE type_name: "In" label: LABEL_REPEATED } } message_type { name: "In" ` + mask + `} ` + signedIn,
			`FILE: message PKG.In has an update_mask, and must have exactly one record that it can be about`},
		{"a filter of nothing", `message_type { name: "Resp" } message_type { name: "Req" field { name: "filter" number: 1 type: TYPE_STRING } } ` + signedIn,
			`FILE: method PKG.S.M: its request has a filter or order_by, but its response lists no messages`},
		{"an order of nothing", `message_type { name: "Resp" field { name: "ids" number: 1 type: TYPE_STRING label: LABEL_REPEATED } } message_type { name: "Req" field { name: "order_by" number: 1 type: TYPE_STRING } } ` + signedIn,
			`FILE: method PKG.S.M: its request has a filter or order_by, but its response lists no messages`},
	} {
		t.Run(c.name, func(t *testing.T) {
			pkg, services := file(t, c.file)
			_, err := authz.Compile(services)
			if want := inPackage(pkg, c.want); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

var files atomic.Int64

// file registers a file of the body in a package of its own, and returns that and
// the service S in it, as registered.
func file(t *testing.T, body string) (pkg string, services map[string]grpc.ServiceInfo) {
	t.Helper()
	pkg = fmt.Sprintf("broken.case%d", files.Add(1))
	register(inPackage(pkg, `
		name: "FILE" package: "PKG" syntax: "editions" edition: EDITION_2023
		dependency: "google/protobuf/field_mask.proto" dependency: "latchkey/authz/v1/authz.proto" `) + body)
	return pkg, map[string]grpc.ServiceInfo{pkg + ".S": {}}
}

// inPackage fills in the names of a package and of its file.
func inPackage(pkg, text string) string {
	return replace(text, "FILE", strings.ReplaceAll(pkg, ".", "/")+".proto", "PKG", pkg)
}

func TestCompileNamesEveryMistakeOnce(t *testing.T) {
	pkg, services := file(t, `
		message_type { name: "Req" field { name: "x" number: 1 type: TYPE_STRING options { [latchkey.authz.v1.guard] { write: "Wob" } } } }
		service {
			name: "S"
			method { name: "A" input_type: "Req" output_type: "Req" options { [latchkey.authz.v1.rule] { all: "Bee" } } }
			method { name: "B" input_type: "Req" output_type: "Req" }
			method { name: "C" input_type: "Req" output_type: "Req" options { [latchkey.authz.v1.rule] { signed_in: true } } }
		}`)
	_, err := authz.Compile(services)
	want := inPackage(pkg, `FILE: the guard of field PKG.Req.x: the catalog holds no grant "Wob" (spelling, case and blanks count)
FILE: method PKG.S.A: its rule: the catalog holds no grant "Bee" (spelling, case and blanks count)
FILE: method PKG.S.B: it has no rule: add option (latchkey.authz.v1.rule)`)
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestCompileRefusesWhatIsNotLinked(t *testing.T) {
	for _, name := range []string{"broken.Nowhere", "latchkey.authz.v1.Rule", "not a name"} {
		_, err := authz.Compile(map[string]grpc.ServiceInfo{name: {}})
		if want := "service " + name + ": its descriptor is not linked into this program"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestCompileLetsAnyoneAskHealth(t *testing.T) {
	rules, err := authz.Compile(map[string]grpc.ServiceInfo{"grpc.health.v1.Health": {}})
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.Permit("/grpc.health.v1.Health/Check", &authz.Principal{}); err != nil {
		t.Error(err)
	}
	if !rules.Has("/grpc.health.v1.Health/Check") || rules.Has("/grpc.health.v1.Health/Chek") || rules.Has("grpc.health.v1.Health/Check") {
		t.Error("Has tells of a method that is not there, or misses one that is")
	}
}
