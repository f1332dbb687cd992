package authz_test

import (
	"testing"
	"time"

	"latchkey.dev/services/internal/authz"
)

// limit lets the one session of a user carry no more than the scopes.
func (d *desk) limit(t *testing.T, user, scopes string) {
	t.Helper()
	set := grantsOf(t, scopes)
	d.change(t, "identity", "user:"+user, func() {
		for hash, s := range d.sessions {
			if s.User == user {
				s.Limited, s.Scopes = true, set
				d.sessions[hash] = s
			}
		}
	})
}

// SECURITY: a session carries no more keys than its scopes, and no more than its user
// holds. Settings and features are the user's.
func TestLimitedSession(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void open see")
	for _, c := range []struct{ holds, scopes, want string }{
		{"void open see feature:routing", "void", "void see feature:routing"},
		{"void open", "void open edit", "void open"},
		{"void", "", ""},
		{"", "void", ""},
	} {
		d.grant(t, "ann", c.holds)
		d.limit(t, "ann", c.scopes)
		p, err := d.call(t, ctx, "Whoami", ``)
		if err != nil {
			t.Fatal(err)
		}
		if p.Grants != grantsOf(t, c.want) || !p.Limited || p.InPerson() {
			t.Errorf("holds %q, scopes %q: got %v, limited %v, want %q", c.holds, c.scopes, p.Grants, p.Limited, c.want)
		}
	}
}

// SECURITY: a session that is bound to a method calls no other, whatever its rule.
func TestBoundSession(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void")
	bind := func(method string) {
		d.change(t, "identity", "user:ann", func() {
			for hash, s := range d.sessions {
				s.OnlyMethod = method
				d.sessions[hash] = s
			}
		})
	}
	for method, c := range map[string]struct{ void, whoami string }{
		"":                       {"OK", "OK"},
		shopService + "/Void":    {"OK", "IN_PERSON_ONLY"},
		shopService + "/Whoami":  {"IN_PERSON_ONLY", "OK"},
		shopService + "/Nothing": {"IN_PERSON_ONLY", "IN_PERSON_ONLY"},
	} {
		bind(method)
		want(t, d, ctx, c.void)
		if _, err := d.call(t, ctx, "Whoami", ``); reasonOf(err) != c.whoami {
			t.Errorf("bound to %q: Whoami got %v, want %s", method, err, c.whoami)
		}
	}
}

// A session whose facts have run out is asked for again: those of an API key hold a day.
func TestSessionIsAskedForAgain(t *testing.T) {
	d := newDesk(t)
	ctx := d.signIn(t, "ann", "void")
	want(t, d, ctx, "OK")
	d.mu.Lock()
	for hash, s := range d.sessions {
		s.Expires = d.now.Add(2 * time.Hour) // nobody is told
		d.sessions[hash] = s
	}
	d.mu.Unlock()
	d.pass(time.Hour)
	want(t, d, ctx, "OK")
	d.pass(time.Hour)
	want(t, d, ctx, "CREDENTIALS_INVALID")
}

func TestInPerson(t *testing.T) {
	for _, c := range []struct {
		p    authz.Principal
		want bool
	}{
		{authz.Principal{ID: "ann"}, true},
		{authz.Principal{ID: "ann", Actor: "bob"}, false},
		{authz.Principal{ID: "ann", Limited: true}, false},
	} {
		if got := c.p.InPerson(); got != c.want {
			t.Errorf("%+v: got %v, want %v", c.p, got, c.want)
		}
	}
}
