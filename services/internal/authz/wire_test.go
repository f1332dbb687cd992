package authz_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"latchkey.dev/services/internal/authz"
)

// TestOrderOfChecks sends requests with more than one thing wrong: the caller is told
// of the first alone.
func TestOrderOfChecks(t *testing.T) {
	shop := &shopServer{}
	s := shopOf(t, shop)
	tooLong := string([]byte{0x0a, 11}) + "01234567890"
	for _, c := range []struct {
		name   string
		conn   grpc.ClientConnInterface
		method string
		body   string
		want   string
	}{
		{"nobody, malformed", s.Anonymous(), "Void", "\xff\xff", "Unauthenticated CREDENTIALS_MISSING"},
		{"no key, malformed", s.As(), "Void", "\xff\xff", "PermissionDenied GRANT_MISSING"},
		{"no key, not UTF-8", s.As(), "Void", "\x0a\x01\xff", "PermissionDenied GRANT_MISSING"},
		{"no key, too long", s.As(), "Void", tooLong, "PermissionDenied GRANT_MISSING"},
		{"no plan, no key, malformed", s.As(), "Route", "\xff\xff", "FailedPrecondition FEATURE_NOT_IN_PLAN"},
		{"no key for the content, too long", s.As("Invoices:Void"), "Void", tooLong + "\x10\x01", "PermissionDenied GRANT_MISSING"},
		{"no key for any content, malformed", s.As("Invoices:Void"), "Look", "\xff\xff", "PermissionDenied GRANT_MISSING"},
		{"a key for some content, malformed", s.As("Invoices:Grid:All"), "Look", "\xff\xff", "InvalidArgument REQUEST_MALFORMED"},
		{"malformed", s.As("Invoices:Void"), "Void", "\xff\xff", "InvalidArgument REQUEST_MALFORMED"},
		{"cut off", s.As("Invoices:Void"), "Void", "\x0a\x05ab", "InvalidArgument REQUEST_MALFORMED"},
		{"not UTF-8", s.As("Invoices:Void"), "Void", "\x0a\x01\xff", "InvalidArgument REQUEST_MALFORMED"},
		{"too long", s.As("Invoices:Void"), "Void", tooLong, "InvalidArgument FIELD_INVALID"},
		{"malformed, to what anyone may", s.Anonymous(), "Greet", "\xff\xff", "InvalidArgument REQUEST_MALFORMED"},
		{"malformed, by a service", s.Service("scheduling"), "Lookup", "\xff\xff", "InvalidArgument REQUEST_MALFORMED"},
		{"well", s.As("Invoices:Void"), "Void", "\x0a\x01a", "OK"},
		{"an unknown field", s.As("Invoices:Void"), "Void", "\xd2\x0f\x01x", "OK"},
		// What the server marks malformed requests with, sent by a caller himself.
		{"the mark", s.As("Invoices:Void"), "Void", "\xc2\xa3\x09\x00", "OK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.conn.Invoke(t.Context(), method(c.method), []byte(c.body), nil, grpc.ForceCodecV2(raw{}))
			wantOutcome(t, c.name, err, c.want)
			if got := shop.reached(); len(got) > 0 != (c.want == "OK") {
				t.Errorf("the handlers reached are %v", got)
			}
		})
	}
}

