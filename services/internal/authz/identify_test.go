package authz_test

import (
	"context"
	"maps"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/store"
)

func TestCredentials(t *testing.T) {
	d := newDesk(t)
	good, _ := metadata.FromIncomingContext(d.signIn(t, "ann", "void"))
	bearer := good.Get("authorization")[0]
	pairs := func(kv ...string) metadata.MD { return metadata.Pairs(kv...) }
	for _, c := range []struct {
		name   string
		md     metadata.MD
		reason string
	}{
		{"a session", good, "OK"},
		{"the scheme in another case", pairs("authorization", "bEARER"+bearer[6:]), "OK"},
		{"no metadata", nil, "CREDENTIALS_MISSING"},
		{"an empty header", pairs("authorization", ""), "CREDENTIALS_MISSING"},
		{"a scheme alone", pairs("authorization", "Bearer"), "CREDENTIALS_MISSING"},
		{"a scheme and a blank", pairs("authorization", "Bearer "), "CREDENTIALS_MISSING"},
		{"a token alone", pairs("authorization", bearer[7:]), "CREDENTIALS_MISSING"},
		{"another scheme", pairs("authorization", "Basic"+bearer[6:]), "CREDENTIALS_MISSING"},
		{"noise", pairs("authorization", "Bearer xyz"), "CREDENTIALS_INVALID"},
		{"two blanks", pairs("authorization", "Bearer "+bearer[6:]), "CREDENTIALS_INVALID"},
		{"a token with a wrong digit", pairs("authorization", bearer[:20]+"_"+bearer[21:]), "CREDENTIALS_INVALID"},
		{"a session that nobody opened", pairs("authorization", "Bearer lk_"+unknownToken(t)), "CREDENTIALS_INVALID"},
		{"the second of two headers", pairs("authorization", "Bearer xyz", "authorization", bearer), "CREDENTIALS_INVALID"},
		{"what is no organization", metadata.Join(good, pairs(authz.OrganizationHeader, "org")), "ORGANIZATION_REFUSED"},
		{"what is nearly one", metadata.Join(good, pairs(authz.OrganizationHeader, "{0198c5a0-0000-7000-8000-000000000001}")), "ORGANIZATION_REFUSED"},
		{"a service without a key", pairs(authz.ServiceHeader, "scheduling"), "CREDENTIALS_INVALID"},
		{"a service with a wrong key", pairs(authz.ServiceHeader, "scheduling", authz.ServiceKeyHeader, serviceKey+"x"), "CREDENTIALS_INVALID"},
		{"a service with the first half of the key", pairs(authz.ServiceHeader, "scheduling", authz.ServiceKeyHeader, serviceKey[:20]), "CREDENTIALS_INVALID"},
		{"a user who says he is a service", metadata.Join(good, pairs(authz.ServiceHeader, "scheduling")), "CREDENTIALS_INVALID"},
		{"a key without a service", pairs(authz.ServiceKeyHeader, serviceKey), "CREDENTIALS_MISSING"},
		{"a service", pairs(authz.ServiceHeader, "scheduling", authz.ServiceKeyHeader, serviceKey), "PEOPLE_ONLY"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			if c.md != nil {
				ctx = metadata.NewIncomingContext(ctx, c.md)
			}
			if _, err := d.call(t, ctx, "Void", ``); reasonOf(err) != c.reason {
				t.Errorf("got %v, want %s", err, c.reason)
			}
			if _, err := d.call(t, ctx, "Greet", ``); err != nil {
				t.Errorf("what anyone may: %v", err)
			}
		})
	}
}

// unknownToken returns the end of a well-formed token of no session.
func unknownToken(t *testing.T) string {
	other := newDesk(t)
	md, _ := metadata.FromIncomingContext(other.signIn(t, "eve", ""))
	return md.Get("authorization")[0][len("Bearer lk_"):]
}

// An empty key must not make everybody a service.
func TestNoServiceKey(t *testing.T) {
	d := newDesk(t)
	d.ServiceKey = ""
	if _, err := d.call(t, asService(t.Context(), "scheduling", ""), "Lookup", ``); reasonOf(err) != "CREDENTIALS_INVALID" {
		t.Errorf("got %v, want CREDENTIALS_INVALID", err)
	}
}

