package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

const (
	sessionLife   = 12 * time.Hour
	sessionPrefix = "lk_"
	// maxSessions is how many live sessions one person can have. One more ends the oldest.
	maxSessions = 100
)

var (
	webKey = catalog.MustGrant("Web")
	appKey = catalog.MustGrant("App")
)

// CreateSession implements pb.SessionServiceServer.
func (s *service) CreateSession(ctx context.Context, req *pb.CreateSessionRequest) (*pb.CreateSessionResponse, error) {
	email, _ := normalEmail(req.GetEmail())
	from := s.placeOf(ctx)
	who, err := read(ctx, s, func(tx *store.Tx) (person, error) {
		who := findPerson(tx, email, req.GetOrganizationId())
		who.otherKinds, who.from = otherKinds(tx), from
		who.device, who.guesses = s.guesses(tx, who, email, req.GetDeviceToken(), from)
		return who, nil
	})
	if err != nil {
		return nil, err
	}
	stale, err := s.provePassword(ctx, who, req.GetPassword())
	if err != nil {
		return nil, err
	}
	organization, err := who.choose(req.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	// From here on the person is known: the journal names her, and her answers are hers.
	o := store.OriginOf(ctx)
	o.Caller = who.profile.GetId()
	ctx = store.WithOrigin(ctx, o)
	p := proven{
		subject: subject{
			organization: organization, user: who.profile.GetId(), shown: []pb.Factor{factorPassword},
			password: passwordMark(who.credential.GetPasswordHash()), short: isShort(req.GetPassword()),
		},
		surface: req.GetSurface(), refreshable: req.GetWithRefresh(), guesses: who.guesses,
		device: who.device, deviceName: req.GetDeviceName(), remember: req.GetRememberDevice(), from: from,
	}
	resp, err := s.letIn(ctx, req, p, stale, who.profile.GetEmail())
	if err != nil && !isSignInFailed(err) { // the password was right, so it was no guess
		return nil, errors.Join(err, s.uncount(ctx, p.guesses...))
	}
	return resp, err
}

// letIn opens a session for whoever has shown the right password, or asks for more.
func (s *service) letIn(ctx context.Context, req *pb.CreateSessionRequest, p proven, stale bool, email string) (*pb.CreateSessionResponse, error) {
	if err := s.checkSurfaceOf(ctx, &p); err != nil {
		return nil, err
	}
	p.rehashed = s.rehash(ctx, stale, req.GetPassword())
	challenge, err := s.demanded(ctx, p, email)
	if err != nil {
		return nil, err
	}
	if challenge != nil {
		return &pb.CreateSessionResponse{Challenge: challenge}, nil
	}
	return s.openSession(ctx, req, p)
}

// isSignInFailed tells whether an error says that a password is wrong.
func isSignInFailed(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Reason == faultpb.Reason_REASON_SIGN_IN_FAILED
}

// provePassword tells whether a hash should be made anew, if the password of a sign-in
// is the right one. That it is wrong counts, of an unknown address too.
func (s *service) provePassword(ctx context.Context, who person, password string) (stale bool, err error) {
	if err := s.countFailure(ctx, who.guesses...); err != nil {
		return false, err
	}
	ok, stale, err := s.hasher.verify(ctx, who.credential.GetPasswordHash(), password, who.otherKinds...)
	if err != nil {
		return false, errors.Join(err, s.uncount(ctx, who.guesses...))
	}
	if !ok {
		return false, s.tellFailure(ctx, who.guesses[0], who.failure(), signInFailed())
	}
	return stale, nil
}

// demanded returns the challenge that a password has to be followed by, or nil if it
// does alone.
func (s *service) demanded(ctx context.Context, p proven, email string) (*pb.Challenge, error) {
	var factors []pb.Factor
	first := false // has no second factor yet
	missing, err := read(ctx, s, func(tx *store.Tx) (bool, error) {
		factors, first = secondFactors(tx, p.user), !hasSecondFactor(tx, p.user)
		return secondFactorMissing(tx, p.subject), nil
	})
	if err != nil || !missing {
		return nil, err
	}
	c := s.newChallenge(p.user)
	c.OrganizationId, c.Surface, c.Shown = p.organization, int32(p.surface), numbersOf(p.shown...)
	c.Factors = numbersOf(factors...)
	c.WithRefresh, c.DeviceName, c.RememberDevice, c.DeviceId = p.refreshable, p.deviceName, p.remember, p.device
	c.ProviderId, c.LinkId = p.provider, p.link
	if first {
		c.TotpSecret, c.Factors = s.hasher.bytes(totpSecret), numbersOf(factorTOTP)
	}
	err = s.db.Update(inDirectory(ctx), func(tx *store.Tx) error {
		if err := admit(tx, p.subject, pathChallenge); err != nil {
			return err
		}
		if first && narrow(tx, p.provider, p.user, p.shown) {
			return stepUpOwn()
		}
		p.forgetGuesses(tx)
		c.PasswordDigest, err = keepRehashed(tx, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	shown, err := s.shownChallenge(ctx, c)
	if err == nil && len(c.GetTotpSecret()) > 0 {
		shown.TotpSetup = totpSetup(c.GetTotpSecret(), email)
	}
	return shown, err
}

// proven is what a sign-in has shown, and where it goes.
type proven struct {
	subject
	surface     pb.Surface
	rehashed    string    // the password's hash at today's price, or empty
	guesses     []counter // that a wrong password would have counted for
	refreshable bool
	device      string // id of the known device that it comes from, or empty
	deviceName  string
	remember    bool // the device
	from        place
	provenAt    time.Time // if that is not now
}

// forgetGuesses forgets the wrong passwords after the right one.
func (p *proven) forgetGuesses(tx *store.Tx) {
	if p.provider != "" {
		return // it was no password
	}
	clearFailures(tx, append(p.guesses, passwordFailures(p.user), sessionFailures(p.user))...)
}

// openSession keeps a session, as far as what was proven still holds.
//
// SECURITY: the token is no part of the answer that the store keeps. A repeat is
// answered with the first session, to which the new token does not belong.
func (s *service) openSession(ctx context.Context, req *pb.CreateSessionRequest, p proven) (*pb.CreateSessionResponse, error) {
	fresh := s.newOpening()
	resp, err := do(context.WithoutCancel(ctx), s, req, func(tx *store.Tx) (*pb.CreateSessionResponse, error) {
		if err := admit(tx, p.subject, pathSignIn); err != nil {
			return nil, err
		}
		p.forgetGuesses(tx)
		if _, err := keepRehashed(tx, p); err != nil {
			return nil, err
		}
		session, err := fresh.open(tx, p)
		return &pb.CreateSessionResponse{Session: session}, err
	})
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		return resp, s.uncount(ctx, p.guesses...)
	}
	if ok, err := s.opened(ctx, fresh, resp.GetSession()); !ok {
		return resp, errors.Join(err, s.uncount(ctx, p.guesses...))
	}
	resp.Token, resp.RefreshToken, resp.TokenExpireTime = fresh.token, fresh.refresh, timestamppb.New(fresh.expires)
	if req.GetRememberDevice() {
		resp.DeviceToken = fresh.deviceToken
	}
	return resp, nil
}

// opening is a session that is about to be opened, with what it hands out.
type opening struct {
	*handout
	id                    string
	deviceToken, deviceID string
	evicted               []string // tags of the sessions that made room
}

func (s *service) newOpening() *opening {
	o := &opening{handout: s.newHandout(), id: s.newID()}
	o.deviceToken, o.deviceID = s.newSecret(devicePrefix)
	return o
}

// open keeps the session and what proves it.
func (o *opening) open(tx *store.Tx, p proven) (*pb.Session, error) {
	o.evicted = evictSessions(tx, p.user)
	session := &pb.Session{
		Id: o.id, UserId: p.user, OrganizationId: p.organization, Surface: p.surface, Refreshable: p.refreshable, ProviderId: p.provider,
		CreateTime: timestamppb.New(tx.Now()), ExpireTime: timestamppb.New(tx.Now().Add(lifeOf(p.surface, p.refreshable))),
	}
	p.from.where(session, p.deviceName)
	note(session, tx.Now(), p.shown...)
	if !p.provenAt.IsZero() {
		session.AuthTime = timestamppb.New(p.provenAt)
	}
	if err := sessions.Put(tx, session); err != nil {
		return nil, err
	}
	if err := keepHours(tx, o.id, p.hours); err != nil {
		return nil, err
	}
	if p.remember {
		if err := o.remember(tx, p.user); err != nil {
			return nil, err
		}
	}
	if err := tellNewDevice(tx, p, session); err != nil {
		return nil, err
	}
	return session, o.keep(tx, session)
}

// opened tells of the sessions that made room, and whether the one that was answered with
// is the one that was just opened, and not that of a call before.
func (s *service) opened(ctx context.Context, o *opening, answered *pb.Session) (bool, error) {
	if answered.GetId() != o.id {
		return false, nil
	}
	if len(o.evicted) > 0 {
		if err := s.tellVerifiers(context.WithoutCancel(ctx), o.evicted...); err != nil {
			return false, err
		}
		s.hub.Publish(o.evicted...)
	}
	return true, nil
}

// keepRehashed keeps the password's new hash if there is one, and returns the mark of the
// one that is kept now.
func keepRehashed(tx *store.Tx, p proven) ([]byte, error) {
	if p.rehashed == "" {
		return p.password, nil
	}
	kept, ok := credentials.Get(tx, p.user)
	if !ok {
		return nil, signInFailed()
	}
	return passwordMark(p.rehashed), replacePassword(tx, kept, p.rehashed, p.short)
}

// evictSessions makes room for one more session of a person, and returns the tags of
// what it ended.
func evictSessions(tx *store.Tx, user string) (tags []string) {
	n := 0
	endSessions(tx, user, func(session *pb.Session) bool {
		if n++; n < maxSessions {
			return false
		}
		tags = append(tags, sessionTag(session.GetId()))
		tags = append(tags, dependents(tx, session.GetId())...)
		return true
	})
	return tags
}

// rehash returns the password's hash at today's price if the kept one had another.
// It is done at sign-in because only then the password is known, and is left to the
// next one if the machine is busy.
func (s *service) rehash(ctx context.Context, stale bool, password string) string {
	if !stale {
		return ""
	}
	phc, err := s.hasher.hash(ctx, password)
	if err != nil {
		return ""
	}
	return phc
}

// person is what a sign-in is decided by.
type person struct {
	profile    *pb.Profile
	credential *identitystorepb.Credential
	// member tells whether the person may be in the organization that was named.
	member bool
	// otherKinds are the kinds of hashes that there are beside those made here.
	otherKinds []passwordHash
	// device is the known one that the sign-in comes from, and guesses what a wrong
	// password counts for.
	device  string
	guesses []counter
	// choices are the organizations to choose from if none was named: all, or more
	// than one of them.
	choices []*pb.Organization
	named   string // organization to sign in to
	from    place
}

// maxChoices is how many organizations a refusal lists.
const maxChoices = 20

// findPerson reads what there is; of an unknown address that is nothing.
func findPerson(tx *store.Tx, email, organization string) person {
	var p person
	var ok bool
	if p.profile, ok = profileByEmail.First(tx, email); !ok {
		return person{}
	}
	id := p.profile.GetId()
	p.credential, _ = credentials.Get(tx, id)
	p.named = organization
	who := subject{organization: organization, user: id, password: passwordMark(p.credential.GetPasswordHash())}
	return findMemberships(tx, who, p)
}

// findMemberships adds where a person may be let in: whether to the organization of the
// subject, or if that has none, to which.
func findMemberships(tx *store.Tx, who subject, p person) person {
	if who.organization != "" {
		p.member = admit(tx, who, pathChallenge) == nil
		return p
	}
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(who.user)) {
		who.organization = u.GetOrganizationId()
		if o, ok := organizations.Get(tx, who.organization); ok && admit(tx, who, pathChallenge) == nil {
			p.choices = append(p.choices, o)
		}
		if len(p.choices) == maxChoices {
			break
		}
	}
	return p
}

// choose returns the organization to sign in to. Only who has shown the right
// password comes here, so it may say what there is to choose from.
func (p person) choose(named string) (string, error) {
	switch {
	case named != "" && p.member:
		return named, nil
	case named != "" || len(p.choices) == 0:
		return "", signInFailed()
	case len(p.choices) == 1:
		return p.choices[0].GetId(), nil
	}
	var list []string
	for _, o := range p.choices {
		list = append(list, fmt.Sprintf("%s (%s)", o.GetId(), o.GetName()))
	}
	return "", fault.Invalid("organization_id", "must name one of your organizations: %s", strings.Join(list, ", "))
}

// checkSurfaceOf asks what somebody may do, whether that opens the surface of a
// sign-in, and notes for the gate when.
func (s *service) checkSurfaceOf(ctx context.Context, p *proven) error {
	grants, settings, err := s.accessOf(ctx, p.organization, p.user)
	if err != nil {
		return err
	}
	if err := checkSurface(p.surface, grants); err != nil {
		return err
	}
	p.hours, err = s.hoursBy(ctx, p.organization, p.user, p.surface, grants, settings)
	return err
}

// checkSurface decides by the keys where a session may be opened. A session of a
// program is for whoever may have a session at all.
func checkSurface(surface pb.Surface, grants catalog.Set) error {
	key := appKey // Web includes it
	if surface == pb.Surface_SURFACE_WEB {
		key = webKey
	}
	if grants.Has(key) {
		return nil
	}
	name := strings.TrimPrefix(surface.String(), "SURFACE_")
	return fault.New(codes.PermissionDenied, faultpb.Reason_REASON_SURFACE_CLOSED,
		fmt.Sprintf("you cannot sign in here: sessions of %s need the permission %s", name, key),
		map[string]string{"surface": name, "grant": key.String()})
}

// signInFailed is the one answer to whatever is wrong with who signs in.
func signInFailed() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_SIGN_IN_FAILED,
		"e-mail address and password do not belong together, or not to an active member of the organization", nil)
}

