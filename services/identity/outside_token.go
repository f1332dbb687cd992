package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

const (
	// assertionLife is how old an ID token may be, clockSkew how far ahead the clock of a
	// provider.
	assertionLife = 5 * time.Minute
	clockSkew     = time.Minute
	// maxSubject is how long a subject is at most (OpenID Connect Core 1.0 2).
	maxSubject = 255
)

// signedBy are the algorithms that an ID token may be signed by.
//
// SECURITY: with a public key alone. What is signed with a secret that several know, or not
// at all, proves nothing.
var signedBy = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// assertion is what a provider says of whoever has signed in there.
type assertion struct {
	subject  string
	authTime time.Time // zero if it does not say
	methods  []string  // RFC 8176
	email    string
	verified bool // that is the address
}

// idClaims are the claims of an ID token that the library does not read (OpenID Connect
// Core 1.0 2, 5.1).
type idClaims struct {
	AuthorizedParty string   `json:"azp"`
	AuthTime        int64    `json:"auth_time"`
	Methods         []string `json:"amr"`
	Email           string   `json:"email"`
	EmailVerified   any      `json:"email_verified"`
}

// config is how the suite is known to a provider.
func (d *discovery) config(p *pb.OutsideProvider, secret, redirect string) *oauth2.Config {
	endpoint := d.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInHeader // OpenID Connect Core 1.0 9: the default
	inHeader := len(d.TokenAuth) == 0 || slices.Contains(d.TokenAuth, "client_secret_basic")
	if secret == "" || !inHeader {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{ClientID: p.GetClientId(), ClientSecret: secret, Endpoint: endpoint, RedirectURL: redirect, Scopes: p.GetScopes()}
}

// assert exchanges what a provider sent a person back with for what it says of the person.
func (o *outside) assert(ctx context.Context, p *pb.OutsideProvider, secret string, j *identitystorepb.OutsideJourney, answer *pb.OutsideAnswer) (*assertion, error) {
	if !hashes(answer.GetState(), j.GetStateHash()) {
		return nil, proofWrong()
	}
	d, err := o.discover(ctx, p.GetIssuer())
	if err != nil {
		return nil, err
	}
	// SECURITY: so no other provider gets the code of this one (RFC 9207 2.4).
	if answer.GetIss() != p.GetIssuer() && (answer.GetIss() != "" || d.NamesIssuer) {
		return nil, proofWrong()
	}
	var a *assertion
	err = o.ask(ctx, func(ctx context.Context) error {
		token, err := d.config(p, secret, j.GetRedirectUri()).Exchange(ctx, answer.GetCode(), oauth2.VerifierOption(j.GetVerifier()))
		if err != nil {
			return codeRefused(err)
		}
		if a, err = d.verify(ctx, p, j, token, o.now); err != nil {
			return err
		}
		return d.lookUpEmail(ctx, p, token, a)
	})
	if err != nil {
		return nil, outsideFault(ctx, p.GetIssuer(), err)
	}
	return a, nil
}

// hashes tells whether a text is that of a SHA-256.
func hashes(text string, sum []byte) bool {
	got := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(got[:], sum) == 1
}

// codeRefused tells why a provider gives no tokens for a code: since it does not know the
// suite, or that code.
func codeRefused(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.ErrorCode {
	case "invalid_grant", "invalid_request":
		return proofWrong()
	}
	return unfit("it does not know the suite by this client id and secret")
}

// keys remembers why the keys of a provider could not be had, which the library forgets.
type keys struct {
	oidc.KeySet
	err error
}

// VerifySignature implements oidc.KeySet.
func (k *keys) VerifySignature(ctx context.Context, jwt string) (payload []byte, err error) {
	payload, err = k.KeySet.VerifySignature(ctx, jwt)
	k.err = err
	return payload, err
}

// verify holds an ID token against what it has to be (OpenID Connect Core 1.0 3.1.3.7).
func (d *discovery) verify(ctx context.Context, p *pb.OutsideProvider, j *identitystorepb.OutsideJourney, token *oauth2.Token, now func() time.Time) (*assertion, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, unfit("it sends no ID token")
	}
	keys := &keys{KeySet: d.keySet}
	id, err := oidc.NewVerifier(p.GetIssuer(), keys, &oidc.Config{ClientID: p.GetClientId(), SupportedSigningAlgs: signedBy, Now: now}).Verify(ctx, raw)
	if cause := errors.Unwrap(keys.err); cause != nil { // else they say no
		return nil, cause
	}
	var claims idClaims
	if err != nil || id.Claims(&claims) != nil {
		return nil, proofWrong()
	}
	parties := len(id.Audience) == 1 && claims.AuthorizedParty == "" || claims.AuthorizedParty == p.GetClientId()
	age := now().Sub(id.IssuedAt)
	switch {
	case id.Issuer != p.GetIssuer(), !parties, !hashes(id.Nonce, j.GetNonceHash()), age > assertionLife, age < -clockSkew:
		return nil, proofWrong()
	case id.AccessTokenHash != "" && id.VerifyAccessToken(token.AccessToken) != nil:
		return nil, proofWrong()
	case id.Subject == "" || len(id.Subject) > maxSubject || !isASCII(strings.ReplaceAll(id.Subject, " ", "")):
		return nil, unfit("it names nobody by a subject of at most 255 characters")
	}
	a := &assertion{subject: id.Subject, methods: claims.Methods, email: claims.Email, verified: claims.EmailVerified == true}
	if claims.AuthTime > 0 {
		a.authTime = time.Unix(claims.AuthTime, 0)
	}
	// OpenID Connect Core 1.0 3.1.2.1: with max_age the token says when.
	if j.GetFresh() && (a.authTime.IsZero() || now().Sub(a.authTime) > assertionLife) {
		return nil, proofWrong()
	}
	return a, nil
}

// lookUpEmail asks for the address of whoever has signed in, where it is asked for and the
// ID token has none (OpenID Connect Core 1.0 5.4). Without an answer there is none.
func (d *discovery) lookUpEmail(ctx context.Context, p *pb.OutsideProvider, token *oauth2.Token, a *assertion) error {
	if a.email != "" || d.UserInfoEndpoint() == "" || !slices.Contains(p.GetScopes(), scopeEmail) {
		return nil
	}
	info, err := d.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil || info.Subject != a.subject { // OpenID Connect Core 1.0 5.3.2
		return nil
	}
	var claims idClaims
	if info.Claims(&claims) == nil {
		a.email, a.verified = claims.Email, claims.EmailVerified == true
	}
	return nil
}

// factor is what the word of a provider is worth.
func (a *assertion) factor(p *pb.OutsideProvider) pb.Factor {
	if p.GetTrustedForMfa() && slices.Contains(a.methods, "mfa") {
		return factorProviderMulti
	}
	return factorProvider
}

// provenAt is when somebody has proven who he is, by the word of a provider. One that does
// not say has not seen it lately.
func (a *assertion) provenAt(now time.Time) time.Time {
	switch {
	case a.authTime.IsZero():
		return now.Add(-freshFor)
	case a.authTime.After(now):
		return now
	}
	return a.authTime
}
