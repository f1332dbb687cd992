package authz_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"

	"latchkey.dev/services/internal/authz"
)

// actFor opens a session in a user's name, and returns the context of a call in it.
func (d *desk) actFor(t testing.TB, actor, user, grants string) context.Context {
	t.Helper()
	ctx := d.signIn(t, user, grants)
	d.mu.Lock()
	defer d.mu.Unlock()
	for hash, s := range d.sessions {
		if s.User == user {
			s.Actor, s.Limited, s.Scopes = actor, true, grantsOf(t, grants)
			d.sessions[hash] = s
		}
	}
	return ctx
}

// SECURITY: what is done in another's name ends with what lets do it, when the call has
// returned that took it away.
func TestActingNeedsItsKey(t *testing.T) {
	d := newDesk(t)
	d.signIn(t, "bob", "act void")
	acting := d.actFor(t, "bob", "ann", "void")
	for range 20 {
		want(t, d, acting, "OK")
		d.grant(t, "bob", "void")
		want(t, d, acting, "GRANT_MISSING")
		if _, err := d.call(t, acting, "Whoami", ``); reasonOf(err) != "GRANT_MISSING" {
			t.Errorf("what everybody may who is signed in: got %v, want GRANT_MISSING", err)
		}
		if _, err := d.call(t, acting, "Greet", ``); err != nil {
			t.Errorf("what anybody may: %v", err)
		}
		d.grant(t, "bob", "act void")
	}
}

// SECURITY: nobody does in another's name what he may not do any more in his own.
func TestActingHasNoMoreThanWhoActs(t *testing.T) {
	d := newDesk(t)
	bob := d.signIn(t, "bob", "act void see")
	acting := d.actFor(t, "bob", "ann", "void edit see")
	holds := func(ctx context.Context) string {
		t.Helper()
		p, err := d.call(t, ctx, "Whoami", ``)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, name := range []string{"void", "edit", "see"} {
			if p.Has(longNames(name)[0]) {
				text += name + " "
			}
		}
		return text
	}
	for _, c := range []struct{ actor, want string }{
		{"act void edit see", "void edit see "},
		{"act void see delete", "void see "},
		{"act edit void", "void edit "},
		{"act", ""},
	} {
		d.grant(t, "bob", c.actor)
		if got := holds(acting); got != c.want {
			t.Errorf("by who holds %q: holds %q, want %q", c.actor, got, c.want)
		}
	}
	d.grant(t, "bob", "act void")
	if got := holds(bob); got != "void " {
		t.Errorf("in his own name he holds %q", got)
	}
	d.grant(t, "ann", "edit")
	if got := holds(acting); got != "" {
		t.Errorf("holds %q of what neither holds", got)
	}
}

// What lets somebody act may run out by itself.
func TestActingEndsInTime(t *testing.T) {
	d := newDesk(t)
	d.signIn(t, "bob", "act void")
	acting := d.actFor(t, "bob", "ann", "void")
	d.change(t, "permissions", "user:org/bob", func() {
		g := d.grants["org/bob"]
		g.Expires = d.now.Add(time.Minute)
		d.grants["org/bob"] = g
	})
	want(t, d, acting, "OK")
	d.pass(time.Minute)
	d.mu.Lock() // nobody is told: the time alone does it
	d.grants["org/bob"] = authz.Grants{Set: grantsOf(t, "void"), Revision: 2}
	d.mu.Unlock()
	want(t, d, acting, "GRANT_MISSING")
}

// An open stream ends as well.
func TestActingStreamEnds(t *testing.T) {
	d := newDesk(t)
	d.signIn(t, "bob", "act void")
	ss := &idleStream{ctx: d.actFor(t, "bob", "ann", "void")}
	begun := make(chan struct{})
	ended := inBackground(func() (any, error) {
		return nil, d.Stream(nil, ss, &grpc.StreamServerInfo{FullMethod: method("Void"), IsServerStream: true}, func(_ any, ss grpc.ServerStream) error {
			close(begun)
			<-ss.Context().Done()
			return ss.Context().Err()
		})
	})
	<-begun
	d.grant(t, "bob", "void")
	if _, err := ended(); reasonOf(err) != "GRANT_MISSING" {
		t.Errorf("got %v, want GRANT_MISSING", err)
	}
}

// idleStream is a stream on which nothing comes and goes.
type idleStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *idleStream) Context() context.Context { return s.ctx }
