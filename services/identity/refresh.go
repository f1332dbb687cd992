package identity

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	sessionRefreshPrefix = "lks_"
	// tokenLife is how long a token lives whose session can be refreshed.
	tokenLife = 15 * time.Minute
	// appLife is how long a session of the app lives that can be refreshed.
	appLife = 30 * day
	// repeatLife is how long the answer to a refresh can be asked for again.
	repeatLife = time.Minute
	// usedLife is how long a refresh token that was exchanged is remembered.
	usedLife = 7 * day
)

// handout are the secrets of a session that are handed out at once.
type handout struct {
	token, refresh     string    // refresh is empty after keep if the session has none
	tokenID, refreshID string    // what they are kept as
	expires            time.Time // when the token does; known after keep
}

func (s *service) newHandout() *handout {
	h := &handout{}
	h.token, h.tokenID = s.newSecret(sessionPrefix)
	h.refresh, h.refreshID = s.newSecret(sessionRefreshPrefix)
	return h
}

// newSecret makes a token, and the id that it is kept by.
func (s *service) newSecret(prefix string) (text, id string) {
	text, hash := token.New(prefix, s.random)
	return text, tokenID(hash[:])
}

// keep keeps what proves a session from now on, and what goes on with it.
func (h *handout) keep(tx *store.Tx, session *pb.Session) error {
	h.expires = session.GetExpireTime().AsTime()
	t := &identitystorepb.SessionToken{Id: h.tokenID, SessionId: session.GetId()}
	if !session.GetRefreshable() {
		h.refresh = ""
		return tokens.Put(tx, t)
	}
	if end := tx.Now().Add(tokenLife); end.Before(h.expires) {
		h.expires = end
	}
	t.ExpireTime = timestamppb.New(h.expires)
	if err := tokens.Put(tx, t); err != nil {
		return err
	}
	return refreshes.Put(tx, &identitystorepb.SessionRefresh{
		Id: h.refreshID, SessionId: session.GetId(), CreateTime: timestamppb.New(tx.Now()),
	})
}

// lifeOf is how long a session lives at most.
func lifeOf(surface pb.Surface, refreshable bool) time.Duration {
	if refreshable && surface == pb.Surface_SURFACE_APP {
		return appLife
	}
	return sessionLife
}

// RefreshSession implements pb.SessionServiceServer.
func (s *service) RefreshSession(ctx context.Context, req *pb.RefreshSessionRequest) (*pb.RefreshSessionResponse, error) {
	hash, err := token.Hash(req.GetRefreshToken())
	if err != nil || !strings.HasPrefix(req.GetRefreshToken(), sessionRefreshPrefix) {
		return nil, credentialsInvalid()
	}
	id := tokenID(hash[:])
	session, err := s.refreshed(ctx, id)
	if err != nil {
		return nil, err
	}
	who := subject{organization: session.GetOrganizationId(), user: session.GetUserId(), session: session.GetId()}
	p := proven{subject: who, surface: session.GetSurface()}
	if err := s.checkSurfaceOf(ctx, &p); err != nil {
		return nil, err
	}
	who.hours = p.hours
	o := store.OriginOf(ctx)
	o.Caller = who.user
	ctx = store.WithOrigin(ctx, o)
	who.refresh, who.requestID = id, req.GetRequestId()
	fresh, reused := s.newHandout(), false
	tags := []string{sessionTag(who.session)}
	exchange := func(tx *store.Tx) (err error) {
		reused = false
		if err = admit(tx, who, pathRenew); err == nil {
			if session, err = fresh.exchange(tx, id, req.GetRequestId()); err != nil {
				return err
			}
			return keepHours(tx, who.session, who.hours)
		}
		if !refreshSpent(tx, who) || req.GetValidateOnly() {
			return err
		}
		// SECURITY: one of two has stolen it, and which one nobody knows.
		reused = true
		tags = append(tags[:1], dependents(tx, who.session)...)
		tellReuse(tx, who, s.placeOf(ctx))
		endSession(tx, who.session)
		return tx.Failed()
	}
	if req.GetValidateOnly() {
		return do(ctx, s, &pb.RefreshSessionRequest{ValidateOnly: true}, func(tx *store.Tx) (*pb.RefreshSessionResponse, error) {
			return &pb.RefreshSessionResponse{Session: session}, exchange(tx)
		})
	}
	change := func(ctx context.Context) ([]string, error) {
		err := s.db.Update(inDirectory(ctx), exchange)
		return tags, err
	}
	if err := s.shutOutAll(ctx, change); err != nil {
		return nil, err
	}
	if reused {
		s.log.WarnContext(ctx, "a refresh token was shown twice, so its session has ended", "session", who.session, "user", who.user)
		return nil, refreshReused()
	}
	return &pb.RefreshSessionResponse{
		Token: fresh.token, RefreshToken: fresh.refresh, Session: session, TokenExpireTime: timestamppb.New(fresh.expires),
	}, nil
}

