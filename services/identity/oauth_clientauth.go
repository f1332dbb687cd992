package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"strings"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

// claimant is who asks at an endpoint, as far as it says: a client with its secret, or an
// API key with its token in the place of both.
type claimant struct {
	client *pb.OauthClient // nil for an API key
	key    *pb.ApiKey      // nil for a client
	secret string          // its SHA-256; empty if there was none
}

func (c *claimant) id() string {
	if c.key != nil {
		return c.key.GetId()
	}
	return c.client.GetId()
}

// organization returns whose tokens the claimant may look at; brand instead if it is one
// of a brand.
func (c *claimant) organization() (organization, brand string) {
	switch {
	case c.key.GetBrandId() != "":
		return "", c.key.GetBrandId()
	case c.key != nil:
		return c.key.GetOrganizationId(), ""
	case c.client.GetOwner() == brandOwned:
		return "", c.client.GetBrandId()
	}
	return c.client.GetOrganizationId(), ""
}

// credentialsOf reads what a client shows, in one of two ways (RFC 6749 2.3.1).
func credentialsOf(r *http.Request, f url.Values) (id, secret string, err error) {
	if r.Header.Get("Authorization") == "" {
		return f.Get("client_id"), f.Get("client_secret"), nil
	}
	id, secret, ok := r.BasicAuth()
	if !ok {
		return "", "", invalidClient()
	}
	if id, err = url.QueryUnescape(id); err != nil {
		return "", "", invalidClient()
	}
	if secret, err = url.QueryUnescape(secret); err != nil {
		return "", "", invalidClient()
	}
	if f.Has("client_secret") || f.Has("client_id") && f.Get("client_id") != id {
		return "", "", oauthRefusal("invalid_request", "the client proves itself in more than one way")
	}
	return id, secret, nil
}

// claimantOf finds who asks and makes sure that it proves itself. What is issued to it is
// up to the gate.
func (s *service) claimantOf(r *http.Request, f url.Values) (*claimant, error) {
	id, secret, err := credentialsOf(r, f)
	if err != nil {
		return nil, err
	}
	return read(r.Context(), s, func(tx *store.Tx) (*claimant, error) {
		c, err := findClaimant(tx, id, secret)
		if err != nil {
			return nil, err
		}
		return c, admit(tx, c.subject(), c.path())
	})
}

func findClaimant(tx *store.Tx, id, secret string) (*claimant, error) {
	c := &claimant{}
	if secret != "" {
		hash, err := token.Hash(secret)
		if err != nil {
			return nil, invalidClient()
		}
		c.secret = string(hash[:])
	}
	var ok bool
	if strings.HasPrefix(secret, apiKeyPrefix) {
		if c.key, ok = apiKeys.Get(tx, id); ok {
			return c, nil
		}
		return nil, invalidClient()
	}
	if c.client, ok = clients.Get(tx, id); !ok {
		return nil, invalidClient()
	}
	return c, nil
}

// subject is the claimant by itself.
func (c *claimant) subject() subject {
	if c.key != nil {
		return subject{organization: c.key.GetOrganizationId(), user: c.key.GetUserId(), apiKey: c.key.GetId(), keyToken: tokenID([]byte(c.secret))}
	}
	return subject{organization: c.client.GetOrganizationId(), user: actsAs(c.client), client: c.client.GetId(), clientSecret: c.secret}
}

// path is that on which a claimant proves itself.
func (c *claimant) path() path {
	if c.key != nil {
		return pathKeyAsClient
	}
	return pathProve
}

// secretWrong holds when a client does not prove itself: a confidential one by a current
// secret, a public one by none.
//
// SECURITY: hashes are compared in constant time, though they are of 256 random bits.
func secretWrong(tx *store.Tx, s subject) bool {
	c, ok := clients.Get(tx, s.client)
	if !ok || c.GetKind() != confidential {
		return !ok || s.clientSecret != ""
	}
	kept, _ := clientSecrets.Get(tx, s.client)
	for _, secret := range kept.GetSecrets() {
		current := secret.GetExpireTime() == nil || secret.GetExpireTime().AsTime().After(tx.Now())
		if current && len(secret.GetHash()) == sha256.Size && subtle.ConstantTimeCompare(secret.GetHash(), []byte(s.clientSecret)) == 1 {
			return false
		}
	}
	return true
}

func clientGone(tx *store.Tx, s subject) bool {
	c, ok := clients.Get(tx, s.client)
	return !ok || c.GetDeleteTime() != nil
}

// keyTokenWrong holds when the token that an API key is shown with is not its own.
func keyTokenWrong(tx *store.Tx, s subject) bool {
	t, ok := tokens.Get(tx, s.keyToken)
	return !ok || t.GetSessionId() != s.apiKey || t.GetExpireTime() != nil
}
