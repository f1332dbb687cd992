package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	refreshPrefix = "lkr_"
	// offlineLife is how long a client may go on without its person (offline_access).
	offlineLife = 90 * 24 * time.Hour
)

// errSpent means that somebody shows what was used before: it was stolen from one of the
// two, so nobody goes on with what came of it.
var errSpent = errors.New("used before")

// admission is a session that is opened for a client, with its first tokens.
type admission struct {
	client  *pb.OauthClient
	code    *identitystorepb.AuthorizationCode
	session *pb.Session
	access  *accessToken
	id      string // ID token; empty without openid
	refresh string
	hash    [sha256.Size]byte // of refresh
}

// grantAuthorizationCode redeems a code (RFC 6749 4.1.3).
func (s *service) grantAuthorizationCode(ctx context.Context, who *claimant, f url.Values) (*tokenAnswer, error) {
	hash, err := token.Hash(f.Get("code"))
	if err != nil || who.client == nil {
		return nil, invalidGrant()
	}
	code, err := read(ctx, s, func(tx *store.Tx) (*identitystorepb.AuthorizationCode, error) {
		c, ok := authCodes.Get(tx, tokenID(hash[:]))
		if !ok || c.GetClientId() != who.client.GetId() || c.GetUserCode() != "" {
			return nil, invalidGrant()
		}
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	verifier := f.Get("code_verifier")
	sum := sha256.Sum256([]byte(verifier))
	proven := subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(code.GetChallenge())) == 1
	if !proven || len(verifier) < 43 || len(verifier) > 128 || f.Get("redirect_uri") != code.GetRedirectUri() {
		return nil, invalidGrant()
	}
	return s.redeem(ctx, who, code, pathRedeem)
}

// redeem opens a session for a client with what a person has let it have.
func (s *service) redeem(ctx context.Context, who *claimant, code *identitystorepb.AuthorizationCode, p path) (*tokenAnswer, error) {
	hours, err := s.hoursOf(ctx, code.GetOrganizationId(), code.GetUserId(), pb.Surface_SURFACE_API)
	if err != nil {
		return nil, err
	}
	o, err := s.open(ctx, who.client, code, hours)
	if err != nil {
		return nil, err
	}
	spent := ""
	var evicted []string
	err = s.db.Update(withCaller(ctx, code.GetUserId()), func(tx *store.Tx) error {
		kept, _ := authCodes.Get(tx, code.GetId())
		if spent = kept.GetRedeemedSessionId(); spent != "" {
			return errSpent
		}
		proof := subject{
			organization: code.GetOrganizationId(), user: code.GetUserId(), session: code.GetSessionId(),
			client: who.client.GetId(), clientSecret: who.secret, authCode: code.GetId(),
			hours: hours,
		}
		if err := admit(tx, proof, p); err != nil {
			return err
		}
		evicted = evictSessions(tx, code.GetUserId())
		if err := keepHours(tx, o.session.GetId(), hours); err != nil {
			return err
		}
		return o.keep(tx, kept)
	})
	if errors.Is(err, errSpent) {
		return nil, s.endSpent(ctx, spent)
	}
	if err != nil {
		return nil, err
	}
	if err := s.tellVerifiers(context.WithoutCancel(ctx), evicted...); err != nil {
		return nil, err
	}
	s.hub.Publish(evicted...)
	answer := o.access.answer()
	answer.RefreshToken, answer.IDToken = o.refresh, o.id
	return answer, nil
}

// withCaller says in the journal in whose name something is done.
func withCaller(ctx context.Context, user string) context.Context {
	o := store.OriginOf(ctx)
	o.Caller = user
	return store.WithOrigin(ctx, o)
}

// open makes a session for a client, of which nothing is kept yet.
func (s *service) open(ctx context.Context, client *pb.OauthClient, code *identitystorepb.AuthorizationCode, h *hours) (*admission, error) {
	life := sessionLife
	if slices.Contains(code.GetScopes(), scopeOffline) {
		life = offlineLife
	}
	now := s.now()
	o := &admission{client: client, code: code, session: &pb.Session{
		Id: s.newID(), UserId: code.GetUserId(), OrganizationId: code.GetOrganizationId(), Surface: pb.Surface_SURFACE_API,
		CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(life)), ClientId: client.GetId(),
	}}
	a := access{
		session: o.session.GetId(), subject: code.GetUserId(), user: code.GetUserId(), organization: code.GetOrganizationId(),
		client: client.GetId(), scopes: code.GetScopes(), authTime: code.GetAuthTime().AsTime(), until: h.bound(o.session.GetExpireTime().AsTime()),
		factors: factorsOf(code.GetFactors()),
	}
	var err error
	if o.access, err = s.makeAccess(ctx, algorithmOf(client), a); err != nil {
		return nil, err
	}
	if o.id, err = s.makeIDToken(ctx, client, a, code.GetNonce(), o.access.text); err != nil {
		return nil, err
	}
	o.refresh, o.hash = token.New(refreshPrefix, s.random)
	return o, nil
}