// refreshed returns the session that a refresh token goes on with.
func (s *service) refreshed(ctx context.Context, id string) (*pb.Session, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.Session, error) {
		kept, _ := refreshes.Get(tx, id)
		session, ok := sessions.Get(tx, kept.GetSessionId())
		if !ok {
			return nil, credentialsInvalid()
		}
		return session, nil
	})
}

// exchange takes a refresh token for what is handed out, and returns its session. Of one
// that was exchanged before, what was handed out then is worth nothing from now on.
func (h *handout) exchange(tx *store.Tx, id, requestID string) (*pb.Session, error) {
	old, _ := refreshes.Get(tx, id)
	session, ok := sessions.Get(tx, old.GetSessionId())
	if !ok {
		return nil, credentialsInvalid()
	}
	if old.GetUseTime() != nil {
		refreshes.Delete(tx, old.GetSuccessorId())
		tokens.Delete(tx, old.GetTokenId())
	}
	old.UseTime, old.RequestId = timestamppb.New(tx.Now()), requestID
	old.SuccessorId, old.TokenId = h.refreshID, h.tokenID
	if err := refreshes.Put(tx, old); err != nil {
		return nil, err
	}
	forgetUsed(tx, session.GetId())
	if err := h.keep(tx, session); err != nil {
		return nil, err
	}
	if err := keepSeen(tx, session); err != nil {
		return nil, err
	}
	return session, sessionUses.Put(tx, &identitystorepb.SessionUse{Id: session.GetId(), LastSeenTime: timestamppb.New(tx.Now())})
}

// refreshSpent holds when a refresh token was exchanged before, and not by a call that
// this one repeats.
func refreshSpent(tx *store.Tx, s subject) bool {
	old, ok := refreshes.Get(tx, s.refresh)
	return ok && old.GetUseTime() != nil && !canRepeat(tx, old, s.requestID)
}

// refreshUnknown holds when there is no such refresh token.
func refreshUnknown(tx *store.Tx, s subject) bool { return !refreshes.Has(tx, s.refresh) }

// canRepeat tells whether an exchange is that of a caller who has lost the answer: the
// same request, soon, and nobody has used what was handed out.
func canRepeat(tx *store.Tx, old *identitystorepb.SessionRefresh, requestID string) bool {
	next, ok := refreshes.Get(tx, old.GetSuccessorId())
	return ok && next.GetUseTime() == nil && requestID != "" && requestID == old.GetRequestId() &&
		tx.Now().Sub(old.GetUseTime().AsTime()) < repeatLife
}

// forgetUsed forgets what a session needs no more: tokens that have expired, and the
// oldest refresh tokens, two for each new one.
func forgetUsed(tx *store.Tx, session string) {
	for t := range tokensBySession.Scan(tx, tokensBySession.Range(session)) {
		if t.GetExpireTime() != nil && !t.GetExpireTime().AsTime().After(tx.Now()) {
			tokens.Delete(tx, t.GetId())
		}
	}
	n := 0
	for r := range refreshBySession.Scan(tx, refreshBySession.Range(session)) {
		if n++; n > 2 || r.GetUseTime() == nil || tx.Now().Sub(r.GetUseTime().AsTime()) < usedLife {
			return
		}
		refreshes.Delete(tx, r.GetId())
	}
}

func refreshReused() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_REFRESH_REUSED,
		"this refresh token was exchanged before, so somebody else may have it: the session has ended, sign in again", nil)
}
