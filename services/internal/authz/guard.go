package authz

import (
	"context"
	"crypto/subtle"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/lease"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

// Names of the metadata that a service of the suite sends with its calls. The
// first two prove who it is; the others say for whom it acts.
const (
	ServiceHeader    = "latchkey-service"
	ServiceKeyHeader = "latchkey-service-key"
	TenantHeader     = "latchkey-tenant"
	CallerHeader     = "latchkey-caller"
	ActorHeader      = "latchkey-actor"
)

// Config is what a Guard decides with.
type Config struct {
	Rules      *Rules
	Sessions   *lease.Cache[Session] // by the hash of the token
	Grants     *lease.Cache[Grants]  // by GrantsKey
	ServiceKey string                // shared by the services of the suite; never empty
	Now        func() time.Time
	Validate   func(proto.Message) error // returns a fault
}

// GrantsKey is the key of a user's grants in an organization.
func GrantsKey(organization, user string) string { return organization + "/" + user }

// Guard is the one interceptor.
type Guard struct{ Config }

// NewGuard returns a guard. Its rules may be set later, but before the first call.
func NewGuard(c Config) *Guard { return &Guard{c} }

// known is a caller, with what the knowledge rests on.
type known struct {
	*Principal
	session *lease.Entry[Session]
	grants  *lease.Entry[Grants]
}

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
	msg, _ := req.(proto.Message)
	if err := g.checkRequest(m, who.Principal, msg); err != nil {
		return nil, err
	}
	resp, err := handler(g.enter(ctx, m, who.Principal), req)
	if err != nil {
		return nil, err
	}
	if out, ok := resp.(proto.Message); ok {
		m.clean(who.Principal, out)
	}
	return resp, nil
}

// admit finds out who calls and decides by the rule of the method.
func (g *Guard) admit(ctx context.Context, m *method) (known, error) {
	if m.kind == byAnyone {
		return known{Principal: nobody}, nil
	}
	who, err := g.identify(ctx)
	if err != nil {
		return known{}, err
	}
	return who, m.permits(who.Principal)
}

func (g *Guard) identify(ctx context.Context) (known, error) {
	if service := header(ctx, ServiceHeader); service != "" {
		return g.identifyService(ctx, service)
	}
	text, ok := bearer(header(ctx, "authorization"))
	if !ok {
		return known{}, fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_MISSING,
			`sign in first: send the metadata "authorization: Bearer TOKEN" with the token of SessionService.CreateSession`, nil)
	}
	hash, err := token.Hash(text)
	if err != nil {
		return known{}, invalidCredentials()
	}
	session, err := g.Sessions.Get(ctx, string(hash[:]))
	if err != nil {
		return known{}, err
	}
	if !g.Now().Before(session.Value.Expires) {
		return known{}, invalidCredentials()
	}
	return g.load(ctx, session)
}

// load adds what the user of a session may do.
func (g *Guard) load(ctx context.Context, session *lease.Entry[Session]) (known, error) {
	s := &session.Value
	key := GrantsKey(s.Organization, s.User)
	grants, err := g.Grants.Get(ctx, key)
	if err != nil {
		return known{}, err
	}
	if e := grants.Value.Expires; !e.IsZero() && !g.Now().Before(e) {
		g.Grants.Drop(grants)
		if grants, err = g.Grants.Get(ctx, key); err != nil {
			return known{}, err
		}
	}
	v := &grants.Value
	return known{session: session, grants: grants, Principal: &Principal{
		ID: s.User, Organization: s.Organization, Actor: s.Actor, SessionID: s.ID, Surface: s.Surface,
		Grants: v.Set, Values: v.Values, Revision: v.Revision,
	}}, nil
}

// current tells whether what is known of the caller still holds.
func (g *Guard) current(who known) bool {
	if who.session == nil {
		return true
	}
	now := g.Now()
	e := who.grants.Value.Expires
	return who.session.Valid() && who.grants.Valid() && g.Sessions.Held() && g.Grants.Held() &&
		now.Before(who.session.Value.Expires) && (e.IsZero() || now.Before(e))
}

// identifyService knows a service of the suite by the key that they share.
// SECURITY: compared in constant time; a wrong key is never taken for a user.
func (g *Guard) identifyService(ctx context.Context, service string) (known, error) {
	key := header(ctx, ServiceKeyHeader)
	if g.ServiceKey == "" || subtle.ConstantTimeCompare([]byte(key), []byte(g.ServiceKey)) != 1 {
		return known{}, invalidCredentials()
	}
	return known{Principal: &Principal{
		Service: service, Organization: header(ctx, TenantHeader),
	}}, nil
}

// checkRequest decides by the content of a request and then validates it.
func (g *Guard) checkRequest(m *method, p *Principal, msg proto.Message) error {
	empty := false
	if m.content != nil && p.Service == "" {
		a := asked{set: p.Grants}
		m.content.check(msg.ProtoReflect(), &a)
		var err error
		if empty, err = m.checkContent(p, &a); err != nil {
			return err
		}
	}
	if err := malformed(msg); err != nil {
		return err
	}
	if err := g.Validate(msg); err != nil {
		return err
	}
	if empty {
		return fault.Invalid(m.content.names(), "must be set: the request asks for nothing")
	}
	return nil
}

// names lists the fields of a request by one of which it must ask for something.
func (c *content) names() string {
	if c.update != nil {
		return string(c.update.mask.Name())
	}
	var names []string
	for _, f := range c.fields {
		names = append(names, string(f.desc.Name()))
	}
	return strings.Join(names, " or ")
}

// enter puts the caller into the context of the handler, and with him the tenant
// whose records the handler's transactions can reach.
func (g *Guard) enter(ctx context.Context, m *method, p *Principal) context.Context {
	origin := store.Origin{Tenant: p.Organization, Caller: p.ID, Actor: p.Actor, Method: m.name[1:]}
	if p.Service != "" {
		origin.Caller, origin.Actor = header(ctx, CallerHeader), header(ctx, ActorHeader)
	}
	return store.WithOrigin(context.WithValue(ctx, callKey{}, &call{p, g.Rules}), origin)
}

// clean redacts a message that leaves. Services of the suite see everything; what
// they pass on is redacted where it leaves.
func (m *method) clean(p *Principal, out proto.Message) {
	if m.redact != nil && p.Service == "" {
		m.redact.redact(out.ProtoReflect(), &p.Grants)
	}
}

func header(ctx context.Context, name string) string {
	if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// bearer cuts the scheme off, which is written in any case (RFC 9110 11.1).
func bearer(value string) (string, bool) {
	scheme, text, ok := strings.Cut(value, " ")
	return text, ok && strings.EqualFold(scheme, "bearer") && text != ""
}

func invalidCredentials() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID,
		"the credentials are not valid, or not any more: sign in again", nil)
}
