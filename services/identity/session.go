package identity

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/catalog"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
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
	who, err := read(ctx, s, func(tx *store.Tx) (person, error) { return findPerson(tx, email, req.GetOrganizationId()), nil })
	if err != nil {
		return nil, err
	}
	ok, stale, err := s.hasher.verify(ctx, who.credential.GetPasswordHash(), req.GetPassword())
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, signInFailed()
	}
	organization, err := who.choose(req.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	// From here on the person is known: the journal names her, and her answers are hers.
	o := store.OriginOf(ctx)
	o.Caller = who.profile.GetId()
	ctx = store.WithOrigin(ctx, o)
	grants, err := s.grantsOf(ctx, organization, who.profile.GetId())
	if err != nil {
		return nil, err
	}
	if err := checkSurface(req.GetSurface(), grants); err != nil {
		return nil, err
	}
	return s.openSession(ctx, req, proven{
		credential: who.credential, organization: organization, rehashed: s.rehash(ctx, stale, req.GetPassword()),
	})
}

// proven is what a sign-in has shown.
type proven struct {
	credential   *identitystorepb.Credential // that the password belongs to
	organization string
	rehashed     string // the password's hash at today's price, or empty
}

// openSession keeps a session, as far as what was proven still holds.
//
// SECURITY: the token is no part of the answer that the store keeps. A repeat is
// answered with the first session, to which the new token does not belong.
func (s *service) openSession(ctx context.Context, req *pb.CreateSessionRequest, p proven) (*pb.CreateSessionResponse, error) {
	id := s.newID()
	secret, hash := token.New(sessionPrefix, s.random)
	var evicted []string
	resp, err := do(context.WithoutCancel(ctx), s, req, func(tx *store.Tx) (*pb.CreateSessionResponse, error) {
		user := p.credential.GetUserId()
		who := subject{organization: p.organization, user: user, password: p.credential.GetPasswordHash()}
		if err := admit(tx, who, pathSignIn); err != nil {
			return nil, err
		}
		if err := keepRehashed(tx, p); err != nil {
			return nil, err
		}
		evicted = evictSessions(tx, user)
		session := &pb.Session{
			Id: id, UserId: user, OrganizationId: p.organization, Surface: req.GetSurface(),
			CreateTime: timestamppb.New(tx.Now()), ExpireTime: timestamppb.New(tx.Now().Add(sessionLife)),
		}
		if err := sessions.Put(tx, session); err != nil {
			return nil, err
		}
		err := tokens.Put(tx, &identitystorepb.SessionToken{Id: tokenID(hash[:]), SessionId: id})
		return &pb.CreateSessionResponse{Session: session}, err
	})
	if err != nil || req.GetValidateOnly() {
		return resp, err
	}
	if len(evicted) > 0 {
		if err := s.tellVerifiers(context.WithoutCancel(ctx), evicted...); err != nil {
			return nil, err
		}
		s.hub.Publish(evicted...)
	}
	if resp.GetSession().GetId() == id {
		resp.Token = secret
	}
	return resp, nil
}

// keepRehashed keeps the password's new hash if there is one.
func keepRehashed(tx *store.Tx, p proven) error {
	kept, ok := credentials.Get(tx, p.credential.GetUserId())
	if !ok || p.rehashed == "" {
		return nil
	}
	kept.PasswordHash = p.rehashed
	return credentials.Put(tx, kept)
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
	// choices are the organizations to choose from if none was named: all, or more
	// than one of them.
	choices []*pb.Organization
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
	who := subject{organization: organization, user: id, password: p.credential.GetPasswordHash()}
	if organization != "" {
		p.member = admit(tx, who, pathSignIn) == nil
		return p
	}
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(id)) {
		who.organization = u.GetOrganizationId()
		if o, ok := organizations.Get(tx, who.organization); ok && admit(tx, who, pathSignIn) == nil {
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
		fmt.Sprintf("you cannot sign in here: a %s session needs the permission %s", name, key),
		map[string]string{"surface": name, "grant": key.String()})
}

