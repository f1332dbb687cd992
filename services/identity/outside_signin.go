package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// outsideLife is how long a person has at a provider.
const outsideLife = 10 * time.Minute

// providerFailures counts the sign-ins by a provider that failed, for the journal alone:
// nobody guesses what a provider signs, so none is kept waiting.
func providerFailures(provider string) counter {
	return counter{id: "provider/" + provider, what: "sign-ins by a provider", free: 1 << 30, most: 1 << 30, base: time.Second}
}

// ListSignInProviders implements pb.OutsideSignInServiceServer.
func (s *service) ListSignInProviders(ctx context.Context, req *pb.ListSignInProvidersRequest) (*pb.ListSignInProvidersResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListSignInProvidersResponse, error) {
		o, ok := organizations.Get(tx, req.GetOrganizationId())
		if !ok {
			return &pb.ListSignInProvidersResponse{}, nil
		}
		page, next, err := store.Page(tx, req, signsIn, providersByOwner.Range(o.GetId()), providersByOwner.Range(o.GetBrandId()))
		resp := &pb.ListSignInProvidersResponse{NextPageToken: next}
		for _, p := range page {
			resp.Providers = append(resp.Providers, &pb.SignInProvider{ProviderId: p.GetId(), DisplayName: p.GetDisplayName()})
		}
		return resp, err
	})
}

// signsIn tells whether a provider signs anybody in.
func signsIn(p *pb.OutsideProvider) bool { return p.GetDeleteTime() == nil && !p.GetDisabled() }

// BeginOutsideSignIn implements pb.OutsideSignInServiceServer.
func (s *service) BeginOutsideSignIn(ctx context.Context, req *pb.BeginOutsideSignInRequest) (*pb.BeginOutsideSignInResponse, error) {
	p, err := read(ctx, s, func(tx *store.Tx) (*pb.OutsideProvider, error) {
		p, ok := providers.Get(tx, req.GetProviderId())
		if !ok || !signsIn(p) || req.GetOrganizationId() != "" && !isFor(tx, p, req.GetOrganizationId()) {
			return nil, outsideFailed()
		}
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	c := s.newChallenge("")
	c.OrganizationId, c.Surface = req.GetOrganizationId(), int32(req.GetSurface())
	if p.GetOwner() != brandProvider {
		c.OrganizationId = p.GetOrganizationId()
	}
	c.WithRefresh, c.DeviceName, c.RememberDevice = req.GetWithRefresh(), req.GetDeviceName(), req.GetRememberDevice()
	address, secret, err := s.goOutside(ctx, p, c, req.GetRedirectUri(), req.GetFresh())
	return &pb.BeginOutsideSignInResponse{AuthorizationUrl: address, Challenge: secret, ExpireTime: c.GetExpireTime()}, err
}

// goOutside returns where a person is to go, and the challenge with which he comes back.
//
// SECURITY: state, nonce and verifier are in the challenge, which only whoever began has.
// So nobody is signed in by what somebody else began, nor with a code of somebody else.
func (s *service) goOutside(ctx context.Context, p *pb.OutsideProvider, c *identitystorepb.Challenge, redirect string, fresh bool) (address, secret string, err error) {
	if !slices.Contains(p.GetRedirectUris(), redirect) && (s.issuer == "" || redirect != s.issuer+outsideBackPath) {
		return "", "", fault.Invalid("redirect_uri", "must be one of the provider's redirect_uris")
	}
	if _, err := s.box(); err != nil {
		return "", "", err
	}
	d, err := s.outside.discover(ctx, p.GetIssuer())
	if err != nil {
		return "", "", err
	}
	state, nonce, verifier := s.newText(), s.newText(), s.newText()
	stateHash, nonceHash := sha256.Sum256([]byte(state)), sha256.Sum256([]byte(nonce))
	c.ExpireTime = timestamppb.New(s.now().Add(outsideLife))
	c.Journey = &identitystorepb.OutsideJourney{
		ProviderId: p.GetId(), StateHash: stateHash[:], NonceHash: nonceHash[:], Verifier: verifier, RedirectUri: redirect, Fresh: fresh,
	}
	options := []oauth2.AuthCodeOption{oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)}
	if fresh {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	secret, err = s.sealChallenge(c)
	return d.config(p, "", redirect).AuthCodeURL(state, options...), secret, err
}

// newText returns 256 random bits as a text.
func (s *service) newText() string { return base64.RawURLEncoding.EncodeToString(s.hasher.bytes(32)) }

// openJourney reads a challenge with which somebody went to a provider.
func (s *service) openJourney(secret string) (*identitystorepb.Challenge, error) {
	c, err := s.openChallenge(secret)
	if err == nil && c.GetJourney() == nil {
		err = challengeOver()
	}
	return c, err
}

// comeBack takes a challenge with which somebody went to a provider, and returns what that
// says.
func (s *service) comeBack(ctx context.Context, c *identitystorepb.Challenge, answer *pb.OutsideAnswer) (p *pb.OutsideProvider, a *assertion, err error) {
	secret := ""
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) (err error) {
		ok := false
		if p, ok = providers.Get(tx, c.GetJourney().GetProviderId()); !ok || !signsIn(p) || challengeSpent(tx, subject{challenge: c.GetId()}) {
			return challengeOver()
		}
		if secret, err = s.providerSecret(tx, p); err != nil {
			return err
		}
		return spendChallenge(tx, c)
	})
	if err != nil {
		return nil, nil, err
	}
	if a, err = s.outside.assert(ctx, p, secret, c.GetJourney(), answer); err != nil {
		return nil, nil, s.tellOutside(ctx, p, err)
	}
	return p, a, nil
}

