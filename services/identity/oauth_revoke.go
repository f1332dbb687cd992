package identity

import (
	"context"
	"net/http"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

// revokeEndpoint ends a token of the client that asks (RFC 7009): an access token alone, a
// refresh token with its session, which is all that was issued for it. A token that is
// unknown, or another client's, is answered as one that was ended.
func (s *service) revokeEndpoint(w http.ResponseWriter, r *http.Request) {
	r = origin(r, "")
	f, err := form(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	who, err := s.claimantOf(r, f)
	if err == nil && !f.Has("token") {
		err = oauthRefusal("invalid_request", "token is missing")
	}
	if err == nil {
		err = s.revoke(r.Context(), who.id(), f.Get("token"))
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *service) revoke(ctx context.Context, client, text string) error {
	hash, err := token.HashAny(text)
	if err != nil {
		return nil
	}
	id := tokenID(hash[:])
	session, err := read(ctx, s, func(tx *store.Tx) (string, error) {
		if t, ok := tokens.Get(tx, id); ok && t.GetClientId() == client {
			return t.GetSessionId(), nil
		}
		if t, ok := refreshTokens.Get(tx, id); ok {
			if kept, ok := clientSessions.Get(tx, t.GetSessionId()); ok && kept.GetClientId() == client {
				return t.GetSessionId(), nil
			}
		}
		return "", nil
	})
	if err != nil || session == "" {
		return err
	}
	return s.shutOut(ctx, func(ctx context.Context) error {
		return s.db.Update(ctx, func(tx *store.Tx) error {
			if refreshTokens.Has(tx, id) {
				endSession(tx, session)
			}
			tokens.Delete(tx, id)
			return nil
		})
	}, sessionTag(session))
}
