package identity

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

var (
	signingKeys = store.NewCollection("signing_key", (*identitystorepb.SigningKey).GetId).Stays("it signs in the name of this installation")

	clients        = store.NewCollection("oauth_client", (*pb.OauthClient).GetId).OfOrganization(clientOrganization).Arrives(clientIntoBrand)
	clientsByOwner = clients.Index("owner", func(c *pb.OauthClient) store.Key {
		return store.Key{ownerOf(c), store.Desc(c.GetCreateTime().AsTime())}
	})
	clientsByPurge = clients.Index("purge", func(c *pb.OauthClient) store.Key { return moment(c.GetPurgeTime()) })
	clientSecrets  = store.NewCollection("oauth_secret", (*identitystorepb.ClientSecrets).GetClientId).
			OfRecord(clients, (*identitystorepb.ClientSecrets).GetClientId).Only(store.Keys)

	clientSessions         = store.NewCollection("oauth_session", (*identitystorepb.ClientSession).GetSessionId).Stays("it is of a session")
	clientSessionsByClient = clientSessions.Index("client", func(s *identitystorepb.ClientSession) store.Key {
		return store.Key{s.GetClientId()}
	})
	clientSessionsByBrowser = clientSessions.Index("browser", func(s *identitystorepb.ClientSession) store.Key {
		if s.GetBrowserSessionId() == "" {
			return nil
		}
		return store.Key{s.GetBrowserSessionId()}
	})
	refreshTokens          = store.NewCollection("oauth_refresh", (*identitystorepb.RefreshToken).GetId).Stays("it is of a session")
	refreshTokensBySession = refreshTokens.Index("session", func(t *identitystorepb.RefreshToken) store.Key {
		return store.Key{t.GetSessionId()}
	})

	authCodes    = store.NewCollection("oauth_code", (*identitystorepb.AuthorizationCode).GetId).Stays("it is for this installation, for minutes")
	codesByPurge = authCodes.Index("purge", func(c *identitystorepb.AuthorizationCode) store.Key { return moment(c.GetPurgeTime()) })
	codesByUser  = authCodes.Unique("user_code", func(c *identitystorepb.AuthorizationCode) store.Key {
		if c.GetUserCode() == "" {
			return nil
		}
		return store.Key{c.GetUserCode()}
	})

	pushedRequests = store.NewCollection("oauth_pushed", (*identitystorepb.PushedRequest).GetId).Stays("it is for this installation, for minutes")
	pushedByExpiry = pushedRequests.Index("expiry", func(p *identitystorepb.PushedRequest) store.Key { return moment(p.GetExpireTime()) })

	consents         = store.NewCollection("oauth_consent", (*identitystorepb.Consent).GetId).Stays("people are asked again where a client signs them in elsewhere")
	consentsByClient = consents.Index("client", func(c *identitystorepb.Consent) store.Key { return store.Key{c.GetClientId()} })

	revocations       = store.NewCollection("oauth_revocation", (*identitystorepb.Revocation).GetId).Stays("it is of tokens that this installation has signed")
	revocationsByTime = revocations.Index("time", func(r *identitystorepb.Revocation) store.Key {
		return store.Key{r.GetTime().AsTime()}
	})
)

// moment is the key of a time, and none where there is no time.
func moment(t *timestamppb.Timestamp) store.Key {
	if t == nil {
		return nil
	}
	return store.Key{t.AsTime()}
}

// dependents returns the tags of the sessions of clients that end with a browser's.
func dependents(tx *store.Tx, browser string) (tags []string) {
	for s := range clientSessionsByBrowser.Scan(tx, clientSessionsByBrowser.Range(browser)) {
		tags = append(tags, sessionTag(s.GetSessionId()))
	}
	return tags
}

// clientOrganization returns the organization that a client belongs to, none for a brand's.
func clientOrganization(c *pb.OauthClient) string {
	if c.GetOwner() == brandOwned {
		return ""
	}
	return c.GetOrganizationId()
}

// endClientSession removes what a session has beside others that was opened for a client,
// and ends the sessions of clients that were to last as long as it.
func endClientSession(tx *store.Tx, id string) {
	for s := range clientSessionsByBrowser.Scan(tx, clientSessionsByBrowser.Range(id)) {
		endSession(tx, s.GetSessionId())
	}
	clientSessions.Delete(tx, id)
	for t := range refreshTokensBySession.Scan(tx, refreshTokensBySession.Range(id)) {
		refreshTokens.Delete(tx, t.GetId())
	}
}

// purgeTokens removes access tokens that have ended.
func purgeTokens(tx *store.Tx) int { return deleteDue(tx, tokens, tokensByExpiry) }

// purgeCodes removes codes that nobody can redeem, nor tell that they were redeemed.
func purgeCodes(tx *store.Tx) int { return deleteDue(tx, authCodes, codesByPurge) }

// purgeRevocations removes what is older than every token that it could be about.
func purgeRevocations(tx *store.Tx) int {
	return removeDue(tx, revocationsByTime, tx.Now().Add(-revocationLife), func(r *identitystorepb.Revocation) { revocations.Delete(tx, r.GetId()) })
}

// purgeClients erases the records of clients that were deleted long enough ago.
func purgeClients(tx *store.Tx) int {
	return removeDue(tx, clientsByPurge, tx.Now(), func(c *pb.OauthClient) {
		clients.Delete(tx, c.GetId())
		for consent := range consentsByClient.Scan(tx, consentsByClient.Range(c.GetId())) {
			consents.Delete(tx, consent.GetId())
		}
	})
}

// revocationLife is how long a revocation is told: longer than any access token lives,
// by what clocks may differ.
const revocationLife = accessLife + 5*time.Minute