// providerSecret opens the secret that a provider knows the suite by, and seals it anew if
// that was done with another key than today's.
func (s *service) providerSecret(tx *store.Tx, p *pb.OutsideProvider) (string, error) {
	kept, ok := providerSecrets.Get(tx, p.GetId())
	if !ok {
		return "", nil
	}
	name := providerSecretName(p.GetId())
	secret, err := s.sealer.Open(name, kept.GetSealed())
	if err != nil {
		return "", fmt.Errorf("open the secret of an outside provider: %w", err)
	}
	if s.sealer.Current(kept.GetSealed()) {
		return string(secret), nil
	}
	kept.Sealed = s.sealer.Seal(name, secret)
	return string(secret), providerSecrets.Put(tx, kept)
}

// tellOutside tells the journal of a sign-in by a provider that failed since what was shown
// is wrong, and returns what the caller is told.
func (s *service) tellOutside(ctx context.Context, p *pb.OutsideProvider, err error) error {
	wrong, ok := errors.AsType[*fault.Error](err)
	if !ok || wrong.Code != codes.Unauthenticated {
		return err
	}
	counted := providerFailures(p.GetId())
	if err := s.countFailure(context.WithoutCancel(ctx), counted); err != nil {
		return err
	}
	f := failure{organizations: []string{p.GetOrganizationId()}, factor: factorProvider, from: s.placeOf(ctx)}
	return s.tellFailure(ctx, counted, f, err)
}

// CompleteOutsideSignIn implements pb.OutsideSignInServiceServer.
func (s *service) CompleteOutsideSignIn(ctx context.Context, req *pb.CompleteOutsideSignInRequest) (*pb.CompleteOutsideSignInResponse, error) {
	c, err := s.openJourney(req.GetChallenge())
	if err != nil {
		return nil, err
	}
	if c.GetSessionId() != "" { // it is to link
		return nil, challengeOver()
	}
	p, a, err := s.comeBack(ctx, c, req.GetAnswer())
	if err != nil {
		return nil, err
	}
	link, err := s.linkOf(ctx, p, a)
	if err != nil {
		return nil, s.tellOutside(ctx, p, err)
	}
	// From here on the person is known: the journal names her, and her answers are hers.
	ctx = withCaller(ctx, link.GetUserId())
	came := proven{
		subject: subject{
			organization: c.GetOrganizationId(), user: link.GetUserId(), provider: p.GetId(), link: link.GetId(), shown: []pb.Factor{a.factor(p)},
		},
		surface: pb.Surface(c.GetSurface()), refreshable: c.GetWithRefresh(), deviceName: c.GetDeviceName(), remember: c.GetRememberDevice(),
		from: s.placeOf(ctx), provenAt: a.provenAt(s.now()),
	}
	found, err := read(ctx, s, func(tx *store.Tx) (person, error) { return findMemberships(tx, came.subject, person{}), nil })
	if err != nil {
		return nil, err
	}
	if came.organization, err = found.choose(c.GetOrganizationId()); err != nil {
		return nil, s.tellOutside(ctx, p, outsideRefusal(err))
	}
	if err := s.checkSurfaceOf(ctx, &came); err != nil {
		return nil, err
	}
	return s.letInOutside(ctx, came, link)
}

