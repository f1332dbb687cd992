package authz

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/store"
)

// Config is what a Guard decides with.
type Config struct {
	Rules      *Rules
	Sessions   *lease.Cache[Session] // by the hash of the token; see Remember
	Grants     *lease.Cache[Grants]  // by GrantsKey
	ServiceKey string                // shared by the services of the suite; never empty
	// Proves returns a fault if nothing but the key says that a call is a service's, and
	// more is wanted. May be nil.
	Proves   func(ctx context.Context, service string) error
	Now      func() time.Time
	Validate func(proto.Message) error // returns a fault
	// RequestID returns the id under which a call is found in logs. May be nil.
	RequestID func(context.Context) string
}

// GrantsKey is the key of a user's grants in an organization.
func GrantsKey(organization, user string) string { return organization + "/" + user }

// Guard is the one interceptor.
type Guard struct {
	Config
	patience time.Duration
}

// NewGuard returns a guard. Its rules may be set later, but before the first call.
func NewGuard(c Config) *Guard { return &Guard{c, patience} }

// Unary enforces the rules on unary calls.
func (g *Guard) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	m, ok := g.Rules.methods[info.FullMethod]
	if !ok {
		return nil, unknownMethod(info.FullMethod)
	}
	var needs catalog.Set
	who, err := g.admit(ctx, m)
	if err == nil {
		needs, err = g.checkRequest(m, who.Principal, req)
	}
	if err != nil {
		return nil, g.denies(ctx, m, who, needs, err)
	}
	e, err := g.enters(ctx, m, who, needs)
	if err != nil {
		return nil, err
	}
	resp, err := g.handle(ctx, m, who, e, req, handler)
	if err != nil {
		return nil, err
	}
	m.clean(who.Principal, resp)
	return resp, nil
}

// handle calls the handler and completes the log.
func (g *Guard) handle(ctx context.Context, m *method, who *known, e *entry, req any, handler grpc.UnaryHandler) (any, error) {
	if e == nil {
		resp, err := handler(enter(ctx, m, who.call(g.Rules), who.Principal, nil), req)
		if err != nil {
			err = g.denies(ctx, m, who, catalog.Set{}, err)
		}
		return resp, err
	}
	var resp any
	inside := enter(ctx, m, who.call(g.Rules), who.Principal, e.note)
	err := g.logged(ctx, m, who, e, func() (err error) {
		resp, err = handler(inside, req)
		return err
	})
	return resp, err
}

// admit finds out who calls and decides by the rule of the method. It returns the
// caller with the denial.
func (g *Guard) admit(ctx context.Context, m *method) (*known, error) {
	if m.kind == byAnyone {
		return anyone, nil
	}
	who, err := g.identify(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.permits(who.Principal); err != nil {
		return who, err
	}
	return who, nil
}

// checkRequest decides by the content of a request and then validates it. It returns
// the grants that the request asked for, also where one is missing.
func (g *Guard) checkRequest(m *method, p *Principal, req any) (needs catalog.Set, err error) {
	msg, ok := req.(proto.Message)
	if !ok {
		return needs, fmt.Errorf("request of %s is a %T and no message", m.name, req)
	}
	empty := false
	if m.content != nil && p.Service == "" {
		a := asked{have: p.Grants}
		m.content.check(msg.ProtoReflect(), &a)
		needs = a.needs
		if empty, err = m.checkContent(p, &a); err != nil {
			return needs, err
		}
	}
	if err := malformed(msg); err != nil {
		return needs, err
	}
	if err := g.Validate(msg); err != nil {
		return needs, err
	}
	if empty {
		return needs, fault.Invalid(m.content.names(), "must be set: the request asks for nothing")
	}
	return needs, nil
}

// enter puts the caller into the context of the handler, and with him the tenant
// whose records the handler's transactions can reach, and the note that the first of
// them takes along.
func enter(ctx context.Context, m *method, c *call, p *Principal, note *store.Note) context.Context {
	origin := store.Origin{Tenant: p.Organization, Caller: p.ID, Actor: p.Actor, Method: m.name[1:], Note: note}
	if p.Service != "" {
		origin.Caller, origin.Actor = header(ctx, CallerHeader), header(ctx, ActorHeader)
	}
	return store.WithOrigin(context.WithValue(ctx, callKey{}, c), origin)
}

// clean redacts a message that leaves. Services of the suite see everything; what
// they pass on is redacted where it leaves.
func (m *method) clean(p *Principal, resp any) {
	if m.redact == nil || p.Service != "" {
		return
	}
	if p.uses != nil {
		p.uses.consultAll(m.redact.reads.Intersection(p.Grants))
	}
	if out, ok := resp.(proto.Message); ok {
		m.redact.redact(out.ProtoReflect(), &p.Grants)
	}
}