func TestWhoMayCallWhat(t *testing.T) {
	s := shopOf(t, &shopServer{})
	person := s.As("Invoices:Void")
	web := s.AsUser("0198c0de-0000-7000-8000-000000000001", authz.SurfaceWeb, "Invoices:Void", "Web")
	app := s.AsUser("0198c0de-0000-7000-8000-000000000002", authz.SurfaceApp, "Invoices:Void", "App")
	api := s.AsUser("0198c0de-0000-7000-8000-000000000003", authz.SurfaceAPI, "Invoices:Void", "App")
	for _, c := range []struct {
		name   string
		conn   grpc.ClientConnInterface
		method string
		want   string
	}{
		{"a person", person, "Void", "OK"},
		{"a person on an internal method", person, "Lookup", "PermissionDenied INTERNAL_ONLY"},
		{"nobody on an internal method", s.Anonymous(), "Lookup", "Unauthenticated CREDENTIALS_MISSING"},
		{"a service on an internal method", s.Service("scheduling"), "Lookup", "OK"},
		{"a service on a method for people", s.Service("scheduling"), "Void", "PermissionDenied PEOPLE_ONLY"},
		{"a service on a method by content", s.Service("scheduling"), "Look", "PermissionDenied PEOPLE_ONLY"},
		{"a service on a method for whoever is signed in", s.Service("scheduling"), "Whoami", "PermissionDenied PEOPLE_ONLY"},
		{"nobody on a method for whoever is signed in", s.Anonymous(), "Whoami", "Unauthenticated CREDENTIALS_MISSING"},
		{"anyone", s.Anonymous(), "Greet", "OK"},
		{"the web", web, "Void", "OK"},
		{"the app", app, "Void", "OK"},
		{"the API", api, "Void", "OK"},
	} {
		_, err := invoke(t, c.conn, c.method, ``)
		wantOutcome(t, c.name, err, c.want)
	}

	web.Grant("Invoices:Void", "App")
	_, err := invoke(t, web, "Void", ``)
	wantOutcome(t, "the web without Web", err, "PermissionDenied SURFACE_CLOSED")
	_, err = invoke(t, web, "Whoami", ``)
	wantOutcome(t, "the web without Web, on what needs no key", err, "OK")
	app.Grant("Invoices:Void")
	_, err = invoke(t, app, "Void", ``)
	wantOutcome(t, "the app without App", err, "PermissionDenied SURFACE_CLOSED")
	api.Grant("App")
	_, err = invoke(t, api, "Void", ``)
	wantOutcome(t, "the API without the key", err, "PermissionDenied GRANT_MISSING")
	api.Grant("Invoices:Void")
	_, err = invoke(t, api, "Void", ``)
	wantOutcome(t, "the API without App", err, "PermissionDenied SURFACE_CLOSED")
	person.End()
	_, err = invoke(t, person, "Void", ``)
	wantOutcome(t, "an ended session", err, "Unauthenticated CREDENTIALS_INVALID")
}

func TestDenialOnTheWire(t *testing.T) {
	s := shopOf(t, &shopServer{})
	_, err := invoke(t, s.As("Invoices:Void"), "Void", `item { title: "x" }`)
	want := map[string]string{"grant": "ControlPanel:Parts:Edit:General", "method": shopService + "/Void", "field": "title"}
	st := status.Convert(err)
	for _, d := range st.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != "latchkey.dev" || info.GetReason() != "GRANT_MISSING" || !maps.Equal(info.GetMetadata(), want) {
			t.Errorf("got %v, want GRANT_MISSING of latchkey.dev with %v", d, want)
		}
	}
	if want := "Void with title needs the permission ControlPanel:Parts:Edit:General, which you do not have: ask an administrator for it, or sign in as somebody who has it"; st.Message() != want || len(st.Details()) != 1 {
		t.Errorf("got %q with %d details, want %q with one", st.Message(), len(st.Details()), want)
	}
}

func TestWrongServiceKey(t *testing.T) {
	s := shopOf(t, &shopServer{})
	ctx := metadata.AppendToOutgoingContext(t.Context(), authz.ServiceHeader, "scheduling", authz.ServiceKeyHeader, strings.Repeat("x", 52))
	err := s.Anonymous().Invoke(ctx, method("Lookup"), input(t, "Lookup", ``), message(t, "Answer", ``))
	wantOutcome(t, "a wrong key", err, "Unauthenticated CREDENTIALS_INVALID")
}

