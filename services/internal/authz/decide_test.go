package authz_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/fault"
)

func TestPermit(t *testing.T) {
	rules := shopRules(t)
	const invalid, denied, unmet = codes.Unauthenticated, codes.PermissionDenied, codes.FailedPrecondition
	for _, c := range []struct {
		method, holds string
		code          codes.Code
		reason        string
		metadata      string // name=value, with commas between
	}{
		{"Void", "void", 0, "", ""},
		{"Void", "void web", 0, "", ""},
		{"Void", "", denied, "GRANT_MISSING", "grant=Invoices:Void,method=SHOP/Void"},
		{"Void", "all open edit routing", denied, "GRANT_MISSING", "grant=Invoices:Void,method=SHOP/Void"},
		{"Route", "void routing", 0, "", ""},
		{"Route", "routing", unmet, "FEATURE_NOT_IN_PLAN", "feature=routing,grant=Routing"},
		{"Route", "", unmet, "FEATURE_NOT_IN_PLAN", "feature=routing,grant=Routing"},
		{"Route", "void", unmet, "FEATURE_NOT_IN_PLAN", "feature=routing,grant=Routing"},
		{"Route", "feature:routing", denied, "GRANT_MISSING", "grant=Invoices:Void,method=SHOP/Route"},
		{"Route", "feature:routing void", denied, "GRANT_MISSING", "grant=Routing,method=SHOP/Route"},
		{"Pick", "parts", 0, "", ""},
		{"Pick", "void", 0, "", ""},
		{"Pick", "open", denied, "GRANT_MISSING", "grant=Organization:Parts,instead=Invoices:Void,method=SHOP/Pick"},
		{"Advertise", "drips", 0, "", ""},
		{"Advertise", "", unmet, "FEATURE_NOT_IN_PLAN", "feature=campaigns,grant=Campaigns"},
		{"Advertise", "feature:drips", denied, "GRANT_MISSING", "grant=Campaigns,instead=Drips,method=SHOP/Advertise"},
		{"Look", "", 0, "", ""}, // the request decides
		{"Whoami", "", 0, "", ""},
		{"Greet", "", 0, "", ""},
		{"Lookup", "void routing", denied, "INTERNAL_ONLY", "method=SHOP/Lookup"},
	} {
		t.Run(c.method+" with "+c.holds, func(t *testing.T) {
			wantDenial(t, rules.Permit(method(c.method), holder(t, strings.ReplaceAll(c.holds, "web", "Web"))), c.code, c.reason, c.metadata)
		})
	}
	for _, c := range []struct {
		method, reason string
		code           codes.Code
	}{
		{"Lookup", "", 0}, {"Greet", "", 0},
		{"Void", "PEOPLE_ONLY", denied}, {"Pick", "PEOPLE_ONLY", denied}, {"Look", "PEOPLE_ONLY", denied}, {"Whoami", "PEOPLE_ONLY", denied},
	} {
		t.Run(c.method+" by a service", func(t *testing.T) {
			metadata := ""
			if c.reason != "" {
				metadata = "method=SHOP/" + c.method
			}
			wantDenial(t, rules.Permit(method(c.method), &authz.Principal{Service: "scheduling"}), c.code, c.reason, metadata)
		})
	}
	for _, name := range []string{"Void", "Look", "Whoami"} {
		t.Run(name+" by nobody", func(t *testing.T) {
			wantDenial(t, rules.Permit(method(name), &authz.Principal{}), invalid, "CREDENTIALS_MISSING", "")
		})
	}
}

