package identity

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store"
)

// openOAuth offers OAuth 2.0 and OpenID Connect where HTTP is on.
func (s *service) openOAuth(env *server.Env) error {
	if env.HTTP == nil {
		return nil
	}
	box, err := env.Seal()
	if err != nil {
		return err
	}
	s.issuer, s.keys = env.HTTP.Issuer, newKeyring(box, s.random)
	s.serveOAuth(env.HTTP)
	return nil
}

// upkeepOAuth renews keys and removes what is over.
func (s *service) upkeepOAuth(ctx context.Context) {
	if err := s.rotateKeys(ctx); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "keys that sign tokens were not renewed", "error", err)
	}
	for what, purge := range map[string]func(*store.Tx) int{
		"access tokens": purgeTokens, "authorization codes": purgeCodes, "pushed requests": purgePushed, "revocations": purgeRevocations,
		"deleted OAuth clients": purgeClients, "signing keys": purgeSigningKeys,
	} {
		s.purge(ctx, what, purge)
	}
}

// tellVerifiers keeps for those who verify tokens offline what holds no more. It is done
// before a change that shuts somebody out returns, so that a crash in between leaves a
// caller who repeats it, and nobody who was told that it is done.
func (s *service) tellVerifiers(ctx context.Context, tags ...string) error {
	if s.issuer == "" || len(tags) == 0 {
		return nil
	}
	err := s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		for _, tag := range tags {
			r := &identitystorepb.Revocation{Id: s.newID(), Subject: tag, Time: timestamppb.New(tx.Now())}
			if err := revocations.Put(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tell who verifies tokens offline: %w", err)
	}
	return nil
}
