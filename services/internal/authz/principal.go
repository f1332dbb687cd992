package authz

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"latchkey.dev/services/internal/catalog"
)

// Surface is where a session was opened.
type Surface int

// The surfaces. A session of the web needs the key Web at every call whose rule names
// grants, one of the app App, as does one of a program that a person has signed in to;
// Web includes App. What carries only some keys, as an API key, needs neither. What every
// signed-in person may do, as ending the session, needs no key and so no surface.
const (
	SurfaceNone Surface = iota
	SurfaceWeb
	SurfaceApp
	SurfaceAPI
)

// String returns "WEB" for SurfaceWeb.
func (s Surface) String() string {
	switch s {
	case SurfaceWeb:
		return "WEB"
	case SurfaceApp:
		return "APP"
	case SurfaceAPI:
		return "API"
	}
	return "NONE"
}

// Session is a live session, as identity tells it.
type Session struct {
	ID           string
	User         string
	Organization string
	Actor        string // who acts in the user's name; empty but under impersonation
	Surface      Surface
	Expires      time.Time
	Limited      bool        // whether the session carries no more keys than Scopes
	Scopes       catalog.Set // settings and features are not limited
	OnlyMethod   string      // full name of the only method that it may call, as "x.Y/Z"; empty if it may call others

	last *atomic.Pointer[known] // its user as last looked up; nil without Remember
}

// carried returns what the session carries of the grants of its user.
func (s *Session) carried(grants catalog.Set) catalog.Set {
	if !s.Limited {
		return grants
	}
	return grants.Without(grants.OnlyKeys().Without(s.Scopes))
}

func (s *Session) remembered() *known {
	if s.last == nil {
		return nil
	}
	return s.last.Load()
}

func (s *Session) remember(who *known) {
	if s.last != nil {
		s.last.Store(who)
	}
}

// Grants is what a user may do in an organization, as permissions computes it.
type Grants struct {
	Set      catalog.Set       // keys that count, boolean settings, features of the plan
	Values   map[string]string // the settings that are not boolean, by name
	Revision int64             // of the organization's permissions
	Expires  time.Time         // when the set changes by itself; zero if never
}

func (g *Grants) expired(now time.Time) bool { return !g.Expires.IsZero() && !now.Before(g.Expires) }

// Principal is who calls. It is shared by all calls of a session: handlers read it and
// never change it.
type Principal struct {
	ID           string // the user; empty for a service of the suite
	Organization string
	Actor        string
	SessionID    string
	Surface      Surface
	Service      string // the service of the suite that calls, or empty
	Grants       catalog.Set
	Values       map[string]string
	Revision     int64
	Limited      bool   // the session carries fewer keys than the user may hold
	OnlyMethod   string // full name of the only method that the session may call; empty if it may call others

	uses *Uses // nil for services and for nobody
	// mayNotAct tells that whoever acts in the user's name may not act for anybody, or not
	// any more.
	mayNotAct bool
}

// actsBy bounds what is done in the user's name by what whoever acts may do now.
//
// SECURITY: whoever acts held no less than the user when he began. What he has lost since
// must not go on by another name.
func (p *Principal) actsBy(actor catalog.Set) {
	p.mayNotAct = !actor.Has(impersonationKey)
	p.Grants = p.Grants.Without(p.Grants.OnlyKeys().Without(actor))
	if !actor.Has(seePricing) { // a setting, but amounts are as secret as keys keep anything
		p.Grants.Remove(seePricing)
	}
}

// InPerson tells whether the caller is the user himself, and neither an API key nor
// somebody who acts in the user's name.
func (p *Principal) InPerson() bool { return p.Actor == "" && !p.Limited }

// Has tells whether the caller holds a grant, spelled as in the catalog or
// "setting:see_pricing". A name outside the catalog is a bug and panics. That he holds
// it counts as a use of it.
func (p *Principal) Has(grant string) bool {
	bit := catalog.MustGrant(grant)
	if !p.Grants.Has(bit) {
		return false
	}
	if p.uses != nil {
		p.uses.consult(bit)
	}
	return true
}

// Int returns the value of a numeric setting, and whether it is set.
func (p *Principal) Int(setting string) (int64, bool) {
	n, err := strconv.ParseInt(p.Values[setting], 10, 64)
	return n, err == nil
}

// nobody is who calls when nobody signed in.
var nobody = &Principal{}

type callKey struct{}

// call is what the guard leaves in the context of a call it let through.
type call struct {
	rules     *Rules
	principal *Principal
	stream    *stream // nil if the call is unary
}

// call returns what the guard leaves in the context of the caller's unary calls.
func (who *known) call(rules *Rules) *call {
	if c := who.entered.Load(); c != nil && c.rules == rules {
		return c
	}
	c := &call{rules: rules, principal: who.Principal}
	who.entered.Store(c)
	return c
}

// caller returns who calls now. Of an open stream that may have changed; whoever has
// lost it holds nothing.
func (c *call) caller() *Principal {
	if c.stream == nil {
		return c.principal
	}
	who, err := c.stream.recheck()
	if err != nil {
		return nobody
	}
	return who.Principal
}

// Caller returns who calls. It is never nil; its ID is empty where the rule of the
// method lets anyone in, outside calls, and in a stream that is ended since its caller
// may no longer call. In a stream, ask again after waiting: it is who calls as he is
// known now.
func Caller(ctx context.Context) *Principal {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c.caller()
	}
	return nobody
}

// Permits tells whether the caller's grants satisfy the rule of a method, whatever
// the content of a request would ask for on top: nil, or the denial that a call would
// get. It is what available actions are made from. The same denial is returned to many,
// and must not be changed.
func Permits(ctx context.Context, fullMethod string) error {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return nil // the suite acts itself
	}
	m, ok := c.rules.methods[fullMethod]
	if !ok {
		return unknownMethod(fullMethod)
	}
	return m.permits(c.caller())
}