func TestCallerAndOrigin(t *testing.T) {
	d := newDesk(t)
	ann := d.signIn(t, "ann", "void")
	d.change(t, "permissions", "user:org/ann", func() {
		g := d.grants["org/ann"]
		g.Values, g.Revision = map[string]string{"future_visibility": "14"}, 7
		d.grants["org/ann"] = g
	})
	for _, c := range []struct {
		name   string
		ctx    context.Context
		method string
		caller authz.Principal
		origin store.Origin
	}{
		{"a person", ann, "Void",
			authz.Principal{ID: "ann", Organization: "org", SessionID: "session of ann", Grants: grantsOf(t, "void"),
				Values: map[string]string{"future_visibility": "14"}, Revision: 7},
			store.Origin{Tenant: "org", Caller: "ann", Method: shopService + "/Void"}},
		{"a service", asService(t.Context(), "scheduling", serviceKey, authz.TenantHeader, "org", authz.CallerHeader, "ann", authz.ActorHeader, "bob"), "Lookup",
			authz.Principal{Service: "scheduling", Organization: "org"},
			store.Origin{Tenant: "org", Caller: "ann", Actor: "bob", Method: shopService + "/Lookup"}},
		{"anyone", ann, "Greet", authz.Principal{}, store.Origin{Method: shopService + "/Greet"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := d.Unary(c.ctx, input(t, c.method, ``), &grpc.UnaryServerInfo{FullMethod: method(c.method)},
				func(ctx context.Context, _ any) (any, error) {
					got := *authz.Caller(ctx)
					if !maps.Equal(got.Values, c.caller.Values) {
						t.Errorf("values: got %v, want %v", got.Values, c.caller.Values)
					}
					got.Values, c.caller.Values = nil, nil
					if !equalPrincipal(got, c.caller) {
						t.Errorf("caller: got %+v, want %+v", got, c.caller)
					}
					if got := store.OriginOf(ctx); got != c.origin {
						t.Errorf("origin: got %+v, want %+v", got, c.origin)
					}
					return message(t, "Answer", ``), nil
				})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func equalPrincipal(a, b authz.Principal) bool {
	return a.ID == b.ID && a.Organization == b.Organization && a.Actor == b.Actor && a.SessionID == b.SessionID &&
		a.Surface == b.Surface && a.Service == b.Service && a.Grants == b.Grants && a.Revision == b.Revision
}

func TestPermitsInACall(t *testing.T) {
	d := newDesk(t)
	_, err := d.Unary(d.signIn(t, "ann", "void"), input(t, "Void", ``), &grpc.UnaryServerInfo{FullMethod: method("Void")},
		func(ctx context.Context, _ any) (any, error) {
			for name, want := range map[string]string{
				method("Void"): "OK", method("Look"): "OK", method("Lookup"): "INTERNAL_ONLY", method("Route"): "FEATURE_NOT_IN_PLAN",
				"/a.B/C": "METHOD_UNKNOWN",
			} {
				if got := reasonOf(authz.Permits(ctx, name)); got != want {
					t.Errorf("%s: got %s, want %s", name, got, want)
				}
			}
			return message(t, "Answer", ``), nil
		})
	if err != nil {
		t.Error(err)
	}
}

func TestUnknownMethod(t *testing.T) {
	d := newDesk(t)
	for _, name := range []string{"", "/", "x", shopService + "/Void", "/" + shopService, "/" + shopService + "/", "/" + shopService + "/void", "//" + shopService + "/Void", method("Void") + "/"} {
		_, err := d.Unary(d.signIn(t, "ann", "void"), input(t, "Void", ``), &grpc.UnaryServerInfo{FullMethod: name},
			func(context.Context, any) (any, error) { t.Errorf("%q reached a handler", name); return nil, nil })
		if reasonOf(err) != "METHOD_UNKNOWN" {
			t.Errorf("%q: got %v, want METHOD_UNKNOWN", name, err)
		}
	}
}

// What is known of a caller is put together once, and anew when it changes.
func TestCallerIsRemembered(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void")
	first, err := d.call(t, ctx, "Void", ``)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.call(t, ctx, "Pick", ``); err != nil || again != first {
		t.Errorf("got another principal, %v, want the same", err)
	}
	d.grant(t, "ann", "void open")
	changed, err := d.call(t, ctx, "Void", ``)
	if err != nil || !changed.Has("Invoices:Grid:Open") || first.Has("Invoices:Grid:Open") {
		t.Errorf("after a change: got %+v, %v, want the new grants, and the old principal as it was", changed, err)
	}
	if got, want := d.loaded("identity"), 1; got != want {
		t.Errorf("identity was asked %d times, want %d", got, want)
	}
}

func TestRevokeAndEnd(t *testing.T) {
	d := newDesk(t)
	ann, bob := d.signIn(t, "ann", "void"), d.signIn(t, "bob", "void")
	for range 20 {
		want(t, d, ann, "OK")
		d.grant(t, "ann", "")
		want(t, d, ann, "GRANT_MISSING")
		want(t, d, bob, "OK")
		d.grant(t, "ann", "void")
	}
	d.end(t, "ann")
	want(t, d, ann, "CREDENTIALS_INVALID")
	want(t, d, bob, "OK")
}

// want calls a method that needs void.
func want(t *testing.T, d *desk, ctx context.Context, reason string) {
	t.Helper()
	if _, err := d.call(t, ctx, "Void", ``); reasonOf(err) != reason {
		t.Errorf("got %v, want %s", err, reason)
	}
}

func TestSessionExpires(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void")
	d.pass(time.Hour - 1)
	want(t, d, ctx, "OK")
	d.pass(1)
	want(t, d, ctx, "CREDENTIALS_INVALID")
}

// Grants that change by themselves are asked for again when their time is over.
func TestGrantsExpire(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void")
	d.change(t, "permissions", "user:org/ann", func() {
		g := d.grants["org/ann"]
		g.Expires = d.now.Add(time.Minute)
		d.grants["org/ann"] = g
	})
	want(t, d, ctx, "OK")
	d.mu.Lock()
	d.grants["org/ann"] = authz.Grants{Expires: d.now.Add(2 * time.Minute)} // nobody is told: it happens by itself
	d.mu.Unlock()
	want(t, d, ctx, "OK")
	d.pass(time.Minute)
	want(t, d, ctx, "GRANT_MISSING")
	if got := d.loaded("permissions"); got != 2 {
		t.Errorf("permissions was asked %d times, want 2", got)
	}
}

// The clock of permissions may be behind ours. Then what it says counts, and is asked
// for at every call until the clocks agree.
func TestGrantsExpiredByOurClockAlone(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void")
	d.change(t, "permissions", "user:org/ann", func() {
		g := d.grants["org/ann"]
		g.Expires = d.now
		d.grants["org/ann"] = g
	})
	for i := range 3 {
		want(t, d, ctx, "OK")
		if got := d.loaded("permissions"); got < i+1 {
			t.Errorf("permissions was asked %d times after %d calls", got, i+1)
		}
	}
}

// SECURITY: a session that ends while its user's grants are asked for is not used.
func TestSessionEndsDuringLoad(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void")
	loading, ended := make(chan struct{}), make(chan struct{})
	d.loading = func(source string) {
		if source == "permissions" {
			close(loading)
			<-ended
		}
	}
	result := inBackground(func() (*authz.Principal, error) { return d.call(t, ctx, "Void", ``) })
	<-loading
	d.end(t, "ann")
	close(ended)
	if _, err := result(); reasonOf(err) != "CREDENTIALS_INVALID" {
		t.Errorf("got %v, want CREDENTIALS_INVALID", err)
	}
}

// A lease that is lost for a moment costs callers a moment, and no error.
func TestWaitForLease(t *testing.T) {
	for _, source := range []string{"identity", "permissions"} {
		t.Run(source, func(t *testing.T) {
			d := newDesk(t)
			ctx := d.signIn(t, "ann", "void")
			want(t, d, ctx, "OK")
			d.close(source)
			waitLost(t, d, source)
			result := inBackground(func() (*authz.Principal, error) { return d.call(t, ctx, "Void", ``) })
			d.open(source)
			if _, err := result(); err != nil {
				t.Errorf("got %v, want the call to wait for the lease", err)
			}
		})
	}
}

func waitLost(t *testing.T, d *desk, source string) {
	t.Helper()
	lost := d.Sessions.Lost()
	if source == "permissions" {
		lost = d.Grants.Lost()
	}
	select {
	case <-lost:
	case <-t.Context().Done():
		t.Fatal("the lease was not lost")
	}
}

// Nobody waits for ever, and nobody is let in without a lease.
func TestLeaseStaysLost(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void")
	want(t, d, ctx, "OK")
	d.close("permissions")
	waitLost(t, d, "permissions")
	d.SetPatience(time.Millisecond)
	want(t, d, ctx, "LEASE_LOST")
	d.SetPatience(time.Hour)
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	want(t, d, short, "LEASE_LOST")
	// Who needs no lease is not kept waiting.
	if _, err := d.call(t, ctx, "Greet", ``); err != nil {
		t.Error(err)
	}
	if _, err := d.call(t, asService(t.Context(), "scheduling", serviceKey), "Lookup", ``); err != nil {
		t.Error(err)
	}
}

// BenchmarkUnary is the whole guard for a caller who is known, without a network.
func BenchmarkUnary(b *testing.B) {
	d := newDesk(b)
	d.Now = time.Now
	d.pass(time.Since(d.now)) // sessions last from now on
	ctx := d.signIn(b, "ann", "void see")
	resp := message(b, "Answer", `item { id: "1" }`)
	handler := func(context.Context, any) (any, error) { return resp, nil }
	info := &grpc.UnaryServerInfo{FullMethod: method("Void")}
	run := func(name string, ctx context.Context, req proto.Message) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Unary(ctx, req, info, handler); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("person", ctx, input(b, "Void", `id: "1"`))
	run("person, guarded field", ctx, input(b, "Void", `id: "1" discount: 1`))
	log := &memory{}
	d.Rules.LogTo(func(string) authz.Log { return log })
	run("person, counted", ctx, input(b, "Void", `id: "1"`))
	run("person, guarded field, counted", ctx, input(b, "Void", `id: "1" discount: 1`))
	info.FullMethod = method("Lookup")
	run("service", asService(context.Background(), "scheduling", serviceKey, authz.TenantHeader, "org"), input(b, "Lookup", `id: "1"`))
}