// letInOutside opens a session for whoever a provider has signed in, or asks for more.
func (s *service) letInOutside(ctx context.Context, p proven, link *pb.OutsideLink) (*pb.CompleteOutsideSignInResponse, error) {
	profile, err := read(ctx, s, func(tx *store.Tx) (*pb.Profile, error) { return profileOf(tx, p.user) })
	if err != nil {
		return nil, err
	}
	challenge, err := s.demanded(ctx, p, profile.GetEmail())
	if challenge != nil || err != nil {
		return &pb.CompleteOutsideSignInResponse{Challenge: challenge}, err
	}
	fresh := s.newOpening()
	var session *pb.Session
	err = s.db.Update(inDirectory(context.WithoutCancel(ctx)), func(tx *store.Tx) (err error) {
		if err := admit(tx, p.subject, pathOutside); err != nil {
			return err
		}
		clearFailures(tx, providerFailures(p.provider))
		session, err = fresh.open(tx, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.opened(ctx, fresh, session); err != nil {
		return nil, err
	}
	resp := &pb.CompleteOutsideSignInResponse{
		Session: session, Token: fresh.token, RefreshToken: fresh.refresh, TokenExpireTime: timestamppb.New(fresh.expires),
	}
	if p.remember {
		resp.DeviceToken = fresh.deviceToken
	}
	return resp, nil
}

// outsideRefusal says of an account what is said of an address and a password.
func outsideRefusal(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Reason == faultpb.Reason_REASON_SIGN_IN_FAILED {
		return outsideFailed()
	}
	return err
}

// outsideFailed is the one answer to whatever is wrong with whom a provider has signed in.
func outsideFailed() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_SIGN_IN_FAILED,
		"this account of the provider signs in no active member of the organization: sign in otherwise and link it, or ask whoever manages the users to invite you", nil)
}

// providerDeleted, and those below, hold when a subject came by a provider, and that may not
// sign it in, or not any more.
func providerDeleted(tx *store.Tx, s subject) bool {
	if s.provider == "" {
		return false
	}
	p, ok := providers.Get(tx, s.provider)
	return !ok || p.GetDeleteTime() != nil
}

func providerDisabled(tx *store.Tx, s subject) bool {
	p, _ := providers.Get(tx, s.provider)
	return p.GetDisabled()
}

// providerElsewhere holds when the provider is none of the organization or its brand.
func providerElsewhere(tx *store.Tx, s subject) bool {
	p, ok := providers.Get(tx, s.provider)
	return s.provider != "" && (!ok || !isFor(tx, p, s.organization))
}

func linkRemoved(tx *store.Tx, s subject) bool {
	if s.provider == "" {
		return false
	}
	l, ok := links.Get(tx, s.link)
	return !ok || l.GetUserId() != s.user || l.GetProviderId() != s.provider
}

// addressForeign holds when the address that somebody has here is of no domain that the
// provider is for.
func addressForeign(tx *store.Tx, s subject) bool {
	p, _ := providers.Get(tx, s.provider)
	known, _ := profiles.Get(tx, s.user)
	return len(p.GetEmailDomains()) > 0 && !slices.Contains(p.GetEmailDomains(), domainOf(known.GetEmail()))
}

// providerNarrow holds when nothing but the word of a provider was shown in a session, and
// that is not for all organizations of its person.
//
// SECURITY: whoever runs the provider of one organization must not get into another by
// what he sets up for its people.
func providerNarrow(tx *store.Tx, s subject) bool {
	session, _ := sessions.Get(tx, s.session)
	return narrow(tx, session.GetProviderId(), s.user, session.GetFactors())
}

// narrow tells whether factors are the word of a provider alone, and that is not for all
// organizations of a person.
func narrow(tx *store.Tx, provider, user string, factors []pb.Factor) bool {
	own := func(f pb.Factor) bool { return f != factorProvider && f != factorProviderMulti }
	if provider == "" || slices.ContainsFunc(factors, own) {
		return false
	}
	p, ok := providers.Get(tx, provider)
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(user)) {
		if !ok || !isFor(tx, p, u.GetOrganizationId()) {
			return true
		}
	}
	return false
}

func stepUpOwn() error {
	return stepUpNeeded("prove by something of your own who you are, since your provider is not for all your organizations", "single_factor")
}
