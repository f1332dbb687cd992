package identity

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/go-jose/go-jose/v4"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

// accessLife is how long an access token lives at most.
const accessLife = 5 * time.Minute

// tokenAnswer is what the token endpoint answers (RFC 6749 5.1).
type tokenAnswer struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	Scope        string `json:"scope"`
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
}

// grants are the ways to come to tokens. Neither the implicit one nor that by password is
// among them (RFC 9700 2.1.2, 2.4).
var grants = map[string]func(*service, context.Context, *claimant, url.Values) (*tokenAnswer, error){
	"authorization_code": (*service).grantAuthorizationCode,
	"client_credentials": (*service).grantClientCredentials,
	"refresh_token":      (*service).grantRefreshToken,
	deviceGrant:          (*service).grantDeviceCode,
}

// tokenEndpoint issues tokens (RFC 6749 3.2).
func (s *service) tokenEndpoint(w http.ResponseWriter, r *http.Request) {
	answer, err := s.issue(origin(r, ""))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Pragma", "no-cache") // RFC 6749 5.1
	writeJSON(w, http.StatusOK, answer)
}

func (s *service) issue(r *http.Request) (*tokenAnswer, error) {
	f, err := form(r)
	if err != nil {
		return nil, err
	}
	who, err := s.claimantOf(r, f)
	if err != nil {
		return nil, err
	}
	way := f.Get("grant_type")
	if way == "" {
		return nil, oauthRefusal("invalid_request", "grant_type is missing")
	}
	grant, ok := grants[way]
	if !ok {
		return nil, oauthRefusal("unsupported_grant_type", "this is no way to come to a token here")
	}
	return grant(s, r.Context(), who, f)
}

// grantClientCredentials issues a token to a client for itself (RFC 6749 4.4), or to a
// program that has an API key.
func (s *service) grantClientCredentials(ctx context.Context, who *claimant, f url.Values) (*tokenAnswer, error) {
	var allowed []string
	alg, p := jose.ES256, pathKeyAsClient
	switch {
	case who.key.GetBrandId() != "":
		return nil, oauthRefusal("unauthorized_client", "a brand's key is not exchanged for tokens: call with it, and name the organization")
	case who.key != nil:
		allowed = scopesOfKeys(who.key.GetScopes())
	case !mayUse(who.client, grantClient):
		return nil, oauthRefusal("unauthorized_client", "the client may not act by itself")
	default:
		allowed = withoutPersonal(who.client.GetScopes())
		alg, p = algorithmOf(who.client), pathMachine
	}
	scopes, err := allowedScopes(askedScopes(f.Get("scope")), allowed)
	if err != nil {
		return nil, err
	}
	proof := who.subject()
	made, err := s.makeAccess(ctx, alg, access{
		session: who.id(), subject: who.id(), user: proof.user, organization: proof.organization, client: who.id(), scopes: scopes,
	})
	if err != nil {
		return nil, err
	}
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		if err := admit(tx, proof, p); err != nil {
			return err
		}
		return tokens.Put(tx, made.kept)
	})
	if err != nil {
		return nil, err
	}
	return made.answer(), nil
}

// withoutPersonal leaves out the scopes that are about a person.
func withoutPersonal(scopes []string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
		return scope != scopeAll && slices.Contains(plainScopes, scope)
	})
}

// access is what an access token says.
type access struct {
	session      string // that it belongs to, an API key or a client
	subject      string // sub: the user, or a client that acts by itself
	user         string // as whom it acts
	organization string
	client       string
	scopes       []string
	authTime     time.Time   // when the user signed in; zero for a client
	factors      []pb.Factor // with which; none for a client
	until        time.Time   // when the session ends; zero if that is not known
}

// accessToken is one that was made, and what is kept of it.
type accessToken struct {
	text string
	kept *identitystorepb.SessionToken
}

// makeAccess makes an access token (RFC 9068). It is accepted once what is kept of it is
// in the store.
func (s *service) makeAccess(ctx context.Context, alg jose.SignatureAlgorithm, a access) (*accessToken, error) {
	now := s.now()
	end := now.Add(accessLife)
	if !a.until.IsZero() && a.until.Before(end) {
		end = a.until
	}
	id := s.newID()
	claims := map[string]any{
		"iss": s.issuer, "sub": a.subject, "aud": s.issuer, "client_id": a.client, "iat": now.Unix(), "exp": end.Unix(),
		"jti": id, "scope": strings.Join(a.scopes, " "), "sid": a.session, "uid": a.user, "org": a.organization,
	}
	if !a.authTime.IsZero() {
		claims["auth_time"] = a.authTime.Unix()
	}
	if acr := classOf(a.factors); acr != "" { // RFC 9470 6.1
		claims["acr"] = acr
	}
	text, err := s.sign(ctx, alg, "at+jwt", claims)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(text))
	return &accessToken{text, &identitystorepb.SessionToken{
		Id: tokenID(hash[:]), SessionId: a.session, Scopes: carriedBy(a.scopes).Bytes(), ClientId: a.client,
		Scope: strings.Join(a.scopes, " "), TokenId: id, CreateTime: timestamppb.New(time.Unix(now.Unix(), 0)),
		ExpireTime: timestamppb.New(time.Unix(end.Unix(), 0)),
	}}, nil
}

func (t *accessToken) answer() *tokenAnswer {
	life := t.kept.GetExpireTime().AsTime().Sub(t.kept.GetCreateTime().AsTime())
	return &tokenAnswer{AccessToken: t.text, TokenType: "Bearer", ExpiresIn: int64(life / time.Second), Scope: t.kept.GetScope()}
}

// resolveClient answers for a client that acts by itself.
func resolveClient(tx *store.Tx, c *pb.OauthClient, t *identitystorepb.SessionToken, named string) (*pb.SessionFacts, error) {
	who := subject{organization: c.GetOrganizationId(), user: actsAs(c), client: c.GetId(), accessToken: t.GetId(), named: named}
	if err := admit(tx, who, pathMachineCall); err != nil {
		return nil, err
	}
	return &pb.SessionFacts{
		SessionId: c.GetId(), UserId: actsAs(c), OrganizationId: c.GetOrganizationId(),
		Surface: pb.Surface_SURFACE_API, ExpireTime: t.GetExpireTime(), Scopes: t.Scopes,
	}, nil
}
