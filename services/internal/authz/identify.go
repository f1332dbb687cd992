package authz

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/lease"
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

// authorization is the metadata by which people say who they are.
const authorization = "authorization"

// OrganizationHeader is the metadata by which a call says in which organization it acts,
// where its credentials leave that open: those of a brand. Others may name their own.
const OrganizationHeader = "latchkey-organization"

// SessionKey is the key of a session in the guard's cache: the hash of its token, and the
// organization that the call names, if it names one. CutSessionKey takes it apart.
//
// SECURITY: what is known of a token in one organization is never used in another.
func SessionKey(hash, organization string) string { return hash + organization }

// CutSessionKey returns what SessionKey was made of.
func CutSessionKey(key string) (hash, organization string) {
	n := min(sha256.Size, len(key))
	return key[:n], key[n:]
}

const (
	// patience is how long a call waits for a lease that is not held. It covers a
	// connection that broke, and most restarts of a source.
	patience = 500 * time.Millisecond
	// maxTries bounds how often a caller is looked up whose facts change meanwhile.
	maxTries = 3
)

// known is a caller, with what the knowledge rests on. The entries are nil for a
// service and for nobody, of whom nothing changes.
type known struct {
	*Principal
	session *lease.Entry[Session]
	grants  *lease.Entry[Grants]
	actor   *lease.Entry[Grants] // of whoever acts in the user's name; nil if nobody does
	entered atomic.Pointer[call] // made by the first call, the same for all unary ones
}

// anyone is who calls a method that is open to anyone.
var anyone = &known{Principal: nobody}

// Remember returns a load of sessions whose users are put together once and not at
// every call. What a cache of sessions loads by goes through it.
func Remember(load func(context.Context, string) (Session, []string, error)) func(context.Context, string) (Session, []string, error) {
	return func(ctx context.Context, hash string) (Session, []string, error) {
		s, tags, err := load(ctx, hash)
		s.last = &atomic.Pointer[known]{}
		return s, tags, err
	}
}

// identify finds out who calls.
func (g *Guard) identify(ctx context.Context) (*known, error) {
	if service := header(ctx, ServiceHeader); service != "" {
		return g.identifyService(ctx, service)
	}
	text, ok := bearer(header(ctx, authorization))
	if !ok {
		return nil, missingCredentials()
	}
	hash, err := token.HashAny(text)
	if err != nil {
		return nil, invalidCredentials()
	}
	organization := header(ctx, OrganizationHeader)
	if organization != "" && (len(organization) != 36 || uuid.Validate(organization) != nil) {
		return nil, organizationRefused()
	}
	key := SessionKey(string(hash[:]), organization)
	who, err := g.lookUp(ctx, key)
	if isLeaseLost(err) {
		return g.lookUpPatiently(ctx, key)
	}
	return who, err
}

// lookUpPatiently waits a moment for the leases to be held again.
func (g *Guard) lookUpPatiently(ctx context.Context, hash string) (who *known, err error) {
	moment, cancel := context.WithTimeout(ctx, g.patience)
	defer cancel()
	for range maxTries {
		over := waitHeld(moment, g.Sessions) != nil || waitHeld(moment, g.Grants) != nil
		if who, err = g.lookUp(ctx, hash); over || !isLeaseLost(err) {
			return who, err
		}
	}
	return nil, err
}