func wantDenial(t *testing.T, err error, code codes.Code, reason, metadata string) {
	t.Helper()
	if code == codes.OK {
		if err != nil {
			t.Errorf("got %v, want it permitted", err)
		}
		return
	}
	want := map[string]string{}
	for part := range strings.SplitSeq(metadata, ",") {
		if name, value, ok := strings.Cut(part, "="); ok {
			want[name] = strings.ReplaceAll(value, "SHOP", shopService)
		}
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Code != code || f.ReasonName() != reason || !maps.Equal(f.Metadata, want) {
		t.Errorf("got %v %+v, want %v %s %v", err, f, code, reason, want)
	}
}

func TestSurfaces(t *testing.T) {
	rules := shopRules(t)
	for _, c := range []struct {
		surface authz.Surface
		holds   string
		closed  string // the key that opens it
	}{
		{authz.SurfaceWeb, "void Web", ""},
		{authz.SurfaceWeb, "void App", "Web"},
		{authz.SurfaceWeb, "void", "Web"},
		{authz.SurfaceApp, "void App", ""},
		{authz.SurfaceApp, "void Web", "App"}, // the set is effective: there Web brings App along
		{authz.SurfaceApp, "void", "App"},
		{authz.SurfaceAPI, "void App", ""},
		{authz.SurfaceAPI, "void", "App"},
		{authz.SurfaceNone, "void", ""},
	} {
		t.Run(fmt.Sprint(c.surface, " with ", c.holds), func(t *testing.T) {
			p := holder(t, c.holds)
			p.Surface = c.surface
			metadata := fmt.Sprintf("surface=%s,grant=%s", c.surface, c.closed)
			code := codes.OK
			if c.closed != "" {
				code = codes.PermissionDenied
			}
			for _, name := range []string{"Void", "Pick", "Look"} {
				wantDenial(t, rules.Permit(method(name), p), code, "SURFACE_CLOSED", metadata)
			}
			if err := rules.Permit(method("Whoami"), p); err != nil {
				t.Errorf("what everybody may: %v", err)
			}
			p.Grants = grantsOf(t, "feature:routing") // and so lacks its keys, which is said second
			if c.closed != "" {
				wantDenial(t, rules.Permit(method("Route"), p), code, "SURFACE_CLOSED", metadata)
			}
		})
	}
}

// A feature that the plan lacks is what to say of a field or value whose key needs it.
func TestContentThatThePlanLacks(t *testing.T) {
	pkg, services := file(t, `
		enum_type { name: "E" value { name: "A" number: 0 } value { name: "B" number: 1 options { [latchkey.authz.v1.choose]: "Routing" } } }
		message_type { name: "Req" field { name: "x" number: 1 type: TYPE_ENUM type_name: "E" } }
		service { name: "S" method { name: "M" input_type: "Req" output_type: "Req" options { [latchkey.authz.v1.rule] { signed_in: true } } } }`)
	rules, err := authz.Compile(services)
	if err != nil {
		t.Fatal(err)
	}
	msg := messageIn(t, pkg+".Req", `x: B`)
	name := "/" + pkg + ".S/M"
	wantDenial(t, rules.CheckRequest(name, holder(t, ""), msg), codes.FailedPrecondition, "FEATURE_NOT_IN_PLAN", "feature=routing,grant=Routing")
	wantDenial(t, rules.CheckRequest(name, holder(t, "feature:routing"), msg), codes.PermissionDenied, "GRANT_MISSING",
		"grant=Routing,field=x,method="+name[1:])
	wantDenial(t, rules.CheckRequest(name, holder(t, "Routing"), msg), codes.OK, "", "")
}

func TestPrincipal(t *testing.T) {
	p := holder(t, "void see")
	p.Values = map[string]string{"future_visibility": "14", "search_scope": "SEARCH_SCOPE_OWN"}
	if !p.Has("Invoices:Void") || !p.Has("setting:see_pricing") || p.Has("Invoices:Edit") {
		t.Error("Has differs from the grants")
	}
	for name, want := range map[string]string{"future_visibility": "14 true", "search_scope": "0 false", "unset": "0 false"} {
		n, ok := p.Int(name)
		if got := fmt.Sprint(n, ok); got != want {
			t.Errorf("Int(%s): got %s, want %s", name, got, want)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a grant that is not in the catalog did not panic")
			}
		}()
		p.Has("Invoices:void")
	}()
}

func TestOutsideCalls(t *testing.T) {
	if p := authz.Caller(context.Background()); p == nil || p.ID != "" || p.Service != "" || p.Has("Web") {
		t.Errorf("got %+v, want nobody", p)
	}
	if err := authz.Permits(context.Background(), method("Void")); err != nil {
		t.Errorf("the suite itself: got %v, want no denial", err)
	}
}

func TestSurfaceNames(t *testing.T) {
	for s, want := range map[authz.Surface]string{authz.SurfaceNone: "NONE", authz.SurfaceWeb: "WEB", authz.SurfaceApp: "APP", authz.SurfaceAPI: "API", 99: "NONE"} {
		if got := s.String(); got != want {
			t.Errorf("%d: got %s, want %s", int(s), got, want)
		}
	}
}

func BenchmarkPermit(b *testing.B) {
	rules := shopRules(b)
	for _, c := range []struct{ name, method, holds string }{
		{"all", "Void", "void"}, {"any", "Pick", "void"}, {"denied", "Void", "open"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := holder(b, c.holds)
			p.Surface = authz.SurfaceWeb
			p.Grants = p.Grants.Union(grantsOf(b, "Web"))
			name := method(c.method)
			b.ReportAllocs()
			for b.Loop() {
				if err := rules.Permit(name, p); (err != nil) != (c.name == "denied") {
					b.Fatal(err)
				}
			}
		})
	}
}