// keep keeps a session and what proves it, and that the code was redeemed for it.
func (o *admission) keep(tx *store.Tx, code *identitystorepb.AuthorizationCode) error {
	code.RedeemedSessionId = o.session.GetId()
	if err := authCodes.Put(tx, code); err != nil {
		return err
	}
	kept := &identitystorepb.ClientSession{
		SessionId: o.session.GetId(), ClientId: o.client.GetId(), Scopes: code.GetScopes(), AuthTime: code.GetAuthTime(), Factors: code.GetFactors(),
	}
	if !slices.Contains(code.GetScopes(), scopeOffline) {
		kept.BrowserSessionId = code.GetSessionId()
	}
	o.seenBy(tx, code)
	if err := sessions.Put(tx, o.session); err != nil {
		return err
	}
	if err := clientSessions.Put(tx, kept); err != nil {
		return err
	}
	if err := tokens.Put(tx, o.access.kept); err != nil {
		return err
	}
	return refreshTokens.Put(tx, &identitystorepb.RefreshToken{Id: tokenID(o.hash[:]), SessionId: o.session.GetId()})
}

// endSpent ends a session whose code or refresh token was shown again (RFC 9700 4.14.2).
func (s *service) endSpent(ctx context.Context, session string) error {
	s.log.WarnContext(ctx, "a code or a refresh token was shown again, so its session is ended", "session", session)
	err := s.shutOut(ctx, func(ctx context.Context) error {
		return s.db.Update(ctx, func(tx *store.Tx) error {
			endSession(tx, session)
			return nil
		})
	}, sessionTag(session))
	if err != nil {
		return err
	}
	return invalidGrant()
}

// grantRefreshToken renews the tokens of a session (RFC 6749 6). The refresh token is
// replaced each time.
func (s *service) grantRefreshToken(ctx context.Context, who *claimant, f url.Values) (*tokenAnswer, error) {
	hash, err := token.Hash(f.Get("refresh_token"))
	if err != nil || who.client == nil {
		return nil, invalidGrant()
	}
	id := tokenID(hash[:])
	a, err := s.renewal(ctx, who.client, id)
	if err != nil {
		return nil, err
	}
	if a.scopes, err = allowedScopes(askedScopes(f.Get("scope")), a.scopes); err != nil {
		return nil, err
	}
	hours, err := s.hoursOf(ctx, a.organization, a.user, pb.Surface_SURFACE_API)
	if err != nil {
		return nil, err
	}
	a.until = hours.bound(a.until)
	made, err := s.makeAccess(ctx, algorithmOf(who.client), *a)
	if err != nil {
		return nil, err
	}
	idToken, err := s.makeIDToken(ctx, who.client, *a, "", made.text)
	if err != nil {
		return nil, err
	}
	next, nextHash := token.New(refreshPrefix, s.random)
	err = s.db.Update(withCaller(ctx, a.user), func(tx *store.Tx) error {
		kept, ok := refreshTokens.Get(tx, id)
		if ok && kept.GetUseTime() != nil {
			return errSpent
		}
		proof := subject{
			organization: a.organization, user: a.user, session: a.session, client: who.client.GetId(), clientSecret: who.secret,
			hours: hours,
		}
		if err := admit(tx, proof, pathRefresh); err != nil || !ok {
			return invalidGrantOr(err)
		}
		if err := keepHours(tx, a.session, hours); err != nil {
			return err
		}
		kept.UseTime = timestamppb.New(tx.Now())
		if err := refreshTokens.Put(tx, kept); err != nil {
			return err
		}
		if err := refreshTokens.Put(tx, &identitystorepb.RefreshToken{Id: tokenID(nextHash[:]), SessionId: a.session}); err != nil {
			return err
		}
		return tokens.Put(tx, made.kept)
	})
	if errors.Is(err, errSpent) {
		return nil, s.endSpent(ctx, a.session)
	}
	if err != nil {
		return nil, err
	}
	answer := made.answer()
	answer.RefreshToken, answer.IDToken = next, idToken
	return answer, nil
}

func invalidGrantOr(err error) error {
	if err != nil {
		return err
	}
	return invalidGrant()
}

// renewal reads what a refresh token renews: no scope that the client has lost since.
func (s *service) renewal(ctx context.Context, client *pb.OauthClient, id string) (*access, error) {
	return read(ctx, s, func(tx *store.Tx) (*access, error) {
		t, _ := refreshTokens.Get(tx, id)
		kept, ok := clientSessions.Get(tx, t.GetSessionId())
		if !ok || kept.GetClientId() != client.GetId() {
			return nil, invalidGrant()
		}
		session, live := sessions.Get(tx, t.GetSessionId())
		if !live {
			return nil, invalidGrant()
		}
		scopes := slices.DeleteFunc(kept.GetScopes(), func(scope string) bool { return !slices.Contains(client.GetScopes(), scope) })
		return &access{
			session: session.GetId(), subject: session.GetUserId(), user: session.GetUserId(), organization: session.GetOrganizationId(),
			client: client.GetId(), scopes: scopes, authTime: kept.GetAuthTime().AsTime(), until: session.GetExpireTime().AsTime(),
			factors: factorsOf(kept.GetFactors()),
		}, nil
	})
}

// codeSpent holds when a code cannot be redeemed any more.
func codeSpent(tx *store.Tx, s subject) bool {
	c, ok := authCodes.Get(tx, s.authCode)
	return !ok || c.GetRedeemedSessionId() != "" || !c.GetExpireTime().AsTime().After(tx.Now())
}
