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
	Now        func() time.Time
	Validate   func(proto.Message) error // returns a fault
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
	who, err := g.admit(ctx, m)
	if err != nil {
		return nil, err
	}
	if _, err := g.checkRequest(m, who.Principal, req); err != nil {
		return nil, err
	}
	resp, err := handler(enter(ctx, m, who.call(g.Rules), who.Principal), req)
	if err != nil {
		return nil, err
	}
	m.clean(who.Principal, resp)
	return resp, nil
}

// admit finds out who calls and decides by the rule of the method.
func (g *Guard) admit(ctx context.Context, m *method) (*known, error) {
	if m.kind == byAnyone {
		return anyone, nil
	}
	who, err := g.identify(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.permits(who.Principal); err != nil {
		return nil, err
	}
	return who, nil
}

// checkRequest decides by the content of a request and then validates it. It returns
// the grants that the request asked for.
func (g *Guard) checkRequest(m *method, p *Principal, req any) (needs catalog.Set, err error) {
	msg, ok := req.(proto.Message)
	if !ok {
		return needs, fmt.Errorf("request of %s is a %T and no message", m.name, req)
	}
	empty := false
	if m.content != nil && p.Service == "" {
		a := asked{have: p.Grants}
		m.content.check(msg.ProtoReflect(), &a)
		if empty, err = m.checkContent(p, &a); err != nil {
			return needs, err
		}
		needs = a.needs
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
// whose records the handler's transactions can reach.
func enter(ctx context.Context, m *method, c *call, p *Principal) context.Context {
	origin := store.Origin{Tenant: p.Organization, Caller: p.ID, Actor: p.Actor, Method: m.name[1:]}
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
	if out, ok := resp.(proto.Message); ok {
		m.redact.redact(out.ProtoReflect(), &p.Grants)
	}
}