// The tenant of a service's call is the one it names, that of a person's call his own,
// whatever he sends.
func TestTenant(t *testing.T) {
	shop := &shopServer{unary: func(ctx context.Context, _ string, _ *dynamicpb.Message) (proto.Message, error) {
		return message(t, "Answer", `caller: "`+authz.Caller(ctx).Organization+`"`), nil
	}}
	s := shopOf(t, shop)
	ctx := metadata.AppendToOutgoingContext(t.Context(), authz.TenantHeader, "another", authz.CallerHeader, "another")
	resp := message(t, "Answer", ``)
	if err := s.As("Invoices:Void").Invoke(ctx, method("Void"), input(t, "Void", ``), resp); err != nil {
		t.Fatal(err)
	}
	if want := message(t, "Answer", `caller: "`+s.Organization+`"`); !proto.Equal(resp, want) {
		t.Errorf("got %s, want %s", textOf(resp), textOf(want))
	}
}

func TestRedactedOnTheWire(t *testing.T) {
	shop := &shopServer{unary: func(context.Context, string, *dynamicpb.Message) (proto.Message, error) {
		return message(t, "Answer", `item { id: "1" unit_price { minor_units: 7 } notes: "n" }`), nil
	}}
	s := shopOf(t, shop)
	for _, c := range []struct {
		name string
		conn grpc.ClientConnInterface
		call string
		want string
	}{
		{"without pricing", s.As("Invoices:Void"), "Void", `item { id: "1" notes: "n" }`},
		{"with pricing", s.As("Organization:Parts", "setting:see_pricing"), "Pick", `item { id: "1" unit_price { minor_units: 7 } }`},
		{"with all", s.As("Invoices:Void", "setting:see_pricing"), "Void", `item { id: "1" unit_price { minor_units: 7 } notes: "n" }`},
		{"anyone", s.Anonymous(), "Greet", `item { id: "1" }`},
		{"somebody who may see it, on what anyone may call", s.As("Invoices:Void", "setting:see_pricing"), "Greet", `item { id: "1" }`},
		{"a service", s.Service("scheduling"), "Lookup", `item { id: "1" unit_price { minor_units: 7 } notes: "n" }`},
	} {
		resp, err := invoke(t, c.conn, c.call, ``)
		if want := message(t, "Answer", c.want); err != nil || !proto.Equal(resp, want) {
			t.Errorf("%s: got %s, %v, want %s", c.name, textOf(resp), err, c.want)
		}
	}
}

// Two organizations' users with the same id are two callers.
func TestSameUserInTwoOrganizations(t *testing.T) {
	s := shopOf(t, &shopServer{})
	const id = "0198c0de-0000-7000-8000-000000000001"
	here := s.AsUser(id, authz.SurfaceAPI, "Invoices:Void", "App")
	there := s.InOrganization("0198c0de-0000-7000-8000-0000000000ff").AsUser(id, authz.SurfaceAPI, "App")
	_, err := invoke(t, here, "Void", ``)
	wantOutcome(t, "here", err, "OK")
	_, err = invoke(t, there, "Void", ``)
	wantOutcome(t, "there", err, "PermissionDenied GRANT_MISSING")
}

func TestUnknownMethodOnTheWire(t *testing.T) {
	shop := &shopServer{}
	s := shopOf(t, shop)
	for _, name := range []string{"/" + shopService + "/void", "/" + shopService + "/", "/" + shopService + "/Void/", "/x/y", "//", "/" + shopService + "/" + strings.Repeat("x", 4000)} {
		for who, conn := range map[string]grpc.ClientConnInterface{"nobody": s.Anonymous(), "a person": s.As("Invoices:Void"), "a service": s.Service("scheduling")} {
			err := conn.Invoke(t.Context(), name, message(t, "Ask", ``), message(t, "Answer", ``))
			wantOutcome(t, who+" calls "+name, err, "Unimplemented METHOD_UNKNOWN")
		}
	}
	if got := shop.reached(); len(got) > 0 {
		t.Errorf("handlers were reached: %v", slices.Sorted(slices.Values(got)))
	}
}