// waitHeld waits until the lease of a cache is held. One that has run out by the
// clock may not have been noticed yet, and Ready still say otherwise.
func waitHeld[V any](ctx context.Context, c *lease.Cache[V]) error {
	if !c.Held() {
		select {
		case <-c.Lost():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.WaitHeld(ctx)
}

func isLeaseLost(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Reason == faultpb.Reason_REASON_LEASE_LOST
}

// lookUp finds the user of a session and what he may do.
func (g *Guard) lookUp(ctx context.Context, hash string) (*known, error) {
	for range maxTries {
		session, err := g.Sessions.Get(ctx, hash)
		if err != nil {
			return nil, err
		}
		now := g.Now()
		if !now.Before(session.Value.Expires) {
			if session, err = g.reload(ctx, hash, session); err != nil {
				return nil, err
			}
		}
		if who := session.Value.remembered(); who != nil && g.mayStill(who, now) {
			return who, nil
		}
		who, err := g.load(ctx, session, now)
		if err != nil {
			return nil, err
		}
		// SECURITY: the session may have ended while its user's grants were asked for.
		if session.Valid() && who.grants.Valid() && (who.actor == nil || who.actor.Valid()) {
			session.Value.remember(who)
			return who, nil
		}
	}
	return nil, fault.New(codes.Unavailable, faultpb.Reason_REASON_LEASE_LOST,
		"what is known of you changes faster than it can be read: try again", map[string]string{"source": "permissions"})
}

// reload asks again about a session whose facts have run out: those of an API key do
// each day. What has run out again by our clock is not accepted.
func (g *Guard) reload(ctx context.Context, hash string, old *lease.Entry[Session]) (*lease.Entry[Session], error) {
	g.Sessions.Drop(old)
	session, err := g.Sessions.Get(ctx, hash)
	if err == nil && !g.Now().Before(session.Value.Expires) {
		err = invalidCredentials()
	}
	return session, err
}

// load adds to a session what its user may do, and at most what whoever acts in the user's
// name may do too.
func (g *Guard) load(ctx context.Context, session *lease.Entry[Session], now time.Time) (*known, error) {
	s := &session.Value
	grants, err := g.grantsOf(ctx, s.Organization, s.User, now)
	if err != nil {
		return nil, err
	}
	v := &grants.Value
	who := &known{session: session, grants: grants, Principal: &Principal{
		ID: s.User, Organization: s.Organization, Actor: s.Actor, SessionID: s.ID, Surface: s.Surface,
		Grants: s.carried(v.Set), Values: v.Values, Revision: v.Revision, Limited: s.Limited,
		OnlyMethod: s.OnlyMethod,
		uses:       &Uses{Organization: s.Organization, User: s.User},
	}}
	if s.Actor == "" {
		return who, nil
	}
	if who.actor, err = g.grantsOf(ctx, s.Organization, s.Actor, now); err != nil {
		return nil, err
	}
	who.actsBy(who.actor.Value.Set)
	return who, nil
}

// grantsOf returns what somebody may do now.
func (g *Guard) grantsOf(ctx context.Context, organization, user string, now time.Time) (*lease.Entry[Grants], error) {
	key := GrantsKey(organization, user)
	grants, err := g.Grants.Get(ctx, key)
	if err == nil && grants.Value.expired(now) {
		// By the clock of permissions it may not have run out yet: what it says anew
		// counts, whatever our own clock says.
		g.Grants.Drop(grants)
		grants, err = g.Grants.Get(ctx, key)
	}
	return grants, err
}

// current tells whether what is known of the caller still holds.
func (g *Guard) current(who *known) bool {
	if who.session == nil {
		return true
	}
	now := g.Now()
	return g.Sessions.Check(who.session) == nil && now.Before(who.session.Value.Expires) && g.mayStill(who, now)
}

// mayStill tells whether the grants of the caller still hold, and those of whoever acts.
func (g *Guard) mayStill(who *known, now time.Time) bool {
	holds := func(e *lease.Entry[Grants]) bool { return g.Grants.Check(e) == nil && !e.Value.expired(now) }
	return holds(who.grants) && (who.actor == nil || holds(who.actor))
}

// expires returns how long what is known of the caller holds at most by the clock.
func (g *Guard) expires(who *known) time.Duration {
	until := who.session.Value.Expires
	for _, grants := range []*lease.Entry[Grants]{who.grants, who.actor} {
		if grants != nil && !grants.Value.Expires.IsZero() && grants.Value.Expires.Before(until) {
			until = grants.Value.Expires
		}
	}
	return until.Sub(g.Now())
}

// actorStale is closed when the grants of whoever acts have changed; nil if nobody does.
func (who *known) actorStale() <-chan struct{} {
	if who.actor == nil {
		return nil
	}
	return who.actor.Stale()
}

// identifyService knows a service of the suite by the key that they share.
// SECURITY: compared in constant time; a wrong key is never taken for a user.
func (g *Guard) identifyService(ctx context.Context, service string) (*known, error) {
	key := header(ctx, ServiceKeyHeader)
	if g.ServiceKey == "" || subtle.ConstantTimeCompare([]byte(key), []byte(g.ServiceKey)) != 1 {
		return nil, invalidCredentials()
	}
	if g.Proves != nil {
		if err := g.Proves(ctx, service); err != nil {
			return nil, err
		}
	}
	return &known{Principal: &Principal{Service: service, Organization: header(ctx, TenantHeader)}}, nil
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

func missingCredentials() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_MISSING,
		`sign in first: send the metadata "authorization: Bearer TOKEN" with the token of SessionService.CreateSession`, nil)
}

func invalidCredentials() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_CREDENTIALS_INVALID,
		"the credentials are not valid, or not any more: sign in again", nil)
}

// organizationRefused is about what is no organization; of one, identity says it.
func organizationRefused() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_ORGANIZATION_REFUSED,
		"the metadata "+OrganizationHeader+" must be the id of an organization", map[string]string{"header": OrganizationHeader})
}