// ResolveSession implements pb.SessionServiceServer.
func (s *service) ResolveSession(ctx context.Context, req *pb.ResolveSessionRequest) (*pb.ResolveSessionResponse, error) {
	hours, err := s.hoursOfToken(ctx, tokenID(req.GetTokenHash()))
	if err != nil {
		return nil, err
	}
	resp, err := read(ctx, s, func(tx *store.Tx) (*pb.ResolveSessionResponse, error) {
		t, _ := tokens.Get(tx, tokenID(req.GetTokenHash()))
		facts, err := resolve(tx, t, req.GetOrganizationId(), hours)
		return &pb.ResolveSessionResponse{Session: facts}, err
	})
	switch facts := resp.GetSession(); {
	case err != nil || facts.GetActorId() != "":
	case facts.GetOnlyMethod() != "":
		s.noteRead(ctx, facts.GetSessionId())
	case facts.Scopes != nil:
		s.noteUse(ctx, facts.GetSessionId())
	default:
		s.noteSeen(ctx, facts.GetSessionId())
	}
	return resp, err
}

// resolve answers whose token it is, in a call that names an organization or none; there is
// no token if t is nil. The hours are those of its session, if it has any.
func resolve(tx *store.Tx, t *identitystorepb.SessionToken, named string, hours *hours) (*pb.SessionFacts, error) {
	if key, ok := apiKeys.Get(tx, t.GetSessionId()); ok {
		return resolveKey(tx, key, t, named)
	}
	if c, ok := calendars.Get(tx, t.GetSessionId()); ok {
		return resolveCalendar(tx, c, named, hours)
	}
	session, ok := sessions.Get(tx, t.GetSessionId())
	if c, known := clients.Get(tx, t.GetSessionId()); known && !ok {
		return resolveClient(tx, c, t, named)
	}
	who := subject{
		organization: session.GetOrganizationId(), user: session.GetUserId(), session: t.GetSessionId(),
		actor: session.GetActorId(), actorSession: t.GetActorSessionId(), client: session.GetClientId(), accessToken: t.GetId(),
		hours: hours, named: named,
	}
	if err := admit(tx, who, sessionPath(session)); err != nil {
		return nil, err
	}
	return &pb.SessionFacts{
		SessionId: session.GetId(), UserId: session.GetUserId(), OrganizationId: session.GetOrganizationId(),
		Surface: session.GetSurface(), ExpireTime: timestamppb.New(askAgain(tx, session, t, hoursAt(tx, who))),
		ActorId: session.GetActorId(), ActorSessionId: t.GetActorSessionId(), Scopes: t.Scopes,
	}, nil
}

// sooner returns the earlier of two times, of which the second may be absent.
func sooner(a, b *timestamppb.Timestamp) *timestamppb.Timestamp {
	if b != nil && b.AsTime().Before(a.AsTime()) {
		return b
	}
	return a
}

// sessionPath is on which path the token of a session is shown.
func sessionPath(session *pb.Session) path {
	if session.GetActorId() != "" {
		return pathActing
	}
	if session.GetClientId() != "" {
		return pathClientCall
	}
	return pathSession
}