// signInFailed is the one answer to whatever is wrong with who signs in.
func signInFailed() error {
	return fault.New(codes.Unauthenticated, faultpb.Reason_REASON_SIGN_IN_FAILED,
		"e-mail address and password do not belong together, or not to an active member of the organization", nil)
}

// EndSession implements pb.SessionServiceServer.
func (s *service) EndSession(ctx context.Context, req *pb.EndSessionRequest) (*pb.EndSessionResponse, error) {
	caller := authz.Caller(ctx)
	id := req.GetId()
	if id == "" {
		id = caller.SessionID
	}
	if id != caller.SessionID && !caller.InPerson() {
		return nil, inPersonOnly()
	}
	resp := &pb.EndSessionResponse{}
	end := func(ctx context.Context) (err error) {
		resp, err = do(ctx, s, req, func(tx *store.Tx) (*pb.EndSessionResponse, error) {
			session, ok := sessions.Get(tx, id)
			if !ok || session.GetUserId() != caller.ID {
				return nil, fault.NotFound("session", id)
			}
			if err := sessions.Match(session, req.GetEtag()); err != nil {
				return nil, err
			}
			endSession(tx, id)
			return resp, noteEnd(tx, id)
		})
		return err
	}
	if req.GetValidateOnly() {
		return resp, end(ctx)
	}
	if err := s.shutOut(ctx, end, sessionTag(id)); err != nil {
		return nil, err
	}
	return resp, nil
}

// ListMySessions implements pb.SessionServiceServer.
func (s *service) ListMySessions(ctx context.Context, req *pb.ListMySessionsRequest) (*pb.ListMySessionsResponse, error) {
	return read(ctx, s, func(tx *store.Tx) (*pb.ListMySessionsResponse, error) {
		live := func(session *pb.Session) bool { return session.GetExpireTime().AsTime().After(tx.Now()) }
		page, next, err := store.Page(tx, req, live, sessionsByUser.Range(authz.Caller(ctx).ID))
		return &pb.ListMySessionsResponse{Sessions: page, NextPageToken: next}, err
	})
}

// ResolveSession implements pb.SessionServiceServer.
func (s *service) ResolveSession(ctx context.Context, req *pb.ResolveSessionRequest) (*pb.ResolveSessionResponse, error) {
	resp, err := read(ctx, s, func(tx *store.Tx) (*pb.ResolveSessionResponse, error) {
		t, _ := tokens.Get(tx, tokenID(req.GetTokenHash()))
		facts, err := resolve(tx, t)
		return &pb.ResolveSessionResponse{Session: facts}, err
	})
	if err == nil && resp.GetSession().Scopes != nil && resp.GetSession().GetActorId() == "" {
		s.noteUse(ctx, resp.GetSession().GetSessionId())
	}
	return resp, err
}

// resolve answers whose token it is; there is none if t is nil.
func resolve(tx *store.Tx, t *identitystorepb.SessionToken) (*pb.SessionFacts, error) {
	if key, ok := apiKeys.Get(tx, t.GetSessionId()); ok {
		return resolveKey(tx, key, t)
	}
	session, ok := sessions.Get(tx, t.GetSessionId())
	if c, known := clients.Get(tx, t.GetSessionId()); known && !ok {
		return resolveClient(tx, c, t)
	}
	who := subject{
		organization: session.GetOrganizationId(), user: session.GetUserId(), session: t.GetSessionId(),
		actor: session.GetActorId(), actorSession: t.GetActorSessionId(), client: session.GetClientId(), accessToken: t.GetId(),
	}
	if err := admit(tx, who, sessionPath(session)); err != nil {
		return nil, err
	}
	return &pb.SessionFacts{
		SessionId: session.GetId(), UserId: session.GetUserId(), OrganizationId: session.GetOrganizationId(),
		Surface: session.GetSurface(), ExpireTime: sooner(session.GetExpireTime(), t.GetExpireTime()),
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
	return pathSession
}
